"""Rendered manifests as real pods, by podman.

podman plays Pods and ConfigMaps. It has no native sidecars, runs probes with a curl that our image doesn't have, and version 4.3
can't mount given Secrets: all of these are replaced by things that it supports.
"""

import base64
import json
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from engine import run, works

#: Fields that podman treats differently than a kubelet; it would publish each port on the host.
LEFT_OUT = ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle", "restartPolicy", "ports")
#: A receiver that is not Python: nginx responds 200 to every request and logs a line for it. `ADDRESS` is where it listens.
RECEIVER = """
FROM debian:trixie-slim
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends nginx-light
COPY nginx.conf start /receiver/
USER 65534:65534
ENV ADDRESS=127.0.0.1:3000
ENTRYPOINT ["sh", "/receiver/start"]
"""
NGINX = """
pid /tmp/nginx.pid;
error_log /dev/stderr;
events {}
http {
  access_log /dev/stdout;
  client_body_temp_path /tmp; proxy_temp_path /tmp; fastcgi_temp_path /tmp; uwsgi_temp_path /tmp; scgi_temp_path /tmp;
  server { listen ADDRESS; location / { return 200 "taken\n"; } }
}
"""
START = """
sed "s/ADDRESS/$ADDRESS/" /receiver/nginx.conf >/tmp/nginx.conf
exec nginx -c /tmp/nginx.conf -g "daemon off;"
"""
RECEIVER_IMAGE = "localhost/webhook-receiver:test"


def build_receiver(folder: Path) -> str:
    (folder / "Containerfile").write_text(RECEIVER)
    (folder / "nginx.conf").write_text(NGINX)
    (folder / "start").write_text(START)
    options = ("--format", "docker", "--pull-never", "--isolation", "chroot")
    run("buildah", "bud", *options, "-t", RECEIVER_IMAGE, folder, timeout=300)
    return RECEIVER_IMAGE


def playable(objects: Iterable[Mapping[str, Any]], images: Mapping[str, str]) -> str:
    """A manifest for `podman kube play`. `images` are replacements for the images that the objects name."""
    made = []
    for each in objects:
        if each["kind"] == "ConfigMap":
            made.append(each)
        if each["kind"] == "Secret":
            data = {key: base64.b64decode(value).decode() for key, value in each["data"].items()}
            made.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": each["metadata"], "data": data})
        if each["kind"] in ("Deployment", "Pod"):
            made.append(_pod(each, images))
    return yaml.safe_dump_all(made)


def _pod(workload: Mapping[str, Any], images: Mapping[str, str]) -> dict[str, Any]:
    pod = workload if workload["kind"] == "Pod" else workload["spec"]["template"]
    spec = pod["spec"]
    native = [each for each in spec.get("initContainers", []) if each.get("restartPolicy") == "Always"]
    containers = [
        {key: value for key, value in each.items() if key not in LEFT_OUT}
        | {"image": images.get(each["image"], each["image"])}
        for each in [*native, *spec["containers"]]
    ]
    volumes = [
        {"name": each["name"], "configMap": {"name": each["secret"]["secretName"]}} if "secret" in each else each
        for each in spec.get("volumes", [])
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": workload["metadata"]["name"], "labels": pod["metadata"].get("labels", {})},
        "spec": {
            "containers": containers,
            "volumes": volumes,
            "securityContext": spec.get("securityContext", {}),
            "restartPolicy": "Never",
        },
    }


class Pod:
    """A running pod with its `address`; the names of its containers begin with `name`."""

    def __init__(self, name: str) -> None:
        self.name = name
        (pod,) = json.loads(f"[{run('podman', 'pod', 'inspect', name)}]")
        (infra,) = json.loads(run("podman", "inspect", pod["InfraContainerID"]))
        ((self.network, settings),) = infra["NetworkSettings"]["Networks"].items()
        self.address: str = settings["IPAddress"]

    def log(self, container: str) -> str:
        return run("podman", "logs", f"{self.name}-{container}")

    def inspect(self, container: str) -> str:
        return run("podman", "inspect", f"{self.name}-{container}")

    def pre_stop(self, container: str, command: list[str]) -> str:
        """Runs the command of a preStop hook, which podman doesn't, in the container."""
        return run("podman", "exec", f"{self.name}-{container}", *command)

    def stop(self, container: str) -> int:
        """SIGTERM, and its exit status."""
        run("podman", "stop", "-t", "30", f"{self.name}-{container}")
        return int(run("podman", "inspect", f"{self.name}-{container}", "--format", "{{.State.ExitCode}}"))

    def status(self, path: str, port: int = 9090) -> int:
        """The status of a GET; 0 without a response."""
        try:
            return httpx.get(f"http://{self.address}:{port}{path}", timeout=2).status_code
        except httpx.TransportError:
            return 0

    def command(self, image: str, arguments: list[str], secrets: Mapping[str, Path]) -> tuple[int, str]:
        """Exit status and output of the sidecar's command in another container on the same network."""
        mounts = [word for at, folder in secrets.items() for word in ("-v", f"{folder}:{at}:ro")]
        options = ["--rm", "--network", self.network, "--user", "65532", "--read-only", "--cap-drop", "ALL", *mounts]
        done = subprocess.run(
            ["podman", "run", *options, image, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout


@contextmanager
def played(objects: Iterable[Mapping[str, Any]], images: Mapping[str, str], folder: Path) -> Iterator[Pod]:
    """Runs the only pod of `objects` until the end of the block."""
    text = playable(objects, images)
    file = folder / f"{uuid.uuid4().hex}.yaml"
    file.write_text(text)
    parts = list(yaml.safe_load_all(text))
    (name,) = (each["metadata"]["name"] for each in parts if each["kind"] == "Pod")
    try:
        run("podman", "kube", "play", file, timeout=120)
        yield Pod(name)
    finally:
        works("podman", "pod", "rm", "-f", name)
        for each in parts:
            if each["kind"] == "ConfigMap":
                works("podman", "volume", "rm", "-f", each["metadata"]["name"])


def mounted(name: str) -> Path:
    """The folder on this machine that replaces a ConfigMap or Secret."""
    return Path(run("podman", "volume", "inspect", name, "--format", "{{.Mountpoint}}").strip())


def put(folder: Path, files: Mapping[str, str]) -> None:
    """Updates the content as a kubelet does: a new directory, a swapped link to it, and a link for each file."""
    made = folder / f"..{time.time_ns()}"
    made.mkdir()
    for name, content in files.items():
        (made / name).write_text(content)
        if not (folder / name).is_symlink():
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(f"..data/{name}")
    link = folder / "..data_tmp"
    link.symlink_to(made.name)
    link.rename(folder / "..data")
    for each in folder.iterdir():
        if each.is_symlink() and each.name != "..data" and each.name not in files:
            each.unlink()
        if each.is_dir() and not each.is_symlink() and each != made:
            shutil.rmtree(each)
