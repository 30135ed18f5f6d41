"""Deliveries whose signed message must be composed: from the head, the URL, or places in the body.

A `Composer` has everything of a scheme that is not the signature itself: which messages may have been signed, and what the body
must be. Most schemes have one message; a delivery verifies if any of several matches. With `items:` every item of a list must.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from sidecar.http1.head import RequestHead
from sidecar.outcomes import Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.algorithms import hash_pieces
from sidecar.verify.body_hash import check_body_hash, decompress
from sidecar.verify.claim import Claim, SignatureReader
from sidecar.verify.document import MAX_UNVERIFIED, find_items, find_value
from sidecar.verify.form import malformed, only_field
from sidecar.verify.keys import key_id
from sidecar.verify.kinds.kind import Matcher
from sidecar.verify.message import Message, PublicURL, compose, make_messages, most_variants
from sidecar.verify.places import Delivery
from sidecar.verify.scheme import KEY_ID, Scheme
from sidecar.verify.template import JsonValue, walk

#: Items of one delivery, each with its own signature.
MAX_ITEMS: Final = 100


class Match(NamedTuple):
    """The match: a secret, and a message."""

    secret_id: str
    url: bytes  #: the URL that was signed; empty if none was
    message: int  #: the place of the message in the scheme's list


class KeyedReader:
    """One key, and how to tell whether a delivery names it."""

    __slots__ = ("_header", "_id", "matcher", "reader")

    def __init__(self, scheme: Scheme, secret: Secret, key: tuple[str, Any]) -> None:
        field = scheme.signature
        self._header = field.key_id.lower().encode()
        self._id = key_id(secret)
        if field.list is not None and KEY_ID in field.list.tag:
            tag = field.list.tag.replace(KEY_ID, self._id.decode("utf-8", "replace"))
            scheme = replace(scheme, signature=replace(field, list=replace(field.list, tag=tag)))
        self.reader = SignatureReader(scheme)
        self.matcher: Matcher = field.kind.make_matcher(field.algorithm, [key])

    def is_named(self, head: RequestHead) -> bool:
        """False if the delivery's header names another key. A secret without an id fits every name."""
        return not self._header or not self._id or head.values(self._header) == (self._id,)


