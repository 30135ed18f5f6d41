"""The kinds of value a configuration holds: each knows how to read itself, what to say when it can't, and its JSON Schema."""

import ipaddress
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

from marshmallow import Schema, ValidationError, fields, missing

from sidecar.http1.sockets import ListenAddress
from sidecar.http1.upstream import UpstreamAddress
from sidecar.ip_ranges import range_names
from sidecar.replay.store import StoreAddress
from sidecar.routing.networks import IPNetwork
from sidecar.routing.refusal_limit import Rate
from sidecar.verify.scheme import JSON_PATH

JSONSchema = dict[str, Any]

_MESSAGES: dict[str, str | list[Any] | dict[Any, Any]] = {
    "required": "is required",
    "null": "has no value; give it one or remove the key",
    "invalid": "is not valid",
    "type": "must be a mapping (key: value)",
}
_SIZE_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_DURATION_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)[ \t]*([A-Za-z]*)")
_RATE = re.compile(r"([1-9][0-9]{0,8})/([smh])")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|(?=.*:.*:)[0-9A-Fa-f:.]+")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Value(fields.Field[Any]):
    """A leaf: `read` returns the value or raises `ValidationError` with a sentence that names the remedy."""

    default_error_messages = _MESSAGES
    schema: ClassVar[JSONSchema] = {}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return self.read(value)

    def read(self, value: Any) -> Any:
        raise NotImplementedError

    def write(self, value: Any) -> Any:
        """What stands in a file for a value that was read; for defaults."""
        return value

    def json_schema(self) -> JSONSchema:
        return dict(self.schema)


def shown(value: Any) -> str:
    """A configured value as it may stand in an error: short, quoted."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= 60 else text[:57] + "...")


class Text(Value):
    schema: ClassVar[JSONSchema] = {"title": "text", "type": "string"}

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError(f'must be text; write it in quotes: "{value}"')
        return value


class NonEmpty(Text):
    schema: ClassVar[JSONSchema] = {"title": "text", "type": "string", "minLength": 1}

    def read(self, value: Any) -> str:
        text = super().read(value)
        if not text.strip():
            raise ValidationError("is empty; give it a value or remove the key")
        return text


class Label(Text):
    """A name that becomes a metric label and a header value."""

    schema: ClassVar[JSONSchema] = {"title": "name", "type": "string", "pattern": f"^{_LABEL.pattern}$"}

    def read(self, value: Any) -> str:
        text = super().read(value)
        if not _LABEL.fullmatch(text):
            raise ValidationError(f"{shown(text)} is not a name; use up to 63 letters, digits, '.', '_' and '-'")
        return text


class HeaderName(Text):
    schema: ClassVar[JSONSchema] = {
        "title": "header name",
        "type": "string",
        "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
    }

    def read(self, value: Any) -> str:
        text = super().read(value)
        if not _TOKEN.fullmatch(text):
            raise ValidationError(f"{shown(text)} is not a header name; for example X-Signature")
        return text


class SignatureHeader(HeaderName):
    """A header's name; a final `{n}` stands for 1, 2, 3 ..."""

    schema: ClassVar[JSONSchema] = {
        "title": "header name",
        "type": "string",
        "pattern": r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+(\{n\})?$",
    }

    def read(self, value: Any) -> str:
        text = Text.read(self, value)
        return super().read(text.removesuffix("{n}")) + "{n}" * text.endswith("{n}")


class HeaderValues(Value):
    """Header names and the value that each must have."""

    schema: ClassVar[JSONSchema] = {
        "title": "header names and values",
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"type": "string"},
    }

    def read(self, value: Any) -> dict[str, str]:
        if not isinstance(value, Mapping) or not value:
            raise ValidationError("must be a mapping of header names to values; for example {X-Version: '1'}")
        problems: dict[str, list[str]] = {}
        for name, text in value.items():
            try:
                HeaderName().read(name)
                if not NonEmpty().read(text).isascii() or not text.isprintable():
                    raise ValidationError(f"{shown(text)} is no header's value; use visible ASCII characters")
            except ValidationError as error:
                problems[name] = list(error.messages)
        if problems:
            raise ValidationError(problems)
        return dict(value)


