"""Wrong values are refused when the chart is rendered, in a sentence that names the place and the remedy."""

import ipaddress
import json
import random
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import CHART, HELMS, ROOT, HelmError, helm, template

from sidecar.config.loader import load_config
from sidecar.config.problems import ConfigError
from sidecar.config.yaml_source import read_yaml

INVALID = sorted((Path(__file__).parents[1] / "config/invalid").glob("*.yaml"))
#: Any file and any variable may be there.
MOUNTED = """
mode: library
extraEnvFrom: [{secretRef: {name: everything}}]
extraVolumes: [{name: everything, emptyDir: {}}]
extraVolumeMounts: [{name: everything, mountPath: /}, {name: everything, mountPath: secrets}]
config:
"""
#: `config:` of these is right.
ROUTE: dict[str, Any] = {"path": "/hooks", "verify": "github", "secrets": [{"file": "/run/secrets/hooks/current"}]}
GATEWAY: dict[str, Any] = {
    "config": {"upstream": "http://receiver:3000", "routes": [ROUTE]},
    "existingSecrets": ["hooks"],
}


def gateway(**changes: Any) -> dict[str, Any]:
    return GATEWAY | changes


def config(**changes: Any) -> dict[str, Any]:
    return GATEWAY | {"config": GATEWAY["config"] | changes}


def route(**changes: Any) -> dict[str, Any]:
    return config(routes=[{key: value for key, value in (ROUTE | changes).items() if value is not None}])


def sidecar(**receiver: Any) -> dict[str, Any]:
    return gateway(mode="sidecar", config={"routes": [ROUTE]}, receiver={"image": "app:1"} | receiver)


