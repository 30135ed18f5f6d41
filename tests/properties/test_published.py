"""What holds for every sender that publishes its keys: where keys come from, what is raised, what a stranger can make it cost."""

import base64
import json
import re
import time
import warnings
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import joserfc.errors
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import import_key
from published_store import with_examples
from published_vectors import FOLDER, SENDERS, Vector, body_of, public_url_of, secrets_of, sender, target_of, verify_of
from rsa_key import rsa_key

from sidecar.config.presets import Verify, load_preset, preset_names
from sidecar.http1.head import RequestHead, make_head
from sidecar.outcomes import VERIFICATION, Reason, Rejected
from sidecar.secret import Secret
from sidecar.verify.jose import find_match, read_jwk, sign_token
from sidecar.verify.published import Document, KeyNeeded, KeySource
from sidecar.verify.scheme import Scheme
from sidecar.verify.token import MAX_BODY_TOKEN, MAX_TOKEN, TokenError, encode_base64url, read_object, read_token
from sidecar.verify.verifier import Verifier

examples = settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
PUBLISHED = [name for name in preset_names() if load_preset(name).published]
#: Hosts from which a preset may fetch: written down here a second time, so that a change of a preset is seen.
HOSTS = {
    "amazon-sns": r"amazonaws.com",
    "apple-app-store": "",
    "atlassian-connect-lifecycle": "connect-install-keys.atlassian.com",
    "azure-event-grid": "login.microsoftonline.com",
    "botframework": "login.botframework.com",
    "ebay": "api.ebay.com",
    "constant-contact": "developer.constantcontact.com",
    "fal": "rest.fal.ai",
    "fusionauth-jwks": "auth.example.com",
    "github-actions-oidc": "token.actions.githubusercontent.com",
    "google-chat": "www.googleapis.com",
    "google-chat-endpoint": "www.googleapis.com",
    "google-pubsub": "www.googleapis.com",
    "http-signature-jwks": "sender.example.com",
    "kinde": "acme.kinde.com",
    "microsoft-graph-rich": "login.microsoftonline.com",
    "oidc": "gitlab.example.com",
    "paypal": "api.paypal.com",
    "paypal-sandbox": "api.sandbox.paypal.com",
    "plaid": "production.plaid.com",
    "truelayer": "webhooks.truelayer.com",
    "truelayer-sandbox": "webhooks.truelayer-sandbox.com",
    "turnkey": "api.turnkey.com",
    "ucp": "merchant.example.com",
}
TRICKS = [
    "https://evil.example/", "http://", "//evil.example", "@evil.example", "\\", "#", "?", "/../", "%2e%2e", "\n", "\0", ".",
    ":8443",
    "api.paypal.com", "sns.us-east-1.amazonaws.com", ".cn", "|", "localhost", "127.0.0.1", "[::1]", "é", "\u2028",
]  # fmt: skip
hostile = st.lists(st.one_of(st.sampled_from(TRICKS), st.text(max_size=8)), max_size=6).map("".join)


