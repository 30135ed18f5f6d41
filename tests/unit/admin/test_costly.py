"""Texts that take long to write: once for all who ask, and never an old one about something new."""

import asyncio
import json
from typing import Any

import pytest

from sidecar.admin.costly import FRESH, CostlyText, json_text


class Texts:
    def __init__(self) -> None:
        self.now = 0.0
        self.written = 0
        self.costly = CostlyText(lambda: self.now)

    async def write(self) -> str:
        await asyncio.sleep(0)
        self.written += 1
        return f"text {self.written}"

    async def get(self, about: object) -> str:
        return await self.costly.get(about, self.write)


def test_a_text_is_written_once_for_all_who_ask_within_a_second() -> None:
    async def play() -> None:
        texts, about = Texts(), object()
        assert set(await asyncio.gather(*(texts.get(about) for _ in range(9)))) == {"text 1"}
        texts.now = FRESH - 0.01
        assert await texts.get(about) == "text 1"
        texts.now = FRESH
        assert await texts.get(about) == "text 2"

    asyncio.run(play())


def test_a_text_about_something_new_is_written_at_once() -> None:
    async def play() -> None:
        texts = Texts()
        assert await texts.get(object()) == "text 1"
        assert await texts.get(object()) == "text 2"

    asyncio.run(play())


def test_a_text_that_could_not_be_written_is_tried_again() -> None:
    async def fail() -> str:
        raise OSError("disk")

    async def play() -> None:
        texts, about = Texts(), object()
        with pytest.raises(OSError, match="disk"):
            await texts.costly.get(about, fail)
        assert await texts.get(about) == "text 1"

    asyncio.run(play())


def test_json_is_that_of_the_library() -> None:
    value: dict[str, Any] = {"a": [1, 2.5, None, True, {"é": "\u2028<"}], "b": {}}
    assert json.loads(json_text(value)) == value
    with pytest.raises(ValueError, match="JSON compliant"):
        json_text(float("nan"))
