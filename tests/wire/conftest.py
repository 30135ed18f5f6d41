"""The harness: a real `sidecar serve` process, raw sockets towards it, and a receiver that does what a script says.

Nothing of the package is imported. What the program is told, it is told by its configuration, its sockets and signals;
what it tells, it tells by bytes, log lines, metrics and its exit status.

Every process that a test starts is stopped by SIGTERM and must then have exited with 0, written nothing to stderr, logged
no bug, shown no secret, signature or body, and counted in its metrics exactly the deliveries that its log has lines for.
"""

import base64
import contextlib
import copy
import hashlib
import hmac
import http.client
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from typing import ClassVar

import leak_watch
import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families

#: How long anything that must happen may take.
PATIENCE = 10.0
#: Where a proxy that the base configuration trusts connects from.
TRUSTED = "127.0.0.9"
#: Stands in every body and every secret, and must never be seen in what the program writes.
BODY_MARK = b"CANARY-BODY-5e1d"
SECRETS = {
    "BEGINI_API_KEY": "CANARY-SECRET-begini-current-7f3a",
    "GITHUB_SECRET": "CANARY-SECRET-github-11c9",
    "SHOPIFY_SECRET": "CANARY-SECRET-shopify-42aa",
    "SLACK_SECRET": "CANARY-SECRET-slack-90fe",
    "ACME_SECRET": "CANARY-SECRET-acme-6b07",
    "OTHER_API_KEY": "CANARY-SECRET-other-account-0d5c",
}
PREVIOUS_SECRET = "CANARY-SECRET-begini-previous-e2d4"
leak_watch.marker(b"CANARY-SECRET", BODY_MARK)
JSON_BODY = b'{"event":"scored","mark":"%b","n":1}' % BODY_MARK
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def until(condition, what="the condition", patience=PATIENCE):
    """Waits for `condition()` to be true and returns what it gave."""
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what} did not come true within {patience:g} s"
        time.sleep(0.01)


# The sender's side


