"""The kinds of signature, by name. A new kind is a file beside these, and a call of `register` below."""

from sidecar.verify.kinds.basic import BASIC
from sidecar.verify.kinds.ecdsa import ECDSA
from sidecar.verify.kinds.ed25519 import ED25519
from sidecar.verify.kinds.hash import HASH
from sidecar.verify.kinds.hmac import HMAC
from sidecar.verify.kinds.jws import JWS
from sidecar.verify.kinds.jwt import JWT
from sidecar.verify.kinds.kind import Kind
from sidecar.verify.kinds.listed import CAVAGE, RFC9421
from sidecar.verify.kinds.rsa import RSA_PKCS1, RSA_PSS
from sidecar.verify.kinds.token import TOKEN

__all__ = ["KINDS", "Kind", "register"]

#: In the order of the documentation.
KINDS: dict[str, Kind] = {}


def register(kind: Kind) -> None:
    """Adds a kind to those that the configuration accepts."""
    if kind.name in KINDS:
        raise ValueError(f"{kind.name} is registered already")
    KINDS[kind.name] = kind


register(HMAC)
register(HASH)
register(ED25519)
register(ECDSA)
register(RSA_PKCS1)
register(RSA_PSS)
register(TOKEN)
register(BASIC)
register(JWT)
register(JWS)
register(RFC9421)
register(CAVAGE)
