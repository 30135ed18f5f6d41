"""The claims of a delivery: its signatures and timestamp, read from the places that the scheme names, but not yet verified.

A field that appears twice is malformed, unless the scheme says that each copy counts: no copy is preferred. Sizes are
checked before anything is split, so that a list of ten thousand items costs no more than a list of one.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from sidecar.http1.head import RequestHead
from sidecar.outcomes import Reason, Rejected
from sidecar.verify.document import find_values
from sidecar.verify.encoding import Decoder
from sidecar.verify.form import only_field
from sidecar.verify.message import find_parameters
from sidecar.verify.places import Delivery
from sidecar.verify.scheme import Scheme, SignatureList, Wrapping

#: Bytes of one signature field. Ten RSA-4096 signatures in base64 fit.
MAX_FIELD: Final = 8192
#: Items of a list, signatures or not.
MAX_ITEMS: Final = 64
#: Signatures of one delivery. Providers send one for each active secret: two, seldom three.
MAX_SIGNATURES: Final = 10
#: Copies of a numbered header. DocuSign sends one for each of up to 100 keys.
MAX_NUMBERED: Final = 100


class Claim(NamedTuple):
    """The claims of a well-formed head. Signature and timestamp are still empty if they are in the body."""

    signatures: Sequence[bytes]  #: decoded; for a bearer kind the token
    timestamp: bytes  #: as sent; empty if the head has none
    age: float | None  #: seconds; negative if the sender's clock is ahead of ours; None without a timestamp
    now: float | None  #: unix time on arrival; None if any age is accepted


class SignatureReader:
    """Finds and decodes the signatures in a delivery's head or body."""

    __slots__ = ("_decode", "_names", "_numbered", "_prefix", "_single", "_split", "_target", "_unsigned", "field")

    def __init__(self, scheme: Scheme) -> None:
        self.field = scheme.signature
        self._decode = self.field.kind.decoder(self.field)
        if self.field.wrapped is not None:
            self._decode = _unwrapping(self.field.wrapped, self._decode)
        self._prefix = self.field.prefix.encode()
        self._target = self.field.in_target
        where = f"no {self.field.place}" if self._target else f"no {self.field.header} header"
        self._unsigned = Rejected(Reason.SIGNATURE_MISSING, where)
        self._numbered = self.field.header.endswith("{n}")
        names = [self.field.header, *self.field.also]
        if self._numbered:
            names = [self.field.header.removesuffix("{n}") + str(number) for number in range(1, MAX_NUMBERED + 1)]
        self._names = [name.lower().encode() for name in names]
        self._split = _splitter(scheme) if self.field.list is not None else None
        self._single = len(self._names) == 1 and not self.field.repeated and not self._target

    def unsigned(self, head: RequestHead) -> Rejected | None:
        """The rejection of a delivery that obviously has no signature; to be returned, never raised."""
        if not self._single:
            return None
        sent = head.values(self._names[0])
        return None if sent and sent[0] else self._unsigned

    def read_head(self, head: RequestHead) -> tuple[Sequence[bytes], list[bytes]]:
        """The decoded signatures, and the timestamps in the same list, as text. Raises `Rejected`."""
        if self._target:
            tokens = self._in_target(head.target)
            if not tokens:
                raise Rejected(Reason.SIGNATURE_MISSING, self._unsigned.detail)
            return (self._whole(tokens[0]),), []
        sent = head.values(self._names[0]) if self._single else self._all(head)
        if not sent or not sent[0]:
            raise Rejected(Reason.SIGNATURE_MISSING, self._unsigned.detail)
        if self._single and len(sent) > 1:
            raise self._malformed(f"{len(sent)} {self.field.header} headers; expected one")
        if len(sent) == 1 and self._split is None:  # by far the most common
            return (self._whole(sent[0]),), []
        return self._several(sent)

    def read_body(self, delivery: Delivery) -> Sequence[bytes]:
        """The decoded signatures in the body's document or form. Raises `Rejected`."""
        if self.field.form:
            return self._read_form(delivery)
        values = find_values(delivery.document, self.field.field)
        if not values:
            raise Rejected(Reason.SIGNATURE_MISSING, f"the body's JSON has no {self.field.field}")
        texts = [value.encode("utf-8", "surrogatepass") for value in values]
        if self.field.kind.bearer and texts.count(texts[0]) < len(texts):
            raise Rejected(
                Reason.TOKEN_MISMATCH,
                f"the body has different values at {self.field.field}; expected the same one each time",
            )
        return (self._whole(texts[0]),)

    def _read_form(self, delivery: Delivery) -> Sequence[bytes]:
        sent = only_field(delivery.fields, self.field.form.encode(), "form field")
        if not sent:
            raise Rejected(Reason.SIGNATURE_MISSING, f"the body's form has no field {self.field.form}")
        return self._several((sent,))[0] if self._split is not None else (self._whole(sent),)

    def _in_target(self, target: bytes) -> Sequence[bytes]:
        """The tokens in the target, without escapes: one, or none if it is absent or empty. Raises `Rejected` for several."""
        if not self.field.query:
            segment = target.partition(b"?")[0].rpartition(b"/")[2]
            return (unquote_to_bytes(segment),) if segment else ()
        sent = find_parameters(target, self.field.query)
        if len(sent) > 1:
            raise self._malformed(f"{len(sent)} query parameters {self.field.query}; expected one")
        return sent if sent and sent[0] else ()

    def _all(self, head: RequestHead) -> list[bytes]:
        sent: list[bytes] = []
        for name in self._names:
            values = head.values(name)
            if len(values) > 1 and not self.field.repeated:
                raise self._malformed(f"{len(values)} {name.decode()} headers; expected one")
            sent.extend(value for value in values if value)
        return sent

    def _whole(self, text: bytes) -> bytes:
        signature = self._decode_text(text)
        if signature is None:
            raise self._malformed(self._describe_malformed(text))
        return signature

    def _several(self, sent: Sequence[bytes]) -> tuple[Sequence[bytes], list[bytes]]:
        texts = sent
        stamps: list[bytes] = []
        if self._split is not None:
            texts = []
            for value in sent:
                if len(value) > MAX_FIELD:
                    raise self._malformed(f"{self.field.place} is longer than {MAX_FIELD} bytes")
                self._split(value, texts, stamps)
        if len(texts) > (MAX_NUMBERED if self._numbered else MAX_SIGNATURES):
            raise self._malformed(f"{self.field.place} has more than {MAX_SIGNATURES} signatures")
        decode = self._decode_text if self._prefix else self._decode
        decoded = [signature for text in texts if (signature := decode(text)) is not None]
        if not decoded:
            raise self._malformed(self._describe_malformed(texts[0]) if texts else self._no_item())
        return decoded, stamps

    def _decode_text(self, text: bytes) -> bytes | None:
        if self._prefix:
            if not self._has_prefix(text):
                return None
            text = text[len(self._prefix) :]
        return self._decode(text)

    def _has_prefix(self, text: bytes) -> bool:
        if text.startswith(self._prefix):
            return True
        # The scheme word of an Authorization field is case-insensitive (RFC 9110, 11.1).
        kind = self.field.kind
        return (kind.bearer or kind.claims) and text[: len(self._prefix)].lower() == self._prefix.lower()

    def _malformed(self, detail: str) -> Rejected:
        return Rejected(Reason.SIGNATURE_MALFORMED, detail)

    def _describe_malformed(self, text: bytes) -> str:
        """The expected form. Never the text that was sent: signatures in a log can be replayed."""
        field = self.field
        if self._prefix and not self._has_prefix(text):
            return f"{field.place} does not start with {field.prefix!r}"
        return field.kind.describe_malformed(field)

    def _no_item(self) -> str:
        assert self.field.list is not None
        tags = self.field.list.versions or (self.field.list.tag,)
        return f"no item of {self.field.place} starts with {' or '.join(map(repr, tags))}"


