"""Several schemes on one route: one must accept (`any_of`), or every one (`all_of`)."""

import base64
import hmac
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import leak_watch
import preloaded
import pytest
from craft import SECRETS, Craft, Fields
from receiver import Receiver
from sidecar_process import Config, Sidecar

from sidecar.config.presets import load_preset
from sidecar.secret import Secret
from sidecar.verify.sign import sign

SIGNING = "whsec_" + base64.b64encode(b"CANARY-SECRET-of-gitlab-signing").decode()
TOKEN = "CANARY-SECRET-token-of-gitlab-31"
leak_watch.marker(SIGNING[:20].encode())
ENV = {"GITLAB_SIGNING": SIGNING, "GITLAB_TOKEN": TOKEN}
HMAC = {"signature": {"header": "X-Acme-Signature"}}
HEADER_TOKEN = {"signature": {"header": "X-Acme-Token", "kind": "token"}}
ID_SIGNED = {
    "signature": {"header": "X-New-Signature"},
    "delivery_id": {"header": "X-New-Id"},
    "signed": "{id}.{body}",
}


def route(name: str, verify: Any, **more: Any) -> Config:
    return {"name": name, "path": f"/combined/{name}", "verify": verify} | more


CONFIG = {
    "routes": [
        route(
            "gitlab",
            {
                "any_of": [
                    {"preset": "gitlab-signing-token", "secrets": [{"id": "signing", "env": "GITLAB_SIGNING"}]},
                    {"preset": "gitlab", "secrets": [{"id": "token", "env": "GITLAB_TOKEN"}]},
                ]
            },
        ),
        route(
            "shared", {"any_of": ["gitlab", "gitlab-signing-token"]}, secrets=[{"id": "both", "env": "GITLAB_SIGNING"}]
        ),
        route(
            "both",
            {
                "all_of": [
                    HEADER_TOKEN | {"secrets": [{"id": "shown", "env": "OTHER_API_KEY"}]},
                    HMAC | {"secrets": [{"id": "keyed", "env": "ACME_SECRET"}]},
                ]
            },
            replay="10m",
        ),
        route("twice", {"any_of": [HMAC, ID_SIGNED]}, secrets=[{"env": "ACME_SECRET"}], replay="10m"),
        route(
            "signed",
            {"any_of": [HMAC, ID_SIGNED]},
            secrets=[{"env": "ACME_SECRET"}],
            sign={"secret": {"env": "GITLAB_SIGNING"}},
        ),
    ]
}
numbers = iter(range(1, 1000))


@pytest.fixture
def body(craft: type[Craft]) -> bytes:
    """One that no test had before."""
    return b'{"mark":"%b","n":%d}' % (craft.body_mark, next(numbers))


def request(name: str, fields: Fields, body: bytes) -> bytes:
    return Craft.request(f"/combined/{name}".encode(), fields, body)


def signed_by_gitlab(body: bytes, key: str = SIGNING, now: float | None = None) -> list[tuple[bytes, bytes]]:
    made = sign(load_preset("gitlab-signing-token"), Secret("s", key.encode()), body=body, now=now or time.time())
    return [(name.encode(), value.encode()) for name, value in made]


def mac(body: bytes, secret: str = "ACME_SECRET") -> bytes:
    return Craft.mac(secret, body, "sha256")


def seen(receiver: Receiver, name: bytes) -> list[bytes]:
    return [value for field, value in receiver.requests[-1].headers if field.lower() == name]


def test_either_scheme_of_any_of_accepts_and_its_secret_is_named(
    sidecar: Sidecar, receiver: Receiver, body: bytes
) -> None:
    for fields, secret in (
        (signed_by_gitlab(body), "signing"),
        ([(b"X-Gitlab-Token", TOKEN.encode())], "token"),
        ([*signed_by_gitlab(body), (b"X-Gitlab-Token", TOKEN.encode())], "signing"),
        ([*signed_by_gitlab(b"another body"), (b"X-Gitlab-Token", TOKEN.encode())], "token"),
    ):
        mark, before = sidecar.mark(), sidecar.metric("secret_matches_total", route="gitlab", secret=secret)
        assert sidecar.ask(request("gitlab", fields, body)).status == 200
        assert sidecar.delivery(mark)["secret"] == secret
        assert seen(receiver, b"x-webhook-secret-id") == [secret.encode()]
        assert sidecar.metric("secret_matches_total", route="gitlab", secret=secret) == before + 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param(lambda body: [], "signature_missing", id="neither"),
        pytest.param(lambda body: [(b"X-Gitlab-Token", b"wrong")], "token_mismatch", id="a wrong token"),
        pytest.param(lambda body: signed_by_gitlab(b"another"), "signature_mismatch", id="another body"),
        pytest.param(lambda body: signed_by_gitlab(body, now=time.time() - 900), "timestamp_too_old", id="old"),
        pytest.param(
            lambda body: [(b"webhook-signature", b"v1,?"), (b"webhook-timestamp", b"1"), (b"webhook-id", b"1")],
            "signature_malformed",
            id="malformed",
        ),
        pytest.param(
            lambda body: [*signed_by_gitlab(b"another"), (b"X-Gitlab-Token", b"wrong")],
            "signature_mismatch",
            id="both wrong",
        ),
    ],
)
def test_when_no_scheme_accepts_the_reason_is_that_of_the_scheme_that_was_used(
    sidecar: Sidecar, receiver: Receiver, body: bytes, fields: Callable[[bytes], Fields], reason: str
) -> None:
    sidecar.refused(request("gitlab", fields(body), body), 403, reason, route="gitlab", receiver=receiver)