class Scalars(Value):
    """Names, and a text or whole number for each."""

    schema: ClassVar[JSONSchema] = {
        "title": "names and values",
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"type": ["string", "integer"]},
    }

    def read(self, value: Any) -> dict[str, str | int]:
        if not isinstance(value, Mapping) or not value:
            raise ValidationError("must be a mapping of names to values; for example {type: url_verification}")
        problems = {
            name: ["must be text or a whole number"]
            for name, item in value.items()
            if not isinstance(item, str | int) or isinstance(item, bool)
        }
        if problems:
            raise ValidationError(problems)
        return dict(value)


class Pattern(NonEmpty):
    """A regular expression."""

    schema: ClassVar[JSONSchema] = NonEmpty.schema | {"title": "regular expression", "format": "regex"}

    def read(self, value: Any) -> str:
        text = super().read(value)
        try:
            re.compile(text)
        except re.error as error:
            raise ValidationError(f"{shown(text)} is not a regular expression: {error}") from None
        return text


class AnswerStatus(Value):
    schema: ClassVar[JSONSchema] = {"title": "status", "type": "integer", "minimum": 200, "maximum": 299}

    def read(self, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 200 <= value <= 299:
            raise ValidationError(f"{shown(value)} is no status of success; use 200 to 299")
        return value


class JsonPath(Text):
    """Where in a JSON document: `a.b`, with `a[]` for each element of a list."""

    schema: ClassVar[JSONSchema] = {"title": "place in JSON", "type": "string", "pattern": f"^{JSON_PATH.pattern}$"}

    def read(self, value: Any) -> str:
        text = super().read(value)
        if not JSON_PATH.fullmatch(text):
            raise ValidationError(f"{shown(text)} is not a place in a JSON document; for example signature.timestamp")
        return text


class Flag(Value):
    schema: ClassVar[JSONSchema] = {"title": "true or false", "type": "boolean"}

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError(f"{shown(value)} is neither true nor false")
        return value


class OnlyTrue(Flag):
    """A key that is there or not."""

    schema: ClassVar[JSONSchema] = {"title": "true", "const": True}

    def read(self, value: Any) -> bool:
        if value is not True:
            raise ValidationError(f"{shown(value)} is not true; remove the key instead")
        return True


class Separator(Text):
    """One to four characters that end an item of a list."""

    schema: ClassVar[JSONSchema] = {"title": "text", "type": "string", "minLength": 1, "maxLength": 4}

    def read(self, value: Any) -> str:
        text = super().read(value)
        if not 1 <= len(text) <= 4 or not text.isascii():
            raise ValidationError(f"{shown(text)} is not one to four separators; for example ','")
        return text


class Count(Value):
    schema: ClassVar[JSONSchema] = {"title": "number", "type": "integer", "minimum": 1}

    def read(self, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValidationError(f"{shown(value)} is not a whole number of at least 1")
        return value


class Choice(Value):
    """One word of an enumeration."""

    def __init__(self, kind: type[StrEnum], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = kind

    def read(self, value: Any) -> StrEnum:
        try:
            return self.kind(value)
        except ValueError:
            raise ValidationError(f"{shown(value)} is not one of {', '.join(self.kind)}") from None

    def json_schema(self) -> JSONSchema:
        return {"title": "one of", "type": "string", "enum": [str(word) for word in self.kind]}

    def write(self, value: Any) -> str:
        return str(value)


class Size(Value):
    """Bytes: `64KiB`, `5MiB`, `1GB` or a plain number."""

    schema: ClassVar[JSONSchema] = {
        "title": "size",
        "type": ["string", "integer"],
        "pattern": "^[0-9]+(\\.[0-9]+)?\\s*(B|[KMG]i?B)?$",
        "minimum": 1,
    }

    def read(self, value: Any) -> int:
        number, unit = _quantity(value)
        if number is None or unit not in _SIZE_UNITS or number * _SIZE_UNITS[unit] < 1:
            raise ValidationError(f"{shown(value)} is not a size; write bytes or a unit: 64KiB, 5MiB, 1GB")
        return int(number * _SIZE_UNITS[unit])

    def write(self, value: Any) -> str:
        return _in_units(value, _SIZE_UNITS)


class Duration(Value):
    """Seconds: `500ms`, `30s`, `5m`, `1h` or a plain number. Never 0: a limit that is off would be one that is absent."""

    schema: ClassVar[JSONSchema] = {
        "title": "duration",
        "type": ["string", "number"],
        "pattern": "^[0-9]+(\\.[0-9]+)?\\s*(ms|s|m|h)?$",
        "exclusiveMinimum": 0,
    }

    def read(self, value: Any) -> float:
        number, unit = _quantity(value)
        if number is None or unit not in _DURATION_UNITS or number <= 0:
            raise ValidationError(f"{shown(value)} is not a duration; write seconds or a unit: 500ms, 30s, 5m, 1h")
        return number * _DURATION_UNITS[unit]

    def write(self, value: Any) -> str:
        return _in_units(value, _DURATION_UNITS)


class RateOf(Value):
    """So many in a time: `10/s`, `60/m`, `500/h`."""

    schema: ClassVar[JSONSchema] = {"title": "rate", "type": "string", "pattern": "^[1-9][0-9]{0,8}/[smh]$"}

    def read(self, value: Any) -> Rate:
        match = _RATE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValidationError(
                f"{shown(value)} is not a rate; write a number and a second, a minute or an hour: 10/s, 60/m, 500/h"
            )
        return Rate(int(match[1]), _DURATION_UNITS[match[2]], value)


class Share(Value):
    """A part of all: above 0, and at most 1."""

    schema: ClassVar[JSONSchema] = {"title": "share", "type": "number", "exclusiveMinimum": 0, "maximum": 1}

    def read(self, value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
            raise ValidationError(f"{shown(value)} is not a share; write a number above 0 and up to 1, for example 0.1")
        return float(value)


class Tolerance(Value):
    """A duration, or `none` for a clock that is signed but not compared."""

    def read(self, value: Any) -> float | None:
        if value == "none":
            return None
        try:
            return Duration().read(value)
        except ValidationError as error:
            raise ValidationError(f"{error.messages[0]}; or none") from None

    def json_schema(self) -> JSONSchema:
        return {"title": "duration or none", "anyOf": [{"const": "none"}, Duration.schema]}

    def write(self, value: Any) -> str:
        return Duration().write(value)


def _quantity(value: Any) -> tuple[float | None, str]:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None, ""
    match = _QUANTITY.fullmatch(str(value))
    return (float(match[1]), match[2]) if match else (None, "")


def _in_units(value: float, units: Mapping[str, float]) -> str:
    """In the largest unit of which it is a whole number."""
    unit = max((unit for unit, size in units.items() if unit and value % size == 0), key=lambda unit: units[unit])
    return f"{value / units[unit]:g}{unit}"


class Listen(Value):
    schema: ClassVar[JSONSchema] = {
        "title": "address",
        "type": "string",
        "examples": ["0.0.0.0:8080", "[::]:8080", "unix:/run/sidecar.sock"],
    }

    def read(self, value: Any) -> ListenAddress:
        text = str(value)
        if text.startswith("unix:"):
            if not text.startswith("unix:/"):
                raise ValidationError(f"{shown(text)} needs an absolute path; for example unix:/run/sidecar.sock")
            return ListenAddress("", 0, text[5:])
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
        if (
            not colon
            or not port.isdecimal()
            or not port.isascii()
            or len(port) > 5
            or int(port) > 65535
            or not _HOST.fullmatch(host)
        ):
            raise ValidationError(
                f"{shown(text)} is no address to listen on; for example 0.0.0.0:8080 or unix:/run/sidecar.sock"
            )
        return ListenAddress(host, int(port))

    def write(self, value: Any) -> str:
        return str(value)


class UpstreamURL(Value):
    schema: ClassVar[JSONSchema] = {"title": "URL", "type": "string", "pattern": "^(https?://[^/]+/?|unix:/.+)$"}

    def read(self, value: Any) -> UpstreamAddress:
        text = str(value)
        if text.startswith("unix:/"):
            return UpstreamAddress("unix", "localhost", 0, text[5:])
        try:
            url = urlsplit(text)
            host, port = url.hostname or "", url.port
        except ValueError:
            raise ValidationError(f"{shown(text)} is not a URL; for example http://127.0.0.1:3000") from None
        if url.username is not None:
            raise ValidationError(
                "has credentials; the receiver's own authentication passes through in the delivery's headers"
            )
        if url.scheme not in ("http", "https") or not _HOST.fullmatch(host) or port == 0:
            raise ValidationError(
                f"{shown(text)} is not a receiver's address; for example http://127.0.0.1:3000 or unix:/run/app.sock"
            )
        if url.path not in ("", "/") or url.query or url.fragment:
            raise ValidationError(
                f"{shown(text)} has a path; deliveries keep the path they came with, so write {url.scheme}://{url.netloc}"
            )
        return UpstreamAddress(url.scheme, host, port or (443 if url.scheme == "https" else 80), "")


class WebURL(Value):
    schema: ClassVar[JSONSchema] = {"title": "URL", "type": "string", "pattern": "^https?://"}

    def read(self, value: Any) -> str:
        text = str(value)
        try:
            url = urlsplit(text)
            valid = url.scheme in ("http", "https") and bool(_HOST.fullmatch(url.hostname or "")) and url.port != 0
        except ValueError:
            valid = False
        if not valid or not text.isascii() or not text.isprintable() or " " in text:
            raise ValidationError(f"{shown(text)} is not a URL; for example https://hooks.example.com/path")
        return text


class Cidr(Value):
    schema: ClassVar[JSONSchema] = {
        "title": "network",
        "type": "string",
        "examples": ["203.0.113.0/24", "2001:db8::/32", "198.51.100.7"],
    }

    def read(self, value: Any) -> IPNetwork:
        text = str(value)
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            network = None
        if network is None or "%" in text:
            raise ValidationError(f"{shown(text)} is not a network; for example 203.0.113.0/24 or 2001:db8::/32")
        if network.version == 6 and network.network_address.ipv4_mapped is not None and network.prefixlen >= 96:
            meant = f"{network.network_address.ipv4_mapped}/{network.prefixlen - 96}"
            raise ValidationError(f"{shown(text)} is an IPv4 network in IPv6's clothes; use '{meant}'")
        try:
            return ipaddress.ip_network(text)
        except ValueError:
            raise ValidationError(f"{shown(text)} has host bits set; use '{network}'") from None


class Sender(Cidr):
    """A network, or `preset:NAME`: what a provider publishes, read to the whole text."""

    schema: ClassVar[JSONSchema] = Cidr.schema | {
        "title": "network or preset:NAME",
        "examples": [*Cidr.schema["examples"], "preset:github"],
    }

    def read(self, value: Any) -> Any:
        text = str(value)
        if not text.startswith("preset:"):
            return super().read(value)
        if text.removeprefix("preset:") not in range_names():
            raise ValidationError(
                f"{shown(text)} is not a list of networks in this version; there are "
                f"{', '.join(f'preset:{name}' for name in range_names())}; for others list the networks"
            )
        return text


class RangeSources(Value):
    """Where to fetch the list of each preset from, in place of the provider's own address."""

    schema: ClassVar[JSONSchema] = {
        "title": "names and URLs",
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"type": "string", "pattern": "^https://"},
    }

    def read(self, value: Any) -> dict[str, str]:
        if not isinstance(value, Mapping) or not value:
            raise ValidationError("must be a mapping; for example {github: https://mirror.example/meta}")
        problems: dict[str, list[str]] = {}
        for name, url in value.items():
            try:
                if name not in range_names():
                    raise ValidationError(f"is no list of networks; there are {', '.join(range_names())}")
                if not WebURL().read(url).startswith("https://"):
                    raise ValidationError("must be https: who can change the list on its way opens the allowlist")
            except ValidationError as error:
                problems[name] = list(error.messages)
        if problems:
            raise ValidationError(problems)
        return dict(value)


class Refresh(Duration):
    """How often others' servers are asked."""

    def read(self, value: Any) -> float:
        seconds = super().read(value)
        if seconds < 60:
            raise ValidationError(
                f"{shown(value)} is too often; lists change in weeks, so use 1m at least, for example 24h"
            )
        return seconds


class TrustedProxy(Cidr):
    """A network, or `unix:` for a proxy on our unix socket."""

    def read(self, value: Any) -> Any:
        if value == "unix:":
            return value
        network = super().read(value)
        if network.prefixlen == 0:
            raise ValidationError(
                f"{shown(value)} would believe anybody's X-Forwarded-For; name the proxies' own networks"
            )
        return network


class RoutePath(Value):
    schema: ClassVar[JSONSchema] = {"title": "path", "type": "string", "pattern": r"^/[!\"$-)+->@-~]*\*?$"}

    def read(self, value: Any) -> str:
        text = str(value)
        if not re.fullmatch(r"/[!\"$-)+->@-~]*(?<=/)\*|/[!\"$-)+->@-~]*", text):
            raise ValidationError(
                f"{shown(text)} is not a path: begin with '/', escape as a URL does, no query; a final '/*' takes all below"
            )
        if re.search(r"(^|/)\.{1,2}(/|$)|//", text):
            raise ValidationError(f"{shown(text)} has empty or dot segments; write the path as senders call it")
        return text


class Method(Value):
    schema: ClassVar[JSONSchema] = {"title": "method", "type": "string", "pattern": "^[A-Z-]+$"}

    def read(self, value: Any) -> str:
        if not re.fullmatch(r"[A-Z][A-Z-]{0,31}", str(value)) or value == "CONNECT":
            raise ValidationError(f"{shown(value)} is not a method; for example POST (upper case)")
        return str(value)


class Status(Value):
    schema: ClassVar[JSONSchema] = {"title": "status", "type": "integer", "minimum": 400, "maximum": 499}

    def read(self, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 400 <= value <= 499 or value == 410:
            # 2xx would lose the delivery, 3xx send it elsewhere, 5xx be retried for ever; at 410 providers disable the endpoint.
            raise ValidationError(
                f"{shown(value)} is no status for a refusal; use 400 to 499, not 410, for example 403"
            )
        return value


class Day(Value):
    """A day, such as 2026-12-31; becomes the unix time at which it is over, in UTC."""

    schema: ClassVar[JSONSchema] = {"title": "day", "type": "string", "format": "date"}

    def read(self, value: Any) -> float:
        text = Text().read(value)
        try:
            day = date.fromisoformat(text)
            if text != day.isoformat():  # other forms of ISO 8601 are read too
                raise ValueError
            over = datetime.combine(day + timedelta(days=1), time.min, UTC)
        except (ValueError, OverflowError):
            raise ValidationError(f"{shown(text)} is no day; for example 2026-12-31") from None
        return over.timestamp()


class SecretRef(NamedTuple):
    """Where a secret stands; `id` is what logs and metrics call it."""

    id: str
    env: str
    file: str
    optional: bool
    retire_by: float | None = None

    @property
    def where(self) -> str:
        return f"env:{self.env}" if self.env else f"file:{self.file}"


class SecretReference(Value):
    """`{id, env}` or `{id, file, optional}`, with `retire_by` if it has one; never the secret itself."""

    schema: ClassVar[JSONSchema] = {
        "title": "secret",
        "type": "object",
        "properties": {
            "id": Label.schema
            | {
                "description": "what logs and metrics call it; default: made from the variable's or the file's name",
                "examples": ["current"],
            },
            "env": NonEmpty.schema
            | {"description": "the environment variable that holds it", "examples": ["ACME_SECRET"]},
            "file": NonEmpty.schema
            | {
                "description": "instead: the file that holds it; a final newline is no part of it",
                "examples": ["/run/secrets/acme"],
            },
            "optional": Flag.schema | {"description": "true: the variable or file may be absent", "default": False},
            "retire_by": Day.schema
            | {
                "description": "the last day of its use: an alert says if it is used after, nothing is refused",
                "examples": ["2026-12-31"],
            },
        },
        "examples": [{"env": "ACME_SECRET"}, {"file": "/run/secrets/acme"}],
        "oneOf": [{"required": ["env"]}, {"required": ["file"]}],
        "additionalProperties": False,
    }
    _INLINE = "holds the secret itself; keep it out of the file and write where it stands: {env: NAME} or {file: /path}"

    def read(self, value: Any) -> SecretRef:
        if not isinstance(value, Mapping):
            raise ValidationError(self._INLINE)
        problems: dict[str, list[str]] = {}
        kinds = {"id": Label(), "env": NonEmpty(), "file": NonEmpty(), "optional": Flag(), "retire_by": Day()}
        for key in value:
            if key in ("value", "secret", "key", "inline", "plain", "text", "literal"):
                problems[key] = [self._INLINE]
            elif key not in kinds:
                problems[key] = [f"unknown key; known keys are {', '.join(kinds)}"]
        result: dict[str, Any] = {"id": "", "env": "", "file": "", "optional": False}
        for key, kind in kinds.items():
            if key in value:
                try:
                    result[key] = kind.deserialize(value[key])
                except ValidationError as error:
                    problems[key] = list(error.messages)
        if problems:
            raise ValidationError(problems)
        if bool(result["env"]) == bool(result["file"]):
            raise ValidationError("needs exactly one of env and file; for example {env: BEGINI_API_KEY}")
        result["id"] = (
            result["id"] or re.sub(r"[^A-Za-z0-9._-]", "_", result["env"] or result["file"].rsplit("/", 1)[-1])[:63]
        )
        return SecretRef(**result)


class Section(fields.Nested):
    """A mapping with its own schema."""

    default_error_messages = _MESSAGES


class ReplayStoreRef(NamedTuple):
    """Where `replay:` remembers. Without an address in the process's own memory."""

    address: StoreAddress | None
    password: SecretRef | None


class ReplayStore(Value):
    """`memory`, `redis://host:6379/0`, or `{url, password}`; the password is never in the URL."""

    schema: ClassVar[JSONSchema] = {
        "title": "store",
        "anyOf": [
            {"const": "memory"},
            {"type": "string", "pattern": r"^(rediss?://[^@/]+(/[0-9]{0,4})?|unix:/.+)$"},
            {
                "type": "object",
                "properties": {
                    "url": {
                        "title": "URL",
                        "type": "string",
                        "pattern": r"^(rediss?://([^:@/]+@)?[^@/]+(/[0-9]{0,4})?|unix:/.+)$",
                        "description": "where it is; rediss:// for TLS",
                        "examples": ["rediss://redis.example:6379/0"],
                    },
                    "password": SecretReference.schema | {"description": "the password of the URL's user"},
                },
                "required": ["url"],
                "additionalProperties": False,
            },
        ],
    }
    _EXAMPLE = "for example redis://127.0.0.1:6379/0, rediss:// for TLS, or unix:/run/redis.sock"

    def write(self, value: Any) -> str:
        return str(value.address or "memory")

    def read(self, value: Any) -> ReplayStoreRef:
        if value == "memory":
            return ReplayStoreRef(None, None)
        if not isinstance(value, Mapping):
            address = self._address(value)
            if address.username:
                raise ValidationError(
                    "has a user and no password; write {url: redis://user@host:6379/0, password: {env: NAME}}"
                )
            return ReplayStoreRef(address, None)
        problems = {
            key: ["unknown key; known keys are url, password"] for key in value if key not in ("url", "password")
        }
        if "url" not in value:
            problems["url"] = [f"is required; {self._EXAMPLE}"]
        read: dict[str, Any] = {}
        for key, kind in (("url", self._address), ("password", SecretReference().read)):
            try:
                read[key] = kind(value[key]) if key in value else None
            except ValidationError as error:
                problems[key] = error.messages  # type: ignore[assignment]  # a tree, for a reference
        if problems:
            raise ValidationError(problems)
        return ReplayStoreRef(read["url"], read["password"])

    def _address(self, value: Any) -> StoreAddress:
        text = str(value)
        written = shown(text) if "@" not in text else "this URL"  # before an @ a password may stand
        if text.startswith("unix:/"):
            return StoreAddress(False, "", 0, text[5:], 0, "")
        try:
            url = urlsplit(text)
            host, port = url.hostname or "", url.port
        except ValueError:
            raise ValidationError(f"is not a URL; {self._EXAMPLE}") from None
        if url.password is not None:
            raise ValidationError(
                "holds the password itself; keep it out of the file and write {url: redis://host:6379/0, password: {env: NAME}}"
            )
        database = url.path.strip("/") or "0"
        if url.scheme not in ("redis", "rediss") or not _HOST.fullmatch(host) or port == 0 or url.query or url.fragment:
            raise ValidationError(f"{written} is no store; use memory, or {self._EXAMPLE}")
        if not database.isascii() or not database.isdigit() or len(database) > 4:
            raise ValidationError(f"{written} has no number of a database as its path; {self._EXAMPLE}")
        return StoreAddress(url.scheme == "rediss", host, port or 6379, "", int(database), url.username or "")


class Items(fields.List[Any]):
    """A list; empty is a mistake, because absent and empty must never mean the same."""

    default_error_messages = _MESSAGES | {"invalid": "must be a list: [a, b]"}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if value == []:
            raise ValidationError("is an empty list; remove the key, or list what it should hold")
        return super()._deserialize(value, attr, data, **kwargs)


class OneOrMore(Items):
    """A list, or its only item as it is."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if isinstance(value, list):
            return super()._deserialize(value, attr, data, **kwargs)
        return [self.inner.deserialize(value, attr, data, **kwargs)]


def json_schema_of(schema: Schema) -> JSONSchema:
    """JSON Schema (2020-12) of a marshmallow schema made of the fields above."""
    properties = {}
    for name, item in schema.fields.items():
        properties[item.data_key or name] = _field_schema(item)
    required = [item.data_key or name for name, item in schema.fields.items() if item.required]
    result: JSONSchema = {"type": "object", "properties": properties, "additionalProperties": False}
    if one_of := getattr(schema, "one_of", ()):
        result["oneOf"] = [{"required": [name]} for name in one_of]
    return result | ({"required": required} if required else {})


def _field_schema(item: fields.Field[Any]) -> JSONSchema:
    if isinstance(item, fields.Nested):
        made = json_schema_of(item.schema)
    elif isinstance(item, fields.List):
        one = _field_schema(item.inner)
        made = {"type": "array", "minItems": 1, "items": one}
        if isinstance(item, OneOrMore):
            made = {"anyOf": [one, made]}
    else:
        assert isinstance(item, Value)
        made = item.json_schema()
    if "about" in item.metadata:
        made["description"] = item.metadata["about"]
    if "examples" in item.metadata:
        made["examples"] = item.metadata["examples"]
    if isinstance(item, Value) and item.load_default is not missing:
        made["default"] = item.write(item.load_default)
    return made
