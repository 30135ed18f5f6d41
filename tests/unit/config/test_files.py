"""What was read of a configuration's files, and whether they have changed since."""

import asyncio
import os
from pathlib import Path

import pytest

from sidecar.config.files import FileRecorder, RecordedFiles, read_file_state
from sidecar.process import reload


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "a"
    made.write_text("one")
    return made


def test_a_file_is_read_once_however_often_it_is_asked_for(file: Path) -> None:
    files = FileRecorder()
    assert files(str(file), 10) == b"one"
    file.write_text("two")
    assert files(str(file), 10) == b"one"
    assert files(str(file), 2) == b"on"
    assert files(str(file), 11) == b"two"  # more of it was asked for than was read


def test_what_was_read_is_recalled_the_absence_of_a_file_included(file: Path, tmp_path: Path) -> None:
    files = FileRecorder()
    files(str(file), 10)
    with pytest.raises(FileNotFoundError):
        files(str(tmp_path / "b"), 10)
    recalled = RecordedFiles(files.texts)
    (tmp_path / "b").write_text("late")
    file.unlink()
    assert recalled(str(file), 10) == b"one"
    for name in (str(tmp_path / "b"), "never asked for"):
        with pytest.raises(FileNotFoundError):
            recalled(name, 10)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.write_text("two"),
        lambda file: file.write_text(""),
        lambda file: file.unlink(),
        lambda file: file.write_text("one more"),
    ],
)
def test_another_content_is_a_change(file: Path, change: object) -> None:
    files = FileRecorder()
    files(str(file), 10)
    assert callable(change)
    change(file)
    assert files.current_states() != files.states
    assert files.differs()
    assert files.differs()  # until it was read again


def test_another_time_or_another_file_of_the_same_content_is_no_change(file: Path) -> None:
    files = FileRecorder()
    files(str(file), 10)
    os.utime(file, (1, 1))
    file.rename(file.with_name("b"))
    file.write_text("one")
    assert files.current_states() != files.states
    assert not files.differs()
    assert files.current_states() == files.states


def test_a_file_that_was_absent_changes_by_appearing(tmp_path: Path) -> None:
    files = FileRecorder()
    with pytest.raises(FileNotFoundError):
        files(str(tmp_path / "b"), 10)
    assert files.current_states() == files.states
    assert not files.differs()
    (tmp_path / "b").write_text("late")
    assert files.current_states() != files.states
    assert files.differs()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(reload, "SETTLE_SECONDS", 0.05)


def test_a_wait_ends_when_a_changed_file_has_settled(file: Path, quick: None) -> None:
    files = FileRecorder()
    files(str(file), 100)

    async def run() -> None:
        waiting = asyncio.create_task(reload.wait_for_change(lambda: files))
        os.utime(file, (1, 1))
        await asyncio.sleep(0.2)
        assert not waiting.done()  # touched, not changed
        for number in range(20):
            file.write_text("x" * number)
            await asyncio.sleep(0.01)
            assert not waiting.done()
        async with asyncio.timeout(5):
            await waiting

    asyncio.run(run())


def test_a_file_that_is_written_without_end_is_read_all_the_same(
    file: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload, "SETTLE_SECONDS", 0.01)
    files = FileRecorder()
    files(str(file), 100)

    async def run() -> None:
        waiting = asyncio.create_task(reload.wait_for_change(lambda: files))
        for number in range(1, 2000):
            file.write_text("x" * number)
            await asyncio.sleep(0.002)
            if waiting.done():
                return
        raise AssertionError

    asyncio.run(run())


def test_a_pipe_is_never_looked_into_again(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert read_file_state(str(tmp_path / "pipe")) is None
    assert read_file_state(str(tmp_path)) is None
    assert read_file_state("a\0b") is None
