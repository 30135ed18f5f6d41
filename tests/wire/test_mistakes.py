"""The mistakes that people make, each made on purpose: `sidecar explain` and the live log and metric give the right hint.

Every request is signed here, without the package, by somebody who gets one thing wrong.
"""

import base64
import contextlib
import gzip
import hashlib
import hmac
import io
import json
import time
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import leak_watch
import pytest
from craft import Craft
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from receiver import Receiver
from rsa_key import rsa_key
from sidecar_process import Config, Sidecar

from sidecar.cli.main import main
from sidecar.outcomes import Hint

GITHUB = "CANARY-SECRET-github-11c9"
BASE64_SECRET = base64.b64encode(b"CANARY-SECRET-standard-webhooks").decode()
HEX_SECRET = b"CANARY-SECRET-hex".hex()
RSA = rsa_key()
ENV = {
    "HINT_PUBLIC": RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    "HINT_WHSEC": "whsec_" + BASE64_SECRET,
    "HINT_HEX": HEX_SECRET,
    "HINT_BASE64": BASE64_SECRET,
    "HINT_BLANK": "CANARY-SECRET-with-a-blank ",
    "HINT_QUOTED": '"CANARY-SECRET-quoted-3c1b"',
    "HINT_NAMED": "export HINT='CANARY-SECRET-named-90ab'",
    "HINT_BOM": "\ufeffCANARY-SECRET-bom-71fe",
    "HINT_LINE": base64.b64encode(b"CANARY-SECRET-line-4d2c\n").decode(),
    "HINT_SQUARE": "CANARY-SECRET-square-77aa",
    "HINT_TOKEN": "CANARY-SECRET-token-1f1f",
}
#: JSON as a careful sender writes it; CANARY-BODY must never be shown.
BODY = '{"mark":"CANARY-BODY-5e1d","name":"Jörg","list":[1,2],"a":{"z":1,"b":"x/y"}}\r\n'.encode()
DOCUMENT = json.loads(BODY)
#: Compact, and escaped to ASCII: the escape of the only letter that needs one has digits in lower case.
ESCAPED = json.dumps(DOCUMENT, separators=(",", ":")).encode()
#: Unix time for `explain`, which gets it as --now.
#: Hints of schemes with tokens, published keys or listed components, which tests/commands has.
OF_TOKENS = {
    Hint.WRONG_AUDIENCE,
    Hint.WRONG_ISSUER,
    Hint.WRONG_SETTING,
    Hint.COMPONENT_MISSING,
    Hint.DIGEST_MISMATCH,
}
FIXED = 1_800_000_000


def route(name: str, verify: str | Config, secret: str) -> dict[str, Any]:
    return {"name": name, "path": f"/hint/{name}", "verify": verify, "secrets": [{"env": secret}]}


CONFIG: Config = {
    "public_url": "https://hooks.example.com",
    "routes": [
        route("github", "github", "GITHUB_SECRET"),
        route("shopify", "shopify", "SHOPIFY_SECRET"),
        route("slack", "slack", "SLACK_SECRET"),
        route("stripe", "stripe", "HINT_WHSEC"),
        route("standard", "standard-webhooks", "HINT_WHSEC"),
        route("square", "square", "HINT_SQUARE"),
        route("twilio", "twilio", "HINT_SQUARE"),
        route("gitlab", "gitlab", "HINT_TOKEN"),
        route("hubspot", "hubspot-v1", "HINT_TOKEN"),
        route("wise", "wise", "HINT_PUBLIC"),
        route("hex", {"signature": {"header": "X-Sig"}}, "HINT_HEX"),
        route("base64", {"signature": {"header": "X-Sig"}}, "HINT_BASE64"),
        *(
            route(name, {"signature": {"header": "X-Sig"}}, f"HINT_{name.upper()}")
            for name in ("blank", "quoted", "named", "bom", "line")
        ),
    ],
}


Headers = list[tuple[str, str]]


@dataclass
class Mistake:
    """A request with something wrong, and what must be said of it."""

    hint: str
    route: str
    headers: Headers
    body: bytes = BODY
    query: str = ""
    reason: str = "signature_mismatch"
    raw: bytes = field(init=False)

    def __post_init__(self) -> None:
        lines = [
            f"POST /hint/{self.route}{self.query} HTTP/1.1",
            "Host: hooks.test",
            f"Content-Length: {len(self.body)}",
        ]
        lines += [f"{name}: {value}" for name, value in self.headers]
        self.raw = "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


