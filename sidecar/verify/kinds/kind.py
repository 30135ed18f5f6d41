"""A kind of signature: everything that the rest of the program asks about one.

Some things are data and some are functions, because the files of the kinds are compiled and this one is not.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from sidecar.verify.algorithms import DIGEST_SIZES, Algorithm
from sidecar.verify.encoding import Decoder, decode_as_is, make_decoder, text_length
from sidecar.verify.keys import KeyForm
from sidecar.verify.template import Part

if TYPE_CHECKING:
    from sidecar.verify.scheme import SignatureField

Pieces = Sequence[bytes]
#: The keys of a route, each with the id of its secret. Every kind has its own type of key.
Keys = list[tuple[str, Any]]


class Matcher(Protocol):
    """A route's keys, ready to check signatures.

    Every comparison takes the same time wherever the values differ. The order of the keys reveals nothing: a sender whose
    signature matches any of them knows that secret.
    """

    def match(self, signatures: Pieces, message: Pieces) -> str | None:
        """The id of the secret that made one of `signatures` for `message`; None if none did."""


class _NoMatcher:
    def match(self, signatures: Pieces, message: Pieces) -> str | None:
        return None


#: For a configuration that is checked without its secrets.
MATCHES_NOTHING: Final = _NoMatcher()


class Construction(NamedTuple):
    """Another way to sign, which senders use by mistake."""

    because: str  #: in words
    kind: str  #: its name
    parts: tuple[Part, ...]


def _no_constructions(parts: tuple[Part, ...]) -> Iterator[Construction]:
    return iter(())


def _match_nothing(algorithm: Algorithm, keys: Keys) -> Matcher:
    """For kinds that have their own verifier: tokens, detached tokens, listed signatures."""
    return MATCHES_NOTHING


def _sign_elsewhere(algorithm: Algorithm, key: Any, message: Pieces) -> bytes:
    raise NotImplementedError("verify/sign_token.py and verify/sign_listed.py sign these")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Kind:
    """The kind of proof that the sender knows the secret: `signature: {kind: ...}`."""

    name: str
    title: str = ""  #: for people, with {algorithm}; default: the name

    key_forms: tuple[KeyForm, ...]  #: values of `key:`; the first is the default
    read_key: Callable[[KeyForm, bytes], Any]  #: from a secret's text to the key that verifies; raises `KeyFormError`
    #: From the text to the key that signs, where that is another one. Raises `KeyFormError`.
    read_private_key: Callable[[KeyForm, bytes], Any] | None = None
    #: In place of `read_key`, for a scheme that lists algorithms with public keys and others with a shared secret.
    read_public_key: Callable[[KeyForm, bytes], Any] | None = None
    make_matcher: Callable[[Algorithm, Keys], Matcher] = _match_nothing
    sign: Callable[[Algorithm, Any, Pieces], bytes] = _sign_elsewhere  #: makes a signature, with a key that signs

    bearer: bool = False  #: nothing is signed: anyone who saw one delivery can send another one
    claims: bool = False  #: a token that holds what is signed: `claims:` says what it must be
    detached: bool = False  #: a token without what is signed, which `signed:` composes
    package: str = ""  #: the package that it needs beyond the program's own; empty: none
    extra: str = ""  #: the extra of the distribution that has it
    listed: bool = False  #: the delivery lists what is signed: `components:` says what must be in that list
    algorithms: tuple[str, ...] = ()  #: of a kind with `algorithms:` that isn't a JWS: their names
    digest_sized: bool = False  #: the signature has the size of `algorithm:`
    message_holds_secret: bool = False  #: `signed:` must have the place {secret}
    prefix: str = ""  #: the default of `prefix:`
    shown_as: str = "the secret itself"  #: for people: the form in which a bearer kind sends the secret

    # Variants that diagnosis tries, besides other encodings and other bodies.
    misread_as: tuple[KeyForm, ...] = ()  #: ways to read the secret's text that senders confuse
    other_prefixes: tuple[str, ...] = ()  #: words that senders may write before the secret
    constructions: Callable[[tuple[Part, ...]], Iterator[Construction]] = (
        _no_constructions  #: from the parts of the message
    )

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Kind({self.name!r})"

    @property
    def is_jws(self) -> bool:
        """Whether it is a JSON Web Signature, with `algorithms:`."""
        return self.claims or self.detached

    def read_signing_key(self, form: KeyForm, text: bytes) -> Any:
        """The key that signs, from a secret's text. Raises `KeyFormError`."""
        return (self.read_private_key or self.read_key)(form, text)

    def size(self, algorithm: Algorithm) -> int:
        """Bytes of a signature; 0 if that depends on the key."""
        return DIGEST_SIZES[algorithm] if self.digest_sized else 0

    def decoder(self, field: "SignatureField") -> Decoder:
        """From a signature's text, without its prefix, to what the matcher compares."""
        if self.bearer or self.is_jws or self.listed:
            return decode_as_is
        return make_decoder(field.encoding, self.size(field.algorithm))

    def summarize(self, field: "SignatureField") -> str:
        """For a list of routes: `HMAC-SHA256`."""
        algorithm = "/".join(field.algorithms) if field.algorithms else field.algorithm.upper()
        return (self.title or self.name).format(algorithm=algorithm)

    def describe_form(self, field: "SignatureField") -> str:
        """The expected form of a signature, for `explain`: `64 characters of hex`."""
        if self.bearer or self.is_jws or self.listed:
            return self.shown_as
        if size := self.size(field.algorithm):
            return f"{text_length(field.encoding, size)} characters of {field.encoding}"
        return f"a signature of kind {self.name} in {field.encoding}"

    def describe_malformed(self, field: "SignatureField") -> str:
        """Why a signature can't be decoded. Never quotes what was sent: signatures in a log could be replayed."""
        if self.bearer or self.is_jws:
            return f"{field.place} holds nothing after {field.prefix!r}"
        if size := self.size(field.algorithm):
            return f"{field.place} is not {size} bytes of {field.algorithm} in {field.encoding}"
        return f"{field.place} is not a signature in {field.encoding}"
