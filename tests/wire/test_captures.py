"""`capture:` on the wire: rejected requests as they arrived, for the holder of the token, for a while, in bounded memory."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import leak_watch
import pytest
from craft import SECRETS, Craft
from preloaded import run_text
from sidecar_process import Config, Sidecar, Start
from waiting import until

TOKEN = "CANARY-SECRET-admin-token-2f6d"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ENV = {"SIDECAR_ADMIN_TOKEN": TOKEN}


def config(capture: Any = None, **more: Any) -> Config:
    route = {
        "name": "begini",
        "path": "/webhooks/begini",
        "verify": "begini",
        "secrets": [{"id": "current", "env": "BEGINI_API_KEY"}],
        "capture": capture or {"rejected": 3, "for": "1h"},
    }
    plain = {key: value for key, value in route.items() if key != "capture"} | {"name": "plain", "path": "/plain"}
    return {"admin_token": {"env": "SIDECAR_ADMIN_TOKEN"}, "routes": [route | more, plain]}


def get(sidecar: Sidecar, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Not `sidecar.admin`, which searches what it gets for bodies: here they are."""
    connection = sidecar.admin_connection()
    try:
        connection.request("GET", path, headers=headers or BEARER)
        answer = connection.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def listed(sidecar: Sidecar) -> list[dict[str, Any]]:
    status, body, _ = get(sidecar, "/-/captures")
    assert status == 200, body
    leak_watch.shown("the list of captures", body)
    found: list[dict[str, Any]] = json.loads(body)["captures"]
    return found


def forged(craft: type[Craft], number: int = 0, **more: Any) -> bytes:
    return craft.begini(b"%b %d" % (craft.json_body, number), secret="OTHER_API_KEY", **more)


def explain(sidecar: Sidecar, *arguments: str) -> subprocess.CompletedProcess[str]:
    ran = run_text("explain", "--from", f"http://{sidecar.admin_address}", *arguments, env=SECRETS | ENV)
    leak_watch.shown("explain --from", (ran.stdout + ran.stderr).encode())
    return ran


@pytest.mark.parametrize("workers", [1, 2])
def test_a_rejected_request_is_fetched_as_it_arrived_and_explained(
    start: Start, craft: type[Craft], workers: int
) -> None:
    running = start(config() | {"workers": workers}, env=ENV)
    raw = forged(craft, headers=[(b"x-Odd", b"1"), (b"X-ODD", b"2"), (b"Content-Type", b"application/json")])
    assert running.ask(raw).status == 403
    (about,) = until(lambda: listed(running))
    assert (about["route"], about["reason"], about["peer"]) == ("begini", "signature_mismatch", "127.0.0.1")
    assert about["complete"] is True
    status, body, headers = get(running, f"/-/captures/{about['id']}")
    assert (status, body) == (200, raw)
    assert headers["content-disposition"] == 'attachment; filename="request.http"'
    assert headers["cache-control"] == "no-store"
    assert running.metric("captures", route="begini") == 1
    explained = explain(running, "--id", about["id"], "--config", str(running.file), "--json")
    assert explained.returncode == 1, explained
    said = json.loads(explained.stdout)
    assert (said["reason"], said["client"], said["route"]) == ("signature_mismatch", "127.0.0.1", "begini")
    assert about["id"] in explain(running).stdout
    gone = explain(running, "--id", "0" * 16, "--config", str(running.file))
    assert gone.returncode == 2
    assert "no such capture" in gone.stderr


def test_a_chunked_body_stays_one_and_a_body_that_was_not_read_is_said_to_be_missing(
    start: Start, craft: type[Craft]
) -> None:
    running = start(config(), env=ENV)
    fields = [(b"X-Signature", b"0" * 128), (b"Transfer-Encoding", b"chunked")]
    chunked = craft.request(headers=fields, body=craft.chunked(craft.json_body, 10))
    assert running.ask(chunked).status == 403
    with running.connect() as client:  # rejected by its head alone
        assert client.send(craft.request(headers=[(b"Content-Length", b"5000")])).answer().status == 403
    unsigned, whole = until(lambda: listed(running) if len(listed(running)) == 2 else None)
    assert (unsigned["reason"], unsigned["complete"]) == ("signature_missing", False)
    _, body, _ = get(running, f"/-/captures/{whole['id']}")
    assert body.endswith(b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(craft.json_body), craft.json_body))
    for about in (unsigned, whole):
        explained = explain(running, "--id", about["id"], "--config", str(running.file))
        assert explained.returncode == 1, explained
        assert f"rejected: {about['reason']}" in explained.stdout


