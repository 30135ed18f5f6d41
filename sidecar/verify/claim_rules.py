"""The rules for a token, and the places of its keys: data, made from `claims:` and `keys:` of a scheme.

Nothing here imports a library: every route's scheme has a place for these, and most have none.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from sidecar.secret import SecretRef


class ComputedPlace(StrEnum):
    """A value that is computed from the delivery; it is the whole text of a rule's value."""

    BODY_SHA256_HEX = "body_sha256_hex"
    BODY_SHA256_B64 = "body_sha256_b64"
    BODY_SHA256_B64URL = "body_sha256_b64url"  # without padding
    BODY_SHA256_B64URL_PADDED = "body_sha256_b64url_padded"
    URL = "url"
    URL_SHA256_HEX = "url_sha256_hex"
    ATLASSIAN_QSH = "atlassian_qsh"  # Atlassian's hash of method, path and sorted query


BODY_PLACES = frozenset(
    {
        ComputedPlace.BODY_SHA256_HEX,
        ComputedPlace.BODY_SHA256_B64,
        ComputedPlace.BODY_SHA256_B64URL,
        ComputedPlace.BODY_SHA256_B64URL_PADDED,
    }
)
#: Places that need the public URL.
URL_PLACES = frozenset({ComputedPlace.URL, ComputedPlace.URL_SHA256_HEX, ComputedPlace.ATLASSIAN_QSH})


class JsonPlace(NamedTuple):
    """A value of the body's JSON document."""

    path: str


class ClaimPlace(NamedTuple):
    """The value of another claim."""

    path: str


#: One value that a claim may have: of the same JSON type, and equal.
Literal = str | int | float | bool
RuleValue = Literal | ComputedPlace | JsonPlace | ClaimPlace


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRule:
    """The rule for one claim. `aud` may also be a list that holds one of the values (RFC 7519, 4.1.3)."""

    path: str  #: `iss`, or `data.bundleId` for a member of a member
    any_of: tuple[RuleValue, ...] = ()
    there: bool | None = None  #: True: present, whatever it is; False: absent
    pattern: str = ""  #: a regular expression for the whole text
    holds: tuple[RuleValue, ...] = ()  #: it is a list that holds one of these
    with_body: bool = False  #: required if there is a body, and checked wherever it is present


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatePlace:
    """A certificate that a delivery names by its URL, or brings along."""

    header: str = ""  #: the header that names it
    json: str = ""  #: or the place in the body's JSON
    url: str = ""  #: a regular expression for the whole URL; its host is literal
    names: tuple[str, ...] = ()  #: common names of the leaf; `*` matches one label
    roots: str = ""  #: PEM of the roots that the chain must end in; empty: the TLS connection vouches for the leaf
    intermediates: str = ""  #: PEM of intermediate certificates, in case the sender doesn't serve them
    length: int = 0  #: certificates of an `x5c` chain
    extensions: tuple[str, ...] = ()  #: object identifiers, the leaf's first, then its issuer's


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthPlace:
    """Where the access token for a key comes from: client credentials (RFC 6749, 4.4)."""

    token_url: str
    client_id: str
    client_secret: SecretRef
    scope: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPlace:
    """Where the keys of a scheme are published: exactly one of the first six."""

    jwks: str = ""
    x509: str = ""  #: JSON of key ids and PEM certificates
    discovery: str = ""
    each: str = ""  #: a URL with {id}, or one that gets a POST
    certificate: CertificatePlace | None = None
    x5c: CertificatePlace | None = None
    configured: bool = False  #: the route's secrets are public keys, whose ids are the key ids

    hosts: tuple[str, ...] = ()  #: of discovery: further hosts of `jwks_uri`
    id: str = ""  #: of each: a regular expression for the whole id
    form: str = "jwk"  #: of each: jwk or pem
    at: str = ""  #: of each: the place of the key in the JSON document
    post: tuple[tuple[str, str], ...] = ()  #: of each: members of the JSON that asks for the key; {id}, {secret}
    oauth: OAuthPlace | None = None  #: of each: where the access token comes from that a request for a key needs
    dead: str = ""  #: of each: a member of the key that is null while the key is alive
    without_id: bool = False  #: every key may match
    fits: tuple[tuple[str, RuleValue], ...] = ()  #: members of the key that must agree with the delivery
    keep: float | None = None  #: seconds for which the last good document counts; None: a day, a week for certificates


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimSet:
    """Rules that apply together, to tokens for which `when` holds."""

    when: tuple[ClaimRule, ...] = ()
    rules: tuple[ClaimRule, ...] = ()
    keys: KeyPlace | None = None  #: instead of the scheme's


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """Everything that a scheme says about its token, except where it is."""

    algorithms: tuple[str, ...] = ()  #: the closed list; a token never chooses outside it
    claims: tuple[ClaimSet, ...] = ()  #: the first one whose `when` holds is the one that counts
    expiry: bool = False  #: whether `exp` must be present
    skew: float = 60.0  #: seconds, for exp, nbf and iat
    covers_json: str = ""  #: every value here must be the claim `covers_claim` of one of the tokens
    covers_claim: str = ""
    head: tuple[tuple[str, Literal], ...] = ()  #: members of the head that must have this value
    head_lists: tuple[tuple[str, tuple[str, ...]], ...] = ()  #: members of the head that must list these names

    @property
    def values(self) -> list[RuleValue]:
        """Every value of every rule, those of `fits` included."""
        found: list[RuleValue] = []
        for each in self.claims:
            for rule in each.rules:
                found += [*rule.any_of, *rule.holds]
            if each.keys is not None:
                found += [value for _, value in each.keys.fits]
        return found

    @property
    def binds_body(self) -> bool:
        """Whether each choice of rules holds a claim with a hash of the body."""
        return bool(self.claims) and all(
            any(not BODY_PLACES.isdisjoint(rule.any_of) for rule in each.rules) for each in self.claims
        )

    @property
    def needs_url(self) -> bool:
        return not URL_PLACES.isdisjoint(self.values)

    @property
    def reads_document(self) -> bool:
        """Whether it needs the body's JSON."""
        return bool(self.covers_json) or any(isinstance(value, JsonPlace) for value in self.values)
