"""The dashboards are up to date, complete, and say what to do."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from dashboards.__main__ import encode_all

WHERE = Path(__file__).parents[2] / "helm/dashboards"
FILES = sorted(WHERE.iterdir())
DASHBOARDS = {file.stem: json.loads(file.read_text()) for file in FILES}
PANELS = [
    pytest.param(panel, id=f"{name}-{panel['title']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
]


def test_the_files_are_what_the_generator_writes() -> None:
    assert {file.name: file.read_text() for file in FILES} == encode_all(), "run `make docs`"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_has_the_variables_and_panels_side_by_side(name: str) -> None:
    dashboard = DASHBOARDS[name]
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert {"datasource", "namespace", "route"} <= variables.keys()
    assert {variables[each]["allValue"] for each in ("namespace", "route")} == {".*"}
    assert dashboard["uid"] == f"webhook-sidecar-{name}"
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert len(set(titles)) == len(titles)
    assert [panel["id"] for panel in dashboard["panels"]] == list(range(1, len(titles) + 1))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        fields = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not fields & taken, panel["title"]
        taken |= fields


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_to_do_and_asks_for_what_was_chosen(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 100
    assert panel["datasource"] == {"type": "prometheus", "uid": "$datasource"}
    assert panel["targets"]
    for target in panel["targets"]:
        selectors = re.findall(r"(?:webhook_sidecar|process)_\w+(\{[^}]*\})?", target["expr"])
        assert selectors
        for selector in selectors:
            assert 'namespace=~"$namespace"' in selector
            if "route=" in selector:
                assert 'route=~"$route"' in selector or 'route=""' in selector
