"""`kind: ecdsa-p256-sha256`: ECDSA on the curve P-256 with the provider's public key; the signature is in DER."""

from typing import Any

from sidecar.verify.algorithms import Algorithm
from sidecar.verify.keys import KeyForm
from sidecar.verify.kinds.kind import Keys, Kind, Matcher, Pieces
from sidecar.verify.kinds.public_key import (
    PublicKeyMatcher,
    hash_algorithm,
    not_a_private_key,
    not_the_public_key,
    read_private_pem,
    read_public_pem,
)

_NAME = "ecdsa-p256-sha256"


def _read_key(form: KeyForm, text: bytes) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey  # noqa: PLC0415

    return read_public_pem(
        text,
        lambda key: isinstance(key, EllipticCurvePublicKey) and key.curve.name == "secp256r1",
        not_the_public_key(_NAME),
    )


def _read_private_key(form: KeyForm, text: bytes) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey  # noqa: PLC0415

    return read_private_pem(text, lambda key: isinstance(key, EllipticCurvePrivateKey), not_a_private_key(_NAME))


def _make_matcher(algorithm: Algorithm, keys: Keys) -> Matcher:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA as _ECDSA  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed  # noqa: PLC0415

    ecdsa = _ECDSA(Prehashed(hash_algorithm(algorithm)))
    return PublicKeyMatcher(keys, lambda key, signature, digest: key.verify(signature, digest, ecdsa), algorithm)


def _sign(algorithm: Algorithm, key: Any, message: Pieces) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA as _ECDSA  # noqa: PLC0415

    signature: bytes = key.sign(b"".join(message), _ECDSA(hash_algorithm(algorithm)))
    return signature


ECDSA = Kind(
    name=_NAME,
    key_forms=(KeyForm.PEM,),
    read_key=_read_key,
    read_private_key=_read_private_key,
    make_matcher=_make_matcher,
    sign=_sign,
)