class Watched:
    """A store that has nothing, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[KeySource] = []

    def get(self, source: KeySource) -> Document | None:
        self.asked.append(source)
        if source.form == "discovery":
            return Document(json.dumps({"jwks_uri": "https://evil.example/keys"}).encode(), 0.0)
        return None

    def used(self, source: KeySource) -> None:
        raise AssertionError("nothing verifies")

    async def refresh(self, source: KeySource) -> bool:
        return False


def scheme_of(preset: str) -> Scheme:
    scheme = Verify().read(with_examples(preset))
    assert isinstance(scheme, Scheme)
    return scheme


def judge(verifier: Verifier, head: RequestHead, body: bytes, now: float) -> Reason | None:
    """Why a delivery is rejected; anything but a rejection is a failure of the test."""
    try:
        verifier.verify(verifier.read_claim(head, now), head, [body])
    except (Rejected, KeyNeeded) as ended:
        reason = ended.reason
    else:
        return None
    assert reason in VERIFICATION | {Reason.KEY_UNAVAILABLE}
    return reason


def test_the_hosts_of_every_preset_are_known() -> None:
    assert HOSTS.keys() == set(PUBLISHED)


@pytest.mark.parametrize("preset", PUBLISHED)
@given(data=st.data())
@examples
def test_nothing_that_a_sender_writes_names_another_host(preset: str, data: st.DataObject) -> None:
    scheme, store = scheme_of(preset), Watched()
    verifier = Verifier(
        scheme, [Secret("s", b"k")] if preset == "plaid" else [], "https://hooks.example.com", published=store
    )
    token_head: dict[str, Any] = {"alg": (scheme.signature.algorithms or ("RS256",))[0], "kid": data.draw(hostile)}
    token_head |= {"jku": data.draw(hostile), "x5u": "https://evil.example/", "jwk": {"kty": "RSA"}}
    payload = {
        "iss": data.draw(hostile),
        "aud": "a",
        "ver": data.draw(st.sampled_from(["1.0", "2.0"])),
        "exp": 1e12,
        "iat": 1,
    }
    token = b".".join(encode_base64url(json.dumps(each).encode()) for each in (token_head, payload)) + b".AAAA"
    if scheme.signature.kind.detached:
        assert scheme.token is not None
        token_head |= dict(scheme.token.head) | {name: ",".join(listed) for name, listed in scheme.token.head_lists}
        token_head |= {"crit": ["b64"]} if "b64" in token_head else {}
        token_head |= {"ts": 1_700_000_000, data.draw(st.sampled_from(["x5u", "jku"])): data.draw(hostile)}
        token = encode_base64url(json.dumps(token_head).encode()) + b"..AAAA"
    url = data.draw(st.one_of(hostile, st.sampled_from(nearly(preset)).flatmap(bent)))
    document = {
        "Type": "Notification", "TopicArn": "arn:aws:sns:us-east-1:123456789012:MyTopic", "SignatureVersion": "2",
        "MessageId": "1", "Message": "m", "Timestamp": "t", "Signature": base64.b64encode(bytes(256)).decode(),
        "SigningCertURL": url, "signedPayload": token.decode(), "validationTokens": [token.decode()], "channelId": "a",
    }  # fmt: skip
    body = token if scheme.signature.body else json.dumps(document).encode()
    wrapped = {"alg": "ecdsa", "digest": "SHA1", "kid": data.draw(hostile), "signature": "AAAA"}
    values = {
        scheme.signature.header: (scheme.signature.prefix.encode() + token) if scheme.token else b"00" * 64,
        "PAYPAL-CERT-URL": url.encode("utf-8", "surrogatepass"),
        "x-amz-sns-message-type": b"Notification",
    }
    values |= {name: value.encode() for name, value in scheme.require}
    if scheme.signature.wrapped is not None:
        values[scheme.signature.header] = base64.b64encode(json.dumps(wrapped).encode())
    if preset.startswith("paypal"):
        values[scheme.signature.header] = base64.b64encode(bytes(256))
    values |= {
        name.decode(): b"1700000000"
        for name in scheme.headers
        if name.decode().lower() not in {n.lower() for n in values}
    }
    if scheme.listed is not None:
        covered = " ".join(f'"{each.name}"' for each in scheme.listed.required)
        key_id = re.sub(r'[^ -~]|["\\\\]', "", data.draw(hostile))
        values["Signature-Input"] = f'sig1=({covered});created=1700000000;keyid="{key_id}"'.encode()
        values["Signature"] = b"sig1=:AAAA:"
        values["Signature-Agent"] = values["UCP-Agent"] = b'profile="https://evil.example/.well-known/ucp"'
    headers = [(name.encode(), value) for name, value in values.items() if name]
    judge(verifier, make_head("POST", b"/hooks", headers, None), body, 1_700_000_000.0)
    for source in [*verifier.key_sources, *store.asked]:
        assert source.url.startswith("https://")
        parts = urlsplit(source.url)
        host = parts.netloc
        if preset == "amazon-sns":
            assert host.startswith("sns.")
            assert host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
            assert len(host.split(".")) in (4, 5)
        else:
            assert host == HOSTS[preset]
        assert not parts.query
        assert not parts.fragment
        assert source.url.isascii()
        assert "evil" not in source.url


def nearly(preset: str) -> list[str]:
    return [
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-00000000000000000000006aad65c2f9.pem",
        "https://api.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1",
    ]


def bent(url: str) -> st.SearchStrategy[str]:
    """`url` with something of a stranger's put in."""
    return st.tuples(st.integers(0, len(url)), st.one_of(st.just(""), hostile)).map(
        lambda it: url[: it[0]] + it[1] + url[it[0] :]
    )


