"""Which route takes a path, which paths may stand side by side, and who may come in."""

import time
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from sidecar.http1.upstream import UpstreamAddress
from sidecar.outcomes import DEFAULT_REJECTION, Reason, Rejected
from sidecar.routing.access import Waived, admit, waive
from sidecar.routing.client_ip import Client
from sidecar.routing.networks import Networks
from sidecar.routing.routes import RouteTable, find_overlaps

SOMEBODY = Client(ip_address("192.0.2.1"), "192.0.2.1", False)


@pytest.fixture
def find(make_route: Any) -> Any:
    """The pattern of the route that takes a path; None if no route does."""

    def find(patterns: list[str], path: bytes) -> str | None:
        table = RouteTable(make_route(pattern) for pattern in patterns)
        found = table.find(path)
        if isinstance(found, Rejected):
            return None if found.reason is Reason.NO_ROUTE else found.reason
        return found.pattern

    return find


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (b"/teams/a%2Fb", "/teams/* is above this path, but accepts no path with the escape %2F"),
        (b"/teams/a%5cb", "/teams/* is above this path, but accepts no path with the escape %5c"),
        (b"/teams/a\\b", "/teams/* is above this path, but accepts no path with a backslash"),
        (b"/teams//b", "/teams/* is above this path, but accepts no path with an empty segment"),
        (b"/teams/../b", "/teams/* is above this path, but accepts no path with a dot segment"),
        (b"/other/../b", "no route has this path"),
        (b"/teams", "no route has this path"),
    ],
)
def test_the_rule_that_keeps_a_path_out_is_named(make_route: Any, path: bytes, why: str) -> None:
    table = RouteTable(map(make_route, ["/hooks/acme", "/teams/*"]))
    found = table.find(path)
    assert isinstance(found, Rejected)
    assert found.detail.startswith(why)


def test_a_long_path_costs_little(make_route: Any) -> None:
    """A lookup at each of 16,000 slashes took 18 ms a path."""
    table = RouteTable(map(make_route, ["/hooks/*", "/teams/*", "/deep/er/*"]))
    began = time.process_time()
    for path in (b"/" * 16_000, b"/a" * 8000, b"/" + b"a" * 16_000):
        for _ in range(100):
            assert isinstance(table.find(path), Rejected)
    assert time.process_time() - began < 0.5


PATTERNS = ["/", "/hooks/acme", "/hooks/%C3%A9", "/teams/*", "/deep/er/*"]


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        (b"/", "/"),
        (b"/hooks/acme", "/hooks/acme"),
        (b"/hooks/%C3%A9", "/hooks/%C3%A9"),
        (b"/teams/", "/teams/*"),
        (b"/teams/a", "/teams/*"),
        (b"/teams/a/b/c/", "/teams/*"),
        (b"/teams/a.b/..c/d../.e/...", "/teams/*"),
        (b"/teams/a;x=1/b%20c%41", "/teams/*"),
        (b"/deep/er/still", "/deep/er/*"),
    ],
)
def test_a_route_takes_its_own_path_or_everything_below_its_prefix(find: Any, path: bytes, pattern: str) -> None:
    assert find(PATTERNS, path) == pattern


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"//",
        b"/hooks",
        b"/hooks/",
        b"/hooks/acme/",
        b"/hooks/acme/x",
        b"/HOOKS/acme",
        b"/hooks/acm",
        b"/hooks/acme2",
        b"/hooks/%61cme",
        b"/hooks/%c3%a9",
        b"/hooks/./acme",
        b"/hooks//acme",
        b"/teams",
        b"/teamsters",
        b"/Teams/a",
        b"/deep/",
        b"/deep/x",
        b"/x/teams/a",
        b"teams/a",
    ],
)
def test_paths_are_compared_raw_and_nothing_is_decoded_or_normalised(find: Any, path: bytes) -> None:
    assert find(PATTERNS, path) is None


@pytest.mark.parametrize(
    "rest",
    [
        b".",
        b"..",
        b"./a",
        b"../a",
        b"a/..",
        b"a/../b",
        b"a/./b",
        b"..;x/admin",
        b"..;/admin",
        b".;a=1/b",
        b"a/..;x",
        b"/a",
        b"a//b",
        b"a\\b",
        b"..\\a",
        b"%2e%2e/a",
        b"%2E./a",
        b"a/.%2e",
        b"a%2fb",
        b"a%2Fb",
        b"a%5cb",
        b"a%5Cb",
        b"a%252fb",
        b"%25",
        b"a%00",
    ],
)
def test_below_a_prefix_a_path_that_receivers_read_in_two_ways_has_no_route(find: Any, rest: bytes) -> None:
    assert find(["/teams/*"], b"/teams/" + rest) is None
    assert find(["/*"], b"/teams/" + rest) is None


@pytest.mark.parametrize("path", [b"/a%2Fb", b"/a%25", b"/a%5Cb"])
def test_an_exact_route_may_hold_escapes_because_it_matches_nothing_else(find: Any, path: bytes) -> None:
    assert find([path.decode()], path) == path.decode()


def test_a_prefix_of_everything_takes_everything(find: Any) -> None:
    assert find(["/*"], b"/") == "/*"
    assert find(["/*"], b"/a/b") == "/*"
    assert find(["/*"], b"a") is None


def test_without_routes_nothing_is_found(find: Any) -> None:
    assert find([], b"/") is None


