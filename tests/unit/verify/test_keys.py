"""Secrets to keys: what each form takes, and what it says of the rest without showing it."""

import base64
import hashlib
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from rsa_key import rsa_key

from sidecar.secret import Secret
from sidecar.verify.keys import KeyForm, KeyFormError, key_bytes, key_problem
from sidecar.verify.kinds import Kind
from sidecar.verify.kinds.basic import BASIC
from sidecar.verify.kinds.ecdsa import ECDSA
from sidecar.verify.kinds.ed25519 import ED25519
from sidecar.verify.kinds.rsa import RSA_PKCS1, RSA_PSS
from sidecar.verify.scheme import Scheme, SignatureField

RAW = b"\x00\xffkey bytes"


@pytest.mark.parametrize(
    ("form", "text", "key"),
    [
        (KeyForm.UTF8, b"whsec_abc \xff", b"whsec_abc \xff"),
        (KeyForm.HEX, RAW.hex().encode(), RAW),
        (KeyForm.HEX, RAW.hex().upper().encode(), RAW),
        (KeyForm.BASE64, base64.b64encode(RAW), RAW),
        (KeyForm.BASE64, base64.b64encode(RAW).rstrip(b"="), RAW),
        (KeyForm.WHSEC, b"whsec_" + base64.b64encode(RAW), RAW),
        (KeyForm.WHSEC, base64.b64encode(RAW), RAW),
        (KeyForm.SHA256, b"secret", hashlib.sha256(b"secret").digest()),
        (KeyForm.NFKD, "caf\u00e9 \ufb01".encode(), "cafe\u0301 fi".encode()),
        (KeyForm.AFTER_COLON, b"app.id:the:key", b"the:key"),
    ],
)
def test_a_secret_becomes_its_key(form: KeyForm, text: bytes, key: bytes) -> None:
    assert key_bytes(form, text) == key


@pytest.mark.parametrize(
    ("form", "text", "message"),
    [
        (KeyForm.HEX, b"abc", "is not hex"),
        (KeyForm.HEX, b"ab cd", "is not hex"),
        (KeyForm.HEX, b"abcd\n", "is not hex"),
        (KeyForm.BASE64, b"!!!!", "is not base64"),
        (KeyForm.BASE64, b"abcde", "is not base64"),
        (KeyForm.BASE64, b"ab-_", "is not base64"),
        (KeyForm.WHSEC, b"whsec_", "is not base64, with or without 'whsec_'"),
        (KeyForm.WHSEC, b"invalid_secret", "is not base64, with or without 'whsec_'"),
        (KeyForm.WHSEC, b"v1,whsec_abcd", "is not base64, with or without 'whsec_'"),
        (KeyForm.NFKD, b"\xff", "is not UTF-8"),
        (KeyForm.AFTER_COLON, b"no colon", "has no ':'"),
        (KeyForm.AFTER_COLON, b"name:", "has no ':'"),
    ],
)
def test_a_secret_in_another_form_is_an_error_that_does_not_show_it(form: KeyForm, text: bytes, message: str) -> None:
    with pytest.raises(KeyFormError) as error:
        key_bytes(form, text)
    assert str(error.value).startswith(message)
    assert text == b"whsec_" or text.strip().decode("latin-1") not in str(error.value)


def test_basic_authentication_needs_user_and_password() -> None:
    assert BASIC.read_key(KeyForm.UTF8, b"user:password") == base64.b64encode(b"user:password")
    for text in (b"password", b"user:"):
        with pytest.raises(KeyFormError, match="user:password"):
            BASIC.read_key(KeyForm.UTF8, text)


def test_a_secret_of_another_form_is_reported_without_its_value() -> None:
    scheme = Scheme(signature=SignatureField(header="X"), key=KeyForm.HEX)
    assert key_problem(scheme, Secret("a", b"00ff")) == ""
    assert key_problem(scheme, Secret("a", b"s3cret")) == (
        "is not hex; copy the secret as the provider shows it, without spaces or a prefix"
    )


