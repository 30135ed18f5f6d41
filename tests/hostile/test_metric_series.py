"""What strangers write never makes a metric series."""

import asyncio
import random
import re
from pathlib import Path

from hostile_cases import BODY
from hostile_wire import Receiver, Sidecar, config, mac, running, send

REQUESTS = 10_000
BATCH = 20
WORDS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%/{}=\"'<>,"


def series(exposition: str) -> set[str]:
    """Names with their labels."""
    return {line.rpartition(" ")[0] for line in exposition.splitlines() if line and not line.startswith("#")}


def stranger(choose: random.Random, *, last: bool) -> bytes:
    """A request with a path, a method, a user agent and addresses of its own; one whose method is none ends the connection."""

    def word() -> bytes:
        return "".join(choose.choices(WORDS, k=choose.randrange(1, 30))).encode()

    path = choose.choice([b"/" + word(), b"/webhooks/begini", b"/webhooks/" + word(), b"/webhooks/allowed?" + word()])
    method = choose.choice([b"GET", b"POST", b"PUT", b"DELETE", b"PURGE", b"REPORT", b"TRACE"])
    if last:
        method = word()[:9].upper()
    sent = choose.choice([b"0" * 128, word(), mac(BODY)])
    hops = b"%d.%d.%d.%d" % tuple(choose.randrange(256) for _ in range(4))
    fields = (word(), hops, sent, word(), word(), len(BODY), BODY)
    return (
        b"%b %b HTTP/1.1\r\nHost: a\r\nUser-Agent: %b\r\nX-Forwarded-For: %b\r\nX-Signature: %b\r\nX-GitHub-Event: %b\r\n"
        b"X-GitHub-Delivery: %b\r\nContent-Length: %d\r\n\r\n%b" % (method, path, *fields)
    )


def test_10000_strangers_make_no_series(tmp_path: Path) -> None:
    async def run() -> tuple[set[str], set[str], int]:
        receiver = Receiver()
        await receiver.start()
        choose = random.Random(7)
        crowd = asyncio.Semaphore(60)

        async def batch(sidecar: Sidecar, number: int) -> None:
            async with crowd:
                raw = [stranger(choose, last=place == BATCH - 1) for place in range(BATCH)]
                await send(sidecar, [b"".join(raw)], number=number, quiet=5)

        with running(config(receiver.url), tmp_path) as sidecar:
            await sidecar.wait_serving()
            before = series(await sidecar.scrape())
            descriptors = sidecar.descriptors()
            await asyncio.gather(*(batch(sidecar, number) for number in range(1, REQUESTS // BATCH + 1)))
            await sidecar.back_to_start(descriptors)
            text = await sidecar.scrape()
            await sidecar.stop()
        await receiver.stop()
        counted = re.findall(r"webhook_sidecar_deliveries_total\{.*\} (\S+)", text)
        return before, series(text), sum(int(float(each)) for each in counted)

    before, after, counted = asyncio.run(run())
    assert after == before
    assert len(before) > 100
    assert counted >= REQUESTS - REQUESTS // BATCH  # garbage behind requests under way only ends the connection
