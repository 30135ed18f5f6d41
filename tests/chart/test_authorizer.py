"""Mode `authorizer`: what gateways ask, the objects that let them ask, and that these are what the gateways' own schemas want."""

import atexit
import copy
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import CHART, HELMS, ROOT, HelmError, containers, helm, of_kind, template
from needs import needs
from pages import fences, read
from running import trial

from sidecar.config.loader import load_config

VALUES: dict[str, Any] = yaml.safe_load((CHART / "ci/authorizer-values.yaml").read_text())
ROUTE = {"path": "/hooks", "verify": "github", "secrets": [{"file": "/run/secrets/hooks/current"}]}
PLAIN: dict[str, Any] = {"mode": "authorizer", "config": {"routes": [ROUTE]}, "existingSecrets": ["hooks"]}
OURS = ["x-webhook-verified", "x-webhook-secret-id", "x-webhook-client", "x-webhook-tenant"]
#: The modules of npm's packages that know each kind.
MODULES = {
    "HTTPRoute": "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1",
    "IngressRoute": "@kubernetes-models/traefik/traefik.io/v1alpha1",
    "NetworkPolicy": "kubernetes-models/networking.k8s.io/v1",
    "AuthorizationPolicy": "@kubernetes-models/istio/security.istio.io/v1",
    "Middleware": "@kubernetes-models/traefik/traefik.io/v1alpha1",
    "ReferenceGrant": "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1beta1",
    "SecurityPolicy": "@kubernetes-models/envoy-gateway/gateway.envoyproxy.io/v1alpha1",
}
POINTING = {"AuthorizationPolicy", "Middleware", "ReferenceGrant", "SecurityPolicy"}
#: Younger than these packages.
UNKNOWN = {("SecurityPolicy", "spec.extAuth.statusOnError")}
#: Reads lists of objects, one a line, and says of each object whether its schema takes it.
JUDGE = """
const modules = %s;
require('readline').createInterface({input: process.stdin}).on('line', async (line) => {
  const said = [];
  for (const each of JSON.parse(line)) {
    const kind = (await import(modules[each.kind]))[each.kind];
    try { new kind(each).validate(); said.push(null) } catch (error) { said.push(String(error.message)) }
  }
  console.log(JSON.stringify(said));
});
"""


def authorizer(**changes: Any) -> dict[str, Any]:
    return PLAIN | changes


def configured(**changes: Any) -> dict[str, Any]:
    return PLAIN | {"config": PLAIN["config"] | changes}


def asked(kind: str, **values: Any) -> dict[str, Any]:
    """What one gateway needs, all else being right."""
    targets = [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "shop"}]
    right: dict[str, dict[str, Any]] = {
        "envoyGateway": {"targetRefs": targets},
        "httpRoute": {
            "parentRefs": [{"name": "public", "namespace": "gateways"}],
            "backendRefs": [{"name": "receiver", "port": 3000}],
        },
        "istio": {"selector": {"istio": "ingressgateway"}},
        "traefik": {},
    }
    gateway = {"requestHeaders": ["x-hub-signature-256"], kind: {"enabled": True} | right[kind] | values}
    config = {"trusted_proxies": ["10.0.0.0/8"]} | ({"limits": {"body": 65535}} if kind == "httpRoute" else {})
    return PLAIN | {"config": PLAIN["config"] | config, "authorizer": gateway}


@cache
def node() -> "subprocess.Popen[bytes]":
    """Kept, because it takes half a second to read the schemas."""
    needs(ROOT / ".venv/node/node_modules/@kubernetes-models/envoy-gateway/package.json")
    words = [needs("node"), "-e", JUDGE % json.dumps(MODULES)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT / ".venv/node")
    atexit.register(process.communicate)
    return process


def judge(objects: list[dict[str, Any]]) -> list[str | None]:
    """What the gateways' own schemas say of each object; None if nothing is wrong."""
    process = node()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(objects).encode() + b"\n")
    process.stdin.flush()
    said: list[str | None] = json.loads(process.stdout.readline())
    return said


