"""Runs everything that docs/kubernetes.md promises on the cluster that KUBECONFIG names; `make cluster-test`.

python tests/cluster/run.py --image IMAGE [--namespace NAME] [--minutes N] [--only NAME]... [--keep]

The image is the sidecar's, with a tag or digest, where the cluster can pull it or on its nodes (`kind load`, `k3d image import`); it is also the
receiver and the senders. Everything is in a namespace of its own, which is deleted at the end, also after Ctrl-C and SIGTERM. Each step prints why it
is there and what it waits for; a step that fails lets the others run. The exit status is 0 if no step failed, 1 if one did, 2 if nothing could be
tried, 130 if it was interrupted.
"""

import argparse
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from cluster import CHART, TOOLS, Cluster, StepError, fail
from steps import HELMS, Steps

Step = tuple[str, str, Callable[[], str | None]]


def plan(steps: Steps) -> Iterator[Step]:
    """Every step with its name and its reason."""
    yield "gateway", "the chart installs in front of an application, and helm test is as it should be", steps.gateway
    yield "gateway: rollout", "no delivery is lost while pods are replaced", steps.gateway_rollout
    yield "gateway: changed port", "Service and policy lead to old and new pods at once", steps.changed_port
    yield "gateway: rotation", "a new secret, and no delivery or pod is lost", steps.rotation
    yield "gateway: eviction", "a node that is drained takes no delivery with it", steps.eviction
    yield "gateway: autoscaler", "switching it on takes no pod away", steps.autoscaler
    yield (
        "gateway: bad configuration",
        "never replaces a good one: upgrade by both Helms, and by hand",
        steps.bad_configuration,
    )
    yield "gateway: bypass", "the application can't be reached past the gateway", lambda: steps.bypass("app=shop")
    yield "sidecar", "the chart makes the application's pods too", steps.sidecar
    yield "sidecar: rollout", "kept connections lose nothing when their pod ends", steps.sidecar_rollout
    yield "sidecar: drain order", "the sidecar hears of the end before its receiver is gone", steps.drain_order
    yield (
        "sidecar: bypass",
        "the receiver's port is closed",
        lambda: steps.bypass("app.kubernetes.io/component=sidecar"),
    )
    yield "inject: alone", "the application without a sidecar loses nothing while its pods are replaced", steps.alone
    yield "inject", "in three steps, and the application answers at every moment", steps.inject
    yield "inject: again", "a second inject changes nothing", steps.inject_again
    yield "inject: rollout", "no delivery is lost while pods are replaced", steps.injected_rollout
    yield "inject: bypass", "the receiver's port is closed", lambda: steps.bypass("app=app")
    yield "inject: remove", "and the application answers at every moment", steps.remove
    yield "kustomize", "in three steps and back, and the application answers at every moment", steps.kustomize
    yield "admission policy", "pods that something else makes get the sidecar", steps.admission_policy
    yield "admission policy: rollout", "no delivery is lost while pods are replaced", steps.policy_rollout
    yield "admission policy: deleted pod", "one pod of two takes no delivery with it", steps.deleted_under_policy
    for file in sorted((CHART / "ci").glob("*-values.yaml")):
        for tool in HELMS:
            name = f"{tool}: {file.name.removesuffix('-values.yaml')}"
            yield name, "install, upgrade, rollback, uninstall", lambda tool=tool, file=file: steps.example(tool, file)  # type: ignore[misc]


def is_wanted(name: str, only: Sequence[str]) -> bool:
    """`gateway: rollout` needs the step `gateway`."""
    return not only or any(name.startswith(word) or word.startswith(f"{name}: ") for word in only)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None, *, tools: Path = TOOLS, sleep: Callable[[float], None] = time.sleep) -> int:
    parser = argparse.ArgumentParser(description="Tries a cluster.")
    parser.add_argument(
        "--image", required=True, help="the sidecar's image, with a tag or digest, where the cluster can pull it"
    )
    parser.add_argument(
        "--namespace",
        default=f"webhook-sidecar-test-{int(time.time()) % 100000}",
        help="a namespace that is not there yet",
    )
    parser.add_argument("--minutes", type=float, default=90, help="the time for the whole run; default: 90")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="only steps that begin so, and the one that they need; may be repeated",
    )
    parser.add_argument("--keep", action="store_true", help="leave everything there, to look at")
    arguments = parser.parse_args(argv)
    if not re.search(r"(:[\w.-]+|@sha256:[0-9a-f]{64})$", arguments.image):
        fail(f"{arguments.image} has no tag; add one, for example :0.1.0")
    if not (tools / "kubectl").exists() and shutil.which("kubectl") is None:
        fail("kubectl is not installed; `make cluster-test` installs it")
    cluster = Cluster(arguments.namespace, arguments.image, time.monotonic() + 60 * arguments.minutes, tools, sleep)
    try:
        if cluster.run("kubectl", "get", "namespace", cluster.namespace, "--ignore-not-found", "-o", "name").strip():
            fail(
                f"the namespace {cluster.namespace} is there already, and would be deleted; name another one with --namespace"
            )
    except StepError as error:
        fail(f"the cluster can't be reached: {error}")
    steps = Steps(cluster)
    before = signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: what was made is deleted all the same
    try:
        ready = cluster.step("prepare", "a namespace, a receiver, the senders' scripts and Secrets", steps.prepare)
        ready = ready and cluster.step("policy agent", "what attempts to bypass must find", steps.policy_agent)
        for name, reason, body in plan(steps) if ready else ():
            if is_wanted(name, arguments.only):
                cluster.step(name, reason, body)
    except KeyboardInterrupt:
        print("\ninterrupted", flush=True)
        return 130
    finally:
        if not arguments.keep:
            cluster.clean_up()
        print(f"\n{cluster.summary()}", flush=True)
        signal.signal(signal.SIGTERM, before)
    if not ready:
        return 2
    return int(any(each.outcome == "FAILED" for each in cluster.results))


if __name__ == "__main__":
    raise SystemExit(main())