def mac(secret: str | bytes, message: bytes = BODY, algorithm: str = "sha256") -> bytes:
    return hmac.new(secret if isinstance(secret, bytes) else secret.encode(), message, algorithm).digest()


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def github(hint: str, text: str, body: bytes = BODY, reason: str = "signature_mismatch") -> Mistake:
    return Mistake(hint, "github", [("X-Hub-Signature-256", text)], body, reason=reason)


def signed(hint: str, message: bytes, body: bytes = BODY) -> Mistake:
    """GitHub signed `message` with the right secret, and `body` arrived."""
    return github(hint, "sha256=" + mac(GITHUB, message).hex(), body)


def slack(stamp: str, secret: str = "CANARY-SECRET-slack-90fe") -> Headers:
    text = mac(secret, b"v0:" + stamp.encode() + b":" + BODY).hex()
    return [("X-Slack-Request-Timestamp", stamp), ("X-Slack-Signature", "v0=" + text)]


def standard(key: str | bytes, now: int) -> Headers:
    text = b64(mac(key, b"msg_1.%d." % now + BODY))
    return [("webhook-id", "msg_1"), ("webhook-timestamp", str(now)), ("webhook-signature", "v1," + text)]


def square(url: str) -> Headers:
    text = b64(mac(ENV["HINT_SQUARE"], url.encode() + BODY))
    return [("x-square-hmacsha256-signature", text)]


def url(signed_as: str) -> Mistake:
    return Mistake("url_mismatch", "square", square(signed_as), query="?x=1")


def own(hint: str, route: str, key: str | bytes) -> Mistake:
    return Mistake(hint, route, [("X-Sig", mac(key).hex())])


MALFORMED = "signature_malformed"
SQUARE = "https://hooks.example.com/hint/square"