VALID = {name: [each for each in sender(name)["vectors"] if each["want"] == "valid"] for name in SENDERS}


class Files:
    """The documents of a sender's vectors; for any other URL there is none."""

    def __init__(self, keys: dict[str, Any]) -> None:
        self._keys = keys
        self._made: dict[str, Document | None] = {}

    def get(self, source: KeySource) -> Document | None:
        name = f"{source.url}#{source.id}" if source.post else source.url
        if name not in self._made:
            served = self._keys.get(name, {})
            assert not served.get("trap")
            content = served.get("content")
            self._made[name] = Document(content.encode(), 0.0) if content else None
        return self._made[name]

    def used(self, source: KeySource) -> None:
        pass

    async def refresh(self, source: KeySource) -> bool:
        return False


def verifier_of(name: str, vector: Vector) -> Verifier:
    scheme = Verify().read(verify_of(name, vector))
    assert isinstance(scheme, Scheme)
    secrets = [Secret(key, text.encode()) for key, text in secrets_of(name, vector).items()]
    return Verifier(scheme, secrets, public_url_of(name, vector), published=Files(sender(name)["keys"]))


def mutated(data: st.DataObject, text: bytes) -> bytes:
    """`text` with a few bytes changed, removed or added, also by what parsers trip over."""
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        piece = data.draw(
            st.one_of(
                st.binary(max_size=3), st.sampled_from([b".", b"=", b"==", b"\0", b'"', b"[" * 100, b"{", b"\xff"])
            )
        )
        text = text[:at] + piece + text[at + data.draw(st.integers(0, 3)) :]
    return text


@pytest.mark.parametrize("name", SENDERS)
@given(data=st.data())
@examples
def test_a_mutated_delivery_raises_nothing_but_a_rejection_and_ends_soon(name: str, data: st.DataObject) -> None:
    vector = data.draw(st.sampled_from(VALID[name]))
    verifier = verifier_of(name, vector)
    headers = [(key.encode(), value.encode("latin-1", "replace")) for key, value in vector["headers"]]
    headers = [*headers, (b"Host", b"receiver.example")]
    body = body_of(vector)
    index = data.draw(st.integers(0, len(headers)))
    if index < len(headers):
        headers[index] = (headers[index][0], mutated(data, headers[index][1]))
    else:
        body = mutated(data, body)
    head = make_head(vector["method"], target_of(vector).encode(), headers, None)
    began = time.process_time()
    judge(verifier, head, body, vector["now"])
    assert time.process_time() - began < 0.25


