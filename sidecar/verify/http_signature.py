"""HTTP Message Signatures (RFC 9421) of requests: from two fields to a signature and the signed text. Nothing is verified here.

Structured fields are parsed by http-sf. Its parser is linear, but takes half a microsecond for each byte that ends something, so
its input is bounded in size and in separators first. Everything that two parsers could read differently is rejected: a
label, parameter or component twice, and whatever is not ASCII.
"""

from base64 import b64encode
from collections.abc import Callable, Sequence
from hmac import compare_digest
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

import http_sf

from sidecar.http1.head import RequestHead
from sidecar.outcomes import Reason, Rejected
from sidecar.verify.algorithms import DIGEST_SIZES, Algorithm, hash_pieces
from sidecar.verify.claim import MAX_FIELD
from sidecar.verify.components import (
    CONTENT_DIGEST,
    Component,
    ComponentError,
    Coverage,
    Identity,
    ListedSignature,
    SignatureRules,
    check_component,
)
from sidecar.verify.form import malformed
from sidecar.verify.message import PublicURL
from sidecar.verify.scheme import Scheme

#: Characters of a structured field at which its parser stops: commas, semicolons, spaces, escapes. A signature of twenty
#: components has fifty.
MAX_SEPARATORS: Final = 256
_SEPARATORS: Final = b",; \\%"
#: Most structured fields of which a signature covers single members.
MAX_PARSED: Final = 2
#: Components of one signature.
MAX_COMPONENTS: Final = 64
#: Most parameters of a query of which a signature covers a single one.
MAX_PARAMETERS: Final = 256
#: The digests that count (RFC 9530, 5); others are ignored if one of these is right.
DIGESTS: Final = {"sha-256": Algorithm.SHA256, "sha-512": Algorithm.SHA512}
#: The types of fields that may be covered as structured ones (`sf`).
_TYPES: Final = {
    "accept": "list",
    "cache-control": "dictionary",
    CONTENT_DIGEST: "dictionary",
    "content-length": "item",
    "content-type": "item",
    "idempotency-key": "item",
    "priority": "dictionary",
    "repr-digest": "dictionary",
    "signature": "dictionary",
    "signature-agent": "dictionary",
    "signature-input": "dictionary",
    "want-content-digest": "dictionary",
}
#: What URLs may hold of a query parameter (the application/x-www-form-urlencoded percent-encode set, RFC 9421, 2.2.8).
_UNESCAPED: Final = "*-._"


def _no_duplicate(key: str, context: str) -> None:
    raise ValueError(f"{key} appears twice")


def parse_field(text: bytes, name: str, kind: str = "dictionary") -> Any:
    """A structured field (RFC 9651), of the type `kind`: dictionary, list or item. Raises `Rejected`, which names `name`."""
    if len(text) > MAX_FIELD or len(text) - len(text.translate(None, _SEPARATORS)) > MAX_SEPARATORS:
        raise malformed(f"{name} is longer than {MAX_FIELD} bytes, or has more than {MAX_SEPARATORS} separators")
    try:
        return http_sf.parse(text, tltype=kind, on_duplicate_key=_no_duplicate)
    except (ValueError, ArithmeticError):
        raise malformed(f"{name} is not a {kind} of structured fields without duplicates (RFC 9651)") from None


def _join(values: Sequence[bytes]) -> bytes:
    """The value of a field that appears in several lines (RFC 9421, 2.1)."""
    return b", ".join([value.strip(b" \t") for value in values])


