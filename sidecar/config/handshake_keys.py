"""The keys of a handshake."""

from typing import Any

from sidecar.config.fields.address import URL_PATTERN
from sidecar.config.fields.base import InvalidValueError
from sidecar.config.fields.mapping import Items, Key, Section
from sidecar.config.fields.number import SuccessStatus
from sidecar.config.fields.text import (
    Choice,
    Flag,
    HeaderName,
    HeaderValues,
    JsonPath,
    Method,
    NonEmpty,
    RegularExpression,
    Scalars,
)
from sidecar.verify.handshake import (
    Computed,
    Condition,
    Confirmation,
    Hash,
    KeyPart,
    Place,
    ResponseEncoding,
    Shape,
    Source,
)

#: One value of a request.
_PLACE_KEYS = {
    "query": Key(NonEmpty(), "the query parameter", ["challenge"]),
    "header": Key(HeaderName(), "the header", ["X-Hook-Secret"]),
    "json": Key(JsonPath(), "the place in the body's JSON", ["challenge"]),
}


def _make_place(given: dict[str, Any]) -> Place:
    return next(Place(source, given[source]) for source in Source if source in given)


PLACE = Section(None, _PLACE_KEYS, one_of=tuple(_PLACE_KEYS), example="{query: challenge}", make=_make_place)

CHALLENGE: Section[dict[str, Any]] = Section(
    None,
    _PLACE_KEYS
    | {
        "pattern": Key(
            RegularExpression(),
            "a regular expression for the whole challenge; default: 1 to 512 letters, digits and ._~+/=-",
            ["[A-Za-z0-9]{1,64}"],
        )
    },
    one_of=tuple(_PLACE_KEYS),
    example="{query: challenge}",
)

HANDSHAKE_REQUEST: Section[dict[str, Any]] = Section(
    None,
    {
        "method": Key(Method(), "the method; default: any method", ["GET"]),
        "query": Key(Scalars(), "query parameters and the value that each must have", [{"mode": "subscribe"}]),
        "header": Key(HeaderValues(), "headers and the value that each must have", [{"X-Event": "ping"}]),
        "json": Key(
            Scalars(),
            "fields in the body's JSON and the value that each must have",
            [{"type": "url_verification"}],
        ),
        "without": Key(
            Items(NonEmpty()),
            "fields that the body's JSON must not have, to distinguish handshakes from events",
            [["event"]],
        ),
        "absent": Key(
            Items(HeaderName()), "headers that must be absent, such as the signature", [["X-Acme-Signature"]]
        ),
        "body": Key(
            RegularExpression(),
            "a regular expression for the whole body of an unsigned handshake without a challenge, of up to 256 bytes",
            ["webhook_id=[0-9]+"],
        ),
    },
)

COMPUTED = Section(
    Computed,
    {
        "hash": Key(Choice(Hash), "the hash; an HMAC is keyed with the route's first secret"),
        "of": Key(NonEmpty(), "the text to hash, with {challenge}, {token} (verify_token) and {url}"),
        "encoding": Key(Choice(ResponseEncoding), "how the hash is encoded"),
        "key": Key(Choice(KeyPart), "the part of the secret that is the key"),
    },
)


def _check_answer(answer: dict[str, Any]) -> None:
    if "text" in answer and "json" in answer:
        raise InvalidValueError(
            "can't be used with `text`, because a response has one body; remove one of the two", "json"
        )


HANDSHAKE_ANSWER: Section[dict[str, Any]] = Section(
    None,
    {
        "status": Key(SuccessStatus(), "the status of the response", default=Shape(method="").status),
        "text": Key(NonEmpty(), "the response as text/plain, such as '{challenge}'", ["{challenge}"]),
        "json": Key(
            Scalars(),
            "the response as application/json, such as {challenge: '{challenge}'}",
            [{"challenge": "{challenge}"}],
        ),
        "headers": Key(
            HeaderValues(),
            "headers of the response, such as {X-Hook-Secret: '{challenge}'}",
            [{"X-Hook-Secret": "{challenge}"}],
        ),
    },
    check=_check_answer,
)


#: Keys that are fields of `Shape` as they are.
_SAME = ("compare", "computed", "signed", "published_secret", "here", "confirm")


