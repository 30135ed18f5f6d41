"""Addresses: listeners, receivers, web pages, networks."""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

from marshmallow import ValidationError

from sidecar.config.fields.text import JSONSchema, Value, shown
from sidecar.config.ranges import range_names
from sidecar.http1.sockets import ListenAddress
from sidecar.http1.upstream import UpstreamAddress
from sidecar.routing.networks import IPNetwork

HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|(?=.*:.*:)[0-9A-Fa-f:.]+")


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
            or not HOST.fullmatch(host)
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
        if url.scheme not in ("http", "https") or not HOST.fullmatch(host) or port == 0:
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
            valid = url.scheme in ("http", "https") and bool(HOST.fullmatch(url.hostname or "")) and url.port != 0
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
        first = network.network_address
        if isinstance(first, ipaddress.IPv6Address) and first.ipv4_mapped is not None and network.prefixlen >= 96:
            meant = f"{first.ipv4_mapped}/{network.prefixlen - 96}"
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