class HttpSignatureReader:
    """Finds the signature that counts in a head, and writes the signed text."""

    def __init__(self, scheme: Scheme, url: PublicURL | None) -> None:
        assert scheme.listed is not None
        self._rules: SignatureRules = scheme.listed
        self._url = url
        self._spelled = scheme.signature.header
        self._header = self._spelled.lower().encode()
        self._inputs = self._header + b"-input"

    def describe(self, head: RequestHead) -> Coverage:
        """The components and parameters of the signature that counts. Raises `Rejected`."""
        inputs = self._read(head, self._inputs, f"{self._spelled}-Input")
        label = self._choose(inputs)
        covered, parameters = inputs[label]
        listed = covered if isinstance(covered, list) else []
        covers = [http_sf.ser(each).replace('"', "", 2) for each in listed[:MAX_COMPONENTS]]
        known = ("created", "expires", "keyid", "alg", "nonce", "tag")
        shown = {name: parameters[name] for name in known if isinstance(parameters.get(name), str | int)}
        return Coverage(label, covers, shown)

    def read_head(self, head: RequestHead) -> tuple[ListedSignature, list[bytes]]:
        """The signature that counts, and the time at which it was made, in digits. Raises `Rejected`."""
        inputs = self._read(head, self._inputs, f"{self._spelled}-Input")
        signatures = self._read(head, self._header, self._spelled)
        label = self._choose(inputs)
        covered, parameters = inputs[label]
        if not isinstance(covered, list):
            raise malformed(f"{self._spelled}-Input has no list of components for {label}")
        signature = signatures.get(label, (None,))[0]
        if not isinstance(signature, bytes):
            raise Rejected(Reason.SIGNATURE_MISSING, f"{self._spelled} has no signature {label}")
        times = [_read_time(parameters, name) for name in ("created", "expires")]
        key_id, algorithm, *_ = [_read_text(parameters, name) for name in ("keyid", "alg", "nonce", "tag")]
        if algorithm and algorithm.decode() not in self._rules.algorithms:
            raise malformed(f"the signature's alg is not {' or '.join(self._rules.algorithms)}")
        identities = _check_covered(covered)
        check_required(self._rules, identities, head)
        base = _write_base(covered, parameters, Values(head, self._url))
        digest = _covered_digests(identities)
        return ListedSignature(signature, base, key_id, algorithm, times[1], digest), [
            each for each in times[:1] if each
        ]

    def _read(self, head: RequestHead, name: bytes, spelled: str) -> dict[str, Any]:
        values = head.values(name)
        if not any(values):
            raise Rejected(Reason.SIGNATURE_MISSING, f"no {spelled} header")
        found: dict[str, Any] = parse_field(_join(values), spelled)
        return found

    def _choose(self, inputs: dict[str, Any]) -> str:
        """The label of the signature that counts."""
        rules = self._rules
        labels = [rules.label] if rules.label else list(inputs)
        if rules.label and rules.label not in inputs:
            raise Rejected(Reason.SIGNATURE_MISSING, f"{self._spelled}-Input has no signature {rules.label}")
        if rules.tag:
            labels = [label for label in labels if inputs[label][1].get("tag") == rules.tag]
        if not labels:
            raise Rejected(Reason.SIGNATURE_MISSING, f"{self._spelled}-Input has no signature with the scheme's tag")
        if len(labels) > 1:
            which = "with the scheme's tag" if rules.tag else "and the scheme chooses none; it needs `label` or `tag`"
            raise malformed(f"{self._spelled}-Input has {len(labels)} signatures {which}")
        return labels[0]


def _read_time(parameters: dict[str, Any], name: str) -> bytes:
    value = parameters.get(name)
    if value is None:
        return b""
    if type(value) is not int or value < 0:
        raise Rejected(Reason.TIMESTAMP_MALFORMED, f"the signature's {name} is not an integer of unix time (s)")
    return b"%d" % value


def _read_text(parameters: dict[str, Any], name: str) -> bytes:
    value = parameters.get(name, "")
    if type(value) is not str:
        raise malformed(f"the signature's {name} is not text in quotes")
    return value.encode()


def _check_covered(covered: Sequence[tuple[Any, dict[str, Any]]]) -> set[Identity]:
    """The components that a signature lists: each once, and each one that a request can have. Raises `Rejected`."""
    if len(covered) > MAX_COMPONENTS:
        raise malformed(f"the signature covers more than {MAX_COMPONENTS} components")
    identities: set[Identity] = set()
    for name, parameters in covered:
        if type(name) is not str or not name:
            raise malformed("the signature covers something that is not the name of a component")
        try:
            check_component(name, parameters)
        except ComponentError as error:
            raise malformed(f"the signature covers a component that {error}") from None
        identities.add((name, frozenset(parameters.items())))
    if len(identities) < len(covered):
        raise malformed("the signature covers a component twice")
    return identities


