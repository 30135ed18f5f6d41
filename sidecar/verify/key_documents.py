"""The documents of key servers: from a document to public keys.

The store of documents also uses `read_keys`, to distinguish a document of keys from an error page.
"""

from typing import Any, Final

from cryptography import x509

from sidecar.verify.certificates import public_key, read_certificates, validity
from sidecar.verify.document import find_item, parse_json
from sidecar.verify.jose import MAX_KEYS, PublishedKey, is_strong, read_jwk, read_public_key

#: Bytes of a document that is read.
MAX_DOCUMENT: Final = 256 * 1024


def read_keys(form: str, content: bytes, at: str = "", dead: str = "") -> list[PublishedKey]:
    """The usable keys of a document, at most `MAX_KEYS`. `form` is that of `KeySource`.

    `at` is the place of the one key in a JSON document, and `dead` the member of it that is null while it lives. Keys of
    unsupported kinds are left out. Raises `ValueError` if none is left.
    """
    if len(content) > MAX_DOCUMENT:
        raise ValueError("longer than a document of keys may be")
    keys = _READERS[form](content, at, dead) if form in _READERS else []
    if not keys:
        raise ValueError("holds no usable key")
    return keys[:MAX_KEYS]


def _jwks(content: bytes, at: str, dead: str) -> list[PublishedKey]:
    document = parse_json(content)
    # A profile of the Universal Commerce Protocol may have the same list under its own name only.
    listed = document.get("keys", document.get("signing_keys")) if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("not a set of keys (RFC 7517, 5)")
    return [key for each in listed[:MAX_KEYS] if (key := read_jwk(each)) is not None]


def _x509(content: bytes, at: str, dead: str) -> list[PublishedKey]:
    document = parse_json(content)
    if not isinstance(document, dict):
        raise ValueError("not a mapping of key ids and certificates")
    keys = []
    for key_id, text in list(document.items())[:MAX_KEYS]:
        if isinstance(text, str):
            keys += [_of_certificate(key_id, each) for each in read_certificates(text.encode())[:1]]
    return [key for key in keys if is_strong(key.key)]


def _of_certificate(key_id: str, certificate: x509.Certificate) -> PublishedKey:
    return PublishedKey(public_key(certificate), key_id, valid=validity(certificate))


def _jwk(content: bytes, at: str, dead: str) -> list[PublishedKey]:
    jwk = _item(content, at)
    if not isinstance(jwk, dict) or (dead and jwk.get(dead) is not None):
        return []
    key = read_jwk(jwk)
    return [key] if key is not None else []


def _pem(content: bytes, at: str, dead: str) -> list[PublishedKey]:
    text: Any = _item(content, at) if at else content.decode("ascii", "replace")
    return [PublishedKey(read_public_key(text))] if isinstance(text, str) else []


def _item(content: bytes, at: str) -> Any:
    document = parse_json(content)
    return find_item(document, at) if at else document


def _certificate(content: bytes, at: str, dead: str) -> list[PublishedKey]:
    return [PublishedKey(public_key(each), valid=validity(each)) for each in read_certificates(content)]


_READERS: Final = {
    "jwks": _jwks,
    "x509": _x509,
    "jwk": _jwk,
    "pem": _pem,
    "certificate": _certificate,
}
