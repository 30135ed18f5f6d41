"""Many senders with large bodies at once: does memory stay within its bound, and does each sender get a true response?

python tests/load/burst.py [--senders 500] [--size 5242880] [--chunk N] [--workers N] [--most 250]

All connect, then all send at once into `limits.buffer: 64MiB`. It passes if the peak of the process's resident memory was below
`--most` MB, every sender got 2xx or 503, each delivery with 2xx reached the receiver once and whole, and nothing else did. With
`--chunk` the bodies are chunked, in chunks of N bytes.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import time
import zlib
from collections import Counter

import uvloop
from rig import Receiver, Sidecar, read_answer, signed, verdict


def request(ident: str, body: bytes, chunk: int) -> bytes:
    raw = signed(body, ident=ident)
    if not chunk:
        return raw
    head = raw[: len(raw) - len(body)].replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked")
    pieces = (body[at : at + chunk] for at in range(0, len(body), chunk))
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def main(arguments: argparse.Namespace) -> int:
    receiver = await Receiver().start()
    limits = {"buffer": "64MiB", "body": "8MiB", "body_timeout": "120s", "connections": arguments.senders + 100}
    sidecar = await Sidecar(receiver.port, workers=arguments.workers, limits=limits).serving()
    before = sidecar.resident()
    # Few different bodies, so that the memory is the sidecar's.
    bodies = [os.urandom(arguments.size) for _ in range(8)]
    requests = [request("{}", body, arguments.chunk) for body in bodies]
    answers, started = {}, asyncio.Event()

    async def sender(number: int) -> None:
        reader, writer = await asyncio.open_connection(*sidecar.address, limit=1 << 14)
        await started.wait()
        raw = requests[number % len(bodies)]
        head, rest = raw[: raw.index(b"\r\n\r\n")], raw[raw.index(b"\r\n\r\n") :]
        answering = asyncio.create_task(read_answer(reader))
        writer.write(head.replace(b"{}", b"%d" % number))
        with contextlib.suppress(OSError):
            for at in range(0, len(rest), 1 << 16):
                if answering.done():
                    break
                writer.write(rest[at : at + (1 << 16)])
                await writer.drain()
        answer = await answering
        answers[number] = answer and answer[0]
        writer.close()

    senders = [asyncio.create_task(sender(number)) for number in range(arguments.senders)]
    await asyncio.sleep(1)
    began = time.monotonic()
    started.set()
    most = before
    while not all(task.done() for task in senders):
        most = max(most, sidecar.resident())
        await asyncio.sleep(0.02)
    await asyncio.gather(*senders)
    if arguments.workers == 1:
        most = max(most, sidecar.peak())
    counted = Counter(answers.values())
    print(
        f"{arguments.senders} senders, {arguments.size} bytes each, {time.monotonic() - began:.1f} s: {dict(counted)}"
    )
    print(f"resident memory {before / 1e6:.0f} MB before, at most {most / 1e6:.0f} MB")
    await asyncio.sleep(0.5)
    held = await sidecar.metric("webhook_sidecar_buffered_bytes ")
    status = sidecar.stop()
    accepted = {str(number) for number, answer in answers.items() if answer == 200}
    problems = [f"{count} answers were {answer}" for answer, count in counted.items() if answer not in (200, 503)]
    if most > arguments.most * 1e6:
        problems.append(f"more than {arguments.most} MB")
    if not accepted:
        problems.append("nothing was accepted")
    if accepted != set(receiver.seen) or set(receiver.seen.values()) != {1}:
        problems.append("what was accepted and what the receiver saw differ")
    if any(zlib.crc32(bodies[int(ident) % len(bodies)]) != crc for ident, crc in receiver.checksums.items()):
        problems.append("a body was changed")
    if held or status:
        problems.append(f"{held:.0f} bytes are still held, exit status {status}")
    return verdict(problems)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--senders", type=int, default=500)
    parser.add_argument("--size", type=int, default=5 * 1024 * 1024)
    parser.add_argument("--chunk", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--most", type=float, default=250)
    sys.exit(uvloop.run(main(parser.parse_args())))