ED25519_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
P256, P384 = ec.derive_private_key(7, ec.SECP256R1()), ec.derive_private_key(7, ec.SECP384R1())
RSA = rsa_key()


def pem(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def der(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return base64.b64encode(
        key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


@pytest.mark.parametrize(
    ("kind", "form", "text"),
    [
        (ED25519, KeyForm.HEX, ED25519_KEY.public_key().public_bytes_raw().hex().encode()),
        (ED25519, KeyForm.BASE64, base64.b64encode(ED25519_KEY.public_key().public_bytes_raw())),
        (ED25519, KeyForm.PEM, pem(ED25519_KEY)),
        (ED25519, KeyForm.PEM, der(ED25519_KEY)),
        (ECDSA, KeyForm.PEM, pem(P256)),
        (ECDSA, KeyForm.PEM, der(P256)),
        (RSA_PKCS1, KeyForm.PEM, pem(RSA)),
        (RSA_PSS, KeyForm.PEM, der(RSA)),
    ],
)
def test_a_public_key_is_read_in_the_forms_that_providers_show(kind: Kind, form: KeyForm, text: bytes) -> None:
    assert kind.read_key(form, text)


@pytest.mark.parametrize(
    ("kind", "form", "text"),
    [
        (ED25519, KeyForm.HEX, b"00" * 31),
        (ED25519, KeyForm.HEX, b"not hex"),
        (ED25519, KeyForm.PEM, pem(P256)),
        (ECDSA, KeyForm.PEM, pem(P384)),
        (ECDSA, KeyForm.PEM, pem(RSA)),
        (RSA_PKCS1, KeyForm.PEM, pem(ED25519_KEY)),
        (RSA_PKCS1, KeyForm.PEM, b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"),
        (RSA_PKCS1, KeyForm.PEM, b"any text"),
        (RSA_PSS, KeyForm.PEM, b""),
    ],
)
def test_another_key_is_an_error(kind: Kind, form: KeyForm, text: bytes) -> None:
    with pytest.raises(KeyFormError, match="public key"):
        kind.read_key(form, text)


def test_a_private_key_where_the_public_one_belongs_is_refused_and_the_other_way_round() -> None:
    private = RSA.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(KeyFormError, match="public key"):
        RSA_PKCS1.read_key(KeyForm.PEM, private)
    for kind, text in (
        (RSA_PKCS1, pem(RSA)),
        (ECDSA, private),
        (ED25519, private),
        (RSA_PSS, b"x"),
    ):
        with pytest.raises(KeyFormError, match="private key"):
            kind.read_signing_key(KeyForm.PEM, text)


def test_cryptography_is_imported_only_by_a_route_that_needs_it() -> None:
    """It costs a small process megabytes that most configurations have no use for."""
    script = (
        "import sys; from sidecar.config.presets import load_preset; from sidecar.secret import Secret;"
        "from sidecar.verify.verifier import Verifier\n"
        "Verifier(load_preset('github'), [Secret('a', b'b')]); print('cryptography' in sys.modules)\n"
        "Verifier(load_preset('discord'), [Secret('a', b'%s')]); print('cryptography' in sys.modules)\n"
    )
    text = script % ED25519_KEY.public_key().public_bytes_raw().hex()
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


#: Modules that only schemes with tokens or published keys need.
OF_TOKENS = (
    "jose",
    "token",
    "token_claims",
    "token_verifier",
    "key_finder",
    "key_documents",
    "certificates",
    "chain_finder",
)


def test_a_route_with_a_shared_secret_imports_nothing_of_tokens_certificates_and_published_keys() -> None:
    script = (
        "import sys; from sidecar.config.presets import load_preset, preset_names; from sidecar.secret import Secret;"
        "from sidecar.verify.verifier import Verifier; [load_preset(name) for name in ('github', 'stripe', 'slack')]\n"
        "Verifier(load_preset('github'), [Secret('a', b'b')])\n"
        f"print([name for name in {OF_TOKENS} if 'sidecar.verify.' + name in sys.modules], 'cryptography' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[] False\n"
