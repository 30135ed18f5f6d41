"""What a sender and a cluster do to a pod of tests/pods: deliver, go on delivering while it stops, count what arrived."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
from pods import Pod

from sidecar.config.presets import load_preset
from sidecar.secret import Secret
from sidecar.verify.sign import sign

BODY = b'{"event":"ping"}'


def deliver(pod: Pod, key: str, body: bytes = BODY, signed: bytes = BODY) -> int:
    """The answer to a delivery that is signed as GitHub does."""
    headers = sign(load_preset("github"), Secret("test", key.encode()), body=signed, now=time.time())
    return httpx.post(f"http://{pod.address}:8080/hooks", content=body, headers=headers, timeout=10).status_code


def taken(receiver: Pod) -> int:
    """Deliveries that nginx has logged."""
    return receiver.log("receiver").count('"POST ')


def wait_for(condition: Callable[[], bool], pod: Pod, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, pod.log("webhook-sidecar")
        time.sleep(0.1)


@contextmanager
def load(pod: Pod, key: str, goes_on: threading.Event, senders: int = 4) -> Iterator[Counter[int]]:
    """Signed deliveries, one after the other from each sender, as long as `goes_on` is set. Yields the answers by status."""
    answers = Counter[int]()
    headers = sign(load_preset("github"), Secret("test", key.encode()), body=BODY, now=time.time())

    def send() -> None:
        with httpx.Client(timeout=10) as client:
            while goes_on.is_set():
                try:
                    status = client.post(f"http://{pod.address}:8080/hooks", content=BODY, headers=headers).status_code
                except httpx.TransportError:
                    status = 0
                answers[status] += 1

    goes_on.set()
    threads = [threading.Thread(target=send) for _ in range(senders)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1)
        yield answers
    finally:
        goes_on.clear()
        for thread in threads:
            thread.join(20)


@contextmanager
def load_while_ready(pod: Pod, key: str) -> Iterator[Counter[int]]:
    """Senders go on until half a second after the pod says that it is not ready: what a load balancer takes to act."""
    goes_on = threading.Event()

    def watch() -> None:
        while pod.status("/readyz") == 200:
            time.sleep(0.1)
        time.sleep(0.5)
        goes_on.clear()

    with load(pod, key, goes_on) as answers:
        watching = threading.Thread(target=watch)
        watching.start()
        yield answers
        watching.join(20)
