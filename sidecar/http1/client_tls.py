"""TLS towards a receiver: a private authority, a client certificate, another name; made of the bytes of files.

The bytes are read once, with the rest of the configuration: every process has the same ones, and a changed file is a changed
configuration. `ssl` takes a certificate and its key only as files, so they are handed over as files in memory (memfd).
"""

import contextlib
import hashlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_KEY = b"PRIVATE KEY-----"


class TlsFiles(NamedTuple):
    """The contents of the files, in PEM; None for one that is not configured."""

    ca: bytes | None = None
    client_cert: bytes | None = None
    client_key: bytes | None = None  #: None: it is in `client_cert`


class TlsFileError(ValueError):
    """A file that can't be used. The message is a remedy, and shows nothing of the file."""

    def __init__(self, file: str, message: str) -> None:
        super().__init__(message)
        self.file = file  #: the field of `TlsFiles`


class ClientTls:
    """How connections to one receiver are secured. Equal if the contents of all files are."""

    __slots__ = ("_digest", "context", "presents_certificate", "server_name")

    def __init__(self, files: TlsFiles, server_name: str = "") -> None:
        """`server_name` is sent (SNI) and must be in the receiver's certificate; empty: the host of its URL.

        Raises `TlsFileError`.
        """
        self.context = make_context(files)
        self.server_name = server_name
        self.presents_certificate = files.client_cert is not None
        parts = [hashlib.sha256(part or b"").digest() for part in files]
        self._digest = hashlib.sha256(b"".join(parts) + server_name.encode()).digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClientTls) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)


def make_context(files: TlsFiles) -> ssl.SSLContext:
    """A context that trusts the authorities in `ca` and no others, or the system's without one. Raises `TlsFileError`."""
    context = ssl.create_default_context(cadata=_authorities(files.ca)) if files.ca is not None else None
    context = context or ssl.create_default_context()
    if files.client_cert is not None:
        _load_certificate(context, files.client_cert, files.client_key)
    return context


def _authorities(ca: bytes) -> str:
    if _CERTIFICATE not in ca:
        raise TlsFileError("ca", "has no certificate; use PEM (-----BEGIN CERTIFICATE-----)")
    try:
        text = ca.decode("ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise TlsFileError("ca", "has a certificate that can't be read; copy it again") from None
    return text


def _load_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes | None) -> None:
    if _CERTIFICATE not in certificate:
        raise TlsFileError("client_cert", "has no certificate; use PEM (-----BEGIN CERTIFICATE-----)")
    holder = "client_cert" if key is None else "client_key"
    if _KEY not in (certificate if key is None else key):
        raise TlsFileError(holder, "has no private key in PEM; set `client_key` to the file that has it")
    asked: list[bool] = []

    def refuse() -> bytes:  # without it OpenSSL would ask on the terminal
        asked.append(True)
        return b""

    try:
        with contextlib.ExitStack() as stack:
            cert_file = stack.enter_context(_as_file(certificate))
            key_file = stack.enter_context(_as_file(key)) if key is not None else None
            context.load_cert_chain(cert_file, key_file, refuse)
    except ssl.SSLError as error:
        if asked:
            raise TlsFileError(holder, "is encrypted; store the key without a passphrase") from None
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsFileError(
                holder, "is not the key of the certificate in `client_cert`; use the pair that was issued together"
            ) from None
        raise TlsFileError("client_cert", "or its key can't be read; copy both again, in PEM") from None


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """The name of a file with this content, which is in memory where the system has such files."""
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        descriptor = os.memfd_create("tls")
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile() as named:  # only its owner can read it
            named.write(content)
            named.flush()
            yield named.name
