"""A store of published keys that has one key, in whatever form a scheme asks for; and a preset with its examples filled in."""

import datetime
import json
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from sidecar.config.presets import load_preset, read_preset
from sidecar.verify.published import Document, KeySource
from sidecar.verify.scheme import Scheme
from sidecar.verify.sign import SIGNING_KEY_ID
from sidecar.verify.token import encode_base64url


def with_examples(preset: str, secret: str = "") -> Any:
    """The value of `verify:` for a preset: settings have the values of their examples, and secrets are in `secret` if given."""
    settings = read_preset(preset).get("settings", {})
    needed = {name: it for name, it in settings.items() if "default" not in it and "lines" not in it}
    place = {"env": secret}
    given = {name: place if secret and it.get("form") == "secret" else it["example"] for name, it in needed.items()}
    return {"preset": preset} | given if settings else preset


def needs_secrets(scheme: Scheme) -> bool:
    """Whether a route has secrets: to verify with, or to ask for keys with."""
    asks = scheme.keys is not None and any("{secret}" in value for _, value in scheme.keys.post)
    return asks or not scheme.published


def brings_certificates(scheme: Scheme) -> bool:
    """Whether deliveries come with a certificate, or name one: nobody else can make those."""
    return scheme.keys is not None and (scheme.keys.certificate is not None or scheme.keys.x5c is not None)


def route_of(preset: str, *, path: str = "/a", secret: str = "GOOD") -> str:
    """A route with a preset, as one line of YAML."""
    secrets = f", secrets: [{{env: {secret}}}]" if needs_secrets(load_preset(preset)) else ""
    return f"  - {{path: {path}, verify: {json.dumps(with_examples(preset, secret))}{secrets}}}\n"


def store_for(scheme: Scheme, private: bytes) -> "OneKeyStore | None":
    """The store of a scheme whose keys are published, with the public half of `private` (PEM)."""
    if not scheme.published:
        return None
    return OneKeyStore(private, at=scheme.keys.at if scheme.keys is not None else "")


def jwk_of(public: Any) -> dict[str, Any]:
    def text(number: int, size: int = 0) -> str:
        return encode_base64url(number.to_bytes(size or (number.bit_length() + 7) // 8)).decode()

    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        return {"kty": "RSA", "n": text(numbers.n), "e": text(numbers.e)}
    if isinstance(public, ec.EllipticCurvePublicKey):
        point, size = public.public_numbers(), (public.curve.key_size + 7) // 8
        names = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
        return {"kty": "EC", "crv": names[public.curve.name], "x": text(point.x, size), "y": text(point.y, size)}
    assert isinstance(public, ed25519.Ed25519PublicKey)
    return {"kty": "OKP", "crv": "Ed25519", "x": encode_base64url(public.public_bytes_raw()).decode()}


def certificate_of(private: Any, *, name: str = "test", now: float = 1_700_000_000) -> bytes:
    """A certificate that the key signed itself, in PEM; it is valid for a day before and after `now` (unix seconds)."""
    moment, day = datetime.datetime.fromtimestamp(now, datetime.UTC), datetime.timedelta(days=1)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, private.public_key(), 1, moment - day, moment + day)
    made = builder.sign(private, hashes.SHA256())
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    return made.public_bytes(Encoding.PEM)


class OneKeyStore:
    """A `PublishedKeys` whose every document is the public half of one key (PEM), with the key id of what we sign."""

    def __init__(self, private: bytes, *, at: str = "") -> None:
        self._private: Any = serialization.load_pem_private_key(private, None)
        self._at = at
        self._made: dict[str, Document] = {}
        self.asked: list[KeySource] = []

    def get(self, source: KeySource) -> Document | None:
        self.asked.append(source)
        if source.url not in self._made:
            self._made[source.url] = Document(self._write(source), 0.0)
        return self._made[source.url]

    def _write(self, source: KeySource) -> bytes:
        public = self._private.public_key()
        jwk = jwk_of(public) | {"kid": SIGNING_KEY_ID, "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"}
        if source.form == "discovery":
            host = source.url.split("/")[2]
            return json.dumps({"jwks_uri": f"https://{host}/keys"}).encode()
        if source.form == "x509":
            return json.dumps({SIGNING_KEY_ID: certificate_of(self._private).decode()}).encode()
        if source.form == "jwk":
            return json.dumps({"key": jwk | {"expired_at": None}}).encode()
        if source.form == "pem":
            from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

            pem: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            return json.dumps({"key": pem.decode()}).encode() if self._at else pem
        endorsements = ["msteams", "webchat"]
        issuers = {"issuer": "https://sts.windows.net/{tenantid}/"} if "v2.0" not in source.url else {}
        return json.dumps({"keys": [jwk | issuers | {"endorsements": endorsements}]}).encode()

    def used(self, source: KeySource) -> None:
        assert not source.listed

    async def refresh(self, source: KeySource) -> bool:
        return False
