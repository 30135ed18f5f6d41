"""The status page: what it tells, whom it obeys, and that nothing a sender wrote becomes a part of it."""

import html
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from craft import Craft
from receiver import Peer, Receiver
from sidecar_process import Sidecar, Start
from waiting import WaitUntil

HOSTILE = b"/<script>alert(1)</script>\"'&"


def about(sidecar: Sidecar) -> dict[str, Any]:
    status, body = sidecar.admin("/", headers={"Accept": "application/json"})
    assert status == 200
    about: dict[str, Any] = json.loads(body)
    return about


@pytest.mark.parametrize("workers", [1, 2])
def test_the_last_refusals_of_all_workers_are_told_newest_first(
    start: Start, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil, workers: int
) -> None:
    sidecar = start({"workers": workers})
    assert about(sidecar)["refusals"] == []
    assert sidecar.ask(craft.begini()).status == 200
    for number in range(12):  # on connections of their own, which the system deals out to the workers
        assert sidecar.ask(craft.request(b"/nowhere/%d" % number)).status == 404
    assert sidecar.diagnosed(craft.begini(secret="wrong" * 10))["hint"] == "unknown"
    assert sidecar.ask(craft.begini(path=b"/webhooks/shadow", secret="wrong" * 10)).status == 200
    sidecar.settled()
    shadowed, mismatch, *earlier = about(sidecar)["refusals"]
    lost = [refusal for refusal in earlier if refusal["route"] != "begini"]  # not what was sent again
    assert [refusal["path"] for refusal in lost] == [f"/nowhere/{number}" for number in reversed(range(12))]
    assert {(refusal["route"], refusal["reason"]) for refusal in lost} == {("", "no_route")}
    assert (mismatch["route"], mismatch["reason"], mismatch["hint"]) == ("begini", "signature_mismatch", "unknown")
    assert (mismatch["client"], mismatch["request_bytes"]) == ("127.0.0.1", len(craft.json_body))
    assert (shadowed["shadow"], shadowed["reason"], shadowed["status"]) == (True, "signature_mismatch", 200)


def test_refusals_outlive_the_worker_that_made_them(
    start: Start, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil
) -> None:
    sidecar = start({"workers": 2})
    assert sidecar.ask(craft.request(b"/nowhere")).status == 404
    sidecar.settled()
    assert len(about(sidecar)["refusals"]) == 1
    children = f"/proc/{sidecar.process.pid}/task/{sidecar.process.pid}/children"
    with open(children) as listed:
        pids = [int(pid) for pid in listed.read().split()]

    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: sidecar.metric("worker_exits_total") == 2 and sidecar.metric("workers") == 2, "new workers")
    assert [refusal["path"] for refusal in about(sidecar)["refusals"]] == ["/nowhere"]
    assert sidecar.ask(craft.request(b"/again")).status == 404
    sidecar.settled()
    assert [refusal["path"] for refusal in about(sidecar)["refusals"]] == ["/again", "/nowhere"]


BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
TOKEN = "CANARY-SECRET-admin-token-83bd"
ACCOUNT = '622056dce007dc805c741751"><script>alert(1)</script>'


def page(sidecar: Sidecar) -> str:
    status, body = sidecar.admin("/", headers=BROWSER)
    assert status == 200
    return body.decode()


def submitted(sidecar: Sidecar, *, headers: Mapping[str, str] | None = None, **fields: str) -> tuple[int, str]:
    """Status and page after the form was sent."""
    connection = sidecar.admin_connection()
    try:
        form = {"Content-Type": "application/x-www-form-urlencoded"} | dict(headers or {})
        connection.request("POST", "/-/delivery-test", urlencode(fields), form)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    sidecar.shown.append(body)
    return answer.status, html.unescape(body.decode())


class Stream:
    """An event stream; `parts` are those that came so far, the last of each."""

    def __init__(self, sidecar: Sidecar, path: str = "/-/events?since=0") -> None:
        self.connection = sidecar.admin_connection()
        self.connection.request("GET", path, headers={"Accept": "text/event-stream"})
        self.answer = self.connection.getresponse()
        self.parts: dict[str, str] = {}
        self.id = ""

    def until(self, condition: Callable[[dict[str, str]], object]) -> dict[str, str]:
        """Reads events until the parts fulfil it."""
        while not condition(self.parts):
            line = self.answer.readline()
            assert line, "the stream ended"
            if line.startswith(b"id: "):
                self.id = line[4:].strip().decode()
            elif line.startswith(b"data: "):
                self.parts |= json.loads(line[6:])
        return self.parts

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


@pytest.fixture
def listen() -> Iterator[Callable[..., Stream]]:
    """Makes event streams, and closes them in the end."""
    made: list[Stream] = []

    def begin(*arguments: Any) -> Stream:
        made.append(Stream(*arguments))
        return made[-1]

    yield begin
    for stream in made:
        stream.close()


