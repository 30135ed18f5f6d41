"""A short run of the request fuzzer; `make fuzz` makes a long one."""

import asyncio
from pathlib import Path

from fuzz_requests import fuzz


def test_2000_mutated_requests_break_nothing(tmp_path: Path) -> None:
    violations, statuses = asyncio.run(fuzz(count=2000, seed=20261125, directory=tmp_path))
    assert not violations, f"{len(violations)} violations\n" + "\n".join(violations[:10])
    assert {200, 400, 403, 408} <= set(statuses)  # it does reach every stage