def mistakes(now: Any) -> dict[str, Any]:
    """One of each kind, signed at `now`, unix time in seconds."""
    return {
        "sha1 for sha256": github("wrong_algorithm", "sha1=" + mac(GITHUB, algorithm="sha1").hex(), reason=MALFORMED),
        "sha512 for sha256": github(
            "wrong_algorithm", "sha256=" + mac(GITHUB, algorithm="sha512").hex(), reason=MALFORMED
        ),
        "a plain hash of secret and body": github(
            "wrong_algorithm", "sha256=" + hashlib.sha256(GITHUB.encode() + BODY).hexdigest()
        ),
        "an HMAC for a keyed hash": Mistake(
            "wrong_algorithm", "hubspot", [("X-HubSpot-Signature", mac(ENV["HINT_TOKEN"]).hex())]
        ),
        "hex for base64 of a public-key signature": Mistake(
            "wrong_encoding", "wise", [("X-Signature-SHA256", RSA.sign(BODY, PKCS1v15(), SHA256()).hex())]
        ),
        "base64 for hex": github("wrong_encoding", "sha256=" + b64(mac(GITHUB)), reason=MALFORMED),
        "hex in upper case": github("wrong_encoding", "sha256=" + mac(GITHUB).hex().upper(), reason=MALFORMED),
        "hex for base64": Mistake(
            "wrong_encoding",
            "shopify",
            [("X-Shopify-Hmac-Sha256", mac("CANARY-SECRET-shopify-42aa").hex())],
            reason=MALFORMED,
        ),
        "no prefix": github("prefix_missing", mac(GITHUB).hex(), reason=MALFORMED),
        "a token behind Bearer": Mistake(
            "prefix_missing", "gitlab", [("X-Gitlab-Token", "Bearer " + ENV["HINT_TOKEN"])], reason="token_mismatch"
        ),
        "the sender's secret ends with a newline": github(
            "secret_has_whitespace", "sha256=" + mac(GITHUB + "\n").hex()
        ),
        "our secret ends with a blank": own("secret_has_whitespace", "blank", ENV["HINT_BLANK"].strip()),
        "our secret is in quotes": own("secret_has_extra_text", "quoted", ENV["HINT_QUOTED"].strip('"')),
        "our secret is a line of an .env file": own("secret_has_extra_text", "named", "CANARY-SECRET-named-90ab"),
        "our secret begins with a BOM": own("secret_has_extra_text", "bom", "CANARY-SECRET-bom-71fe"),
        "the sender's secret is in quotes": github("secret_has_extra_text", "sha256=" + mac(f'"{GITHUB}"').hex()),
        "the sender's token is in quotes": Mistake(
            "secret_has_extra_text", "gitlab", [("X-Gitlab-Token", f"'{ENV['HINT_TOKEN']}'")], reason="token_mismatch"
        ),
        "our secret is the base64 of a line": own("secret_base64_of_line", "line", "CANARY-SECRET-line-4d2c"),
        "the sender's secret is the base64 of a line": github(
            "secret_base64_of_line", "sha256=" + mac(b64(f"{GITHUB}\n".encode())).hex()
        ),
        "whsec_ used as text": Mistake("secret_decoded_differently", "standard", standard(ENV["HINT_WHSEC"], now)),
        "whsec_ decoded where it is text": Mistake(
            "secret_decoded_differently",
            "stripe",
            [("Stripe-Signature", f"t={now},v1={mac(base64.b64decode(BASE64_SECRET), b'%d.' % now + BODY).hex()}")],
        ),
        "the secret decoded from hex": own("secret_decoded_differently", "hex", bytes.fromhex(HEX_SECRET)),
        "the secret decoded from base64": own("secret_decoded_differently", "base64", base64.b64decode(BASE64_SECRET)),
        "the secret of another route": github("secret_of_another_route", "sha256=" + mac(HEX_SECRET).hex()),
        "a newline was added": signed("body_newline_changed", BODY[:-2], BODY[:-2] + b"\n"),
        "the final newline was taken": signed("body_newline_changed", BODY, BODY[:-2]),
        "CR LF became LF": signed("body_line_endings_changed", b"a\r\nb\r\nc", b"a\nb\nc"),
        "LF became CR LF": signed("body_line_endings_changed", b"a\nb\nc", b"a\r\nb\r\nc"),
        "a BOM was added": signed("body_bom_changed", BODY, b"\xef\xbb\xbf" + BODY),
        "a BOM was removed": signed("body_bom_changed", b"\xef\xbb\xbf" + BODY, BODY),
        "JSON was compact": signed(
            "body_json_reserialised", BODY.strip(), json.dumps(DOCUMENT, ensure_ascii=False).encode()
        ),
        "JSON had blanks": signed("body_json_reserialised", json.dumps(DOCUMENT).encode(), BODY.strip()),
        "JSON had its keys sorted": signed(
            "body_json_reserialised", json.dumps(DOCUMENT, sort_keys=True).encode(), BODY
        ),
        "JSON was indented": signed("body_json_reserialised", json.dumps(DOCUMENT, indent=2).encode(), BODY),
        "JSON was escaped to ASCII": signed(
            "body_json_reserialised", json.dumps(DOCUMENT, separators=(",", ":")).encode(), BODY
        ),
        "JSON was PHP's": signed(
            "body_json_reserialised", json.dumps(DOCUMENT, separators=(",", ":")).replace("/", "\\/").encode(), BODY
        ),
        "JSON was .NET's": signed("body_json_reserialised", ESCAPED.replace(b"\\u00f6", b"\\u00F6"), BODY),
        "digits of escapes became lower case": signed(
            "body_json_reserialised", ESCAPED.replace(b"\\u00f6", b"\\u00F6") + b" ", ESCAPED + b" "
        ),
        "digits of escapes became upper case": signed(
            "body_json_reserialised", ESCAPED + b" ", ESCAPED.replace(b"\\u00f6", b"\\u00F6") + b" "
        ),
        "the body was decompressed": Mistake(
            "body_decompressed",
            "github",
            [("X-Hub-Signature-256", "sha256=" + mac(GITHUB, gzip.compress(BODY)).hex()), ("Content-Encoding", "gzip")],
        ),
        "an empty body was signed": signed("body_empty", b""),
        "the body was lost": signed("body_empty", BODY, b""),
        "milliseconds for seconds": Mistake(
            "timestamp_unit", "slack", slack(str(now * 1000)), reason="timestamp_in_future"
        ),
        "a fraction of a second": Mistake("timestamp_unit", "slack", slack(f"{now}.25"), reason="timestamp_malformed"),
        "ISO 8601 for seconds": Mistake(
            "timestamp_unit",
            "slack",
            slack(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))),
            reason="timestamp_malformed",
        ),
        "http for https": url("http://hooks.example.com/hint/square?x=1"),
        "a URL with the port": url("https://hooks.example.com:443/hint/square?x=1"),
        "a URL without its query": url(SQUARE),
        "a URL with a final slash": url(SQUARE + "/?x=1"),
        "the host of the connection": url("https://hooks.test/hint/square?x=1"),
        "path and query alone": url("/hint/square?x=1"),
        "a secret that nobody knows": github("unknown", "sha256=" + mac("somebody else's").hex()),
        "a body that somebody changed": signed("unknown", BODY, BODY.replace(b"[1,2]", b"[1,3]")),
        "no signature at all in its place": github("unknown", "sha256=not-a-signature", reason=MALFORMED),
    }


