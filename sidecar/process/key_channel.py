"""Published keys between the main process, which fetches them, and a worker, which verifies with them.

main -> worker    {"do": "keys", "entries": [...], "dropped": [...]}    after each fetch; all of them at the start
                  {"do": "keys", "denied": SOURCE, "pause": SECONDS}    nothing is fetched now
worker -> main    {"is": "keys wanted", "source": SOURCE, "has": TIME of its document, or 0}
                  {"is": "keys used", "sources": [...]}
                  {"is": "confirm", "route": NAME, "url": URL}          call what confirms a subscription
"""

import asyncio
import math
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from sidecar.process.channel import Channel
from sidecar.process.key_documents import Entry, KeyDocuments
from sidecar.process.key_store import Fetching, KeyStore
from sidecar.verify.published import ClientName, Document, KeySource

#: How often a worker reports which documents it has used, seconds.
REPORT_SECONDS = 5.0
#: Seconds after which a request is repeated if the main process has not responded.
LOST_SECONDS = 30.0


class KeyRelay:
    """The main process's side, for all workers."""

    def __init__(self, store: KeyStore, send: Callable[[Mapping[str, object]], None]) -> None:
        """`send` sends a message to every worker."""
        self._store = store
        self._send = send
        store.on_fetched.append(self._fetched)
        store.on_dropped.append(self._dropped)

    def everything(self) -> dict[str, object]:
        """The message for a worker that starts."""
        entries = [pack_entry(entry, self._store.seconds_ago(entry)) for entry in self._store.entries.values()]
        return {"do": "keys", "entries": entries}

    def receive(self, message: Mapping[str, Any], respond: Callable[[Mapping[str, object]], None]) -> None:
        """Handles a message of a worker, which `respond` sends to."""
        if message["is"] == "confirm":
            self._store.confirm(message["route"], message["url"])
            return
        if message["is"] == "keys used":
            for packed in message["sources"]:
                self._store.note_used(unpack_source(packed))
            return
        source = unpack_source(message["source"])
        entry = self._store.entries.get(source)
        if entry is not None and entry.document is not None and entry.document.fetched > message["has"]:
            # The worker's request and our message crossed.
            respond({"do": "keys", "entries": [pack_entry(entry, self._store.seconds_ago(entry))]})
            return
        if not self._store.request(source):
            respond({"do": "keys", "denied": message["source"], "pause": self._store.pause(source)})

    def _fetched(self, entry: Fetching) -> None:
        self._send({"do": "keys", "entries": [pack_entry(entry, self._store.seconds_ago(entry))]})

    def _dropped(self, source: KeySource) -> None:
        self._send({"do": "keys", "dropped": [pack_source(source)]})


class WorkerKeys(KeyDocuments[Entry]):
    """The worker's side."""

    def __init__(self, now: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(now, monotonic)
        self._channel: Channel | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._asked: dict[KeySource, float] = {}  # monotonic seconds
        self._paused: dict[str, float] = {}  # when new ids of a source may be requested again, monotonic seconds

    def start(self, channel: Channel) -> None:
        """Asks the main process for what is missing from now on."""
        self._channel = channel
        self._reporting = asyncio.create_task(self._report(channel))

    def stop(self) -> None:
        """From now on only the documents that are here are used."""
        self._channel = None
        if self._reporting is not None:
            self._reporting.cancel()

    def receive(self, message: Mapping[str, Any]) -> None:
        """Handles a message of the main process."""
        for packed in message.get("entries", ()):
            self._take(packed)
        for packed in message.get("dropped", ()):
            self._forget(unpack_source(packed))
        if "denied" in message:
            source = unpack_source(message["denied"])
            if message["pause"]:
                self._paused[source.name] = self._monotonic() + message["pause"]
            entry = self.entries.get(source)
            if entry is not None:
                entry.wake()
                self._asked.pop(source, None)
                if entry.document is None and not source.listed:
                    self._forget(source)

    def confirm(self, route: str, url: str) -> bool:
        """Has the main process call the address that confirms a subscription."""
        if self._channel is None:
            return False
        self._channel.send({"is": "confirm", "route": route, "url": url})
        return True

    async def _report(self, channel: Channel) -> None:
        """Reports the documents that were used, until cancelled."""
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            used = self.take_used()
            if used:
                channel.send({"is": "keys used", "sources": [pack_source(source) for source in used]})

    def _find(self, source: KeySource) -> Entry | None:
        entry = self.entries.get(source)
        if entry is None:
            if not source.listed and self._paused.get(source.name, -math.inf) > self._monotonic():
                return None
            return Entry(source)  # kept only if it is asked for
        if entry.fetching and self._monotonic() - self._asked.get(source, -math.inf) > LOST_SECONDS:
            entry.wake()
        return entry

    def _ask(self, entry: Entry) -> bool:
        if self.is_early(entry) or self._channel is None:
            return False
        entry.fetching = True
        self.entries[entry.source] = entry
        self._asked[entry.source] = self._monotonic()
        has = entry.document.fetched if entry.document is not None else 0.0
        self._channel.send({"is": "keys wanted", "source": pack_source(entry.source), "has": has})
        return True

    def _take(self, packed: Mapping[str, Any]) -> None:
        source = unpack_source(packed["source"])
        entry = self.entries.setdefault(source, Entry(source))
        if packed["content"] is None:
            entry.document = None
        else:
            document = Document(b64decode(packed["content"]), packed["fetched"], packed["type"])
            if entry.document != document:  # otherwise the verifier's parsed keys stay in use
                entry.document = document
        entry.until, entry.failed = packed["until"], packed["failed"]
        entry.asked = self._monotonic() - packed["ago"] if packed["ago"] is not None else -math.inf
        self._asked.pop(source, None)
        entry.wake()

    def _forget(self, source: KeySource) -> None:
        entry = self.entries.pop(source, None)
        self._asked.pop(source, None)
        if entry is not None:
            entry.wake()


def pack_entry(entry: Entry, ago: float) -> dict[str, object]:
    """`ago`: seconds since the last fetch that a delivery waited for; infinite: never."""
    document = entry.document
    return {
        "source": pack_source(entry.source),
        "content": b64encode(document.content).decode() if document is not None else None,
        "fetched": document.fetched if document is not None else 0.0,
        "type": document.content_type if document is not None else "",
        "until": entry.until,
        "failed": entry.failed,
        "ago": ago if math.isfinite(ago) else None,
    }


def pack_source(source: KeySource) -> dict[str, object]:
    return asdict(source) | {"post": b64encode(source.post).decode()}


def unpack_source(packed: Mapping[str, Any]) -> KeySource:
    lists: dict[str, Any] = {
        "client": ClientName(*packed["client"]) if packed["client"] is not None else None,
        "headers": tuple((name, value) for name, value in packed["headers"]),
        "hosts": tuple(packed["hosts"]),
    }
    return KeySource(**dict(packed) | {"post": b64decode(packed["post"])} | lists)
