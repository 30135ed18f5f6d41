"""Configuration that changes while the program runs: what is noticed, what is kept, and what a delivery is judged by.

Asked for by POST and SIGHUP: test_admin.py. In all worker processes: test_workers.py. Under load: tests/load.
"""

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from craft import Craft
from receiver import Receiver
from sidecar_process import Sidecar, Start
from waiting import WaitUntil

NEW = "CANARY-SECRET-rotated-9d21"
OTHER = "CANARY-SECRET-rotated-again-51bb"


def in_place(file: Path, text: str) -> None:
    file.write_text(text)


def renamed(file: Path, text: str) -> None:
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(text)
    beside.rename(file)


def deleted_first(file: Path, text: str) -> None:
    file.unlink()
    file.write_text(text)


class Mount:
    """A directory as the kubelet mounts a Secret or ConfigMap: names → `..data/name`, `..data` → a directory by time."""

    def __init__(self, directory: Path, **files: Any) -> None:
        self.directory = directory
        self.count = 0
        directory.mkdir()
        self.swap(**files)
        for name in files:
            (directory / name).symlink_to(f"..data/{name}")

    def swap(self, **files: Any) -> None:
        self.count += 1
        made = self.directory / f"..2026_11_25_{self.count}"
        made.mkdir()
        for name, text in files.items():
            (made / name).write_text(text)
        (self.directory / "..data_tmp").symlink_to(made.name)
        old = (self.directory / "..data").resolve() if self.count > 1 else None
        os.rename(self.directory / "..data_tmp", self.directory / "..data")
        if old is not None:
            for file in old.iterdir():
                file.unlink()
            old.rmdir()


def events(sidecar: Sidecar, name: str) -> list[dict[str, Any]]:
    return [line for line in sidecar.lines if line.get("event") == name]


def status(sidecar: Sidecar, craft: type[Craft], secret: str, **options: Any) -> int:
    return sidecar.ask(craft.begini(secret=secret, **options)).status


@pytest.mark.parametrize("write", [in_place, renamed, deleted_first])
def test_a_secret_file_that_changes_is_read_again(
    start: Start, receiver: Receiver, craft: type[Craft], write: Callable[[Path, str], None]
) -> None:
    running = start()
    mark = running.mark()
    assert status(running, craft, NEW) == 403
    write(running.directory / "previous", NEW)
    loaded = running.line(mark, event="config_loaded")
    assert status(running, craft, NEW) == 200
    assert loaded["cause"] == "a file changed"


