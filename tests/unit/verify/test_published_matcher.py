"""What is kept for a published key is that key's alone: another key in its place, and a later date, count at once."""

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from published_store import certificate_of

from sidecar.config.scheme_keys import SCHEME
from sidecar.http1.head import make_head
from sidecar.outcomes import Reason, Rejected
from sidecar.verify.key_finder import MAX_PARSED
from sidecar.verify.published import ClientName, Document, KeyNeeded, KeySource
from sidecar.verify.verifier import Verifier

NOW = 1_700_000_000.0
DAY = 86_400.0
SIGNATURE = {"header": "X-Sig", "kind": "ecdsa-p256-sha256", "encoding": "base64"}
CERTIFICATE: dict[str, Any] = {
    "signature": SIGNATURE,
    "keys": {"certificate": {"of": "{header:X-Key}", "url": "https://keys\\.example/[a-z0-9]+", "names": ["test"]}},
}
BY_ID: dict[str, Any] = {
    "signature": SIGNATURE | {"key_id": "X-Key"},
    "keys": {"each": "https://keys.example/{id}", "id": "[a-z0-9]+", "form": "pem"},
}
BODY = b'{"n":1}'


class Provider:
    """Serves the pages that a test puts there, at https://keys.example/."""

    def __init__(self, scheme: dict[str, Any]) -> None:
        self.pages: dict[str, Document] = {}
        self.by_url = "certificate" in scheme["keys"]
        self.verifier = Verifier(SCHEME.read(scheme), [], published=self)

    def serve(self, name: str, key: Any, now: float = NOW) -> None:
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.pages[f"https://keys.example/{name}"] = Document(certificate_of(key, now=now) if self.by_url else pem, now)

    def get(self, source: KeySource) -> Document | None:
        return self.pages.get(source.url)

    def used(self, source: KeySource) -> None:
        assert source.url in self.pages

    async def refresh(self, source: KeySource) -> bool:
        return False

    def verdict(self, key: Any, name: str = "a", *, at: float = NOW, body: bytes = BODY) -> str:
        signature = base64.b64encode(key.sign(BODY, ec.ECDSA(SHA256())))
        named = f"https://keys.example/{name}" if self.by_url else name
        head = make_head("POST", b"/", [(b"X-Sig", signature), (b"X-Key", named.encode())], None)
        try:
            verified = self.verifier.match(self.verifier.read_claim(head, at), head, [body])
        except (Rejected, KeyNeeded) as error:
            return error.reason
        return "accepted" if verified is not None else Reason.SIGNATURE_MISMATCH


@pytest.fixture(params=[CERTIFICATE, BY_ID], ids=["certificate", "by id"])
def provider(request: pytest.FixtureRequest) -> Provider:
    return Provider(request.param)


def test_another_key_in_the_same_place_counts_and_the_old_one_is_gone(provider: Provider) -> None:
    old, new = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    provider.serve("a", old)
    for _ in range(3):
        assert provider.verdict(old) == "accepted"
        assert provider.verdict(new) == Reason.SIGNATURE_MISMATCH
        assert provider.verdict(old, body=b'{"n":2}') == Reason.SIGNATURE_MISMATCH
    provider.serve("a", new)
    for _ in range(3):
        assert provider.verdict(new) == "accepted"
        assert provider.verdict(old) == Reason.SIGNATURE_MISMATCH
    provider.pages.clear()
    assert provider.verdict(new) == Reason.KEY_UNAVAILABLE


def test_more_keys_than_are_kept_each_verify_what_is_theirs(provider: Provider) -> None:
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(MAX_PARSED + 3)]
    for number, key in enumerate(keys):
        provider.serve(f"k{number}", key)
    for _ in range(2):
        for number, key in enumerate(keys):
            assert provider.verdict(key, f"k{number}") == "accepted"
            assert provider.verdict(keys[number - 1], f"k{number}") == Reason.SIGNATURE_MISMATCH


def test_the_dates_of_a_certificate_are_compared_for_each_delivery() -> None:
    provider, key = Provider(CERTIFICATE), ec.generate_private_key(ec.SECP256R1())
    provider.serve("a", key)
    for _ in range(2):
        assert provider.verdict(key) == "accepted"
        assert provider.verdict(key, at=NOW + 2 * DAY) == Reason.KEY_UNKNOWN
        assert provider.verdict(key, at=NOW - 2 * DAY) == Reason.KEY_UNKNOWN


def test_a_url_that_is_not_the_providers_is_rejected_whatever_was_verified_before(provider: Provider) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    provider.serve("a", key)
    assert provider.verdict(key) == "accepted"
    for name in ("a/", "A", "a?", "../a", "a\n", ""):
        assert provider.verdict(key, name) in (Reason.KEY_UNKNOWN, Reason.SIGNATURE_MALFORMED)


def test_sources_that_differ_in_more_than_their_url_are_different_ones() -> None:
    one = KeySource("https://keys.example/a", "acme", id="a")
    others = [
        KeySource("https://keys.example/a", "other", id="a"),
        KeySource("https://keys.example/a", "acme", id="b"),
        KeySource("https://keys.example/a", "acme", id="a", form="pem"),
        KeySource("https://keys.example/a", "acme", id="a", client=ClientName("https://keys.example/t", "", "c")),
    ]
    assert len({one, *others}) == 5
    assert hash(one) == hash(KeySource("https://keys.example/a", "acme", id="a"))
