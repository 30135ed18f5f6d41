"""Keys in certificates that a token brings along: `x5c` (RFC 7515, 4.1.6), to a pinned root. Nothing is fetched.

A verified chain is remembered by its bytes. Its dates are compared with each token's time.
"""

from base64 import b64decode, b64encode
from binascii import Error
from collections import OrderedDict
from typing import Any, Final

from sidecar.outcomes import Reason, Rejected
from sidecar.verify.certificates import (
    MAX_CERTIFICATES,
    CertificateError,
    check_chain,
    check_extension,
    key_of,
    read_certificates,
    read_der,
    validity,
)
from sidecar.verify.claim_rules import CertificatePlace

#: Chains that a route remembers. Apple changes its leaf about once a year.
MAX_CHAINS: Final = 16


class ChainFinder:
    """The pinned roots of one `x5c:` section."""

    def __init__(self, place: CertificatePlace) -> None:
        self._place = place
        self._roots = read_certificates(place.roots.encode())
        self._known: OrderedDict[tuple[str, ...], tuple[Any, float, float]] = OrderedDict()

    def find(self, x5c: Any, signed_at: float | None) -> Any:
        """The key of the leaf. Raises `Rejected` unless the chain is one of the pinned roots' and valid at `signed_at`."""
        if not isinstance(x5c, list) or not x5c or not all(isinstance(each, str) for each in x5c):
            raise Rejected(Reason.SIGNATURE_MALFORMED, "the token's x5c is not a list of certificates")
        if self._place.length and len(x5c) != self._place.length:
            raise Rejected(
                Reason.SIGNATURE_MALFORMED, f"the token's x5c does not have {self._place.length} certificates"
            )
        if len(x5c) > MAX_CERTIFICATES:  # each may cost a signature
            raise Rejected(Reason.SIGNATURE_MALFORMED, f"the token's x5c has more than {MAX_CERTIFICATES} certificates")
        # With pinned roots the last of several certificates is never needed and proves nothing.
        chain = tuple(x5c[:-1] if len(x5c) > 1 else x5c)
        known = self._known.get(chain)
        if known is None:
            try:
                known = self._trust(chain)
            except CertificateError as error:
                raise Rejected(Reason.KEY_UNKNOWN, str(error)) from None
            self._known[chain] = known
            while len(self._known) > MAX_CHAINS:
                self._known.popitem(last=False)
        key, begin, end = known
        if signed_at is not None and not begin <= signed_at <= end:
            raise Rejected(Reason.KEY_UNKNOWN, "a certificate of the token was not valid when it was signed")
        return key

    def _trust(self, sent: tuple[str, ...]) -> tuple[Any, float, float]:
        """Everything but the dates. Raises `CertificateError`."""
        leaf, *between = [read_der(_decode(each)) for each in sent]
        chain = check_chain(leaf, between, self._roots, None)
        for certificate, oid in zip(chain, self._place.extensions):
            check_extension(certificate, oid)
        if len(chain) < len(self._place.extensions):
            raise CertificateError("the chain is shorter than the sender's")
        windows = [validity(each) for each in chain]
        return key_of(leaf), max(begin for begin, _ in windows), min(end for _, end in windows)


def _decode(text: str) -> bytes:
    """Standard base64 with padding (RFC 7515, 4.1.6). Raises `CertificateError`."""
    try:
        der = b64decode(text, validate=True)
    except (Error, ValueError):
        der = b""
    if not der or b64encode(der).decode() != text:
        raise CertificateError("a certificate of the token is not in base64")
    return der
