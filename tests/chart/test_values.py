"""Wrong values are refused in a sentence that names the place and the remedy, before anything is replaced.

By the chart when it is rendered for what only the chart knows, by the program for the rest: `sidecar check --manifests -` in a pipe, and
the same check in a Job before an install or upgrade (test_check_job.py).
"""

import contextlib
import io
import ipaddress
import json
import random
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from chart import CHART, HELMS, ROOT, HelmError, helm, template
from jsonschema import Draft202012Validator

from sidecar.cli.main import main
from sidecar.config.loader import load_config
from sidecar.config.problems import ConfigError
from sidecar.config.yaml_source import read_yaml


def is_wrong_by_itself(file: Path) -> bool:
    """Not only by what a secret holds, which nothing but a pod can read: it then doesn't start, or keeps what it has."""
    try:
        load_config(str(file), {}, resolve_secrets=False)
    except ConfigError:
        return True
    return False


WRONG = sorted((Path(__file__).parents[1] / "config/invalid").glob("*.yaml"))
#: Wrong only by what their secrets hold, or by files that are not there.
BY_SECRETS = {
    "account_key_missing", "admin_token_absent", "keys_ca_absent", "keys_ca_no_certificate",
    "secret_env_and_file_of_a_shell", "secret_env_blank", "secret_env_empty", "secret_env_empty_though_optional",
    "secret_env_missing", "secret_file_a_directory", "secret_file_empty", "secret_file_missing",
    "secret_file_newline_only", "secret_no_ed25519_key", "secret_no_public_key", "secret_not_base64", "secret_not_hex",
    "secret_not_whsec", "secret_without_colon", "secrets_all_optional_and_absent",
    "upstream_is_verified_by_absent_files",
}  # fmt: skip
INVALID = [file for file in WRONG if file.stem not in BY_SECRETS]
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


def test_the_sidecar_rejects_these_files_only_for_their_secrets() -> None:
    assert {file.stem for file in WRONG if not is_wrong_by_itself(file)} == BY_SECRETS


