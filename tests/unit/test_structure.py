"""Rules about the source that no linter here knows."""

import re
from pathlib import Path

SIDECAR = Path(__file__).parents[2] / "sidecar"
MAX_LINES = 500
#: Files that read a secret's value, and why.
REVEALING = {
    "routing/receiver_headers.py",  # writes credentials for the receiver into its request
    "verify/keys.py",  # makes keys of secrets
    "verify/key_finder.py",  # asks a provider for a key with the credential that it wants
    "verify/handshake.py",  # computes the responses to handshakes
    "process/access_tokens.py",  # asks a provider for a token with the credentials of an application
    "diagnosis/other_secrets.py",  # changes secrets as senders may have
    "replay/redis_store.py",  # sends the password to Redis
}


def revealing(package: Path) -> set[str]:
    files = {str(file.relative_to(package)): file.read_text(encoding="utf-8") for file in package.rglob("*.py")}
    return {name for name, text in files.items() if re.search(r"\.reveal\b|\._value\b", text)} - {"secret.py"}


def test_secrets_are_revealed_only_here() -> None:
    assert revealing(SIDECAR) == REVEALING


def test_another_file_that_reveals_a_secret_is_found(tmp_path: Path) -> None:
    (tmp_path / "admin").mkdir()
    (tmp_path / "admin/pages.py").write_text("def show(secret):\n    return secret.reveal()\n")
    (tmp_path / "admin/markup.py").write_text("def show(secret):\n    return secret.id\n")
    assert revealing(tmp_path) == {"admin/pages.py"}


def test_no_file_is_too_long_to_read_at_once() -> None:
    """A file that grows beyond this has two subjects."""
    lines = {str(file): len(file.read_text(encoding="utf-8").splitlines()) for file in SIDECAR.rglob("*.py")}
    assert {file: count for file, count in lines.items() if count > MAX_LINES} == {}