def test_nobody_without_the_token_gets_one_and_no_other_page_shows_it(start: Start, craft: type[Craft]) -> None:
    running = start(config(), env=ENV)
    assert running.ask(forged(craft)).status == 403
    (about,) = until(lambda: listed(running))
    for path in ("/-/captures", f"/-/captures/{about['id']}"):
        for headers in ({"X": "1"}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            status, body, _ = get(running, path, **headers)
            assert status == 401
            assert craft.body_mark not in body
        status, body, _ = get(running, path, **BEARER, **{"Sec-Fetch-Site": "cross-site"})
        assert (status, craft.body_mark in body) == (403, False)
        status, body, _ = get(running, path, **BEARER, Host="evil.example.com")
        assert status == 403
    for path in ("/", "/-/config", "/metrics", "/-/tenants"):
        running.admin(path)  # searched for bodies at the end
    _, page = running.admin("/", headers={"Accept": "text/html"})
    assert b"captures 3 rejected" in page
    assert b"is on: rejected requests are kept in memory" in page


def test_only_rejections_of_the_route_are_held_and_only_the_last_of_them(start: Start, craft: type[Craft]) -> None:
    running = start(config(), env=ENV)
    assert running.ask(craft.begini()).status == 200
    assert running.ask(forged(craft, path=b"/plain")).status == 403
    assert running.ask(craft.begini(path=b"/nowhere")).status == 404
    for number in range(5):
        assert running.ask(forged(craft, number)).status == 403
    until(lambda: len(listed(running)) == 3)
    bodies = [get(running, f"/-/captures/{each['id']}")[1] for each in listed(running)]
    assert [int(re.findall(rb"(\d)$", body)[0]) for body in bodies] == [4, 3, 2]


def test_what_shadow_mode_lets_pass_is_held_too(start: Start, craft: type[Craft]) -> None:
    running = start(config(mode="shadow"), env=ENV)
    assert running.ask(forged(craft)).status == 200
    assert until(lambda: listed(running))[0]["reason"] == "signature_mismatch"


def test_each_is_dropped_when_its_time_is_over_and_all_of_them_by_a_reload(start: Start, craft: type[Craft]) -> None:
    running = start(config({"rejected": 5, "for": "1500ms"}), env=ENV)
    assert running.ask(forged(craft)).status == 403
    (about,) = until(lambda: listed(running))
    until(lambda: running.metric("captures", route="begini") == 0)  # without anyone asking for the list
    assert listed(running) == []
    assert get(running, f"/-/captures/{about['id']}")[0] == 404
    lasting = start(config(), env=ENV)
    assert lasting.ask(forged(craft)).status == 403
    (about,) = until(lambda: listed(lasting))
    mark = lasting.mark()
    lasting.send_signal(signal.SIGHUP)
    lasting.line(mark, event="config_loaded")
    assert listed(lasting) == []
    assert lasting.metric("captures", route="begini") == 0


def test_captures_take_a_bounded_share_of_memory_and_large_requests_none(start: Start, craft: type[Craft]) -> None:
    running = start(config({"rejected": 100, "for": "1h"}), env=ENV)
    body = craft.json_body + b" " * 900_000
    mac = craft.mac("wrong", b"anything")
    raw = craft.request(headers=[(b"X-Signature", mac)], body=body)
    with running.connect() as client:
        assert client.send(raw).answer().status == 403
        before = running.resident()
        for _ in range(40):
            assert client.send(raw).answer().status == 403
    held = running.metric("captures", route="begini")
    assert 10 <= held <= 18
    assert running.resident() - before < 40e6
    with running.connect() as client:
        assert client.send(craft.request(headers=[(b"X-Signature", mac)], body=body * 2)).answer().status == 403
    time.sleep(0.3)
    assert {each["bytes"] for each in listed(running)} <= {len(raw)}


def test_nothing_of_it_is_on_disk(start: Start, craft: type[Craft], tmp_path: Path) -> None:
    running = start(config(), env=ENV | {"TMPDIR": str(tmp_path)})
    assert running.ask(forged(craft)).status == 403
    until(lambda: listed(running))
    assert list(tmp_path.iterdir()) == []
    files = [os.readlink(entry) for entry in Path(f"/proc/{running.process.pid}/fd").iterdir() if entry.is_symlink()]
    assert not [file for file in files if file.startswith(str(tmp_path))]
