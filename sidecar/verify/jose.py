"""The algorithms of JSON Web Signatures (RFC 7518, RFC 8037, RFC 9864), over `cryptography`, and public keys for them.

Only routes with such keys import this module. An algorithm is chosen from the scheme's closed list; a key verifies only with an
algorithm that fits its kind, its curve and its own `alg`.
"""

import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from sidecar.verify.algorithms import Algorithm, hash_pieces
from sidecar.verify.token import TokenError, decode_base64url

#: Bits of an RSA key: shorter ones are broken, longer ones cost milliseconds.
MIN_RSA: Final = 2048
MAX_RSA: Final = 8192
#: Keys of one document.
MAX_KEYS: Final = 100

_HASHES: Final = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
#: Curve by algorithm, and the bytes of one half of a signature.
_CURVES: Final = {"ES256": ("secp256r1", 32), "ES384": ("secp384r1", 48), "ES512": ("secp521r1", 66)}
_JWK_CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}
EDDSA: Final = ("EdDSA", "Ed25519")
#: The hash of what is signed, by algorithm; EdDSA has none.
_DIGESTS: Final = {
    f"{kind}{bits}": Algorithm(f"sha{bits}") for kind in ("RS", "PS", "ES") for bits in ("256", "384", "512")
}


@dataclass(frozen=True, slots=True, eq=False)
class PublishedKey:
    """A public key, and what its document says about it."""

    key: Any
    id: str | None = None
    algorithm: str = ""  #: the only one that it is for; empty: any that fits its kind
    members: Mapping[str, Any] | None = None  #: of its JWK
    valid: tuple[float, float] | None = None  #: of a certificate: from, to (unix seconds)

    def fits(self, algorithm: str) -> bool:
        """Whether it can verify `algorithm`."""
        if self.algorithm and self.algorithm != algorithm and not (self.algorithm in EDDSA and algorithm in EDDSA):
            return False
        if algorithm in EDDSA:
            return isinstance(self.key, Ed25519PublicKey)
        if algorithm in _CURVES:
            return isinstance(self.key, ec.EllipticCurvePublicKey) and self.key.curve.name == _CURVES[algorithm][0]
        return algorithm[:2] in ("RS", "PS") and isinstance(self.key, rsa.RSAPublicKey)

    def is_valid(self, now: float | None) -> bool:
        """Whether its certificate, if it has one, is valid at `now` (unix seconds)."""
        return self.valid is None or now is None or self.valid[0] <= now <= self.valid[1]


def verify_hmac(algorithm: str, secret: bytes, signature: bytes, signed: Sequence[bytes]) -> bool:
    """HS256, HS384, HS512, over a message in pieces."""
    return hmac.compare_digest(make_hmac(algorithm, secret, signed), signature)


def make_hmac(algorithm: str, secret: bytes, signed: Sequence[bytes]) -> bytes:
    """HS256, HS384, HS512, over a message in pieces."""
    made = hmac.new(secret, digestmod="sha" + algorithm[2:])
    for piece in signed:
        made.update(piece)
    return made.digest()


def digest(algorithm: str, signed: Sequence[bytes]) -> bytes:
    """The input of `verify_digest` for a message in pieces: made once for all keys. EdDSA needs the message itself."""
    hashed = _DIGESTS.get(algorithm)
    return b"".join(signed) if hashed is None else hash_pieces(hashed, signed)


def verify_digest(algorithm: str, key: Any, signature: bytes, digested: bytes) -> bool:
    """Whether `signature` over `digested` is by the private half of `key`, which fits `algorithm`."""
    try:
        _VERIFY[algorithm](key, signature, digested)
    except (InvalidSignature, ValueError):
        return False
    return True


def find_match(
    algorithm: str, keys: Iterable[tuple[str, Any]], signature: bytes, signed: Sequence[bytes]
) -> str | None:
    """The id of the key that made `signature` over a message in pieces; None if none did. A key in bytes is a secret."""
    digested: bytes | None = None
    for key_id, key in keys:
        if isinstance(key, bytes):
            if algorithm.startswith("HS") and verify_hmac(algorithm, key, signature, signed):
                return key_id
        elif PublishedKey(key).fits(algorithm):
            digested = digest(algorithm, signed) if digested is None else digested
            if verify_digest(algorithm, key, signature, digested):
                return key_id
    return None


def _pkcs1(hashed: Any) -> Callable[[Any, bytes, bytes], None]:
    scheme, prehashed = padding.PKCS1v15(), Prehashed(hashed)
    return lambda key, signature, digested: key.verify(signature, digested, scheme, prehashed)


def _pss(hashed: Any) -> Callable[[Any, bytes, bytes], None]:
    scheme, prehashed = padding.PSS(padding.MGF1(hashed), padding.PSS.DIGEST_LENGTH), Prehashed(hashed)
    return lambda key, signature, digested: key.verify(signature, digested, scheme, prehashed)


