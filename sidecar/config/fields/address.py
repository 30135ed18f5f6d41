"""Addresses: listeners, receivers, web pages, networks."""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from sidecar.config.fields.base import Grammar, InvalidValueError, JSONSchema, NamedValues, ValueType, quote
from sidecar.config.fields.mapping import Key, Section
from sidecar.config.ranges import range_names
from sidecar.http1.sockets import MAX_SOCKET_PATH, ListenAddress
from sidecar.http1.upstream import UpstreamAddress
from sidecar.routing.networks import IPNetwork

#: A host name or IPv4 address, or an IPv6 address in brackets. Without capturing groups.
HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\])"
#: 1 to 65535.
PORT = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
#: Absolute, and at most as long as the system allows, which counts bytes: so ASCII only.
_SOCKET_PATH = f"/[ -~]{{1,{MAX_SOCKET_PATH - 1}}}"
#: A unix socket.
SOCKET = f"unix:({_SOCKET_PATH})"
#: The user and password of a URL, with the @ that ends them.
_USER = r"""[!"$-.0->A-~]*@"""

_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"{_BYTE}(?:\.{_BYTE}){{3}}(?:/(?:3[0-2]|[12]?[0-9]))?"
_GROUP = "[0-9A-Fa-f]{1,4}"
#: RFC 4291, 2.2: eight groups, or fewer with one `::`. The form with an IPv4 address at its end is left out.
_IPV6 = (
    f"(?:(?:{_GROUP}:){{7}}{_GROUP}|(?:{_GROUP}:){{1,7}}:|:(?::{_GROUP}){{1,7}}|::|"
    + "|".join(f"(?:{_GROUP}:){{1,{left}}}(?::{_GROUP}){{1,{7 - left}}}" for left in range(1, 7))
    + ")(?:/(?:12[0-8]|1[01][0-9]|[1-9]?[0-9]))?"
)


def without_brackets(host: str) -> str:
    return host.removeprefix("[").removesuffix("]")


def explain_socket(value: Any, example: str) -> str:
    """Why a path can't be a unix socket's; it may begin with `unix:`."""
    path = str(value).removeprefix("unix:")
    if path.startswith("/") and len(path.encode(errors="replace")) > MAX_SOCKET_PATH:
        return f"{quote(value)} has {len(path.encode(errors='replace'))} bytes; use a path of at most {MAX_SOCKET_PATH}"
    return f"{quote(value)} is not a valid socket; use an absolute path: {example}"


#: The host that every URL a pattern matches begins with.
URL_PATTERN = re.compile(
    r"https://(?:[a-z0-9-]|\\\.|\[[a-z0-9-]+\]|\((?:[a-z0-9|{},-]|\[[a-z0-9-]+\])*\)|\{[0-9,]+\})*"
    r"[a-z0-9-]+\\\.[a-z]+(\(\\\.[a-z]+\)\?)?/[^|]*"
)


class SocketPath(ValueType[str]):
    title = "path"
    grammar = Grammar(_SOCKET_PATH)

    def read(self, value: Any) -> str:
        if self.grammar.match(value) is None:
            raise InvalidValueError(explain_socket(value, "/run/sidecar.sock"))
        return str(value)

    def json_schema(self) -> JSONSchema:
        return {"title": self.title} | self.grammar.json_schema()


class FileMode(ValueType[int]):
    """Four octal digits, as text, because not every YAML reader reads `0660` without quotes as octal."""

    title = "mode"
    grammar = Grammar("0[0-7]{3}")

    def read(self, value: Any) -> int:
        if self.grammar.match(value) is None:
            raise InvalidValueError(f'{quote(value)} is not a valid mode; use four octal digits in quotes: "0660"')
        return int(value, 8)

    def json_schema(self) -> JSONSchema:
        return {"title": self.title} | self.grammar.json_schema()


class Group(ValueType[str]):
    title = "group"
    grammar = Grammar("[A-Za-z_][A-Za-z0-9_.-]{0,31}|[0-9]{1,9}")

    def read(self, value: Any) -> str:
        if self.grammar.match(value) is None:
            raise InvalidValueError(f"{quote(value)} is not a valid group; use its name, or its number in quotes")
        return str(value)

    def json_schema(self) -> JSONSchema:
        return {"title": self.title} | self.grammar.json_schema()


