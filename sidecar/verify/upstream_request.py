"""The facts about a request that signing for the receiver needs."""

from collections.abc import Sequence
from typing import NamedTuple

from sidecar.http1.head import Header


class UpstreamRequest(NamedTuple):
    """A request as the receiver gets it."""

    method: str
    target: bytes
    host: bytes  #: the Host field
    message_id: bytes  #: by `standard_webhooks.message_id`
    signed_fields: Sequence[Header]  #: lower-case names and values of fields that the sender's signature covers
    now: float  #: unix time in seconds
    body: Sequence[bytes]  #: in pieces
