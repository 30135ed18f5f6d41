"""The chart as it is handed on: one file, the same bytes each time, through a registry of container images."""

import hashlib
import os
import shutil
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from chart import CHART, CI, HELMS, helm, objects
from needs import needs
from ports import free_port

from sidecar import __version__

NAME = f"webhook-sidecar-{__version__}.tgz"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's docker-registry on loopback, with an empty store."""
    made = tmp_path_factory.mktemp("registry")
    address = f"127.0.0.1:{free_port()}"
    settings = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(made / "store")}},
        "http": {"addr": address},
    }
    file = made / "config.yml"
    file.write_text(yaml.safe_dump(settings))
    with (made / "log").open("wb") as log:
        running = subprocess.Popen([needs("docker-registry"), "serve", file], stdout=log, stderr=log)
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://{address}/v2/", timeout=2).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail((made / "log").read_text())
        yield address
    finally:
        running.terminate()
        running.wait(10)


def test_a_package_is_the_same_bytes_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """https://reproducible-builds.org/specs/source-date-epoch/ is for Helm 4. Helm 3 writes the time of day."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    digests, contents = set(), []
    for index, tool in enumerate(["helm", "helm", "helm3"]):
        copy = tmp_path / str(index) / "chart"
        shutil.copytree(CHART, copy)
        for file in copy.rglob("*"):
            os.utime(file, (1_000_000 + index, 1_000_000))
        helm("package", copy, "--destination", copy.parent, tool=tool)
        if tool == "helm":
            digests.add(hashlib.sha256((copy.parent / NAME).read_bytes()).hexdigest())
        contents.append(files_of(copy.parent / NAME))
    assert len(digests) == 1
    assert contents[0] == contents[1] == contents[2]


def files_of(package: Path) -> dict[str, bytes]:
    with tarfile.open(package) as archive:
        files = [(each.name, archive.extractfile(each)) for each in archive]
        return {name.removeprefix("webhook-sidecar/"): file.read() for name, file in files if file is not None}


def test_a_package_has_what_a_user_needs_and_no_tests(tmp_path: Path) -> None:
    helm("package", CHART, "--destination", tmp_path)
    names = set(files_of(tmp_path / NAME))
    assert {"Chart.yaml", "README.md", "values.yaml", "values.schema.json", "templates/checkjob.yaml"} <= names
    assert not [name for name in names if "preset" in name]
    assert not [name for name in names if name.startswith("ci/")]


@pytest.mark.parametrize("tool", HELMS)
def test_a_package_goes_through_a_registry_and_renders_the_same(tool: str, registry: str, tmp_path: Path) -> None:
    helm("package", CHART, "--destination", tmp_path, tool=tool)
    place = f"oci://{registry}/charts-{tool}"
    (tmp_path / "back").mkdir()
    helm("push", tmp_path / NAME, place, "--plain-http", tool=tool)
    helm(
        "pull",
        f"{place}/webhook-sidecar",
        "--version",
        __version__,
        "--plain-http",
        "--destination",
        tmp_path / "back",
        tool=tool,
    )
    assert (tmp_path / "back" / NAME).read_bytes() == (tmp_path / NAME).read_bytes()
    values = ("--values", CI[0])
    from_file = helm("template", "release", tmp_path / "back" / NAME, *values, tool=tool)
    assert objects(from_file) == objects(helm("template", "release", CHART, *values, tool=tool))
