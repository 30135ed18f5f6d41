"""Header fields that concern one connection only, and are never forwarded (RFC 9110, section 7.6.1)."""

from collections.abc import Iterable
from typing import Final

#: RFC 9110, 7.6.1, and what HTTP/1.1 says about this connection only. `Connection` names further ones.
HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

#: What `Connection` says about the connection itself.
HARMLESS_OPTIONS: Final = frozenset({b"close", b"keep-alive"})


def connection_options(values: Iterable[bytes]) -> frozenset[bytes]:
    """Lower-case names listed in `Connection` fields with these values: hop-by-hop for this message."""
    return frozenset(token.strip(b" \t").lower() for value in values for token in value.split(b","))
