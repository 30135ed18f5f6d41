"""The cluster of `make cluster-test`: kubectl and Helm as they are installed, waits that say why, and a table of what happened."""

import contextlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
TOOLS = ROOT / ".venv/kubernetes"
CHART = ROOT / "helm"
#: The label of everything that is made outside the namespace, so that it can be deleted again.
LABEL = "webhook-sidecar/cluster-test"
#: No command may take longer, seconds; those that wait have their own limit.
COMMAND_SECONDS = 120


class StepError(Exception):
    """Why a step did not hold."""


class NotApplicableError(Exception):
    """Why a step can't be tried on this cluster."""


@dataclass
class Result:
    step: str
    outcome: str  #: `ok`, `FAILED`, `not run`
    seconds: float
    detail: str = ""


def say(text: str) -> None:
    print(f"    {time.strftime('%H:%M:%S')}  {text}", flush=True)


@dataclass
class Cluster:
    """Everything happens in `namespace`, by the user and cluster that KUBECONFIG names."""

    namespace: str
    image: str
    deadline: float  #: of the whole run, on the monotonic clock
    tools: Path = TOOLS
    sleep: Callable[[float], None] = time.sleep
    results: list[Result] = field(default_factory=list)

    # Commands

    def run(
        self, *command: str | Path, stdin: str | None = None, seconds: float = COMMAND_SECONDS, check: bool = True
    ) -> str:
        """Standard output. Raises `StepError` with standard error if the command fails."""
        program = self.tools / str(command[0])
        arguments = [str(program) if program.exists() else str(command[0]), *map(str, command[1:])]
        homes = {
            f"HELM_{name}_HOME": str(self.tools / "home" / str(command[0]) / name.lower())
            for name in ("DATA", "CONFIG", "CACHE")
        }
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise StepError("the time for the whole run is over")
        try:
            done = subprocess.run(
                arguments,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=min(seconds, left),
                check=False,
                env=os.environ | homes,
            )
        except subprocess.TimeoutExpired:
            raise StepError(
                f"{' '.join(map(str, command[:4]))} ... took longer than {min(seconds, left):.0f} s"
            ) from None
        except OSError as error:
            raise StepError(
                f"{command[0]} can't be run: {error.strerror}; run `make cluster-test`, which installs it"
            ) from None
        if check and done.returncode:
            raise StepError(f"{' '.join(map(str, command[:4]))} ...: {done.stderr.strip()[-600:]}")
        return done.stdout

    def kubectl(
        self, *arguments: str, stdin: str | None = None, seconds: float = COMMAND_SECONDS, check: bool = True
    ) -> str:
        return self.run("kubectl", "-n", self.namespace, *arguments, stdin=stdin, seconds=seconds, check=check)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def exists(self, *arguments: str) -> bool:
        return bool(self.kubectl("get", *arguments, "--ignore-not-found", "-o", "name").strip())

    def apply(self, text: str | Sequence[Mapping[str, Any]]) -> None:
        given = text if isinstance(text, str) else yaml.safe_dump_all([dict(each) for each in text])
        self.kubectl("apply", "-f", "-", stdin=given)

    def helm(
        self, tool: str, *arguments: str | Path, values: Mapping[str, Any] | None = None, seconds: float = 300
    ) -> str:
        given = ("--values", "-") if values is not None else ()
        return self.run(
            tool, "--namespace", self.namespace, *arguments, *given, stdin=json.dumps(dict(values)) if values is not None else None,
            seconds=seconds,
        )  # fmt: skip

    # Waiting

    def wait(self, reason: str, condition: Callable[[], object], seconds: float) -> None:
        """Waits until the condition holds. Says why, and raises `StepError` when it takes too long."""
        say(f"waiting up to {seconds:.0f} s: {reason}")
        until = min(time.monotonic() + seconds, self.deadline)
        while not condition():
            if time.monotonic() >= until:
                raise StepError(f"not within {seconds:.0f} s: {reason}")
            self.sleep(1)

    def rolled_out(self, reason: str, workload: str, seconds: float = 180) -> None:
        say(f"waiting up to {seconds:.0f} s: {reason}")
        self.kubectl("rollout", "status", workload, f"--timeout={seconds:.0f}s", seconds=seconds + 10)

    # Steps

    def step(self, name: str, reason: str, body: Callable[[], str | None]) -> bool:
        """Runs a step and records what came of it. Returns whether it held, or could not be tried."""
        print(f"\n== {name}\n   {reason}", flush=True)
        began = time.monotonic()
        result = Result(name, "FAILED", 0.0, "interrupted")
        try:
            result = Result(name, "ok", 0.0, body() or "")
        except NotApplicableError as error:
            result = Result(name, "not run", 0.0, str(error))
        except StepError as error:
            result = Result(name, "FAILED", 0.0, str(error))
        except Exception as error:
            traceback.print_exc()
            result = Result(name, "FAILED", 0.0, f"{type(error).__name__}: {error}")
        finally:
            result.seconds = time.monotonic() - began
            self.results.append(result)
        print(
            f"   {result.outcome} after {result.seconds:.0f} s{': ' + result.detail if result.detail else ''}",
            flush=True,
        )
        return result.outcome != "FAILED"

    def summary(self) -> str:
        lines = [f"{'step':44} {'outcome':8} {'s':>5}  detail"]
        lines += [
            f"{each.step[:44]:44} {each.outcome:8} {each.seconds:5.0f}  {each.detail.splitlines()[0][:120] if each.detail else ''}"
            for each in self.results
        ]
        counts = {word: sum(each.outcome == word for each in self.results) for word in ("ok", "FAILED", "not run")}
        return "\n".join([*lines, "", ", ".join(f"{count} {word}" for word, count in counts.items())])

    def clean_up(self) -> None:
        """Deletes what was made, also after a failure, and within its own four minutes. Says what is left."""
        self.deadline = time.monotonic() + 2 * COMMAND_SECONDS
        say(f"deleting the namespace {self.namespace}, and what has the label {LABEL}={self.namespace}")
        policies = "mutatingadmissionpolicybindings,mutatingadmissionpolicies"
        with contextlib.suppress(StepError):  # the API need not have them
            self.run("kubectl", "delete", policies, "-l", f"{LABEL}={self.namespace}", "--ignore-not-found")
        try:
            self.run("kubectl", "delete", "namespace", self.namespace, "--ignore-not-found", "--timeout=100s")
        except StepError as error:
            say(f"the namespace {self.namespace} is not gone yet; delete it yourself: {error}")


def fail(message: str) -> None:
    print(f"cluster-test: {message}", file=sys.stderr)
    sys.exit(2)