def test_browsers_get_a_page_and_everything_else_json(sidecar: Sidecar) -> None:
    assert page(sidecar).startswith("<!doctype html>")
    for accept in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        assert json.loads(sidecar.admin("/", headers=accept)[1])["name"] == "webhook-sidecar"


def test_the_page_lets_a_browser_load_nothing_but_its_own_files(sidecar: Sidecar) -> None:
    connection = sidecar.admin_connection()
    connection.request("GET", "/", headers=BROWSER)
    answer = connection.getresponse()
    text = answer.read().decode()
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy.pop("default-src") == policy.pop("base-uri") == policy.pop("frame-ancestors") == "'none'"
    assert set(policy.values()) == {"'self'"}
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "set-cookie" not in answer.headers
    loaded = re.findall(r'<(?:script|link)[^>]*(?:src|href)="([^"]*)"', text)
    assert len(loaded) == 3
    for path, kind in zip(sorted(loaded), ("text/css", "text/javascript", "image/svg+xml")):
        connection.request("GET", path)
        answer = connection.getresponse()
        assert (answer.status, answer.headers["content-type"], len(answer.read()) > 100) == (200, kind, True)
    connection.close()
    assert not re.search(r"<[^>]*\son\w+=|style=|javascript:|<script>|https?://(?!127\.0\.0\.1)", text)


def test_the_page_shows_what_runs_and_what_was_refused(start: Start, receiver: Receiver, craft: type[Craft]) -> None:
    sidecar = start({"workers": 2})
    text = page(sidecar)
    for shown in ("serving", "sidecar.yaml", "2 of 2", "None since startup", "github", "custom scheme", "address only"):
        assert shown in text
    assert text.count("shadow</span>") == 1
    assert sidecar.ask(craft.begini()).status == 200
    assert sidecar.ask(craft.begini(secret="wrong" * 10)).status == 403
    sidecar.settled()
    text = page(sidecar)
    (begini,) = re.findall(r'<article id="route-0">.*?</article>', text, re.DOTALL)
    assert re.findall(r'class="n">([0-9]+)</td><td class="n">([0-9]+)<', begini) == [("1", "1"), ("1", "1")]
    assert re.search(r"<td>current</td><td class=\"n\">1</td><td><time", begini)
    assert '<td>previous</td><td class="n">0</td><td>not since startup</td>' in begini
    (row,) = re.findall(r"<tr><td data-is=.*?</tr>", text)
    size = f">{len(craft.json_body)} B<"
    for shown in (
        ">begini<",
        "signature_mismatch",
        ">unknown<",
        ">127.0.0.1<",
        "POST /webhooks/begini",
        size,
    ):
        assert shown in row