def test_the_token_of_one_scheme_is_no_key_of_the_other(sidecar: Sidecar, receiver: Receiver, body: bytes) -> None:
    fields = [(b"X-Gitlab-Token", SIGNING.encode())]
    sidecar.refused(request("gitlab", fields, body), 403, "token_mismatch", route="gitlab", receiver=receiver)


def test_the_secrets_of_the_route_serve_every_scheme_without_its_own(
    sidecar: Sidecar, receiver: Receiver, body: bytes
) -> None:
    assert sidecar.ask(request("shared", signed_by_gitlab(body), body)).status == 200
    assert sidecar.ask(request("shared", [(b"X-Gitlab-Token", SIGNING.encode())], body)).status == 200
    sidecar.refused(
        request("shared", signed_by_gitlab(b"x"), body), 403, "signature_mismatch", route="shared", receiver=receiver
    )


def test_all_of_needs_every_scheme_and_counts_every_secret(sidecar: Sidecar, receiver: Receiver, body: bytes) -> None:
    token, signature = (b"X-Acme-Token", SECRETS["OTHER_API_KEY"].encode()), (b"X-Acme-Signature", mac(body))
    for fields, reason in (
        ([token], "signature_missing"),
        ([signature], "signature_missing"),
        ([token, (b"X-Acme-Signature", mac(b"other"))], "signature_mismatch"),
        ([(b"X-Acme-Token", b"wrong"), signature], "token_mismatch"),
        ([(b"X-Acme-Token", b"wrong"), (b"X-Acme-Signature", mac(b"other"))], "token_mismatch"),
        ([token, (b"X-Acme-Signature", mac(body, "OTHER_API_KEY"))], "signature_mismatch"),
    ):
        sidecar.refused(request("both", fields, body), 403, reason, route="both", receiver=receiver)
    before = [sidecar.metric("secret_matches_total", route="both", secret=each) for each in ("shown", "keyed")]
    assert sidecar.ask(request("both", [token, signature], body)).body == b"ok"
    assert seen(receiver, b"x-webhook-secret-id") == [b"keyed"]
    after = [sidecar.metric("secret_matches_total", route="both", secret=each) for each in ("shown", "keyed")]
    assert after == [count + 1 for count in before]


def test_a_copy_is_known_by_the_scheme_that_binds_most(sidecar: Sidecar, receiver: Receiver, body: bytes) -> None:
    token = (b"X-Acme-Token", SECRETS["OTHER_API_KEY"].encode())
    raw = request("both", [token, (b"X-Acme-Signature", mac(body))], body)
    assert sidecar.ask(raw).body == b"ok"
    sidecar.refused(raw, 200, "replayed", receiver=receiver, route="both")
    other = body + b" "
    assert sidecar.ask(request("both", [token, (b"X-Acme-Signature", mac(other))], other)).body == b"ok"


def old_and_new(body: bytes, number: bytes) -> tuple[Fields, Fields]:
    """The signatures of both schemes of the route `twice`."""
    new = hmac.new(SECRETS["ACME_SECRET"].encode(), number + b"." + body, "sha256").hexdigest().encode()
    Craft.sent(new)
    return [(b"X-Acme-Signature", mac(body))], [(b"X-New-Signature", new), (b"X-New-Id", number)]


def test_a_copy_without_the_signature_of_the_first_scheme_is_still_a_copy(
    sidecar: Sidecar, receiver: Receiver, body: bytes
) -> None:
    old, new = old_and_new(body, b"evt-1")
    assert sidecar.ask(request("twice", [*old, *new], body)).body == b"ok"
    for fields in ([*old, *new], old, new):
        sidecar.refused(request("twice", fields, body), 200, "replayed", receiver=receiver, route="twice")


def test_what_the_receiver_did_not_take_is_forwarded_again_under_either_signature(
    sidecar: Sidecar, receiver: Receiver, body: bytes
) -> None:
    old, new = old_and_new(body, b"evt-2")
    busy = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    receiver.then(busy, busy)
    assert sidecar.ask(request("twice", [*old, *new], body)).status == 503
    assert sidecar.ask(request("twice", new, body)).status == 503
    assert sidecar.ask(request("twice", old, body)).body == b"ok"
    sidecar.refused(request("twice", [*old, *new], body), 200, "replayed", receiver=receiver, route="twice")


