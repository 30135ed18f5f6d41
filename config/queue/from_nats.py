"""Sends stored deliveries to the receiver, one after another, again and again until it responds 2xx.

python3 from_nats.py [RECEIVER] [NATS-URL]        needs nats-py
"""

import asyncio
import sys
import urllib.request
from http.client import HTTPException

import nats
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig

RECEIVER = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:3001"
SERVER = sys.argv[2] if len(sys.argv) > 2 else "nats://127.0.0.1:4222"
#: Seconds before the next try, by the number of tries so far.
PAUSES = (1, 5, 30, 120, 600)
#: Seconds that the receiver may take.
PATIENCE = 30


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would turn the delivery into a GET."""

    def redirect_request(self, *_: object) -> None:
        return None


open_url = urllib.request.build_opener(NoRedirects, urllib.request.ProxyHandler({})).open


def send(message: Msg) -> None:
    """Raises `OSError` or `HTTPException` unless the receiver responds 2xx."""
    headers = dict(message.headers or {})
    path = headers.pop("Webhook-Path", "/")
    request = urllib.request.Request(f"{RECEIVER}{path}", message.data, headers, method="POST")  # noqa: S310
    open_url(request, timeout=PATIENCE).close()


async def main() -> None:
    client = await nats.connect(SERVER, max_reconnect_attempts=-1)
    config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, ack_wait=2 * PATIENCE)
    while True:
        try:
            stored = await client.jetstream().pull_subscribe("webhooks", durable="receiver", config=config)
            break
        except nats.js.errors.NotFoundError:  # until to_nats.py has made the stream
            await asyncio.sleep(1)
    while True:
        try:
            (message,) = await stored.fetch(1, timeout=60)
        except nats.errors.TimeoutError:
            continue
        try:
            await asyncio.to_thread(send, message)
            await message.ack()
        except (OSError, HTTPException) as error:
            tries = message.metadata.num_delivered
            print(f"try {tries} failed: {error}", file=sys.stderr, flush=True)
            await message.nak(delay=PAUSES[min(tries, len(PAUSES)) - 1])


asyncio.run(main())