class Composer:
    """The messages that a scheme may sign, ready to be filled."""

    __slots__ = (
        "_decompresses",
        "_limit",
        "_messages",
        "_patterns",
        "_required",
        "_url",
        "passes",
        "reads_document",
        "scheme",
    )

    def __init__(self, scheme: Scheme, url: PublicURL | None, limit: int) -> None:
        """`limit` is the largest decompressed body, in bytes."""
        self.scheme = scheme
        self._url = url
        self._limit = limit
        self._messages: list[Message] = make_messages(scheme, url)
        #: How often a body is hashed at most, for each secret.
        self.passes = len(self._messages) * (most_variants(scheme) if url is not None else 1)
        self.reads_document = scheme.reads_document
        self._decompresses = scheme.decompressed
        self._required = bool(scheme.require_form or scheme.require_json)
        #: For each message, patterns of the JSON values in it.
        self._patterns = [
            [
                (path, re.compile(pattern, re.ASCII))
                for path, pattern in scheme.match_json
                if JsonValue(path) in set(walk(message.parts))
            ]
            for message in scheme.messages
        ]

    def read(self, claim: Claim, head: RequestHead, body: Sequence[bytes], url: bytes = b"") -> Delivery:
        """The values that fill the messages, with the body as it is signed. Raises `Rejected`."""
        if self._decompresses:
            body = decompress(head, body, self._limit)
        if self.reads_document and sum(map(len, body)) > MAX_UNVERIFIED:
            raise malformed(f"the body is longer than {MAX_UNVERIFIED} bytes, too long for a signature inside it")
        return Delivery(head, body, claim.timestamp, url, self.scheme.form_field)

    def check(self, delivery: Delivery) -> None:
        """Checks the scheme's other requirements for the body. Raises `Rejected`."""
        if self.scheme.body_hash is not None:
            check_body_hash(self.scheme.body_hash, delivery.head, delivery.body)
        if self._required:
            self._check_required(delivery)

    def match(self, claim: Claim, delivery: Delivery, reader: SignatureReader, matcher: Matcher) -> Match | None:
        """None if a signature does not match. Raises `Rejected` if the delivery can't have been signed."""
        if self.scheme.items:
            return self._match_items(delivery, reader, matcher)
        signatures = reader.read_body(delivery) if self.scheme.signature.in_body else claim.signatures
        return self._match_one(signatures, delivery, matcher)

    def message(self, delivery: Delivery, number: int) -> Sequence[bytes]:
        """The message `number` of a verified delivery, of all items if there are several. Raises `Rejected`."""
        if not self.scheme.items:
            return self._compose(self._messages[number], delivery)
        pieces: list[bytes] = []
        for message in self.item_messages(delivery, number):
            # Its length marks its end: no item may take bytes of another.
            pieces += [b"%d:" % len(message), message]
        return pieces

    def item_messages(self, delivery: Delivery, number: int) -> list[bytes]:
        """The message of each item of a verified delivery. Raises `Rejected`."""
        return [b"".join(self._compose(self._messages[number], item)) for item in self._items(delivery)]

    def _match_items(self, delivery: Delivery, reader: SignatureReader, matcher: Matcher) -> Match | None:
        found: Match | None = None
        for item in self._items(delivery):
            match = self._match_one(reader.read_body(item), item, matcher)
            if match is None:
                return None
            found = found or match
        return found

    def _items(self, delivery: Delivery) -> list[Delivery]:
        items = find_items(delivery.document, self.scheme.items)
        if not items:
            raise Rejected(Reason.SIGNATURE_MISSING, f"the body's JSON has no item at {self.scheme.items}")
        if len(items) > MAX_ITEMS:
            raise malformed(f"the body's JSON has more than {MAX_ITEMS} items at {self.scheme.items}")
        return [delivery.of_item(item) for item in items]

    def _match_one(self, signatures: Sequence[bytes], delivery: Delivery, matcher: Matcher) -> Match | None:
        absent: Rejected | None = None
        composed = False
        for url in (b"",) if self._url is None else self._url.variants(delivery.head.target, self.scheme):
            delivery.url = url
            for number, message in enumerate(self._messages):
                try:
                    if message.conditions and not message.applies_to(delivery):
                        continue
                    for path, pattern in self._patterns[number]:
                        value = find_value(delivery.document, path)
                        if value is not None and not pattern.fullmatch(value):
                            raise malformed(f"the body's JSON value {path} is not in the provider's form")
                    pieces = self._compose(message, delivery)
                except Rejected as rejected:
                    absent = rejected
                    continue
                composed = True
                secret_id = matcher.match(signatures, pieces)
                if secret_id is not None:
                    return Match(secret_id, url, number)
        if not composed:
            raise absent or malformed("the delivery fits none of the messages that the scheme signs")
        return None

    def _compose(self, message: Message, delivery: Delivery) -> Sequence[bytes]:
        pieces = compose(message.writers, delivery)
        prehash = self.scheme.signature.prehash
        return pieces if prehash is None else (hash_pieces(prehash, pieces),)

    def _check_required(self, delivery: Delivery) -> None:
        for name, wanted in self.scheme.require_form:
            sent = only_field(delivery.fields, name.encode(), "form field")
            if sent != wanted.encode() if wanted is not None else not sent:
                raise malformed(f"form field {name} is {_expected(wanted)}")
        for path, wanted in self.scheme.require_json:
            value = find_value(delivery.document, path)
            if value is None or (wanted is not None and value != wanted):
                raise malformed(f"the body's JSON value {path} is {_expected(wanted)}")


def _expected(wanted: str | None) -> str:
    return "absent" if wanted is None else f"not {wanted!r}"