def check_required(rules: SignatureRules, identities: set[Identity], head: RequestHead) -> None:
    """Raises `Rejected`, which names what is missing, unless a signature covers what the scheme requires."""
    for each in rules.required:
        if each.identity in identities or (each.if_present and not _has(head, each)):
            continue
        raise malformed(f"the signature does not cover {each}, which the scheme requires")


def _has(head: RequestHead, component: Component) -> bool:
    """Whether a request has something that a signature may leave out."""
    if component.name.startswith("@"):
        return b"?" in head.target
    return bool(head.values(component.name.encode()))


def _covered_digests(identities: set[Identity]) -> bytes:
    """The hashes of Content-Digest that are covered, in the form of `ListedSignature.digest`."""
    digests = [dict(parameters).get("key", "*") for name, parameters in identities if name == CONTENT_DIGEST]
    return b"*" if "*" in digests else ",".join(map(str, digests)).encode()


def _write_base(covered: Sequence[tuple[Any, dict[str, Any]]], parameters: dict[str, Any], values: "Values") -> bytes:
    """The signature base (RFC 9421, 2.5). Raises `Rejected`."""
    lines = []
    for name, given in covered:
        value = values.find(name, given)
        if not value.isascii() or b"\n" in value or b"\r" in value:
            raise malformed(f"the signature covers {name}, which has characters that can't be signed")
        lines.append(b"%b: %b" % (http_sf.ser((name, given)).encode(), value))
    try:
        member: Any = (list(covered), parameters)
        written = http_sf.ser([member])
    except ValueError:
        raise malformed("the signature's parameters can't be written as structured fields") from None
    lines.append(b'"@signature-params": ' + written.encode())
    return b"\n".join(lines)


