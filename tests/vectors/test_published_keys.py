"""Deliveries of senders that publish their keys, or sign tokens: each gets the verdict of the sender's own library."""

import pytest
from published_vectors import (
    SENDERS,
    FakeStore,
    Vector,
    body_of,
    every_vector,
    public_url_of,
    secrets_of,
    sender,
    target_of,
    verify_of,
)

from sidecar.config.presets import Verify
from sidecar.http1.head import make_head
from sidecar.outcomes import VERIFICATION, Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.published import KeyNeeded
from sidecar.verify.scheme import Scheme
from sidecar.verify.verifier import Verified, Verifier

REJECTIONS = VERIFICATION | {Reason.KEY_UNAVAILABLE}


def verify(name: str, vector: Vector, pieces: list[bytes]) -> Verified:
    scheme = Verify().read(verify_of(name, vector))
    assert isinstance(scheme, Scheme)
    secrets = [Secret(key, text.encode()) for key, text in secrets_of(name, vector).items()]
    store = FakeStore(sender(name)["keys"])
    verifier = Verifier(scheme, secrets, public_url_of(name, vector), published=store)
    headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in vector["headers"]]
    if not any(name.lower() == b"host" for name, _ in headers):
        headers.append((b"Host", b"receiver.example"))
    head = make_head(vector["method"], target_of(vector).encode(), headers, "192.0.2.1")
    unsigned = verifier.unsigned(head)
    if unsigned is not None:
        raise unsigned
    return verifier.verify(verifier.read_claim(head, vector["now"]), head, pieces)


@pytest.mark.parametrize(
    ("name", "vector"), [pytest.param(name, vector, id=vector["id"]) for name, vector in every_vector()]
)
def test_every_delivery_gets_the_verdict_of_the_senders_library(name: str, vector: Vector) -> None:
    ended = verdict(name, vector)
    assert vector["want"] in ("either", "valid" if ended is None else "invalid"), (vector["case"], str(ended))
    assert ended is None or ended.reason in REJECTIONS
    assert not isinstance(ended, KeyNeeded) or ended.seen is not None  # the store has every document


def verdict(name: str, vector: Vector) -> Rejected | KeyNeeded | None:
    """What ended the verification."""
    try:
        verify(name, vector, [body_of(vector)])
    except (Rejected, KeyNeeded) as ended:
        return ended
    return None


@pytest.mark.parametrize("name", SENDERS)
def test_the_verdict_does_not_depend_on_how_the_body_arrives(name: str) -> None:
    vector = next(each for each in sender(name)["vectors"] if each["want"] == "valid")
    body = body_of(vector)
    assert verify(name, vector, [body])
    assert verify(name, vector, [bytes([byte]) for byte in body])
