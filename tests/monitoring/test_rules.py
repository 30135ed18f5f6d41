"""The alert rules: right by promtool, each tried firing and not firing, each with its section in the runbook."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from needs import needs

ROOT = Path(__file__).parents[2]
RULES = ROOT / "helm/rules/webhook-sidecar.yaml"
UNIT_TESTS = sorted(Path(__file__).parent.glob("*_test.yaml"))
RUNBOOK = "docs/runbook.md"


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(
        [needs("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    promtool("check", "rules", "--lint-fatal", RULES)


@pytest.mark.parametrize("file", UNIT_TESTS, ids=[file.stem for file in UNIT_TESTS])
def test_every_alert_fires_when_it_should_and_only_then(file: Path) -> None:
    promtool("test", "rules", file)


def test_every_alert_is_tried_firing_and_not_firing() -> None:
    tried = {
        (case["alertname"], bool(case["exp_alerts"]))
        for file in UNIT_TESTS
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test["alert_rule_test"]
    }
    assert tried == {(rule["alert"], fires) for rule in rules() for fires in (True, False)}


def test_every_alert_has_its_section_in_the_runbook_and_every_section_its_alert() -> None:
    sections = re.findall(r"^## (\S+)$", (ROOT / RUNBOOK).read_text(), re.MULTILINE)
    assert sections == [rule["alert"] for rule in rules()]
    table = re.findall(r"^\| `(WebhookSidecar\w+)` \| (\w+) \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    assert table == [(rule["alert"], rule["labels"]["severity"]) for rule in rules()]
    for rule in rules():
        assert rule["annotations"]["runbook_url"] == f"{RUNBOOK}#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("warning", "critical")
