"""`sidecar check --manifests`: the sidecar's configurations in rendered manifests, whoever rendered them."""

import io
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from manifests import CONFIG, pod, service, workload, written

from sidecar.cli.main import main
from sidecar.inject.injection import inject
from sidecar.inject.options import Options

GOOD = "upstream: http://127.0.0.1:3000\n" + CONFIG
BAD = GOOD + "drain: soon\n"
MOUNT = {"name": "webhook-sidecar-config", "mountPath": "/etc/sidecar"}


class Ran(NamedTuple):
    status: int
    out: str
    err: str


class Check:
    def __init__(self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capfd, self.monkeypatch = capfd, monkeypatch

    def __call__(self, text: str, *arguments: str) -> Ran:
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        status = main(["check", "--manifests", *(arguments or ("-",))])
        return Ran(status, *self.capfd.readouterr())


@pytest.fixture
def check(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Check:
    return Check(capfd, monkeypatch)


def config_map(config: str | None = GOOD, name: str = "hooks", **metadata: Any) -> dict[str, Any]:
    data = {"config.yaml": config} if config is not None else {"other": "x"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name} | metadata, "data": data}


def mounting(
    config_map: str, container: str = "webhook-sidecar", path: str = "/etc/sidecar", **more: Any
) -> dict[str, Any]:
    """A workload with a sidecar that somebody wrote by hand."""
    sidecar = {"name": container, "image": "x", "volumeMounts": [MOUNT | {"mountPath": path}]}
    volumes = [{"name": MOUNT["name"], "configMap": {"name": config_map}}]
    return workload(**pod(initContainers=[sidecar], volumes=volumes)) | more


LABELLED: dict[str, Any] = {"labels": {"webhook-sidecar/config": "true"}}


@pytest.mark.parametrize(
    "objects",
    [
        pytest.param([config_map(**LABELLED)], id="by the chart's label"),
        pytest.param([config_map(labels={"webhook-sidecar/injected": "shop"})], id="by inject's label"),
        pytest.param([config_map(), mounting("hooks")], id="by a mount"),
        pytest.param(
            [{"apiVersion": "v1", "kind": "List", "items": [config_map(), mounting("hooks")]}], id="in a List"
        ),
        pytest.param([mounting("hooks"), service(), config_map(**LABELLED)], id="once"),
    ],
)
def test_a_configuration_is_found(objects: list[dict[str, Any]], check: Check) -> None:
    text = written(*objects)
    right = check(text)
    assert (right.status, right.err) == (0, "")
    assert right.out.startswith("ConfigMap hooks: ok\n  listen [::]:8080")
    assert right.out.count(": ok\n") == 1
    wrong = check(
        text.replace(yaml.safe_dump({"a": GOOD}), "").replace(
            "- {path: /healthz, open: true}", "- {path: x, open: true}"
        )
    )
    assert wrong.status == 1
    assert wrong.err.startswith("ConfigMap hooks:5: routes[1].path: 'x' is not a valid path")


def test_each_object_is_named_with_its_namespace_and_all_are_checked(check: Check) -> None:
    ran = check(
        written(*(config_map(text, name, namespace="shop", **LABELLED) for name, text in zip("abc", (BAD, GOOD, BAD))))
    )
    assert ran.status == 1
    assert [line.partition(": drain: ")[0] for line in ran.err.splitlines()] == [
        "ConfigMap shop/a:6",
        "ConfigMap shop/c:6",
    ]
    assert "ConfigMap shop/b: ok" in ran.out


def test_output_of_inject_is_checked(check: Check) -> None:
    options = Options(config=CONFIG, config_file="hooks.yaml", secret=["stripe"])
    text = inject(written(workload(), service()), options, "web.yaml").text
    assert "ConfigMap shop-webhook-sidecar: ok" in check(text).out
    assert check(text.replace("verify: stripe", "verify: strip")).status == 1


@pytest.mark.parametrize(
    "objects",
    [
        pytest.param([], id="nothing"),
        pytest.param([config_map(BAD)], id="somebody else's, with the same key"),
        pytest.param([config_map(BAD), mounting("hooks", container="shop-2")], id="another container's"),
        pytest.param([config_map(BAD), mounting("hooks", path="/etc/other")], id="another place"),
        pytest.param([config_map(BAD, annotations={"helm.sh/hook": "pre-install"}, **LABELLED)], id="a hook's copy"),
    ],
)
def test_finding_none_is_an_error(objects: list[dict[str, Any]], check: Check) -> None:
    """A check that checked nothing must not look like one that passed."""
    ran = check(written(*objects))
    assert ran.status == 1
    assert "sidecar check: standard input: no ConfigMap of the sidecar found" in ran.err


def test_one_without_a_configuration_is_an_error(check: Check) -> None:
    ran = check(written(config_map(None, **LABELLED)))
    assert (ran.status, ran.err) == (1, "ConfigMap hooks: has no key config.yaml; put the configuration there\n")


def test_one_that_is_only_mounted_is_named(check: Check) -> None:
    ran = check(written(mounting("elsewhere"), config_map(**LABELLED)))
    assert ran.status == 0
    note = "sidecar check: note: ConfigMap elsewhere is mounted, but not in these manifests; it is not checked\n"
    assert ran.err == note


def test_secrets_are_not_read(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    config = GOOD.replace("file: /run/secrets/stripe/secret", "env: NOT_THERE")
    assert check(written(config_map(config, **LABELLED))).status == 0


def test_manifests_may_be_a_file_and_what_is_no_yaml_is_said(check: Check, tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(written(config_map(**LABELLED)))
    assert check("", str(file)).status == 0
    file.write_text("a: [")
    ran = check("", str(file))
    assert ran.status == 1
    assert ran.err.startswith(f"sidecar check: {file}:2: is not valid YAML")


@pytest.mark.parametrize("arguments", [[], ["config.yaml", "--manifests", "-"]])
def test_files_and_manifests_exclude_each_other(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *arguments]) == 2
    assert "needs either files with a configuration, or --manifests FILE" in capfd.readouterr().err
