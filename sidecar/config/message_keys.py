"""The keys of a scheme for the signed message, and for the required content of the body."""

from sidecar.config.fields.mapping import Key, Section
from sidecar.config.fields.message import (
    FieldName,
    JsonPlace,
    PlainPlaces,
    RequiredValues,
    SignedMessages,
    SignedText,
    TextOr,
)
from sidecar.config.fields.text import Choice, Flag, HeaderName, JsonPath, NonEmpty, Text
from sidecar.verify.algorithms import Algorithm
from sidecar.verify.encoding import Encoding
from sidecar.verify.scheme import BodyHash, HashForm, Scheme, SignatureField

#: Where a delivery carries a hash of its body. A text alone is the query parameter.
BODY_HASH = TextOr(
    NonEmpty(),
    lambda name: BodyHash(query=name),
    Section(
        BodyHash,
        {
            "query": Key(NonEmpty(), "the query parameter", ["bodySHA256"]),
            "header": Key(HeaderName(), "the header, which must be part of `signed`", ["Content-Digest"]),
            "form": Key(
                Choice(HashForm),
                "plain: one hash; content-digest: as in RFC 9530; digest: as in RFC 3230 (sha-256, sha-512)",
            ),
            "algorithm": Key(Choice(Algorithm), "the hash function of a plain hash"),
            "encoding": Key(Choice(Encoding), "how a plain hash is encoded"),
            "prefix": Key(Text(), "the text before a plain hash; default: none", ["sha256="]),
        },
        one_of=("query", "header"),
        example="{header: Content-Digest, form: content-digest}",
    ),
    "bodySHA256",
)

MESSAGE_KEYS: dict[str, Key] = {
    "signed": Key(
        SignedMessages(),
        "the signed message: text, placeholders such as {body}, {timestamp} and {header:NAME}, and [[...]] for a "
        "part that is omitted if a place in it is absent; or a list, any of which may be signed",
        default=(SignedText(Scheme(signature=SignatureField()).signed),),
    ),
    "plain": Key(
        PlainPlaces(),
        "the characters that a place may contain, as [class]+ or [class]{1,9}; for places whose value could "
        "otherwise contain the text next to them",
        [{"query:id": "[0-9A-Za-z]+"}],
    ),
    "items": Key(
        JsonPath(),
        "a list in the body's JSON; the scheme applies to each item, and every item must match",
        ["events[]"],
    ),
    "decompressed": Key(
        Flag(), "true: the signature covers the body before compression (Content-Encoding gzip or deflate)"
    ),
    "binds_body": Key(
        Flag(),
        "false: the provider signs no part of the body; true: the signed form fields are the complete event",
        default=True,
    ),
    "require_form": Key(
        RequiredValues(FieldName()),
        "form fields that must have this value; true: any value",
        [{"app_id": "2021"}],
    ),
    "require_json": Key(
        RequiredValues(JsonPlace()),
        "values that the body's JSON must contain; true: any value",
        [{"account.id": "acme"}],
    ),
    "body_hash": Key(
        BODY_HASH, "the query parameter that must be the body's SHA-256 in hex, or the place of another hash"
    ),
    "form_field": Key(NonEmpty(), "the form field that contains the JSON, if the body is a form", ["json"]),
    "any_port": Key(Flag(), "true: the URL may be signed with or without its port"),
    "url_unescaped": Key(
        NonEmpty(), "characters that may be unescaped in the signed URL though escaped in the request", [":,@"]
    ),
}