def test_these_values_are_right() -> None:
    assert template(GATEWAY)
    assert template(sidecar())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "config.routes: is empty, so nothing would be accepted; add a route, for example config: {upstream:"),
        (config(upstream=None), "at '/config/upstream': got null, want string"),
        (gateway(config={"routes": [ROUTE]}), "config.routes[0]: has no upstream; set `config.upstream` for all routes or"),
        (gateway(existingSecrets=[]), "config.routes[0].secrets[0].file: '/run/secrets/hooks/current' is in a Secret that is not mounted; add its name: existingSecrets: [hooks]"),
        (route(secrets=[{"file": "/etc/hooks"}]), "'/etc/hooks' is not on a volume; use /run/secrets/NAME/KEY, with the Secret's name in existingSecrets: [NAME]"),
        (route(secrets=[{"env": "HOOKS"}]), "config.routes[0].secrets[0].env: the variable HOOKS is not set; add it to extraEnv: [{name: HOOKS, valueFrom:"),
        (config(upstream="http://127.0.0.1:3000"), "config.upstream: 'http://127.0.0.1:3000' is the gateway's own pod; use the receiver's Service, for example"),
        (config(upstream="unix:/run/a"), "config.upstream: 'unix:/run/a' is a socket in the gateway's own pod; use the receiver's Service, for"),
        (route(upstream="http://receiver/x"), "config.routes[0].upstream: 'http://receiver/x' has a path; deliveries keep the path they came with, so use http://receiver"),
        (config(listen="127.0.0.1:8080"), "config.listen: '127.0.0.1:8080' can't be reached from outside the pod; use '[::]:PORT', or 0.0.0.0:PORT for IPv4 only"),
        (config(listen={"unix": "/run/a"}), "config.listen: '{\"unix\":\"/run/a\"}' can't be reached from outside the pod; use '[::]:PORT'"),
        (config(admin="unix:/run/a"), "config.admin: 'unix:/run/a' can't be reached from outside the pod; use '[::]:9090'"),
        (config(admin="[::]:8080"), "config: listen and admin both use port 8080; use different ports, for"),
        (route(verify="gihub"), "config.routes[0].verify: 'gihub' is not a preset; run `sidecar presets` for the list, or"),
        (route(verify="twilio"), "config.routes[0].verify: signs the URL that senders use, which is unknown; add `public_url:"),
        (route(allow=["10.0.0.1/8"]), "config.routes[0].allow[0]: '10.0.0.1/8' has host bits set; use '10.0.0.0/8'"),
        (route(name="a b"), "config.routes[0].name: 'a b' is not a valid name; use"),
        (route(secrets=[ROUTE["secrets"][0] | {"retire_by": "2026-02-30"}]), "config.routes[0].secrets[0].retire_by: '2026-02-30' is not a valid day;"),
        (route(sign={"secret": {"file": "/run/secrets/app/key"}}), "config.routes[0].sign.secret.file: '/run/secrets/app/key' is in a Secret that is not mounted; add its name: existingSecrets: [app]"),
        (route(sign={"secret": [ROUTE["secrets"][0] | {"optional": True}]}), "config.routes[0].sign.secret: is optional, and without it nothing would be signed"),
        (config(routes=[{"path": "/a", "open": True, "sign": {"secret": ROUTE["secrets"][0]}}]), "config.routes[0].sign: can't be used with `open: true`; remove one of the two"),
        (route(secrets=["hunter2"]), "config.routes[0].secrets[0]: holds the secret itself; move it out of the values and refer to it: {file: /run/secrets/NAME/KEY}, with the Secret's"),
        (route(secrets=[{"value": "hunter2"}]), "config.routes[0].secrets[0]: holds the secret itself"),
        (config(replay_store={"url": "redis://redis:6379/0", "password": "hunter2"}), "config.replay_store.password: holds the secret itself"),
        (config(replay_store="redis://:hunter2@redis:6379/0"), "config.replay_store: is not a valid store; use memory, or for example"),
        (config(replay_store={"url": "redis://redis:6379/0", "password": {"file": "/run/secrets/redis/password"}}), "config.replay_store.password.file: '/run/secrets/redis/password' is in a Secret that is not mounted"),
        (config(drain="soon"), "config.drain: 'soon' is not a valid duration; use seconds or a unit: 500ms, 30s, 5m, 1h"),
        (config(drian="5s"), "at '/config': additional properties 'drian' not allowed"),
        (gateway(mode="proxy"), "at '/mode': value must be one of 'gateway', 'sidecar', 'library'"),
        (gateway(terminationGracePeriodSeconds=20), "terminationGracePeriodSeconds: 20 is not more than config.drain (20 s), so deliveries would be cut off; use at least 30, or leave it out"),
        (gateway(receiver={"image": "app:1"}), "receiver.image: can't be used with `mode: gateway`; remove it, or"),
        (sidecar(image=""), "receiver.image: is empty; set your receiver's image, for example"),
        (sidecar(port=8080), "receiver.port: 8080 is also a port of the sidecar; change it with config.listen or config.admin,"),
        (sidecar() | {"config": {"upstream": "http://127.0.0.1:4000", "routes": [ROUTE]}}, "config.upstream: 'http://127.0.0.1:4000' is not the receiver's port, receiver.port: 3000; remove one or change the other"),
        (sidecar(loopback=True, readinessProbe={"httpGet": {"path": "/", "port": 3000}}), "receiver.readinessProbe: the kubelet can't reach port 3000, because the receiver listens on 127.0.0.1 only; use exec, or add {path: /healthz, open: true} to"),
        (gateway(ingress={"enabled": True}), "ingress.hosts: is empty; add the host that senders use, for example"),
        (config(routes=[ROUTE | {"path": f"/{index}"} for index in range(129)]) | {"httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}]}}, "httpRoute.enabled: an HTTPRoute can have 128 paths, and config.routes has more; set it"),
        (route(reject={"body": "x" * 1_000_000}), "config: is larger than a ConfigMap can be, 1 MB; split the"),
        (gateway(httpRoute={"enabled": True}), "httpRoute.parentRefs: is empty; add the Gateway, for"),
        (gateway(autoscaling={"enabled": True, "minReplicas": 5, "maxReplicas": 3}), "autoscaling.minReplicas: is more than maxReplicas"),
        (gateway(autoscaling={"enabled": True}, resources={"requests": {"cpu": None}}), "resources.requests.cpu: is required, because autoscaling.targetCPU is a percentage of it; set"),
        (gateway(serviceMonitor={"enabled": True}, podMonitor={"enabled": True}), "every sample would be counted twice"),
        (gateway(mode="library", ingress={"enabled": True, "hosts": ["a.example"]}), "mode: library makes no Service and no pods"),
        (gateway(tests={"route": "nobody"}), "tests.route: no route 'nobody' verifies a signature that can be made here"),
        (gateway(tests={"accepted": ["a"]}), "tests.accepted: 'a' is not an account of config.delivery_test.accounts; add it there"),
        (gateway(tests={"url": "http://shop:80"}), "tests: url and podSelector can't be used with this mode, which knows its own pods; remove them"),
        (gateway(mode="library", admissionPolicy={"enabled": True}, nativeSidecar=False), "nativeSidecar: is false, but admissionPolicy.enabled injects native sidecars; set one of them to its default"),
        (gateway(admissionPolicy={"enabled": True}), "admissionPolicy.enabled: needs `mode: library`; this"),
        (gateway(existingSecrets=["hooks", "a.b", "a-b"]), "existingSecrets: a-b and a.b would use the same volume,"),
        (gateway(existingSecret="hooks"), "existingSecret: is not a value of this chart; use the list existingSecrets: [NAME]"),
        (gateway(secrets={"a": "b"}), "secrets: is not a value of this chart; secrets are never values; create a Secret and use its name:"),
        (gateway(upstream="http://receiver:3000"), "upstream: is not a value of this chart; use config.upstream, a part of the configuration"),
        (gateway(replicas=3), "replicas: is not a value of this chart; use replicaCount"),
        (gateway(image={"tag": "a b"}), "at '/image/tag': 'a b' does not match pattern"),
    ],
)  # fmt: skip
def test_wrong_values_are_rejected_with_a_message(values: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(HelmError) as refused:
        template(values)
    assert sentence in str(refused.value)
    assert "executing" not in str(refused.value)  # what Helm says of a template that broke
    assert "hunter2" not in str(refused.value)
    assert repeated(refused.value) == []


def test_all_mistakes_are_reported_at_once_by_both_helms() -> None:
    for tool in HELMS:
        with pytest.raises(HelmError) as refused:
            template(config(listen="0.0.0.0:9090", routes=[ROUTE, ROUTE | {"verify": "nobody"}]), tool=tool)
        reported = [line for line in str(refused.value).splitlines() if line.startswith("config")]
        assert len(reported) == 4, reported


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(
            route(sign={"secret": ROUTE["secrets"][0] | {"optional": True}}), id="one optional secret to sign"
        ),
        pytest.param(route(sign={"secret": [{"file": "/etc/hooks"}]}), id="a secret to sign that is not mounted"),
        pytest.param(
            config(workers=2, routes=[ROUTE | {"path": f"/{index}", "replay": "10m"} for index in range(2)]),
            id="workers that don't share the replay memory of two routes",
        ),
    ],
)
def test_one_mistake_is_reported_once(values: Mapping[str, Any]) -> None:
    with pytest.raises(HelmError) as refused:
        template(values)
    reported = [line for line in str(refused.value).splitlines() if line.startswith("config")]
    assert len(reported) == 1, reported