class Listen(ValueType[ListenAddress]):
    """`HOST:PORT`, `unix:/path`, or `{unix, mode, group}`."""

    title = "address"
    grammar = Grammar(f"({HOST}):(0|{PORT})|{SOCKET}")
    section = Section(
        None,
        {
            "unix": Key(SocketPath(), "the path of a unix socket", ["/run/sidecar.sock"], required=True),
            "mode": Key(
                FileMode(),
                "the file mode of the socket, which decides who may connect; default: as set by the umask",
                ["0660"],
            ),
            "group": Key(
                Group(), "the group of the socket, by name or number; default: the group of the process", ["www-data"]
            ),
        },
        make=lambda given: ListenAddress("", 0, given["unix"], given.get("mode"), given.get("group", "")),
    )

    def read(self, value: Any) -> ListenAddress:
        if isinstance(value, Mapping):
            return self.section.read(value)
        match = self.grammar.match(value)
        if match is None:
            if str(value).startswith("unix:"):
                raise InvalidValueError(explain_socket(value, "unix:/run/sidecar.sock"))
            raise InvalidValueError(
                f"{quote(value)} is not a valid address to listen on; "
                "use HOST:PORT, for example '[::]:8080', or unix:/run/sidecar.sock"
            )
        host, port, path = match.groups()
        return ListenAddress("", 0, path) if path else ListenAddress(without_brackets(host), int(port))

    def write(self, value: ListenAddress) -> str:
        return str(value)

    def json_schema(self) -> JSONSchema:
        examples = ["[::]:8080", "127.0.0.1:8080", "unix:/run/sidecar.sock"]
        return {
            "title": self.title,
            "anyOf": [self.grammar.json_schema(), self.section.json_schema()],
            "examples": [*examples, {"unix": "/run/sidecar.sock", "mode": "0660", "group": "www-data"}],
        }


class HostPattern(ValueType[str]):
    """A host name, or `*.` and a domain for every name below it, in lower case."""

    title = "host name"
    grammar = Grammar(r"([*]\.)?[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")

    def read(self, value: Any) -> str:
        if self.grammar.match(value) is None:
            raise InvalidValueError(
                f"{quote(value)} is not a valid host name; use one such as admin.example.com or '*.example.com', without a port"
            )
        return str(value).lower()

    def json_schema(self) -> JSONSchema:
        return {"title": self.title} | self.grammar.json_schema()


class UpstreamURL(ValueType[UpstreamAddress]):
    title = "URL"
    grammar = Grammar(f"(https?)://({HOST})(?::({PORT}))?/?|{SOCKET}")

    def read(self, value: Any) -> UpstreamAddress:
        match = self.grammar.match(value)
        if match is None:
            raise InvalidValueError(self._explain(str(value)))
        scheme, host, port, path = match.groups()
        if path:
            return UpstreamAddress("unix", "localhost", 0, path)
        return UpstreamAddress(scheme, without_brackets(host), int(port or (443 if scheme == "https" else 80)), "")

    @staticmethod
    def _explain(text: str) -> str:
        if text.startswith("unix:/"):
            return explain_socket(text, "unix:/run/app.sock")
        if re.match("https?://[^/?#]*@", text):
            return "has credentials; remove them: the receiver's own authentication passes through in the delivery's headers"
        if address := re.match(rf"https?://{HOST}(:{PORT})?(?=[/?#])", text):
            return f"{quote(text)} has a path; deliveries keep the path they came with, so use {address[0]}"
        return f"{quote(text)} is not a valid receiver address; use one such as http://127.0.0.1:3000 or unix:/run/app.sock"

    def json_schema(self) -> JSONSchema:
        return {"title": self.title} | self.grammar.json_schema()


class WebURL(ValueType[str]):
    """An absolute URL in ASCII."""

    title = "URL"
    schemes: ClassVar[str] = "https?"
    expected: ClassVar[str] = "a valid URL; use one such as https://hooks.example.com/path"

    @property
    def grammar(self) -> Grammar:
        return Grammar(f"{self.schemes}://({_USER})?{HOST}(:{PORT})?([/?#][!-~]*)?")

    def read(self, value: Any) -> str:
        if self.grammar.match(value) is None:
            raise InvalidValueError(f"{quote(value)} is not {self.expected}")
        return str(value)

    def json_schema(self) -> JSONSchema:
        return {"title": self.title} | self.grammar.json_schema()


class SecureURL(WebURL):
    """A URL whose response nobody can change in transit."""

    schemes = "https"
    expected = "a valid https URL; use https, because anyone who can change the list in transit opens the allowlist"


class Network(ValueType[IPNetwork]):
    title = "network"
    grammar: ClassVar[Grammar] = Grammar(f"{_IPV4}|{_IPV6}")
    examples: ClassVar[list[str]] = ["203.0.113.0/24", "2001:db8::/32", "198.51.100.7"]

    def remedy(self, text: str) -> str:
        """What to write instead of a text that is not a network."""
        if text.lower().startswith("::ffff:") and "." in text:
            return "write it as an IPv4 network, without ::ffff: and with 96 less in its prefix"
        return "use one such as 203.0.113.0/24 or 2001:db8::/32"

    def read(self, value: Any) -> Any:
        if self.grammar.match(value) is None:
            raise InvalidValueError(f"{quote(value)} is not a valid network; {self.remedy(str(value))}")
        network = ipaddress.ip_network(value, strict=False)
        first = network.network_address
        if isinstance(first, ipaddress.IPv6Address) and first.ipv4_mapped is not None and network.prefixlen >= 96:
            ipv4 = f"{first.ipv4_mapped}/{network.prefixlen - 96}"
            raise InvalidValueError(f"{quote(value)} is an IPv4-mapped IPv6 network; use '{ipv4}'")
        try:
            return ipaddress.ip_network(value)
        except ValueError:
            raise InvalidValueError(f"{quote(value)} has host bits set; use '{network}'") from None

    def json_schema(self) -> JSONSchema:
        return {"title": self.title} | self.grammar.json_schema() | {"examples": self.examples}


