"""`kind: rsa-pkcs1` and `kind: rsa-pss`: RSA (RFC 8017, 8.2 and 8.1) with the provider's public key."""

from collections.abc import Callable
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

#: Bits of the shortest key.
_MIN_BITS = 1024


def _pkcs1(algorithm: Algorithm, *, signs: bool) -> Any:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415

    return PKCS1v15()


def _pss(algorithm: Algorithm, *, signs: bool) -> Any:
    """Signs with a salt as long as the digest; verifies a salt of any length."""
    from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS  # noqa: PLC0415

    return PSS(MGF1(hash_algorithm(algorithm)), PSS.DIGEST_LENGTH if signs else PSS.AUTO)


def _make_kind(name: str, pad: Callable[..., Any]) -> Kind:
    def read_key(form: KeyForm, text: bytes) -> Any:
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey  # noqa: PLC0415

        return read_public_pem(
            text, lambda key: isinstance(key, RSAPublicKey) and key.key_size >= _MIN_BITS, not_the_public_key(name)
        )

    def read_private_key(form: KeyForm, text: bytes) -> Any:
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415

        return read_private_pem(text, lambda key: isinstance(key, RSAPrivateKey), not_a_private_key(name))

    def make_matcher(algorithm: Algorithm, keys: Keys) -> Matcher:
        from cryptography.hazmat.primitives.asymmetric.utils import Prehashed  # noqa: PLC0415

        padding, hashed = pad(algorithm, signs=False), Prehashed(hash_algorithm(algorithm))
        return PublicKeyMatcher(
            keys, lambda key, signature, digest: key.verify(signature, digest, padding, hashed), algorithm
        )

    def sign(algorithm: Algorithm, key: Any, message: Pieces) -> bytes:
        signature: bytes = key.sign(b"".join(message), pad(algorithm, signs=True), hash_algorithm(algorithm))
        return signature

    return Kind(
        name=name,
        key_forms=(KeyForm.PEM,),
        read_key=read_key,
        read_private_key=read_private_key,
        make_matcher=make_matcher,
        sign=sign,
    )


RSA_PKCS1 = _make_kind("rsa-pkcs1", _pkcs1)
RSA_PSS = _make_kind("rsa-pss", _pss)
