"""Waiting for what another process or thread is about to do."""

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

#: Seconds that anything may take that must happen, on a busy machine.
PATIENCE = 30.0

T = TypeVar("T")


class WaitUntil(Protocol):
    """The fixture `wait_until`."""

    def __call__(self, condition: Callable[[], T | None], what: str = ..., patience: float = ...) -> T: ...


def until(condition: Callable[[], T | None], what: str = "the condition", patience: float = PATIENCE) -> T:
    """Waits for `condition()` to be true and returns its value.

    The longer it takes, the less often it is called: most conditions request a page of the sidecar, which costs both sides CPU.
    """
    end = time.monotonic() + patience
    pause = 0.005
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what} did not come true within {patience:g} s"
        time.sleep(pause)
        pause = min(pause * 1.3, 0.1)
