"""The receiver: `upstream:` as a URL, or as a mapping that also says how it is connected to."""

from dataclasses import dataclass

from sidecar.config.fields.address import HOST, PORT, UpstreamURL
from sidecar.config.fields.base import Grammar, InvalidValueError
from sidecar.config.fields.mapping import Key, Section, ShortOrSection
from sidecar.config.fields.number import Count
from sidecar.config.fields.text import NonEmpty, PatternText
from sidecar.http1.upstream import UpstreamAddress

#: More connections than one process can have open.
MAX_CONNECTIONS = 65535


class HostField(PatternText):
    """The value of a Host field."""

    title = "host"
    grammar = Grammar(f"{HOST}(:{PORT})?")
    expected = "a valid host; use a name or address, with a port if it needs one: receiver.internal:8443"


class ServerName(PatternText):
    """A name or address that a certificate can be for."""

    title = "host name"
    grammar = Grammar(r"[A-Za-z0-9]([A-Za-z0-9._:-]{0,251}[A-Za-z0-9])?")
    expected = "a valid server name; use the name in the receiver's certificate, without a port"


@dataclass(frozen=True, slots=True)
class UpstreamTlsSettings:
    """`tls:` of a receiver: names of files in PEM, empty for none."""

    ca: str = ""
    client_cert: str = ""
    client_key: str = ""
    server_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamFileSettings:
    """A receiver as written."""

    url: UpstreamAddress
    host: str = ""
    tls: UpstreamTlsSettings | None = None
    connections: int | None = None


def _check_tls(tls: UpstreamTlsSettings) -> None:
    if tls.client_key and not tls.client_cert:
        raise InvalidValueError("has no `client_cert` for this key; add the file with the certificate", "client_key")


TLS = Section(
    UpstreamTlsSettings,
    {
        "ca": Key(
            NonEmpty(),
            "the file with the certificate authorities (PEM) that may sign the receiver's certificate; default: the "
            "system's",
            ["/etc/ssl/receiver/ca.crt"],
        ),
        "client_cert": Key(
            NonEmpty(),
            "the file with the client certificate and its intermediate certificates (PEM)",
            ["/etc/ssl/receiver/tls.crt"],
        ),
        "client_key": Key(
            NonEmpty(),
            "the file with the private key of the client certificate (PEM, without a passphrase); default: the key "
            "is in client_cert",
            ["/etc/ssl/receiver/tls.key"],
        ),
        "server_name": Key(
            ServerName(),
            "the name to request (SNI), which the certificate must have; default: the host of url",
            ["receiver.internal"],
        ),
    },
    check=_check_tls,
)


def _check_upstream(upstream: UpstreamFileSettings) -> None:
    if upstream.tls is not None and upstream.url.scheme != "https":
        raise InvalidValueError("is for an https receiver; change `url` to https://, or remove it", "tls")


UPSTREAM = Section(
    UpstreamFileSettings,
    {
        "url": Key(UpstreamURL(), "the receiver: http, https or unix:/path", ["https://receiver:8443"]),
        "host": Key(
            HostField(),
            "the Host header for the receiver; default: the sender's",
            ["receiver.internal"],
        ),
        "tls": Key(
            TLS,
            "how an https receiver is verified, and the client certificate for it; the files are reloaded when they "
            "change",
        ),
        "connections": Key(
            Count(MAX_CONNECTIONS),
            "how many deliveries each process may forward to this receiver at a time; others wait for up to "
            "timeouts.connect; default: no limit",
            [20],
        ),
    },
    check=_check_upstream,
)


#: A URL, or a mapping with one.
UPSTREAM_OR_URL = ShortOrSection("URL or keys", UpstreamURL(), UPSTREAM, lambda url: UpstreamFileSettings(url=url))
