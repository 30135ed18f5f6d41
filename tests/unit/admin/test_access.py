"""Who may see and who may change: by listener, token, origin and name."""

import socket

import pytest
from starlette.requests import Request

from sidecar.admin.access import denied_to_change, denied_to_view, may_change
from sidecar.config.fields.address import Listen
from sidecar.http1.sockets import ListenAddress
from sidecar.secret import Secret

TOKEN = Secret("token", "pa\u00dfw\u00f6rd-of-the-operator".encode())
LOOPBACK = ["127.0.0.1:9090", "127.8.9.1:9090", "[::1]:9090", "localhost:9090", "unix:/run/admin.sock"]
HOSTS = ("admin.example.com", "*.ops.example")
OPEN = ["0.0.0.0:9090", "[::]:9090", "192.0.2.1:9090", "admin.example:9090"]


def asked(**headers: str) -> Request:
    given = {"host": "127.0.0.1:9090"} | {name.replace("_", "-"): value for name, value in headers.items()}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in given.items()]
    return Request({"type": "http", "method": "POST", "path": "/-/reload", "headers": raw})


def listening(text: str) -> ListenAddress:
    address: ListenAddress = Listen().read(text)
    return address


def status(request: Request, listen: str, token: Secret | None = None, given: str | None = None) -> int:
    denied = denied_to_change(request, listening(listen), HOSTS, token, given)
    return denied.status if denied is not None else 200


@pytest.mark.parametrize("listen", LOOPBACK)
def test_without_a_token_loopback_may_change_things(listen: str) -> None:
    assert status(asked(), listen) == 200
    assert may_change(listening(listen), None)


@pytest.mark.parametrize("listen", OPEN)
def test_without_a_token_nobody_may_change_anything_elsewhere(listen: str) -> None:
    assert status(asked(), listen) == 403
    assert status(asked(authorization="Bearer anything"), listen) == 403
    assert status(asked(), listen, given="") == 403
    assert not may_change(listening(listen), None)


@pytest.mark.parametrize("listen", [*LOOPBACK, *OPEN])
def test_a_token_that_is_set_is_needed_everywhere(listen: str) -> None:
    right = TOKEN.reveal().decode()
    in_header = TOKEN.reveal().decode("latin-1")
    assert may_change(listening(listen), TOKEN)
    assert status(asked(authorization=f"Bearer {in_header}"), listen, TOKEN) == 200
    assert status(asked(authorization=f"bearer  {in_header} "), listen, TOKEN) == 200
    assert status(asked(), listen, TOKEN, given=right) == 200
    for wrong in (
        "",
        "Bearer",
        "Bearer ",
        f"Basic {in_header}",
        in_header,
        f"Bearer {in_header}x",
        f"Bearer {in_header[:-1]}",
    ):
        assert status(asked(authorization=wrong), listen, TOKEN) == 401
    for wrong in ("", right[:-1], right + " ", right.upper(), "\u2603", "\ud800"):
        assert status(asked(), listen, TOKEN, given=wrong) == 401
    assert (
        status(asked(authorization=f"Bearer {in_header}"), listen, TOKEN, given="") == 401
    )  # a form is judged by its field


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"origin": "http://127.0.0.1:9090"}, True),
        ({"origin": "http://127.0.0.1:9091"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"sec_fetch_site": "same-origin", "origin": "https://behind.a.proxy"}, True),
        ({"sec_fetch_site": "none"}, True),
        ({"sec_fetch_site": "same-site", "origin": "http://127.0.0.1:9090"}, False),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": ""}, False),
    ],
)
@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_page_of_another_origin_may_change_nothing(
    headers: dict[str, str], allowed: bool, token: Secret | None
) -> None:
    given = None if token is None else token.reveal().decode()
    assert (status(asked(**headers), "127.0.0.1:9090", token, given) == 200) is allowed


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:9090", True),
        ("127.0.0.1", True),
        ("[::1]:9090", True),
        ("localhost:1", True),
        ("LOCALHOST", True),
        ("sidecar.localhost:9090", True),
        ("evil.example:9090", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("evil.example@127.0.0.1", True),
        ("127.0.0.1@evil.example", False),
        ("[", False),
        ("", False),
        ("192.0.2.7:9090", True),
        ("[2001:db8::7]", True),
        ("webhook-sidecar-admin:9090", True),
        ("webhook-sidecar-admin.hooks.svc:9090", True),
        ("webhook-sidecar-admin.hooks.svc.cluster.local", True),
        ("webhook-sidecar-admin.hooks.svc.cluster.local.:9090", True),
        ("svc.evil.example", False),
        ("evil-svc.example", False),
        ("admin.example.com:9090", True),
        ("Admin.Example.COM", True),
        ("x.admin.example.com", False),
        ("example.com", False),
        ("a.ops.example", True),
        ("a.b.ops.example", True),
        ("ops.example", False),
        ("evilops.example", False),
        (f"{socket.gethostname()}:9090", True),
    ],
)
@pytest.mark.parametrize("listen", ["127.0.0.1:9090", "0.0.0.0:9090", "[::]:9090", "192.0.2.1:9090"])
def test_a_name_that_may_be_anybodys_is_not_answered(host: str, allowed: bool, listen: str) -> None:
    request = asked(host=host, authorization=f"Bearer {TOKEN.reveal().decode('latin-1')}")
    assert (denied_to_view(request, listening(listen), HOSTS) is None) is allowed
    assert (status(request, listen, TOKEN) == 200) is allowed
    assert denied_to_view(request, listening("unix:/run/admin.sock"), HOSTS) is None  # no browser gets there


def test_the_name_that_it_listens_on_is_its_own() -> None:
    assert denied_to_view(asked(host="admin.example:9090"), listening("admin.example:9090"), ()) is None
    assert denied_to_view(asked(host="admin.example:9090"), listening("0.0.0.0:9090"), ()) is not None
