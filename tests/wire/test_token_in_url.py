"""A token in the query or in the path: compared once, forwarded as it was sent, and shown nowhere."""

import json
import subprocess
from typing import Any
from urllib.parse import quote

import leak_watch
import preloaded
import pytest
from craft import BODY_MARK, SECRETS, Craft
from receiver import Receiver
from sidecar_process import Config, Sidecar

QUERY_TOKEN = "CANARY-SECRET+in/the query=%41"
PATH_TOKEN = "CANARY-SECRET-in-the-path-5f.~_"
ENV = {"QUERY_TOKEN": QUERY_TOKEN, "PATH_TOKEN": PATH_TOKEN}
BODY = b'{"mark":"%b"}' % BODY_MARK
HMAC = {"signature": {"header": "X-Acme-Signature"}}


def route(name: str, path: str, signature: Config, secret: str, **more: Any) -> Config:
    verify = {"signature": {"kind": "token"} | signature}
    return {"name": name, "path": path, "verify": verify, "secrets": [{"id": name, "env": secret}]} | more


CONFIG = {
    "routes": [
        route("query", "/tok/query", {"query": "token"}, "QUERY_TOKEN"),
        route("path", "/tok/path/*", {"path": "last"}, "PATH_TOKEN"),
        route("shadow", "/tok/shadow/*", {"path": "last"}, "PATH_TOKEN", mode="shadow"),
        {
            "name": "both",
            "path": "/tok/both/*",
            "verify": {
                "all_of": [
                    {"signature": {"path": "last", "kind": "token"}, "secrets": [{"id": "shown", "env": "PATH_TOKEN"}]},
                    HMAC | {"secrets": [{"id": "keyed", "env": "ACME_SECRET"}]},
                ]
            },
        },
        route("plain", "/tok/plain/*", {"header": "X-Token"}, "ACME_SECRET"),
    ]
}


def to(target: str, *fields: tuple[bytes, bytes]) -> bytes:
    return Craft.request(target.encode(), fields, BODY)


def shown(sidecar: Sidecar) -> bytes:
    """Everything that the program wrote and the admin listener shows."""
    pages = [
        sidecar.admin(path, headers={"Accept": kind})[1]
        for path, kind in (("/", "text/html"), ("/", "application/json"), ("/-/config", "*/*"), ("/metrics", "*/*"))
    ]
    return b"".join([*pages, *sidecar.stdout])


@pytest.mark.parametrize(
    "query",
    [
        f"token={quote(QUERY_TOKEN, safe='')}",
        f"token={quote(QUERY_TOKEN, safe='+/=')}",
        f"a=1&token={quote(QUERY_TOKEN, safe='')}&b=%20",
        f"t%6fken={quote(QUERY_TOKEN, safe='')}",
    ],
)
def test_the_token_of_the_query_is_accepted_and_the_target_forwarded_as_sent(
    sidecar: Sidecar, receiver: Receiver, query: str
) -> None:
    mark = sidecar.mark()
    assert sidecar.ask(to(f"/tok/query?{query}")).status == 200
    assert receiver.requests[-1].target == f"/tok/query?{query}".encode()
    line = sidecar.delivery(mark)
    assert (line["secret"], line["path"]) == ("query", "/tok/query")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "signature_missing"),
        ("?", "signature_missing"),
        ("?token", "signature_missing"),
        ("?token=", "signature_missing"),
        ("?Token={}", "signature_missing"),
        ("?token[]={}", "signature_missing"),
        ("?token={}x", "token_mismatch"),
        ("?token=x", "token_mismatch"),
        ("?token={}&token={}", "signature_malformed"),
        ("?token={}&token=", "signature_malformed"),
        ("?token={}&t%6Fken=x", "signature_malformed"),
        ("?" + "&" * 4000 + "token=x", "token_mismatch"),
    ],
)
def test_any_other_query_is_rejected(sidecar: Sidecar, receiver: Receiver, query: str, reason: str) -> None:
    target = "/tok/query" + query.replace("{}", quote(QUERY_TOKEN, safe=""))
    sidecar.refused(to(target), 403, reason, route="query", receiver=receiver)


def test_the_token_of_the_path_is_accepted_and_the_target_forwarded_as_sent(
    sidecar: Sidecar, receiver: Receiver
) -> None:
    for target in (f"/tok/path/{PATH_TOKEN}", f"/tok/path/{PATH_TOKEN}?a=%20", f"/tok/path/below/{PATH_TOKEN}"):
        mark = sidecar.mark()
        assert sidecar.ask(to(target)).status == 200
        assert receiver.requests[-1].target == target.encode()
        assert sidecar.delivery(mark)["path"] == "/tok/path/***"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/tok/path/", "signature_missing"),
        ("/tok/path/{}/", "signature_missing"),
        ("/tok/path/{}/x", "token_mismatch"),
        ("/tok/path/x", "token_mismatch"),
        ("/tok/path/{}x", "token_mismatch"),
        ("/tok/path/x?token={}", "token_mismatch"),
        ("/tok/path/?/{}", "signature_missing"),
    ],
)
def test_any_other_path_is_rejected_and_not_shown(
    sidecar: Sidecar, receiver: Receiver, target: str, reason: str
) -> None:
    mark = sidecar.mark()
    sidecar.refused(to(target.replace("{}", PATH_TOKEN)), 403, reason, route="path", receiver=receiver)
    assert sidecar.delivery(mark)["path"] == "/tok/path/***"