class Response:
    """One answer as it stood on the wire. `whole` is false if the connection ended before its framing said so."""

    def __init__(self, head, *, informational=()):
        self.head = head
        line, *fields = head[:-4].split(b"\r\n")
        match = re.fullmatch(rb"HTTP/1\.1 ([0-9]{3}) [ -~]*", line)
        assert match, f"not a status line: {line!r}"
        self.status = int(match[1])
        self.headers = [tuple(field.split(b": ", 1)) for field in fields]
        self.informational = list(informational)
        self.body = b""
        self.chunks = []
        self.whole = True

    @property
    def raw(self):
        return self.head + self.body

    def values(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def __repr__(self):
        return f"<Answer {self.head!r} {self.body[:200]!r} whole={self.whole}>"


class Client:
    """One connection of a sender; reads answers strictly."""

    def __init__(self, address, *, source=None):
        if address.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(PATIENCE)
            self.socket.connect(address[5:])
        else:
            host, port = address.rsplit(":", 1)
            self.socket = socket.create_connection(
                (host, int(port)), PATIENCE, source_address=(source, 0) if source else None
            )
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.ended = False
        self.was_reset = False

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def send(self, data):
        self.socket.sendall(data)
        return self

    def try_send(self, data):
        """Sends what the other end may no longer want."""
        with contextlib.suppress(OSError):
            self.socket.sendall(data)
        return self

    def more(self):
        """Reads once; false at the end."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            self.was_reset = True
            data = b""
        self.buffer += data
        self.ended = not data
        return bool(data)

    def rest(self):
        """Everything until the end of the connection."""
        while self.more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def head(self):
        """The next head; None if the connection ended cleanly before one."""
        while b"\r\n\r\n" not in self.buffer:
            if not self.more():
                assert not self.buffer, f"the connection ended in the middle of a head: {self.buffer!r}"
                return None
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        return head + b"\r\n\r\n"

    def answer(self, method="POST"):
        """The next answer, with the informational ones before it; None if the connection ended without one."""
        informational = []
        while True:
            head = self.head()
            if head is None:
                return None
            answer = Response(head, informational=informational)
            if answer.status >= 200:
                break
            informational.append(answer.status)
        lengths, codings = answer.values(b"content-length"), answer.values(b"transfer-encoding")
        assert len(lengths) + len(codings) <= 1, answer
        if method == "HEAD" or answer.status in (204, 304):
            return answer
        if codings:
            assert codings == [b"chunked"]
            self._chunked(answer)
        elif lengths:
            size = int(lengths[0])
            while len(self.buffer) < size and answer.whole:
                answer.whole = self.more()
            answer.body, self.buffer = self.buffer[:size], self.buffer[size:]
        else:
            answer.body = self.rest()
            answer.whole = not self.was_reset
        return answer

    def _chunked(self, answer):
        while True:
            while b"\r\n" not in self.buffer:
                if not self.more():
                    answer.whole = False
                    return
            line, self.buffer = self.buffer.split(b"\r\n", 1)
            size = int(line, 16)
            while len(self.buffer) < size + 2:
                if not self.more():
                    answer.body += self.buffer
                    answer.whole = False
                    return
            answer.chunks.append(self.buffer[:size])
            answer.body += self.buffer[:size]
            assert self.buffer[size : size + 2] == b"\r\n"
            self.buffer = self.buffer[size + 2 :]
            if size == 0:
                return

    def leave(self):
        """Closes with a reset, as a sender whose process died."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self):
        self.socket.close()


class Craft:
    """Requests as bytes, and signatures made without the package."""

    sent_signatures: ClassVar[set[bytes]] = set()
    json_body = JSON_BODY
    body_mark = BODY_MARK
    ok = OK
    trusted = TRUSTED

    @staticmethod
    def request(
        path=b"/webhooks/begini", headers=(), body=b"", *, method=b"POST", version=b"HTTP/1.1", host=b"hooks.test"
    ):
        """A request; Content-Length is added unless the headers frame the body already."""
        lines = [b"%b %b %b" % (method, path, version)]
        if host is not None:
            lines.append(b"Host: " + host)
        lines += [b"%b: %b" % field for field in headers]
        framed = any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in headers)
        if not framed and (body or method == b"POST"):
            lines.append(b"Content-Length: %d" % len(body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + body

    @classmethod
    def mac(cls, secret, message, algorithm="sha512"):
        """The hexadecimal HMAC under one of the secrets above, or under any other."""
        made = hmac.new(SECRETS.get(secret, secret).encode(), message, algorithm).hexdigest().encode()
        leak_watch.signature(made)
        cls.sent_signatures.add(made)
        return made

    @classmethod
    def begini(cls, body=JSON_BODY, headers=(), *, path=b"/webhooks/begini", secret="BEGINI_API_KEY", **options):
        """A delivery as Begini signs it."""
        return cls.request(path, [(b"X-Signature", cls.mac(secret, body)), *headers], body, **options)

    @classmethod
    def slack(cls, body=JSON_BODY, *, age=0, timestamp=None, headers=()):
        stamp = str(int(time.time()) - age).encode() if timestamp is None else timestamp
        made = cls.mac("SLACK_SECRET", b"v0:" + stamp + b":" + body, "sha256")
        fields = [(b"X-Slack-Request-Timestamp", stamp), (b"X-Slack-Signature", b"v0=" + made), *headers]
        return cls.request(b"/webhooks/slack", fields, body)

    @classmethod
    def github(cls, body=JSON_BODY, headers=()):
        made = cls.mac("GITHUB_SECRET", body, "sha256")
        return cls.request(b"/webhooks/github", [(b"X-Hub-Signature-256", b"sha256=" + made), *headers], body)

    @classmethod
    def shopify(cls, body=JSON_BODY, headers=()):
        made = base64.b64encode(hmac.new(SECRETS["SHOPIFY_SECRET"].encode(), body, hashlib.sha256).digest())
        leak_watch.signature(made)
        cls.sent_signatures.add(made)
        return cls.request(b"/webhooks/shopify", [(b"X-Shopify-Hmac-Sha256", made), *headers], body)

    @staticmethod
    def chunked(body, size=1000):
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


# The receiver's side


class Seen:
    """One request as it stood on the wire."""

    def __init__(self, head, connection):
        self.head = head
        self.connection = connection
        self.line, *fields = head[:-4].split(b"\r\n")
        self.headers = [tuple(field.split(b": ", 1)) for field in fields]
        self.target = self.line.split(b" ")[1]
        self.body = b""
        self.body_read = False

    def values(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def names(self):
        return [name for name, _ in self.headers]


class Peer:
    """One connection of the sidecar to the receiver, in the hands of a script."""

    def __init__(self, receiver, sock, number):
        self.receiver = receiver
        self.socket = sock
        self.number = number
        self.buffer = b""
        self.over = False
        self.seen = None

    def _more(self):
        try:
            data = self.socket.recv(1 << 18)
        except OSError:
            data = b""
        self.receiver.bytes_seen += len(data)
        self.buffer += data
        return bool(data)

    def read_head(self):
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                return None
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        self.seen = Seen(head + b"\r\n\r\n", self.number)
        self.receiver.note(self.seen)
        return self.seen

    def read_body(self):
        """To the announced length; the sidecar never sends another framing."""
        assert not self.seen.values(b"transfer-encoding")
        lengths = self.seen.values(b"content-length")
        assert len(lengths) <= 1
        size = int(lengths[0]) if lengths else 0
        pieces, have = [self.buffer], len(self.buffer)
        while have < size:
            self.buffer = b""
            if not self._more():
                break
            pieces.append(self.buffer)
            have += len(self.buffer)
        whole = b"".join(pieces)
        self.seen.body, self.buffer = whole[:size], whole[size:]
        self.seen.body_read = len(self.seen.body) == size
        return self.seen.body

    def send(self, data):
        self.socket.sendall(data)

    def gone(self, patience=PATIENCE):
        """Whether the sidecar closes this connection within `patience`."""
        self.socket.settimeout(patience)
        try:
            return not self.socket.recv(1)
        except TimeoutError:
            return False
        except OSError:
            return True

    def close(self):
        self.over = True
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def reset(self):
        self.over = True
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RD)  # wakes the script's thread, without which nothing is closed
        self.socket.close()


class Receiver:
    """A server that records what it is sent and answers each request by the next script, else with 200 `ok`.

    A script is the answer's bytes, sent when the request was read, or a function that is given the `Peer` after the head.
    """

    def __init__(self, *, path=None, tls=None, listening=True):
        if path is not None:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(path))
            self.url = f"unix:{path}"
        else:
            self.listener = socket.socket()
            self.listener.bind(("127.0.0.1", 0))
            self.port = self.listener.getsockname()[1]
            self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.tls = tls
        self.changed = threading.Condition()
        self.stopping = False
        self.connections = 0
        self.peers = []
        self.problems = []
        self.forget()
        if listening:
            self.listen()

    def listen(self):
        self.listener.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()

    def forget(self):
        """Before each test."""
        self.bytes_seen = 0
        self.requests = []
        self.scripts = deque()

    def then(self, *scripts):
        """What to do with the next requests, in order."""
        self.scripts.extend(scripts)
        return self

    def note(self, seen):
        with self.changed:
            self.requests.append(seen)
            self.changed.notify_all()

    def wait(self, count=1):
        """The `count`th request, when its head is there."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= count, PATIENCE), "the receiver got no request"
        return self.requests[count - 1]

    @property
    def open_peers(self):
        return [peer for peer in self.peers if not peer.over]

    def stop(self):
        self.stopping = True
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.open_peers:
            peer.close()
        assert not self.problems, self.problems

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True).start()

    def _serve(self, sock, number):
        try:
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
            elif sock.family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            sock.close()
            return
        peer = Peer(self, sock, number)
        self.peers.append(peer)
        try:
            while not peer.over and peer.read_head() is not None:
                script = self.scripts.popleft() if self.scripts else OK
                if callable(script):
                    script(peer)
                else:
                    peer.read_body()
                    peer.send(script)
        except OSError:
            pass
        except Exception as problem:
            self.problems.append(repr(problem))
        finally:
            if not peer.over:
                peer.close()


# The program


def base_config(receivers, directory):
    """One route of each kind. Times are short: a test that waits for one of them pays for it."""

    def begini(name, **more):
        return {
            "name": name,
            "path": f"/webhooks/{name}",
            "verify": "begini",
            "secrets": [{"id": "current", "env": "BEGINI_API_KEY"}],
        } | more

    def preset(name):
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


def merged(base, changes):
    """`changes` over `base`; a value of None takes a key away."""
    result = copy.deepcopy(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


class Sidecar:
    """A running `sidecar serve`."""

    def __init__(self, config, directory, *, ca_file=None, env=None):
        self.directory = directory
        self.config = config
        self.file = directory / "sidecar.yaml"
        self.write(config)
        environment = os.environ | SECRETS | {"SSL_CERT_FILE": str(ca_file or "")} | (env or {})
        environment.pop("SIDECAR_CONFIG", None)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "sidecar", "serve", "--config", str(self.file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=directory,
        )
        self.stdout = []  # lines as bytes
        self.lines = []  # the same, parsed, where they are JSON
        self.stderr = b""
        self.shown = []  # what the admin listener showed: searched for leaks at the end
        self.changed = threading.Condition()
        self.readers = [threading.Thread(target=read, daemon=True) for read in (self._read_stdout, self._read_stderr)]
        for reader in self.readers:
            reader.start()
        self.address = self.admin_address = ""
        self.stopped = False
        self.unsettled = False  # deliveries may be under way whose log line nobody waited for
        self.reconciles = isinstance(config, dict) and not config.get("log")

    def write(self, config):
        self.file.write_text(config if isinstance(config, str) else json.dumps(config, indent=1))

    def _read_stdout(self):
        for line in self.process.stdout:
            parsed = json.loads(line) if line.startswith(b"{") else {}
            with self.changed:
                self.stdout.append(line)
                self.lines.append(parsed)
                self.changed.notify_all()

    def _read_stderr(self):
        self.stderr = self.process.stderr.read()

    def wait_serving(self):
        def started():
            return self.process.poll() is not None or any(b"serving" in line for line in self.stdout)

        until(started, "the start", 30)
        assert self.process.poll() is None, (self.stdout, self.stderr)
        text = next(line for line in self.stdout if b"serving" in line).decode()
        words = dict(word.split("=", 1) for word in text.split() if "=" in word)
        fields = json.loads(text) if text.startswith("{") else words
        self.address, self.admin_address = fields["listen"], fields["admin"]

    # Deliveries

    def connect(self, source=None):
        self.unsettled = True
        return Client(self.address, source=source)

    def ask(self, raw, *, source=None, method="POST"):
        """Sends on a connection of its own and reads one answer; waits for the log line too, which is written behind it."""
        mark = self.mark()
        with Client(self.address, source=source) as client:
            answer = client.send(raw).answer(method)
        if answer is not None and self.reconciles:
            self.delivery(mark)
        return answer

    def mark(self):
        """A place in the log; lines of what was answered before stand before it."""
        return len(self.lines)

    def settled(self):
        """Waits until nothing is in flight and everything that was counted was logged."""

        def all_logged():
            _, text = self.admin("/metrics")
            counted = sum(
                float(line.rsplit(b" ", 1)[1])
                for line in text.splitlines()
                if line.startswith(b"webhook_sidecar_deliveries_total{")
            )
            logged = sum(line.get("event") == "delivery" for line in list(self.lines))
            sampled = 1000 <= logged < counted  # `log.rejected` leaves out rejections beyond a thousand in ten seconds
            return b"webhook_sidecar_in_flight 0.0" in text and (counted == logged or sampled)

        if self.unsettled and self.reconciles:
            until(all_logged, "the agreement of log and metrics")
            self.unsettled = False

    def line(self, after=0, count=1, **fields):
        """The `count`th log line after a mark that has these fields."""

        def found():
            fitting = [line for line in self.lines[after:] if all(line.get(k) == v for k, v in fields.items())]
            return fitting[count - 1] if len(fitting) >= count else None

        with self.changed:
            got = self.changed.wait_for(found, PATIENCE)
        assert got, f"no log line with {fields} among {self.lines[after:]}"
        return got

    def delivery(self, after=0, count=1, **fields):
        return self.line(after, count, event="delivery", **fields)

    def refused(self, raw, status, reason, *, receiver, route="begini", source=None, method="POST"):
        """Sends what must be refused. Answer, receiver, log and metric must all tell the same; returns the answer."""
        mark, before = self.mark(), receiver.bytes_seen
        answer = self.ask(raw, source=source, method=method)
        assert answer is not None, "closed without an answer"
        self.was_refused(answer, status, reason, receiver=receiver, route=route, mark=mark, bytes_before=before)
        return answer

    def was_refused(self, answer, status, reason, *, receiver, mark, route="begini", bytes_before=0):
        leak_watch.shown(f"the answer to {reason}", answer.raw)
        line = self.delivery(mark)
        if route is None:  # found before or while the route was looked for, as the segments fell
            route = line["route"]
        assert (answer.status, line["reason"], line["route"]) == (status, reason, route), (answer, line)
        assert line["outcome"] == ("duplicate" if (status, reason) == (200, "replayed") else "rejected")
        assert line["status"] == status
        assert line["upstream_status"] == 0
        assert receiver.bytes_seen == bytes_before, receiver.requests
        self.counts_agree(route, reason)

    def counts_agree(self, route, reason):
        """The metric of this reason says what the log says."""
        logged = Counter(
            (line["outcome"])
            for line in self.lines
            if line.get("event") == "delivery" and (line["route"], line["reason"]) == (route, reason)
        )
        for outcome, count in logged.items():
            assert self.metric("deliveries_total", route=route, outcome=outcome, reason=reason) == count

    # The admin listener

    def admin(self, path, *, method="GET", headers=()):
        """Status and body."""
        connection = http.client.HTTPConnection(*self.admin_address.rsplit(":", 1), timeout=PATIENCE)
        try:
            connection.request(method, path, headers=dict(headers))
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        self.shown.append(body)
        return answer.status, body

    def samples(self, prefix=""):
        """{(name without `webhook_sidecar_`, labels): value} of the exposition."""
        status, text = self.admin("/metrics")
        assert status == 200
        lines = [line for line in text.decode().splitlines() if f"webhook_sidecar_{prefix}" in line[:120]]
        families = text_string_to_metric_families("\n".join(lines) + "\n")
        return {
            (sample.name.removeprefix("webhook_sidecar_"), frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def metric(self, name, **labels):
        """One value; read from its own line, because parsing everything takes far longer."""
        _, text = self.admin("/metrics")
        for line in re.findall(rf"^webhook_sidecar_{name}(?:{{(.*)}})? (\S+)$", text.decode(), re.MULTILINE):
            if dict(re.findall(r'(\w+)="([^"]*)"', line[0])) == labels:
                return float(line[1])
        raise KeyError((name, labels))

    def idle(self):
        """Nothing in flight, nothing held."""

        def nothing():
            _, text = self.admin("/metrics")
            gauges = (b"in_flight", b"buffered_bytes")
            return all(b"\nwebhook_sidecar_%b 0.0\n" % gauge in text for gauge in gauges)

        until(nothing, "in_flight 0 and buffered_bytes 0")

    def healthy(self):
        """After a fault: nothing is left over, and the next delivery works."""
        self.idle()
        answer = self.ask(Craft.begini())
        assert (answer.status, answer.body) == (200, b"ok")

    def resident(self):
        """Bytes of memory that the process holds."""
        with open(f"/proc/{self.process.pid}/statm", "rb") as sizes:
            return int(sizes.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self):
        """Open files and sockets of the process."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    # The end

    def bugs(self):
        return [line for line in self.lines if line.get("reason") == "internal_error"]

    def send_signal(self, number):
        self.process.send_signal(number)

    def exit_status(self, patience=PATIENCE):
        """Waits for the end; all output is read then."""
        status = self.process.wait(patience)
        for reader in self.readers:
            reader.join(PATIENCE)
        self.process.stdout.close()
        self.process.stderr.close()
        self.stopped = True
        for what, data in (("stdout", b"".join(self.stdout)), ("stderr", self.stderr), ("admin", b"".join(self.shown))):
            leak_watch.shown(f"{what} of {self.process.args}", data)
        return status

    def reconcile(self):
        """Log and metrics are functions of one record, so they must agree in every count."""
        self.idle()

        def agree():
            logged = Counter(
                (line["route"], line["outcome"], line["reason"])
                for line in list(self.lines)
                if line.get("event") == "delivery"
            )
            counted = Counter()
            for (name, labels), value in self.samples("deliveries").items():
                if name == "deliveries_total" and value:
                    of = dict(labels)
                    counted[of["route"], of["outcome"], of["reason"]] = int(value)
            # Of rejections of one kind, `log.rejected` leaves out those beyond a thousand in ten seconds.
            sampled = {kind for kind in counted if kind[1] == "rejected" and 1000 <= logged[kind] < counted[kind]}
            return all(logged[kind] == counted[kind] for kind in (logged.keys() | counted.keys()) - sampled)

        until(agree, "the agreement of log and metrics", 3)

    def stop(self):
        """The ordinary end, with everything that must hold then."""
        if not self.stopped:
            assert self.process.poll() is None, f"it ended by itself: {self.stdout[-5:]} {self.stderr!r}"
            try:
                if self.reconciles:
                    self.reconcile()
                self.admin("/metrics")
                self.admin("/-/config")
            finally:
                self.send_signal(signal.SIGTERM)
                status = self.exit_status()
            assert status == 0, (status, self.stderr)
        self.check_output()

    def check_output(self):
        assert self.stderr == b""
        assert not self.bugs()
        self.check_leaks()

    def check_leaks(self):
        written = b"".join(self.stdout) + self.stderr + b"".join(self.shown)
        for secret in (b"CANARY-SECRET", BODY_MARK):
            at = written.find(secret)
            assert at < 0, f"leaked: {written[max(at - 200, 0) : at + 60]!r}"
        for made in Craft.sent_signatures:
            assert made[:20] not in written, "a signature leaked"

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        if not self.stopped:
            self.exit_status()


# Fixtures


@pytest.fixture(scope="session")
def craft():
    return Craft


@pytest.fixture(scope="session")
def wait_until():
    return until


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A certificate authority that the sidecar is told to trust, and a server's context."""
    ca = trustme.CA()
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(file))

    def context(name):
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(name).configure_cert(made)
        return made

    return file, context


