"""The program under test: a real `sidecar serve` process, watched from outside.

Nothing of the package is imported. The program is controlled by its configuration, its sockets and signals; it is observed by its
bytes, log lines, metrics and exit status.

Every process that a test starts is stopped by SIGTERM and must then have exited with 0, written nothing to stderr, logged
no bug, shown no secret, signature or body, and counted in its metrics exactly the deliveries that its log has lines for.
"""

import copy
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import leak_watch
from client import Client, Response
from craft import BODY_MARK, SECRETS, TRUSTED, Craft
from preloaded import AT_START, Preloaded
from prometheus_client.parser import text_string_to_metric_families
from receiver import Receiver
from waiting import PATIENCE, until

#: The counter of each event of the log that is counted.
COUNTED = {"delivery": "deliveries_total", "authorization": "authorizations_total"}

#: A configuration, or a part of it, as a test writes it.
Config = dict[str, Any]


def base_config(receivers: Mapping[str, Receiver], directory: Path) -> Config:
    """One route of each kind. Times are short, because tests wait for them."""

    def begini(name: str, **more: Any) -> Config:
        return {
            "name": name,
            "path": f"/webhooks/{name}",
            "verify": "begini",
            "secrets": [{"id": "current", "env": "BEGINI_API_KEY"}],
        } | more

    def preset(name: str) -> Config:
        return {
            "name": name,
            "path": f"/webhooks/{name}",
            "verify": name,
            "secrets": [{"env": f"{name.upper()}_SECRET"}],
        }

    return {
        "listen": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "upstream": receivers["plain"].url,
        "trusted_proxies": [f"{TRUSTED}/32"],
        "limits": {"header_timeout": "3s", "body_timeout": "3s"},
        "timeouts": {"connect": "400ms", "response": "3s", "total": "8s", "idle": "2s"},
        "drain": "700ms",
        "routes": [
            begini(
                "begini",
                secrets=[
                    {"id": "current", "env": "BEGINI_API_KEY"},
                    {"id": "previous", "file": str(directory / "previous")},
                ],
            ),
            begini("allowed", allow=["203.0.113.0/24", "2001:db8::/32"]),
            begini("shadow", mode="shadow", allow=["127.0.0.1/32"]),
            begini("small", limits={"body": 1000}),
            begini("polite", reject={"status": 401, "body": '{"error":"no"}'}),
            begini("tls", upstream=receivers["tls"].url),
            begini("socket", upstream=receivers["socket"].url),
            begini("down", upstream=receivers["down"].url),
            preset("github"),
            preset("shopify"),
            preset("slack"),
            {
                "path": "/webhooks/acme",
                "verify": {
                    "signature": {"header": "X-Acme-Signature", "prefix": "v1="},
                    "timestamp": {"header": "X-Acme-Timestamp", "unit": "ms", "tolerance": "1m"},
                    "signed": "{timestamp}.{header:X-Acme-Id}.{body}",
                },
                "secrets": [{"env": "ACME_SECRET"}],
            },
            begini("below", path="/hooks/*", methods=["POST", "PUT"]),
            {"name": "network", "path": "/network", "verify": "none", "allow": ["127.0.0.3/32"]},
            {"name": "probe", "path": "/healthz", "open": True},
        ],
    }


