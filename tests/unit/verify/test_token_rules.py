"""The rules that implementers of tokens and published keys get wrong, each with the deliveries that show it and its reason."""

import json
from typing import Any

import jwt
import pytest
from published_vectors import FakeStore, Vector, body_of, public_url_of, secrets_of, sender, target_of, verify_of

from sidecar.config.presets import Verify
from sidecar.http1.head import make_head
from sidecar.outcomes import Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.published import Document, KeyNeeded, KeySource, linked_source
from sidecar.verify.scheme import Scheme
from sidecar.verify.token import TokenError, decode_base64url, read_object, read_token
from sidecar.verify.verifier import Verified, Verifier

MALFORMED, CLAIM, UNKNOWN = "signature_malformed", "claim_mismatch", "key_unknown"


def reason_of(name: str, vector: Vector, **changes: Any) -> str:
    scheme = Verify().read(verify_of(name, vector) | changes)
    assert isinstance(scheme, Scheme)
    secrets = [Secret(f"s{number}", text.encode()) for number, text in enumerate(secrets_of(name, vector))]
    store = FakeStore(sender(name)["keys"])
    verifier = Verifier(scheme, secrets, public_url_of(name, vector), published=store)
    headers = [(key.encode(), value.encode("latin-1")) for key, value in vector["headers"]]
    head = make_head(vector["method"], target_of(vector).encode(), headers, None)
    try:
        verifier.verify(verifier.read_claim(head, vector["now"]), head, [body_of(vector)])
    except (Rejected, KeyNeeded) as ended:
        return ended.reason
    return ""


def find(name: str, case: str) -> Vector:
    return next(vector for vector in sender(name)["vectors"] if case in vector["case"])


@pytest.mark.parametrize(
    ("rule", "name", "case", "reason"),
    [
        ("audience is checked", "google-pubsub", "aud of another receiver", CLAIM),
        ("audience is compared whole", "google-pubsub", "aud begins like ours", CLAIM),
        ("issuer is checked", "google-pubsub", "iss of another issuer", CLAIM),
        ("issuer is not a list", "github-actions-oidc", "iss is a list", CLAIM),
        ("Google's email names the caller", "google-pubsub", "no email claim", CLAIM),
        ("Google's email_verified is true", "google-pubsub", "email not verified", CLAIM),
        ("kid is never a path", "google-pubsub", "kid unknown, with a path in it", UNKNOWN),
        ("kid is never a URL", "atlassian-connect", "kid with a path to another host", UNKNOWN),
        ("kid is text", "google-pubsub", "kid is an object", MALFORMED),
        ("kid is required", "google-pubsub", "kid missing", MALFORMED),
        ("jku is not read", "google-pubsub", "jku on a look-alike host", UNKNOWN),
        ("x5u is not read", "github-actions-oidc", "x5u points", UNKNOWN),
        ("jwk is not read", "github-actions-oidc", "jwk in the head under the published kid", "signature_mismatch"),
        ("HS256 with a public key", "google-pubsub", "algorithm confusion", MALFORMED),
        ("duplicate members", "github-actions-oidc", "aud twice in the payload", MALFORMED),
        ("crit", "google-pubsub", "crit names an unknown extension", MALFORMED),
        ("alg none", "google-pubsub", "alg none, no signature", MALFORMED),
        ("extra parts", "github-actions-oidc", "four segments", MALFORMED),
        ("look-alike host of a certificate", "paypal", "certificate URL on a look-alike host", UNKNOWN),
        ("look-alike host of SNS", "amazon-sns", "amazonaws.com.evil.example", UNKNOWN),
        ("expired certificate", "paypal", "expired certificate", UNKNOWN),
        ("certificate that is not valid yet", "amazon-sns", "certificate not yet valid", UNKNOWN),
        ("leaf without the right name", "paypal", "certificate of another CN", UNKNOWN),
        ("leaf that is no authority", "paypal", "certificate issued by PayPal's leaf", UNKNOWN),
        ("intermediate without its OID", "apple-app-store", "intermediate without its OID", UNKNOWN),
        ("skew is bounded", "botframework", "expired just past the clock skew", "timestamp_too_old"),
        ("issued in the future", "google-pubsub", "iat in an hour", "timestamp_in_future"),
        ("endorsements of the key", "botframework", "Teams activity under a key endorsed for web chat", CLAIM),
        ("issuer of the key", "microsoft-graph-rich", "consumers' tenant only", CLAIM),
        ("topic of somebody else", "amazon-sns", "TopicArn of somebody else's topic", MALFORMED),
    ],
)  # fmt: skip
def test_a_rule_rejects_for_its_own_reason(rule: str, name: str, case: str, reason: str) -> None:
    vector = find(name, case)
    assert vector["want"] == "invalid"
    assert reason_of(name, vector) == reason, rule


def test_an_expired_token_is_accepted_within_the_skew_and_not_without() -> None:
    vector = find("botframework", "expired, but within the clock skew")
    assert reason_of("botframework", vector) == ""
    assert reason_of("botframework", vector, skew="none") == "timestamp_too_old"


def test_claims_that_a_route_adds_hold_besides_those_of_the_preset() -> None:
    vector = find("github-actions-oidc", "valid")
    assert reason_of("github-actions-oidc", vector, claims={"event_name": ["push", "release"]}) == ""
    assert reason_of("github-actions-oidc", vector, claims={"event_name": "release"}) == CLAIM
    vector = find("azure-event-grid", "valid")
    assert reason_of("azure-event-grid", vector, claims={"appidacr": "2"}) == ""
    assert reason_of("azure-event-grid", vector, claims={"appidacr": 2}) == CLAIM