@pytest.fixture(scope="module")
def receivers(tmp_path_factory, authority):
    """By kind: plain, tls, socket (unix), and down (its port refuses)."""
    _, context = authority
    made = {
        "plain": Receiver(),
        "tls": Receiver(tls=context("127.0.0.1")),
        "socket": Receiver(path=tmp_path_factory.mktemp("r") / "app.sock"),
        "down": Receiver(listening=False),
    }
    yield made
    for receiver in made.values():
        receiver.stop()


@pytest.fixture(scope="module")
def new_receiver():
    """Makes further receivers."""
    made = []

    def make(**options):
        made.append(Receiver(**options))
        return made[-1]

    yield make
    for receiver in made:
        receiver.stop()


def _directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("s")
    (directory / "previous").write_text(PREVIOUS_SECRET + "\n")
    return directory


@pytest.fixture(scope="module")
def process(request, receivers, authority, tmp_path_factory):
    """One process for the module, with the base configuration changed by the module's CONFIG and its ENV."""
    directory = _directory(tmp_path_factory)
    config = merged(base_config(receivers, directory), getattr(request.module, "CONFIG", {}))
    running = Sidecar(config, directory, ca_file=authority[0], env=getattr(request.module, "ENV", None))
    try:
        running.wait_serving()
        yield running
        running.stop()
    finally:
        running.kill()