def test_a_changed_configuration_is_read_in_one_piece_however_slowly_it_is_written(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    running = start()
    mark = running.mark()
    text = json.dumps(running.config | {"routes": [*running.config["routes"], {"path": "/late", "open": True}]})
    with running.file.open("w") as file:
        for at in range(0, len(text), 500):
            file.write(text[at : at + 500])
            file.flush()
            assert status(running, craft, "BEGINI_API_KEY") == 200
            time.sleep(0.15)
    running.line(mark, event="config_loaded")
    assert running.ask(craft.request(b"/late")).status == 200
    assert not events(running, "config_reload_failed")


def test_a_broken_file_is_reported_once_and_the_last_good_configuration_kept(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    running = start()
    assert json.loads(running.admin("/")[1])["config"]["reload_error"] is None
    mark = running.mark()
    renamed(running.file, "routes: [")
    told = running.line(mark, event="config_reload_failed")
    assert (told["level"], told["kept"]) == ("error", "the last good configuration")
    assert f"{running.file}:2" in told["detail"]
    assert running.metric("config_last_reload_successful") == 0
    about = json.loads(running.admin("/")[1])["config"]
    assert about["reload_error"] == [told["detail"]]
    assert about["loaded"] == running.metric("config_last_reload_success_timestamp_seconds")

    os.utime(running.file)
    renamed(running.file, "routes: [")  # another file, the same content
    time.sleep(2)
    assert len(events(running, "config_reload_failed")) == 1
    assert status(running, craft, "BEGINI_API_KEY") == 200

    mark = running.mark()
    renamed(running.file, json.dumps(running.config))
    running.line(mark, event="config_loaded")
    assert running.metric("config_last_reload_successful") == 1
    assert json.loads(running.admin("/")[1])["config"]["reload_error"] is None


def test_a_mounted_configuration_and_a_mounted_secret_change_by_another_link(
    start: Start, receiver: Receiver, craft: type[Craft], tmp_path: Path
) -> None:
    secrets = Mount(tmp_path / "secret", key=NEW)
    route = {"path": "/mounted", "verify": "begini", "secrets": [{"id": "it", "file": str(tmp_path / "secret/key")}]}
    running = start({"routes": [route]})
    assert status(running, craft, NEW, path=b"/mounted") == 200
    mark = running.mark()
    secrets.swap(key=OTHER)
    running.line(mark, event="config_loaded")
    assert status(running, craft, OTHER, path=b"/mounted") == 200
    assert status(running, craft, NEW, path=b"/mounted") == 403

    # The configuration's own directory becomes a mount, and is swapped.
    mark = running.mark()
    text = json.dumps(running.config)
    config = Mount(tmp_path / "config", file=text.replace("/mounted", "/first"))
    running.file.unlink()
    running.file.symlink_to(tmp_path / "config/file")
    running.line(mark, event="config_loaded")
    assert status(running, craft, OTHER, path=b"/first") == 200
    mark = running.mark()
    config.swap(file=text.replace("/mounted", "/second"))
    running.line(mark, event="config_loaded")
    assert status(running, craft, OTHER, path=b"/second") == 200
    assert status(running, craft, OTHER, path=b"/first") == 404


def test_what_was_only_touched_is_no_change(start: Start, receiver: Receiver, craft: type[Craft]) -> None:
    running = start()
    mark = running.mark()
    os.utime(running.file)
    (running.directory / "previous").touch()
    renamed(running.file, running.file.read_text())
    time.sleep(2.5)
    assert len(events(running, "config_loaded")) == 1
    assert not [line for line in running.lines[mark:] if line.get("event") != "delivery"]


def test_a_delivery_is_judged_and_forwarded_by_the_configuration_it_began_with(
    start: Start, receiver: Receiver, craft: type[Craft], new_receiver: Callable[..., Receiver]
) -> None:
    running = start({"limits": {"body_timeout": "10s"}})
    other = new_receiver()
    request = craft.begini(secret="BEGINI_API_KEY", path=b"/webhooks/begini")
    with running.connect() as client:
        client.send(request[:-10])
        mark = running.mark()
        routes = [
            {"name": "new", "path": "/webhooks/begini", "verify": "begini", "secrets": [{"env": "OTHER_API_KEY"}]}
        ]
        renamed(running.file, json.dumps(running.config | {"routes": routes, "upstream": other.url}))
        running.line(mark, event="config_loaded")
        assert status(running, craft, "BEGINI_API_KEY") == 403
        assert status(running, craft, "OTHER_API_KEY") == 200
        assert client.send(request[-10:]).answer().status == 200
    assert [seen.values(b"x-webhook-verified") for seen in receiver.requests] == [[b"begini"]]
    assert [seen.values(b"x-webhook-verified") for seen in other.requests] == [[b"new"]]


def test_a_rotation_as_the_documentation_walks_it(
    start: Start, receiver: Receiver, craft: type[Craft], tmp_path: Path, wait_until: WaitUntil
) -> None:
    """docs/rotation.md: at no step is anything refused that the provider may rightly send."""
    old, new = NEW, OTHER
    files = Mount(tmp_path / "secret", current=old)
    names = ("current", "previous")
    secrets = [{"id": name, "file": str(tmp_path / "secret" / name), "optional": name == "previous"} for name in names]
    running = start({"routes": [{"name": "it", "path": "/it", "verify": "begini", "secrets": secrets}]})
    (tmp_path / "secret/previous").symlink_to("..data/previous")  # the kubelet adds names as keys come

    def accepted(secret: str) -> str | None:
        """Under which id."""
        answer = running.ask(craft.begini(secret=secret, path=b"/it"))
        return receiver.requests[-1].values(b"x-webhook-secret-id")[0].decode() if answer.status == 200 else None

    def changed(**texts: Any) -> None:
        before = running.metric("config_last_reload_success_timestamp_seconds")
        files.swap(**texts)
        wait_until(lambda: running.metric("config_last_reload_success_timestamp_seconds") > before)
        assert running.metric("config_last_reload_successful") == 1

    def matches() -> dict[str, Any]:
        return {name: running.metric("secret_matches_total", route="it", secret=name) for name in names}

    assert (accepted(old), accepted(new)) == ("current", None)
    changed(current=new, previous=old)  # (1)
    assert (accepted(old), matches()) == ("previous", {"current": 1, "previous": 1})
    assert (accepted(new), accepted(old)) == ("current", "previous")  # (2)
    assert matches() == {"current": 2, "previous": 2}
    last_used = running.metric("secret_last_used_timestamp_seconds", route="it", secret="previous")
    assert abs(last_used - time.time()) < 5
    assert [accepted(new) for _ in range(3)] == ["current"] * 3  # (3)
    assert matches() == {"current": 5, "previous": 2}
    assert running.metric("secret_last_used_timestamp_seconds", route="it", secret="previous") == last_used
    changed(current=new)  # (4)
    assert (accepted(new), accepted(old)) == ("current", None)
    assert running.metric("deliveries_total", route="it", outcome="rejected", reason="signature_mismatch") == 2


def test_the_pages_queries_ask_for_metrics_that_there_are(start: Start, receiver: Receiver) -> None:
    sidecar = start({"replay_store": "redis://127.0.0.1:1"})  # whether it is there or not, there is a metric for it
    pages = [Path(__file__).parents[2] / "docs" / name for name in ("rotation.md", "metrics.md", "addresses.md")]
    named = {name for page in pages for name in re.findall(r"webhook_sidecar_[a-z0-9_]+", page.read_text())}
    shown = set(re.findall(r"^# TYPE (\w+)", sidecar.admin("/metrics")[1].decode(), re.MULTILINE))
    assert {name for name in named if name not in shown} == set()
