"""The parts of a request that a signature may cover, and those that a scheme requires: rules as data, from `signature:`.

HTTP Message Signatures (RFC 9421) and their draft (draft-cavage-http-signatures) let each delivery say which of its parts are
signed. So the scheme names those that must be signed. Nothing here imports a library: every scheme has a place for these.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

#: Derived components of a request (RFC 9421, 2.2).
DERIVED: Final = (
    "@method",
    "@target-uri",
    "@authority",
    "@scheme",
    "@request-target",
    "@path",
    "@query",
    "@query-param",
)
#: Those that need the public URL: a request alone doesn't say whether it was sent over https.
OF_URL: Final = frozenset({"@target-uri", "@scheme"})
#: In the draft: method and target.
REQUEST_TARGET: Final = "(request-target)"
CONTENT_DIGEST: Final = "content-digest"
#: For each algorithm's name (RFC 9421, 6.2.2), the JWS algorithm that is the same computation. RSA-PSS has a salt of 64 bytes.
HTTP_ALGORITHMS: Final = {
    "ed25519": "EdDSA",
    "ecdsa-p256-sha256": "ES256",
    "ecdsa-p384-sha384": "ES384",
    "rsa-pss-sha512": "PS512",
    "rsa-v1_5-sha256": "RS256",
    "hmac-sha256": "HS256",
}
#: The same for the draft: only what is unambiguous in it. `hs2019` names nothing.
DRAFT_ALGORITHMS: Final = {"ed25519": "EdDSA", "rsa-sha256": "RS256", "rsa-sha512": "RS512", "hmac-sha256": "HS256"}

_FIELD: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_TEXT: Final = r'"[ !#-\[\]-~]*"'
_PARAMETER: Final = re.compile(rf";([a-z*][a-z0-9_.*-]*)(?:=({_TEXT}))?")
#: A component as the configuration writes it, in the syntax that Python and JSON Schema share.
COMPONENT: Final = (
    r"@(method|target-uri|authority|scheme|request-target|path|query\??)"
    rf"|@query-param;name={_TEXT}\??|\(request-target\)|{_FIELD.pattern}(;key={_TEXT})?(;(sf|bs))?\??"
)


class ComponentError(ValueError):
    """Text that names no component; the message says why."""


@dataclass(frozen=True, slots=True)
class Component:
    """One part of a request: a field, or something derived from the request."""

    name: str  #: `content-digest`, `@method`; in lower case
    parameters: frozenset[tuple[str, str | bool]] = frozenset()  #: in any order; a flag is True
    if_present: bool = False  #: required only of a request that has it

    def __str__(self) -> str:
        shown = sorted(self.parameters)
        return self.name + "".join(f";{name}" if value is True else f';{name}="{value}"' for name, value in shown)

    @property
    def identity(self) -> "Identity":
        """Equal for components that are the same (RFC 9421, 2)."""
        return self.name, self.parameters


Identity = tuple[str, frozenset[tuple[str, str | bool]]]


def parse_component(text: str) -> Component:
    """`@method`, `content-digest;key="sha-256"`, `@query?` (required if the request has it). Raises `ComponentError`."""
    if_present = text.endswith("?")
    name, semicolon, rest = text.removesuffix("?").partition(";")
    rest = semicolon + rest
    parameters: dict[str, str | bool] = {}
    at = 0
    while at < len(rest):
        match = _PARAMETER.match(rest, at)
        if match is None:
            raise ComponentError('has parameters that are not written ;name or ;name="value"')
        if match[1] in parameters:
            raise ComponentError(f"has the parameter {match[1]} twice")
        parameters[match[1]] = True if match[2] is None else match[2][1:-1]
        at = match.end()
    check_component(name, parameters)
    if if_present and name[0] in "@(" and name not in ("@query", "@query-param"):
        raise ComponentError("is part of every request; remove the ?")
    if not re.fullmatch(COMPONENT, text):
        raise ComponentError("has parameters in another order than key, and then sf or bs")
    return Component(name, frozenset(parameters.items()), if_present)


def check_component(name: str, parameters: Mapping[str, object]) -> None:
    """Whether a request can have this component. Raises `ComponentError`."""
    allowed: tuple[str, ...] = ()
    if name == REQUEST_TARGET:
        pass
    elif name.startswith("@"):
        if name not in DERIVED:
            raise ComponentError(f"is not a component of a request; use a field's name or one of {', '.join(DERIVED)}")
        allowed = ("name",) if name == "@query-param" else ()
        if name == "@query-param" and not isinstance(parameters.get("name"), str):
            raise ComponentError('needs the parameter\'s name: @query-param;name="id"')
    elif _FIELD.fullmatch(name):
        allowed = ("key", "sf", "bs")
    else:
        raise ComponentError("is not the name of a field in lower case")
    for parameter, value in parameters.items():
        if parameter not in allowed:
            raise ComponentError(f"can't have the parameter {parameter}; remove it")
        if value is not True if parameter in ("sf", "bs") else type(value) is not str:
            raise ComponentError(f"has a parameter {parameter} of the wrong form")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureRules:
    """The requirements of a scheme for a signature that lists what it covers."""

    required: tuple[Component, ...] = ()
    algorithms: tuple[str, ...] = ()  #: the closed list; a delivery never chooses outside it
    label: str = ""  #: of the signature that counts
    tag: str = ""  #: the parameter of the signature that counts
    expiry: bool = False  #: whether `expires` must be present
    skew: float = 60.0  #: seconds that a sender's clock may differ, for `created` and `expires`

    @property
    def is_shared(self) -> bool:
        """Whether the key is a shared secret."""
        return bool(self.algorithms) and self.algorithms[0].startswith("hmac")

    @property
    def needs_url(self) -> bool:
        return any(each.name in OF_URL for each in self.required)

    @property
    def covers_digest(self) -> bool:
        """Whether the hash of the body must be covered."""
        return any(each.name == CONTENT_DIGEST and not each.if_present for each in self.required)

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields that every signature must cover."""
        return tuple(each.name for each in self.required if each.name[0] not in "@(" and not each.if_present)


class Coverage(NamedTuple):
    """A signature's description of itself, for people."""

    label: str
    covers: list[str]
    parameters: dict[str, str | int]


class ListedSignature(NamedTuple):
    """The signature of a delivery and what it is over, read and checked, but not yet verified. All of it is from the head."""

    signature: bytes
    base: bytes  #: the signed text
    key_id: bytes  #: empty if it names no key
    algorithm: bytes  #: of the scheme's list; empty if it names none
    expires: bytes  #: unix seconds in digits; empty if it says nothing
    digest: (
        bytes  #: hashes of the body that are covered: `*` for all of Content-Digest, `sha-256` or several; empty: none
    )
