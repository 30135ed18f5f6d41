"""Header fields that concern one connection only, and are never forwarded (RFC 9110, section 7.6.1)."""

from collections.abc import Iterable
from typing import Final

#: RFC 9110, 7.6.1, and HTTP/1.1's fields about this connection only. `Connection` names further ones.
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
        b"http2-settings",  # beside `Upgrade: h2c` (RFC 7540, 3.2.1)
    }
)

#: Options of `Connection` that concern the connection itself.
HARMLESS_OPTIONS: Final = frozenset({b"close", b"keep-alive"})


def connection_options(values: Iterable[bytes]) -> frozenset[bytes]:
    """The names in `Connection` fields with these values, in lower case: hop-by-hop for this message."""
    return frozenset(token.strip(b" \t").lower() for value in values for token in value.split(b","))