def test_the_receivers_signature_has_the_id_of_the_scheme_that_verified(
    sidecar: Sidecar, receiver: Receiver, body: bytes
) -> None:
    old, new = old_and_new(body, b"evt-3")
    assert sidecar.ask(request("signed", new, body)).body == b"ok"
    assert seen(receiver, b"webhook-id") == [b"evt-3"]
    assert sidecar.ask(request("signed", [*old, (b"X-New-Id", b"unsigned")], body)).body == b"ok"
    assert seen(receiver, b"webhook-id")[0].startswith(b"msg_")


@pytest.mark.parametrize("alias", [b"X_Gitlab_Token", b"webhook_signature", b"Webhook.Timestamp", b"Idempotency_Key"])
def test_no_alias_of_a_header_that_any_scheme_reads_reaches_the_receiver(
    sidecar: Sidecar, receiver: Receiver, body: bytes, alias: bytes
) -> None:
    assert sidecar.ask(request("gitlab", [*signed_by_gitlab(body), (alias, b"x")], body)).status == 200
    assert seen(receiver, alias.lower()) == []


# -- the commands --


def run(sidecar: Sidecar, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    done = preloaded.run(*arguments, stdin=stdin, env=SECRETS | ENV, cwd=sidecar.directory)
    leak_watch.shown(f"sidecar {arguments[0]}", done.stdout + done.stderr)
    return done


def send(sidecar: Sidecar, name: str, *more: str) -> subprocess.CompletedProcess[bytes]:
    url = f"http://{sidecar.address}/combined/{name}"
    return run(sidecar, "send", url, "--config", str(sidecar.file), "--route", name, *more)


@pytest.mark.parametrize("name", ["gitlab", "shared", "both", "twice"])
def test_send_signs_as_the_provider_of_a_route_and_forges_on_request(
    sidecar: Sidecar, receiver: Receiver, name: str
) -> None:
    sent = send(sidecar, name)
    assert (sent.returncode, sent.stdout) == (0, b"200 OK\nok\n"), sent.stderr
    assert len(receiver.requests) == 1
    mark = sidecar.mark()
    forged = send(sidecar, name, "--forged")
    assert (forged.returncode, forged.stdout.partition(b"\n")[0]) == (1, b"403 Forbidden")
    assert send(sidecar, name, "--forged", "--expect", "403").returncode == 0
    assert len(receiver.requests) == 1
    for count in (1, 2):
        line = sidecar.delivery(mark, count, outcome="rejected")
        assert line["reason"] in ("signature_mismatch", "token_mismatch")


def explained(sidecar: Sidecar, raw: bytes) -> Any:
    return json.loads(run(sidecar, "explain", "--config", str(sidecar.file), "--json", "-", stdin=raw).stdout)


def decisions(said: Any) -> Sequence[tuple[str, str]]:
    return [(stage["name"], stage["decision"]) for stage in said["stages"] if "_of" in stage["name"]]


def test_explain_shows_the_decision_of_each_scheme(sidecar: Sidecar, receiver: Receiver, body: bytes) -> None:
    said = explained(sidecar, request("gitlab", [(b"X-Gitlab-Token", TOKEN.encode())], body))
    assert (said["verdict"], said["secret"]) == ("accepted", "token")
    assert decisions(said) == [("any_of[0]", "rejected"), ("any_of[1]", "passed")]
    said = explained(sidecar, request("gitlab", [(b"X-Gitlab-Token", TOKEN.encode() + b"x")], body))
    assert (said["verdict"], said["reason"]) == ("rejected", "token_mismatch")
    assert decisions(said) == [("any_of[0]", "rejected"), ("any_of[1]", "rejected")]
    said = explained(sidecar, request("both", [(b"X-Acme-Token", SECRETS["OTHER_API_KEY"].encode())], body))
    assert (said["verdict"], said["reason"]) == ("rejected", "signature_missing")
    assert decisions(said) == [("all_of[0]", "passed"), ("all_of[1]", "rejected")]


def test_a_hint_is_about_the_scheme_that_was_used(sidecar: Sidecar, receiver: Receiver, body: bytes) -> None:
    wrong = base64.b64encode(base64.b64decode(SIGNING.removeprefix("whsec_"))[:-1] + b"!").decode()
    said = explained(sidecar, request("gitlab", signed_by_gitlab(body + b"\n", now=time.time()), body))
    assert said["hint"] == "body_newline_changed"
    said = explained(sidecar, request("gitlab", signed_by_gitlab(body, "whsec_" + wrong), body))
    assert said["hint"] == "unknown"
    line = sidecar.diagnosed(request("gitlab", signed_by_gitlab(body + b"\n"), body))
    assert line["hint"] == "body_newline_changed"


def test_check_prints_every_scheme_with_its_secrets_and_warns_of_the_weakest(sidecar: Sidecar) -> None:
    said = run(sidecar, "check", str(sidecar.file)).stdout.decode()
    (line,) = [line for line in said.splitlines() if line.startswith("  gitlab: ")]
    assert "any of gitlab-signing-token (HMAC-SHA256 in webhook-signature; secrets signing) or gitlab (" in line
    assert "secrets token)" in line
    assert "gitlab signs nothing, so anyone who sees one delivery can send any other" in said
