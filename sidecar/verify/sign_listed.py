"""Makes the signatures that list what they cover, as a sender would: for `sign`, `send`, and tests. The counterpart of
`listed_verifier.py`."""

from base64 import b64encode
from typing import Any

from sidecar.http1.head import make_head
from sidecar.outcomes import Rejected
from sidecar.secret import Secret
from sidecar.verify.body_hash import write_body_hash
from sidecar.verify.components import CONTENT_DIGEST, Component, ListedSignature
from sidecar.verify.jose import sign_token
from sidecar.verify.keys import read_signing_key
from sidecar.verify.listed_verifier import JWS_NAMES, make_reader
from sidecar.verify.message import PublicURL
from sidecar.verify.scheme import Scheme, Unit
from sidecar.verify.sign import SIGNING_KEY_ID, SigningError, ToSign, forge
from sidecar.verify.timestamp import format_timestamp

#: Seconds for which a signature that we make is valid, where the scheme requires an end.
LIFETIME = 300


def sign_listed(scheme: Scheme, secret: Secret, what: ToSign, *, forged: bool = False) -> list[tuple[str, str]]:
    """The headers to add. Raises `SigningError`, and `KeyFormError` for a secret that can't sign."""
    assert scheme.listed is not None
    added = _added(scheme, what)
    every = [*what.headers, *added]
    rest = what.url.partition("://")[2]
    if rest and not any(name.lower() == "host" for name, _ in what.headers):
        every.append(("Host", rest.partition("/")[0]))
    write = _write_draft if scheme.signature.kind.name == "cavage" else _write
    key_id = SIGNING_KEY_ID if scheme.published else secret.id
    covered = _covered(scheme, {name.lower() for name, _ in every})
    # First with any signature: the code that verifies it then says which text it must sign.
    unsigned = [*every, *write(scheme, covered, key_id, b"\0", what.now)]
    target = f"/{rest.partition('/')[2]}".encode()
    head = make_head(what.method, target, [(name.encode(), value.encode()) for name, value in unsigned], None)
    try:
        read: tuple[ListedSignature, Any] = make_reader(scheme, PublicURL(what.url) if rest else None).read_head(head)
    except Rejected as rejected:
        raise SigningError(f"this scheme can't sign that: {rejected.detail}") from None
    algorithm = scheme.listed.algorithms[0]
    signature = sign_token(JWS_NAMES[algorithm], _key(scheme, secret), read[0].base)
    return [*added, *write(scheme, covered, key_id, forge(signature, text=False) if forged else signature, what.now)]


def _key(scheme: Scheme, secret: Secret) -> Any:
    key = read_signing_key(scheme, secret)
    if isinstance(key, bytes) and not scheme.shares_secret:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

        try:
            return Ed25519PrivateKey.from_private_bytes(key)
        except ValueError:
            raise SigningError("the secret is not a private key; give one in PEM: a public key only verifies") from None
    return key


def _added(scheme: Scheme, what: ToSign) -> list[tuple[str, str]]:
    """The fields that a signature must cover or a scheme requires, and that are still missing."""
    assert scheme.listed is not None
    clock, hashed = scheme.timestamp, scheme.body_hash
    values = {name.lower(): (name, value) for name, value in scheme.require}
    if clock is not None and clock.header:
        values[clock.header.lower()] = (clock.header, format_timestamp(clock.unit, what.now))
    if hashed is not None:
        values[hashed.header.lower()] = (hashed.header, write_body_hash(hashed, [what.body]))
    elif any(each.name == CONTENT_DIGEST for each in scheme.listed.required):
        from sidecar.verify.http_signature import write_content_digest  # noqa: PLC0415

        values[CONTENT_DIGEST] = ("Content-Digest", write_content_digest([what.body]))
    if scheme.delivery_id:
        values[scheme.delivery_id.lower()] = (scheme.delivery_id, what.delivery_id)
    for name in scheme.listed.fields:
        values.setdefault(name, (name, format_timestamp(Unit.HTTP_DATE, what.now) if name == "date" else what.made_up))
    given = {name.lower() for name, _ in what.headers} | {"host"}
    return [pair for name, pair in values.items() if name not in given]


def _covered(scheme: Scheme, fields: set[str]) -> list[Component]:
    """The components that we sign: all that the scheme requires of this request."""
    assert scheme.listed is not None
    required = scheme.listed.required
    return [each for each in required if not each.if_present or each.name == "@query" or each.name in fields]


def _write(
    scheme: Scheme, covered: list[Component], key_id: str, signature: bytes, now: float
) -> list[tuple[str, str]]:
    """`Signature-Input` and `Signature` (RFC 9421, 4)."""
    import http_sf  # noqa: PLC0415

    rules = scheme.listed
    assert rules is not None
    label = rules.label or "sig1"
    parameters: dict[str, Any] = {"created": int(now), "keyid": key_id}
    parameters |= {"expires": int(now) + LIFETIME} if rules.expiry else {}
    parameters |= {"tag": rules.tag} if rules.tag else {}
    components: Any = [(each.name, dict(each.parameters)) for each in covered]
    name = scheme.signature.header
    return [
        (f"{name}-Input", http_sf.ser({label: (components, parameters)})),
        (name, http_sf.ser({label: (signature, {})})),
    ]


def _write_draft(
    scheme: Scheme, covered: list[Component], key_id: str, signature: bytes, now: float
) -> list[tuple[str, str]]:
    rules = scheme.listed
    assert rules is not None
    items = {
        "keyid": key_id,
        "algorithm": rules.algorithms[0],
        "signature": b64encode(signature).decode(),
        "headers": " ".join(each.name for each in covered),
    }
    text = ", ".join(f'{name}="{value}"' for name, value in items.items())
    return [(scheme.signature.header, scheme.signature.prefix + text)]