def test_all_of_a_token_in_the_path_and_a_signature(sidecar: Sidecar, receiver: Receiver) -> None:
    signature = (b"X-Acme-Signature", Craft.mac("ACME_SECRET", BODY, "sha256"))
    assert sidecar.ask(to(f"/tok/both/{PATH_TOKEN}", signature)).status == 200
    sidecar.refused(to(f"/tok/both/{PATH_TOKEN}"), 403, "signature_missing", route="both", receiver=receiver)
    sidecar.refused(to("/tok/both/x", signature), 403, "token_mismatch", route="both", receiver=receiver)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (f"/tokk/path/{PATH_TOKEN}", "/tokk/***"),
        (f"/{PATH_TOKEN}", "/***"),
        (f"/{PATH_TOKEN}/", "/***"),
        (f"//{PATH_TOKEN}", "/***"),
        (f"/tok//path/{PATH_TOKEN}", "/tok/***"),
        (f"/tok/path/x/../{PATH_TOKEN}", "/tok/***"),
    ],
)
def test_a_mistyped_url_with_the_token_is_not_shown(
    sidecar: Sidecar, receiver: Receiver, target: str, path: str
) -> None:
    mark = sidecar.mark()
    assert sidecar.ask(to(target)).status == 404
    assert sidecar.delivery(mark)["path"] == path


def test_paths_of_other_routes_are_shown(sidecar: Sidecar, receiver: Receiver) -> None:
    mark = sidecar.mark()
    assert sidecar.ask(to("/tok/plain/orders/1", (b"X-Token", SECRETS["ACME_SECRET"].encode()))).status == 200
    assert sidecar.delivery(mark)["path"] == "/tok/plain/orders/1"


def test_the_token_is_shown_nowhere(sidecar: Sidecar, receiver: Receiver) -> None:
    wrong = "a-wrong-token-91c4"
    for target in (f"/tok/path/{wrong}", f"/tok/shadow/{wrong}", f"/tok/query?token={wrong}", f"/nowhere/{wrong}"):
        sidecar.ask(to(target))
    sidecar.ask(to(f"/tok/shadow/{PATH_TOKEN}"))
    assert (
        sidecar.ask(to(f"/tok/path/{PATH_TOKEN}", (b"Content-Length", b"3"), (b"Content-Length", b"4"))).status == 400
    )
    receiver.then(lambda peer: peer.close())
    assert sidecar.ask(to(f"/tok/path/{PATH_TOKEN}")).status == 502
    everything = shown(sidecar)
    for token in (wrong, PATH_TOKEN, QUERY_TOKEN, quote(QUERY_TOKEN, safe=""), "CANARY-SECRET-in"):
        assert token.encode() not in everything


def command(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return preloaded.run(*arguments, stdin=stdin, env=SECRETS | ENV)


@pytest.mark.parametrize("name", ["query", "path", "both"])
def test_send_puts_the_token_where_the_route_has_it(sidecar: Sidecar, receiver: Receiver, name: str) -> None:
    url = f"http://{sidecar.address}/tok/{name}"
    common = ("send", url, "--config", str(sidecar.file), "--route", name)
    done = command(*common)
    leak_watch.shown("sidecar send", done.stdout + done.stderr)
    assert (done.returncode, done.stdout) == (0, b"200 OK\nok\n"), done.stderr
    mark = sidecar.mark()
    assert command(*common, "--forged", "--expect", "403").returncode == 0
    assert len(receiver.requests) == 1
    assert sidecar.delivery(mark, outcome="rejected")["reason"] == "token_mismatch"


@pytest.mark.parametrize("target", [f"/tok/path/{PATH_TOKEN}", "/tok/path/a-wrong-token-91c4", f"/x/{PATH_TOKEN}"])
def test_explain_does_not_show_the_path(sidecar: Sidecar, target: str) -> None:
    for more in (("--json",), ()):
        said = command("explain", "--config", str(sidecar.file), *more, "-", stdin=to(target)).stdout
        assert b"***" in said
        assert target.rpartition("/")[2].encode() not in said
    said = command("explain", "--config", str(sidecar.file), "--json", "-", stdin=to(target)).stdout
    assert json.loads(said)["verdict"] == ("accepted" if target == f"/tok/path/{PATH_TOKEN}" else "rejected")
