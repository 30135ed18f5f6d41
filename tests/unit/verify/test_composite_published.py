"""Several schemes on one route, of which one has keys that its provider publishes."""

import pytest
from published_vectors import FakeStore, Vector, body_of, public_url_of, sender, target_of, verify_of

from sidecar.config.presets import Verify, load_preset
from sidecar.http1.head import RequestHead, make_head
from sidecar.outcomes import Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.composite import Combine, Composite
from sidecar.verify.published import PUBLISHED, KeyNeeded
from sidecar.verify.scheme import Scheme
from sidecar.verify.verifier import Verified, Verifier

NAME = "google-pubsub"
VECTOR: Vector = next(each for each in sender(NAME)["vectors"] if each["want"] == "valid")


def composite(combine: Combine, *, keys: bool) -> Composite:
    scheme = Verify().read(verify_of(NAME, VECTOR))
    assert isinstance(scheme, Scheme)
    store = FakeStore(sender(NAME)["keys"]) if keys else None
    published = Verifier(scheme, (), public_url_of(NAME, VECTOR), published=store)
    shared = Verifier(load_preset("begini"), [Secret("key", b"0123456789abcdef")])
    return Composite(combine, [shared, published])


def head(*, token: bool, signature: bytes = b"") -> RequestHead:
    headers = [(b"Host", b"receiver.example")]
    if token:
        headers += [(name.encode(), value.encode()) for name, value in VECTOR["headers"]]
    if signature:
        headers.append((b"X-Signature", signature))
    return make_head("POST", target_of(VECTOR).encode(), headers, "192.0.2.1")


def verify(verifier: Composite, sent: RequestHead) -> Verified:
    unsigned = verifier.unsigned(sent)
    if unsigned is not None:
        raise unsigned
    return verifier.verify(verifier.read_claim(sent, VECTOR["now"]), sent, [body_of(VECTOR)])


def test_any_of_accepts_the_token_alone_and_names_no_secret() -> None:
    assert verify(composite(Combine.ANY, keys=True), head(token=True)).secret_id == PUBLISHED


def test_any_of_waits_for_a_key_if_only_that_is_missing() -> None:
    with pytest.raises(KeyNeeded) as needed:
        verify(composite(Combine.ANY, keys=False), head(token=True))
    assert needed.value.reason is Reason.KEY_UNAVAILABLE


def test_any_of_waits_for_no_key_that_the_delivery_does_not_name() -> None:
    with pytest.raises(Rejected) as rejected:
        verify(composite(Combine.ANY, keys=False), head(token=False, signature=b"0" * 128))
    assert rejected.value.reason is Reason.SIGNATURE_MISMATCH


def test_all_of_waits_for_no_key_if_something_else_is_wrong() -> None:
    with pytest.raises(Rejected) as rejected:
        verify(composite(Combine.ALL, keys=False), head(token=True, signature=b"0" * 128))
    assert rejected.value.reason is Reason.SIGNATURE_MISMATCH


def test_a_combination_lists_the_keys_of_its_members() -> None:
    verifier = composite(Combine.ANY, keys=True)
    assert verifier.key_names == (NAME,)
    assert [source.url for source in verifier.key_sources] == [
        source.url for source in verifier.members()[1].key_sources
    ]
    assert verifier.secret_ids == ["key", PUBLISHED]