def test_these_values_are_right() -> None:
    assert template(GATEWAY)
    assert template(sidecar())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "config.routes: is empty, so nothing would be accepted; add a route, for example config: {upstream:"),
        (config(upstream=None), "at '/config/upstream': got null, want string"),
        (gateway(existingSecrets=[]), "config.routes[0].secrets[0].file: '/run/secrets/hooks/current' is in a Secret that is not mounted; add its name: existingSecrets: [hooks]"),
        (route(secrets=[{"file": "/etc/hooks"}]), "'/etc/hooks' is not on a volume; use /run/secrets/NAME/KEY, with the Secret's name in existingSecrets: [NAME]"),
        (route(secrets=[{"env": "HOOKS"}]), "config.routes[0].secrets[0].env: the variable HOOKS is not set; add it to extraEnv: [{name: HOOKS, valueFrom:"),
        (config(upstream="http://127.0.0.1:3000"), "config.upstream: 'http://127.0.0.1:3000' is the gateway's own pod; use the receiver's Service, for example"),
        (config(upstream="unix:/run/a"), "config.upstream: 'unix:/run/a' is a socket in the gateway's own pod; use the receiver's Service, for"),
        (config(listen="127.0.0.1:8080"), "config.listen: '127.0.0.1:8080' can't be reached from outside the pod; use '[::]:PORT', or 0.0.0.0:PORT for IPv4 only"),
        (config(listen={"unix": "/run/a"}), "config.listen: '{\"unix\":\"/run/a\"}' can't be reached from outside the pod; use '[::]:PORT'"),
        (config(admin="unix:/run/a"), "config.admin: 'unix:/run/a' can't be reached from outside the pod; use '[::]:PORT', or 0.0.0.0:PORT for IPv4 only, for example '[::]:9090'"),
        (route(sign={"secret": {"file": "/run/secrets/app/key"}}), "config.routes[0].sign.secret.file: '/run/secrets/app/key' is in a Secret that is not mounted; add its name: existingSecrets: [app]"),
        (route(secrets=["hunter2"]), "config.routes[0].secrets[0]: holds the secret itself; move it out of the values and refer to it: {file: /run/secrets/NAME/KEY}, with the Secret's"),
        (route(secrets=[{"value": "hunter2"}]), "config.routes[0].secrets[0]: holds the secret itself"),
        (config(replay_store={"url": "redis://redis:6379/0", "password": "hunter2"}), "config.replay_store.password: holds the secret itself"),
        (config(replay_store="redis://:hunter2@redis:6379/0"), "config.replay_store: has a password in its address; move it out of the values: {url: redis://redis.namespace:6379/0, password:"),
        (config(replay_store={"url": "redis://redis:6379/0", "password": {"file": "/run/secrets/redis/password"}}), "config.replay_store.password.file: '/run/secrets/redis/password' is in a Secret that is not mounted"),
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
        (gateway(httpRoute={"enabled": True}), "httpRoute.parentRefs: is empty; add the Gateway, for"),
        (gateway(autoscaling={"enabled": True, "minReplicas": 5, "maxReplicas": 3}), "autoscaling.minReplicas: is more than maxReplicas"),
        (gateway(autoscaling={"enabled": True}, resources={"requests": {"cpu": None}}), "resources.requests.cpu: is required, because autoscaling.targetCPU is a percentage of it; set"),
        (gateway(serviceMonitor={"enabled": True}, podMonitor={"enabled": True}), "every sample would be counted twice"),
        (gateway(mode="library", ingress={"enabled": True, "hosts": ["a.example"]}), "mode: library makes no Service and no pods"),
        (gateway(tests={"route": "nobody"}), "tests.route: no route is named 'nobody'; use a name of config.routes, or none to send nothing"),
        (gateway(tests={"accepted": ["a"]}), "tests: 'a' is not an account of config.delivery_test.accounts; add it there"),
        (gateway(tests={"url": "http://shop:80"}), "tests: url and podSelector can't be used with this mode, which knows its own pods; remove them"),
        (gateway(mode="library", admissionPolicy={"enabled": True}, nativeSidecar=False), "nativeSidecar: is false, but admissionPolicy.enabled injects native sidecars; set one of them to its default"),
        (gateway(admissionPolicy={"enabled": True}), "admissionPolicy.enabled: needs `mode: library`; this"),
        (gateway(existingSecrets=["hooks", "a.b", "a-b"]), "existingSecrets: a-b and a.b would use the same volume,"),
        (gateway(existingSecret="hooks"), "existingSecret: is not a value of this chart; use the list existingSecrets: [NAME]"),
        (gateway(secrets={"a": "b"}), "secrets: is not a value of this chart; secrets are never values; create a Secret and use its name:"),
        (gateway(upstream="http://receiver:3000"), "upstream: is not a value of this chart; use config.upstream, a part of the configuration"),
        (gateway(replicas=3), "replicas: is not a value of this chart; use replicaCount"),
        (gateway(image={"tag": "a b"}), "at '/image/tag': 'a b' does not match pattern"),
        (route(allow=["192.0.2.0/24"]) | {"tests": {"route": "hooks"}}, "tests.route: 'hooks' has `allow`, so the test's pod would be rejected by its address, signed or not; use another"),
        (route(mode="shadow") | {"tests": {"route": "hooks"}}, "tests.route: 'hooks' is in shadow mode, so a forged delivery would be forwarded; use another"),
        (route(methods=["PUT"]) | {"tests": {"route": "hooks"}}, "tests.route: 'hooks' takes no signed POST; use another"),
        (config(admin_token="hunter2"), "config.admin_token: holds the secret itself; move it out of the values"),
        (route(secrets=[{"id": "a"}]), "config.routes[0].secrets[0]: holds the secret itself"),
        (route(verify_token={"file": "/run/secrets/other/token"}), "config.routes[0].verify_token.file: '/run/secrets/other/token' is in a Secret that is not mounted; add its name: existingSecrets: [other]"),
        (config(delivery_test={"accounts": [{"id": "a", "api_key": {"env": "KEY"}}]}), "config.delivery_test.accounts[0].api_key.env: the variable KEY is not set; add it to"),
        (gateway(check={"enabled": "yes"}), "at '/check/enabled': got string, want boolean"),
    ],
)  # fmt: skip
def test_wrong_values_are_rejected_with_a_message(values: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(HelmError) as refused:
        template(values)
    assert sentence in str(refused.value)
    assert "executing" not in str(refused.value)  # what Helm says of a template that broke
    assert "hunter2" not in str(refused.value)
    assert repeated(refused.value) == []


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (gateway(config={"routes": [ROUTE]}), "routes[0]: has no upstream; set `upstream` for all routes or for this one"),
        (route(upstream="http://receiver/x"), "routes[0].upstream: 'http://receiver/x' has a path; deliveries keep the path they came with, so use http://receiver"),
        (route(verify="gihub"), "routes[0].verify: 'gihub' is not a preset; did you mean 'github'?"),
        (route(verify="twilio"), "routes[0].verify: signs the URL that senders use, which is unknown; add `public_url:"),
        (route(allow=["10.0.0.1/8"]), "routes[0].allow[0]: '10.0.0.1/8' has host bits set; use '10.0.0.0/8'"),
        (route(name="a b"), "routes[0].name: 'a b' is not a valid name; use"),
        (route(secrets=[ROUTE["secrets"][0] | {"retire_by": "2026-02-30"}]), "routes[0].secrets[0].retire_by: '2026-02-30' is not a valid day;"),
        (route(sign={"secret": [ROUTE["secrets"][0] | {"optional": True}]}), "routes[0].sign.secret: is optional, and without it nothing would be signed"),
        (config(routes=[{"path": "/a", "open": True, "sign": {"secret": ROUTE["secrets"][0]}}]), "routes[0].sign: can't be used with `open: true`; remove one of the two"),
        (config(admin="[::]:8080"), "admin: [::]:8080 is also the data listener ([::]:8080); use different ports"),
        (config(drain="soon"), "drain: 'soon' is not a valid duration; use seconds or a unit: 500ms, 30s, 5m, 1h"),
        (config(upstream="http://127.0.0.1:9090") | {"mode": "library"}, "upstream: http://127.0.0.1:9090 is this sidecar's own listener"),
        (config(workers=2, routes=[ROUTE | {"replay": "10m"}]), "workers: don't share the replay memory"),
    ],
)  # fmt: skip
def test_what_a_configuration_means_is_judged_by_the_program(values: Mapping[str, Any], sentence: str) -> None:
    """On the rendered manifests, in the words of `sidecar check`, and with the ConfigMap's name. Both Helms render it."""
    for tool in HELMS:
        checked = check(rendered(values, tool=tool))
        assert checked.status == 1
        (line,) = (line for line in checked.err.splitlines() if sentence in line)
        assert re.match(r"ConfigMap hooks/release-webhook-sidecar:\d+: ", line)
        assert "hunter2" not in checked.err