def _ecdsa(size: int, hashed: Any) -> Callable[[Any, bytes, bytes], None]:
    scheme = ec.ECDSA(Prehashed(hashed))

    def verify(key: Any, signature: bytes, digested: bytes) -> None:
        if len(signature) != 2 * size:  # RFC 7518, 3.4: r and s of fixed length
            raise InvalidSignature
        r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
        key.verify(encode_dss_signature(r, s), digested, scheme)

    return verify


_VERIFY: Final[dict[str, Callable[[Any, bytes, bytes], None]]] = (
    {f"RS{bits}": _pkcs1(hashed) for bits, hashed in _HASHES.items()}
    | {f"PS{bits}": _pss(hashed) for bits, hashed in _HASHES.items()}
    | {f"ES{bits}": _ecdsa(_CURVES[f"ES{bits}"][1], hashed) for bits, hashed in _HASHES.items()}
    | {name: lambda key, signature, signed: key.verify(signature, signed) for name in EDDSA}
)


def sign_token(algorithm: str, key: Any, signed: bytes) -> bytes:
    """The signature of a JWS: `key` is a private key of `cryptography`, or the secret for HS256, HS384 and HS512."""
    if algorithm.startswith("HS"):
        return make_hmac(algorithm, key, [signed])
    if algorithm in EDDSA:
        return bytes(key.sign(signed))
    hashed = _HASHES[algorithm[2:]]
    if algorithm in _CURVES:
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature  # noqa: PLC0415

        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashed)))
        size = _CURVES[algorithm][1]
        return r.to_bytes(size) + s.to_bytes(size)
    scheme: Any = padding.PKCS1v15()
    if algorithm.startswith("PS"):
        scheme = padding.PSS(padding.MGF1(hashed), padding.PSS.DIGEST_LENGTH)
    return bytes(key.sign(signed, scheme, hashed))


def read_jwk(jwk: Any) -> PublishedKey | None:
    """A public key for signatures (RFC 7517); None if it is for something else, or too weak."""
    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig":
        return None
    operations, key_id, algorithm = jwk.get("key_ops"), jwk.get("kid"), jwk.get("alg", "")
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return None
    if not isinstance(key_id, str | None) or not isinstance(algorithm, str):
        return None
    try:
        key = _read_jwk_key(jwk)
    except (TokenError, ValueError, KeyError, TypeError, UnsupportedAlgorithm):
        return None
    return PublishedKey(key, key_id, algorithm, jwk) if is_strong(key) else None


def _read_jwk_key(jwk: Mapping[str, Any]) -> Any:
    kind = jwk["kty"]
    if kind == "RSA":
        return rsa.RSAPublicNumbers(_number(jwk["e"]), _number(jwk["n"])).public_key()
    if kind == "EC":
        curve = _JWK_CURVES[jwk["crv"]]
        size = (curve.key_size + 7) // 8
        point = b"\x04" + _coordinate(jwk["x"], size) + _coordinate(jwk["y"], size)
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
    if kind == "OKP" and jwk["crv"] == "Ed25519":
        return Ed25519PublicKey.from_public_bytes(decode_base64url(jwk["x"].encode()))
    raise KeyError(kind)


def _number(text: str) -> int:
    return int.from_bytes(decode_base64url(text.encode()))


def _coordinate(text: str, size: int) -> bytes:
    """A coordinate with its zeros: TrueLayer leaves out those at the front, which RFC 7518 (6.2.1.2) does not allow."""
    octets = decode_base64url(text.encode())
    if len(octets) > size:
        raise TokenError("a coordinate of another length")
    return octets.rjust(size, b"\0")


def is_strong(key: Any) -> bool:
    """Whether the key is of a kind and a size that can be trusted."""
    if isinstance(key, rsa.RSAPublicKey):
        return MIN_RSA <= key.key_size <= MAX_RSA
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.name in {name for name, _ in _CURVES.values()}
    return isinstance(key, Ed25519PublicKey)


def read_public_key(text: str) -> Any:
    """A public key in PEM, also in one line as eBay sends it. Raises `ValueError`."""
    import re  # noqa: PLC0415
    from base64 import b64decode  # noqa: PLC0415

    match = re.fullmatch(
        r"\s*-----BEGIN (RSA )?PUBLIC KEY-----([A-Za-z0-9+/=\s]+)-----END (RSA )?PUBLIC KEY-----\s*", text
    )
    if match is None or match[1] != match[3]:
        raise ValueError("not a public key in PEM")
    try:
        der = b64decode("".join(match[2].split()), validate=True)
        key = load_der_public_key(der)
    except UnsupportedAlgorithm:
        raise ValueError("not a public key that is known") from None
    if not is_strong(key):
        raise ValueError("not a key of a kind and size that can be trusted")
    return key
