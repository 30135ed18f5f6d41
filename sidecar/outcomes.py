"""Every way a delivery can end: the closed list of reasons, and the two exceptions that end it.

    Rejected(reason, detail)   raised before the first byte of a response: we respond, by the table below
    Aborted(reason, detail)    raised after it: the response can't be corrected any more, so the connection closes

Any other exception that leaves a stage is a bug: 500, `internal_error`, nothing forwarded.
`detail` is for the operator's log. It never holds a secret, a MAC or body bytes; the sender never sees it.
"""

from enum import StrEnum
from typing import Final, NamedTuple


class HashableStrEnum(StrEnum):
    """One of a closed list, hashed as a string: Enum's own hash is a Python function, called several times a delivery."""

    __hash__ = str.__hash__


class Outcome(HashableStrEnum):
    """How a delivery ended; label `outcome` of `webhook_sidecar_deliveries_total`."""

    ACCEPTED = "accepted"  # the upstream responded, whatever the status
    DUPLICATE = "duplicate"  # a copy of a delivery that the upstream accepted; the sender gets 200
    REJECTED = "rejected"  # rejected here, the upstream saw nothing
    FAILED = "failed"  # verified, but the upstream did not respond
    ALLOWED = "allowed"  # on the authorize listener alone, beside `rejected`: the gateway may forward it


class Reason(HashableStrEnum):
    """Label value, log field and `explain` output. Adding one changes the public contract."""

    NO_ROUTE = "no_route"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    MALFORMED_REQUEST = "malformed_request"
    IP_NOT_ALLOWED = "ip_not_allowed"
    CLIENT_IP_UNREADABLE = "client_ip_unreadable"
    SIGNATURE_MISSING = "signature_missing"
    SIGNATURE_MALFORMED = "signature_malformed"
    SIGNATURE_MISMATCH = "signature_mismatch"
    TIMESTAMP_MISSING = "timestamp_missing"
    TIMESTAMP_MALFORMED = "timestamp_malformed"
    TIMESTAMP_TOO_OLD = "timestamp_too_old"
    TIMESTAMP_IN_FUTURE = "timestamp_in_future"
    TOKEN_MISMATCH = "token_mismatch"
    CLAIM_MISMATCH = "claim_mismatch"
    KEY_UNKNOWN = "key_unknown"
    REPLAYED = "replayed"
    BODY_TOO_LARGE = "body_too_large"
    BODY_TIMEOUT = "body_timeout"
    BODY_INCOMPLETE = "body_incomplete"
    HEADERS_TOO_LARGE = "headers_too_large"
    HEADER_TIMEOUT = "header_timeout"
    OVERLOADED = "overloaded"
    DRAINING = "draining"
    RATE_LIMITED = "rate_limited"
    REPLAY_STORE_UNAVAILABLE = "replay_store_unavailable"
    KEY_UNAVAILABLE = "key_unavailable"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_BROKE = "upstream_broke"
    CLIENT_DISCONNECTED = "client_disconnected"
    INTERNAL_ERROR = "internal_error"
    CLIENT_CERTIFICATE_MISMATCH = "client_certificate_mismatch"
    BODY_NOT_FORWARDED = "body_not_forwarded"  # of the authorize listener alone


class Response(NamedTuple):
    """A response of ours; `detail` is the only field of its JSON body."""

    status: int
    detail: str
    retry_after: int | None = None


class RejectionResponse(NamedTuple):
    """The one response to every rejection by verification or allowlist."""

    status: int
    body: bytes  #: JSON, or empty


DEFAULT_REJECTION: Final = RejectionResponse(403, b'{"detail":"Validation Failure"}')

#: Rejections by verification or allowlist. They all look the same to the sender: the route's `reject:`.
VERIFICATION: Final = frozenset(
    {
        Reason.IP_NOT_ALLOWED,
        Reason.CLIENT_IP_UNREADABLE,
        Reason.SIGNATURE_MISSING,
        Reason.SIGNATURE_MALFORMED,
        Reason.SIGNATURE_MISMATCH,
        Reason.TIMESTAMP_MISSING,
        Reason.TIMESTAMP_MALFORMED,
        Reason.TIMESTAMP_TOO_OLD,
        Reason.TIMESTAMP_IN_FUTURE,
        Reason.TOKEN_MISMATCH,
        Reason.CLIENT_CERTIFICATE_MISMATCH,
        Reason.BODY_NOT_FORWARDED,
        Reason.CLAIM_MISMATCH,
        Reason.KEY_UNKNOWN,
    }
)

#: Reasons that a route in shadow mode only counts, and forwards the delivery.
SHADOWED: Final = VERIFICATION | {Reason.REPLAYED, Reason.REPLAY_STORE_UNAVAILABLE, Reason.KEY_UNAVAILABLE}

