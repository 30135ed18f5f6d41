"""Pods as local processes, in a kubelet's order, behind a Service; what becomes of deliveries while they are replaced.

It runs what manifests say: native sidecars start first, and the others once its startup probe has succeeded. When a pod is deleted, the preStop
hooks of all its containers begin at once; each container gets SIGTERM when its own has ended, a native sidecar only after all other containers
have ended (KEP-753); SIGKILL comes when the grace period is over. The Service learns of each change a second late, and sends
new connections to pods that are ready and not ending; kept ones stay where they are.
"""

import asyncio
import atexit
import contextlib
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from waiting import PATIENCE

#: How late nodes learn of an endpoint that came or went, seconds.
LATE = 1.0
SCRIPTS = Path(__file__).parent / "scripts"
PROGRAM = "/opt/sidecar/bin/sidecar"


def reserved_port() -> int:
    """A port for a process that sets SO_REUSEADDR, as all here do.

    Until this process ends it is bound, so that nothing else gets it, and nobody listens, so that a container's process can.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    atexit.register(holder.close)
    return int(holder.getsockname()[1])


class Container:
    def __init__(self, spec: Mapping[str, Any], pod: "LocalPod", *, native: bool) -> None:
        self.spec, self.pod, self.native = spec, pod, native
        self.name: str = spec["name"]
        self.ended = asyncio.Event()
        self.killed = False
        self.failures = 0
        self.ready = "readinessProbe" not in spec
        self.log: list[str] = []

    async def start(self) -> None:
        command, environment = self.pod.command_of(self.spec)
        self.process = await asyncio.create_subprocess_exec(
            *command, env=os.environ | environment, stdout=asyncio.subprocess.PIPE, cwd=self.pod.folder
        )
        self.reading = asyncio.create_task(self._read())
        if probe := self.spec.get("startupProbe"):
            for _ in range(probe["failureThreshold"] * 10):
                if await self.pod.answers(probe):
                    assert self.process.returncode is None, f"{self.pod.name}/{self.name} ended: {self.log}"
                    return
                await asyncio.sleep(probe["periodSeconds"] / 10)
            raise AssertionError(f"{self.pod.name}/{self.name} did not start: {self.log}")

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.log.append(line.decode())

    async def is_ready(self) -> bool:
        """After a success until so many failures in a row."""
        if self.process.returncode is not None:
            return False
        if (probe := self.spec.get("readinessProbe")) is not None:
            succeeded = await self.pod.answers(probe)
            self.failures = 0 if succeeded else self.failures + 1
            self.ready = succeeded or (self.ready and self.failures < probe.get("failureThreshold", 3))
        return self.ready

    async def stop(self, grace: float, others: list["Container"]) -> None:
        """What a kubelet does with one container of a pod that is deleted."""
        until = time.monotonic() + grace
        await self._pre_stop(grace)
        for other in others if self.native else ():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(other.ended.wait(), max(until - time.monotonic(), 0))
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), max(until - time.monotonic(), 2))
        except TimeoutError:
            self.killed = True
            self.process.kill()
            await self.process.wait()
        await self.reading
        self.ended.set()

    async def _pre_stop(self, grace: float) -> None:
        hook = self.spec.get("lifecycle", {}).get("preStop")
        if hook is None:
            return
        if "sleep" in hook:
            await asyncio.sleep(min(hook["sleep"]["seconds"], grace))
            return
        command = hook["exec"]["command"]
        assert command == [PROGRAM, "drain"]
        # By its PID, because the processes of all pods here have one namespace.
        words = [sys.executable, "-m", "sidecar", "drain", "--pid", str(self.process.pid)]
        hooked = await asyncio.create_subprocess_exec(*words, cwd=self.pod.folder)
        assert await asyncio.wait_for(hooked.wait(), grace) == 0, "the preStop hook failed"


class LocalPod:
    """One pod of a template. `volumes`: the content of each `configmap/NAME` and `secret/NAME`."""

    def __init__(
        self, name: str, template: Mapping[str, Any], volumes: Mapping[str, Mapping[str, str]], folder: Path
    ) -> None:
        self.name, self.folder, self.volumes = name, folder / name, volumes
        self.folder.mkdir()
        self.spec = template["spec"]
        #: Ports of the pod by number -> of this machine.
        self.ports: dict[int, int] = {}
        initial = self.spec.get("initContainers", [])
        assert all(each["restartPolicy"] == "Always" for each in initial)
        self.containers = [Container(each, self, native=True) for each in initial]
        self.containers += [Container(each, self, native=False) for each in self.spec["containers"]]
        #: When it was deleted; infinity while it is not.
        self.deleted = math.inf

    def number(self, given: int | str) -> int:
        """A port of the pod, given by its number or by a container's name for it."""
        for each in self.containers:
            for port in each.spec.get("ports", []):
                if port.get("name") == given:
                    given = port["containerPort"]
        assert isinstance(given, int), given
        return given

    def port(self, given: int | str) -> int:
        """The port of this machine for it."""
        number = self.number(given)
        if number not in self.ports:
            self.ports[number] = reserved_port()
        return self.ports[number]

    def command_of(self, container: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
        """The container's process on this machine, and its environment."""
        environment = {each["name"]: each["value"] for each in container.get("env", [])}
        if container["name"] != "webhook-sidecar":
            (script,) = (word for word in container["command"] if word.endswith(".py"))
            environment |= {"ADDRESS": "127.0.0.1", "PORT": str(self.port(3000))}
            return [sys.executable, str(SCRIPTS / Path(script).name)], environment
        assert container["args"] == ["serve"]
        mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        text = ""
        for volume in self.spec["volumes"]:
            if volume["name"] not in mounts:
                continue
            secret = volume.get("secret")
            source = f"secret/{secret['secretName']}" if secret else f"configmap/{volume['configMap']['name']}"
            place = self.folder / mounts[volume["name"]].lstrip("/")
            place.mkdir(parents=True)
            for file, content in self.volumes[source].items():
                (place / file).write_text(content)
                text = content if file == "config.yaml" else text
        config = yaml.safe_load(text.replace("/run/secrets/", f"{self.folder}/run/secrets/"))
        for key, default in (("listen", 8080), ("admin", 9090)):
            port = int(str(config.get(key, default)).rpartition(":")[2])
            config[key] = f"127.0.0.1:{self.port(port)}"
        if config["upstream"] == "http://127.0.0.1:3000":
            config["upstream"] = f"http://127.0.0.1:{self.port(3000)}"
        written = self.folder / "etc/sidecar/config.yaml"
        written.write_text(yaml.safe_dump(config))
        return [sys.executable, "-m", "sidecar", "serve"], environment | {"SIDECAR_CONFIG": str(written)}

    async def answers(self, probe: Mapping[str, Any]) -> bool:
        get = probe["httpGet"]
        try:
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port(get["port"]))
                try:
                    writer.write(f"GET {get['path']} HTTP/1.1\r\nHost: kubelet\r\nConnection: close\r\n\r\n".encode())
                    line = await reader.readline()
                finally:  # the answer may come too late, or the whole kubelet be stopped
                    writer.close()
        except OSError:  # a timeout too
            return False
        return line[9:10] in (b"2", b"3")

    async def start(self) -> None:
        for each in self.containers:
            await each.start()

    async def is_ready(self) -> bool:
        return all([await each.is_ready() for each in self.containers])

    async def delete(self) -> None:
        self.deleted = time.monotonic()
        others = [each for each in self.containers if not each.native]
        grace = self.spec.get("terminationGracePeriodSeconds", 30)
        await asyncio.gather(*(each.stop(grace, others) for each in self.containers))

    async def kill(self) -> None:
        for each in self.containers:
            if each.process.returncode is None:
                each.process.kill()
                await each.process.wait()
                await each.reading


