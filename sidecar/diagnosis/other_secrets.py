"""Secrets that may have signed a delivery in place of a route's own; the id of each describes the difference."""

import re
from base64 import b64encode
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence

from sidecar.secret import Secret
from sidecar.verify.keys import KeyFormError, decode_base64

#: A line of an .env file or of a shell, up to the value.
_ASSIGNMENT = re.compile(rb"(?:export[ \t]+)?[A-Za-z_][A-Za-z0-9_]*[ \t]*=[ \t]*")
_QUOTES = (b'"', b"'")
#: A shorter remainder is not tried: a stranger could guess it, and get a hint without knowing the secret.
_SHORTEST_REST = 8


def other_whitespace(secrets: Sequence[Secret]) -> Iterator[Secret]:
    """Our secret with one more newline or space, or without those around it."""
    for value in _values(secrets):
        stripped = value.strip()
        if stripped not in (value, b""):
            yield Secret("without the spaces or newlines around our secret", stripped)
        for what, added in (("a newline", b"\n"), ("CR LF", b"\r\n"), ("a space", b" ")):
            yield Secret(f"with {what} after the sender's secret", stripped + added)
        yield Secret("with a space before the sender's secret", b" " + stripped)


def without_extra_text(secrets: Sequence[Secret]) -> Iterator[Secret]:
    """Our secret without its byte order mark, `NAME=` and quotes; nothing for a secret that has none of them."""
    for value in _values(secrets):
        removed: list[str] = []
        rest = value.strip()
        for what, inner in (("a byte order mark", _after_bom), ("NAME=", _after_name), ("quotes", _inside_quotes)):
            shorter = inner(rest).strip()
            if shorter != rest and len(shorter) >= _SHORTEST_REST:
                rest = shorter
                removed.append(what)
                yield Secret(f"without {' and '.join(removed)} around our secret", rest)


def with_extra_text(secrets: Sequence[Secret]) -> Iterator[Secret]:
    """Our secret with the quotes or the byte order mark that the sender may have around it."""
    for value in _values(secrets):
        for quote in _QUOTES:
            yield Secret("with quotes around the sender's secret", quote + value + quote)
        yield Secret("with a byte order mark before the sender's secret", BOM_UTF8 + value)


def _after_bom(value: bytes) -> bytes:
    return value.removeprefix(BOM_UTF8)


def _after_name(value: bytes) -> bytes:
    name = _ASSIGNMENT.match(value)
    return value[name.end() :] if name else value


def _inside_quotes(value: bytes) -> bytes:
    quoted = len(value) > 2 and value[:1] in _QUOTES and value[:1] == value[-1:]
    return value[1:-1] if quoted else value


def without_base64_of_line(secrets: Sequence[Secret]) -> Iterator[Secret]:
    """The sender's secret if ours is the output of `echo SECRET | base64`: the base64 of a whole line."""
    for value in _values(secrets):
        try:
            line = decode_base64(b"".join(value.split()))
        except KeyFormError:
            continue
        rest = line.removesuffix(b"\n").removesuffix(b"\r")
        if rest != line and len(rest) >= _SHORTEST_REST:
            yield Secret("with our secret decoded from base64, without the newline at its end", rest)


def with_base64_of_line(secrets: Sequence[Secret]) -> Iterator[Secret]:
    """The sender's secret if that is the base64 of ours and a newline."""
    for value in _values(secrets):
        yield Secret("with the base64 of the secret and a newline as the sender's secret", b64encode(value + b"\n"))


def other_prefix(secrets: Sequence[Secret]) -> Iterator[Secret]:
    """Our secret with 'whsec_' before it, or without."""
    for value in _values(secrets):
        if not value.startswith(b"whsec_"):
            yield Secret("with 'whsec_' before the secret", b"whsec_" + value)
        elif bare := value.removeprefix(b"whsec_"):
            yield Secret("with the rest after 'whsec_' as text", bare)


def other_routes(secrets: Sequence[Secret], others: Sequence[tuple[str, Secret]]) -> Iterator[Secret]:
    """Those of `others`, each with its route's name, that are not among `secrets`."""
    own = _values(secrets)
    for route, secret in others:
        if secret.reveal() not in own:
            yield secret.with_id(f"with {secret.id} of the route {route}")


def _values(secrets: Sequence[Secret]) -> list[bytes]:
    return [secret.reveal() for secret in secrets]
