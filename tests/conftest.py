"""What several kinds of test need: keys for any scheme, and the watch over everything that the program writes."""

import base64
import functools
import gc
import hashlib
import os
import sys
from collections.abc import Callable, Generator, Iterator

import pytest
from compiled import refuse_old_code
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from leak_watch import pytest_configure, pytest_sessionfinish, pytest_terminal_summary  # noqa: F401 - hooks
from needs import pytest_runtest_makereport  # noqa: F401 - hook
from reports import pytest_runtest_protocol  # noqa: F401 - hook
from rsa_key import rsa_key
from spread import pytest_collection_modifyitems, rotate_folders  # noqa: F401 - a hook

from sidecar.verify.keys import KeyForm
from sidecar.verify.kinds import Kind
from sidecar.verify.kinds.basic import BASIC
from sidecar.verify.kinds.ecdsa import ECDSA
from sidecar.verify.kinds.ed25519 import ED25519

# httpcore looks for it at every step of every request, in each folder of the path; it runs without it, as in the image.
sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]  # now the search ends at once

# Helm, promtool and others are written in Go, and run for a moment: without this they collect garbage for a third of it.
os.environ.setdefault("GOGC", "off")
os.environ.setdefault("GOMEMLIMIT", "1GiB")  # above it they collect again

# Asserts in these explain themselves as those of tests do.
pytest.register_assert_rewrite("client", "receiver", "sidecar_process")


def pytest_sessionstart() -> None:
    refuse_old_code()


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Twenty thousand tests are no garbage: to look through them at each collection would cost more than some tests do."""
    rotate_folders(session.config)
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


#: What signs, and what the sidecar is given; the same for a shared secret.
KeyPair = tuple[bytes, bytes]


@pytest.fixture(scope="session", autouse=True)
def _keys_are_read_once() -> Iterator[None]:
    """OpenSSL tests the primes of a private RSA key when it is read, for 30 ms; tests sign with few keys, and very often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serialization, "load_pem_private_key", functools.cache(serialization.load_pem_private_key))
        yield


@pytest.fixture(scope="session")
def key_pair() -> Callable[..., KeyPair]:
    """`key_pair(scheme, seed)`: a key in the scheme's form, another one for each seed."""
    return lambda scheme, seed=0: _key_pair(
        scheme.signature.kind, scheme.key, seed, (*scheme.signature.algorithms, "")[0]
    )


@functools.cache
def _key_pair(kind: Kind, form: KeyForm, seed: int, algorithm: str = "") -> KeyPair:
    if kind.read_private_key is not None and (not kind.is_jws or form is KeyForm.PEM):
        return _public(kind, form, seed, algorithm)
    raw = hashlib.sha256(b"%d" % seed).hexdigest().encode()
    texts = {
        KeyForm.HEX: raw.hex().encode(),
        KeyForm.BASE64: base64.b64encode(raw),
        KeyForm.WHSEC: b"whsec_" + base64.b64encode(raw),
        KeyForm.AFTER_COLON: b"name:" + raw,
        KeyForm.SHA1_AFTER_COLON: b"name:" + raw,
    }
    text = b"user:" + raw if kind is BASIC else texts.get(form, raw)
    return text, text


def _public(kind: Kind, form: KeyForm, seed: int, algorithm: str) -> KeyPair:
    private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if kind is ED25519 or algorithm in ("EdDSA", "Ed25519", "ed25519"):
        private = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        if form is not KeyForm.PEM:
            write = bytes.hex if form is KeyForm.HEX else lambda raw: base64.b64encode(raw).decode()
            pair = (private.private_bytes_raw(), private.public_key().public_bytes_raw())
            return write(pair[0]).encode(), write(pair[1]).encode()
    elif kind is ECDSA or algorithm.startswith(("ES", "ecdsa")):
        curves: dict[str, ec.EllipticCurve] = {"ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
        private = ec.derive_private_key(1000 + seed, curves.get(algorithm, ec.SECP256R1()))
    else:
        private = rsa_key(seed)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), public
