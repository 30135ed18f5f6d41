"""The shared part of the kinds with a public key: the secret is the provider's public key, in PEM.

`cryptography` is imported by the first route that needs it and by no other: it adds 10 MB to a process that should stay small.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from sidecar.verify.algorithms import Algorithm, hash_pieces
from sidecar.verify.keys import KeyFormError, decode_base64
from sidecar.verify.kinds.kind import Keys, Pieces

#: Public key, signature, and the message or its digest. Raises `InvalidSignature`.
Verify = Callable[[Any, bytes, bytes], None]


class PublicKeyMatcher:
    __slots__ = ("_algorithm", "_invalid", "_keys", "_verify")

    def __init__(self, keys: Keys, verify: Verify, algorithm: Algorithm | None) -> None:
        """`algorithm` makes the digest that `verify` is given; None: it is given the message itself."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

        self._keys = keys
        self._verify = verify
        self._algorithm = algorithm
        self._invalid = InvalidSignature

    def match(self, signatures: Pieces, message: Pieces) -> str | None:
        # Once for all keys and signatures.
        text = b"".join(message) if self._algorithm is None else hash_pieces(self._algorithm, message)
        for secret_id, key in self._keys:
            for signature in signatures:
                try:
                    self._verify(key, signature, text)
                except self._invalid:
                    continue
                return secret_id
        return None


def hash_algorithm(algorithm: Algorithm) -> Any:
    """The same algorithm, as an object of `cryptography`."""
    return getattr(import_module("cryptography.hazmat.primitives.hashes"), algorithm.upper())()


def read_public_pem(text: bytes, fits: Callable[[Any], bool], wrong: KeyFormError) -> Any:
    """The key in a PEM, or in the base64 of its DER. Raises `wrong` if it can't be read, or does not fit."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key  # noqa: PLC0415

    try:
        if b"-----BEGIN" in text:
            key: Any = load_pem_public_key(text)
        else:
            key = load_der_public_key(decode_base64(b"".join(text.split())))
    except (ValueError, UnsupportedAlgorithm):
        raise wrong from None
    if not fits(key):
        raise wrong
    return key


def read_private_pem(text: bytes, fits: Callable[[Any], bool], wrong: KeyFormError) -> Any:
    """The private key in a PEM. Raises `wrong` if it can't be read, or does not fit."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        key: Any = load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise wrong from None
    if not fits(key):
        raise wrong
    return key


def not_the_public_key(kind: str, remedy: str = "") -> KeyFormError:
    return KeyFormError(f"is not the provider's public key for {kind}; copy it as the provider shows it{remedy}")


def not_a_private_key(kind: str) -> KeyFormError:
    return KeyFormError(f"is not a private key for {kind}; signing needs one, in PEM: a public key only verifies")
