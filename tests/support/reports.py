"""Reports of tests, as few as tell everything: reading six messages for each of 20,000 tests kept pytest's main process busy."""

import pytest
from _pytest.runner import runtestprotocol

#: Seconds; what takes less is not in the list of --durations either.
_NOTICEABLE = 0.005


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """In a test process: a set-up or a clean-up is reported if anything of the test failed, was skipped or took time."""
    if not hasattr(item.config, "workerinput"):
        return None
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    passed = all(report.passed for report in reports)
    for report in reports:
        if report.when == "call" or not passed or report.duration >= _NOTICEABLE:
            item.ihook.pytest_runtest_logreport(report=report)
    return True