def repeated(error: HelmError) -> list[str]:
    """Lines that a refusal holds more than once."""
    lines = [line for line in str(error).splitlines() if line]
    return sorted({line for line in lines if lines.count(line) > 1})


def test_an_admission_policy_needs_a_kubernetes_that_has_them() -> None:
    values = gateway(
        mode="library",
        admissionPolicy={"enabled": True},
        config=GATEWAY["config"] | {"upstream": "http://127.0.0.1:3000"},
    )
    with pytest.raises(
        HelmError, match=r"admissionPolicy\.enabled: needs Kubernetes 1\.36 or newer, but this is v1\.35\.0"
    ):
        template(values, version="1.35.0")


# -- the whole of what a configuration can have wrong --


@pytest.mark.parametrize("file", INVALID, ids=lambda file: file.stem)
def test_a_configuration_that_the_sidecar_rejects_does_not_render(file: Path, tmp_path: Path) -> None:
    """Or it renders to one that the sidecar accepts, because Helm fixed the mistake when it read and wrote the YAML."""
    assert rejected_or_right(MOUNTED + textwrap.indent(file.read_text(), "  "), tmp_path) == ""


#: Values that are hardly ever valid.
JUNK: tuple[Any, ...] = (
    "banana",
    "",
    " ",
    "a b",
    "http://x y/",
    "1e3",
    -1,
    0,
    1.5,
    True,
    "é",
    "x" * 70,
    [],
    {},
    "/../x",
    "http://h:99999",
    "0.0.0.0:0",
)
EVERY_KEY = read_yaml((ROOT / "config/full.yaml").read_bytes(), "full.yaml").value


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if not isinstance(value, dict | list):
        yield path
    for key, below in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from leaves(below, (*path, key))


