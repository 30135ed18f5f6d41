"""Stage 6 where a key is missing: how often it is waited for, and what is said in the end."""

import asyncio
from collections.abc import Sequence

import pytest

from sidecar.delivery.missing_key import MAX_DOCUMENTS, WAIT_SECONDS, verify_with_new_keys
from sidecar.outcomes import Reason, Rejected
from sidecar.verify.published import Document, KeyNeeded, KeySource

SOURCE = KeySource("https://keys.example.com/jwks", "acme")
LINKED = KeySource("https://keys.example.com/linked", "acme")
ARRIVED = Document(b"{}", 1.0)
MISMATCH = Rejected(Reason.SIGNATURE_MISMATCH)


class Keys:
    """A store that has a newer document so many times, and `document` before that."""

    def __init__(self, *, newer: int, current: bool = False, document: Document | None = None) -> None:
        self.newer, self.current, self.document = newer, current, document
        self.asked: list[KeySource] = []

    def get(self, source: KeySource) -> Document | None:
        return self.document

    def used(self, source: KeySource) -> None:
        raise AssertionError

    async def refresh(self, source: KeySource, seconds: float = WAIT_SECONDS) -> bool:
        assert 0 < seconds <= WAIT_SECONDS
        self.asked.append(source)
        self.newer -= 1
        return self.newer >= 0

    def confirm(self, route: str, url: str) -> bool:
        raise AssertionError("nothing is confirmed here")

    def is_current(self, source: KeySource) -> bool:
        return self.current


def needed(reason: Reason, source: KeySource = SOURCE, seen: Document | None = None) -> KeyNeeded:
    return KeyNeeded(source, reason, "no such key", seen)


def end(first: KeyNeeded, keys: Keys | None, ends: Sequence[KeyNeeded | Rejected | None] = ()) -> Rejected | None:
    """What a delivery ends with whose further verifications end like this."""
    left = list(ends)

    async def verify() -> Rejected | None:
        this = left.pop(0)
        if isinstance(this, KeyNeeded):
            raise this
        return this

    found = asyncio.run(verify_with_new_keys(first, keys, verify))
    assert not left
    return found


@pytest.mark.parametrize("verdict", [None, MISMATCH])
def test_with_the_key_the_delivery_is_judged_as_any_other(verdict: Rejected | None) -> None:
    keys = Keys(newer=1)
    assert end(needed(Reason.KEY_UNKNOWN), keys, [verdict]) is verdict
    assert keys.asked == [SOURCE]


def test_a_delivery_may_wait_for_a_configuration_and_the_keys_that_it_names_and_for_no_more() -> None:
    keys = Keys(newer=9)
    missing = [needed(Reason.KEY_UNAVAILABLE, LINKED) for _ in range(MAX_DOCUMENTS)]
    found = end(needed(Reason.KEY_UNAVAILABLE), keys, missing)
    assert found is not None
    assert (found.reason, found.detail) == (Reason.KEY_UNAVAILABLE, "no such key")
    assert keys.asked == [SOURCE, LINKED]
    assert all(each.__traceback__ is None for each in missing[-1:])  # no circle of frames


@pytest.mark.parametrize("reason", [Reason.KEY_UNAVAILABLE, Reason.KEY_UNKNOWN])
def test_a_document_that_arrived_while_a_thread_verified_is_used_and_not_asked_for(reason: Reason) -> None:
    keys = Keys(newer=0, current=True, document=ARRIVED)
    assert end(needed(reason), keys, [None]) is None
    assert keys.asked == []


def test_a_document_that_lacks_the_key_is_verified_with_once() -> None:
    keys = Keys(newer=0, current=True, document=ARRIVED)
    found = end(needed(Reason.KEY_UNKNOWN), keys, [needed(Reason.KEY_UNKNOWN, seen=ARRIVED)])
    assert found is not None
    assert (found.reason, keys.asked) == (Reason.KEY_UNKNOWN, [SOURCE])


@pytest.mark.parametrize(
    ("reason", "current", "said"),
    [
        (Reason.KEY_UNKNOWN, True, Reason.KEY_UNKNOWN),
        (Reason.KEY_UNKNOWN, False, Reason.KEY_UNAVAILABLE),
        (Reason.KEY_UNAVAILABLE, True, Reason.KEY_UNAVAILABLE),
        (Reason.KEY_UNAVAILABLE, False, Reason.KEY_UNAVAILABLE),
    ],
)
def test_a_key_is_unknown_only_if_the_provider_just_said_so(reason: Reason, current: bool, said: Reason) -> None:
    found = end(needed(reason), Keys(newer=0, current=current))
    assert found is not None
    assert found.reason is said


def test_without_a_store_no_key_is_available() -> None:
    found = end(needed(Reason.KEY_UNKNOWN), None)
    assert found is not None
    assert found.reason is Reason.KEY_UNAVAILABLE
