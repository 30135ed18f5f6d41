"""Signing verified deliveries for the receiver, as Standard Webhooks.

The standard (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md) has three headers.
`webhook-signature` is "v1," and the base64 of an HMAC-SHA256 over `{id}.{timestamp}.{body}`.
"""

import re
from base64 import b64encode
from collections.abc import Sequence
from typing import Protocol

from sidecar.http1.head import RequestHead
from sidecar.secret import Secret
from sidecar.verify.algorithms import Algorithm
from sidecar.verify.claim import Claim
from sidecar.verify.keys import KeyForm, secret_bytes
from sidecar.verify.kinds.hmac import Hmac
from sidecar.verify.upstream_request import UpstreamRequest
from sidecar.verify.verifier import Verifier

#: A provider's id that can be used in a header and in the signed message unchanged: without a dot, which ends it there.
_PLAIN_ID = re.compile(rb"[!-\-/-~]{1,128}")


def signing_key(secret: Secret) -> bytes:
    """Raises `KeyFormError` for a secret that is not base64, with or without `whsec_` before it."""
    return secret_bytes(KeyForm.WHSEC, secret)


class UpstreamSigner(Protocol):
    """Signs for the receiver, in the scheme of a route's `sign:`."""

    name: str  #: of the scheme, for people
    replaces: frozenset[bytes]  #: lower-case names of the sender's fields that are removed first

    def lines(self, request: UpstreamRequest) -> bytes:
        """The header lines, with a signature by each key."""
        ...


class StandardSigner:
    """An `UpstreamSigner` that signs as Standard Webhooks."""

    __slots__ = ("_keys", "name", "replaces")

    def __init__(self, keys: Sequence[bytes]) -> None:
        self.name = "standard-webhooks"
        self.replaces = frozenset({b"webhook-id", b"webhook-timestamp", b"webhook-signature"})
        self._keys = [Hmac(Algorithm.SHA256, key) for key in keys]

    def lines(self, request: UpstreamRequest) -> bytes:
        """The three header lines."""
        message_id, timestamp = request.message_id, int(request.now)
        message = (b"%b.%d." % (message_id, timestamp), *request.body)
        return b"webhook-id: %b\r\nwebhook-timestamp: %d\r\nwebhook-signature: %b\r\n" % (
            message_id,
            timestamp,
            b" ".join([b"v1," + b64encode(key.digest(message)) for key in self._keys]),
        )


def message_id(
    verifier: Verifier | None,
    claim: Claim | None,
    head: RequestHead,
    body: Sequence[bytes],
    *,
    scope: str,
    fresh: bytes,
    url: bytes,
    message: int = 0,
) -> bytes:
    """An id that stays the same when a provider resends a delivery: its own id if signed, otherwise a hash of the message.

    An id whose end in the message is uncertain does not count.

    `url` and `message`, the number of the message, are those that were verified.

    If nothing is signed, a resent delivery looks like a new one with the same content, so each gets the id `fresh`.
    """
    if verifier is None or claim is None or verifier.scheme.signature.kind.bearer:
        return b"msg_" + fresh
    if verifier.scheme.id_bound is not None:
        sent = verifier.delivery_id(head)
        if _PLAIN_ID.fullmatch(sent):
            return sent
    return b"msg_" + verifier.fingerprint(claim, head, body, scope=scope, url=url, message=message).hex().encode()
