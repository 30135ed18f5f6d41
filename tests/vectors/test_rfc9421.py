"""The requests of RFC 9421, appendix B, that tests/vectors/published/rfc9421.json lacks: each verifies as printed there."""

import pytest
from published_vectors import sender

from sidecar.config.presets import Verify
from sidecar.http1.head import make_head
from sidecar.outcomes import Rejected
from sidecar.secret import Secret
from sidecar.verify.scheme import Scheme
from sidecar.verify.verifier import Verifier

NOW = 1618884473
#: B.2: the request that most of them sign.
TEST_REQUEST = [
    ("Host", "example.com"),
    ("Date", "Tue, 20 Apr 2021 02:07:55 GMT"),
    ("Content-Type", "application/json"),
    (
        "Content-Digest",
        "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:",
    ),
    ("Content-Length", "18"),
]
BODY = b'{"hello": "world"}'
CLIENT_CERT = (
    ":MIIBqDCCAU6gAwIBAgIBBzAKBggqhkjOPQQDAjA6MRswGQYDVQQKDBJMZXQncyBBdXRoZW50aWNhdGUxGzAZBgNVBAMMEkxBIEludGVybWVkaWF0ZSBD"
    "QTAeFw0yMDAxMTQyMjU1MzNaFw0yMTAxMjMyMjU1MzNaMA0xCzAJBgNVBAMMAkJDMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8YnXXfaUgmnMtOXU"
    "/IncWalRhebrXmckC8vdgJ1p5Be5F/3YC8OthxM4+k1M6aEAEFcGzkJiNy6J84y7uzo9M6NyMHAwCQYDVR0TBAIwADAfBgNVHSMEGDAWgBRm3WjLa38l"
    "bEYCuiCPct0ZaSED2DAOBgNVHQ8BAf8EBAMCBsAwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQYDVR0RAQH/BBMwEYEPYmRjQGV4YW1wbGUuY29tMAoGCCqG"
    "SM49BAMCA0gAMEUCIBHda/r1vaL6G3VliL4/Di6YK0Q6bMjeSkC3dFCOOB8TAiEAx/kHSB4urmiZ0NX5r5XarmPk0wmuydBVoU4hBVZ1yhk=:"
)
#: B.4: the request, and what may and may not happen to it on the way.
TRANSFORM = (
    'transform=("@method" "@path" "@authority" "accept");created=1618884473;keyid="test-key-ed25519"',
    "transform=:ZT1kooQsEHpZ0I1IjCqtQppOmIqlJPeo7DHR3SoMn0s5JZ1eRGS0A+vyYP9t/LXlh5QMFFQ6cpLt2m0pmj3NDA==:",
)
DEMO = "https://example.org/demo?name1=Value1&Name2=value2"
DATE = ("Date", "Fri, 15 Jul 2022 14:24:55 GMT")
TWO_ACCEPTS = [("Accept", "application/json"), ("Accept", "*/*")]

Case = tuple[str, str, list[tuple[str, str]], bytes]


def accepted(key_id: str, algorithm: str, case: Case) -> bool:
    method, url, headers, body = case
    origin, target = url[: url.index("/", 8)], url[url.index("/", 8) :]
    shared = algorithm == "hmac-sha256"
    made: dict[str, object] = {"preset": "http-signature", "required": [], "binds_body": False, "algorithms": algorithm}
    scheme = Verify().read(made | ({"key": "base64"} if shared else {}))
    assert isinstance(scheme, Scheme)
    key = sender("rfc9421")["settings"]["configured"][key_id]
    verifier = Verifier(scheme, [Secret(key_id, (key["base64"] if shared else key).encode())], origin)
    head = make_head(method, target.encode(), [(name.encode(), value.encode()) for name, value in headers], None)
    try:
        return verifier.verify(verifier.read_claim(head, NOW), head, [body]).secret_id == key_id
    except Rejected:
        return False


def with_signature(headers: list[tuple[str, str]], signature_input: str, signature: str) -> list[tuple[str, str]]:
    return [*headers, ("Signature-Input", signature_input), ("Signature", signature)]


def test_b_2_2_selective_covered_components() -> None:
    headers = with_signature(
        TEST_REQUEST,
        'sig-b22=("@authority" "content-digest" "@query-param";name="Pet")'
        ';created=1618884473;keyid="test-key-rsa-pss";tag="header-example"',
        "sig-b22=:LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4"
        "+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fj"
        "BSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjH"
        "Sw==:",
    )
    url = "https://example.com/foo?param=Value&Pet=dog"
    assert accepted("test-key-rsa-pss", "rsa-pss-sha512", ("POST", url, headers, BODY))
    assert not accepted("test-key-rsa-pss", "rsa-v1_5-sha256", ("POST", url, headers, BODY))
    assert not accepted("test-key-rsa-pss", "rsa-pss-sha512", ("POST", url.replace("dog", "cat"), headers, BODY))
    assert not accepted("test-key-rsa-pss", "rsa-pss-sha512", ("POST", url, headers, BODY + b"\n"))


def test_b_2_5_a_shared_secret() -> None:
    headers = with_signature(
        TEST_REQUEST,
        'sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"',
        "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
    )
    case = ("POST", "https://example.com/foo?param=Value&Pet=dog", headers, BODY)
    assert accepted("test-shared-secret", "hmac-sha256", case)
    assert not accepted("test-shared-secret", "hmac-sha256", (*case[:2], [*headers, ("Date", "x")], BODY))


def test_b_3_a_proxy_that_ends_tls() -> None:
    headers = [("Host", "service.internal.example"), *TEST_REQUEST[1:3], ("Client-Cert", CLIENT_CERT)]
    headers = with_signature(
        headers,
        'ttrp=("@path" "@query" "@method" "@authority" "client-cert");created=1618884473;keyid="test-key-ecc-p256"',
        "ttrp=:xVMHVpawaAC/0SbHrKRs9i8I3eOs5RtTMGCWXm/9nvZzoHsIg6Mce9315T6xoklyy0yzhD9ah4JHRwMLOgmizw==:",
    )
    url = "https://service.internal.example/foo?param=Value&Pet=dog"
    assert accepted("test-key-ecc-p256", "ecdsa-p256-sha256", ("POST", url, headers, BODY))
    other = [(name, value.replace("MIIB", "MIIC")) for name, value in headers]
    assert not accepted("test-key-ecc-p256", "ecdsa-p256-sha256", ("POST", url, other, BODY))


@pytest.mark.parametrize(
    ("method", "url", "headers", "survives"),
    [
        ("GET", DEMO, [("Host", "example.org"), DATE, *TWO_ACCEPTS], True),
        ("GET", f"{DEMO}&param=added", [("Host", "example.org"), DATE, *TWO_ACCEPTS, ("Accept-Language", "en")], True),
        ("GET", DEMO, [("Host", "example.org"), ("Referer", "https://developer.example.org/"), *TWO_ACCEPTS], True),
        ("GET", DEMO, [("Accept", "application/json, */*"), DATE, ("Host", "example.org")], True),
        ("POST", DEMO.replace("org", "com"), [("Host", "example.com"), DATE, *TWO_ACCEPTS], False),
        ("GET", DEMO, [("Host", "example.org"), DATE, *TWO_ACCEPTS[::-1]], False),
    ],
)
def test_b_4_which_transformations_a_signature_survives(
    method: str, url: str, headers: list[tuple[str, str]], survives: bool
) -> None:
    case = (method, url, with_signature(headers, *TRANSFORM), b"")
    assert accepted("test-key-ed25519", "ed25519", case) is survives
