"""Signatures of the draft before RFC 9421 (draft-cavage-http-signatures-12): from one field to a signature and the signed text.
Nothing is verified here.

The field lists names and texts: keyid="...", algorithm="...", headers="(request-target) host date digest", signature="...".
"""

import re
from binascii import Error, a2b_base64
from typing import Final

from sidecar.http1.head import RequestHead
from sidecar.outcomes import Reason, Rejected
from sidecar.verify.claim import MAX_FIELD
from sidecar.verify.components import REQUEST_TARGET, Coverage, Identity, ListedSignature, SignatureRules
from sidecar.verify.form import malformed
from sidecar.verify.message import PublicURL
from sidecar.verify.scheme import Scheme

#: Names in `headers`.
MAX_COVERED: Final = 64
_ITEM: Final = re.compile(rb'[ \t]*([A-Za-z]+)="([^"\\\x00-\x1f\x7f-\xff]*)"[ \t]*(?:,|$)')
_NAMES: Final = frozenset({b"keyid", b"algorithm", b"headers", b"signature"})
_FIELD: Final = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+")


class DraftSignatureReader:
    """Finds the signature in a head, and writes the signed text."""

    def __init__(self, scheme: Scheme, url: PublicURL | None) -> None:
        assert scheme.listed is not None
        self._rules: SignatureRules = scheme.listed
        self._url = url
        self._spelled = scheme.signature.header
        self._header = self._spelled.lower().encode()
        self._prefix = scheme.signature.prefix.encode()

    def describe(self, head: RequestHead) -> Coverage:
        """The signature's description of itself. Raises `Rejected`."""
        given = {name.decode(): value.decode() for name, value in self._read(head).items()}
        covers = given.get("headers", "date").split(" ", MAX_COVERED)[:MAX_COVERED]
        return Coverage("", covers, {name: given[name] for name in ("keyid", "algorithm") if name in given})

    def read_head(self, head: RequestHead) -> tuple[ListedSignature, list[bytes]]:
        """The signature, and no time: that is in a header. Raises `Rejected`."""
        given = self._read(head)
        algorithm = given.get(b"algorithm", b"").decode()
        if algorithm and algorithm not in self._rules.algorithms:
            raise malformed(f"the signature's algorithm is not {' or '.join(self._rules.algorithms)}")
        names = given.get(b"headers", b"date").lower().split(b" ", MAX_COVERED)
        if len(names) > MAX_COVERED or len(set(names)) < len(names):
            raise malformed(f"the signature's headers are not up to {MAX_COVERED} names, each once")
        identities: set[Identity] = {(name.decode(), frozenset()) for name in names}
        for each in self._rules.required:
            if each.identity not in identities and not (each.if_present and not head.values(each.name.encode())):
                raise malformed(f"the signature does not cover {each}, which the scheme requires")
        base = b"\n".join([b"%b: %b" % (name, self._find(head, name)) for name in names])
        signature = _decode(given.get(b"signature", b""))
        return ListedSignature(signature, base, given.get(b"keyid", b""), algorithm.encode(), b"", b""), []

    def _read(self, head: RequestHead) -> dict[bytes, bytes]:
        values = head.values(self._header)
        if not values or not values[0]:
            raise Rejected(Reason.SIGNATURE_MISSING, f"no {self._spelled} header")
        if len(values) > 1:
            raise malformed(f"{len(values)} {self._spelled} headers; expected one")
        text = values[0]
        if len(text) > MAX_FIELD:
            raise malformed(f"{self._spelled} is longer than {MAX_FIELD} bytes")
        if not text.startswith(self._prefix):
            raise malformed(f"{self._spelled} does not start with {self._prefix.decode()!r}")
        found: dict[bytes, bytes] = {}
        at = len(self._prefix)
        while at < len(text):
            match = _ITEM.match(text, at)
            name = match[1].lower() if match is not None else b""
            if match is None or name not in _NAMES or name in found:
                raise malformed(f'{self._spelled} is not a list of keyid="", algorithm="", headers="" and signature=""')
            found[name] = match[2]
            at = match.end()
        return found

    def _find(self, head: RequestHead, name: bytes) -> bytes:
        if name == REQUEST_TARGET.encode():
            return head.method.lower().encode() + b" " + self._target(head)
        if name == b"host" and self._url is not None:
            return self._url.authority
        if not _FIELD.fullmatch(name):
            raise malformed("the signature's headers are not names of fields")
        values = head.values(name)
        if not values:
            raise malformed(f"the signature covers {name.decode()}, which the delivery does not have")
        return b", ".join([value.strip(b" \t") for value in values])

    def _target(self, head: RequestHead) -> bytes:
        if self._url is None:
            return head.target
        return b"/" + self._url.of(head.target).partition(b"://")[2].partition(b"/")[2]


def _decode(text: bytes) -> bytes:
    try:
        signature = a2b_base64(text, strict_mode=True)
    except Error:
        signature = b""
    if not signature:
        raise malformed("the signature is not base64")
    return signature
