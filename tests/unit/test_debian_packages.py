"""Missing Debian packages are installed by root, after waiting for a lock; a failure is reported once and stops nothing."""

from pathlib import Path

import debian_packages
import pytest

HELD = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 17 (apt-get)"


class Apt:
    """An apt-get that fails by a script: one exit status and one line for each call, then it succeeds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.calls_file = directory / "calls"
        program = directory / "bin" / "apt-get"
        program.parent.mkdir()
        program.write_text(
            f"""#!/bin/sh
echo "$*" >>{self.calls_file}
next={directory}/fails.$(wc -l <{self.calls_file} | tr -d ' ')
if [ -e "$next" ]; then cat "$next" >&2; exit 100; fi
"""
        )
        program.chmod(0o755)

    def fails(self, call: int, line: str) -> None:
        (self.directory / f"fails.{call}").write_text(line + "\n")

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Apt:
    made = Apt(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(debian_packages, "DEBIAN", tmp_path)
    monkeypatch.setattr(debian_packages, "PAUSE", 0.01)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return made


def test_what_is_missing_is_installed_and_what_is_there_is_not(apt: Apt, capsys: pytest.CaptureFixture[str]) -> None:
    debian_packages.main(["sh:dash", "no-such-program:one", "/no/such/file:two", "/bin/sh:three"])
    update, install = apt.calls
    assert update.endswith(" update")
    assert install.endswith(" install --no-install-recommends one two")
    assert "-o DPkg::Lock::Timeout=600 " in install
    assert capsys.readouterr().out == "Installing one two ...\n"


def test_nothing_is_done_where_nothing_is_missing(apt: Apt, capsys: pytest.CaptureFixture[str]) -> None:
    debian_packages.main(["sh:dash"])
    assert (apt.calls, capsys.readouterr().out) == ([], "")


def test_a_lock_that_another_process_holds_is_waited_for(apt: Apt, capsys: pytest.CaptureFixture[str]) -> None:
    apt.fails(1, HELD)
    apt.fails(2, HELD)
    apt.fails(4, HELD)
    debian_packages.main(["no-such-program:one"])
    assert [call.split()[4] for call in apt.calls] == ["update", "update", "update", "install", "install"]
    assert capsys.readouterr().out == "Installing one ...\n"


def test_a_lock_is_not_waited_for_without_end(
    apt: Apt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian_packages, "PATIENCE", 0)
    apt.fails(2, HELD)
    debian_packages.main(["no-such-program:one"])
    assert len(apt.calls) == 2
    assert capsys.readouterr().out.endswith(f"what needs them can't run: one ({HELD})\n")


def test_a_failure_is_reported_once_and_is_no_error(apt: Apt, capsys: pytest.CaptureFixture[str]) -> None:
    apt.fails(1, "W: some index could not be had")
    apt.fails(2, "E: Unable to locate package one")
    debian_packages.main(["no-such-program:one"])
    assert len(apt.calls) == 2
    assert capsys.readouterr().out.splitlines()[1:] == [
        "That failed, so what needs them can't run: one (E: Unable to locate package one)"
    ]


def test_who_is_not_root_installs_nothing(
    apt: Apt, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    debian_packages.main(["no-such-program:one"])
    assert capsys.readouterr().out == "Not installed, so what needs them can't run: one\n"
    debian_packages.main(["--quiet", "no-such-program:one"])
    assert (apt.calls, capsys.readouterr().out) == ([], "")