def test_nothing_that_a_sender_writes_becomes_a_part_of_the_page(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar = start({"delivery_test": {"accounts": [{"id": ACCOUNT, "api_key": {"env": "OTHER_API_KEY"}}]}})
    sidecar.ask(craft.request(HOSTILE))
    attack = b"<img src=x onerror=alert(1)>"
    sidecar.ask(craft.begini(headers=[(b"X-Forwarded-For", attack), (b"User-Agent", attack)]), source=craft.trusted)
    sidecar.ask(craft.request(headers=[(b"X-Signature", attack)], method=b"PATCH"), method="PATCH")
    sidecar.write(sidecar.config | {"drain": "<script>alert(2)</script>"})
    assert sidecar.admin("/-/reload", method="POST")[0] == 400
    text = page(sidecar)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;" in text
    assert "&lt;script&gt;alert(2)" in text
    assert text.count("<script") == 1
    assert "<img" not in text
    assert about(sidecar)["refusals"][1]["reason"] == "client_ip_unreadable"


def test_a_secret_whose_day_has_come_is_marked(start: Start) -> None:
    days = {"current": "2100-01-01", "previous": "2020-02-29"}
    secrets = [{"id": name, "env": "BEGINI_API_KEY", "retire_by": day} for name, day in days.items()]
    sidecar = start({"routes": [{"path": "/hooks", "verify": "begini", "secrets": secrets}]})
    text = page(sidecar)
    assert '<small class="">retire by 2100-01-01</small>' in text
    assert '<small class="bad">retire by 2020-02-29</small>' in text


def test_a_failed_reload_is_shown_with_its_line_until_it_is_mended(start: Start) -> None:
    sidecar = start()
    sidecar.write(json.dumps(sidecar.config, indent=1).replace('"mode": "shadow"', '"mode": "shaddow"'))
    assert sidecar.admin("/-/reload", method="POST")[0] == 400
    text = page(sidecar)
    line = sidecar.file.read_text()[: sidecar.file.read_text().index("shaddow")].count("\n") + 1
    assert f"sidecar.yaml:{line}</code> <b>routes[2].mode</b>:" in text
    sidecar.write(sidecar.config)
    assert sidecar.admin("/-/reload", method="POST")[0] == 200
    assert "reload failed" not in page(sidecar)


# Who may change something


def test_elsewhere_than_on_loopback_nothing_can_be_changed_without_a_token(start: Start, receiver: Receiver) -> None:
    account = {"id": "a", "api_key": {"env": "OTHER_API_KEY"}, "webhook_url": f"{receiver.url}/hook"}
    sidecar = start({"admin": "0.0.0.0:0", "delivery_test": {"accounts": [account]}})
    mark = sidecar.mark()
    status, body = sidecar.admin("/-/reload", method="POST")
    assert (status, b"admin_token" in body) == (403, True)
    assert sidecar.line(mark, event="admin_refused")["path"] == "/-/reload"
    assert submitted(sidecar, account="a")[0] == 403
    assert submitted(sidecar, account="a", token="")[0] == 403
    text = page(sidecar)
    assert "Read-only" in text
    assert "<form" not in text
    assert not receiver.requests
    # The delivery test of the provider's own dashboard has its own key.
    key = {"Api-key": "CANARY-SECRET-other-account-0d5c"}
    assert sidecar.admin("/v1/webhooks-management/test", method="POST", headers=key)[0] == 200
    assert not [line for line in sidecar.lines if line.get("event") == "config_loaded"][1:]


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "127.0.0.1:0"])
def test_a_client_with_the_token_may_reload_and_test(start: Start, receiver: Receiver, listen: str) -> None:
    account = {"id": ACCOUNT, "api_key": {"env": "OTHER_API_KEY"}, "webhook_url": f"{receiver.url}/hook"}
    sidecar = start(
        {"admin": listen, "admin_token": {"env": "ADMIN_TOKEN"}, "delivery_test": {"accounts": [account]}},
        env={"ADMIN_TOKEN": TOKEN},
    )
    assert '<input type="password" name="token" required' in page(sidecar)
    for wrong in (
        {},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
    ):
        assert sidecar.admin("/-/reload", method="POST", headers=wrong)[0] == 401
    assert sidecar.admin("/-/reload", method="POST", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200
    for token in ("", TOKEN[:-1], "caf\xe9", "\x00"):
        assert submitted(sidecar, account=ACCOUNT, token=token)[0] == 401
    assert submitted(sidecar, account="nobody", token=TOKEN)[0] == 400
    assert not receiver.requests
    status, text = submitted(sidecar, account=ACCOUNT, token=TOKEN)
    assert (status, "<b>200</b>" in text) == (200, True)
    assert receiver.requests[0].line == b"POST /hook HTTP/1.1"


def test_a_receivers_answer_is_shown_without_the_signature_and_as_text(start: Start, receiver: Receiver) -> None:
    account = {"id": "a", "api_key": {"env": "OTHER_API_KEY"}, "webhook_url": f"{receiver.url}/hook"}
    sidecar = start({"delivery_test": {"accounts": [account]}})
    leaked = []

    def echo(peer: Peer) -> None:
        peer.read_body()
        leaked.extend(peer.seen.values(b"x-signature"))
        body = b"<script>alert(1)</script>" + leaked[0]
        peer.send(b"HTTP/1.1 418 X\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    receiver.then(echo)
    connection = sidecar.admin_connection()
    connection.request("POST", "/-/delivery-test", "account=a")
    text = connection.getresponse().read().decode()
    connection.close()
    assert (
        "<b>422</b> a: the receiver responded 418, &quot;&lt;script&gt;alert(1)&lt;/script&gt;&lt;signature&gt;" in text
    )
    assert leaked[0].decode() not in text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example:9090", "Origin": "http://evil.example:9090", "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_another_web_page_in_the_operators_browser_can_change_nothing(
    process: Sidecar, receiver: Receiver, headers: dict[str, str]
) -> None:
    assert process.admin("/-/reload", method="POST", headers=headers)[0] == 403
    assert submitted(process, headers=headers, account="a")[0] == 403
    assert process.admin("/-/events", headers=headers)[0] == 403


def test_a_name_rebound_to_loopback_sees_nothing(process: Sidecar, receiver: Receiver) -> None:
    rebound = {"Host": "evil.example:9090"} | BROWSER
    for path in ("/", "/-/config", "/-/events"):
        status, body = process.admin(path, headers=rebound)
        assert (status, b"localhost" in body) == (403, True)
    for path in ("/metrics", "/livez", "/readyz"):  # a scrape and a probe may call it as they like
        assert process.admin(path, headers=rebound)[0] == 200


@pytest.mark.parametrize(
    "body", ["", "account", "&" * 5000, "account=a&" * 900, "x" * 9000, "account=%ff%00&token=%zz", "\r\n{}"]
)
def test_a_form_that_is_none_is_refused(process: Sidecar, receiver: Receiver, body: str) -> None:
    assert process.admin("/-/delivery-test")[0] == 405
    connection = process.admin_connection()
    connection.request("POST", "/-/delivery-test", body)
    assert connection.getresponse().status == 400
    connection.close()


# Events


@pytest.mark.parametrize("workers", [1, 2])
def test_a_listener_gets_only_changes(
    listen: Callable[..., Stream], start: Start, receiver: Receiver, craft: type[Craft], workers: int
) -> None:
    sidecar = start({"workers": workers})
    stream = listen(sidecar)
    whole = stream.until(lambda parts: "refusals" in parts)
    assert set(whole) == {"state", "problems", "routes", "refusals", "keys", "accounts"}
    stream.parts = {}
    assert sidecar.ask(craft.request(HOSTILE)).status == 404
    parts = stream.until(lambda parts: {"refusals", "route-none"} <= set(parts))
    assert "&lt;script&gt;alert(1)" in parts["refusals"]
    assert not {"routes", "problems", "accounts", "route-0"} & set(parts)
    again = listen(sidecar, f"/-/events?since={stream.id}")  # nothing that it has already
    assert sidecar.ask(craft.begini()).status == 200
    assert "route-0" in again.until(lambda parts: "route-0" in parts)
    assert "routes" not in again.parts


def test_other_routes_after_a_reload_reach_the_listener_whole(
    listen: Callable[..., Stream], start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar = start()
    stream = listen(sidecar)
    stream.until(lambda parts: "routes" in parts)
    stream.parts = {}
    sidecar.write(sidecar.config | {"routes": sidecar.config["routes"][:2]})
    assert sidecar.admin("/-/reload", method="POST")[0] == 200
    assert stream.until(lambda parts: "routes" in parts)["routes"].count("<article") == 3


def test_listeners_are_bounded_and_a_place_is_free_again_when_one_leaves(
    listen: Callable[..., Stream], start: Start, wait_until: WaitUntil
) -> None:
    sidecar = start()
    streams = [listen(sidecar) for _ in range(16)]
    assert {stream.answer.status for stream in streams} == {200}
    assert listen(sidecar).answer.status == 503
    streams.pop().close()

    def accepted() -> bool:
        stream = listen(sidecar)
        stream.close()
        return stream.answer.status == 200

    wait_until(accepted, "a free place")


@pytest.mark.parametrize("workers", [1, 2])
def test_streams_end_when_the_program_drains(listen: Callable[..., Stream], start: Start, workers: int) -> None:
    sidecar = start({"workers": workers, "drain": "3s"})
    stream = listen(sidecar)
    stream.until(lambda parts: "state" in parts)
    sidecar.send_signal(signal.SIGTERM)
    began = time.monotonic()
    while stream.answer.readline():
        pass
    assert time.monotonic() - began < 0.7  # long before the drain's end
    assert listen(sidecar).answer.status == 503
    assert "draining" in page(sidecar)
    assert sidecar.exit_status() == 0
    sidecar.check_output()


@pytest.mark.parametrize("since", ["", "-1", "x", "9" * 50, "\u0661", "1.5"])
def test_a_version_that_is_none_gets_everything(
    listen: Callable[..., Stream], process: Sidecar, receiver: Receiver, since: str
) -> None:
    stream = listen(process, f"/-/events?since={quote(since)}")
    assert "routes" in stream.until(lambda parts: "routes" in parts)


def test_a_web_page_that_rebinds_its_name_reads_and_changes_nothing(start: Start, receiver: Receiver) -> None:
    """Not only on loopback: the listener's usual address is 0.0.0.0."""
    sidecar = start({"admin": "0.0.0.0:0", "admin_hosts": ["Status.Example.ORG", "*.corp.example"]})
    port = sidecar.admin_address.rsplit(":", 1)[1]
    sidecar.admin_address = f"127.0.0.1:{port}"

    def status(path: str, host: str, method: str = "GET") -> int:
        return sidecar.admin(path, method=method, headers={"Host": host, "Accept": "text/html"})[0]

    for host in (f"rebound.attacker.example:{port}", "status.example.org.attacker.example", "corp.example"):
        for path in ("/", "/-/config", "/-/events"):
            assert status(path, host) == 403, (path, host)
        assert status("/-/reload", host, "POST") == 403
        for path in ("/livez", "/readyz", "/metrics"):
            assert status(path, host) == 200, (path, host)
    for host in (f"127.0.0.1:{port}", "status.example.org", "a.corp.example", "sidecar-admin.hooks.svc"):
        assert status("/", host) == 200, host
        assert status("/-/config", host) == 200, host
    refused = sidecar.line(event="admin_refused")
    assert "admin_hosts" in refused["detail"]