@pytest.mark.parametrize(
    ("patterns", "pairs"),
    [
        ([], []),
        (["/a", "/b", "/a/b", "/a/"], []),
        (["/a", "/a/*"], []),
        (["/ab", "/a/*", "/a-b", "/a.b/*"], []),
        (["/a/*", "/b/*", "/ab/*"], []),
        (["/a", "/a"], [(0, 1)]),
        (["/a", "/b", "/a", "/a"], [(0, 2), (2, 3)]),
        (["/a/*", "/a/*"], [(0, 1)]),
        (["/a/*", "/a/"], [(0, 1)]),
        (["/a/", "/a/*"], [(0, 1)]),
        (["/a/b/c", "/a/*"], [(0, 1)]),
        (["/a/*", "/a/b/*"], [(0, 1)]),
        (["/*", "/x"], [(0, 1)]),
        (["/x", "/y/*", "/*"], [(0, 2), (1, 2)]),
        (["/a/*", "/a/b/*", "/a/b/c", "/a/d"], [(0, 1), (0, 3), (1, 2)]),
    ],
)
def test_find_overlaps_finds_the_paths_that_have_a_request_in_common(
    make_route: Any, patterns: list[str], pairs: list[tuple[int, int]]
) -> None:
    assert find_overlaps([make_route(pattern) for pattern in patterns]) == pairs


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (("http", "127.0.0.1", 3000, ""), "http://127.0.0.1:3000"),
        (("https", "2001:db8::1", 443, ""), "https://[2001:db8::1]:443"),
        (("unix", "localhost", 0, "/run/app.sock"), "unix:/run/app.sock"),
    ],
)
def test_an_upstream_address_is_shown_as_it_is_configured(fields: tuple[str, str, int, str], text: str) -> None:
    assert str(UpstreamAddress(*fields)) == text


def test_a_route_shows_its_pattern_its_secrets_ids_and_its_methods(make_route: Any) -> None:
    route = make_route("/a/*", secrets=["next", "current"], methods=frozenset({"PUT", "POST"}))
    assert (route.pattern, route.secret_ids, route.allow_header) == ("/a/*", ["next", "current"], b"POST, PUT")
    assert make_route("/a", secrets=[]).secret_ids == []
    assert make_route("/a").rejection == DEFAULT_REJECTION == (403, b'{"detail":"Validation Failure"}')


# -- admission --


def refusal(route: Any, client: Client = SOMEBODY, method: str = "POST") -> tuple[Reason, str] | None:
    try:
        admit(route, method, client)
    except Rejected as refused:
        return refused.reason, refused.detail
    return None


def test_a_route_without_an_allowlist_admits_any_client_with_the_right_method(make_route: Any) -> None:
    assert refusal(make_route()) is None
    assert refusal(make_route(), Client(None, "", False)) is None


@pytest.mark.parametrize("method", ["GET", "post", "", "PUT"])
def test_another_method_is_not_allowed(make_route: Any, method: str) -> None:
    route = make_route(methods=frozenset({"POST", "PATCH"}))
    assert refusal(route, method=method) == (Reason.METHOD_NOT_ALLOWED, "the route accepts PATCH, POST")


def test_an_unreadable_client_is_refused_even_where_nobody_is_listed(make_route: Any) -> None:
    client = Client(None, "", True, "hop 1 from the right of X-Forwarded-For")
    expected = (Reason.CLIENT_IP_UNREADABLE, "unreadable: hop 1 from the right of X-Forwarded-For")
    assert refusal(make_route(), client) == expected
    assert refusal(make_route(allow=Networks([ip_network("0.0.0.0/0")])), client) == expected


def test_the_allowlist_is_asked_for_the_clients_address(make_route: Any) -> None:
    route = make_route(allow=Networks([ip_network("192.0.2.0/24")]))
    assert refusal(route) is None
    outside = Client(ip_address("198.51.100.1"), "198.51.100.1", True)
    reason, detail = refusal(route, outside) or (None, "")
    assert reason is Reason.IP_NOT_ALLOWED
    assert "198.51.100.1" not in detail
    assert refusal(route, Client(None, "", True)) == (
        Reason.IP_NOT_ALLOWED,
        "the connection has no address (a unix socket, or a proxy that knows none); trust 'unix:' to use a header",
    )


# -- leave to forward without a proof --


@pytest.mark.parametrize("reason", [None, *Reason])
def test_a_verifying_route_waives_nothing(make_route: Any, reason: Reason | None) -> None:
    with pytest.raises(RuntimeError, match="never verified"):
        waive(make_route(), reason)
    with pytest.raises(RuntimeError, match="never verified"):
        waive(make_route(allow=Networks([ip_network("192.0.2.0/24")])), reason)


def test_an_open_route_is_forwarded_without_a_label(make_route: Any) -> None:
    assert waive(make_route(secrets=[], open=True), None) == Waived("")


def test_a_rejection_in_shadow_mode_is_forwarded_and_says_so(make_route: Any) -> None:
    assert waive(make_route(shadow=True), Reason.SIGNATURE_MISMATCH) == Waived("shadow-rejected")
    with pytest.raises(RuntimeError, match="never verified"):
        waive(make_route(shadow=True), None)


def test_a_route_that_admits_by_address_alone_is_forwarded_under_its_name(make_route: Any) -> None:
    route = make_route("/a", secrets=[], allow=Networks([ip_network("192.0.2.0/24")]))
    assert waive(route, None) == Waived("a", admitted=True)
    with pytest.raises(RuntimeError, match="never verified"):
        waive(route, Reason.IP_NOT_ALLOWED)


def test_a_route_that_lost_its_verifier_waives_nothing(make_route: Any) -> None:
    with pytest.raises(RuntimeError, match="never verified"):
        waive(make_route(secrets=[]), None)
