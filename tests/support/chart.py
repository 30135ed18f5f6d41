"""Helm as `make test` installs it, and the objects that it renders."""

import functools
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from needs import needs

ROOT = Path(__file__).parent.parent.parent
CHART = ROOT / "helm"
TOOLS = ROOT / ".venv/kubernetes"
#: Helm 4 and Helm 3.
HELMS = ("helm", "helm3")
VERSIONS = [f"1.{minor}.0" for minor in range(29, 38)]
CI = sorted((CHART / "ci").glob("*-values.yaml"))


class HelmError(Exception):
    """Helm's error message."""


def helm(*arguments: str | Path, tool: str = "helm", stdin: str | None = None) -> str:
    """Standard output. Raises `HelmError` with standard error. Neither Helm sees the user's settings, nor the other's."""
    place = TOOLS / "home" / tool
    env = os.environ | {f"HELM_{name}_HOME": str(place / name.lower()) for name in ("DATA", "CONFIG", "CACHE")}
    done = subprocess.run(
        [needs(TOOLS / tool), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env=env,
        check=False,
    )
    if done.returncode:
        raise HelmError(done.stderr.removesuffix("\nUse --debug flag to render out invalid YAML\n").strip())
    return done.stdout


_rendered = functools.cache(helm)  # a tenth of what tests render, they render twice


def template(
    values: Path | Mapping[str, Any], *more: str, version: str = VERSIONS[-1], tool: str = "helm", name: str = "release"
) -> list[dict[str, Any]]:
    """The objects that the chart renders from a file of values, or from values."""
    file, stdin = ("-", json.dumps(dict(values), default=str)) if isinstance(values, Mapping) else (str(values), None)
    options = ["--namespace", "hooks", "--kube-version", version, *more]
    return objects(_rendered("template", name, CHART, "--values", file, *options, tool=tool, stdin=stdin))


#: libyaml's parser is ten times as fast. Not every PyYAML has it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def objects(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.load_all(text, _LOADER) if each]


def of_kind(made: list[dict[str, Any]], kind: str, suffix: str = "") -> dict[str, Any]:
    """The only object of a kind, or the one whose name ends with this."""
    found = [each for each in made if each["kind"] == kind and each["metadata"]["name"].endswith(suffix)]
    assert len(found) == 1, [each["metadata"]["name"] for each in found]
    return found[0]


def pods(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pods among the objects, each with `metadata` and `spec`; for a workload, its template."""
    return [
        each if each["kind"] == "Pod" else each["spec"]["template"]
        for each in made
        if each["kind"] == "Pod" or "template" in each.get("spec", {})
    ]


def containers(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