class Service:
    """Gives each new connection to the next pod that it knows to be ready."""

    def __init__(self, target: int | str) -> None:
        self.target = target
        self.pods: list[LocalPod] = []
        self.known: list[LocalPod] = []
        self.turn = 0
        #: The ports that a NetworkPolicy leaves open; None without one. An agent acts on it at once.
        self.policy: set[int] | None = None
        self.open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=256)
        self.port = int(self.server.sockets[0].getsockname()[1])
        self.watching = asyncio.create_task(self._watch())

    async def knows(self, count: int) -> None:
        """Until it knows so many pods that are ready."""
        async with asyncio.timeout(2 * PATIENCE):
            while len(self.known) < count:  # noqa: ASYNC110 - the loop itself replaces the list
                await asyncio.sleep(0.1)

    async def _watch(self) -> None:
        """The endpoints as they were a moment ago."""
        while True:
            found = [each for each in self.pods if await each.is_ready()]
            asyncio.get_running_loop().call_later(LATE, setattr, self, "known", found)
            await asyncio.sleep(0.2)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.turn += 1
        self.open.add(writer)
        try:
            # Not when the probes above have their turn: what a busy machine does late is nothing that a cluster does.
            known = [each for each in self.known if time.monotonic() < each.deleted + LATE]
            pod = known[self.turn % len(known)]
            if self.policy is not None and pod.number(self.target) not in self.policy:
                raise ConnectionRefusedError
            there = await asyncio.open_connection("127.0.0.1", pod.port(self.target))
        except (OSError, ZeroDivisionError):
            writer.transport.abort()  # a sender sees a connection that was refused, or reset
            return
        self.open.add(there[1])
        await asyncio.gather(_pass(reader, there[1]), _pass(there[0], writer))
        self.open -= {writer, there[1]}

    def apply(self, target: int | str) -> None:
        """A changed `targetPort`."""
        asyncio.get_running_loop().call_later(LATE, setattr, self, "target", target)

    async def stop(self) -> None:
        self.watching.cancel()
        self.server.close()
        for each in self.open:
            each.transport.abort()
        await asyncio.sleep(0.1)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    writer.close()


async def replace_pods(service: Service, new: list[LocalPod], min_ready: float) -> None:
    """A rolling update with `maxSurge: 1` and `maxUnavailable: 0`; returns when the old pods have ended."""
    endings = []
    for pod, old in zip(new, list(service.pods), strict=True):
        await pod.start()
        service.pods.append(pod)
        while not await pod.is_ready():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await asyncio.sleep(min_ready)
        endings.append(asyncio.create_task(old.delete()))
    await asyncio.gather(*endings)
    service.pods = list(new)
