"""`headers:` of a route: names and values of header fields for the receiver."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from sidecar.config.fields.base import Grammar, InvalidValueError, JSONSchema, NamedValues, quote
from sidecar.config.fields.mapping import Items, Key, Section
from sidecar.config.fields.reference import INLINE_SECRET, SecretReference
from sidecar.config.fields.text import HeaderName, HeaderValues, PatternText
from sidecar.routing.receiver_headers import FIXED_FIELDS, OUR_PREFIXES
from sidecar.secret import SecretRef
from sidecar.verify.template import HEADER_NAME

#: Fields whose value is a credential, in lower case.
_CREDENTIALS = frozenset({"authorization", "cookie", "x-api-key"})


class HeaderSetting(NamedTuple):
    """A header's value as written: text, or a secret after a text."""

    text: str
    secret: SecretRef | None = None


class HeaderSettings(NamedValues[HeaderSetting]):
    """Header names, with a text or a reference to a secret for each."""

    title = "header names and values"
    expected = "header names to values; for example {Authorization: {env: RECEIVER_TOKEN}, X-Env: prod}"
    prefix_grammar: ClassVar[Grammar] = Grammar("[!-~][ -~]*")

    def read_one(self, name: str, value: Any) -> HeaderSetting:
        HeaderName().read(name)
        if isinstance(value, Mapping):
            prefix = value.get("prefix", "")
            if "prefix" in value and self.prefix_grammar.match(prefix) is None:
                raise InvalidValueError(f"{quote(prefix)} is not valid; use visible ASCII characters", "prefix")
            reference = SecretReference().read({key: item for key, item in value.items() if key != "prefix"})
            return HeaderSetting(prefix, reference)
        return HeaderSetting(HeaderValues().read_one(name, value))

    def json_schema(self) -> JSONSchema:
        secret = SecretReference().json_schema()
        about = {"title": "text", "description": "text before the secret", "examples": ["Bearer "]}
        secret["properties"] = secret["properties"] | {"prefix": self.prefix_grammar.json_schema() | about}
        return super().json_schema() | {
            "propertyNames": HeaderName.grammar.json_schema(),
            "additionalProperties": {"anyOf": [HeaderValues.value_grammar.json_schema(), secret]},
        }


class HeaderPattern(PatternText):
    """A header name; a final `*` matches any other characters."""

    title = "header name"
    grammar = Grammar(HEADER_NAME.pattern, excluded=r"^[*]|[*].")
    expected = "a valid header name; use one such as X-Internal, or X-Internal-* for all that begin like it"


@dataclass(frozen=True, slots=True)
class HeadersSettings:
    """`headers:` of a route."""

    set: Mapping[str, HeaderSetting] = field(default_factory=dict)
    remove: tuple[str, ...] = ()


def fixed_field(name: str) -> str:
    """Why `headers:` can't set or remove a field; empty if it can. `name` may end in `*`."""
    lower = name.lower().encode()
    if lower == b"host":
        return "is set by `upstream: {host: ...}`; use that"
    if lower in FIXED_FIELDS:
        return "belongs to the connection or frames the message, and the sidecar writes it; remove it"
    if lower.startswith(OUR_PREFIXES):
        return "is the sidecar's own, and a sender's is always removed; remove it"
    return ""


def _check(settings: HeadersSettings) -> None:
    mistakes: list[tuple[tuple[str | int, ...], str]] = []
    for name, value in settings.set.items():
        if problem := fixed_field(name):
            mistakes.append((("set", name), problem))
        elif value.secret is None and name.lower() in _CREDENTIALS:
            mistakes.append((("set", name), INLINE_SECRET))
    for index, name in enumerate(settings.remove):
        if problem := fixed_field(name):
            mistakes.append((("remove", index), problem))
    folded = [name.lower() for name in settings.set]
    mistakes += [
        (("set", name), "is set twice, in different letter case; remove one of the two")
        for name in settings.set
        if folded.count(name.lower()) > 1
    ]
    if mistakes:
        raise InvalidValueError(mistakes)


HEADERS = Section(
    HeadersSettings,
    {
        "set": Key(
            HeaderSettings(),
            "headers to set for the receiver, each with a text or a secret; the sender's headers of the same names "
            "are removed; prefix: a text before the secret",
            [{"Authorization": {"env": "RECEIVER_TOKEN", "prefix": "Bearer "}, "X-Env": "prod"}],
        ),
        "remove": Key(
            Items(HeaderPattern()),
            "headers of the sender to remove; a final * matches any characters",
            [["X-Github-Encoded-Secret", "X-Internal-*"]],
        ),
    },
    check=_check,
)
