"""What the pages say is what the program has."""

from pathlib import Path

import pytest

from sidecar.diagnosis import REMEDIES, Hint
from sidecar.handshake import Result
from sidecar.outcomes import Reason

DOCS = Path(__file__).parents[2] / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("hint", Hint)
def test_every_hint_has_its_remedy_and_its_row(hint: Hint) -> None:
    assert REMEDIES[hint]
    assert f"| `{hint}` |" in page("troubleshooting.md")


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_its_row(reason: Reason) -> None:
    assert f"`{reason}`" in page("reasons.md")


@pytest.mark.parametrize("result", Result)
def test_every_result_of_a_handshake_is_explained(result: Result) -> None:
    assert f"`{result}`" in page("metrics.md")
