"""Plays the sender and the cluster for a pod of tests/pods: delivers, keeps delivering while it stops, counts what arrived."""

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
    """The response to a delivery that is signed like GitHub's."""
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
    """Senders send signed deliveries, one after another, while `goes_on` is set. Yields the number of responses by status."""
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
    """Senders continue until half a second after the pod is no longer ready: a load balancer takes that long to react."""
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
