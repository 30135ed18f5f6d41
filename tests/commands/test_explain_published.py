"""`explain` on deliveries of senders that publish their keys: every vector, by a configuration and a file of keys."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from published_vectors import SENDERS, Vector, public_url_of, raw_of, secrets_of, sender, target_of, verify_of

from sidecar.cli.main import main

Explained = tuple[int, dict[str, Any], str]


@pytest.fixture
def explain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Explained]:
    """`explain(name, vector)`: exit status, the JSON object, and what people see."""

    def run(name: str, vector: Vector, *, keys: bool = True, **changes: Any) -> Explained:
        secrets = []
        monkeypatch.setenv("EBAY_CLIENT_SECRET", "the secret of an application")
        for number, (key, secret) in enumerate(secrets_of(name, vector).items()):
            secrets.append({"id": key, "env": f"S{number}"})
            monkeypatch.setenv(f"S{number}", secret)
        route: dict[str, Any] = {
            "path": target_of(vector).partition("?")[0],
            "verify": verify_of(name, vector) | changes,
        }
        route |= {"secrets": secrets} if secrets else {}
        route["methods"] = [vector["method"]]
        config = {"upstream": "http://127.0.0.1:1", "public_url": public_url_of(name, vector), "routes": [route]}
        (tmp_path / "sidecar.yaml").write_text(json.dumps(config))
        (tmp_path / "keys.json").write_text(json.dumps(sender(name)["keys"]))
        (tmp_path / "request").write_bytes(raw_of(vector))
        arguments = ["explain", "--config", str(tmp_path / "sidecar.yaml"), "--now", str(vector["now"])]
        arguments += ["--keys", str(tmp_path / "keys.json")] if keys else []
        status = main([*arguments, "--json", str(tmp_path / "request")])
        printed = capsys.readouterr()
        assert status in (0, 1), printed.err
        assert main([*arguments, str(tmp_path / "request")]) == status
        return status, json.loads(printed.out), capsys.readouterr().out

    return run


def every() -> list[Any]:
    return [
        pytest.param(name, vector, id=vector["id"])
        for name in SENDERS
        for vector in sender(name)["vectors"]
        if vector["want"] != "either"
    ]


@pytest.mark.parametrize(("name", "vector"), every())
def test_explain_gives_the_verdict_of_every_vector(
    explain: Callable[..., Explained], name: str, vector: Vector
) -> None:
    status, explained, shown = explain(name, vector)
    assert status == (0 if vector["want"] == "valid" else 1), shown
    assert explained["verdict"] == ("accepted" if vector["want"] == "valid" else "rejected")
    for _, value in vector["headers"]:
        token = value.rpartition(" ")[2]
        if token.startswith("eyJ") and token.count(".") == 2 and len(token.rpartition(".")[2]) > 8:
            assert token.rpartition(".")[2] not in shown  # never the signature


def find(name: str, case: str) -> Vector:
    return next(vector for vector in sender(name)["vectors"] if case in vector["case"])


@pytest.mark.parametrize(
    ("name", "case", "reason", "hint"),
    [
        ("google-pubsub", "aud of another receiver", "claim_mismatch", "wrong_audience"),
        ("google-pubsub", "a Firebase token's issuer", "claim_mismatch", "wrong_issuer"),
        ("google-pubsub", "algorithm confusion", "signature_malformed", "wrong_algorithm"),
        ("fusionauth", "RSA: alg HS256, keyed with the public key", "signature_malformed", "wrong_algorithm"),
        ("livekit", "a byte more at the end of the body", "claim_mismatch", "body_newline_changed"),
        ("google-pubsub", "kid unknown", "key_unknown", None),
        ("google-pubsub", "email in other letters", "claim_mismatch", None),
        ("google-pubsub", "exp missing", "timestamp_missing", None),
        ("paypal", "webhook id of another webhook", "signature_mismatch", "wrong_setting"),
        ("amazon-sns", "version 1 signature relabelled 2", "signature_mismatch", "unknown"),
        ("rfc9421", "content-digest not covered, though required", "signature_malformed", "component_missing"),
        ("rfc9421", "expired", "timestamp_too_old", None),
        ("rfc9421", "a stranger's key", "signature_mismatch", "unknown"),
        ("rfc9421", "keyid missing", "signature_malformed", None),
        ("keygen", "body changed", "signature_mismatch", "digest_mismatch"),
        ("keygen", "date not covered", "signature_malformed", "component_missing"),
        ("constant-contact", "alg HS256 keyed with the public key", "signature_malformed", "wrong_algorithm"),
        ("constant-contact", "ts 5:01 ahead", "timestamp_in_future", None),
        ("truelayer", "jku on a stranger's host", "signature_malformed", "wrong_issuer"),
        ("truelayer", "body changed", "signature_mismatch", "unknown"),
    ],
)
def test_explain_names_the_mistake(
    explain: Callable[..., Explained], name: str, case: str, reason: str, hint: str | None
) -> None:
    _, explained, shown = explain(name, find(name, case))
    assert (explained["reason"], explained["hint"]) == (reason, hint), shown


def test_explain_says_what_a_token_holds_which_key_it_wants_and_which_claim_failed(
    explain: Callable[..., Explained],
) -> None:
    vector = find("google-pubsub", "email in other letters")
    _, explained, shown = explain("google-pubsub", vector)
    assert explained["token"]["header"]["alg"] == "RS256"
    assert explained["token"]["claims"]["email"] in shown
    assert "the token's email is not what the route expects" in explained["detail"]
    _, explained, shown = explain("google-pubsub", vector, keys=False)
    assert explained["reason"] == "key_unavailable"
    assert explained["key"] == "https://www.googleapis.com/oauth2/v3/certs"
    assert "try: give --keys FILE" in shown


def test_explain_says_what_a_signature_covers_and_which_key_it_names(explain: Callable[..., Explained]) -> None:
    vector = find("rfc9421", "valid: nonce, tag and expires")
    _, explained, shown = explain("rfc9421", vector)
    assert explained["coverage"] == {
        "label": "sig1",
        "covers": ["@method", "@target-uri", "content-digest"],
        "parameters": {"created": 1795999998, "expires": 1796000100, "keyid": "ed-1", "nonce": "n1", "tag": "webhook"},
    }
    assert (
        'covers     sig1: @method, @target-uri, content-digest; created=1795999998; expires=1796000100; keyid="ed-1"'
        in shown
    )
    signature = next(value for name, value in vector["headers"] if name == "Signature")
    assert signature.split(":")[1] not in shown
    renamed = vector | {"headers": [[name, value.replace('"ed-1"', '"ed-9"')] for name, value in vector["headers"]]}
    _, explained, shown = explain("rfc9421", renamed)
    assert (explained["reason"], "not the id of one of the route's secrets" in explained["detail"]) == (
        "key_unknown",
        True,
    )
    assert "with the ids of its secrets" in shown


def test_explain_shows_no_credential_that_a_token_carries(explain: Callable[..., Explained]) -> None:
    _, explained, shown = explain("monday", find("monday", "valid"))
    assert explained["token"]["claims"].get("shortLivedToken", "(not shown)") == "(not shown)"
    assert "eyJ" not in shown


def test_a_preset_takes_its_settings_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vector = find("google-pubsub", "valid")
    (tmp_path / "keys.json").write_text(json.dumps(sender("google-pubsub")["keys"]))
    (tmp_path / "request").write_bytes(raw_of(vector))
    common = [
        "explain",
        "--preset",
        "google-pubsub",
        "--now",
        str(vector["now"]),
        "--keys",
        str(tmp_path / "keys.json"),
    ]
    own = sender("google-pubsub")["settings"]
    settings = ["--setting", f"audience={own['audience']}", "--setting", f"email={own['email']}"]
    assert main([*common, *settings, str(tmp_path / "request")]) == 0
    assert "accepted" in capsys.readouterr().out
    assert main([*common, *settings[:2], str(tmp_path / "request")]) == 2
    assert "needs `email`: the service account of the push subscription" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", '{"https://a.example/": 1}'])
def test_a_file_without_keys_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    assert main(["explain", "--preset", "kinde", "--keys", str(tmp_path / "keys.json"), "-"]) == 2
    assert "holds no keys; write" in capsys.readouterr().err
