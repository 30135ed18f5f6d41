"""Listening: both families on one socket, and unix sockets that are taken from nobody."""

import errno
import grp
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from needs import needs_ipv6

from sidecar.http1 import sockets
from sidecar.http1.sockets import MAX_SOCKET_PATH, ListenAddress, ListenError, bind, bind_shared, bound_address, remove

EVERY = ListenAddress("::", 0)


@pytest.fixture
def path() -> Iterator[str]:
    """Short, because a unix socket's path must be."""
    directory = Path(tempfile.mkdtemp(prefix="s-"))
    yield str(directory / "s")
    for each in directory.iterdir():
        each.unlink()
    directory.rmdir()


def reached_over(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def mode_of(path: str) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


@pytest.mark.parametrize("count", [1, 3])
def test_every_address_means_both_families(count: int) -> None:
    needs_ipv6()
    listeners = bind_shared(EVERY, count)
    port = listeners[0].getsockname()[1]
    try:
        assert {each.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) for each in listeners} == {0}
        assert reached_over("127.0.0.1", port)
        assert reached_over("::1", port)
        assert bound_address(EVERY, listeners[0]) == f"[::]:{port}"
    finally:
        for each in listeners:
            each.close()


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_every_address_of_a_machine_without_ipv6_is_ipv4(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutIPv6(socket.socket):
        def bind(self, address: object) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(number, os.strerror(number))
            super().bind(address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    with bind(EVERY) as listener:
        port = listener.getsockname()[1]
        assert bound_address(EVERY, listener) == f"0.0.0.0:{port}"
        assert reached_over("127.0.0.1", port)
    with pytest.raises(ListenError, match=r"can't listen on \[::1\]:0: "):  # only `::` means IPv4 too
        bind(ListenAddress("::1", 0))


def test_a_port_in_use_is_an_error_and_not_a_reason_for_ipv4() -> None:
    with (
        bind(EVERY) as listener,
        pytest.raises(ListenError, match="Address already in use; stop the program that uses it"),
    ):
        bind(EVERY._replace(port=listener.getsockname()[1]))


def test_a_unix_socket_in_use_is_left_alone(path: str) -> None:
    address = ListenAddress("", 0, path)
    with bind(address) as listener:
        before = Path(path).stat().st_ino
        with pytest.raises(ListenError) as caught:
            bind(address)
        assert str(caught.value) == (
            f"can't listen on unix:{path}: another process listens there; stop it first, or use another path"
        )
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            listener.accept()[0].close()
        assert Path(path).stat().st_ino == before
    remove(address)


def test_a_unix_socket_whose_queue_is_full_is_in_use(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(path)
        busy.listen(0)
        waiting.setblocking(False)
        waiting.connect_ex(path)
        with pytest.raises(ListenError, match="another process listens there"):
            bind(ListenAddress("", 0, path))


def test_a_unix_socket_that_nobody_listens_on_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(path)
    address = ListenAddress("", 0, path)
    bind(address).close()
    remove(address)
    assert not Path(path).exists()


def test_another_file_is_never_replaced(path: str) -> None:
    Path(path).write_text("mine")
    with pytest.raises(ListenError, match="Address already in use"):
        bind(ListenAddress("", 0, path))
    assert Path(path).read_text() == "mine"


def test_only_the_own_socket_is_removed(path: str) -> None:
    """As in a handover: ours is closed, another process has bound its own, and then we end."""
    address = ListenAddress("", 0, path)
    bind(address).close()
    Path(path).unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(path)
        remove(address)
        assert Path(path).exists()
    remove(address)
    assert Path(path).exists()


def test_of_two_that_start_at_once_one_listens(path: str) -> None:
    address = ListenAddress("", 0, path)
    ends: list[object] = []
    ready = threading.Barrier(4)

    def start() -> None:
        ready.wait()
        try:
            ends.append(bind(address))
        except ListenError as error:
            ends.append(error)

    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(path)
    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    listeners = [each for each in ends if isinstance(each, socket.socket)]
    assert len(listeners) == 1
    listeners[0].close()
    remove(address)


def test_mode_and_group_are_set_before_anybody_can_connect(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    class Watched(socket.socket):
        def listen(self, backlog: int = 0) -> None:
            seen.append((mode_of(path), Path(path).stat().st_gid))
            super().listen(backlog)

    monkeypatch.setattr(socket, "socket", Watched)
    group = os.getgid()
    address = ListenAddress("", 0, path, 0o620, grp.getgrgid(group).gr_name)
    bind(address).close()
    bind(address._replace(mode=0o606, group=str(group))).close()
    assert seen == [(0o620, group), (0o606, group)]
    remove(address)


def test_an_unknown_group_is_an_error_that_leaves_nothing(path: str) -> None:
    with pytest.raises(ListenError) as caught:
        bind(ListenAddress("", 0, path, None, "nobodys-group"))
    assert (
        str(caught.value)
        == f"can't listen on unix:{path}: there is no group nobodys-group; check the directory, mode and group"
    )
    assert not Path(path).exists()


def test_the_longest_path_is_the_systems(path: str) -> None:
    directory = Path(path).parent
    longest = str(directory / ("x" * (MAX_SOCKET_PATH - len(str(directory)) - 1)))
    address = ListenAddress("", 0, longest)
    bind(address).close()
    remove(address)
    with pytest.raises(ListenError, match="path too long"):
        bind(address._replace(path=longest + "x"))


def test_a_directory_that_is_not_there_is_an_error(path: str) -> None:
    with pytest.raises(ListenError, match="No such file or directory"):
        bind(ListenAddress("", 0, f"{path}/absent/s"))
    assert f"{path}/absent/s" not in sockets._own_files
