"""Contexts for TLS made of the contents of files, and what is said of contents that can't be used."""

import ssl

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from sidecar.http1.client_tls import ClientTls, TlsFileError, TlsFiles

CA = trustme.CA()
ISSUED, OTHER = CA.issue_cert("a.test"), CA.issue_cert("b.test")
AUTHORITY, CERT, KEY = CA.cert_pem.bytes(), ISSUED.cert_chain_pems[0].bytes(), ISSUED.private_key_pem.bytes()


def encrypted(key: bytes) -> bytes:
    loaded = serialization.load_pem_private_key(key, None)
    form, cipher = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    return loaded.private_bytes(serialization.Encoding.PEM, form, cipher)


def test_a_given_authority_replaces_those_of_the_system() -> None:
    context = ClientTls(TlsFiles(ca=AUTHORITY)).context
    assert len(context.get_ca_certs()) == 1
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_the_key_may_be_in_the_file_of_the_certificate() -> None:
    assert ClientTls(TlsFiles(client_cert=KEY + CERT)).presents_certificate
    assert ClientTls(TlsFiles(client_cert=CERT, client_key=KEY)).presents_certificate


def test_two_are_equal_if_the_contents_and_the_name_are() -> None:
    def make(**files: bytes) -> ClientTls:
        return ClientTls(TlsFiles(**files), "a.test")

    same = make(ca=AUTHORITY, client_cert=CERT, client_key=KEY)
    assert same == make(ca=AUTHORITY, client_cert=CERT, client_key=KEY)
    assert hash(same) == hash(make(ca=AUTHORITY, client_cert=CERT, client_key=KEY))
    assert same != make(ca=AUTHORITY)
    assert same != ClientTls(TlsFiles(AUTHORITY, CERT, KEY), "b.test")
    assert same != "a.test"


@pytest.mark.parametrize(
    ("files", "where", "message"),
    [
        (TlsFiles(ca=b""), "ca", "has no certificate; use PEM"),
        (TlsFiles(ca=KEY), "ca", "has no certificate; use PEM"),
        (TlsFiles(ca=AUTHORITY[:300]), "ca", "can't be read"),
        (TlsFiles(ca="é".encode() + b"-----BEGIN CERTIFICATE-----"), "ca", "can't be read"),
        (TlsFiles(client_cert=b"text", client_key=KEY), "client_cert", "has no certificate; use PEM"),
        (TlsFiles(client_cert=CERT), "client_cert", "has no private key in PEM"),
        (TlsFiles(client_cert=CERT, client_key=CERT), "client_key", "has no private key in PEM"),
        (TlsFiles(client_cert=CERT, client_key=KEY[:200] + b"PRIVATE KEY-----"), "client_cert", "can't be read"),
        (TlsFiles(client_cert=CERT, client_key=OTHER.private_key_pem.bytes()), "client_key", "is not the key of"),
        (TlsFiles(client_cert=CERT, client_key=encrypted(KEY)), "client_key", "is encrypted"),
        (TlsFiles(client_cert=CERT + encrypted(KEY)), "client_cert", "is encrypted"),
    ],
)
def test_a_file_that_can_not_be_used_is_named(files: TlsFiles, where: str, message: str) -> None:
    with pytest.raises(TlsFileError, match=message) as error:
        ClientTls(files)
    assert error.value.file == where
