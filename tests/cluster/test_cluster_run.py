"""The cluster test itself, without a cluster: its senders, its manifests, its waits, its table, and that it cleans up.

What Kubernetes makes of it is shown by `make cluster-test` on a real one.
"""

import contextlib
import io
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cluster
import kubernetes_validate
import pytest
import run
import steps
import workloads
import yaml
from chart import HELMS, TOOLS, helm, objects
from needs import needs
from ports import free_port
from stub_api import stub_api
from waiting import until

from sidecar.cli.main import main

HERE = Path(__file__).parent
IMAGE = "registry.example/webhook-sidecar:0.1.0"


# -- the senders and the receiver, as real processes --


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def until_it_answers(port: int) -> None:
    for _ in range(200):
        if answers(port):
            return
        time.sleep(0.05)
    pytest.fail(f"nothing listens on {port}")


def until_they_send(port: int) -> None:
    """Until the senders, which take a while to start on a busy machine, have connected."""
    peer, established = f":{port:04X}", "01"

    def connected() -> bool:
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return any(row[2].endswith(peer) and row[3] == established for row in rows)

    until(connected, "a connection of the senders")


@pytest.fixture
def receiver() -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    port = free_port()
    script = workloads.SCRIPTS / "receiver.py"
    with subprocess.Popen(
        [sys.executable, script], env=os.environ | {"PORT": str(port), "ADDRESS": "127.0.0.1"}
    ) as process:
        try:
            until_it_answers(port)
            yield port, process
        finally:
            process.terminate()


def load(
    url: str, folder: Path, seconds: float, *, rate: int = 100, secret: str | None = None
) -> "subprocess.Popen[bytes]":
    arguments = [url, str(rate), str(seconds), str(folder / "stop")]
    if secret is not None:
        (folder / "secret").write_text(secret)
        arguments.append(str(folder / "secret"))
    return subprocess.Popen([sys.executable, workloads.SCRIPTS / "load.py", *arguments], stdout=subprocess.PIPE)


