"""Stands behind the sidecar: stores each delivery in NATS JetStream, and responds 200 only when it is stored.

python3 to_nats.py [PORT] [NATS-URL]        needs nats-py
"""

import asyncio
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import nats
from nats.js.api import StreamConfig

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
SERVER = sys.argv[2] if len(sys.argv) > 2 else "nats://127.0.0.1:4222"
#: Set again when the delivery is sent on. NATS obeys headers that begin with Nats-, and these a sender could add.
DROPPED = ("connection", "content-length", "host", "keep-alive", "transfer-encoding", "webhook-path", "nats-")
#: Where providers put the id of a delivery. JetStream drops a second message with the same id for two minutes.
IDS = ("X-GitHub-Delivery", "webhook-id", "X-Shopify-Event-Id")

loop = asyncio.new_event_loop()


class Delivery(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length")
        body = self._chunks() if length is None else self.rfile.read(int(length))
        headers = {name: value for name, value in self.headers.items() if not name.lower().startswith(DROPPED)}
        headers["Webhook-Path"] = self.path
        for name in IDS:
            if name in self.headers:
                headers["Nats-Msg-Id"] = self.headers[name]
        stored = stream.publish("webhooks", body, headers=headers, timeout=5)
        try:
            asyncio.run_coroutine_threadsafe(stored, loop).result()
            self._respond(200)
        except Exception as error:  # whatever it is, the delivery is not stored: the provider must know
            print(f"not stored: {error!r}", file=sys.stderr, flush=True)
            self._respond(503)

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _respond(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """The sidecar has a log of deliveries."""


async def connect() -> nats.js.JetStreamContext:
    client = await nats.connect(SERVER, max_reconnect_attempts=-1)
    made = client.jetstream()
    await made.add_stream(StreamConfig(name="webhooks", subjects=["webhooks"]))  # on disk, which is the default
    return made


stream = loop.run_until_complete(connect())
threading.Thread(target=loop.run_forever, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", PORT), Delivery).serve_forever()
