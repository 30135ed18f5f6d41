"""The directory of tenants' secrets: what a pass finds, what it leaves, and what it never follows."""

import os
import time
from pathlib import Path

import pytest

from sidecar.config.tenant_files import COARSE, TenantDirectory, TenantFileSettings


def shown(directory: TenantDirectory) -> dict[str, tuple[bytes | None, bytes | None]]:
    return {
        tenant: tuple(secret.reveal() if secret is not None else None for secret in secrets)  # type: ignore[misc]
        for tenant, secrets in directory.store.items()
    }


def run(directory: TenantDirectory) -> None:
    for _ in directory.passes():
        pass


class Clock:
    """Wall time that can be put forward."""

    ahead = 0

    def __call__(self) -> int:
        return time.time_ns() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(tmp_path: Path, clock: Clock) -> TenantDirectory:
    return TenantDirectory(TenantFileSettings(str(tmp_path), "{tenant}.key"), clock)


def test_files_by_the_given_name_are_tenants_and_others_are_not(directory: TenantDirectory, tmp_path: Path) -> None:
    for name in ("acme.key", "acme.key.previous", "b.key", "c", "d.txt", ".key", "x.y.key", "é.key", f"{'a' * 65}.key"):
        (tmp_path / name).write_text(f"secret of {name}\n")
    (tmp_path / "old.key.previous").write_text("only the old one")
    directory.load()
    assert shown(directory) == {
        "acme": (b"secret of acme.key", b"secret of acme.key.previous"),
        "b": (b"secret of b.key", None),
        "old": (None, b"only the old one"),
    }


def test_a_file_that_changed_a_moment_ago_is_left_for_the_next_pass(
    directory: TenantDirectory, tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / "acme.key").write_text("first")
    run(directory)
    assert shown(directory) == {}
    clock.ahead = 300_000_000
    run(directory)
    assert shown(directory) == {"acme": (b"first", None)}


def test_a_change_of_the_same_size_in_the_same_step_of_a_coarse_clock_is_found(
    directory: TenantDirectory, tmp_path: Path, clock: Clock
) -> None:
    file = tmp_path / "acme.key"
    file.write_text("first")
    directory.load()
    state = file.stat()
    file.write_text("other")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    clock.ahead = 300_000_000
    run(directory)
    assert shown(directory) == {"acme": (b"other", None)}


def test_an_unchanged_file_is_read_no_more_and_keeps_its_secret(
    directory: TenantDirectory, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acme.key").write_text("first")
    directory.load()
    before = directory.store["acme"]
    clock.ahead = COARSE + 1
    monkeypatch.setattr(os, "open", None)
    run(directory)
    assert directory.store["acme"] is before


def test_a_removed_file_is_gone_and_an_empty_one_keeps_its_last_secret(
    directory: TenantDirectory, tmp_path: Path, clock: Clock
) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.key").write_text("first")
    directory.load()
    clock.ahead = COARSE + 1
    (tmp_path / "a.key").unlink()
    (tmp_path / "b.key").write_text("")
    run(directory)
    assert shown(directory) == {"b": (b"first", None)}
    assert [problem.problem for problem in directory.problems.values()] == [
        "is empty, so anyone could sign with it; set one"
    ]
    (tmp_path / "b.key").write_text("second")
    run(directory)
    assert (shown(directory), directory.problems) == ({"b": (b"second", None)}, {})


def test_a_directory_that_is_gone_keeps_what_is_known(directory: TenantDirectory, tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "acme.key").write_text("first")
    directory.load()
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    run(directory)
    assert (shown(directory), directory.unreadable) == ({"acme": (b"first", None)}, "No such file or directory")
    moved.rename(tmp_path)
    clock.ahead = COARSE + 1
    run(directory)
    assert directory.unreadable == ""


def test_a_volume_is_looked_at_again_only_after_a_swap(
    directory: TenantDirectory, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "..1").mkdir()
    (tmp_path / "..1/acme.key").write_text("first")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "acme.key").symlink_to("..data/acme.key")
    directory.load()
    clock.ahead = COARSE + 1
    run(directory)
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", None)
        run(directory)
    (tmp_path / "..2").mkdir()
    (tmp_path / "..2/acme.key").write_text("second")
    (tmp_path / "..data").unlink()
    (tmp_path / "..data").symlink_to("..2")
    run(directory)
    assert shown(directory) == {"acme": (b"second", None)}
