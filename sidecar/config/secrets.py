"""Reads the secrets that references name."""

import re
from collections.abc import Mapping

from sidecar.config.files import ReadFile, read_file
from sidecar.config.problems import Path, Report
from sidecar.secret import Secret, SecretRef

#: A secret file is one line of text; anything larger is the wrong file.
MAX_SECRET_BYTES = 64 * 1024
#: Shorter secrets are guessed, not broken: below 16 bytes we warn.
SHORT_SECRET = 16
#: A line of an .env file. Base64 has its `=` at the end only.
_ASSIGNMENT = re.compile(rb"(?:export )?[A-Z][A-Z0-9_]*=[^=]")


class SecretUnavailableError(Exception):
    """A secret that can't be read; `absent` if its variable or file does not exist."""

    def __init__(self, message: str, *, absent: bool) -> None:
        super().__init__(message)
        self.absent = absent


def read_secret(ref: SecretRef, env: Mapping[str, str], read: ReadFile = read_file) -> bytes:
    """The bytes of a secret. Raises `SecretUnavailableError`."""
    if ref.env:
        text = env.get(ref.env)
        if text is None:
            remedy = "write its name alone, without $" if "$" in ref.env else "set it in the sidecar's environment"
            raise SecretUnavailableError(f"the environment variable {ref.env} is not set; {remedy}", absent=True)
        return text.encode("utf-8", "surrogateescape")
    try:
        value = read(ref.file, MAX_SECRET_BYTES + 1)
    except ValueError:
        raise SecretUnavailableError("the name of the secret file is not a valid file name", absent=False) from None
    except OSError as error:
        absent = isinstance(error, FileNotFoundError)
        remedy = "write out the directory for ~" if ref.file.startswith("~") else "check its path and permissions"
        raise SecretUnavailableError(
            f"the secret file {ref.file} can't be read: {error.strerror}; {remedy}", absent=absent
        ) from None
    if len(value) > MAX_SECRET_BYTES:
        problem = f"the secret file {ref.file} is larger than {MAX_SECRET_BYTES} bytes; check that it is the right file"
        raise SecretUnavailableError(problem, absent=False)
    return without_newline(value)


def without_newline(value: bytes) -> bytes:
    """The secret in a file: `echo secret > file` ends with a newline, and so do most editors, so one is not part of it."""
    return value.removesuffix(b"\n").removesuffix(b"\r") if value.endswith(b"\n") else value


def describe_disguise(value: bytes) -> str:
    """Text that an editor, a shell or Windows has added to a secret, with the remedy; empty if there is none."""
    if value.startswith((b"\xff\xfe", b"\xfe\xff")) or value[1::2].count(0) * 2 >= len(value) > 4:
        return "is UTF-16 text, as Windows writes it, and each second byte is a zero; save it as UTF-8 without a byte order mark"
    if value.startswith(b"\xef\xbb\xbf"):
        return "begins with a byte order mark (EF BB BF), which is part of it; save it as UTF-8 without one"
    if len(value) > 2 and value[:1] in (b'"', b"'") and value[-1:] == value[:1]:
        return "is in quotes, which are part of it; store it without them"
    if value != value.strip():
        return "begins or ends with spaces or newlines, which are part of it; remove them if the provider's secret has none"
    if b"\n" in value and b"-----BEGIN" not in value:
        return "has several lines, which are all part of it; store one secret alone, on one line"
    if _ASSIGNMENT.match(value):
        return "begins with a name and '=', which are part of it; store the value alone"
    return ""


class SecretResolver:
    """Resolves the references of one configuration, and reports those that can't be resolved."""

    def __init__(self, env: Mapping[str, str], read: ReadFile, report: Report, *, resolves: bool) -> None:
        """Without `resolves` no variable or file is read, and every secret is a placeholder."""
        self.resolves = resolves
        self._env = env
        self._read = read
        self._report = report

    def resolve(self, at: Path, ref: SecretRef) -> Secret | None:
        """The secret of the reference at `at`; None if it is absent and optional, or if a mistake was reported."""
        if not self.resolves:
            return Secret(ref.id, b"not resolved", retire_by=ref.retire_by)
        try:
            value = read_secret(ref, self._env, self._read)
        except SecretUnavailableError as error:
            if not (ref.optional and error.absent):
                self._report.add(at, str(error))
            return None
        if not value.strip():
            self._report.add(at, f"the secret in {ref.where} is empty, so anyone could sign with it; set one")
            return None
        if problem := describe_disguise(value):
            self._report.warn(at, f"the secret in {ref.where} {problem}")
        if len(value) < SHORT_SECRET:
            self._report.warn(
                at,
                f"the secret in {ref.where} has only {len(value)} bytes; use at least {SHORT_SECRET}, which can't be guessed",
            )
        return Secret(ref.id, value, retire_by=ref.retire_by)