class AllowedSender(Network):
    """A network, or `preset:NAME` for the networks that a provider publishes, read as this text."""

    title = "network or preset:NAME"
    examples = [*Network.examples, "preset:github"]  # noqa: RUF012 - as in the class above

    def remedy(self, text: str) -> str:
        return f"use 'preset:{text}'" if text in range_names() else super().remedy(text)

    def read(self, value: Any) -> Any:
        text = str(value)
        if not text.startswith("preset:"):
            return super().read(value)
        if text.removeprefix("preset:") not in range_names():
            raise InvalidValueError(
                f"{quote(text)} is not a published list of networks; use one of "
                f"{', '.join(f'preset:{name}' for name in range_names())}, or list the networks"
            )
        return text

    def json_schema(self) -> JSONSchema:
        names = "|".join(range_names())
        grammar = self.grammar._replace(pattern=f"preset:({names})|{self.grammar.pattern}")
        return {"title": self.title} | grammar.json_schema() | {"examples": self.examples}


class TrustedProxy(Network):
    """A network, or `unix:` for a proxy that connects through our unix socket."""

    title = "network or unix:"
    grammar = Network.grammar._replace(excluded="/0$")

    def read(self, value: Any) -> Any:
        if value == "unix:":
            return value
        if self.grammar.match(value) is None and Network.grammar.match(value) is not None:
            raise InvalidValueError(
                f"{quote(value)} would trust X-Forwarded-For from anyone; use your proxies' own networks"
            )
        return super().read(value)

    def json_schema(self) -> JSONSchema:
        grammar = self.grammar._replace(pattern=f"unix:|{self.grammar.pattern}")
        return {"title": self.title} | grammar.json_schema() | {"examples": [*self.examples, "unix:"]}


class MirrorURL(WebURL):
    """Where a document of keys is fetched: over https or on this machine, so that nobody can change it in transit."""

    expected = (
        "a valid URL of a mirror; use https, or http on 127.0.0.1, because anyone who can change keys in transit can forge "
        "deliveries"
    )

    @property
    def grammar(self) -> Grammar:
        secure = f"https://{HOST}(:{PORT})?/[!-~]*"
        return Grammar(rf"{secure}|http://(localhost|127\.0\.0\.1|\[::1\])(:{PORT})?/[!-~]*", excluded="#")


class KeyMirrors(NamedValues[str]):
    """Where to fetch the keys that providers publish, instead of from the providers."""

    title = "URLs and URLs"
    expected = "URLs to URLs; for example {https://www.googleapis.com/oauth2/v3/certs: https://mirror.example/google}"
    _names = Grammar(f"https://{HOST}(:{PORT})?/[!-~]*", excluded="#")

    def read_one(self, name: str, value: Any) -> str:
        if self._names.match(name) is None:
            raise InvalidValueError("is not the https URL of a document of keys; see `sidecar presets NAME` for it")
        mirror = MirrorURL().read(value)
        if name.endswith("/") != mirror.endswith("/"):
            raise InvalidValueError(
                "covers everything below it, and the mirror is one document; end both with / or neither"
                if name.endswith("/")
                else "is one document, and the mirror ends with /; end both with / or neither"
            )
        return mirror

    def json_schema(self) -> JSONSchema:
        names, urls = self._names.json_schema(), MirrorURL().json_schema()
        ends = {"pattern": "/$"}
        patterns = {"/$": {"allOf": [urls, ends]}, "[^/]$": {"allOf": [urls, {"not": ends}]}}
        mapping = {"propertyNames": names, "additionalProperties": urls, "patternProperties": patterns}
        return super().json_schema() | mapping


class RangeSources(NamedValues[str]):
    """Where to fetch published lists of networks from, instead of from the providers."""

    title = "names and URLs"
    expected = "names to URLs; for example {github: https://mirror.example/meta}"

    def read_one(self, name: str, value: Any) -> str:
        if name not in range_names():
            raise InvalidValueError(f"is not a published list of networks; use one of {', '.join(range_names())}")
        return SecureURL().read(value)

    def json_schema(self) -> JSONSchema:
        names, urls = {"enum": list(range_names())}, SecureURL().json_schema()
        return super().json_schema() | {"propertyNames": names, "additionalProperties": urls}
