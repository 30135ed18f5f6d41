"""Which route takes a path on a host, and which routes may be side by side because their hosts differ."""

import time
from typing import Any

import pytest

from sidecar.http1.head import make_head
from sidecar.outcomes import Reason, Rejected
from sidecar.routing.routes import Route, RouteTable, find_overlaps, host_name
from sidecar.verify.tenants import PLACE


def named(make_route: Any, *given: str) -> list[Route]:
    """A route for each text `host,host/path`; without a host it is for any."""
    made = []
    for text in given:
        hosts, slash, path = text.partition("/")
        listed = tuple(host.encode() for host in hosts.split(",") if host)
        made.append(make_route(slash + path, name=text, hosts=listed))
    return made


def reason(found: Route | Rejected) -> Reason | None:
    return found.reason if isinstance(found, Rejected) else None


TABLE = [
    "/any",
    "a.example/hooks",
    "b.example,*.b.example/hooks",
    "*.a.example/hooks",
    "*.deep.c.example/hooks",
    "c.example/teams/*",
    "d.example/teams/x",
]


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        (b"a.example", b"/hooks", "a.example/hooks"),
        (b"b.example", b"/hooks", "b.example,*.b.example/hooks"),
        (b"x.b.example", b"/hooks", "b.example,*.b.example/hooks"),
        (b"x.y.b.example", b"/hooks", "b.example,*.b.example/hooks"),
        (b"x.a.example", b"/hooks", "*.a.example/hooks"),
        (b"x.deep.c.example", b"/hooks", "*.deep.c.example/hooks"),
        (b"c.example", b"/teams/a/b", "c.example/teams/*"),
        (b"d.example", b"/teams/x", "d.example/teams/x"),
        (b"a.example", b"/any", "/any"),
        (b"unknown", b"/any", "/any"),
        (b"", b"/any", "/any"),
    ],
)
def test_a_route_is_found_by_host_and_path(make_route: Any, host: bytes, path: bytes, expected: str) -> None:
    found = RouteTable(named(make_route, *TABLE)).find_on(host, path)
    assert isinstance(found, Route)
    assert found.name == expected


@pytest.mark.parametrize(
    ("host", "path"),
    [
        (b"", b"/hooks"),
        (b"c.example", b"/hooks"),
        (b"deep.c.example", b"/hooks"),
        (b".b.example", b"/hooks"),
        (b"xb.example", b"/hooks"),
        (b"a.example.b", b"/hooks"),
        (b"A.example", b"/hooks"),  # `host_name` makes it lower case
        (b"*.b.exampl", b"/hooks"),
        (b"d.example", b"/teams/y"),
        (b"c.example", b"/teams/../x"),
        (b"a.example", b"/nothing"),
    ],
)
def test_another_host_is_as_unknown_as_another_path(make_route: Any, host: bytes, path: bytes) -> None:
    assert reason(RouteTable(named(make_route, *TABLE)).find_on(host, path)) is Reason.NO_ROUTE


@pytest.mark.parametrize(
    ("host", "path", "why"),
    [
        (b"c.example", b"/teams/a%2Fb", "/teams/* is above this path, but accepts no path with the escape %2F"),
        (b"x.e.example", b"/e/a//b", "/e/* is above this path, but accepts no path with an empty segment"),
        (b"d.example", b"/teams/a%2Fb", "no route has this path on this host"),
        (b"x.e.example", b"/teams/a%2Fb", "no route has this path on this host"),
        (b"unknown", b"/free/../a", "/free/* is above this path, but accepts no path with a dot segment"),
    ],
)
def test_the_rule_that_keeps_a_path_out_is_named_on_its_host(
    make_route: Any, host: bytes, path: bytes, why: str
) -> None:
    table = RouteTable(named(make_route, *TABLE, "*.e.example/e/*", "/free/*"))
    found = table.find_on(host, path)
    assert isinstance(found, Rejected)
    assert found.detail.startswith(why)