def _unwrapping(wrapping: Wrapping, decode: Decoder) -> Decoder:
    """A decoder of signatures that are in a JSON object. It raises `Rejected` for a value that isn't one."""
    from sidecar.verify.wrapped import unwrap  # noqa: PLC0415 - few schemes need it

    return lambda text: decode(unwrap(wrapping, text).signature)


def _splitter(scheme: Scheme) -> Callable[[bytes, list[bytes], list[bytes]], None]:
    """A function that splits a field's value, and appends its signatures to one list and its timestamps to another."""
    listed = scheme.signature.list
    assert listed is not None
    clock = scheme.timestamp
    first = clock is not None and clock.first
    stamp = clock.tag.encode() if clock is not None else b""
    length = len(stamp)
    separators = listed.separator.encode()
    separator, others = separators[:1], separators[1:]
    merge = bytes.maketrans(others, separator * len(others))
    pick = _picker(listed)

    def split(value: bytes, signatures: list[bytes], stamps: list[bytes]) -> None:
        if others:
            value = value.translate(merge)
        if value.count(separator) >= MAX_ITEMS:
            raise Rejected(Reason.SIGNATURE_MALFORMED, f"{scheme.signature.place} has more than {MAX_ITEMS} items")
        found = value.split(separator)
        if listed.blanks:
            found = [item.strip(b" \t") for item in found]
        if first:
            stamps.append(found.pop(0))
        elif stamp:
            stamps.extend([item[length:] for item in found if item.startswith(stamp)])
        picked = pick(found)
        signatures.extend(picked[:1] if listed.first else picked)

    return split


def _picker(listed: SignatureList) -> Callable[[list[bytes]], list[bytes]]:
    """A function that picks the signatures that count from the items of a list, and removes their tags."""
    if listed.versions:
        versions = [version.encode() for version in listed.versions]

        def newest(items: list[bytes]) -> list[bytes]:
            for version in versions:
                found = [item[len(version) :] for item in items if item.startswith(version)]
                if len(found) > 1:
                    raise Rejected(Reason.SIGNATURE_MALFORMED, f"{len(found)} signatures of one version; expected one")
                if found:
                    return found
            return []

        return newest
    if "*" in listed.tag:
        anything = b"[^%b]*" % re.escape(listed.separator.encode())
        pattern = re.compile(re.escape(listed.tag.encode()).replace(rb"\*", anything))
        return lambda items: [item[match.end() :] for item in items if (match := pattern.match(item))]
    tag = listed.tag.encode()
    length = len(tag)
    if not tag:
        return lambda items: [item for item in items if item]
    return lambda items: [item[length:] for item in items if item.startswith(tag)]
