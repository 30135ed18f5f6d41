"""Fixtures of the tests on the wire: the program, its receivers and what sends to it; their classes are in tests/support/."""

import contextlib
import ssl
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme
from craft import PREVIOUS_SECRET, Craft
from receiver import Receiver
from sidecar_process import Config, Sidecar, Start, base_config, merged
from waiting import WaitUntil, until

#: A certificate authority's file, and a function that makes a server's context for a name.
Authority = tuple[Path, Callable[[str], ssl.SSLContext]]


@pytest.fixture(scope="session")
def craft() -> type[Craft]:
    return Craft


@pytest.fixture(scope="session")
def wait_until() -> WaitUntil:
    return until


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority that the sidecar trusts, and a server's context."""
    ca = trustme.CA()
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(file))

    def context(name: str) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(name).configure_cert(made)
        return made

    return file, context


@pytest.fixture(scope="module")
def receivers(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[dict[str, Receiver]]:
    """By kind: plain, tls, socket (unix), and down (its port refuses)."""
    _, context = authority
    made = {
        "plain": Receiver(),
        "tls": Receiver(tls=context("127.0.0.1")),
        "socket": Receiver(path=tmp_path_factory.mktemp("r") / "app.sock"),
        "down": Receiver(listening=False),
    }
    yield made
    for receiver in made.values():
        receiver.stop()


@pytest.fixture(scope="module")
def new_receiver() -> Iterator[Callable[..., Receiver]]:
    """Makes further receivers."""
    made: list[Receiver] = []

    def make(**options: Any) -> Receiver:
        made.append(Receiver(**options))
        return made[-1]

    yield make
    for receiver in made:
        receiver.stop()


def _new(request: pytest.FixtureRequest) -> bool:
    """A module with NEW_INTERPRETER = True tests starts."""
    return getattr(request.module, "NEW_INTERPRETER", False)


def _directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("s")
    (directory / "previous").write_text(PREVIOUS_SECRET + "\n")
    return directory


@pytest.fixture(scope="module")
def process(
    request: pytest.FixtureRequest,
    receivers: Mapping[str, Receiver],
    authority: Authority,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Sidecar]:
    """One process for the module, with the base configuration changed by the module's CONFIG and its ENV."""
    directory = _directory(tmp_path_factory)
    config = merged(base_config(receivers, directory), getattr(request.module, "CONFIG", {}))
    env = getattr(request.module, "ENV", None)
    running = Sidecar(config, directory, ca_file=authority[0], env=env, new_interpreter=_new(request))
    try:
        running.wait_serving()
        yield running
        running.stop()
    finally:
        running.kill()


@pytest.fixture
def receiver(receivers: Mapping[str, Receiver]) -> Receiver:
    """The receiver of most routes, with nothing seen yet."""
    for each in receivers.values():
        each.forget()
    return receivers["plain"]


@pytest.fixture
def sidecar(process: Sidecar, receiver: Receiver) -> Iterator[Sidecar]:
    """The module's process; afterwards it must still be there and have logged no bug."""
    process.settled()
    yield process
    assert process.process.poll() is None
    assert not process.bugs()


@contextlib.contextmanager
def _starting(
    receivers: Mapping[str, Receiver],
    authority: Authority,
    tmp_path_factory: pytest.TempPathFactory,
    new_interpreter: bool,
) -> Generator[Start, None, None]:
    made: list[Sidecar] = []

    def begin(
        changes: Config | None = None,
        *,
        text: str | None = None,
        wait: bool = True,
        ca_file: Path | None = authority[0],
        env: Mapping[str, str] | None = None,
        clock: float | None = None,
    ) -> Sidecar:
        directory = _directory(tmp_path_factory)
        config = text or merged(base_config(receivers, directory), changes or {})
        running = Sidecar(config, directory, ca_file=ca_file, env=env, clock=clock, new_interpreter=new_interpreter)
        made.append(running)
        if wait:
            running.wait_serving()
        return running

    try:
        yield begin
        for running in made:
            if running.process.poll() is None:
                running.stop()
    finally:
        for running in made:
            running.kill()


@pytest.fixture
def start(
    request: pytest.FixtureRequest,
    receivers: Mapping[str, Receiver],
    receiver: Receiver,
    authority: Authority,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Start]:
    """Starts processes for one test: `start({...changes})`; each is stopped and checked at the end."""
    with _starting(receivers, authority, tmp_path_factory, _new(request)) as begin:
        yield begin


@pytest.fixture(scope="module")
def start_for_module(
    request: pytest.FixtureRequest,
    receivers: Mapping[str, Receiver],
    authority: Authority,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Start]:
    """The same for processes that several tests of a module use."""
    with _starting(receivers, authority, tmp_path_factory, _new(request)) as begin:
        yield begin
