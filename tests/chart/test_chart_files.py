"""The generated files in helm/ are up to date, and what appears in two places agrees."""

import json
import re
from typing import Any

import chart_files
import pytest
import yaml
from chart import CHART

from sidecar import __version__
from sidecar.config.presets import preset_names


@pytest.mark.parametrize("file", chart_files.generate(), ids=lambda file: file.name)
def test_a_generated_file_is_up_to_date(file: Any) -> None:
    assert file.read_text() == chart_files.generate()[file], "run `make docs`"


def test_the_templates_check_only_what_the_chart_knows() -> None:
    """What a configuration means is judged by the program: no rule and no preset is there a second time."""
    checks = [
        file for file in (CHART / "templates").rglob("*.*") if re.search(r"\bfail\b|sidecar\.check", file.read_text())
    ]
    assert {file.name for file in checks} == {"_check.tpl", "values.yaml"}
    assert sum(len(file.read_text().splitlines()) for file in checks) <= 200
    every = "".join(file.read_text() for file in (CHART / "templates").rglob("*.*"))
    named = [name for name in preset_names() if re.search(rf"\b{re.escape(name)}\b", every)]
    assert set(named) <= {"github", "line", "make", "merge", "resend", "x"}  # an example, and words
    assert not (CHART / "files").exists()


def test_the_chart_has_the_version_of_the_program() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == __version__


def test_every_value_is_documented_and_the_schema_has_the_same_ones() -> None:
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    documented = {path for path, _ in chart_files.documented_keys(text)}
    properties = json.loads((CHART / "values.schema.json").read_text())["properties"]
    guards = {
        name for name, each in properties.items() if each.get("description", "").startswith("not a value of this chart")
    }
    assert set(values) == set(properties) - guards - {"enabled", "global"}
    for name, value in values.items():
        assert_agree((name,), value, properties[name], documented)


def assert_agree(at: tuple[str, ...], value: Any, schema: Any, documented: set[tuple[str, ...]]) -> None:
    """Each value has a comment, or each below it has."""
    if "properties" in schema and (len(at) == 1 or at not in documented):
        assert set(value) == set(schema["properties"]), at
    if at not in documented:
        assert {path[: len(at) + 1] for path in documented if path[: len(at)] == at} == {(*at, key) for key in value}
        for key, below in value.items():
            assert_agree((*at, key), below, schema.get("properties", {}).get(key, {}), documented)
