"""The values in docs/kubernetes*.md and helm/README.md are right."""

import re
import textwrap
from typing import Any

import pytest
import yaml
from chart import CHART, CI, ROOT, template

PAGE = "\n".join(path.read_text() for path in sorted(ROOT.glob("docs/kubernetes*.md")))
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"<!-- values -->\n *```yaml\n(.*?)\n *```", PAGE, re.DOTALL)]
BASE: dict[str, Any] = yaml.safe_load((CHART / "ci/gateway-values.yaml").read_text())


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def test_the_page_has_values() -> None:
    assert len(BLOCKS) == PAGE.count("<!-- values -->") >= 8


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_values_of_the_page_render(block: str) -> None:
    """By themselves if they have routes, else added to a gateway's."""
    values = yaml.safe_load(block)
    assert template(values if "routes" in values.get("config", {}) else merged(BASE, values))


def test_the_readme_shows_a_file_of_ci() -> None:
    shown = re.search(
        r"<!-- from ci/gateway-values.yaml -->\n```yaml\n(.*?)```", (CHART / "README.md").read_text(), re.DOTALL
    )
    assert shown is not None
    assert (CHART / "ci/gateway-values.yaml").read_text().endswith(shown[1])


def test_every_file_of_ci_says_what_it_is_for() -> None:
    assert [file.name for file in CI if not file.read_text().startswith("# ")] == []
