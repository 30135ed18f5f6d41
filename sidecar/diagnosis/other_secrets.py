"""Secrets that may have signed a delivery in place of a route's own; each has for an id the words that say what differs."""

from collections.abc import Iterator, Sequence

from sidecar.secret import Secret


def other_whitespace(secrets: Sequence[Secret]) -> Iterator[Secret]:
    """With a newline or space more, or without those around it."""
    for value in _values(secrets):
        stripped = value.strip()
        if stripped not in (value, b""):
            yield Secret("without the spaces or newlines around our secret", stripped)
        for what, added in (("a newline", b"\n"), ("CR LF", b"\r\n"), ("a space", b" ")):
            yield Secret(f"with {what} after the sender's secret", stripped + added)
        yield Secret("with a space before the sender's secret", b" " + stripped)


def other_prefix(secrets: Sequence[Secret]) -> Iterator[Secret]:
    """With 'whsec_' before it, or without."""
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
