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
        ({}, "config.routes: names no route, so nothing would be let through; for example config: {upstream: "),
        (config(upstream=None), "at '/config/upstream': got null, want string"),
        (gateway(config={"routes": [ROUTE]}), "config.routes[0]: has no upstream; set config.upstream for all routes or"),
        (gateway(existingSecrets=[]), "config.routes[0].secrets[0].file: '/run/secrets/hooks/current' is in a Secret that is not mounted; add its name: existingSecrets: [hooks]"),
        (route(secrets=[{"file": "/etc/hooks"}]), "'/etc/hooks' is on no volume; write /run/secrets/NAME/KEY, with the Secret's name in existingSecrets: [NAME]"),
        (route(secrets=[{"env": "HOOKS"}]), "config.routes[0].secrets[0].env: nothing sets the variable HOOKS; add it to extraEnv: [{name: HOOKS, "),
        (config(upstream="http://127.0.0.1:3000"), "config.upstream: 'http://127.0.0.1:3000' is the gateway's own pod, where no receiver is; name its Service"),
        (config(upstream="unix:/run/a"), "config.upstream: 'unix:/run/a' is a socket in the gateway's own pod, where no receiver is"),
        (route(upstream="http://receiver/x"), "config.routes[0].upstream: 'http://receiver/x' has a path; deliveries keep the path they came with, so write http://receiver"),
        (config(listen="127.0.0.1:8080"), "config.listen: '127.0.0.1:8080' can't be reached from outside the pod; write 0.0.0.0:PORT"),
        (config(admin="unix:/run/a"), "config.admin: 'unix:/run/a' can't be reached from outside the pod; write 0.0.0.0:9090"),
        (config(admin="[::]:8080"), "config: listen and admin both have port 8080; give each its own"),
        (route(verify="gihub"), "config.routes[0].verify: 'gihub' is not a preset; `sidecar presets` lists them"),
        (route(verify="twilio"), "config.routes[0].verify: signs the URL that senders call, and no public_url says it"),
        (route(allow=["10.0.0.1/8"]), "config.routes[0].allow[0]: '10.0.0.1/8' has host bits set; use '10.0.0.0/8'"),
        (route(name="a b"), "config.routes[0].name: 'a b' is not a name"),
        (route(secrets=[ROUTE["secrets"][0] | {"retire_by": "2026-02-30"}]), "config.routes[0].secrets[0].retire_by: '2026-02-30' is no day"),
        (route(sign={"secret": {"file": "/run/secrets/app/key"}}), "config.routes[0].sign.secret[0].file: '/run/secrets/app/key' is in a Secret that is not mounted; add its name: existingSecrets: [app]"),
        (route(sign={"secret": [ROUTE["secrets"][0] | {"optional": True}]}), "config.routes[0].sign.secret: is optional, and without it nothing would be signed"),
        (config(routes=[{"path": "/a", "open": True, "sign": {"secret": ROUTE["secrets"][0]}}]), "config.routes[0].sign: has no meaning on a route that is open: true"),
        (route(secrets=["hunter2"]), "config.routes[0].secrets[0]: holds the secret itself; keep it out of the values and write where it stands: {file: /run/secrets/NAME/KEY}"),
        (route(secrets=[{"value": "hunter2"}]), "config.routes[0].secrets[0]: holds the secret itself"),
        (config(replay_store={"url": "redis://redis:6379/0", "password": "hunter2"}), "config.replay_store.password: holds the secret itself"),
        (config(replay_store="redis://:hunter2@redis:6379/0"), "config.replay_store: is no address of a store; for example redis://redis.namespace:6379/0"),
        (config(replay_store={"url": "redis://redis:6379/0", "password": {"file": "/run/secrets/redis/password"}}), "config.replay_store.password.file: '/run/secrets/redis/password' is in a Secret that is not mounted"),
        (config(drain="soon"), "config.drain: 'soon' is not a duration; write seconds or a unit: 500ms, 30s, 5m, 1h"),
        (config(drian="5s"), "at '/config': additional properties 'drian' not allowed"),
        (gateway(mode="proxy"), "at '/mode': value must be one of 'gateway', 'sidecar', 'library'"),
        (gateway(terminationGracePeriodSeconds=20), "terminationGracePeriodSeconds: 20 is not more than config.drain (20 s), so deliveries would be cut off; make it 30 or more"),
        (gateway(receiver={"image": "app:1"}), "receiver.image: is for mode: sidecar, and mode is gateway"),
        (sidecar(image=""), "receiver.image: is empty; in sidecar mode it is your receiver's image"),
        (sidecar(port=8080), "receiver.port: 8080 is a port of the sidecar; move it with config.listen or config.admin"),
        (sidecar() | {"config": {"upstream": "http://127.0.0.1:4000", "routes": [ROUTE]}}, "config.upstream: 'http://127.0.0.1:4000' is not where the receiver listens, receiver.port: 3000"),
        (sidecar(loopback=True, readinessProbe={"httpGet": {"path": "/", "port": 3000}}), "receiver.readinessProbe: the kubelet can't reach port 3000, because the receiver listens on 127.0.0.1 only; use exec, or an open route and the sidecar's port"),
        (gateway(ingress={"enabled": True}), "ingress.hosts: is empty; name the host that senders call"),
        (config(routes=[ROUTE | {"path": f"/{index}"} for index in range(129)]) | {"httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}]}}, "httpRoute.enabled: an HTTPRoute takes 128 paths, and config.routes has more"),
        (route(reject={"body": "x" * 1_000_000}), "config: is larger than a ConfigMap may be, 1 MB"),
        (gateway(httpRoute={"enabled": True}), "httpRoute.parentRefs: is empty; name the Gateway"),
        (gateway(autoscaling={"enabled": True, "minReplicas": 5, "maxReplicas": 3}), "autoscaling.minReplicas: is more than maxReplicas"),
        (gateway(autoscaling={"enabled": True}, resources={"requests": {"cpu": None}}), "resources.requests.cpu: is missing, and autoscaling.targetCPU is a percentage of it"),
        (gateway(serviceMonitor={"enabled": True}, podMonitor={"enabled": True}), "every sample would be counted twice"),
        (gateway(mode="library", ingress={"enabled": True, "hosts": ["a.example"]}), "mode: library makes no Service and no pods"),
        (gateway(tests={"route": "nobody"}), "tests.route: no route 'nobody' verifies a signature that can be made here"),
        (gateway(tests={"accepted": ["a"]}), "tests.accepted: there is no account 'a' in config.delivery_test.accounts; add it there"),
        (gateway(tests={"url": "http://shop:80"}), "tests: url and podSelector are for mode: library; this mode knows its own pods"),
        (gateway(mode="library", admissionPolicy={"enabled": True}, nativeSidecar=False), "nativeSidecar: is false, and admissionPolicy.enabled puts a native sidecar into pods"),
        (gateway(admissionPolicy={"enabled": True}), "admissionPolicy.enabled: needs mode: library"),
        (gateway(existingSecrets=["hooks", "a.b", "a-b"]), "existingSecrets: a-b and a.b would be the same volume"),
        (gateway(existingSecret="hooks"), "existingSecret: is no value of this chart; it is a list: existingSecrets: [NAME]"),
        (gateway(secrets={"a": "b"}), "secrets: is no value of this chart; secrets are never values; make a Secret and name it"),
        (gateway(upstream="http://receiver:3000"), "upstream: is no value of this chart; it is a part of the configuration: config.upstream"),
        (gateway(replicas=3), "replicas: is no value of this chart; it is replicaCount"),
        (gateway(image={"tag": "a b"}), "at '/image/tag': 'a b' does not match pattern"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_with_a_sentence(values: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(HelmError) as refused:
        template(values)
    assert sentence in str(refused.value)
    assert "executing" not in str(refused.value)  # what Helm says of a template that broke
    assert "hunter2" not in str(refused.value)


def test_all_mistakes_are_told_at_once_by_both_helms() -> None:
    for tool in HELMS:
        with pytest.raises(HelmError) as refused:
            template(config(listen="0.0.0.0:9090", routes=[ROUTE, ROUTE | {"verify": "nobody"}]), tool=tool)
        told = [line for line in str(refused.value).splitlines() if line.startswith("config")]
        assert len(told) == 4, told


def test_an_admission_policy_needs_a_kubernetes_that_has_them() -> None:
    values = gateway(
        mode="library",
        admissionPolicy={"enabled": True},
        config=GATEWAY["config"] | {"upstream": "http://127.0.0.1:3000"},
    )
    with pytest.raises(
        HelmError, match=r"admissionPolicy\.enabled: needs Kubernetes 1\.36 or newer, and this is v1\.35\.0"
    ):
        template(values, version="1.35.0")


# -- the whole of what a configuration can have wrong --


@pytest.mark.parametrize("file", INVALID, ids=lambda file: file.stem)
def test_a_configuration_that_the_sidecar_refuses_does_not_render(file: Path, tmp_path: Path) -> None:
    """Or renders into one that it takes, where Helm's reading and writing of YAML has mended the mistake."""
    assert refused_or_right(MOUNTED + textwrap.indent(file.read_text(), "  "), tmp_path) == ""


#: What is hardly ever right.
JUNK = (
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
def test_junk_in_any_place_is_refused_as_the_sidecar_refuses_it(number: int, tmp_path: Path) -> None:
    """One piece of junk for each place, the next one that the sidecar refuses there."""
    for junk in (*JUNK[number % len(JUNK) :], *JUNK):
        config = replaced(EVERY_KEY, PLACES[number], junk)
        if problem_of(json.dumps(config), tmp_path):
            break
    else:
        return
    assert refused_or_right(MOUNTED + textwrap.indent(json.dumps(config), "  "), tmp_path) == ""


def problem_of(config: str, folder: Path) -> str:
    """What the sidecar says."""
    file = folder / "config.yaml"
    file.write_text(config)
    try:
        load_config(str(file), {}, resolve_secrets=False)
    except ConfigError as error:
        return str(error)
    return ""


def refused_or_right(values: str, folder: Path) -> str:
    """Nothing if the chart refuses the values, or makes a configuration of them that the sidecar takes."""
    options = ("--values", "-", "--show-only", "templates/configmap.yaml")
    try:
        made = helm("template", "release", CHART, *options, stdin=values)
    except HelmError as refused:
        return f"a template broke: {refused}" if "executing" in str(refused) else ""
    return problem_of(yaml.safe_load(made)["data"]["config.yaml"], folder)


def test_networks_are_read_as_the_sidecar_reads_them(tmp_path: Path) -> None:
    """Every prefix of both families, with and without host bits, and what is no network."""
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