def report_of(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    out, _ = process.communicate(timeout=60)
    return dict(json.loads(out))


def test_the_senders_keep_half_of_their_connections_and_sign_as_github_does(
    receiver: tuple[int, "subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    """Through a real sidecar that drains while they send: every delivery is answered 200, also on kept connections."""
    port, _ = receiver
    listen, admin = free_port(), free_port()
    config = workloads.config(
        f"http://127.0.0.1:{port}", listen=f"127.0.0.1:{listen}", admin=f"127.0.0.1:{admin}", drain="4s"
    )
    text = yaml.safe_dump(config).replace(f"/run/secrets/{workloads.SECRET}", str(tmp_path))
    (tmp_path / "sidecar.yaml").write_text(text)
    (tmp_path / "current").write_text(workloads.OLD)
    serve = [sys.executable, "-m", "sidecar", "serve", "--config", str(tmp_path / "sidecar.yaml")]
    with subprocess.Popen(serve, stdout=subprocess.PIPE) as sidecar:
        try:
            until_it_answers(listen)
            sending = load(f"http://127.0.0.1:{listen}{workloads.PATH}", tmp_path, 30, secret=workloads.OLD)
            until_they_send(listen)
            time.sleep(2)
            drained = subprocess.run([sys.executable, "-m", "sidecar", "drain", "--pid", str(sidecar.pid)], check=False)
            assert drained.returncode == 0
            time.sleep(1)
            (tmp_path / "stop").touch()
            report = report_of(sending)
        finally:
            sidecar.send_signal(signal.SIGTERM)
        log, _ = sidecar.communicate(timeout=30)
    assert set(report["outcomes"]) == {"200"}
    assert report["sent"] > 50
    lines = [json.loads(line) for line in log.splitlines()]
    assert (
        sum(line.get("event") == "delivery" and line.get("outcome") == "accepted" for line in lines) == report["sent"]
    )


def test_a_lost_delivery_is_seen_with_its_moment(
    receiver: tuple[int, "subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    port, process = receiver
    sending = load(f"http://127.0.0.1:{port}/", tmp_path, 3)
    until_they_send(port)
    time.sleep(1.5)
    process.terminate()
    report = report_of(sending)
    assert report["outcomes"]["200"] > 20  # of 150, of which a busy machine sends fewer
    lost = {outcome for outcome in report["outcomes"] if outcome != "200"}
    assert lost <= {"ConnectionRefusedError", "ConnectionResetError", "IncompleteRead", "RemoteDisconnected"}
    assert lost
    assert all(report["first_after_seconds"][outcome] > 1 for outcome in lost)


def test_a_receiver_that_lingers_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application without a sidecar, whose clients hear of the end of its pod a second late."""
    port = free_port()
    environment = os.environ | {"PORT": str(port), "ADDRESS": "127.0.0.1", "LINGERS": "2"}
    with subprocess.Popen([sys.executable, workloads.SCRIPTS / "receiver.py"], env=environment) as process:
        try:
            until_it_answers(port)
            sending = load(f"http://127.0.0.1:{port}/", tmp_path, 30)
            until_they_send(port)
            time.sleep(1)
            process.terminate()
            time.sleep(1)
            (tmp_path / "stop").touch()
            report = report_of(sending)
            assert process.wait(5) == 0
        finally:
            process.kill()
    assert set(report["outcomes"]) == {"200"}
    assert report["sent"] > 20


# -- manifests --


def manifests() -> list[dict[str, Any]]:
    return [
        workloads.namespace("test"),
        workloads.secret(workloads.NEW, workloads.OLD),
        workloads.sender_secret(),
        workloads.scripts(),
        *workloads.application("app", IMAGE, {"webhook-sidecar/inject": "enabled"}),
        workloads.load_pod("load-1", IMAGE, "http://app/", rate=50, seconds=60),
    ]


def test_what_is_applied_is_valid_and_restricted() -> None:
    for each in manifests():
        kubernetes_validate.validate(each, "1.37.0", strict=True)
        spec = (
            each["spec"]["template"]["spec"]
            if each["kind"] == "Deployment"
            else each["spec"]
            if each["kind"] == "Pod"
            else None
        )
        if spec is not None:
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in spec["containers"]:
                assert container["securityContext"]["allowPrivilegeEscalation"] is False
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("tool", HELMS)
@pytest.mark.parametrize("mode", ["gateway", "sidecar", "library"])
def test_the_values_render_and_their_configuration_is_right(
    mode: str, tool: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    values = workloads.values(mode, IMAGE)
    text = helm("template", mode, "helm", "--namespace", "test", "--values", "-", tool=tool, stdin=json.dumps(values))
    (tmp_path / "all.yaml").write_text(text)
    assert main(["check", "--manifests", str(tmp_path / "all.yaml")]) == 0
    assert f"ConfigMap test/{mode}: ok" in capfd.readouterr().out
    for each in objects(text):
        kubernetes_validate.validate(each, "1.37.0", strict=True)


def test_an_image_by_digest_stays_one() -> None:
    digest = "sha256:" + "0" * 64
    assert workloads.values("gateway", f"registry.example:5000/x@{digest}")["image"] == {
        "repository": "registry.example:5000/x",
        "digest": digest,
    }
    assert workloads.values("gateway", "registry.example:5000/x:1")["image"] == {
        "repository": "registry.example:5000/x",
        "tag": "1",
    }


# -- the run --


PRETENDED = f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(HERE)!r})
from pretend_kubectl import main
sys.exit(main())
"""


def pretend(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """The folder, with programs in it that pretend to be kubectl and Helm; nothing waits."""
    tools = folder / "tools"
    tools.mkdir()
    for name in ("kubectl", *HELMS):
        file = tools / name
        file.write_text(PRETENDED)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    patch.setenv("PRETEND", str(folder))
    return folder


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return pretend(tmp_path, monkeypatch)


def tried(pretended: Path, *arguments: str) -> int:
    """Runs it with those programs. Waits take a hundredth of their time."""
    options = ["--image", IMAGE, "--namespace", "try", *arguments]
    return run.main(options, tools=pretended / "tools", sleep=lambda seconds: time.sleep(seconds / 100))


def commands(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def table(out: str) -> dict[str, str]:
    rows = out[out.index("step  ") :].splitlines()[1:]
    return {row[:44].strip(): row[45:53].strip() for row in rows if re.search(r" (ok|FAILED|not run) ", row)}


class WholeRun(NamedTuple):
    steps: list[str]  #: that were asked for
    status: int
    out: str
    commands: list[list[str]]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> WholeRun:
    """Every step, but of the examples one with each Helm."""
    names = [name for name, *_ in run.plan(steps.Steps(cluster.Cluster("a", "b:1", 0.0)))]
    names = [name for name in names if not name.startswith("helm") or name.endswith(": begini")]
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        folder = pretend(tmp_path_factory.mktemp("whole"), patch)
        status = tried(folder, *(word for name in names for word in ("--only", name)))
    return WholeRun(names, status, said.getvalue(), commands(folder))


def test_every_step_is_in_the_plan_once() -> None:
    names = [name for name, *_ in run.plan(steps.Steps(cluster.Cluster("a", "b:1", 0.0)))]
    examples = len(HELMS) * len(list((cluster.CHART / "ci").glob("*-values.yaml")))
    assert len(names) == len(set(names)) == 22 + examples


def test_every_step_runs_says_why_and_is_in_the_table(whole_run: WholeRun) -> None:
    found = table(whole_run.out)
    assert whole_run.status == 0
    assert set(found.values()) == {"ok"}
    assert list(found) == ["prepare", "policy agent", *whole_run.steps]
    assert whole_run.out.count("waiting up to") > 40
    assert whole_run.commands[-1][1:4] == ["delete", "namespace", "try"]


def test_the_real_programs_understand_every_command(whole_run: WholeRun, tmp_path: Path) -> None:
    """Nothing answers, so each one ends with that. A flag or an argument that it did not know would be what it says instead."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        f"{{apiVersion: v1, kind: Config, current-context: x, clusters: [{{name: x, cluster: {{server: 'http://127.0.0.1:{free_port()}'}}}}], "
        "contexts: [{name: x, context: {cluster: x, user: x}}], users: [{name: x, user: {}}]}"
    )
    shapes = {tuple(re.sub(r"\d+", "0", word) for word in words): words for words in whole_run.commands}
    assert len(shapes) > 50
    stdin = yaml.safe_dump(workloads.namespace("try"))
    unclear = {}
    for words in shapes.values():
        done = subprocess.run(
            [needs(TOOLS / words[0]), *words[1:]],
            input="{}" if "--values" in words else stdin,
            env=os.environ | {"KUBECONFIG": str(kubeconfig)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if words[1] == "kustomize":  # needs no cluster
            assert done.returncode == 0, done.stderr
        elif not re.search("connection refused|was refused|unreachable", done.stderr):
            unclear[" ".join(words)] = done.stderr
    assert unclear == {}


def test_what_was_interrupted_is_in_the_table_and_deleted(pretended: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By Ctrl-C, or by SIGTERM, as a CI sends it."""
    code = (
        # What was started in the background of a shell ignores Ctrl-C, and so do the tests that run there.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"import sys; sys.path.insert(0, {str(HERE)!r}); import run; from pathlib import Path; "
        f"sys.exit(run.main(sys.argv[1:], tools=Path({str(pretended / 'tools')!r})))"
    )
    for sent in (signal.SIGINT, signal.SIGTERM):
        arguments = ["--image", IMAGE, "--namespace", "try", "--only", "gateway: rollout"]
        with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = ""
            while "== gateway: rollout" not in said:
                said += process.stdout.readline()
            time.sleep(1)
            process.send_signal(sent)
            out, _ = process.communicate(timeout=60)
        assert process.returncode == 130
        assert table(out)["gateway: rollout"] == "FAILED"
        assert commands(pretended)[-1][1:4] == ["delete", "namespace", "try"]


def test_an_unexpected_answer_fails_its_step_and_no_other(capfd: pytest.CaptureFixture[str]) -> None:
    running = cluster.Cluster("try", IMAGE, time.monotonic() + 10)
    assert running.step("first", "an answer without a list", lambda: json.loads("{}")["items"]) is False
    assert running.step("second", "all is well", lambda: "fine") is True
    assert [each.outcome for each in running.results] == ["FAILED", "ok"]
    assert "KeyError: 'items'" in running.summary()


@pytest.mark.parametrize(("only", "needed"), [("gateway: rollout", {"gateway", "gateway: rollout"}), ("inject", None)])
def test_a_step_that_is_named_alone_brings_the_one_that_it_needs(only: str, needed: set[str] | None) -> None:
    names = {name for name, *_ in run.plan(steps.Steps(cluster.Cluster("a", "b:1", 0.0)))}
    wanted = {name for name in names if run.is_wanted(name, [only])}
    assert wanted == (needed or {name for name in names if name.startswith("inject")})


def test_with_a_policy_agent_a_port_that_is_open_fails(pretended: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The pretended Helm makes no NetworkPolicy, so the receiver is reached past the gateway."""
    (pretended / "enforces").touch()
    assert tried(pretended, "--only", "gateway: bypass") == 1
    out, _ = capfd.readouterr()
    assert table(out) == {"prepare": "ok", "policy agent": "ok", "gateway": "ok", "gateway: bypass": "FAILED"}
    assert "the receiver's port is open, though policies are enforced" in out


def test_the_examples_are_installed_and_uninstalled_by_both_helms(
    pretended: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tried(pretended, "--only", "helm: begini", "--only", "helm3: begini") == 0
    for tool in HELMS:
        verbs = [words[3] for words in commands(pretended) if words[0] == tool]
        assert verbs == ["install", "upgrade", "rollback", "uninstall"]


def test_a_lost_delivery_fails_its_step_lets_the_others_run_and_cleans_up(
    pretended: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (pretended / "lost").touch()
    assert tried(pretended, "--only", "gateway: rollout", "--only", "gateway: bypass") == 1
    out, _ = capfd.readouterr()
    assert table(out) == {
        "prepare": "ok",
        "policy agent": "ok",
        "gateway": "ok",
        "gateway: rollout": "FAILED",
        "gateway: bypass": "ok",
    }
    assert "of 1000 sent: {'200': 1000, 'RemoteDisconnected': 1}" in out
    assert commands(pretended)[-1][1:4] == ["delete", "namespace", "try"]


def test_it_is_not_let_loose_on_a_namespace_that_is_there(pretended: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (pretended / "objects.json").write_text(json.dumps({"namespace/try": workloads.namespace("try")}))
    with pytest.raises(SystemExit) as ended:
        tried(pretended)
    assert ended.value.code == 2
    assert "the namespace try is there already, and would be deleted" in capfd.readouterr().err
    assert not [words for words in commands(pretended) if "delete" in words]


def test_waits_and_the_whole_run_end(pretended: Path) -> None:
    running = cluster.Cluster("try", IMAGE, time.monotonic() + 1000)
    with pytest.raises(cluster.StepError, match="not within 0 s: pigs fly"):
        running.wait("pigs fly", lambda: False, 0)
    over = cluster.Cluster("try", IMAGE, time.monotonic() - 1, pretended / "tools")
    with pytest.raises(cluster.StepError, match="the time for the whole run is over"):
        over.kubectl("version")
    over.clean_up()  # all the same
    assert commands(pretended)[-1][1:4] == ["delete", "namespace", "try"]


# -- real kubectl, against an API server that refuses every change --


def test_with_a_cluster_that_refuses_changes_it_says_so_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    needs(TOOLS / "kubectl")
    with stub_api([], tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        assert run.main(["--image", IMAGE, "--namespace", "try", "--minutes", "1"]) == 2
    out, _ = capfd.readouterr()
    assert table(out) == {"prepare": "FAILED"}
    assert "kubectl apply -f -" in out


def test_without_a_cluster_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    needs(TOOLS / "kubectl")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    with pytest.raises(SystemExit) as ended:
        run.main(["--image", IMAGE])
    assert ended.value.code == 2
    assert "cluster-test: the cluster can't be reached: kubectl get namespace" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        run.main(["--image", "registry.example/webhook-sidecar"])
    assert "has no tag; add one" in capfd.readouterr().err
