"""Where secrets are kept, and reading them."""

from collections.abc import Mapping
from typing import NamedTuple

from sidecar.config.files import ReadFile, read_file


class SecretRef(NamedTuple):
    """Where a secret stands; `id` is what logs and metrics call it."""

    id: str
    env: str
    file: str
    optional: bool
    retire_by: float | None = None

    @property
    def where(self) -> str:
        return f"env:{self.env}" if self.env else f"file:{self.file}"


#: A secret file is one line of text; anything larger is the wrong file.
MAX_SECRET_BYTES = 64 * 1024


class SecretUnavailableError(Exception):
    """A secret that can't be had; `absent` if there simply is none."""

    def __init__(self, message: str, *, absent: bool) -> None:
        super().__init__(message)
        self.absent = absent


def read_secret(ref: SecretRef, env: Mapping[str, str], read: ReadFile = read_file) -> bytes:
    """The bytes of a secret, from where `ref` says. Raises `SecretUnavailableError`."""
    if ref.env:
        text = env.get(ref.env)
        if text is None:
            raise SecretUnavailableError(f"the environment variable {ref.env} is not set", absent=True)
        return text.encode("utf-8", "surrogateescape")
    try:
        value = read(ref.file, MAX_SECRET_BYTES + 1)
    except ValueError:
        raise SecretUnavailableError(
            "the secret file's name holds a character that no file name has", absent=False
        ) from None
    except OSError as error:
        absent = isinstance(error, FileNotFoundError)
        raise SecretUnavailableError(
            f"the secret file {ref.file} can't be read: {error.strerror}", absent=absent
        ) from None
    if len(value) > MAX_SECRET_BYTES:
        problem = f"the secret file {ref.file} is larger than {MAX_SECRET_BYTES} bytes; is it the right one?"
        raise SecretUnavailableError(problem, absent=False)
    # `echo secret > file` ends with a newline, and so do most editors: exactly one is not part of the secret.
    return value.removesuffix(b"\n").removesuffix(b"\r") if value.endswith(b"\n") else value
