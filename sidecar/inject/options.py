"""The options of `sidecar inject`, from the command line or as settings in YAML."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from sidecar import __version__
from sidecar.inject.manifest import Document, ManifestError


@dataclass(frozen=True, kw_only=True)
class Options:
    workload: Sequence[str] = ()
    container: str | None = None
    port: str | None = None
    config: str | None = None  #: the text of a configuration
    config_file: str = "config"  #: its name in messages
    config_map: str | None = None
    secret: Sequence[str] = ()
    image: str = f"webhook-sidecar:{__version__}"
    listen_port: int | None = None
    admin_port: int | None = None
    loopback: bool = False
    pre_stop: int = 10
    no_network_policy: bool = False
    allow_from: Sequence[str] = ()
    admin_from: Sequence[str] = ("namespace:*",)
    keep_port: Sequence[int] = ()
    step: str | None = None
    remove: bool = False
    deleted: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """An option that is not given sets no attribute: the defaults are those of `Options`."""

    def option(name: str, help: str, **more: Any) -> None:
        parser.add_argument(name, default=argparse.SUPPRESS, help=help, **more)

    option("--config", "the sidecar's configuration; it goes into a ConfigMap", metavar="FILE")
    option(
        "--config-map",
        "use an existing ConfigMap instead (key config.yaml)",
        metavar="NAME",
    )
    option("--secret", "mount a Secret at /run/secrets/NAME; may be repeated", metavar="NAME", action="append")
    option("--image", f"the sidecar's image; default: {Options.image}")
    option(
        "--workload",
        "the workload, as NAME or KIND/NAME; may be repeated; default: those with the label "
        "webhook-sidecar/inject: enabled, otherwise the only one",
        metavar="NAME",
        action="append",
    )
    option("--container", "the receiver's container; default: the only one", metavar="NAME")
    option("--port", "the receiver's port for deliveries, as a number or a name; default: the only one")
    option(
        "--listen-port",
        "the sidecar's port for deliveries; default: as configured, otherwise 8080",
        type=_port,
        metavar="N",
    )
    option(
        "--admin-port",
        "its port for probes and metrics; default: as configured, otherwise 9090",
        type=_port,
        metavar="N",
    )
    option(
        "--loopback",
        "the receiver listens on 127.0.0.1 only: send its HTTP probes through the sidecar",
        action="store_true",
    )
    option(
        "--pre-stop",
        "how long the receiver keeps running when its pod stops; default: 10; 0: don't add a preStop",
        type=int,
        metavar="SECONDS",
    )
    option("--no-network-policy", "don't add a NetworkPolicy", action="store_true")
    peers = "a network, namespace:NAME, namespace:* or pods:LABEL=VALUE; may be repeated"
    option(
        "--allow-from",
        f"who may reach the port for deliveries: {peers}; default: anyone",
        metavar="PEER",
        action="append",
    )
    option(
        "--admin-from", f"who may reach the admin port: {peers}; default: namespace:*", metavar="PEER", action="append"
    )
    option(
        "--keep-port",
        "another port of the pod to keep open; may be repeated",
        type=_port,
        metavar="N",
        action="append",
    )
    option(
        "--step",
        "one step of a rollout that loses no delivery: pods adds the sidecar, traffic then leads the Services to it; "
        "without --step afterwards the receiver's port is closed. With --remove: traffic first, then pods",
        choices=("pods", "traffic"),
    )
    option("--remove", "remove the sidecar again", action="store_true")
    option(
        "--deleted",
        "also write the objects that are no longer in the manifests, for kubectl delete -f FILE",
        metavar="FILE",
    )


def read_settings(text: str, file: str) -> Options:
    """Reads the `spec` of a kustomize function's configuration: the options in camelCase; `config` is the configuration itself.

    Raises `ManifestError`.
    """
    document = Document(text, file)
    spec = document.get(document.root, "spec")
    if not isinstance(spec, yaml.MappingNode):
        document.fail(
            spec or document.root,
            "has no settings; write the options below spec:, for example spec: {secret: [stripe]}",
        )
    return make_options(document.value(spec), file)


def make_options(spec: Mapping[str, Any], place: str) -> Options:
    """Settings are options in camelCase, and are read by the same parser."""
    parser = _Parser(prog=place, add_help=False, allow_abbrev=False)
    add_options(parser)
    arguments = []
    for key, value in spec.items():
        option = "--" + re.sub("[A-Z]", lambda found: f"-{found[0].lower()}", key)
        for each in value if isinstance(value, list) else [value]:
            if each in ("true", None):
                arguments.append(option)
            elif each != "false":
                arguments.append(f"{option}={each}")
    return Options(**vars(parser.parse_args(arguments)))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ManifestError(f"{self.prog}: spec: {message}; use the options of sidecar inject in camelCase")


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; use a number from 1 to 65535")
    return int(text)