PLACES = list(leaves(EVERY_KEY))


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


@pytest.mark.parametrize("number", range(len(PLACES)), ids=[".".join(map(str, path)) for path in PLACES])
def test_junk_in_any_place_is_rejected_as_the_sidecar_rejects_it(number: int, tmp_path: Path) -> None:
    """One piece of junk for each place, the next one that the sidecar rejects there."""
    for junk in (*JUNK[number % len(JUNK) :], *JUNK):
        config = replaced(EVERY_KEY, PLACES[number], junk)
        if problem_of(json.dumps(config), tmp_path):
            break
    else:
        return
    assert rejected_or_right(MOUNTED + textwrap.indent(json.dumps(config), "  "), tmp_path) == ""


def problem_of(config: str, folder: Path) -> str:
    """The messages of the sidecar."""
    file = folder / "config.yaml"
    file.write_text(config)
    try:
        load_config(str(file), {}, resolve_secrets=False)
    except ConfigError as error:
        return str(error)
    return ""


def rejected_or_right(values: str, folder: Path) -> str:
    """Empty if the chart rejects the values, or renders them to a configuration that the sidecar accepts."""
    options = ("--values", "-", "--show-only", "templates/configmap.yaml")
    try:
        made = helm("template", "release", CHART, *options, stdin=values)
    except HelmError as refused:
        if twice := repeated(refused):
            return f"reported more than once: {twice}"
        return f"a template broke: {refused}" if "executing" in str(refused) else ""
    return problem_of(yaml.safe_load(made)["data"]["config.yaml"], folder)


def test_networks_are_read_as_the_sidecar_reads_them(tmp_path: Path) -> None:
    """Every prefix of both families, with and without host bits, and texts that are not networks."""
    chance = random.Random(1)
    texts = [
        "1.2.3.4",
        "0.0.0.0/0",
        "::/0",
        "::1",
        "2001:db8::",
        "1::2::3",
        ":::",
        ":1::2",
        "1::2:",
        "1:2:3:4::5:6:7:8",
        "1:2:3:4:5:6:7::",
        "::2:3:4:5:6:7:8",
        "::g",
        "12345::/16",
        "1:2:3:4:5:6:7:8:9",
        "1:2:3:4:5:6:7",
    ]
    texts += [
        "1.2.3",
        "256.1.1.1",
        "01.2.3.4",
        "1.2.3.4/33",
        "::1/129",
        "::ffff:102:304",
        "::ffff:0:0/96",
        "::ffff:102:0/112",
        "a.example",
        "",
    ]
    for bits, family in ((32, ipaddress.IPv4Address), (128, ipaddress.IPv6Address)):
        for prefix in range(1, bits + 1):
            network = chance.getrandbits(bits) >> (bits - prefix) << (bits - prefix)
            texts.append(f"{family(network)}/{prefix}")
            if prefix < bits:
                texts.append(f"{family(network | 1 << chance.randrange(bits - prefix))}/{prefix}")
    routes = [ROUTE | {"path": f"/{index}", "allow": [text]} for index, text in enumerate(texts)]
    with pytest.raises(HelmError) as refused:
        template(config(routes=routes))
    chart = {
        int(index): sentence
        for index, sentence in re.findall(r"config\.routes\[(\d+)\]\.allow\[0\]: (.*)", str(refused.value))
    }
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"upstream": "http://receiver:3000", "routes": routes}))
    with pytest.raises(ConfigError) as error:
        load_config(str(file), {}, resolve_secrets=False)
    assert set(chart) == {int(index) for index in re.findall(r"routes\[(\d+)\]\.allow\[0\]", str(error.value))}
    for index, sentence in chart.items():
        if use := re.search(r"use ('[0-9./]+')", sentence):
            assert f"routes[{index}].allow[0]: '{texts[index]}' has host bits set; use {use[1]}" in str(error.value)