def merged(base: Config, changes: Config) -> Config:
    """`base` with `changes`; a value of None removes a key."""
    result = copy.deepcopy(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


#: The program, with a stopped clock. Durations are measured with another one.
STANDING_CLOCK = """
import sys, time
time.time = lambda: {clock!r}
from sidecar.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


#: The name of a series without `webhook_sidecar_`, and its labels.
Sample = tuple[str, frozenset[tuple[str, str]]]


def _samples(text: bytes, prefix: str = "", *, zeros: bool = True) -> dict[Sample, float]:
    """The samples of an exposition whose names begin with the prefix."""
    lines = [line for line in text.decode().splitlines() if f"webhook_sidecar_{prefix}" in line[:120]]
    if not zeros:  # of a thousand series most are zero, and to parse them takes longer than everything else
        lines = [line for line in lines if line.startswith("#") or not line.endswith(" 0.0")]
    families = text_string_to_metric_families("\n".join(lines) + "\n")
    return {
        (sample.name.removeprefix("webhook_sidecar_"), frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def _is_idle(text: bytes) -> bool:
    """Whether an exposition shows nothing in flight and no bytes held."""
    return all(b"\nwebhook_sidecar_%b 0.0\n" % gauge in text for gauge in (b"in_flight", b"buffered_bytes"))


class Sidecar:
    """A running `sidecar serve`."""

    def __init__(
        self,
        config: Config | str,
        directory: Path,
        *,
        ca_file: Path | None = None,
        env: Mapping[str, str] | None = None,
        clock: float | None = None,
        new_interpreter: bool = False,
    ) -> None:
        """`clock` is the unix time at which the process's clock is stopped, for recorded deliveries. `new_interpreter` is for
        tests of the start itself, or of memory, which others must not share.
        """
        self.directory = directory
        self.config = config if isinstance(config, dict) else {}
        self.file = directory / "sidecar.yaml"
        self.write(config)
        environment = os.environ | SECRETS | {"SSL_CERT_FILE": str(ca_file or "")} | dict(env or {})
        environment.pop("SIDECAR_CONFIG", None)
        arguments = ["serve", "--config", str(self.file)]
        if new_interpreter or clock is not None or any(name.startswith(AT_START) for name in env or {}):
            program = ["-m", "sidecar"] if clock is None else ["-c", STANDING_CLOCK.format(clock=clock)]
            self.process: subprocess.Popen[bytes] | Preloaded = subprocess.Popen(
                [sys.executable, "-W", "error", *program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd=directory,
            )
        else:
            self.process = Preloaded(arguments, environment, directory)
        self.stdout: list[bytes] = []  # lines as bytes
        self.lines: list[dict[str, Any]] = []  # the same, parsed, where they are JSON
        self.stderr = b""
        self.shown: list[bytes] = []  # output of the admin listener: searched for leaks at the end
        self.changed = threading.Condition()
        self.readers = [threading.Thread(target=read, daemon=True) for read in (self._read_stdout, self._read_stderr)]
        for reader in self.readers:
            reader.start()
        self.address = self.admin_address = self.authorize_address = ""
        #: The usual request of senders, and the response to it; see `be_asked`.
        self.event, self.yes = "delivery", b"ok"
        self.stopped = False
        self.signatures_before = len(Craft.sent_signatures)
        self.unsettled = False  # a delivery may be under way without anybody waiting for its log line
        self.reconciles = bool(self.config) and not self.config.get("log")

    def write(self, config: Config | str) -> None:
        self.file.write_text(config if isinstance(config, str) else json.dumps(config, indent=1))

    def _read_stdout(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            parsed = json.loads(line) if line.startswith(b"{") else {}
            with self.changed:
                self.stdout.append(line)
                self.lines.append(parsed)
                self.changed.notify_all()

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        self.stderr = self.process.stderr.read()

    def wait_serving(self) -> None:
        def started() -> bool:
            return self.process.poll() is not None or any(b"serving" in line for line in self.stdout)

        until(started, "the start", 2 * PATIENCE)
        assert self.process.poll() is None, (self.stdout, self.stderr)
        text = next(line for line in self.stdout if b"serving" in line).decode()
        words = dict(word.split("=", 1) for word in text.split() if "=" in word)
        fields = json.loads(text) if text.startswith("{") else words
        self.address, self.admin_address = fields["listen"], fields["admin"]
        self.authorize_address = fields.get("authorize", "")

    # Deliveries

    def be_asked(self) -> "Sidecar":
        """From now on requests go to the authorize listener, like gateways' questions."""
        self.address, self.event, self.yes = self.authorize_address, "authorization", b""
        return self

    def connect(self, source: str | None = None) -> Client:
        self.unsettled = True
        return Client(self.address, source=source)

    def ask(self, raw: bytes, *, source: str | None = None, method: str = "POST") -> Response:
        """Sends on a new connection and reads one response; waits for the log line too, which is written after it."""
        mark = self.mark()
        with Client(self.address, source=source) as client:
            answer = client.send(raw).answer(method)
        if self.reconciles:
            self.delivery(mark)
        return answer

    def mark(self) -> int:
        """A position in the log, after the lines of all requests that got a response."""
        return len(self.lines)

    def settled(self) -> None:
        """Waits until nothing is in flight and everything that was counted is logged."""

        def all_logged() -> bool:
            _, text = self.admin("/metrics")
            counted = sum(
                float(line.rsplit(b" ", 1)[1])
                for line in text.splitlines()
                if line.startswith(b"webhook_sidecar_%b{" % COUNTED[self.event].encode())
            )
            logged = sum(line.get("event") == self.event for line in list(self.lines))
            sampled = 1000 <= logged < counted  # `log.rejected` leaves out rejections beyond a thousand in ten seconds
            return b"webhook_sidecar_in_flight 0.0" in text and (counted == logged or sampled)

        if self.unsettled and self.reconciles:
            until(all_logged, "the agreement of log and metrics")
            self.unsettled = False

    def line(self, after: int = 0, count: int = 1, **fields: Any) -> dict[str, Any]:
        """The `count`th log line after a mark that has these fields."""

        def found() -> dict[str, Any] | None:
            fitting = [line for line in self.lines[after:] if all(line.get(k) == v for k, v in fields.items())]
            return fitting[count - 1] if len(fitting) >= count else None

        with self.changed:
            got = self.changed.wait_for(found, PATIENCE)
        assert got, f"no log line with {fields} among {self.lines[after:]}"
        return got

    def delivery(self, after: int = 0, count: int = 1, **fields: Any) -> dict[str, Any]:
        return self.line(after, count, event=self.event, **fields)

    def diagnosed(self, raw: bytes) -> dict[str, Any]:
        """The log line of a rejected delivery with its hint. It is sent again until it has one.

        Only so many rejections of a second are diagnosed, and a diagnosis is given up after 50 ms.
        """

        def line() -> dict[str, Any] | None:
            mark = self.mark()
            assert self.ask(raw).status == 403
            found = self.delivery(mark)
            return found if "hint" in found else None

        return until(line, "a diagnosis")

    def refused(
        self,
        raw: bytes,
        status: int,
        reason: str,
        *,
        receiver: Receiver,
        route: str | None = "begini",
        source: str | None = None,
        method: str = "POST",
    ) -> Response:
        """Sends a request that must be rejected. Response, receiver, log and metric must agree; returns the response."""
        mark, before = self.mark(), receiver.bytes_seen
        answer = self.ask(raw, source=source, method=method)
        self.was_refused(answer, status, reason, receiver=receiver, route=route, mark=mark, bytes_before=before)
        return answer

    def was_refused(
        self,
        answer: Response,
        status: int,
        reason: str,
        *,
        receiver: Receiver,
        mark: int,
        route: str | None = "begini",
        bytes_before: int = 0,
    ) -> None:
        leak_watch.shown(f"the answer to {reason}", answer.raw)
        line = self.delivery(mark)
        if route is None:  # found before or while the route was searched, depending on the segments
            route = line["route"]
        assert (answer.status, line["reason"], line["route"]) == (status, reason, route), (answer, line)
        assert line["outcome"] == ("duplicate" if (status, reason) == (200, "replayed") else "rejected")
        assert line["status"] == status
        assert line["upstream_status"] == 0
        assert receiver.bytes_seen == bytes_before, receiver.requests
        if not self.reconciles:  # otherwise they are compared at its end, for all reasons, with one scrape
            self.counts_agree(route, reason)

    def counts_agree(self, route: str, reason: str) -> None:
        """Checks that the metric of this reason agrees with the log."""
        logged = Counter(
            (line["outcome"])
            for line in self.lines
            if line.get("event") == "delivery" and (line["route"], line["reason"]) == (route, reason)
        )
        for outcome, count in logged.items():
            assert self.metric("deliveries_total", route=route, outcome=outcome, reason=reason) == count

    # The admin listener

    def admin_connection(self) -> http.client.HTTPConnection:
        host, port = self.admin_address.rsplit(":", 1)
        return http.client.HTTPConnection(host, int(port), timeout=PATIENCE)

    def admin(
        self, path: str, *, method: str = "GET", headers: Mapping[str, str] | Iterable[tuple[str, str]] = ()
    ) -> tuple[int, bytes]:
        """Status and body."""
        connection = self.admin_connection()
        try:
            connection.request(method, path, headers=dict(headers))
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        self.shown.append(body)
        return answer.status, body

    def samples(self, prefix: str = "") -> dict[Sample, float]:
        """The samples of the exposition whose names begin with the prefix."""
        status, text = self.admin("/metrics")
        assert status == 200
        return _samples(text, prefix)

    def metric(self, name: str, **labels: str) -> float:
        """One value; read from its own line, because parsing everything takes far longer."""
        _, text = self.admin("/metrics")
        for line in re.findall(rf"^webhook_sidecar_{name}(?:{{(.*)}})? (\S+)$", text.decode(), re.MULTILINE):
            if dict(re.findall(r'(\w+)="([^"]*)"', line[0])) == labels:
                return float(line[1])
        raise KeyError((name, labels))

    def idle(self) -> None:
        """Checks that nothing is in flight and no bytes are held."""
        until(lambda: _is_idle(self.admin("/metrics")[1]), "in_flight 0 and buffered_bytes 0")

    def healthy(self) -> None:
        """After a fault: checks that nothing is left over, and that the next delivery works."""
        self.idle()
        answer = self.ask(Craft.begini())
        assert (answer.status, answer.body) == (200, self.yes)

    def resident(self) -> int:
        """Bytes of memory that the process holds."""
        with open(f"/proc/{self.process.pid}/statm", "rb") as sizes:
            return int(sizes.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu(self) -> float:
        """Seconds of processor time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        """Open files and sockets of the process."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    # The end

    def bugs(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("reason") == "internal_error"]

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def exit_status(self, patience: float = PATIENCE) -> int:
        """Waits for the end, after which all output has been read."""
        status = self.process.wait(patience)
        for reader in self.readers:
            reader.join(PATIENCE)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        self.stopped = True
        for what, data in (("stdout", b"".join(self.stdout)), ("stderr", self.stderr), ("admin", b"".join(self.shown))):
            leak_watch.shown(f"{what} of {self.process.args!r}", data)
        return status

    def reconcile(self) -> None:
        """Log and metrics are functions of one record, so they must agree in every count once nothing is in flight or held."""

        def agree() -> bool:
            _, text = self.admin("/metrics")
            if not _is_idle(text):
                return False
            logged = Counter(
                (COUNTED[line["event"]], line["route"], line["outcome"], line["reason"])
                for line in list(self.lines)
                if line.get("event") in COUNTED
            )
            counted: Counter[tuple[str, str, str, str]] = Counter()
            for (name, labels), value in _samples(text, zeros=False).items():
                if name in COUNTED.values() and value:
                    of = dict(labels)
                    counted[name, of["route"], of["outcome"], of["reason"]] = int(value)
            # `log.rejected` leaves out rejections of one kind beyond a thousand in ten seconds.
            sampled = {kind for kind in counted if kind[2] == "rejected" and 1000 <= logged[kind] < counted[kind]}
            return all(logged[kind] == counted[kind] for kind in (logged.keys() | counted.keys()) - sampled)

        until(agree, "the agreement of log and metrics")

    def stop(self) -> None:
        """The ordinary end, with all checks of it."""
        if not self.stopped:
            assert self.process.poll() is None, f"it ended by itself: {self.stdout[-5:]} {self.stderr!r}"
            try:
                if self.reconciles:
                    self.reconcile()
                else:
                    self.admin("/metrics")
                self.admin("/-/config")
            finally:
                self.send_signal(signal.SIGTERM)
                status = self.exit_status()
            assert status == 0, (status, self.stderr)
        self.check_output()

    def check_output(self) -> None:
        assert self.stderr == b""
        assert not self.bugs()
        self.check_leaks()

    def check_leaks(self) -> None:
        written = b"".join(self.stdout) + self.stderr + b"".join(self.shown)
        for secret in (b"CANARY-SECRET", BODY_MARK):
            at = written.find(secret)
            assert at < 0, f"leaked: {written[max(at - 200, 0) : at + 60]!r}"
        # Older signatures are searched for in everything at the end of the run.
        for made in set(Craft.sent_signatures[self.signatures_before :]):
            assert made[:20] not in written, "a signature leaked"

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        if not self.stopped:
            self.exit_status()


class Start(Protocol):
    """The fixtures `start` and `start_for_module`: the base configuration with `changes`, or the configuration `text`."""

    def __call__(
        self,
        changes: Config | None = None,
        *,
        text: str | None = None,
        wait: bool = True,
        ca_file: Path | None = ...,
        env: Mapping[str, str] | None = None,
        clock: float | None = None,
    ) -> Sidecar: ...
