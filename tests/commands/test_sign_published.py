"""`sign --private-key` makes what `explain --keys` accepts, for senders that publish their keys."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from published_store import jwk_of
from rsa_key import rsa_key

from sidecar.cli.main import main
from sidecar.verify.sign import SIGNING_KEY_ID


@pytest.mark.parametrize(
    ("preset", "settings", "url", "key"),
    [
        (
            "google-pubsub",
            ["audience=https://hooks.example.com/a", "email=push@project.iam.gserviceaccount.com"],
            "https://www.googleapis.com/oauth2/v3/certs",
            rsa_key(),
        ),
        (
            "fusionauth-jwks",
            ["jwks_url=https://auth.example.com/.well-known/jwks.json", "algorithms=ES256"],
            "https://auth.example.com/.well-known/jwks.json",
            ec.generate_private_key(ec.SECP256R1()),
        ),
        (
            "http-signature-jwks",
            [
                "jwks_url=https://sender.example.com/.well-known/jwks.json",
                "algorithms=ecdsa-p256-sha256",
                "required=@method",
                "required=@path",
                "required=content-digest",
            ],
            "https://sender.example.com/.well-known/jwks.json",
            ec.generate_private_key(ec.SECP256R1()),
        ),
        (
            "turnkey",
            [],
            "https://api.turnkey.com/public/v1/discovery/webhooks/jwks",
            ed25519.Ed25519PrivateKey.generate(),
        ),
        (
            "truelayer",
            [],
            "https://webhooks.truelayer.com/.well-known/jwks",
            ec.generate_private_key(ec.SECP521R1()),
        ),
        (
            "constant-contact",
            [],
            "https://developer.constantcontact.com/.well-known/jwks.json",
            rsa_key(),
        ),
    ],
)
def test_what_a_private_key_signs_verifies_with_the_public_half_and_no_other(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    preset: str,
    settings: list[str],
    url: str,
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
) -> None:
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "body").write_bytes(b'{"n":1}')
    given = [part for each in settings for part in ("--setting", each)]
    common = ["--preset", preset, *given]
    arguments = ["sign", *common, "--private-key", str(tmp_path / "key.pem"), "--body", str(tmp_path / "body")]
    assert main([*arguments, "--timestamp", "1700000000"]) == 0
    headers = capsys.readouterr().out
    (tmp_path / "request").write_bytes(b"POST / HTTP/1.1\nHost: a\n" + headers.encode() + b"\n" + b'{"n":1}')
    other = ed25519.Ed25519PrivateKey.generate() if preset == "turnkey" else type_of(key)
    for public, status in ((key.public_key(), 0), (other.public_key(), 1)):
        document = json.dumps({"keys": [jwk_of(public) | {"kid": SIGNING_KEY_ID}]})
        (tmp_path / "keys.json").write_text(json.dumps({url: {"content": document}}))
        explain = [
            "explain",
            *common,
            "--keys",
            str(tmp_path / "keys.json"),
            "--now",
            "1700000060",
            str(tmp_path / "request"),
        ]
        assert main(explain) == status, capsys.readouterr().out


def type_of(key: object) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    """Another key of the same kind."""
    if isinstance(key, rsa.RSAPrivateKey):
        return rsa_key(1)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return ec.generate_private_key(key.curve)


@pytest.mark.parametrize("preset", ["http-signature", "keygen"])
def test_what_a_private_key_signs_verifies_with_the_configured_public_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "body").write_bytes(b'{"n":1}')
    required = ["@method", "@target-uri", "content-digest"]
    verify = {"preset": preset} | ({"required": required} if preset == "http-signature" else {})
    public = key.public_key()
    text = (
        public.public_bytes_raw().hex()
        if preset == "keygen"
        else public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    monkeypatch.setenv("PUBLIC", text if isinstance(text, str) else text.decode())
    route = {"name": "r", "path": "/in", "verify": verify, "secrets": [{"id": "sender-1", "env": "PUBLIC"}]}
    config = {"upstream": "http://127.0.0.1:1", "public_url": "https://hooks.example.com", "routes": [route]}
    (tmp_path / "sidecar.yaml").write_text(json.dumps(config))
    of_route = ["--config", str(tmp_path / "sidecar.yaml"), "--route", "r"]
    common = ["--private-key", str(tmp_path / "key.pem"), "--body", str(tmp_path / "body"), "--timestamp", "1700000000"]
    assert main(["sign", *of_route, "--body", str(tmp_path / "body")]) == 2
    assert "has a public key, which only verifies" in capsys.readouterr().err
    for more, status in (([], 0), (["--key-id", "another"], 1 if preset == "http-signature" else 0)):
        assert main(["sign", *of_route, *common, *more]) == 0
        headers = capsys.readouterr().out
        raw = b"POST /in HTTP/1.1\nHost: hooks.example.com\n" + headers.encode() + b"\n" + b'{"n":1}'
        (tmp_path / "request").write_bytes(raw)
        explain = [
            "explain",
            "--config",
            str(tmp_path / "sidecar.yaml"),
            "--now",
            "1700000060",
            str(tmp_path / "request"),
        ]
        assert main(explain) == status, capsys.readouterr().out
        assert ("accepted, by the secret sender-1" in capsys.readouterr().out) == (status == 0)