class Values:
    """The values of a request's components (RFC 9421, 2.1 and 2.2)."""

    def __init__(self, head: RequestHead, url: PublicURL | None) -> None:
        """`url` is the public one; without it the host is the request's, and https is not known."""
        self._head = head
        self._url = url.of(head.target) if url is not None else b""
        self._parsed: dict[str, dict[str, Any]] = {}
        self._fields = 0
        self._query: dict[bytes, list[bytes]] | None = None

    def find(self, name: str, parameters: dict[str, Any]) -> bytes:
        """Raises `Rejected` if the request has no such component, or not one value of it."""
        if name.startswith("@"):
            if name == "@query-param":
                return self._query_parameter(parameters["name"])
            return _DERIVED[name](self)
        values = self._head.values(name.encode())
        if not values:
            raise malformed(f"the signature covers {name}, which the delivery does not have")
        if "key" in parameters:
            return self._member(name, _join(values), parameters["key"], binary="bs" in parameters)
        if "bs" in parameters:
            if "sf" in parameters:
                raise malformed(f"the signature covers {name} both as structured and as bytes")
            return b", ".join([b":%b:" % b64encode(value.strip(b" \t")) for value in values])
        if "sf" in parameters:
            return self._structured(name, _join(values))
        return _join(values)

    def _member(self, name: str, text: bytes, key: str, *, binary: bool) -> bytes:
        if binary:
            raise malformed(f"the signature covers a member of {name} as bytes, which is not possible")
        if name not in self._parsed:
            self._count()
            self._parsed[name] = parse_field(text, name)
        members = self._parsed[name]
        if key not in members:
            raise malformed(f"the signature covers a member of {name} that it does not have")
        written: str = http_sf.ser([members[key]])
        return written.encode()

    def _structured(self, name: str, text: bytes) -> bytes:
        kind = _TYPES.get(name)
        if kind is None:
            raise malformed(f"the signature covers {name} as a structured field (sf), whose type is not known")
        self._count()
        parsed = parse_field(text, name, kind)
        if not parsed:
            raise malformed(f"the signature covers {name}, which is empty")
        written: str = http_sf.ser(parsed)
        return written.encode()

    def _count(self) -> None:
        self._fields += 1
        if self._fields > MAX_PARSED:
            raise malformed(f"the signature covers parts of more than {MAX_PARSED} structured fields")

    def _query_parameter(self, name: str) -> bytes:
        if self._query is None:
            items = [item for item in self.query()[1:].split(b"&", MAX_PARAMETERS) if item]
            if len(items) > MAX_PARAMETERS:
                raise malformed(f"the query has more than {MAX_PARAMETERS} parameters")
            self._query = {}
            for item in items:
                spelled, _, value = item.partition(b"=")
                self._query.setdefault(_decode(spelled), []).append(_decode(value))
        found = self._query.get(_decode(name.encode()), [])
        if len(found) != 1:
            raise malformed(f"the signature covers a query parameter that the request has {len(found)} times")
        return quote(found[0], safe=_UNESCAPED).replace("~", "%7E").encode()

    def target_uri(self) -> bytes:
        """Raises `Rejected` without a public URL."""
        if not self._url:
            raise malformed("the signature covers the URL, which is unknown; add `public_url`")
        return self._origin() + self.request_target()

    def scheme(self) -> bytes:
        """The scheme of the public URL. Raises `Rejected` without one."""
        return self.target_uri().partition(b"://")[0].lower()

    def authority(self) -> bytes:
        """The host in lower case, without the default port."""
        if self._url:
            scheme, _, rest = self._origin().partition(b"://")
            return rest.lower().removesuffix(b":443" if scheme == b"https" else b":80")
        values = self._head.values(b"host")
        if len(values) != 1:
            raise malformed(f"{len(values)} Host headers; expected one")
        return values[0].strip(b" \t").lower().removesuffix(b":443")

    def _origin(self) -> bytes:
        scheme, mark, rest = self._url.partition(b"://")
        return scheme + mark + rest.partition(b"/")[0].partition(b"?")[0]

    def request_target(self) -> bytes:
        """Path and query."""
        target = self._url[len(self._origin()) :] if self._url else self._head.target
        return target if target.startswith(b"/") else b"/" + target

    def path(self) -> bytes:
        """Without the query, and never empty."""
        return self.request_target().partition(b"?")[0]

    def query(self) -> bytes:
        """With the `?`, which an absent query has as well."""
        return b"?" + self.request_target().partition(b"?")[2]

    def method(self) -> bytes:
        return self._head.method.encode()


_DERIVED: Final[dict[str, Callable[[Values], bytes]]] = {
    "@method": Values.method,
    "@target-uri": Values.target_uri,
    "@authority": Values.authority,
    "@scheme": Values.scheme,
    "@request-target": Values.request_target,
    "@path": Values.path,
    "@query": Values.query,
}


def _decode(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def check_content_digest(head: RequestHead, body: Sequence[bytes], covered: bytes) -> None:
    """Whether Content-Digest (RFC 9530) is the body's. Raises `Rejected`.

    `covered` is that of `ListedSignature`. Every digest that is known must be right, and one that is covered must be known.
    """
    digests = parse_field(_join(head.values(b"content-digest")), "Content-Digest")
    names = covered.decode().split(",")
    known = [name for name in digests if name in DIGESTS]
    if not any(name in names or covered == b"*" for name in known):
        raise malformed(f"Content-Digest has no hash that is known and covered; expected {' or '.join(DIGESTS)}")
    for name in known:
        algorithm, value = DIGESTS[name], digests[name][0]
        if not isinstance(value, bytes) or len(value) != DIGEST_SIZES[algorithm]:
            raise malformed(f"Content-Digest has no {name} of the right length")
        if not compare_digest(value, hash_pieces(algorithm, body)):
            raise Rejected(Reason.SIGNATURE_MISMATCH, f"the {name} of Content-Digest is not that of the body")


def write_content_digest(body: Sequence[bytes]) -> str:
    """The value that `check_content_digest` accepts."""
    written: str = http_sf.ser({"sha-256": (hash_pieces(Algorithm.SHA256, body), {})})
    return written
