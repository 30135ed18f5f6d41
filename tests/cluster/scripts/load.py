"""The senders of the cluster test: signed deliveries at a steady rate, half on kept connections, half on new ones.

python load.py URL RATE SECONDS STOP [SECRET_FILE]

It ends after SECONDS, or once the file STOP exists, and prints one JSON object: how many were sent, and how often each outcome came (a
status, or the name of an error). The secret is read again for every delivery, as a provider uses a new one from some moment on. Without
SECRET_FILE it sends GET, for an application without the sidecar. Run by the sidecar's own image: standard library only.
"""

import hashlib
import hmac
import http.client
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

SENDERS = 10
#: Longer than the sidecar waits for a receiver.
TIMEOUT = 70.0


class Load:
    def __init__(self, url: str, rate: float, seconds: float, stop: Path, secret: Path | None) -> None:
        self.parts = urlsplit(url)
        self.pause = SENDERS / rate
        self.until = time.monotonic() + seconds
        self.stop = stop
        self.secret = secret
        self.outcomes: Counter[str] = Counter()
        self.first: dict[str, float] = {}
        self.lock = threading.Lock()

    def run(self) -> dict[str, object]:
        began = time.time()
        threads = [threading.Thread(target=self.send, args=(number, number % 2 == 0)) for number in range(SENDERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        first = {outcome: round(when - began, 2) for outcome, when in self.first.items()}
        return {"sent": self.outcomes.total(), "outcomes": dict(self.outcomes), "first_after_seconds": first}

    def send(self, number: int, keeps: bool) -> None:
        time.sleep(self.pause * number / SENDERS)
        connection: http.client.HTTPConnection | None = None
        due = time.monotonic()
        while time.monotonic() < self.until and not self.stop.exists():
            if connection is None:
                connection = http.client.HTTPConnection(
                    self.parts.hostname or "", self.parts.port or 80, timeout=TIMEOUT
                )
            outcome, reusable = self.deliver(connection)
            with self.lock:
                self.outcomes[outcome] += 1
                self.first.setdefault(outcome, time.time())
            if not (keeps and reusable):
                connection.close()
                connection = None
            due += self.pause
            time.sleep(max(due - time.monotonic(), 0))

    def deliver(self, connection: http.client.HTTPConnection) -> tuple[str, bool]:
        """The outcome, and whether the connection may be used again."""
        body = json.dumps({"at": time.time()}).encode()
        try:
            if self.secret is None:
                connection.request("GET", self.parts.path or "/")
            else:
                mac = hmac.new(self.secret.read_bytes().strip(), body, hashlib.sha256).hexdigest()
                headers = {"X-Hub-Signature-256": f"sha256={mac}", "Content-Type": "application/json"}
                connection.request("POST", self.parts.path or "/", body, headers)
            response = connection.getresponse()
            response.read()
            return str(response.status), not response.will_close
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__, False


def main(arguments: list[str]) -> None:
    url, rate, seconds, stop, *secret = arguments
    load = Load(url, float(rate), float(seconds), Path(stop), Path(secret[0]) if secret else None)
    print(json.dumps(load.run()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
