"""The certificates and keys of `upstream: {tls: ...}`: read, checked, and loaded for connections."""

import ssl
from datetime import UTC, datetime
from typing import Final

from sidecar.config.fields.upstream import UpstreamTlsSettings
from sidecar.config.files import ReadFile
from sidecar.config.problems import Path, Report
from sidecar.http1.client_tls import ClientTls, TlsFileError, TlsFiles

#: A bundle of all public authorities has about 250 KB.
MAX_PEM_BYTES: Final = 1024 * 1024


class TlsLoader:
    """Loads the files of one configuration. Routes with equal `tls:` share one `ClientTls`."""

    def __init__(self, read: ReadFile, report: Report, *, resolves: bool) -> None:
        """Without `resolves` no file is read."""
        self._read = read
        self._report = report
        self._resolves = resolves
        self._loaded: dict[UpstreamTlsSettings, ClientTls | None] = {}

    def load(self, at: Path, settings: UpstreamTlsSettings | None) -> ClientTls | None:
        """None without `tls:`, or if a mistake was reported."""
        if settings is None or not self._resolves:
            return None
        if settings not in self._loaded:
            self._loaded[settings] = self._load(at, settings)
        return self._loaded[settings]

    def load_authorities(self, at: Path, file: str) -> str:
        """The certificates in `file` (PEM). Empty without a file, or if a mistake was reported."""
        if not file or not self._resolves:
            return ""
        content = self._content(at, file)
        if content is None:
            return ""
        try:
            text = content.decode("ascii")
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
        except (ValueError, ssl.SSLError):
            self._report.add(at, f"the file {file} holds no certificates in PEM; use the authority's own certificate")
            return ""
        return text

    def _load(self, at: Path, settings: UpstreamTlsSettings) -> ClientTls | None:
        contents: dict[str, bytes] = {}
        for key in TlsFiles._fields:
            name: str = getattr(settings, key)
            if name and (content := self._content((*at, key), name)) is not None:
                contents[key] = content
        if len(contents) < sum(bool(getattr(settings, key)) for key in TlsFiles._fields):
            return None
        files = TlsFiles(**contents)
        try:
            made = ClientTls(files, settings.server_name)
        except TlsFileError as error:
            here = (*at, error.file if getattr(settings, error.file) else "client_cert")
            name = getattr(settings, error.file) or settings.client_cert
            self._report.add(here, f"the file {name} {error}")
            return None
        if files.client_cert is not None:
            self._warn_of_dates((*at, "client_cert"), settings.client_cert, files.client_cert)
        return made

    def _content(self, at: Path, name: str) -> bytes | None:
        try:
            content = self._read(name, MAX_PEM_BYTES + 1)
        except ValueError:
            self._report.add(at, "is not a valid file name; remove the NUL byte")
            return None
        except OSError as error:
            self._report.add(at, f"the file {name} can't be read: {error.strerror}; check its path and permissions")
            return None
        if len(content) > MAX_PEM_BYTES:
            self._report.add(
                at, f"the file {name} is larger than {MAX_PEM_BYTES} bytes; check that it is the right file"
            )
            return None
        return content

    def _warn_of_dates(self, at: Path, name: str, certificate: bytes) -> None:
        """No error: a sidecar that doesn't start loses every delivery, and the receiver may not check the dates."""
        from cryptography import x509  # noqa: PLC0415 - memory that a configuration without certificates does without

        try:
            parsed = x509.load_pem_x509_certificate(certificate)
        except ValueError:
            return
        now = datetime.now(UTC)
        if parsed.not_valid_after_utc < now:
            self._report.warn(
                at, f"the certificate in {name} expired on {parsed.not_valid_after_utc:%Y-%m-%d}; renew it"
            )
        elif parsed.not_valid_before_utc > now:
            self._report.warn(
                at,
                f"the certificate in {name} is not valid before {parsed.not_valid_before_utc:%Y-%m-%d}; "
                "check the clock, or replace it",
            )
