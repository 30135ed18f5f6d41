"""A token in the query or in the last segment of the path."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.scheme_keys import SCHEME
from sidecar.http1.head import RequestHead, make_head
from sidecar.http1.upstream import UpstreamAddress
from sidecar.outcomes import DEFAULT_REJECTION, Reason, Rejected
from sidecar.routing.routes import Route, RouteTable
from sidecar.secret import Secret
from sidecar.verify.keys import KeyFormError
from sidecar.verify.sign import SigningError, sign_delivery
from sidecar.verify.verifier import Verifier

QUERY = SCHEME.read({"signature": {"query": "token", "kind": "token"}})
PATH = SCHEME.read({"signature": {"path": "last", "kind": "token"}})
SEGMENT = st.from_regex(r"[A-Za-z0-9._~-]*[A-Za-z0-9][A-Za-z0-9._~-]*", fullmatch=True)


def head_of(url: str) -> RequestHead:
    return make_head("POST", b"/" + url.partition("://")[2].partition("/")[2].encode(), [], None)


def accepts(scheme: Any, secret: bytes, url: str) -> bool:
    verifier, head = Verifier(scheme, [Secret("s", secret)]), head_of(url)
    try:
        verifier.verify(verifier.read_claim(head, 0.0), head, [b""])
    except Rejected:
        return False
    return True


@given(st.binary(min_size=1, max_size=40), st.sampled_from(["", "?a=1", "?a=b&c", "?tokens=1&xtoken=2"]))
def test_what_we_sign_into_the_query_we_verify_and_a_forgery_we_reject(secret: bytes, query: str) -> None:
    url = "https://h/hooks" + query
    for forged in (False, True):
        signed = sign_delivery(QUERY, Secret("s", secret), body=b"", now=0.0, url=url, forged=forged)
        assert signed.url.startswith(url)
        assert (signed.headers, signed.body) == ([], b"")
        assert accepts(QUERY, secret, signed.url) is not forged


@given(SEGMENT, st.sampled_from(["", "?a=1", "?a=/x"]), st.sampled_from(["", "/"]))
def test_what_we_sign_into_the_path_we_verify_and_a_forgery_we_reject(secret: str, query: str, slash: str) -> None:
    for forged in (False, True):
        signed = sign_delivery(
            PATH, Secret("s", secret.encode()), body=b"", now=0.0, url=f"https://h/hooks{slash}{query}", forged=forged
        )
        assert signed.url.endswith(query)
        assert accepts(PATH, secret.encode(), signed.url) is not forged


def reject_claim(verifier: Verifier, head: RequestHead) -> Rejected | None:
    try:
        verifier.match(verifier.read_claim(head, 0.0), head, [b""])
    except Rejected as rejected:
        return rejected
    return None


@given(st.binary(max_size=200).map(lambda text: b"/" + text), st.sampled_from([QUERY, PATH]))
def test_any_target_raises_nothing_but_a_rejection(target: bytes, scheme: Any) -> None:
    verifier, head = Verifier(scheme, [Secret("s", b"secret")]), make_head("POST", target, [], None)
    rejected = reject_claim(verifier, head)
    if rejected is not None:
        assert rejected.reason in (Reason.SIGNATURE_MISSING, Reason.SIGNATURE_MALFORMED)
        assert "secret" not in rejected.detail


def test_a_token_needs_a_url_to_be_in() -> None:
    with pytest.raises(SigningError, match="give the URL"):
        sign_delivery(QUERY, Secret("s", b"x"), body=b"", now=0.0)


@pytest.mark.parametrize("secret", [b".", b"..", b"a/b", b"a%41", b"a;b", b"a b", b"\xc3\xa9", b"a\n"])
def test_a_secret_that_no_path_can_hold_is_no_key(secret: bytes) -> None:
    with pytest.raises(KeyFormError, match="segment"):
        Verifier(PATH, [Secret("s", secret)])


def route(path: str, scheme: Any = None, *hosts: bytes) -> Route:
    return Route(
        hosts=hosts,
        name=path,
        path=path.removesuffix("*").encode(),
        prefix=path.endswith("*"),
        methods=frozenset({"POST"}),
        upstream=UpstreamAddress("http", "h", 1, ""),
        body_limit=1,
        rejection=DEFAULT_REJECTION,
        verifier=Verifier(scheme, [Secret("s", b"secret")]) if scheme is not None else None,
    )


@given(st.lists(st.sampled_from(["a", "b", "", "..", "secret", "%2e"]), max_size=6), st.sampled_from(["", "/"]))
def test_no_path_with_the_token_below_its_route_or_beside_it_is_shown(segments: list[str], slash: str) -> None:
    table = RouteTable([route("/hooks/acr/*", PATH), route("/plain/*")])
    path = "/".join(["", *segments, "secret"]) + slash
    shown = table.shown_path(path.encode()).decode()
    if segments[:1] != ["plain"] and segments[:1] != ["secret"]:
        assert "secret" not in shown
    assert table.shown_path(b"/hooks/acr" + path.encode()) == b"/hooks/acr/***" or b"secret" not in table.shown_path(
        b"/hooks/acr" + path.encode()
    )


def test_other_paths_are_shown_as_they_are() -> None:
    table = RouteTable([route("/hooks/acr/*", PATH), route("/plain/*"), route("/exact")])
    assert table.shown_path(b"/plain/a/b") == b"/plain/a/b"
    assert table.shown_path(b"/exact") == b"/exact"
    assert table.shown_path(b"/hooks/acr/x") == b"/hooks/acr/***"
    assert table.shown_path(b"/hook/acr/x") == b"/hook/***"
    assert table.shown_path(b"/x") == b"/***"
    assert RouteTable([route("/plain/*")]).shown_path(b"/nowhere/x") == b"/nowhere/x"


def test_a_token_in_the_path_is_hidden_on_whatever_host_its_route_is() -> None:
    """A mistyped Host must not bring it into the log."""
    table = RouteTable(
        [
            route("/hooks/acr/*", PATH, b"a.example"),
            route("/hooks/quay/*", PATH, b"*.b.example"),
            route("/plain/*", None, b"a.example"),
        ]
    )
    assert table.shown_path(b"/hooks/acr/secret") == b"/hooks/acr/***"
    assert table.shown_path(b"/hooks/quay/secret") == b"/hooks/quay/***"
    assert table.shown_path(b"/hook/quay/secret") == b"/hook/***"
    assert table.shown_path(b"/plain/a") == b"/plain/a"
