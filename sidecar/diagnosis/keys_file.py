"""Published keys from a file, for `explain --keys`: nothing is fetched.

    {"https://acme.example/jwks.json": {"content_type": "application/json", "content": "..."}}

A URL that ends in `*` covers every other URL below it, and `URL#id` is the POST that asks for that id. `status` is
200 by default; any other one means that there is no such key.
"""

import json
from collections.abc import Mapping
from typing import Any

from sidecar.verify.published import Document, KeySource


class KeysFileError(ValueError):
    """A file that isn't in this form; the message says what it should hold."""


class KeysFile:
    """A `PublishedKeys`."""

    def __init__(self, text: bytes) -> None:
        """Raises `KeysFileError`."""
        try:
            served = json.loads(text)
        except ValueError:
            served = None
        if not isinstance(served, dict) or not all(isinstance(each, Mapping) for each in served.values()):
            raise KeysFileError('holds no keys; write {"https://...": {"content_type": "...", "content": "..."}}')
        self._served: dict[str, Mapping[str, Any]] = served
        self._made: dict[str, Document | None] = {}
        self.asked: list[KeySource] = []

    def get(self, source: KeySource) -> Document | None:
        name = f"{source.url}#{source.id}" if source.post else source.url
        self.asked.append(source)
        if name not in self._made:
            self._made[name] = self._read(name)
        return self._made[name]

    def _read(self, name: str) -> Document | None:
        served = self._served.get(name)
        if served is None:
            others = [key for key in self._served if key.endswith("*") and name.startswith(key[:-1])]
            served = self._served[max(others, key=len)] if others else None
        if served is None:
            return None
        content = served.get("content")
        if served.get("status", 200) != 200 or not isinstance(content, str):
            return Document(b"", 0.0)
        return Document(content.encode(), 0.0, str(served.get("content_type", "")))

    def used(self, source: KeySource) -> None:
        """Does nothing: a file drops no keys."""

    async def refresh(self, source: KeySource) -> bool:
        return False