NAMES = list(mistakes(0))


def explain(*arguments: str, raw: bytes) -> tuple[int, dict[str, Any]]:
    """Exit status and the JSON object of `sidecar explain`, run in this process."""
    out = io.StringIO()
    stdin = io.TextIOWrapper(io.BytesIO(raw))
    with mock.patch("sys.stdin", stdin), contextlib.redirect_stdout(out):
        status = main(["explain", *arguments, "--json", "-"])
    shown = out.getvalue()
    assert "CANARY" not in shown
    leak_watch.shown("sidecar explain", shown.encode())
    return status, json.loads(shown)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("hints") / "sidecar.yaml"
    file.write_text(json.dumps(CONFIG | {"upstream": "http://127.0.0.1:1"}))
    return str(file)


@pytest.fixture(autouse=True)
def secrets_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (ENV | {"GITHUB_SECRET": GITHUB}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SHOPIFY_SECRET", "CANARY-SECRET-shopify-42aa")
    monkeypatch.setenv("SLACK_SECRET", "CANARY-SECRET-slack-90fe")


@pytest.mark.parametrize("name", NAMES)
def test_explain_names_the_mistake(config_file: str, name: str) -> None:
    mistake = mistakes(FIXED)[name]
    status, said = explain("--config", config_file, "--now", str(FIXED), raw=mistake.raw)
    assert (status, said["verdict"], said["reason"], said["hint"]) == (1, "rejected", mistake.reason, mistake.hint)
    assert said["try"]
    assert said["secret"] is None


def test_explain_with_a_preset_alone_names_the_mistake_too() -> None:
    said = explain("--preset", "github", "--secret", "env:GITHUB_SECRET", raw=mistakes(FIXED)["JSON had blanks"].raw)[1]
    assert said["hint"] == "body_json_reserialised"


STRIPES = Mistake("other_provider", "github", [("Stripe-Signature", "t=1,v1=" + "0" * 64)], reason="signature_missing")


def test_explain_names_the_other_provider_that_sent_a_delivery(config_file: str) -> None:
    for arguments in (("--config", config_file), ("--preset", "github", "--secret", "env:GITHUB_SECRET")):
        status, said = explain(*arguments, raw=STRIPES.raw)
        assert (status, said["reason"], said["hint"]) == (1, STRIPES.reason, STRIPES.hint)
        assert said["because"] == "Stripe-Signature looks like Stripe, preset stripe"
        assert "choose that provider's preset" in said["try"]


def test_explain_of_a_delivery_without_any_signature_has_no_hint(config_file: str) -> None:
    said = explain("--config", config_file, raw=Mistake("", "github", []).raw)[1]
    assert (said["reason"], said["hint"]) == ("signature_missing", None)


def test_what_is_right_has_no_hint(config_file: str) -> None:
    status, said = explain("--config", config_file, raw=github("", "sha256=" + mac(GITHUB).hex()).raw)
    assert (status, said["verdict"], said["secret"]) == (0, "accepted", "GITHUB_SECRET")
    assert said["reason"] is None
    assert said["hint"] is None


def test_what_is_merely_old_has_no_hint(config_file: str) -> None:
    raw = Mistake("", "slack", slack(str(FIXED - 1000))).raw
    said = explain("--config", config_file, "--now", str(FIXED), raw=raw)[1]
    assert (said["reason"], said["hint"]) == ("timestamp_too_old", None)


# -- on live traffic --


@pytest.mark.parametrize("name", NAMES)
def test_live_traffic_names_the_mistake_in_log_and_metric(sidecar: Sidecar, receiver: Receiver, name: str) -> None:
    mistake = mistakes(int(time.time()))[name]
    labels = {"route": mistake.route, "hint": mistake.hint}
    before = sidecar.metric("mismatch_hints_total", **labels)
    status = 401 if mistake.route == "shopify" else 403
    # On a busy machine a diagnosis may get no turn in its 50 ms: then there is no hint, and never a wrong one.
    for _ in range(100):
        time.sleep(0.11)  # only so many rejections of a second are diagnosed
        answer = sidecar.refused(mistake.raw, status, mistake.reason, route=mistake.route, receiver=receiver)
        assert answer.body == b'{"detail":"Validation Failure"}'
        if sidecar.lines[-1].get("hint"):
            break
    assert sidecar.lines[-1]["hint"] == mistake.hint
    assert sidecar.metric("mismatch_hints_total", **labels) == before + 1


def test_every_hint_of_every_verified_route_is_a_series_from_the_start(sidecar: Sidecar) -> None:
    hints = set(Hint) - {Hint.OTHER_PROVIDER}  # which only `explain` finds
    assert {mistake.hint for mistake in mistakes(FIXED).values()} == hints - OF_TOKENS
    found = {dict(labels)["route"]: 0 for _, labels in sidecar.samples("mismatch_hints_total")}
    for _, labels in sidecar.samples("mismatch_hints_total"):
        found[dict(labels)["route"]] += 1
    assert found == {route["name"]: len(hints) for route in CONFIG["routes"]}


def test_live_traffic_without_a_signature_has_no_hint(sidecar: Sidecar, receiver: Receiver) -> None:
    mark = sidecar.mark()
    sidecar.refused(STRIPES.raw, 403, STRIPES.reason, route="github", receiver=receiver)
    assert "hint" not in sidecar.delivery(mark)


def test_what_is_accepted_or_merely_old_has_no_hint(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    mark = sidecar.mark()
    assert sidecar.ask(github("", "sha256=" + mac(GITHUB).hex()).raw).status == 200
    assert sidecar.ask(Mistake("", "slack", slack(str(int(time.time()) - 1000))).raw).status == 403
    assert all("hint" not in line for line in sidecar.lines[mark:])


def test_of_many_refusals_at_once_few_are_looked_into_and_all_are_logged(sidecar: Sidecar, receiver: Receiver) -> None:
    mark, raw = sidecar.mark(), mistakes(FIXED)["JSON had blanks"].raw
    with sidecar.connect() as client:
        began = time.monotonic()
        for _ in range(100):
            client.send(raw)
            assert client.answer().status == 403
        seconds = time.monotonic() - began
    sidecar.delivery(mark, 100)
    hints = [line["hint"] for line in sidecar.lines[mark:] if "hint" in line]
    assert set(hints) == {"body_json_reserialised"}
    assert 1 <= len(hints) <= 10 * (int(seconds) + 2)


def test_a_body_too_large_to_look_into_has_no_hint(sidecar: Sidecar, receiver: Receiver) -> None:
    time.sleep(0.11)
    mark = sidecar.mark()
    body = b"CANARY-BODY-5e1d" * 20_000
    sidecar.refused(signed("", body, body + b"\n").raw, 403, "signature_mismatch", route="github", receiver=receiver)
    assert "hint" not in sidecar.delivery(mark)


def test_what_is_dear_to_diagnose_costs_little_and_holds_up_nobody(sidecar: Sidecar, receiver: Receiver) -> None:
    """Deeply nested lists, 250,000 lines, and a form with many hosts: it took seconds."""
    nested = b"[" * 700 + b"7," * 1300 + b"7" + b"]" * 700
    twilio = [("X-Twilio-Signature", base64.b64encode(b"\1" * 20).decode()), ("Content-Type", FORM)]
    hosts = [("X-Forwarded-Host", f"h{number}.example") for number in range(150)]
    dear = [
        github("", "sha256=" + "1" * 64, nested).raw,
        github("", "sha256=" + "1" * 64, b"\n" * 250_000).raw,
        Mistake("", "twilio", [*twilio, *hosts], b"b=&" * 5000).raw,
    ]
    good = github("", "sha256=" + mac(GITHUB).hex()).raw
    mark, before = sidecar.mark(), sidecar.cpu()
    for _ in range(3):
        for raw in dear:
            assert sidecar.ask(raw).status == 403
            assert sidecar.ask(good).status == 200
    sidecar.delivery(mark, 18)
    spent = sidecar.cpu() - before
    assert spent < 1.0


FORM = "application/x-www-form-urlencoded"
