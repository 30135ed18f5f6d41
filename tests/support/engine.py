"""Builds and runs containers, for tests/image and tests/pods.

Only `make image-test` runs their tests: they build images, and as root on Debian they install packages.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BASE = "docker.io/library/debian:trixie-slim"
IMAGE = "localhost/webhook-sidecar:test"
PACKAGES = ["buildah", "catatonit", "mmdebstrap", "podman", "runc"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "image: builds and runs the container image; only with -m image")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "image" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("image")]
    ids = set(map(id, left_out))
    items[:] = [item for item in items if id(item) not in ids]
    config.hook.pytest_deselected(items=left_out)


def run(*command: str | Path, timeout: float = 60) -> str:
    """Standard output of a command; a failure shows all of its output."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def works(*command: str, timeout: float = 60) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=timeout, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@pytest.fixture(scope="session")
def engine() -> str:
    """docker if its daemon answers, else podman."""
    if works("docker", "info"):
        return "docker"
    if not Path("/run/systemd/system").exists():
        os.environ.setdefault("CONTAINERS_CONF", str(ROOT / "tests/image/containers.conf"))
    if not all(shutil.which(name) for name in ("buildah", "podman", "runc", "mmdebstrap")):
        if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
            pytest.fail("the image's tests need docker, or buildah and podman; install one of them")
        os.environ["DEBIAN_FRONTEND"] = "noninteractive"
        run("apt-get", "-qq", "update", timeout=300)
        run("apt-get", "-qq", "install", "--no-install-recommends", *PACKAGES, timeout=300)
    return "podman"


@pytest.fixture(scope="session")
def image(engine: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image, built from this tree."""
    found = engine == "docker" or works("podman", "image", "exists", BASE)
    if not found and not works("podman", "pull", "-q", BASE, timeout=180):
        make_base(tmp_path_factory.mktemp("base") / "base.tar")
    build(engine, IMAGE)
    return IMAGE


def build(engine: str, name: str) -> None:
    """Builds it as users do, but with a fixed date: a commit in the meantime would have another one."""
    options = [f"ENGINE={engine}", f"IMAGE={name}", "SOURCE_DATE_EPOCH=1700000000"]
    if engine == "podman":
        options += ["ENGINE=buildah", "IMAGE_FLAGS=--pull-never --isolation chroot"]
    run("make", "image", *options, timeout=900)


def make_base(tar: Path) -> None:
    """Debian's slim image, made from Debian's packages if no registry can be reached.

    This machine's certificates and pip settings go into it, because such a machine often uses its own proxy.
    """
    left_out = ["/usr/share/doc/*", "/usr/share/info/*", "/usr/share/man/*", "/usr/share/locale/*"]
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in left_out]
    options += [
        f'--customize-hook=cp {name} "$1{name}"'
        for name in ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
        if Path(name).exists()
    ]
    run("mmdebstrap", "--variant=minbase", "--include=ca-certificates", *options, "trixie", tar, timeout=600)
    container = run("buildah", "from", "scratch").strip()
    run("buildah", "add", "-q", container, tar, "/", timeout=180)
    run("buildah", "commit", "-q", container, BASE, timeout=180)
    run("buildah", "rm", container)