def test_a_path_without_a_host_finds_routes_of_any_host_only(make_route: Any) -> None:
    """A probe of the kubelet names the pod's address."""
    table = RouteTable(named(make_route, *TABLE))
    assert isinstance(table.find(b"/any"), Route)
    assert reason(table.find(b"/hooks")) is Reason.NO_ROUTE


def test_hosts_matter_only_where_a_route_names_one(make_route: Any) -> None:
    assert RouteTable(named(make_route, *TABLE)).by_host
    assert not RouteTable(named(make_route, "/any", "/other")).by_host


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"Hooks.Example.COM", b"hooks.example.com"),
        (b"hooks.example.com:8443", b"hooks.example.com"),
        (b"hooks.example.com.", b"hooks.example.com"),
        (b"hooks.example.com.:80", b"hooks.example.com"),
        (b"192.0.2.1:80", b"192.0.2.1"),
        (b"[2001:DB8::1]:8080", b"[2001:db8::1]"),
        (b"[::1]", b"[::1]"),
        (b"", b""),
        (b":80", b""),
    ],
)
def test_the_host_is_compared_without_case_port_and_final_dot(sent: bytes, expected: bytes) -> None:
    assert host_name(make_head("POST", b"/", [(b"Host", sent)], None)) == expected


def test_an_old_request_names_no_host() -> None:
    assert host_name(make_head("POST", b"/", [], None)) == b""


def test_a_host_of_many_dots_costs_little(make_route: Any) -> None:
    table = RouteTable(named(make_route, *(f"*.h{number}.example/hooks" for number in range(500))))
    began = time.process_time()
    for host in (b"a." * 30_000, b"." * 60_000, b"a" * 60_000):
        for _ in range(100):
            assert isinstance(table.find_on(host, b"/hooks"), Rejected)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("given", "pairs"),
    [
        (["a.example/x", "b.example/x"], []),
        (["a.example/x", "*.a.example/x"], []),
        (["*.a.example/x", "*.b.example/x"], []),
        (["a.example/x", "a.example/y", "b.example/x"], []),
        (["a.example/x", "/x"], [(0, 1)]),
        (["a.example/x/*", "/x/y"], [(0, 1)]),
        (["a.example/x", "a.example/x"], [(0, 1)]),
        (["a.example,b.example/x", "c.example,b.example/x"], [(0, 1)]),
        (["a.b.example/x", "*.b.example/x"], [(0, 1)]),
        (["*.a.b.example/x", "*.b.example/x"], [(0, 1)]),
        (["*.example/x", "a.b.example/x/*", "c.a.b.example/x"], [(0, 2)]),
        (["a.example/x/*", "b.example/x/y", "a.example/x/y/*"], [(0, 2)]),
        (["/x/*", "a.example/x/y", "b.example/x/y"], [(0, 1), (0, 2)]),
    ],
)
def test_routes_overlap_where_both_hosts_and_paths_do(
    make_route: Any, given: list[str], pairs: list[tuple[int, int]]
) -> None:
    assert find_overlaps(named(make_route, *given)) == pairs


def test_paths_with_a_tenant_overlap_only_on_a_common_host(make_route: Any) -> None:
    segments = (b"", b"hooks", PLACE)
    one, other = (make_route("/hooks", segments=segments, hosts=(host,)) for host in (b"a.example", b"b.example"))
    anywhere = make_route("/hooks", segments=segments)
    assert find_overlaps([one, other]) == []
    assert find_overlaps([one, other, one]) == [(0, 2)]
    assert find_overlaps([one, other, anywhere]) == [(0, 2), (1, 2)]


def test_a_thousand_domains_with_one_path_are_checked_in_no_time(make_route: Any) -> None:
    one = make_route("/hooks", hosts=(b"a.example",))
    routes = named(make_route, "/other/*") + [
        make_route("/hooks", name=f"r{number}", verifier=one.verifier, hosts=(b"h%d.example" % number,))
        for number in range(1000)
    ]
    began = time.process_time()
    assert find_overlaps(routes) == []
    assert time.process_time() - began < 1
