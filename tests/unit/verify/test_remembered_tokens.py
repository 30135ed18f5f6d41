"""A genuine token is remembered with the key that verified it: everything but that signature is checked each time."""

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from published_store import OneKeyStore

from sidecar.config.scheme_keys import SCHEME
from sidecar.http1.head import make_head
from sidecar.outcomes import Reason, Rejected
from sidecar.verify.published import Document, KeyNeeded, KeySource
from sidecar.verify.sign import SIGNING_KEY_ID
from sidecar.verify.token_verifier import MAX_GENUINE
from sidecar.verify.verifier import Verifier

NOW = 1_700_000_000.0
RULES = {
    "signature": {"kind": "jwt", "header": "Authorization", "prefix": "Bearer ", "algorithms": ["EdDSA"]},
    "keys": {"jwks": "https://keys.example/jwks"},
    "claims": {"aud": "us", "iss": "https://issuer.example"},
    "expiry": "required",
    "binds_body": False,
}


class Provider:
    """A provider that has one key at a time; it is the store, too."""

    def __init__(self, **claims: object) -> None:
        self.scheme = SCHEME.read(RULES | {"claims": {"aud": "us", "iss": "https://issuer.example"} | claims})
        self.rotate()
        self.verifier = Verifier(self.scheme, [], published=self)

    def rotate(self) -> None:
        """Another key, under the same id."""
        key = ed25519.Ed25519PrivateKey.generate()
        self.private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._keys: OneKeyStore | None = OneKeyStore(self.private)

    def lose(self) -> None:
        self._keys = None

    def get(self, source: KeySource) -> Document | None:
        return self._keys.get(source) if self._keys is not None else None

    def used(self, source: KeySource) -> None:
        """Nothing is dropped here."""

    async def refresh(self, source: KeySource) -> bool:
        return False

    def token(self, **claims: object) -> bytes:
        payload = {"aud": "us", "iss": "https://issuer.example", "exp": NOW + 60} | claims
        return jwt.encode(payload, self.private.decode(), "EdDSA", {"kid": SIGNING_KEY_ID}).encode()

    def reason(self, token: bytes, *, at: float = NOW) -> str:
        head = make_head("POST", b"/", [(b"Authorization", b"Bearer " + token)], None)
        try:
            self.verifier.verify(self.verifier.read_claim(head, at), head, [b"{}"])
        except (Rejected, KeyNeeded) as ended:
            return ended.reason
        return ""


@pytest.fixture
def provider() -> Provider:
    return Provider()


def test_a_genuine_token_stays_genuine(provider: Provider) -> None:
    token = provider.token()
    assert [provider.reason(token) for _ in range(3)] == ["", "", ""]


def test_its_times_are_compared_each_time(provider: Provider) -> None:
    token = provider.token()
    assert provider.reason(token) == ""
    assert provider.reason(token, at=NOW + 1000) == Reason.TIMESTAMP_TOO_OLD


def test_its_claims_are_checked_each_time(provider: Provider) -> None:
    token = provider.token(aud="others")
    assert [provider.reason(token) for _ in range(2)] == [Reason.CLAIM_MISMATCH] * 2


def test_a_key_that_was_replaced_vouches_for_nothing_any_more(provider: Provider) -> None:
    token = provider.token()
    assert provider.reason(token) == ""
    provider.rotate()
    assert provider.reason(token) == Reason.SIGNATURE_MISMATCH
    assert provider.reason(provider.token()) == ""


def test_without_the_keys_nothing_is_verified(provider: Provider) -> None:
    token = provider.token()
    assert provider.reason(token) == ""
    provider.lose()
    assert provider.reason(token) == Reason.KEY_UNAVAILABLE


def test_another_signature_or_another_payload_is_not_that_token(provider: Provider) -> None:
    token, other = provider.token(), provider.token(jti="2")
    assert provider.reason(token) == ""
    head, payload, signature = token.split(b".")
    forged = (signature[:-3] + b"AAA", other.split(b".")[2])
    for each in forged:
        assert provider.reason(b".".join([head, payload, each])) != ""
    assert provider.reason(b".".join([head, other.split(b".")[1], signature])) == Reason.SIGNATURE_MISMATCH
    assert [provider.reason(each) for each in (token, other)] == ["", ""]


def test_few_are_remembered_and_forgetting_them_rejects_nothing(provider: Provider) -> None:
    tokens = [provider.token(jti=str(number)) for number in range(2 * MAX_GENUINE + 1)]
    assert [provider.reason(each) for each in tokens + tokens] == [""] * (2 * len(tokens))
    assert len(provider.verifier.tokens._genuine) <= MAX_GENUINE


#: JSON values that a careless comparison takes for another one.
VALUES: tuple[Any, ...] = (True, False, None, 0, 1, 1.0, "true", "True", "1", "", "us", [True], ["us"], {"us": 1}, {})


@pytest.mark.parametrize("expected", [True, False, "true", "1", "us"])
@pytest.mark.parametrize("name", ["own", "https://issuer.example/own"])
def test_a_claim_is_accepted_only_if_it_is_the_same_value_of_the_same_json_type(name: str, expected: Any) -> None:
    provider = Provider(**{name: expected})
    for value in VALUES:
        same = type(value) is type(expected) and value == expected
        assert provider.reason(provider.token(**{name: value})) == ("" if same else Reason.CLAIM_MISMATCH), value
    assert provider.reason(provider.token()) == Reason.CLAIM_MISMATCH


def test_an_audience_may_be_a_list_that_holds_the_value() -> None:
    provider = Provider()
    assert provider.reason(provider.token(aud=["them", "us"])) == ""
    assert provider.reason(provider.token(aud=["them"])) == Reason.CLAIM_MISMATCH
