"""Every configuration that a page shows is one that `sidecar check` takes: whole ones as they stand, parts within a whole."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import NAMES, ROOT, Fence, fences, read

from sidecar.cli.main import main
from sidecar.config.keys import CONFIG
from sidecar.config.route_keys import ROUTE as ROUTE_SECTION
from sidecar.config.scheme_keys import SCHEME

#: Of other programs, or of the chart: `tests/chart/test_pages.py` renders values, `tests/wire/test_gateways.py` runs gateways.
OTHERS = ("values", "from ci/", "gateway ", "queue ")
#: What a file of Docker Compose has; tests/docs/test_start_pages.py runs what it says.
COMPOSE = {"services", "networks", "volumes"}
KUBERNETES = {"apiVersion", "kind", "metadata", "spec", "data", "resources", "transformers"}
ROUTE = {"path": "/webhooks/example", "verify": "github", "secrets": [{"env": "EXAMPLE_SECRET"}]}
WHOLE = {"upstream": "http://127.0.0.1:3000", "public_url": "https://hooks.example.com", "routes": [ROUTE]}

YAML = [
    pytest.param(fence, id=f"{name}:{fence.line}")
    for name in NAMES
    for fence in fences(read(name))
    if fence.kind == "yaml" and not fence.mark.startswith(OTHERS)
]


def whole(fence: Fence) -> str | None:
    """A file with what the block shows in it; None for what is no configuration. Raises `ValueError` if nobody can tell."""
    if "{{" in fence.text:
        return None  # a template of Helm
    value = yaml.safe_load(fence.text) or {}
    if value.keys() <= KUBERNETES or value.keys() <= COMPOSE:
        return None
    if {"upstream", "routes"} <= value.keys():
        return fence.text
    for section, place in ((CONFIG, _in_file), (ROUTE_SECTION, _in_route), (SCHEME, _in_verify)):
        if value.keys() <= section.keys.keys():
            return yaml.safe_dump(place(value))
    raise ValueError(f"this is neither a configuration nor a part of one: {', '.join(value)}")


def _in_file(value: dict[str, Any]) -> dict[str, Any]:
    return WHOLE | value


def _in_route(value: dict[str, Any]) -> dict[str, Any]:
    return WHOLE | {"routes": [ROUTE | value]}


def _in_verify(value: dict[str, Any]) -> dict[str, Any]:
    return _in_route({"verify": value})


@pytest.mark.parametrize("fence", YAML)
def test_a_configuration_that_is_shown_is_right(
    fence: Fence, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = whole(fence)
    if text is not None:
        (tmp_path / "shown.yaml").write_text(text)
        assert main(["check", "--no-secrets", str(tmp_path / "shown.yaml")]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("fence", [each for each in YAML if each.values[0].mark.startswith("from ")])  # type: ignore[union-attr]
def test_what_is_said_to_be_a_file_is_that_file(fence: Fence) -> None:
    assert fence.text == (ROOT / fence.mark.removeprefix("from ")).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("upstream: http://127.0.0.1:3000\nroutes: [{path: /a}]\n", "routes[0]"),
        ("limits: {bodies: 1MiB}\n", "limits.bodies"),
        ("allow: [10.0.0.1/8]\n", "host bits"),
        ("signature: {header: X-A, encoding: base32}\n", "encoding"),
    ],
)
def test_a_wrong_configuration_is_found(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shown.yaml").write_text(whole(Fence("yaml", text, 1, "")) or "")
    assert main(["check", "--no-secrets", str(tmp_path / "shown.yaml")]) == 1
    assert said in capsys.readouterr().err
    with pytest.raises(ValueError, match="neither a configuration nor"):
        whole(Fence("yaml", "listn: 1\n", 1, ""))