def test_all_mistakes_are_reported_at_once_by_both_helms() -> None:
    for tool in HELMS:
        with pytest.raises(HelmError) as refused:
            template(
                config(listen="127.0.0.1:8080", routes=[ROUTE, ROUTE | {"secrets": ["x"]}]) | {"replicas": 2}, tool=tool
            )
        reported = [line for line in str(refused.value).splitlines() if line.startswith(("config", "replicas"))]
        assert len(reported) == 3, reported


def test_a_mistake_is_reported_once() -> None:
    values = route(sign={"secret": [{"file": "/etc/hooks"}]})
    with pytest.raises(HelmError) as refused:
        template(values)
    reported = [line for line in str(refused.value).splitlines() if line.startswith("config")]
    assert len(reported) == 1, reported


class Checked(NamedTuple):
    status: int
    out: str
    err: str


def rendered(values: Mapping[str, Any] | str, *options: str, tool: str = "helm") -> str:
    given = values if isinstance(values, str) else json.dumps(dict(values))
    place = ("--namespace", "hooks", "--values", "-")
    return str(helm("template", "release", CHART, *place, *options, tool=tool, stdin=given))


def check(manifests: str) -> Checked:
    """`sidecar check --manifests -`, as a pipe from `helm template` runs it."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(manifests.encode())))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(["check", "--manifests", "-"])
    return Checked(status, out.getvalue(), err.getvalue())


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


class Outcome(NamedTuple):
    """What becomes of values: `helm` rejects them, or the `program` the manifests, or they are `right`."""

    by: str
    said: str
    config: str = ""  #: as rendered


def outcome(values: str) -> Outcome:
    try:
        manifests = rendered(values, "--show-only", "templates/configmap.yaml")
    except HelmError as refused:
        return Outcome("helm", str(refused))
    checked = check(manifests)
    config = str(yaml.safe_load(manifests)["data"]["config.yaml"])
    return Outcome("program" if checked.status else "right", checked.err, config)


def mistakes(text: str) -> list[str]:
    """The path and message of each mistake, without the file and its lines, which differ in what Helm wrote."""
    return sorted(re.sub(r"^.*?:\d+: ", "", line) for line in text.splitlines())


#: Files with a mistake in the YAML that is gone after Helm has read it and written it again, such as two keys with one name.
MENDED = {
    "yaml_1_1_float_is_not_a_number",
    "yaml_1_1_octal_is_not_a_number",
    "yaml_alias",
    "yaml_duplicate_key",
    "yaml_duplicate_key_in_a_route",
    "yaml_merge_key",
    "yaml_tag",
    "yaml_three_times_the_same_key",
}


@pytest.mark.parametrize("file", INVALID, ids=lambda file: file.stem)
def test_a_configuration_that_the_sidecar_rejects_is_rejected_before_it_replaces_another(
    file: Path, tmp_path: Path
) -> None:
    """By Helm for its form, or else by the program: every mistake, in the words of `sidecar check` on the file itself."""
    found = outcome(MOUNTED + textwrap.indent(file.read_text(), "  "))
    if found.by == "helm":
        assert "executing" not in found.said, "a template broke"
        assert repeated(HelmError(found.said)) == []
        assert "hunter2" not in found.said
        return
    if file.stem in MENDED:
        assert (found.by, problem_of(found.config, tmp_path, mistakes)) == ("right", [])
        return
    assert found.by == "program"
    assert problem_of(found.config, tmp_path, mistakes) == mistakes(found.said)
    if value_of(found.config) == value_of(file.read_text()):
        assert mistakes(found.said) == problem_of(file.read_text(), tmp_path, mistakes)


def value_of(text: str) -> Any:
    return read_yaml(text.encode(), "config.yaml").value


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


#: The form of a configuration that the chart asks for, as another library of schemas judges it.
FORM = Draft202012Validator(
    {"$ref": "#/$defs/config", "$defs": json.loads((CHART / "values.schema.json").read_text())["$defs"]}
)


def test_every_key_of_the_configuration_can_be_a_value() -> None:
    assert outcome(MOUNTED + textwrap.indent(json.dumps(EVERY_KEY), "  ")).by == "right"


@pytest.mark.parametrize("part", range(4))
def test_junk_in_any_place_is_rejected_as_the_sidecar_rejects_it(part: int, tmp_path: Path) -> None:
    """One piece of junk for each place, the next one that the sidecar rejects there; in a dozen places at a time."""
    junk: dict[tuple[Any, ...], Any] = {}
    for number, place in enumerate(PLACES):
        if number % 4 == part:
            for piece in (*JUNK[number % len(JUNK) :], *JUNK[: number % len(JUNK)]):
                if problem_of(json.dumps(replaced(EVERY_KEY, place, piece)), tmp_path, mistakes):
                    junk[place] = piece
                    break
    assert len(junk) > 40
    of_form = {place: FORM.is_valid(replaced(EVERY_KEY, place, piece)) for place, piece in junk.items()}
    for fits in (True, False):
        places = [place for place in junk if of_form[place] is fits]
        assert len(places) > 10
        groups = [places[at : at + 12] for at in range(0, len(places), 12)]
        while groups:
            some = groups.pop()
            config = EVERY_KEY
            for place in some:
                config = replaced(config, place, junk[place])
            found = outcome(MOUNTED + textwrap.indent(json.dumps(config), "  "))
            assert "executing" not in found.said, "a template broke"
            if not fits:
                wrong = {"/config/" + "/".join(map(str, place)) for place in some}
                assert {place for place in wrong if f"'{place}'" not in found.said} == set()
            elif found.by == "program":
                assert mistakes(found.said) == problem_of(json.dumps(config), tmp_path, mistakes)
            else:  # one of them is also wrong in a pod, as only the chart knows
                assert found.by == "helm"
                groups += [some[::2], some[1::2]] if len(some) > 1 else []


def problem_of(config: str, folder: Path, form: Callable[[str], list[str]]) -> list[str]:
    """The mistakes that the program finds in a file."""
    file = folder / "config.yaml"
    file.write_text(config)
    try:
        load_config(str(file), {}, resolve_secrets=False)
    except ConfigError as error:
        return form(str(error))
    return []


def test_networks_are_rendered_so_that_they_are_read_as_they_were_meant() -> None:
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
    checked = check(rendered(config(routes=routes), "--show-only", "templates/configmap.yaml"))
    reported = {int(index) for index in re.findall(r": routes\[(\d+)\]\.allow\[0\]: ", checked.err)}
    assert reported == {index for index, text in enumerate(texts) if not is_network(text)}
    assert len(reported) > 150


def is_network(text: str) -> bool:
    """As Python's own `ipaddress` reads it; an IPv4 network in IPv6's form is not one."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return False
    return network.version == 4 or not network.subnet_of(ipaddress.IPv6Network("::ffff:0:0/96"))