@pytest.fixture
def receiver(receivers):
    """The receiver of most routes, with nothing seen yet."""
    for each in receivers.values():
        each.forget()
    return receivers["plain"]


@pytest.fixture
def sidecar(process, receiver):
    """The module's process; afterwards it must still be there and have logged no bug."""
    process.settled()
    yield process
    assert process.process.poll() is None
    assert not process.bugs()


@contextlib.contextmanager
def _starting(receivers, authority, tmp_path_factory):
    made = []

    def begin(changes=None, *, text=None, wait=True, **options):
        directory = _directory(tmp_path_factory)
        config = text or merged(base_config(receivers, directory), changes or {})
        running = Sidecar(config, directory, **{"ca_file": authority[0]} | options)
        made.append(running)
        if wait:
            running.wait_serving()
        return running

    try:
        yield begin
        for running in made:
            if running.process.poll() is None:
                running.stop()
    finally:
        for running in made:
            running.kill()


@pytest.fixture
def start(receivers, receiver, authority, tmp_path_factory):
    """Starts processes of a test's own: `start({...changes})`; each is stopped and checked at the end."""
    with _starting(receivers, authority, tmp_path_factory) as begin:
        yield begin


@pytest.fixture(scope="module")
def start_for_module(receivers, authority, tmp_path_factory):
    """The same for processes that several tests of a module use."""
    with _starting(receivers, authority, tmp_path_factory) as begin:
        yield begin
