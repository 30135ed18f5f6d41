"""`headers:` of a route: the header fields that are set for the receiver, and the sender's fields that are removed.

Names are compared as receivers fold them (`X_Internal_A` is `X-Internal-A` to many), so that no spelling of a removed field
arrives under its name.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from sidecar.http1.fields import HOP_BY_HOP
from sidecar.http1.head import fold_name
from sidecar.secret import Secret

#: Fields that frame the message or concern a connection, in lower case: never set and never removed by `headers:`.
FIXED_FIELDS: Final = HOP_BY_HOP | {b"content-length", b"host", b"expect"}
#: Prefixes of the names of our own fields.
OUR_PREFIXES: Final = (b"x-forwarded-", b"x-webhook-")
#: A field's value (RFC 9110, 5.5), without the characters beyond ASCII.
_VALUE: Final = re.compile(rb"[!-~](?:[\t -~]*[!-~])?")


class SetHeader(NamedTuple):
    """A field that the receiver gets. Its value is the text, then the secret if there is one."""

    name: str
    text: str = ""
    secret: Secret | None = None


class ReceiverHeaders:
    """The changes to the header fields of a route's deliveries."""

    __slots__ = ("_names", "_plain", "_prefixes", "_with_secret", "remove", "set")

    def __init__(self, set: Sequence[SetHeader], remove: Sequence[str]) -> None:
        """Names in `remove` may end in `*`. Raises `ValueError` for a secret that can't be a field's value."""
        self.set = tuple(set)
        self.remove = tuple(remove)
        self._plain = b"".join([_line(each) for each in set if each.secret is None])
        self._with_secret = b"".join([_line(each) for each in set if each.secret is not None])
        names = [each.name for each in set] + [name for name in remove if not name.endswith("*")]
        self._names = frozenset([fold_name(name.encode()) for name in names])
        self._prefixes = tuple([fold_name(name[:-1].encode()) for name in remove if name.endswith("*")])

    def lines(self, *, vouched: bool) -> bytes:
        """The lines to add. Lines with a secret are left out unless something vouches for the delivery."""
        return self._plain + self._with_secret if vouched else self._plain

    def removes(self, folded: bytes) -> bool:
        """Whether a sender's field is not forwarded; `folded` is its name by `fold_name`."""
        if folded in self._names:
            return True
        return bool(self._prefixes) and folded != b"host" and folded.startswith(self._prefixes)


def _line(header: SetHeader) -> bytes:
    value = header.text.encode()
    if header.secret is not None:
        secret = header.secret.reveal()
        if not _VALUE.fullmatch(secret):
            raise ValueError("can't be the value of a header; use visible ASCII characters on one line")
        value += secret
    return b"%b: %b\r\n" % (header.name.encode(), value)