def dear_tokens() -> Iterator[tuple[str, bytes]]:
    """Tokens that cost as much as possible for their size."""
    for size in (MAX_TOKEN, MAX_BODY_TOKEN):
        room = size * 3 // 4 - 400
        for what, unit, end in (
            ("nesting", b"[", b""), ("empty objects", b"{},", b""), ("members", b'"a":1,', b""), ("numbers", b"1,", b""),
            ("digits", b"1", b""), ("escapes", rb"\u0041", b'"'), ("quotes", b'""', b""), ("backslashes", b"\\\\", b'"'),
        ):  # fmt: skip
            yield f"{what}, {size}", encode_base64url(b'{"a":[' + unit * (room // len(unit)) + end + b"]}")
    yield "dots", b"." * MAX_BODY_TOKEN
    yield "underscores", b"_" * MAX_BODY_TOKEN


@pytest.mark.parametrize(("what", "part"), [pytest.param(*case, id=case[0]) for case in dear_tokens()])
def test_no_token_costs_more_than_its_bound(what: str, part: bytes) -> None:
    for text in (part + b".e30.AAAA", b"e30." + part + b".AAAA"):
        began = time.process_time()
        try:
            token = read_token(text, most=MAX_BODY_TOKEN)
            read_object(token.payload, "payload")
        except TokenError:
            pass
        # 256 KiB of JSON is some 10 ms; a delivery's worst is in docs/reliability.md.
        assert time.process_time() - began < 0.1


# -- against PyJWT and joserfc --

KEYS: dict[str, Any] = {
    "RS256": rsa_key(),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
KEYS |= {"PS256": KEYS["RS256"], "HS256": b"a shared secret of forty bytes, or nearly"}
claims = st.dictionaries(
    st.sampled_from(["sub", "aud", "jti", "x"]),
    st.one_of(st.text(max_size=5), st.integers(0, 9), st.booleans()),
    max_size=3,
)


def ours(algorithm: str, text: bytes) -> dict[str, Any] | None:
    """What we take a token for; None if it is rejected."""
    try:
        token = read_token(text)
        payload = read_object(token.payload, "payload")
    except TokenError:
        return None
    if token.head.get("alg") != algorithm or "crit" in token.head or "b64" in token.head:
        return None
    key = KEYS[algorithm] if algorithm == "HS256" else KEYS[algorithm].public_key()
    return payload if find_match(algorithm, [("it", key)], token.signature, [token.signed]) else None


def theirs(algorithm: str, text: bytes) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """What PyJWT and joserfc take it for."""
    key = KEYS[algorithm]
    public = key if algorithm == "HS256" else key.public_key()
    options: Any = {f"verify_{name}": False for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}
    try:
        one = jwt.decode(text, public, [algorithm], options=options)
    except jwt.PyJWTError:
        one = None
    name = "oct" if algorithm == "HS256" else "OKP" if algorithm == "EdDSA" else "EC" if algorithm == "ES256" else "RSA"
    pem = key if algorithm == "HS256" else key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    imported: Any = import_key(pem, name)  # type: ignore[call-overload]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # RFC 9864 deprecates the name EdDSA, which senders write
            other = json.loads(jws.deserialize_compact(text, imported, [algorithm]).payload)
    except (joserfc.errors.JoseError, ValueError, RecursionError):
        other = None
    return one, other


@pytest.mark.parametrize("algorithm", KEYS)
@given(data=st.data(), payload=claims)
@settings(deadline=None, max_examples=25)
def test_pyjwt_and_joserfc_accept_what_we_sign_and_whatever_we_accept(
    algorithm: str, data: st.DataObject, payload: dict[str, Any]
) -> None:
    head = {"alg": algorithm, "typ": "JWT"}
    signed = b".".join(encode_base64url(json.dumps(each).encode()) for each in (head, payload))
    token = signed + b"." + encode_base64url(sign_token(algorithm, KEYS[algorithm], signed))
    assert ours(algorithm, token) == payload
    assert theirs(algorithm, token) == (payload, payload)
    changed = mutated(data, token)
    accepted = ours(algorithm, changed)
    if accepted is not None:
        assert theirs(algorithm, changed) == (accepted, accepted)


@given(
    jwk=st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "n", "e", "kid", "alg", "use", "key_ops", "k", "d"]),
        st.one_of(
            st.text(max_size=9),
            st.integers(),
            st.none(),
            st.lists(st.text(max_size=3)),
            st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "AQAB", "sig", "AA" * 22]),
        ),
    )
)
def test_any_jwk_is_a_key_or_none(jwk: dict[str, Any]) -> None:
    key = read_jwk(jwk)
    assert key is None or key.fits("RS256") or key.fits("ES256") or key.fits("EdDSA")


def test_every_file_of_vectors_is_used() -> None:
    assert {file.stem for file in FOLDER.iterdir()} == set(SENDERS)
    assert all(VALID.values())
