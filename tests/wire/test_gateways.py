"""Real gateways that ask an authorizer: what reaches the receiver, and what the sender is told.

docs/scale.md says how each is set up; tests/support/gateways.py sets them up so.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import yaml
from chart import of_kind, template
from client import Client, Response
from craft import Craft
from gateways import BUFFER, Gateway, caddy, envoy, ext_authz, nginx, traefik
from pages import fences, read
from receiver import Receiver
from sidecar_process import Config, Sidecar, Start
from waiting import until


def begini(name: str, **more: Any) -> Config:
    secrets = [{"id": "current", "env": "BEGINI_API_KEY"}]
    return {"name": name, "path": f"/webhooks/{name}", "verify": "begini", "secrets": secrets} | more


#: The gateways connect from here; nothing is to be thought of a sender by its address.
CONFIG: Config = {
    "authorize": {"listen": "127.0.0.1:0"},
    "upstream": None,
    "trusted_proxies": ["127.0.0.1/32"],
    "drain": "2s",
    "routes": [
        begini("begini"),
        begini("polite", reject={"status": 401, "body": '{"error":"no"}'}),
        {
            "name": "token",
            "path": "/webhooks/token",
            "verify": {"signature": {"header": "X-Token", "kind": "token"}},
            "secrets": [{"id": "only", "env": "ACME_SECRET"}],
        },
        {"name": "probe", "path": "/healthz", "open": True},
    ],
}
FORBIDDEN = b'{"detail":"Validation Failure"}'

Make = Callable[..., Gateway]


@pytest.fixture
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """`make(envoy, authorizer, receiver, ...)`: a gateway that is stopped at the end."""
    made: list[Gateway] = []

    def begin(kind: Callable[..., Gateway], authorizer: object, receiver: Receiver, **options: object) -> Gateway:
        made.append(kind(tmp_path_factory.mktemp("g"), authorizer, receiver.url.removeprefix("http://"), **options))
        return made[-1]

    yield begin
    for gateway in made:
        gateway.stop()


@pytest.fixture
def authorizer(start: Start) -> Sidecar:
    return start(CONFIG)


def through(gateway: Gateway, raw: bytes, method: str = "POST") -> Response:
    with Client(gateway.address) as client:
        return client.try_send(raw).answer(method)


@pytest.fixture(scope="module")
def shared(start_for_module: Start) -> Sidecar:
    """The authorizer that both gateways ask."""
    return start_for_module(CONFIG)


@pytest.fixture(scope="module", params=["envoy", "traefik"])
def running(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    shared: Sidecar,
    receivers: Mapping[str, Receiver],
) -> Iterator[Gateway]:
    address = receivers["plain"].url.removeprefix("http://")
    directory = tmp_path_factory.mktemp("g")
    if request.param == "envoy":
        made = envoy(directory, [shared.authorize_address], address)
    else:
        made = traefik(directory, shared.authorize_address, address)
    yield made
    made.stop()


@pytest.fixture
def gateway(running: Gateway, receiver: Receiver) -> Gateway:
    """Each that can send bodies along; the receiver has seen nothing yet."""
    del receiver
    return running


def test_a_signed_delivery_reaches_the_receiver_with_our_headers(
    gateway: Gateway, receiver: Receiver, craft: type[Craft]
) -> None:
    forged = [(b"X-Webhook-Verified", b"FORGED"), (b"X-Webhook-Secret-Id", b"FORGED"), (b"X-Webhook-Client", b"FORGED")]
    body = craft.json_body + b'\n\xff\xfe\x00"!'  # no text in UTF-8
    assert through(gateway, craft.begini(body, headers=forged)).status == 200
    (seen,) = receiver.requests
    assert seen.body == body
    assert seen.values(b"X-Webhook-Verified") == [b"begini"]
    assert seen.values(b"X-Webhook-Secret-Id") == [b"current"]
    # Envoy names itself for a sender on its own machine.
    (client,) = seen.values(b"X-Webhook-Client")
    assert client == seen.values(b"X-Forwarded-For")[-1].split(b",")[-1].strip()


def test_a_forged_delivery_gets_the_routes_rejection_and_the_receiver_nothing(
    gateway: Gateway, shared: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    mark = shared.mark()
    answer = through(gateway, craft.begini(secret="somebody else's"))
    assert (answer.status, answer.body) == (403, FORBIDDEN)
    answer = through(gateway, craft.begini(secret="somebody else's", path=b"/webhooks/polite"))
    assert (answer.status, answer.body) == (401, b'{"error":"no"}')
    answer = through(gateway, craft.request(b"/elsewhere"))
    assert answer.status == 404
    shared.line(mark, event="authorization", reason="no_route", path="/elsewhere")
    shared.line(mark, 2, event="authorization", reason="signature_mismatch")
    assert receiver.bytes_seen == 0


def test_a_sender_can_not_choose_another_route_than_its_path_has(
    gateway: Gateway, receiver: Receiver, craft: type[Craft]
) -> None:
    fields = [
        (b"X-Forwarded-Method", b"GET"),
        (b"X-Forwarded-Uri", b"/healthz"),
        (b"X-Forwarded-Host", b"x"),
        (b"x-envoy-internal", b"false"),
        (b"X-Envoy-Auth-Partial-Body", b"false"),
        (b"Connection", b"x-envoy-internal, x-forwarded-uri"),
    ]
    for some in (fields, fields[:-1], fields[:2]):
        assert through(gateway, craft.request(headers=some, body=b"{}")).status in (400, 403)
    assert receiver.bytes_seen == 0


def test_nothing_of_ours_is_left_that_an_open_route_does_not_set(
    gateway: Gateway, receiver: Receiver, craft: type[Craft]
) -> None:
    fields = [(b"X-Webhook-Verified", b"FORGED"), (b"X-Webhook-Secret-Id", b"FORGED")]
    assert through(gateway, craft.request(b"/healthz", fields, method=b"GET"), "GET").status == 200
    (seen,) = receiver.requests
    assert seen.values(b"X-Webhook-Verified") + seen.values(b"X-Webhook-Secret-Id") == []


def test_a_body_of_one_mebibyte_is_judged_and_forwarded_whole(
    gateway: Gateway, receiver: Receiver, craft: type[Craft]
) -> None:
    body = craft.body_mark + bytes(1024 * 1024)
    assert through(gateway, craft.begini(body)).status == 200
    assert receiver.requests[0].body == body


def test_a_body_above_the_gateways_limit_is_rejected_and_reaches_nobody(
    gateway: Gateway, receiver: Receiver, craft: type[Craft]
) -> None:
    answer = through(gateway, craft.begini(bytes(BUFFER + 1)))
    assert answer.status == (413 if gateway.name == "envoy" else 401), answer
    assert receiver.bytes_seen == 0


@pytest.mark.parametrize("kind", ["envoy", "traefik"])
def test_what_the_page_shows_lets_signed_deliveries_through_and_no_forged_ones(
    make: Make, authorizer: Sidecar, receiver: Receiver, craft: type[Craft], kind: str
) -> None:
    (fence,) = [each for each in fences(read("docs/scale.md")) if each.mark == f"gateway {kind}"]
    shown = yaml.safe_load(fence.text)
    if kind == "envoy":
        gateway = make(
            envoy, [authorizer.authorize_address], receiver, filter_=shown["http_filters"][0]["typed_config"]
        )
    else:
        gateway = make(traefik, authorizer.authorize_address, receiver, middleware=shown["spec"]["forwardAuth"])
    assert through(gateway, craft.begini(secret="wrong")).status == 403
    assert receiver.bytes_seen == 0
    assert through(gateway, craft.begini(craft.body_mark * 1000)).status == 200
    assert receiver.requests[0].values(b"X-Webhook-Verified") == [b"begini"]
    assert receiver.requests[0].values(b"X-Webhook-Secret-Id") == [b"current"]


@pytest.mark.parametrize("kind", ["envoyGateway", "httpRoute", "traefik"])
def test_what_the_chart_makes_lets_signed_deliveries_through_and_no_forged_ones(
    make: Make, authorizer: Sidecar, receiver: Receiver, craft: type[Craft], kind: str
) -> None:
    """Traefik reads a Middleware's settings as they are. Of a SecurityPolicy Envoy Gateway makes a filter, as we do here;
    so do gateways by Envoy of an HTTPRoute.
    """
    targets = [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "shop"}]
    routed: Config = {"parentRefs": [{"name": "public"}], "backendRefs": [{"name": "receiver", "port": 3000}]}
    of_kinds: dict[str, Config] = {"envoyGateway": {"targetRefs": targets}, "httpRoute": routed, "traefik": {}}
    asks = {"enabled": True} | of_kinds[kind]
    most = 65535 if kind == "httpRoute" else 1024 * 1024
    route = {"path": "/webhooks/begini", "verify": "begini", "secrets": [{"file": "/run/secrets/begini/key"}]}
    config = {"trusted_proxies": ["10.0.0.0/8"], "limits": {"body": most}, "routes": [route]}
    values = {"mode": "authorizer", "config": config, "existingSecrets": ["begini"]}
    made = template(values | {"authorizer": {"requestHeaders": ["x-signature"], kind: asks}})
    if kind == "traefik":
        shown = of_kind(made, "Middleware")["spec"]["forwardAuth"]
        gateway = make(traefik, authorizer.authorize_address, receiver, middleware=shown)
    else:
        if kind == "httpRoute":
            asked = of_kind(made, "HTTPRoute")["spec"]["rules"][0]["filters"][0]["externalAuth"]
            shown = {
                "headersToExtAuth": asked["http"]["allowedHeaders"],
                "http": {"headersToBackend": asked["http"]["allowedResponseHeaders"]},
                "bodyToExtAuth": {"maxRequestBytes": asked["forwardBody"]["maxSize"]},
                "failOpen": False,  # the API knows no other
            }
        else:
            shown = of_kind(made, "SecurityPolicy")["spec"]["extAuth"]
        service = ext_authz()["http_service"]
        for part, key, names in (
            ("authorization_request", "allowed_headers", shown["headersToExtAuth"]),
            ("authorization_response", "allowed_upstream_headers", shown["http"]["headersToBackend"]),
        ):
            service[part] = {key: {"patterns": [{"exact": name, "ignore_case": True} for name in names]}}
        body = {"max_request_bytes": shown["bodyToExtAuth"]["maxRequestBytes"]}
        filter_ = ext_authz(with_request_body=body, http_service=service, failure_mode_allow=shown["failOpen"])
        gateway = make(envoy, [authorizer.authorize_address], receiver, filter_=filter_)
    lied = ((b"X-Webhook-Verified", b"me"), (b"X-Webhook-Client", b"192.0.2.1"), (b"X-Webhook-Tenant", b"me"))
    assert through(gateway, craft.begini(secret="wrong", headers=lied)).status == 403
    assert through(gateway, craft.begini(bytes(most + 1))).status == (401 if kind == "traefik" else 413)
    assert receiver.bytes_seen == 0
    assert through(gateway, craft.begini(craft.body_mark * 1000, headers=lied)).status == 200
    (request,) = receiver.requests
    assert request.values(b"X-Webhook-Verified") == [b"begini"]
    assert request.values(b"X-Webhook-Secret-Id") == [b"current"]
    assert b"192.0.2.1" not in request.values(b"X-Webhook-Client")
    assert request.values(b"X-Webhook-Tenant") == []


@pytest.mark.parametrize("kind", ["envoy", "traefik"])
def test_without_an_authorizer_nothing_passes_until_it_is_back(
    make: Make, start: Start, receiver: Receiver, craft: type[Craft], kind: str
) -> None:
    authorizer = start(CONFIG)
    address = authorizer.authorize_address
    gateway = make(envoy, [address], receiver) if kind == "envoy" else make(traefik, address, receiver)
    authorizer.stop()
    assert through(gateway, craft.begini()).status == (503 if kind == "envoy" else 500)
    assert receiver.bytes_seen == 0
    start(CONFIG | {"authorize": {"listen": address}})
    until(lambda: through(gateway, craft.begini()).status == 200, "the way through the gateway")
    assert len(receiver.requests) == 1


def test_envoy_without_bodies_is_told_its_setting(
    make: Make, authorizer: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    gateway = make(envoy, [authorizer.authorize_address], receiver, filter_=ext_authz(body=False))
    assert through(gateway, craft.begini()).status == 403
    assert "with_request_body" in authorizer.line(reason="body_not_forwarded")["detail"]
    assert receiver.bytes_seen == 0


def test_envoy_that_cuts_bodies_is_told_so(
    make: Make, authorizer: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    cut = {"max_request_bytes": 1000, "allow_partial_message": True}
    gateway = make(envoy, [authorizer.authorize_address], receiver, filter_=ext_authz(with_request_body=cut))
    assert through(gateway, craft.begini()).status == 200
    receiver.forget()
    assert through(gateway, craft.begini(craft.body_mark * 1000)).status == 403
    assert "max_request_bytes" in authorizer.line(reason="body_not_forwarded")["detail"]
    assert receiver.bytes_seen == 0


def test_envoy_that_keeps_headers_is_told_so(
    make: Make, authorizer: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    gateway = make(envoy, [authorizer.authorize_address], receiver, filter_=ext_authz(headers=False))
    assert through(gateway, craft.begini()).status == 403
    assert "allowed_headers" in authorizer.line(reason="signature_missing")["detail"]
    assert receiver.bytes_seen == 0


def test_envoys_prefix_is_taken_off(make: Make, start: Start, receiver: Receiver, craft: type[Craft]) -> None:
    authorizer = start(CONFIG | {"authorize": {"listen": "127.0.0.1:0", "path_prefix": "/authorize", "form": "envoy"}})
    gateway = make(envoy, [authorizer.authorize_address], receiver, filter_=ext_authz(prefix="/authorize"))
    assert through(gateway, craft.begini()).status == 200
    assert through(gateway, craft.begini(secret="wrong")).status == 403
    assert len(receiver.requests) == 1
    assert receiver.requests[0].target == b"/webhooks/begini"


def test_traefik_without_bodies_is_told_its_setting(
    make: Make, authorizer: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    gateway = make(traefik, authorizer.authorize_address, receiver, body=False)
    assert through(gateway, craft.begini()).status == 403
    assert "forwardBody" in authorizer.line(reason="body_not_forwarded")["detail"]
    assert receiver.bytes_seen == 0


def test_a_gateway_that_is_not_trusted_is_named(
    make: Make, start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    authorizer = start(CONFIG | {"trusted_proxies": None})
    gateway = make(traefik, authorizer.authorize_address, receiver)
    assert through(gateway, craft.begini()).status == 404
    assert "add 127.0.0.1 to trusted_proxies" in authorizer.line(reason="no_route")["detail"]
    assert receiver.bytes_seen == 0


@pytest.mark.parametrize(("kind", "announces"), [("caddy", False), ("nginx", False), ("nginx", True)])
def test_caddy_and_nginx_can_not_send_bodies_and_are_told_so(
    make: Make, authorizer: Sidecar, receiver: Receiver, craft: type[Craft], kind: str, announces: bool
) -> None:
    if kind == "caddy":
        gateway = make(caddy, authorizer.authorize_address, receiver)
    else:
        gateway = make(nginx, authorizer.authorize_address, receiver, announces_body=announces)
    assert through(gateway, craft.begini()).status == 403
    assert "auth_request" in authorizer.line(reason="body_not_forwarded")["detail"]
    assert receiver.bytes_seen == 0


@pytest.mark.parametrize("kind", ["caddy", "nginx"])
def test_caddy_and_nginx_can_ask_about_routes_that_read_no_body(
    make: Make, authorizer: Sidecar, receiver: Receiver, craft: type[Craft], kind: str
) -> None:
    gateway = make(caddy if kind == "caddy" else nginx, authorizer.authorize_address, receiver)
    token = b"CANARY-SECRET-acme-6b07"
    assert through(gateway, craft.request(b"/webhooks/token", [(b"X-Token", token)], craft.json_body)).status == 200
    assert receiver.requests[0].body == craft.json_body
    assert receiver.requests[0].values(b"X-Webhook-Verified") == [b"token"]
    receiver.forget()
    assert through(gateway, craft.request(b"/webhooks/token", [(b"X-Token", b"wrong")], craft.json_body)).status == 403
    assert receiver.bytes_seen == 0


def test_deliveries_pass_while_two_authorizers_are_restarted_in_turn(
    make: Make, start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    """Envoy watches `/readyz`, as Kubernetes does: an authorizer that ends has no new questions by then."""
    # A quarter of `drain` is for gateways to notice: a busy Envoy may need more than the half second of the other tests. And
    # more is rejected in a second than the log takes by default.
    config = CONFIG | {"drain": "8s", "log": {"rejected": "off"}}
    authorizers = [start(config), start(config)]
    checks = [
        {"timeout": "1s", "interval": "0.1s", "unhealthy_threshold": 1, "healthy_threshold": 1}
        | {"http_health_check": {"path": "/readyz"}, "no_traffic_interval": "0.1s"}
    ]
    endpoints = [
        {
            "endpoint": {
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": port(one.authorize_address)}},
                "health_check_config": {"port_value": port(one.admin_address)},
            }
        }
        for one in authorizers
    ]
    gateway = make(
        envoy,
        [],
        receiver,
        health_checks=checks,
        load_assignment={"cluster_name": "authorizer", "endpoints": [{"lb_endpoints": endpoints}]},
    )
    until(lambda: through(gateway, craft.begini()).status == 200, "a healthy authorizer")
    receiver.forget()
    with Traffic(gateway, craft) as traffic:
        for index, old in enumerate(authorizers):
            until(lambda: all(is_asked(one) for one in authorizers), "both authorizers are asked")
            addresses = {
                "listen": old.address,
                "admin": old.admin_address,
                "authorize": {"listen": old.authorize_address},
            }
            old.stop()
            authorizers[index] = start(config | addresses)
        until(lambda: all(is_asked(one) for one in authorizers), "both authorizers are asked")
        until(lambda: traffic.statuses.total() >= 10_000, "10,000 deliveries", 60)
    assert set(traffic.statuses) == {(True, 200), (False, 403)}, traffic.statuses
    assert len(receiver.requests) == traffic.statuses[True, 200]
    assert all(is_asked(one) for one in authorizers)


@pytest.mark.parametrize("kind", ["envoy", "traefik"])
def test_a_gateway_that_is_restarted_under_load_lets_no_forged_delivery_pass(
    make: Make, start: Start, receiver: Receiver, craft: type[Craft], kind: str
) -> None:
    """Deliveries fail while there is no gateway; those that it takes before its start is over may too."""
    address = start(CONFIG | {"log": {"rejected": "off"}}).authorize_address
    gateway = make(envoy, [address], receiver) if kind == "envoy" else make(traefik, address, receiver)
    with Traffic(gateway, craft) as traffic:
        for _ in range(2):
            traffic.wait_for_more()
            gateway.restart()
        traffic.wait_for_more()
    assert traffic.statuses[False, 200] == traffic.statuses[True, 403] == 0, traffic.statuses
    unanswered = sum(count for (valid, status), count in traffic.statuses.items() if valid and status != 200)
    assert 0 <= len(receiver.requests) - traffic.statuses[True, 200] <= unanswered, traffic.statuses
    assert all(each.values(b"X-Webhook-Verified") == [b"begini"] for each in receiver.requests)


class Traffic:
    """Sends signed and forged deliveries from several threads, two to one, until the end; counts what they are answered."""

    def __init__(self, gateway: Gateway, craft: type[Craft], senders: int = 4) -> None:
        self.gateway = gateway
        self.kinds = [(True, craft.begini()), (True, craft.begini()), (False, craft.begini(secret="somebody else's"))]
        self.statuses: Counter[tuple[bool, int]] = Counter()  #: by whether it was signed, and status; 0: no answer
        self.ended = threading.Event()
        self.senders = [threading.Thread(target=self._send) for _ in range(senders)]

    def _send(self) -> None:
        while not self.ended.is_set():
            with contextlib.suppress(OSError), Client(self.gateway.address) as client:
                self._send_on(client)
            time.sleep(0.02)  # only where there is no gateway

    def _send_on(self, client: Client) -> None:
        while True:
            for valid, raw in self.kinds:
                if self.ended.is_set():
                    return
                try:
                    status = client.send(raw).answer().status
                except (OSError, EOFError, AssertionError):
                    self.statuses[valid, 0] += 1
                    return
                self.statuses[valid, status] += 1

    def wait_for_more(self, count: int = 200) -> None:
        """Until so many more genuine deliveries were answered by the receiver."""
        enough = self.statuses[True, 200] + count
        until(lambda: self.statuses[True, 200] >= enough, "deliveries passing", 30)

    def __enter__(self) -> "Traffic":
        for sender in self.senders:
            sender.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for sender in self.senders:
            sender.join()


def is_asked(authorizer: Sidecar) -> bool:
    return any(line.get("outcome") == "allowed" for line in authorizer.lines)


def port(address: str) -> int:
    return int(address.rpartition(":")[2])