def _make_shape(given: dict[str, Any]) -> Shape:
    request, challenge = given.get("request", {}), given.get("challenge", {})
    _check_handshake(given, request, challenge)
    conditions = [
        Condition(Place(source, name), value) for source in Source for name, value in request.get(source, {}).items()
    ]
    same: dict[str, Any] = {key: given[key] for key in _SAME if key in given}
    if "pattern" in challenge:
        same["pattern"] = challenge["pattern"]
    return Shape(
        method=request.get("method", ""),
        conditions=tuple(conditions),
        without=request.get("without", ()),
        absent=request.get("absent", ()),
        body=request.get("body", ""),
        challenge=_make_place(challenge) if challenge else None,
        **same,
        **given["answer"],
    )


def _check_handshake(given: dict[str, Any], request: dict[str, Any], challenge: dict[str, Any]) -> None:
    compare: Place | None = given.get("compare")
    for key, reads_body in (
        ("request", "json" in request or "without" in request),
        ("challenge", "json" in challenge),
        ("compare", compare is not None and compare.source is Source.JSON),
    ):
        if reads_body and not given.get("signed") and (key == "compare" or not request.get("absent")):
            raise InvalidValueError(
                "needs the body, which is read only if the request is verified; add `signed: true`, or add the header of the "
                "signature to `absent` of `request`",
                key,
            )
    if "confirm" in given and not given.get("signed"):
        raise InvalidValueError(
            "calls an address from the body, so the body must be verified; add `signed: true`", "confirm"
        )
    if "published_secret" in given and not given.get("signed"):
        raise InvalidValueError("needs a signature to verify; add `signed: true`", "published_secret")
    if "published_secret" in given and "json" not in request:
        raise InvalidValueError(
            "would answer any delivery that anybody signed with the published secret; add `json`", "request"
        )
    if "body" in request and (given.get("signed") or challenge):
        raise InvalidValueError("can't be used with `signed` or `challenge`; remove it", "request", "body")
    if (
        not given.get("signed")
        and not challenge
        and not {"body", "json"} & request.keys()
        and request.get("method") not in ("GET", "HEAD")
    ):
        raise InvalidValueError("would also match deliveries; add a challenge, or `method: GET` or HEAD", "request")
    if "computed" in given and "pattern" not in challenge:
        raise InvalidValueError(
            "would let the sender choose what is signed; add a `pattern` that no delivery's signed message can match",
            "challenge",
        )


def _make_confirmation(given: dict[str, Any]) -> Confirmation:
    if not URL_PATTERN.fullmatch(given["url"]):
        raise InvalidValueError(
            "must begin with https:// and a host that is written out, as in https://api\\.acme\\.example/", "url"
        )
    return Confirmation(**given)


#: The address that confirms a subscription.
CONFIRM: Section[Confirmation] = Section(
    None,
    {
        "json": Key(JsonPath(), "the place of the URL in the body's JSON", ["SubscribeURL"], required=True),
        "url": Key(
            RegularExpression(),
            "a regular expression for the whole URL",
            ["https://api\\.acme\\.example/\\?confirm=[a-z]+"],
            required=True,
        ),
        "enabled": Key(
            Flag(),
            "true: the sidecar calls the URL; false: the receiver gets the verified handshake and calls it",
            default=False,
        ),
    },
    make=_make_confirmation,
)

#: A request that a provider sends once, and the response.
HANDSHAKE = Section(
    Shape,
    {
        "request": Key(HANDSHAKE_REQUEST, "how a handshake is recognized, in addition to its challenge"),
        "challenge": Key(CHALLENGE, "the value to send back"),
        "compare": Key(PLACE, "the value that must equal the route's verify_token"),
        "computed": Key(COMPUTED, "a value computed with a secret, used in answer as {computed}"),
        "signed": Key(Flag(), "true: the handshake is verified first, like a delivery"),
        "published_secret": Key(
            NonEmpty(),
            "a secret that the provider publishes and uses for this handshake instead of the route's: the sidecar "
            "responds and never forwards it",
            ["test_Am3L1GuOIc"],
        ),
        "confirm": Key(CONFIRM, "the URL in the verified body that confirms a subscription when it is called"),
        "here": Key(Flag(), "true: the sidecar always responds, regardless of the route's handshake"),
        "answer": Key(HANDSHAKE_ANSWER, "the response", required=True),
    },
    make=_make_shape,
)