def fingerprint(name: str, vector: Vector, **changes: Any) -> bytes:
    changed = vector | changes
    secrets = [Secret("s", text.encode()) for text in secrets_of(name, vector)]
    scheme = Verify().read(verify_of(name, vector))
    assert isinstance(scheme, Scheme)
    verifier = Verifier(scheme, secrets[:1], public_url_of(name, vector), published=FakeStore(sender(name)["keys"]))
    headers = [(key.encode(), value.encode("latin-1")) for key, value in changed["headers"]]
    head = make_head("POST", target_of(vector).encode(), headers, None)
    claim = verifier.read_claim(head, vector["now"])
    return verifier.fingerprint(claim, head, [body_of(changed)], scope="r", url=b"")


def test_a_copy_is_known_by_what_is_signed_and_never_by_its_signature() -> None:
    plaid = find("plaid", "valid")
    twin = find("plaid", "s replaced by n - s")
    own = next(value for key, value in plaid["headers"] if key == "Plaid-Verification").rpartition(".")[0]
    other = next(value for key, value in twin["headers"] if key == "Plaid-Verification").rpartition(".")[0]
    assert (own == other) == (fingerprint("plaid", plaid) == fingerprint("plaid", twin))
    changed = [[key, value.rpartition(".")[0] + ".AAAA" if "." in value else value] for key, value in plaid["headers"]]
    assert fingerprint("plaid", plaid, headers=changed) == fingerprint("plaid", plaid)


def test_one_token_with_two_bodies_is_two_deliveries_where_nothing_binds_the_body() -> None:
    vector = find("google-pubsub", "valid")
    assert fingerprint("google-pubsub", vector) != fingerprint("google-pubsub", vector, body='{"another":1}')
    assert fingerprint("google-pubsub", vector) == fingerprint("google-pubsub", vector)


def test_a_signed_id_makes_two_bodies_one_delivery() -> None:
    vector = find("qstash", "valid")
    assert fingerprint("qstash", vector) == fingerprint("qstash", vector, body="another")


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("https://acme.example/keys", True),
        ("https://keys.acme.example/keys", True),
        ("https://evil.example/keys", False),
        ("https://acme.example.evil.example/keys", False),
        ("https://acme.example@evil.example/keys", False),
        ("https://acme.example:8443/keys", False),
        ("https://ACME.example/keys", False),
        ("http://acme.example/keys", False),
        ("https://acme.example/keys?x=1", False),
        ("https://acme.example/keys#x", False),
        ("https://acme.example\\@evil.example/", False),
        (5, False),
        (None, False),
    ],
)
def test_a_discovery_document_leads_to_its_own_host_and_listed_ones_only(uri: Any, allowed: bool) -> None:
    source = KeySource(
        "https://acme.example/.well-known/openid-configuration", "a", form="discovery", hosts=("keys.acme.example",)
    )
    linked = linked_source(source, Document(json.dumps({"jwks_uri": uri}).encode(), 0.0))
    assert (linked is not None) == allowed
    if linked is not None:
        assert (linked.url, linked.form, linked.name) == (uri, "jwks", "a")


@pytest.mark.parametrize(
    "text", [b"", b".", b"..", b"a.b", b"a.b.c.d", b"e30=.e30.AA", b"e30.e30.AB", b"e3 0.e30.AA", b"W10.e30.AA"]
)
def test_what_is_not_a_token_is_rejected(text: bytes) -> None:
    with pytest.raises(TokenError):
        read_token(text)


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"1",
        b'{"a":NaN}',
        b'{"a":1e400}',
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b"\xff{}",
        b'{"a":' + b"[" * 33 + b"]" * 33 + b"}",
    ],
)
def test_what_two_parsers_could_read_differently_is_rejected(text: bytes) -> None:
    with pytest.raises(TokenError):
        read_object(text, "payload")


def test_nesting_is_not_counted_in_strings() -> None:
    assert read_object(b'{"a":"' + b"[{" * 100 + rb"\"[" + b'"}', "payload")["a"].startswith("[{")
    assert decode_base64url(b"AA") == b"\0"


@pytest.mark.parametrize("name", ["keys", "when"])
def test_a_claim_that_has_the_name_of_a_key_of_a_choice_is_checked(name: str) -> None:
    scheme = Verify().read(
        {
            "signature": {"kind": "jwt", "header": "X-Token", "algorithms": ["HS256"]},
            "claims": {"iss": "acme", name: "this"},
            "binds_body": False,
        }
    )
    assert isinstance(scheme, Scheme)
    secret = "0123456789abcdef0123456789abcdef"
    verifier = Verifier(scheme, [Secret("key", secret.encode())])

    def verify(value: str) -> Verified:
        token = jwt.encode({"iss": "acme", name: value}, secret, "HS256").encode()
        head = make_head("POST", b"/", [(b"X-Token", token)], None)
        return verifier.verify(verifier.read_claim(head, 0.0), head, [b""])

    assert verify("this").secret_id == "key"
    with pytest.raises(Rejected) as rejected:
        verify("another")
    assert rejected.value.reason is Reason.CLAIM_MISMATCH
