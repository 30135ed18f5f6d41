"""`presets`, `sign`, `send` and `explain` as a user runs them: what they print, and their exit status."""

import hmac
import json
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import leak_watch
import pytest
import yaml
from needs import needs
from published_store import with_examples

from sidecar.cli.main import main
from sidecar.config.preset_settings import fill_settings
from sidecar.config.presets import load_preset, preset_names
from sidecar.config.scheme_keys import SCHEME

SECRET = "CANARY-SECRET-of-the-commands-81c2"


leak_watch.marker(SECRET.encode())


class Ran(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("sign", "--preset", ...)`; nothing it prints may hold the secret."""
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setenv("OTHER", "another-secret-of-some-length")
    monkeypatch.delenv("SIDECAR_CONFIG", raising=False)

    def ran(*arguments: str) -> Ran:
        status = main(arguments)
        printed = capsys.readouterr()
        assert SECRET not in printed.out + printed.err
        leak_watch.shown(f"sidecar {arguments[:1]}", (printed.out + printed.err).encode())
        return Ran(status, printed.out, printed.err)

    return ran


@pytest.fixture
def body(tmp_path: Path) -> str:
    file = tmp_path / "body.json"
    file.write_bytes(b'{"note":"it\'s a \\"body\\"","n":1}\n')
    return str(file)


def capture(tmp_path: Path, headers: str, body: str, target: str = "/hook") -> str:
    """A file as somebody would put it together: printed headers, a blank line, the body."""
    file = tmp_path / "request.http"
    file.write_bytes(f"POST {target} HTTP/1.1\nHost: hooks.test\n{headers}\n".encode() + Path(body).read_bytes())
    return str(file)


def test_presets_lists_every_preset_with_its_scheme(run: Run) -> None:
    listed = run("presets")
    assert listed.status == 0
    names = [line.split()[0] for line in listed.out.splitlines()]
    assert names == list(preset_names())
    assert "begini" in names
    assert "HMAC-SHA512 in X-Signature" in listed.out


@pytest.mark.parametrize("name", preset_names())
def test_a_printed_preset_is_a_scheme_that_verify_takes(run: Run, name: str) -> None:
    printed = run("presets", name)
    assert printed.status == 0
    scheme = replace(SCHEME.read(fill_settings(yaml.safe_load(printed.out), {}, examples=True)), name=name)
    assert scheme == load_preset(name)


def test_an_unknown_preset_gets_a_suggestion(run: Run) -> None:
    unknown = run("presets", "githb")
    assert (unknown.status, unknown.out) == (1, "")
    assert "did you mean github" in unknown.err
    assert "run `sidecar presets` for the list" in run("presets", "zzzz").err


@pytest.mark.parametrize("name", ["whatsapp", "WhatsApp"])
def test_an_alias_leads_to_the_preset(run: Run, body: str, name: str) -> None:
    printed = run("presets", name)
    assert (printed.status, printed.out) == (1, "")
    assert f"'{name}' is not a preset; use meta" in printed.err
    assert "use meta" in run("sign", "--preset", name, "--secret", "env:SECRET", "--body", body).err


def test_what_sign_prints_explain_accepts(run: Run, body: str, tmp_path: Path) -> None:
    for preset in ("github", "slack", "shopify", "stripe"):
        signed = run("sign", "--preset", preset, "--secret", "env:SECRET", "--body", body)
        assert signed.status == 0
        file = capture(tmp_path, signed.out, body)
        explained = run("explain", "--preset", preset, "--secret", "env:OTHER", "--secret", "env:SECRET", file)
        assert explained.status == 0, explained
        assert explained.out.endswith("accepted, by the secret SECRET\n")


def test_sign_takes_url_timestamp_and_id(run: Run, body: str, tmp_path: Path) -> None:
    url = "https://hooks.example.com/hook?a=1"
    signed = run("sign", "--preset", "square", "--secret", "env:SECRET", "--body", body, "--url", url)
    file = capture(tmp_path, signed.out, body, "/hook?a=1")
    explain = ("explain", "--preset", "square", "--secret", "env:SECRET")
    for public_url in ("https://hooks.example.com", "https://hooks.example.com/", url):
        assert run(*explain, "--public-url", public_url, file).status == 0
    wrong = run(*explain, "--public-url", "http://hooks.example.com", file)
    assert (wrong.status, "hint: url_mismatch" in wrong.out) == (1, True)
    signed = run("sign", "--preset", "slack", "--secret", "env:SECRET", "--body", body, "--timestamp", "1531420618")
    assert "X-Slack-Request-Timestamp: 1531420618" in signed.out
    file = capture(tmp_path, signed.out, body)
    explain = ("explain", "--preset", "slack", "--secret", "env:SECRET")
    assert run(*explain, "--now", "1531420620.5", file).status == 0
    old = run(*explain, file)
    assert (old.status, "rejected: timestamp_too_old" in old.out, "--now" in old.out) == (1, True, True)
    signed = run("sign", "--preset", "github", "--secret", "env:SECRET", "--id", "delivery-7")
    assert "X-GitHub-Delivery: delivery-7" in signed.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sign", "--preset", "square", "--secret", "env:SECRET"), "signs the URL"),
        (("sign", "--preset", "githb", "--secret", "env:SECRET"), "did you mean github"),
        (("sign", "--preset", "github", "--secret", "hunter2"), "never the secret itself"),
        (("sign", "--preset", "github", "--secret", "env:NOT_SET"), "NOT_SET is not set"),
        (("sign", "--preset", "github", "--setting", "a=b", "--secret", "env:SECRET"), "github has no setting 'a'; remove"),
        (("sign", "--preset", "google-pubsub", "--setting", "aud=b", "--secret", "env:SECRET"), "its settings are audience"),
        (("sign", "--preset", "config/full.yaml", "--secret", "env:SECRET"), "is a whole configuration, not a scheme; use"),
        (("sign", "--preset", "github", "--secret", "file:/nowhere"), "can't be read"),
        (("sign", "--preset", "standard-webhooks", "--secret", "env:SECRET"), "is not base64, with or without 'whsec_'"),
        (("sign", "--preset", "github", "--secret", "env:SECRET", "--body", "/nowhere"), "can't be read"),
        (("sign", "--preset", "discord", "--secret", "env:SECRET"), "is not a private key"),
        (("explain", "/nowhere"), "--preset NAME and --secret REF, or --config FILE"),
        (("explain", "--preset", "github", "/nowhere"), "--secret env:NAME"),
        (("explain", "--preset", "github", "--secret", "env:SECRET", "/nowhere"), "/nowhere: can't be read"),
        (("explain", "--preset", "square", "--secret", "env:SECRET", "/nowhere"), "--public-url"),
        (("explain", "--config", "/nowhere", "/nowhere"), "the configuration is not valid"),
        (("explain", "--client-ip", "x", "--config", "/nowhere", "/nowhere"), "is not an IP address"),
    ],
)  # fmt: skip
def test_unusable_input_is_exit_status_2_and_names_the_remedy(
    run: Run, arguments: tuple[str, ...], message: str
) -> None:
    unusable = run(*arguments)
    assert (unusable.status, unusable.out) == (2, "")
    assert message in unusable.err
    assert "hunter2" not in unusable.err


def test_a_capture_that_is_none_is_exit_status_2(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "answer.http"
    file.write_bytes(b"HTTP/1.1 200 OK\r\n\r\n")
    unusable = run("explain", "--preset", "github", "--secret", "env:SECRET", str(file))
    assert unusable.status == 2
    assert f"{file}: line 1: is a response" in unusable.err


def test_a_secret_that_is_no_key_of_the_scheme_matches_nothing_and_says_so(run: Run, body: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("whsec_Q0FOQVJZLVNFQ1JFVC1vZi10aGUtY29tbWFuZHM=\n")
    reference = f"file:{tmp_path / 'key'}"
    sign = ("sign", "--preset", "standard-webhooks", "--secret", reference, "--body", body)
    file = capture(tmp_path, run(*sign).out, body)
    explain = ("explain", "--preset", "standard-webhooks", "--secret", "env:SECRET")
    refused = run(*explain, file)
    assert (refused.status, "rejected: signature_mismatch" in refused.out) == (1, True)
    assert "! the secret SECRET is not base64, with or without 'whsec_' before it" in refused.out
    assert run(*explain, "--secret", reference, file).out.endswith("accepted, by the secret key\n")
    (tmp_path / "key").write_text("whsec_Q0FOQVJZLVNFQ1JFVC1vZi10aGUtY29tbWFuZHM= \n\n")
    assert "hint: secret_has_whitespace" in run(*explain[:3], "--secret", reference, file).out
    (tmp_path / "key").write_text("WEBHOOK_SECRET='whsec_Q0FOQVJZLVNFQ1JFVC1vZi10aGUtY29tbWFuZHM='\n")
    assert "hint: secret_has_extra_text" in run(*explain[:3], "--secret", reference, file).out


@pytest.mark.parametrize("preset", preset_names())
def test_a_secret_of_any_kind_and_garbage_for_a_signature_end_in_a_verdict(
    run: Run, preset: str, tmp_path: Path
) -> None:
    """Whatever stands in the secret and in the signature's place, `explain` says no and not more than that."""
    scheme = load_preset(preset)
    value = with_examples(preset)
    given = value if isinstance(value, dict) else {}
    settings = [
        part
        for name, each in given.items()
        if name != "preset"
        for item in (each if isinstance(each, list) else [each])
        for part in ("--setting", f"{name}=env:{item['env']}" if isinstance(item, dict) else f"{name}={item}")
    ]
    names = [scheme.signature.header.replace("{n}", "1") or "X-None", *(name for name, _ in scheme.require)]
    clock = [scheme.timestamp.header] if scheme.timestamp is not None and scheme.timestamp.header else []
    head = "".join(f"{name}: t=1,v1={'ab' * 32}\n" for name in dict.fromkeys([*names, *clock]))
    (tmp_path / "request.http").write_bytes(f"POST /a?b=c HTTP/1.1\n{head}\n".encode() + b'{"a":1}')
    refused = run(
        "explain", "--preset", preset, *settings, "--secret", "env:SECRET", "--public-url", "https://a.test", "--json",
        str(tmp_path / "request.http"),
    )  # fmt: skip
    said = json.loads(refused.out)
    assert (refused.status, said["verdict"]) == (1, "rejected")
    # The signature has the length of a SHA-256: the wrong algorithm where v1= is a tag of the scheme, and SHA-512 its hash.
    assert said["hint"] in (None, "unknown", "wrong_encoding", "prefix_missing", "wrong_algorithm")


@pytest.fixture
def explain_preset(run: Run, tmp_path: Path) -> Callable[..., Any]:
    """`explain_preset(name, raw, *arguments)`: the JSON object, and the text."""

    def explained(preset: str, raw: bytes, *arguments: str) -> tuple[Any, str]:
        file = tmp_path / "request.http"
        file.write_bytes(raw)
        command = ("explain", "--preset", preset, "--secret", "env:SECRET", *arguments, str(file))
        said = json.loads(run(*command, "--json").out)
        text = run(*command)
        assert text.status == (0 if said["verdict"] == "accepted" else 1)
        assert SECRET not in text.out
        return said, text.out

    return explained


def test_explain_says_what_the_receiver_gets(run: Run, body: str, tmp_path: Path) -> None:
    routes = [
        {
            "path": "/hook",
            "verify": "github",
            "secrets": [{"id": "current", "env": "SECRET"}],
            "upstream": {
                "url": "https://receiver:8443",
                "host": "receiver.internal",
                "tls": {"server_name": "a.test"},
                "connections": 20,
            },
            "timeouts": {"connect": "9s"},
            "headers": {
                "set": {"Authorization": {"id": "token", "env": "OTHER"}, "X-Env": "prod"},
                "remove": ["X-Internal-*"],
            },
            "sign": {"scheme": "github", "secret": {"env": "OTHER"}},
        },
        {"path": "/plain", "verify": "github", "secrets": [{"env": "SECRET"}], "upstream": "http://127.0.0.1:3000"},
    ]
    config = tmp_path / "sidecar.yaml"
    config.write_text(json.dumps({"routes": routes}))
    signed = run("sign", "--preset", "github", "--secret", "env:SECRET", "--body", body).out
    file = capture(tmp_path, f"{signed}X_Internal_A: 1\nX-Kept: 1\n", body)
    explained = run("explain", "--config", str(config), file)
    assert explained.status == 0, explained
    (line,) = [line for line in explained.out.splitlines() if line.startswith("+ forward")]
    assert line == (
        "+ forward    to https://receiver:8443; Host receiver.internal in place of the sender's; its certificate must be for "
        "a.test; at most 20 at a time from each process; it has 9 s to accept the connection, 30 s to begin its response, "
        "60 s in all; Authorization (secret token), X-Env set; the sender's X_Internal_A removed; signed for it as github; "
        "the sender's X-Hub-Signature-256 removed, which that scheme reads"
    )
    plain = run("explain", "--config", str(config), capture(tmp_path, signed, body, "/plain"))
    assert plain.status == 0
    assert "forward" not in plain.out


def test_explain_says_which_tenant_it_was_and_which_secret(run: Run, body: str, tmp_path: Path) -> None:
    directory = tmp_path / "tenants"
    directory.mkdir()
    (directory / "acme").write_text("another-secret-of-some-length")
    (directory / "acme.previous").write_text(SECRET)
    config = tmp_path / "sidecar.yaml"
    routes = [{"path": "/hooks/{tenant}", "verify": "github", "secrets": {"dir": str(directory)}}]
    config.write_text(json.dumps({"upstream": "http://127.0.0.1:3000", "routes": routes}))
    signed = run("sign", "--preset", "github", "--secret", "env:SECRET", "--body", body).out
    explain = ("explain", "--config", str(config))
    known = run(*explain, capture(tmp_path, signed, body, "/hooks/acme"))
    assert known.status == 0, known
    assert f"+ tenant     acme, by the path; its secrets in {directory}: current, previous" in known.out
    assert known.out.endswith("accepted, by the secret previous\n")
    unknown = run(*explain, capture(tmp_path, signed, body, "/hooks/nobody"))
    assert unknown.status == 1
    assert (
        f"- tenant     nobody, by the path: no secret of this tenant in {directory}; nothing can match" in unknown.out
    )
    assert "rejected: signature_mismatch" in unknown.out
    given = run(*explain, "--secret", "env:SECRET", capture(tmp_path, signed, body, "/hooks/nobody"))
    assert given.status == 0
    (directory / "acme.previous").unlink()
    (directory / "acme").write_text(f"{SECRET}\n\n")
    assert "hint: secret_has_whitespace" in run(*explain, capture(tmp_path, signed, body, "/hooks/acme")).out


def test_explain_says_which_part_of_a_client_certificate_was_checked(run: Run, body: str, tmp_path: Path) -> None:
    config = tmp_path / "sidecar.yaml"
    routes = [
        {
            "path": "/hook",
            "verify": "github",
            "secrets": [{"env": "SECRET"}],
            "client_certificate": {"header": "X-Forwarded-Client-Cert", "san": "pix.example.com"},
        }
    ]
    upstream = {"upstream": "http://127.0.0.1:3000", "trusted_proxies": ["192.0.2.1/32"]}
    config.write_text(json.dumps(upstream | {"routes": routes}))
    signed = run("sign", "--preset", "github", "--secret", "env:SECRET", "--body", body).out
    file = capture(tmp_path, f"{signed}X-Forwarded-Client-Cert: DNS=pix.example.com\n", body)
    explain = ("explain", "--config", str(config))
    assert "- certificate not checked without --client-ip, the address of the proxy" in run(*explain, file).out
    fits = run(*explain, "--client-ip", "192.0.2.1", file)
    assert fits.status == 0
    assert "+ certificate san of the certificate in X-Forwarded-Client-Cert fit" in fits.out
    stranger = run(*explain, "--client-ip", "192.0.2.2", file)
    assert stranger.status == 1
    assert "rejected: client_certificate_mismatch" in stranger.out
    assert "x certificate the connection is not a trusted proxy's, whose header alone counts" in stranger.out


def test_explain_with_a_preset_answers_an_unsigned_handshake(explain_preset: Callable[..., Any]) -> None:
    challenge = b"GET /hook?challenge=abc HTTP/1.1\nHost: hooks.test\n\n"
    said, text = explain_preset("dropbox", challenge)
    assert (said["verdict"], said["reason"], said["handshake"]) == ("accepted", None, "answered")
    assert text.endswith("handshake answered\n")
    wrong, _ = explain_preset("dropbox", challenge.replace(b"abc", b"%3Cscript%3E"))
    assert (wrong["reason"], wrong["handshake"]) == ("malformed_request", "rejected")


@pytest.fixture
def signed_request(run: Run, tmp_path: Path) -> Callable[[str, str], bytes]:
    """`signed_request(preset, body)`: a captured request, signed with the secret of `env:SECRET`."""

    def make(preset: str, text: str) -> bytes:
        body = tmp_path / "body.json"
        body.write_text(text)
        signed = run("sign", "--preset", preset, "--secret", "env:SECRET", "--body", str(body)).out
        return f"POST /hook HTTP/1.1\nHost: hooks.test\n{signed}\n{text}".encode()

    return make


def test_explain_with_a_preset_names_the_receiver_of_a_signed_handshake(
    explain_preset: Callable[..., Any], signed_request: Callable[[str, str], bytes]
) -> None:
    raw = signed_request("slack", '{"type":"url_verification","challenge":"abc"}')
    said, _ = explain_preset("slack", raw)
    assert (said["verdict"], said["secret"], said["handshake"]) == ("accepted", "SECRET", "passed")
    forged, _ = explain_preset("slack", raw.replace(b"abc", b"abd"))
    assert (forged["reason"], forged["handshake"]) == ("signature_mismatch", None)


def test_explain_with_a_preset_computes_the_response_to_a_signed_handshake(
    explain_preset: Callable[..., Any], signed_request: Callable[[str, str], bytes]
) -> None:
    raw = signed_request("zoom", '{"event":"endpoint.url_validation","payload":{"plainToken":"abc"}}')
    said, _ = explain_preset("zoom", raw)
    assert (said["verdict"], said["handshake"]) == ("accepted", "answered")


def test_explain_with_a_preset_cannot_compare_the_token_of_a_handshake(explain_preset: Callable[..., Any]) -> None:
    """The secret that stands in for the unknown token must not pass for it either."""
    for token in ("wrong", SECRET):
        query = f"hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={token}"
        said, text = explain_preset("meta", f"GET /hook?{query} HTTP/1.1\nHost: hooks.test\n\n".encode())
        assert (said["verdict"], said["reason"], said["handshake"]) == ("accepted", None, "unchecked")
        assert "use --config" in text
        assert text.endswith("handshake unchecked\n")
    said, _ = explain_preset("meta", b"GET /hook HTTP/1.1\nHost: hooks.test\n\n")
    assert (said["reason"], said["handshake"]) == ("signature_missing", None)


def test_explain_with_a_scheme_whose_handshake_contains_the_url(
    explain_preset: Callable[..., Any], tmp_path: Path
) -> None:
    scheme = tmp_path / "scheme.yaml"
    scheme.write_text("""\
signature: {header: X-Sig}
handshake:
  - request: {method: GET}
    challenge: {query: challenge, pattern: "[a-z]{1,9}"}
    computed: {hash: sha256, of: "{challenge}{url}"}
    answer: {text: "{computed}"}
""")
    raw = b"GET /hook?challenge=abc HTTP/1.1\nHost: hooks.test\n\n"
    said, _ = explain_preset(str(scheme), raw)
    assert said["handshake"] == "unchecked"
    assert "add --public-url" in why(said, "handshake")
    assert explain_preset(str(scheme), raw, "--public-url", "https://hooks.test")[0]["handshake"] == "answered"


CONFIG = {
    "upstream": "http://127.0.0.1:3000",
    "trusted_proxies": ["10.0.0.0/8"],
    "routes": [
        {
            "path": "/github",
            "verify": "github",
            "secrets": [{"id": "current", "env": "OTHER"}, {"id": "previous", "env": "SECRET"}],
            "allow": ["203.0.113.0/24"],
        },
        {"path": "/shadow", "verify": "github", "secrets": [{"env": "SECRET"}], "mode": "shadow"},
        {"path": "/small", "verify": "github", "secrets": [{"env": "SECRET"}], "limits": {"body": 5}},
        {"path": "/open", "open": True, "methods": ["POST"]},
        {"path": "/hosted", "hosts": ["a.example"], "open": True, "methods": ["POST"]},
        {"path": "/hosted", "name": "other", "hosts": ["*.b.example"], "verify": "none", "allow": ["192.0.2.1/32"]},
        {"path": "/network", "verify": "none", "allow": ["203.0.113.0/24"]},
    ],
}


@pytest.fixture
def explain(run: Run, body: str, tmp_path: Path) -> Callable[..., Any]:
    """`explain(target, *arguments, headers="...", signed=True)`: the JSON object, its exit status checked against it."""
    (tmp_path / "sidecar.yaml").write_text(json.dumps(CONFIG))
    good = run("sign", "--preset", "github", "--secret", "env:SECRET", "--body", body).out

    def explained(target: str, *arguments: str, headers: str = "", signed: bool = True) -> Any:
        file = capture(tmp_path, (good if signed else "") + headers, body, target)
        text = run("explain", "--config", str(tmp_path / "sidecar.yaml"), *arguments, file)
        made = run("explain", "--config", str(tmp_path / "sidecar.yaml"), "--json", *arguments, file)
        said = json.loads(made.out)
        assert made.status == text.status == (0 if said["verdict"] == "accepted" else 1)
        assert said["verdict"] in text.out or "handshake" in text.out
        assert said["reason"] is None or said["reason"] in text.out
        return said

    return explained


def why(said: Any, stage: str) -> str:
    return next(f"{each['decision']}: {each['why']}" for each in said["stages"] if each["name"] == stage)


def test_explain_finds_the_route_the_client_and_the_secret(explain: Callable[..., Any]) -> None:
    said = explain("/github", "--client-ip", "10.0.0.5", headers="X-Forwarded-For: 198.51.100.1, 203.0.113.7\n")
    assert (said["verdict"], said["secret"], said["route"], said["client"]) == (
        "accepted", "previous", "github", "203.0.113.7",
    )  # fmt: skip
    assert why(said, "client") == "passed: 203.0.113.7, from X-Forwarded-For of the trusted proxy 10.0.0.5"
    assert "body (33 bytes)" in why(said, "signed")
    assert why(said, "signature").endswith("X-Hub-Signature-256: 'sha256=' and 64 characters of hex")


def test_explain_does_not_advise_another_secret_where_none_was_tried(explain: Callable[..., Any]) -> None:
    said = explain("/github", signed=False, headers="X-Hub-Signature-256: sha1=abc\n")
    assert (said["reason"], said["hint"]) == ("signature_malformed", "unknown")
    assert said["try"].startswith("compare what arrived with the form that is expected")
    assert why(said, "request").startswith("passed: POST /github, 2 header fields, ")


def test_explain_refuses_whom_the_allowlist_refuses(explain: Callable[..., Any]) -> None:
    forwarded = "X-Forwarded-For: 203.0.113.7\n"
    said = explain("/github", "--client-ip", "198.51.100.9", headers=forwarded)
    assert (said["reason"], said["client"]) == ("ip_not_allowed", "198.51.100.9")
    assert "is ignored" in why(said, "client")
    said = explain("/github", "--client-ip", "10.0.0.5", headers="X-Forwarded-For: nonsense\n")
    assert said["reason"] == "client_ip_unreadable"
    said = explain("/github", headers=forwarded)
    assert said["verdict"] == "accepted"
    assert why(said, "allowlist") == "skipped: not checked without --client-ip"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/nothing", "no_route"),
        ("/github/", "no_route"),
        ("/hosted", "no_route"),
        ("/small", "body_too_large"),
        ("/github#x", "malformed_request"),
    ],
)
def test_explain_stops_where_live_traffic_stops(explain: Callable[..., Any], target: str, reason: str) -> None:
    assert explain(target)["reason"] == reason


def test_explain_tells_what_passes_unverified(explain: Callable[..., Any]) -> None:
    assert "everything passes" in why(explain("/open", signed=False), "verify")
    assert explain("/network", "--client-ip", "203.0.113.1", signed=False)["verdict"] == "accepted"
    assert explain("/network", "--client-ip", "203.0.114.1", signed=False)["reason"] == "ip_not_allowed"


def test_explain_finds_the_route_of_a_host(run: Run, tmp_path: Path, explain: Callable[..., Any], body: str) -> None:
    del explain  # it writes the configuration
    for host, outcome in (("a.example", "accepted"), ("A.example:80", "accepted"), ("b.example", "rejected")):
        file = tmp_path / "request"
        file.write_bytes(b"POST /hosted HTTP/1.1\r\nHost: %b\r\nContent-Length: 0\r\n\r\n" % host.encode())
        said = json.loads(run("explain", "--config", str(tmp_path / "sidecar.yaml"), "--json", str(file)).out)
        assert said["verdict"] == outcome, said
    assert why(said, "route") == "rejected: no route has this path on this host"


def test_explain_says_that_shadow_mode_forwards_all_the_same(explain: Callable[..., Any]) -> None:
    said = explain("/shadow", signed=False)
    assert (said["verdict"], said["reason"], said["shadow"]) == ("rejected", "signature_missing", True)


def test_secrets_given_to_explain_stand_in_for_the_configurations(explain: Callable[..., Any]) -> None:
    assert explain("/github", "--secret", "env:OTHER")["hint"] == "unknown"
    assert explain("/github", "--secret", "env:OTHER", "--secret", "env:SECRET")["secret"] == "SECRET"


# -- checking --


def test_check_shows_what_each_route_will_do(run: Run, tmp_path: Path) -> None:
    acme = {"signature": {"header": "X-Acme-Signature"}, "signed": "{body}"}
    secrets = [{"id": "current", "env": "OTHER"}, {"id": "previous", "env": "SECRET"}]
    routes = [
        {"path": "/github", "verify": "github", "secrets": secrets, "allow": ["203.0.113.0/24"], "replay": "10m"},
        {"path": "/acme/*", "verify": acme, "secrets": [{"env": "SECRET"}], "sign": {"secret": {"env": "KEY"}}},
        {"path": "/shadow", "verify": "github", "secrets": [{"env": "SECRET"}], "mode": "shadow"},
        {"path": "/network", "verify": "none", "allow": ["203.0.113.0/24"]},
        {"path": "/open", "hosts": ["c.example"], "open": True},
        {"path": "/open", "name": "elsewhere", "hosts": ["a.example", "*.b.example"], "open": True},
    ]
    file = tmp_path / "sidecar.yaml"
    file.write_text(json.dumps({"upstream": "http://127.0.0.1:3000", "routes": routes}))
    checked = run("check", "--no-secrets", str(file))
    assert (checked.status, checked.err) == (0, "")
    lines = checked.out.splitlines()
    assert lines[:2] == [f"{file}: ok", "  listen [::]:8080, admin [::]:9090"]
    assert [line.replace(" -> http://127.0.0.1:3000: ", " -> ") for line in lines[2:8]] == [
        (
            "  github: POST /github -> github (HMAC-SHA256 in X-Hub-Signature-256); secrets current, previous; "
            "from 203.0.113.0/24; at most once in 600 s"
        ),
        (
            "  acme: POST /acme/* -> custom scheme (HMAC-SHA256 in X-Acme-Signature); secrets SECRET; "
            "signed for the receiver as standard-webhooks"
        ),
        "  shadow: POST /shadow -> github (HMAC-SHA256 in X-Hub-Signature-256); secrets SECRET; SHADOW: rejects nothing",
        "  network: POST /network -> no signature, address only; from 203.0.113.0/24",
        "  open: GET/HEAD/POST c.example/open -> OPEN: nothing is verified",
        "  elsewhere: GET/HEAD/POST a.example|*.b.example/open -> OPEN: nothing is verified",
    ]
    file.write_text("upstream: x\nrouts: []\n")
    wrong = run("check", str(file))
    assert (wrong.status, wrong.out) == (1, "")
    assert f"{file}:1: upstream:" in wrong.err
    assert f"{file}:2: routs: unknown key" in wrong.err


# -- sending --


@pytest.fixture
def server() -> Iterator[Any]:
    """Answers 200 to what it gets and keeps it as a capture."""
    seen: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(f"{self.requestline}\r\n{self.headers}".encode() + content)
            self.send_response(200 if len(seen) < 4 else 403)
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"yes")

        def log_message(self, format: str, *args: object) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}/hook?a=1", seen
    made.shutdown()
    made.server_close()


def test_what_send_sends_is_a_valid_delivery(run: Run, server: Any, tmp_path: Path) -> None:
    url, seen = server
    (tmp_path / "sent").write_bytes(b"")
    for preset, more in (("github", ()), ("square", ("--public-url", "https://hooks.example.com"))):
        seen.clear()
        sent = run("send", url, "--preset", preset, "--secret", "env:SECRET", *more)
        assert (sent.status, sent.out) == (0, "200 OK\nyes\n")
        (tmp_path / "sent").write_bytes(seen[0])
        explained = run("explain", "--preset", preset, "--secret", "env:SECRET", *more, str(tmp_path / "sent"))
        assert explained.status == 0, explained


def test_send_tampers_counts_and_fails_with_the_answers(run: Run, server: Any, tmp_path: Path) -> None:
    url, seen = server
    sent = run("send", url, "--preset", "github", "--secret", "env:SECRET", "--count", "5", "--tamper")
    assert (sent.status, sent.out) == (1, "3 x 200, 2 x 403\nyes\n")
    (tmp_path / "sent").write_bytes(seen[0])
    explained = run("explain", "--preset", "github", "--secret", "env:SECRET", str(tmp_path / "sent"))
    assert explained.status == 1


def test_send_says_when_there_is_no_response(run: Run) -> None:
    failed = run("send", "http://127.0.0.1:9/", "--preset", "github", "--secret", "env:SECRET")
    assert failed.status == 1
    assert "no response from http://127.0.0.1:9/" in failed.err
    assert failed.err.endswith("; check that the sidecar listens there\n")
    wrong = run("send", "127.0.0.1:9/", "--preset", "github", "--secret", "env:SECRET")
    assert (wrong.status, "127.0.0.1:9/ is not a valid URL (" in wrong.err) == (2, True)
    assert wrong.err.endswith("; use one such as http://127.0.0.1:8080/path\n")


def test_the_command_alone_shows_its_help(run: Run) -> None:
    alone = run()
    assert (alone.status, alone.out) == (2, "")
    assert "validate configuration files" in alone.err


def test_several_presets_that_are_alike_are_listed(run: Run) -> None:
    assert run("presets", "githb").err.endswith(
        "; did you mean github, gitlab or github-sha1? `sidecar presets` lists all\n"
    )


def test_send_ends_well_if_the_answer_is_the_expected_one(run: Run, server: Any) -> None:
    url, _ = server
    common = ("--preset", "github", "--secret", "env:SECRET", "--expect")
    assert run("send", url, *common, "200").status == 0
    forged = run("send", url, *common, "403")
    assert (forged.status, forged.err) == (1, "sidecar send: expected 403; the sidecar's log has the reason\n")
    assert [run("send", url, *common, "2xx").status for _ in "34"] == [0, 1]
    assert run("send", url, *common, "4xx").status == 0
    with pytest.raises(SystemExit):
        run("send", url, *common, "403.")


def test_send_can_check_that_no_connection_is_accepted(run: Run, server: Any) -> None:
    url, seen = server
    common = ("--preset", "github", "--secret", "env:SECRET", "--expect", "none")
    nobody = "http://127.0.0.1:9/"
    assert run("send", nobody, *common)[:2] == (0, f"{nobody} accepts no connection\n")
    assert run("send", url, *common)[:2] == (1, f"{url} accepts connections\n")
    assert seen == []
    # A test that could not run must not pass.
    assert "can't connect to" in run("send", "http://nobody.invalid/", *common).err
    assert run("send", "http://127.0.0.1:99999/", *common).status == 1


def test_the_curl_line_sends_a_valid_delivery(run: Run, server: Any, body: str, tmp_path: Path) -> None:
    needs("curl")
    url, seen = server
    for file in ((), ("--body", body)):
        line = run("sign", "--preset", "slack", "--secret", "env:SECRET", "--url", url, "--curl", *file)
        assert line.status == 0
        words = shlex.split(line.out)
        assert words[0] == "curl"
        answered = subprocess.run(line.out, shell=True, capture_output=True, timeout=20, check=True)
        assert answered.stdout.endswith(b"yes")
        (tmp_path / "sent").write_bytes(seen[-1])
        explained = run("explain", "--preset", "slack", "--secret", "env:SECRET", str(tmp_path / "sent"))
        assert explained.status == 0, explained


def test_a_body_that_no_command_line_holds_must_be_a_file(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    file = tmp_path / "binary"
    file.write_bytes(b"\xff\x00")
    sign = ("sign", "--preset", "github", "--secret", "env:SECRET", "--curl")
    assert f"@{file}" in run(*sign, "--body", str(file)).out


# -- as the provider of a route --


@pytest.fixture
def config(server: Any, tmp_path: Path) -> str:
    """A configuration that listens where `server` is."""
    port = server[0].partition("//")[2].partition("/")[0].rpartition(":")[2]
    own = {"id": "own", "env": "OTHER"}
    routes = [
        {"name": "hub", "path": "/hub", "verify": "github", "secrets": [{"env": "SECRET"}]},
        {"name": "below", "path": "/below/*", "verify": "github", "secrets": [{"env": "SECRET"}]},
        {
            "name": "token",
            "path": "/token/*",
            "verify": {"signature": {"path": "last", "kind": "token"}},
            "secrets": [{"env": "OTHER"}],
        },
        {
            "name": "all",
            "path": "/all",
            "verify": {"all_of": ["github", {"preset": "gitlab", "secrets": [own]}]},
            "secrets": [{"env": "SECRET"}],
        },
        {"name": "square", "path": "/sq", "verify": "square", "secrets": [{"env": "SECRET"}]},
        {"name": "discord", "path": "/discord", "verify": "discord", "secrets": [{"env": "PUBLIC"}]},
        {"name": "open", "path": "/open", "open": True},
    ]
    file = tmp_path / "config.json"
    file.write_text(
        json.dumps(
            {
                "listen": f"0.0.0.0:{port}",
                "upstream": "http://127.0.0.1:1",
                "public_url": "https://hooks.example.com",
                "routes": routes,
            }
        )
    )
    return str(file)


@pytest.mark.parametrize(
    ("route", "target"),
    [
        ("hub", "/hub"),
        ("below", "/below/sidecar-test"),
        ("token", "/token/another-secret-of-some-length"),
        ("all", "/all"),
        ("square", "/sq"),
    ],
)
def test_send_takes_scheme_secret_and_url_from_a_route(
    run: Run, server: Any, config: str, tmp_path: Path, monkeypatch: Any, route: str, target: str
) -> None:
    _, seen = server
    monkeypatch.setenv("PUBLIC", "11" * 32)
    for more, status in (((), 0), (("--forged",), 1)):
        seen.clear()
        assert run("send", "--config", config, "--route", route, *more).out == "200 OK\nyes\n"
        (tmp_path / "sent").write_bytes(seen[0])
        assert more or seen[0].split(b" ")[1] == target.encode()
        assert run("explain", "--config", config, str(tmp_path / "sent")).status == status


def test_sign_takes_scheme_secret_and_url_from_a_route(
    run: Run, server: Any, config: str, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setenv("PUBLIC", "11" * 32)
    monkeypatch.setenv("SIDECAR_CONFIG", config)
    signed = run("sign", "--route", "all")
    assert {"X-Hub-Signature-256", "X-Gitlab-Token"} < {line.partition(":")[0] for line in signed.out.splitlines()}
    line = run("sign", "--route", "hub", "--curl")
    assert line.status == 0
    assert line.out.rstrip().endswith("/hub")


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("--route", "hub"), "needs --config"),
        (("--config", "{}"), "give the URL to send to"),
        (("--config", "{}", "--route", "nobody"), "there is no route 'nobody'; use one of hub, below"),
        (("--config", "{}", "--route", "open"), "has no scheme"),
        (("--config", "{}", "--route", "hub", "--preset", "github"), "exclude each other"),
        (("--config", "/nowhere.yaml", "--route", "hub"), "is not valid"),
        (("--config", "{}", "--route", "discord"), "has a public key, which only verifies; give a private key"),
        (("http://127.0.0.1:9/", "--preset", "github"), "give --preset NAME and --secret REF"),
    ],
)
def test_a_route_that_nothing_can_be_sent_for_is_unusable(
    run: Run, config: str, monkeypatch: Any, capsys: Any, arguments: tuple[str, ...], remedy: str
) -> None:
    monkeypatch.setenv("PUBLIC", "11" * 32)
    failed = run("send", *(config if each == "{}" else each for each in arguments))
    assert failed.status == 2
    assert remedy in failed.err


def test_explain_with_a_preset_answers_a_test_that_the_published_secret_signs(
    run: Run, explain_preset: Callable[..., Any], monkeypatch: Any
) -> None:
    monkeypatch.setenv("PUBLISHED", "test_Am3L1GuOIc4blLUuHqAPxxwkZaJyEk8G")
    body = '{"type":"webhook.test"}'
    signature = hmac.new(b"test_Am3L1GuOIc4blLUuHqAPxxwkZaJyEk8G", body.encode(), "sha256").hexdigest()
    said, _ = explain_preset("mailersend", f"POST / HTTP/1.1\nSignature: {signature}\n\n{body}".encode())
    assert (said["verdict"], said["handshake"]) == ("accepted", "answered")
    said, _ = explain_preset("mailersend", f"POST / HTTP/1.1\nSignature: {signature}\n\n{body} ".encode())
    assert (said["verdict"], said["reason"]) == ("rejected", "signature_mismatch")