#: The responses to all others.
RESPONSES: Final = {
    Reason.NO_ROUTE: Response(404, "Not Found"),
    Reason.METHOD_NOT_ALLOWED: Response(405, "Method Not Allowed"),
    Reason.MALFORMED_REQUEST: Response(400, "Bad Request"),
    Reason.REPLAYED: Response(200, "Already delivered"),
    Reason.BODY_TOO_LARGE: Response(413, "Content Too Large"),
    Reason.BODY_TIMEOUT: Response(408, "Request Timeout"),
    Reason.BODY_INCOMPLETE: Response(400, "Bad Request"),
    Reason.HEADERS_TOO_LARGE: Response(431, "Request Header Fields Too Large"),
    Reason.HEADER_TIMEOUT: Response(408, "Request Timeout"),
    Reason.OVERLOADED: Response(503, "Service Unavailable", retry_after=1),
    Reason.DRAINING: Response(503, "Service Unavailable", retry_after=1),
    Reason.RATE_LIMITED: Response(429, "Too Many Requests", retry_after=60),
    Reason.REPLAY_STORE_UNAVAILABLE: Response(503, "Service Unavailable", retry_after=5),
    Reason.KEY_UNAVAILABLE: Response(503, "Service Unavailable", retry_after=5),
    Reason.UPSTREAM_UNREACHABLE: Response(502, "Bad Gateway"),
    Reason.UPSTREAM_TIMEOUT: Response(504, "Gateway Timeout"),
    Reason.UPSTREAM_BROKE: Response(502, "Bad Gateway"),
    Reason.CLIENT_DISCONNECTED: Response(400, "Bad Request"),  # the sender is gone
    Reason.INTERNAL_ERROR: Response(500, "Internal Server Error"),
}

#: The one exception: a head that is too large because of its target (RFC 9110, 15.5.15).
TARGET_TOO_LONG: Final = Response(414, "URI Too Long")

_FAILED: Final = frozenset(
    {
        Reason.UPSTREAM_UNREACHABLE,
        Reason.UPSTREAM_TIMEOUT,
        Reason.UPSTREAM_BROKE,
        Reason.CLIENT_DISCONNECTED,
        Reason.INTERNAL_ERROR,
    }
)


def outcome_of(reason: Reason) -> Outcome:
    """The outcome of a reason, unless its `DeliveryEnd` sets another one."""
    if reason is Reason.REPLAYED:
        return Outcome.DUPLICATE
    return Outcome.FAILED if reason in _FAILED else Outcome.REJECTED


#: Every pair of outcome and reason that a delivery can end with. Questions on the authorize listener have `QUESTION_ENDS`.
ENDS: Final[tuple[tuple[Outcome, Reason | None], ...]] = (
    (Outcome.ACCEPTED, None),
    *((outcome_of(reason), reason) for reason in Reason if reason is not Reason.BODY_NOT_FORWARDED),
    (Outcome.REJECTED, Reason.REPLAYED),  # the first copy is still at the upstream: 409
    (Outcome.FAILED, Reason.DRAINING),  # cut off in flight at the end of `drain`
)


_OF_THE_UPSTREAM: Final = frozenset({Reason.UPSTREAM_UNREACHABLE, Reason.UPSTREAM_TIMEOUT, Reason.UPSTREAM_BROKE})

#: The reasons with which a gateway's question can be rejected, and None for one that is allowed.
QUESTION_ENDS: Final[tuple[Reason | None, ...]] = (
    None,
    *(reason for reason in Reason if reason not in _OF_THE_UPSTREAM),
)


class DeliveryEnd(Exception):
    """Ends a delivery, for a reason from the closed list."""

    def __init__(
        self, reason: Reason, detail: str = "", *, response: Response | None = None, outcome: Outcome | None = None
    ) -> None:
        """`response` and `outcome` replace those of the reason; the pair of outcome and reason must be in `ENDS`."""
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.response = response
        self.outcome = outcome or outcome_of(reason)


class Rejected(DeliveryEnd):
    """Raised before the first byte of a response was sent."""


class Aborted(DeliveryEnd):
    """Raised after a response was started; the connection to the sender is closed."""


class HandshakeResult(StrEnum):
    """Label `result` of `webhook_sidecar_handshakes_total`."""

    ANSWERED = "answered"
    PASSED = "passed"
    REJECTED = "rejected"


class Hint(StrEnum):
    """Label value, log field and `explain` output. Adding one changes the public contract."""

    WRONG_ALGORITHM = "wrong_algorithm"
    WRONG_ENCODING = "wrong_encoding"
    PREFIX_MISSING = "prefix_missing"
    SECRET_HAS_WHITESPACE = "secret_has_whitespace"
    SECRET_HAS_EXTRA_TEXT = "secret_has_extra_text"
    SECRET_BASE64_OF_LINE = "secret_base64_of_line"
    SECRET_DECODED_DIFFERENTLY = "secret_decoded_differently"
    SECRET_OF_ANOTHER_ROUTE = "secret_of_another_route"
    BODY_NEWLINE_CHANGED = "body_newline_changed"
    BODY_LINE_ENDINGS_CHANGED = "body_line_endings_changed"
    BODY_BOM_CHANGED = "body_bom_changed"
    BODY_JSON_RESERIALISED = "body_json_reserialised"
    BODY_DECOMPRESSED = "body_decompressed"
    BODY_EMPTY = "body_empty"
    TIMESTAMP_UNIT = "timestamp_unit"
    URL_MISMATCH = "url_mismatch"
    WRONG_AUDIENCE = "wrong_audience"
    WRONG_ISSUER = "wrong_issuer"
    WRONG_SETTING = "wrong_setting"
    COMPONENT_MISSING = "component_missing"
    DIGEST_MISMATCH = "digest_mismatch"
    OTHER_PROVIDER = "other_provider"  # of `explain` alone
    UNKNOWN = "unknown"
