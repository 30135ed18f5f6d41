"""The locks say what constraints.txt and pyproject.toml say, with hashes; bill of materials and audit fail when they must."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
HASH = "0" * 64


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sbom = load("sbom")
LOCKS = {path.stem: sbom.read_lock(path.read_text()) for path in (ROOT / "requirements").glob("*.txt")}


def test_every_lock_pins_with_hashes_and_names_no_index() -> None:
    assert set(LOCKS) == {"runtime", "otel", "dev", "build", "audit", "site", "bench", "engines", "release"}
    for name, packages in LOCKS.items():
        assert packages
        assert [package for package, (_, hashes) in packages.items() if not hashes] == []
        assert not re.search(r"://|--(?:extra-)?index|--find-links", (ROOT / f"requirements/{name}.txt").read_text())


def test_the_locks_have_the_versions_of_constraints() -> None:
    text = (ROOT / "constraints.txt").read_text()
    pinned = {sbom.normalise(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)}
    assert {name: version for name, (version, _) in LOCKS["dev"].items()} == pinned
    assert LOCKS["runtime"].items() <= LOCKS["otel"].items() <= LOCKS["dev"].items()


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {sbom.normalise(re.match(r"[\w.-]+", each)[0]) for each in requirements}  # type: ignore[index]

    assert names(project["dependencies"]) <= set(LOCKS["runtime"])
    for extra in ("otel", "dev"):
        assert names(project["optional-dependencies"][extra]) <= set(LOCKS[extra])


def test_the_image_page_names_every_package() -> None:
    page = (ROOT / "docs/image.md").read_text()
    named = re.search(r"^Python packages: ([^.]*)\.$", page, re.MULTILINE)
    assert named is not None
    assert set(named[1].replace("\n", " ").split(", ")) == set(LOCKS["otel"])


def test_the_bill_of_materials_is_that_of_what_is_installed() -> None:
    bill = sbom.bill((ROOT / "requirements/runtime.txt").read_text(), only=False)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert {each["name"]: each["version"] for each in bill["components"]} == {
        name: version for name, (version, _) in LOCKS["runtime"].items()
    }
    assert all(each["licenses"] for each in bill["components"])


@pytest.mark.parametrize(
    ("lock", "only", "message"),
    [
        (f"httpx==0.0.1 \\\n    --hash=sha256:{HASH}\n", False, "but 0.0.1 is locked"),
        (f"no-such-thing==1.0 \\\n    --hash=sha256:{HASH}\n", False, "is not installed"),
        ((ROOT / "requirements/runtime.txt").read_text(), True, "pytest is installed, but not locked"),
        ("", False, "nothing is locked"),
    ],
)
def test_a_bill_that_does_not_agree_is_none(lock: str, only: bool, message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        sbom.bill(lock, only=only)


@pytest.mark.parametrize(
    ("report", "status", "said"),
    [
        (
            '{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}',
            0,
            "1 dependencies audited, no known vulnerability",
        ),
        ('{"dependencies": [{"name": "a", "skip_reason": "?"}]}', 0, "1 of 1 dependencies WERE NOT AUDITED"),
        (
            '{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}]}',
            1,
            "a 1: CVE-1, fixed in 2",
        ),
        ("no connection", 0, "NOT AUDITED"),
        (None, 0, "NOT AUDITED"),
    ],
)
def test_the_audit_fails_on_findings_and_is_loud_about_silence(
    tmp_path: Path, report: str | None, status: int, said: str
) -> None:
    asked = tmp_path / "pip-audit"
    if report is not None:
        asked.write_text(f"#!/bin/sh\ncat <<'END'\n{report}\nEND\n")
        asked.chmod(0o755)
    command = [sys.executable, str(ROOT / "tools/audit.py"), str(asked), "requirements/runtime.txt"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == status
    assert said in ended.stdout + ended.stderr