def leaves(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in below:
        yield from leaves(item, (*at, key))
    if not isinstance(value, dict | list):
        yield at


def spoilt(value: dict[str, Any], at: tuple[str | int, ...]) -> dict[str, Any]:
    """A copy whose leaf is of no type that any field has."""
    whole = copy.deepcopy(value)
    below: Any = whole
    for key in at[:-1]:
        below = below[key]
    below[at[-1]] = {"no": ["such", {}]}
    return whole


@pytest.mark.parametrize("tool", HELMS)
def test_the_gateways_own_schemas_take_the_objects_and_know_each_of_their_fields(tool: str) -> None:
    """A schema says nothing of a field that it does not know: one that is known does not take another type."""
    made = [each for each in template(VALUES, tool=tool) if each["kind"] in POINTING]
    assert {each["kind"] for each in made} == POINTING
    assert judge(made) == [None] * len(made)
    fields = [(each, at) for each in made for at in leaves(each["spec"], ("spec",))]
    assert len(fields) > 30
    said = judge([spoilt(each, at) for each, at in fields])
    taken = {(each["kind"], ".".join(map(str, at))) for (each, at), what in zip(fields, said, strict=True) if not what}
    assert taken == UNKNOWN


@pytest.mark.parametrize("tool", HELMS)
def test_an_http_route_asks_by_the_filter_of_the_gateway_api(tool: str) -> None:
    """The package's schema knows the filter, but not yet the word `ExternalAuth`, which is of the experimental channel."""
    values = asked("httpRoute", namespace="shop", hostnames=["hooks.example.com"])
    values["config"] |= {"authorize": {"path_prefix": "/authorize"}}
    made = template(values, tool=tool)
    route, service = of_kind(made, "HTTPRoute"), of_kind(made, "Service", "-webhook-sidecar")
    (rule,) = route["spec"]["rules"]
    (filter_,) = rule["filters"]
    assert filter_.pop("type") == "ExternalAuth"
    assert judge([route]) == ["data/spec/rules/0/filters/0 must have required property type"]
    filter_["type"] = "ExtensionRef"  # any that it knows
    fields = list(leaves(route["spec"], ("spec",)))
    assert judge([route]) == [None]
    assert [at for at, what in zip(fields, judge([spoilt(route, at) for at in fields]), strict=True) if not what] == []
    assert rule["matches"] == [{"path": {"type": "Exact", "value": "/hooks"}}]
    assert rule["backendRefs"] == [{"name": "receiver", "port": 3000}]
    asks = filter_["externalAuth"]
    assert (asks["protocol"], asks["forwardBody"]) == ("HTTP", {"maxSize": 65535})
    name, port = service["metadata"]["name"], service["spec"]["ports"][0]["port"]
    assert asks["backendRef"] == {"group": "", "kind": "Service", "name": name, "namespace": "hooks", "port": port}
    assert asks["http"] == {
        "path": "/authorize",
        "allowedHeaders": values["authorizer"]["requestHeaders"],
        "allowedResponseHeaders": OURS,
    }
    grant = of_kind(made, "ReferenceGrant")
    assert (grant["metadata"]["namespace"], grant["spec"]["to"]) == (
        "hooks",
        [{"group": "", "kind": "Service", "name": name}],
    )
    assert grant["spec"]["from"] == [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop"}]
    assert judge([grant]) == [None]


def test_only_the_authorize_and_the_admin_listener_can_be_reached() -> None:
    made = template(VALUES)
    service = of_kind(made, "Service", "-webhook-sidecar")["spec"]
    assert [(port["port"], port["targetPort"]) for port in service["ports"]] == [(80, "hooks-authorize")]
    policy = of_kind(made, "NetworkPolicy", "-webhook-sidecar")["spec"]
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == ["hooks-authorize", "hooks-admin"]
    pod = of_kind(made, "Deployment")["spec"]["template"]
    (container,) = containers(pod)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    config = yaml.safe_load(of_kind(made, "ConfigMap", "-webhook-sidecar")["data"]["config.yaml"])
    assert config["authorize"] == {"listen": "[::]:8081"}
    assert ports == {"hooks": 8080, "hooks-admin": 9090, "hooks-authorize": 8081}
    moved = template(configured(authorize={"listen": "[::]:7000", "form": "envoy"}))
    (container,) = containers(of_kind(moved, "Deployment")["spec"]["template"])
    assert {"name": "hooks-authorize", "containerPort": 7000, "protocol": "TCP"} in container["ports"]


def test_the_fleet_scales_is_scraped_and_survives_a_drain_as_a_gateway_does() -> None:
    made = template(VALUES)
    kinds = {each["kind"] for each in made}
    assert {"HorizontalPodAutoscaler", "PodDisruptionBudget", "ServiceMonitor", "PrometheusRule"} <= kinds
    labels = of_kind(made, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    for kind in ("PodDisruptionBudget", "ServiceMonitor"):
        selector = of_kind(made, kind)["spec"]["selector"]["matchLabels"]
        assert {key: value for key, value in selector.items() if key != "webhook-sidecar/listener"}.items() <= labels


def test_another_listen_address_replaces_the_pods_and_another_form_does_not() -> None:
    def pod(**authorize: Any) -> dict[str, Any]:
        made: dict[str, Any] = of_kind(template(configured(authorize=authorize)), "Deployment")["spec"]["template"]
        return made

    assert pod(listen="[::]:8081") == pod(listen="[::]:8081", form="envoy")
    annotations = [pod(listen=f"[::]:{port}")["metadata"]["annotations"] for port in (8081, 8082)]
    assert annotations[0] != annotations[1]


def test_gateways_send_along_the_largest_body_that_a_route_takes(tmp_path: Path) -> None:
    made = template(VALUES)
    file = tmp_path / "config.yaml"
    file.write_text(of_kind(made, "ConfigMap", "-webhook-sidecar")["data"]["config.yaml"])
    config = load_config(str(file), {}, resolve_secrets=False)
    largest = max(route.body_limit for route in config.routes.routes)
    assert largest == 2 * 1024**2
    assert of_kind(made, "SecurityPolicy")["spec"]["extAuth"]["bodyToExtAuth"]["maxRequestBytes"] == largest
    assert of_kind(made, "Middleware")["spec"]["forwardAuth"]["maxBodySize"] == largest
    assert provider(VALUES)["envoyExtAuthzHttp"]["includeRequestBodyInCheck"]["maxRequestBytes"] == largest
    file.write_text(yaml.safe_dump(PLAIN["config"] | {"authorize": {"listen": "[::]:8081"}}))
    default = load_config(str(file), {}, resolve_secrets=False).limits.body
    assert of_kind(template(asked("traefik")), "Middleware")["spec"]["forwardAuth"]["maxBodySize"] == default


def test_a_gateway_takes_each_of_our_headers_from_the_answer_so_none_of_the_senders_is_left() -> None:
    for values, more in ((VALUES, ["x-shop-signature"]), (asked("traefik"), [])):
        headers = of_kind(template(values), "Middleware")["spec"]["forwardAuth"]["authResponseHeaders"]
        assert headers == [*OURS, *more]
    assert (
        of_kind(template(VALUES), "SecurityPolicy")["spec"]["extAuth"]["http"]["headersToBackend"] == headers_of_all()
    )
    assert provider(VALUES)["envoyExtAuthzHttp"]["headersToUpstreamOnAllow"] == headers_of_all()


def headers_of_all() -> list[str]:
    return [*OURS, *VALUES["authorizer"]["responseHeaders"]]


def provider(values: Mapping[str, Any]) -> dict[str, Any]:
    """The provider that NOTES shows for the mesh's configuration."""
    notes = helm(
        "install",
        "release",
        CHART,
        "--values",
        "-",
        "--namespace",
        "hooks",
        "--dry-run=client",
        stdin=json.dumps(values),
    )
    (shown,) = re.findall(r"^  extensionProviders:\n(?:    .*\n)+", notes, re.MULTILINE)
    (found,) = yaml.safe_load(shown)["extensionProviders"]
    return dict(found)


def test_each_gateway_asks_the_service_and_lets_nothing_pass_without_an_answer() -> None:
    made = template(VALUES)
    service = of_kind(made, "Service", "-webhook-sidecar")
    name, port = service["metadata"]["name"], service["spec"]["ports"][0]["port"]
    policy = of_kind(made, "SecurityPolicy")["spec"]["extAuth"]
    (backend,) = policy["http"]["backendRefs"]
    assert (backend["name"], backend["namespace"], backend["port"]) == (name, "hooks", port)
    assert policy["failOpen"] is False
    assert of_kind(made, "Middleware")["spec"]["forwardAuth"]["address"] == f"http://{name}.hooks.svc:{port}/question"
    mesh = provider(VALUES)
    assert mesh["name"] == of_kind(made, "AuthorizationPolicy")["spec"]["provider"]["name"]
    asks = mesh["envoyExtAuthzHttp"]
    assert (asks["service"], asks["port"]) == (f"{name}.hooks.svc.cluster.local", port)
    assert asks["failOpen"] is False
    assert asks["includeRequestBodyInCheck"]["allowPartialMessage"] is False
    assert asks["includeRequestHeadersInCheck"] == policy["headersToExtAuth"] == VALUES["authorizer"]["requestHeaders"]


def test_a_policy_in_another_namespace_may_name_the_service_and_one_in_the_same_needs_nothing() -> None:
    made = template(VALUES)
    grant, policy = of_kind(made, "ReferenceGrant"), of_kind(made, "SecurityPolicy")
    assert grant["metadata"]["namespace"] == "hooks"
    assert policy["metadata"]["namespace"] == "shop"
    assert [each["namespace"] for each in grant["spec"]["from"]] == ["shop"]
    assert [each["name"] for each in grant["spec"]["to"]] == [
        policy["spec"]["extAuth"]["http"]["backendRefs"][0]["name"]
    ]
    alone = template(asked("envoyGateway"))
    assert of_kind(alone, "SecurityPolicy")["metadata"]["namespace"] == "hooks"
    assert "ReferenceGrant" not in {each["kind"] for each in alone}


def test_a_prefix_of_the_path_is_told_to_envoy_and_used_by_the_tests() -> None:
    values = asked("envoyGateway")
    values["config"] |= {"authorize": {"path_prefix": "/authorize"}}
    made = template(values)
    assert of_kind(made, "SecurityPolicy")["spec"]["extAuth"]["http"]["path"] == "/authorize"
    assert containers(of_kind(made, "Pod", "-signed"))[0]["args"][1].endswith(":80/authorize/hooks")
    mesh = asked("istio")
    mesh["config"] |= {"authorize": {"path_prefix": "/authorize"}}
    assert provider(mesh)["envoyExtAuthzHttp"]["pathPrefix"] == "/authorize"


def test_the_receiver_can_be_reached_by_the_gateways_pods_alone() -> None:
    guard = of_kind(template(VALUES), "NetworkPolicy", "-receiver")["spec"]
    assert guard["ingress"][0]["from"] == VALUES["receiver"]["from"]


@pytest.mark.parametrize("prefix", ["", "/authorize"])
def test_what_helm_test_asks_is_allowed_if_it_is_signed_and_rejected_if_it_is_forged(
    prefix: str, tmp_path: Path
) -> None:
    made = template(configured(authorize={"path_prefix": prefix}) if prefix else PLAIN)
    sent = {
        each["metadata"]["name"].partition("-test-")[2]: containers(each)[0]["args"]
        for each in made
        if each["kind"] == "Pod"
    }
    assert set(sent) == {"signed", "forged"}  # nothing is forwarded, so nothing can be bypassed here
    config = yaml.safe_load(of_kind(made, "ConfigMap", "-webhook-sidecar")["data"]["config.yaml"])
    with trial(config, tmp_path) as ask:
        for name, arguments in sent.items():
            done = ask(arguments)
            assert done.returncode == 0, (name, done.stdout, done.stderr)
        # The other way round both fail, so they tell signed from forged.
        for name, status in (("signed", "4xx"), ("forged", "2xx")):
            other = [*(word for word in sent[name] if not word.startswith("--expect")), f"--expect={status}"]
            assert ask(other).returncode == 1, name


def test_a_question_that_only_a_trusted_proxy_can_ask_is_not_tried() -> None:
    made = template(configured(authorize={"form": "forward-auth"}, trusted_proxies=["10.0.0.0/8"]))
    assert "Pod" not in {each["kind"] for each in made}


def test_alerts_count_questions_and_fire_as_they_do_for_deliveries(tmp_path: Path) -> None:
    made = template(VALUES)
    rules = of_kind(made, "PrometheusRule")["spec"]
    names = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    all_names = set(re.findall(r"alert: (\w+)", (CHART / "rules/webhook-sidecar.yaml").read_text()))
    assert all_names - names == {"WebhookSidecarUpstreamFailing"}
    assert "deliveries_total" not in json.dumps(rules)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    promtool = needs("promtool")
    ran = 0
    for file in (ROOT / "tests/monitoring").glob("*_test.yaml"):
        text = file.read_text().replace("webhook_sidecar_deliveries_total", "webhook_sidecar_authorizations_total")
        text = text.replace('outcome="accepted"', 'outcome="allowed"').replace(
            'outcome="duplicate"', 'outcome="rejected"'
        )
        cases = yaml.safe_load(text)
        cases["rule_files"] = ["rules.yaml"]
        for case in cases["tests"]:
            case["alert_rule_test"] = [each for each in case["alert_rule_test"] if each["alertname"] in names]
            ran += len(case["alert_rule_test"])
        (tmp_path / file.name).write_text(yaml.safe_dump(cases))
        done = subprocess.run(
            [promtool, "test", "rules", tmp_path / file.name], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert ran > 20


def test_what_the_pages_show_is_what_the_gateways_schemas_know() -> None:
    shown = [
        yaml.safe_load(fence.text)
        for page in ("docs/authorizer.md", "docs/scale.md")
        for fence in fences(read(page))
        if fence.kind == "yaml" and "\nkind: " in fence.text
    ]
    assert sorted(each["kind"] for each in shown) == [
        "AuthorizationPolicy", "HTTPRoute", "IngressRoute", "Middleware", "NetworkPolicy", "SecurityPolicy"
    ]  # fmt: skip
    assert judge(shown) == [None] * len(shown)
    fields = [(each, at) for each in shown for at in leaves(each["spec"], ("spec",))]
    said = judge([spoilt(each, at) for each, at in fields])
    assert [at for (_, at), what in zip(fields, said, strict=True) if not what] == []


@pytest.mark.parametrize("tool", HELMS)
def test_the_values_of_the_page_point_each_gateway_at_the_route_of_the_page(tool: str) -> None:
    page = read("docs/authorizer.md")
    objects = {each["kind"]: each for each in (yaml.safe_load(f.text) for f in fences(page) if f.mark == "object")}
    values = {f.mark: yaml.safe_load(f.text) for f in fences(page) if f.mark.startswith("values ")}
    assert set(values) == {"values envoy-gateway", "values http-route", "values traefik"}
    made = template(values["values envoy-gateway"], "--namespace", "webhooks", tool=tool, name="hooks")
    policy, route = of_kind(made, "SecurityPolicy"), objects["HTTPRoute"]
    assert policy["spec"]["targetRefs"] == [
        {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": route["metadata"]["name"]}
    ]
    assert policy["metadata"]["namespace"] == route["metadata"]["namespace"]
    assert of_kind(made, "ReferenceGrant")["metadata"]["namespace"] == "webhooks"
    assert len([each for each in made if each["kind"] == "Pod"]) == 2
    middleware = of_kind(template(values["values traefik"], tool=tool, name="hooks"), "Middleware")
    (rule,) = objects["IngressRoute"]["spec"]["routes"]
    assert [each["name"] for each in rule["middlewares"]] == [middleware["metadata"]["name"]]
    assert middleware["metadata"]["namespace"] == objects["IngressRoute"]["metadata"]["namespace"]
    for each in values.values():
        pointing = [one for one in template(each, tool=tool, name="hooks") if one["kind"] in POINTING]
        assert pointing
        assert judge(pointing) == [None] * len(pointing)
    (route,) = [
        one for one in template(values["values http-route"], tool=tool, name="hooks") if one["kind"] == "HTTPRoute"
    ]
    shown = objects["HTTPRoute"]["spec"]
    assert route["metadata"]["namespace"] == objects["HTTPRoute"]["metadata"]["namespace"]
    assert (route["spec"]["parentRefs"], route["spec"]["hostnames"]) == (shown["parentRefs"], shown["hostnames"])
    assert route["spec"]["rules"][0]["backendRefs"] == shown["rules"][0]["backendRefs"]
    assert len(page.splitlines()) <= 190


def test_what_the_pages_show_takes_each_of_our_headers_from_the_answer() -> None:
    """Traefik removes the sender's fields of these names, and no others."""
    text = read("docs/scale.md")
    lists = re.findall(r"(?:headersToBackend|headersToUpstreamOnAllow|authResponseHeaders): \[(.*)\]", text)
    assert [each.lower().split(", ") for each in lists] == [OURS] * 3


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (configured(upstream="http://shop:3000"), "config.upstream: can't be used with `mode: authorizer`, which forwards nothing; remove it, and install a second release with `mode: gateway`"),
        (configured(routes=[ROUTE | {"upstream": "http://shop:3000"}]), "config.routes[0].upstream: can't be used with `mode: authorizer`"),
        (configured(authorize={"listen": "127.0.0.1:8081"}), "config.authorize.listen: '127.0.0.1:8081' can't be reached from outside the pod; use '[::]:PORT'"),
        (authorizer(ingress={"enabled": True, "hosts": ["a.example"]}), "mode: authorizer only answers gateways and gets no deliveries, so ingress and httpRoute can't be used"),
        (authorizer(receiver={"podSelector": {"app": "shop"}}), "receiver.from: is empty, so the NetworkPolicy would let everyone reach the receiver; add the gateway's pods"),
        (authorizer(receiver={"image": "app:1"}), "receiver.image: can't be used with `mode: authorizer`; remove it"),
        (asked("traefik") | {"config": PLAIN["config"]}, "config.trusted_proxies: is empty, so Traefik's questions would not be trusted, and every delivery would be rejected with 404"),
        (asked("envoyGateway") | {"authorizer": {"envoyGateway": {"enabled": True, "targetRefs": [{"group": "g", "kind": "k", "name": "n"}]}}}, "authorizer.requestHeaders: is empty, and gateways send no others along, so no signature would be found"),
        (asked("httpRoute", parentRefs=[]), "authorizer.httpRoute.parentRefs: is empty; add the Gateway"),
        (asked("httpRoute", backendRefs=[]), "authorizer.httpRoute.backendRefs: is empty; add the receiver's Service"),
        (asked("httpRoute") | {"config": PLAIN["config"]}, "authorizer.httpRoute: Gateway API 1.6 and older send along at most 65535 bytes of a body"),
        (asked("httpRoute") | {"config": {"limits": {"body": 65535}, "routes": [{"path": "/open", "open": True}]}}, "config.routes: are all open, so an Ingress or HTTPRoute would have no path"),
        (asked("httpRoute") | {"config": PLAIN["config"] | {"limits": {"body": 65535}, "authorize": {"form": "forward-auth"}}}, "config.authorize.form: forward-auth is not how Envoy asks"),
        (asked("envoyGateway", targetRefs=[]), "authorizer.envoyGateway.targetRefs: is empty; add the route or Gateway to protect"),
        (asked("istio", selector={}), "authorizer.istio: needs selector or targetRefs, and not both; without them every pod of the namespace would ask"),
        (asked("istio", targetRefs=[{"kind": "Gateway", "name": "public"}]), "authorizer.istio: needs selector or targetRefs, and not both"),
        (asked("istio", rules=[]), "authorizer.istio.rules: is empty, so Istio would never ask and nothing would be protected; use [{}] for every"),
        (asked("istio") | {"mode": "gateway", "config": {"upstream": "http://shop:3000", "routes": [ROUTE]}}, "authorizer.istio.enabled: needs `mode: authorizer`; this mode has nothing that a gateway could ask"),
        (asked("istio") | {"config": PLAIN["config"] | {"authorize": {"form": "forward-auth"}}}, "config.authorize.form: forward-auth is not how Envoy asks; use any"),
        (asked("traefik") | {"config": PLAIN["config"] | {"trusted_proxies": ["10.0.0.0/8"], "authorize": {"form": "envoy"}}}, "config.authorize.form: envoy is not how Traefik asks; use any"),
        (asked("traefik") | {"config": PLAIN["config"] | {"trusted_proxies": ["10.0.0.0/8"], "authorize": {"path_prefix": "/a"}}}, "config.authorize.path_prefix: is for Envoy, which puts it before each path, and Traefik does not"),
        (asked("envoyGateway", target=[]), "additional properties 'target' not allowed"),
    ],
)  # fmt: skip
def test_wrong_values_are_rejected_with_a_message(values: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(HelmError) as refused:
        template(values)
    assert sentence in str(refused.value)
    assert "executing" not in str(refused.value)


def test_right_values_are_taken() -> None:
    assert template(PLAIN)
    for kind in ("envoyGateway", "httpRoute", "istio", "traefik"):
        assert template(asked(kind))
