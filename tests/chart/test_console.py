"""Command lines of the pages and of NOTES: each is run, or what it names and selects is there.

A selector that selects nothing shows nothing, and says nothing.
"""

import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import CHART, CI, ROOT, TOOLS, helm, objects, pods, template
from manifests import CONFIG, service, workload, written
from needs import needs
from pages import fences

from sidecar.cli.main import main
from sidecar.inject.injection import inject
from sidecar.inject.options import Options

PAGES = ("docs/authorizer.md", "docs/kubernetes.md", "docs/kubernetes-operation.md", "docs/inject.md", "helm/README.md")
CONTAINER = "webhook-sidecar"
Objects = list[dict[str, Any]]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each simple command of shell lines, without comments and redirections."""
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;<>"):
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def of_page(page: str) -> Iterator[list[str]]:
    for fence in fences((ROOT / page).read_text()):
        if fence.kind == "console":
            shown = re.sub(r"\\\n\s*", " ", fence.text)
            yield from commands("\n".join(re.findall(r"^\s*\$ (.*)", shown, re.MULTILINE)))


def of_notes(values: Path) -> Iterator[list[str]]:
    notes = helm("install", "hooks", CHART, "--values", values, "--namespace", "shop", "--dry-run=client").partition(
        "NOTES:"
    )[2]
    yield from commands("\n".join(re.findall(r"^ +((?:kubectl|helm) .*)", notes, re.MULTILINE)))
    for quoted in re.findall(r"`(kubectl [^`]+)`", notes):
        yield from commands(quoted)


def applied(page_or_values: str | Path) -> Objects:
    """What is in the cluster when the commands are run: a release `hooks`, and an injected application `shop`."""
    options = Options(config=CONFIG, config_file="hooks.yaml", secret=["stripe"])
    injected = objects(inject(written(workload(), service()), options, "shop.yaml").text)
    name = "authorizer" if page_or_values == "docs/authorizer.md" else "gateway"
    values = page_or_values if isinstance(page_or_values, Path) else CHART / f"ci/{name}-values.yaml"
    return [*template(values, name="hooks"), *injected]


def option(words: list[str], *names: str) -> str | None:
    for name in names:
        if name in words:
            return words[words.index(name) + 1]
    return None


def labels_of(made: Objects, kind: str) -> Iterator[dict[str, str]]:
    if kind == "pod":
        yield from (pod["metadata"].get("labels", {}) for pod in pods(made))
    yield from (each["metadata"].get("labels", {}) for each in made if each["kind"].lower() == kind and kind != "pod")


def selected(made: Objects, kind: str, selector: str) -> list[dict[str, str]]:
    wanted = dict(pair.split("=") for pair in selector.split(","))
    return [labels for labels in labels_of(made, kind) if wanted.items() <= labels.items()]


def problem(words: list[str], made: Objects, library: bool = False) -> str | None:
    """What is wrong with a kubectl command; None if nothing is."""
    rest = [word for word in words[1:] if word]
    verb = next(
        word for index, word in enumerate(rest) if not word.startswith("-") and (not index or rest[index - 1] != "-n")
    )
    named = [word for word in rest if re.fullmatch(r"(deployment|service|job|networkpolicy|configmap)/\S+", word)]
    for word in named:
        kind, _, name = word.partition("/")
        if not any(each["kind"].lower() == kind and each["metadata"]["name"] == name for each in made):
            return f"{word} is not there"
    if (container := option(rest, "-c")) is not None and container != CONTAINER:
        return f"container {container}"
    selector = option(rest, "-l")
    if verb == "logs":
        if selector is not None:
            if not {"--tail=-1", "--prefix"} <= set(rest):
                return "shows ten lines of each pod, without its name"
            if not library and not (found := selected(made, "pod", selector)):
                return "selects no pod"
            if not library and any("-test" in labels["app.kubernetes.io/name"] for labels in found):
                return "selects the pods of tests, which have no such container"
        return None if selector or named else "logs of nothing"
    if verb == "delete":
        if selector is None:
            return None if named else "deletes nothing"
        kind = (
            rest[rest.index("delete") + 1] if rest[rest.index("delete") + 1] != "-n" else rest[rest.index("delete") + 3]
        )
        return None if selected(made, kind, selector) else "selects nothing to delete"
    if verb == "create":
        return None if "--save-config" in rest or "--dry-run=client" in rest else "a later apply would warn"
    known = {"get", "apply", "rollout", "exec", "port-forward", "describe", "kustomize"}
    return None if verb in known else f"{verb} is checked by nothing"


@pytest.mark.parametrize("page", PAGES)
def test_kubectl_lines_of_a_page_name_and_select_what_is_there(page: str) -> None:
    made = applied(page)
    lines = [words for words in of_page(page) if "kubectl" in words[0] or "kubectl" in words[:2]]
    assert lines
    found = {shlex.join(words): problem(words[words.index("kubectl") :], made) for words in lines}
    assert {line: what for line, what in found.items() if what} == {}


@pytest.mark.parametrize("values", CI, ids=lambda path: path.stem.removesuffix("-values"))
def test_lines_of_the_notes_name_and_select_what_is_there(values: Path) -> None:
    library = "mode: library" in values.read_text()
    made = applied(values)
    lines = list(of_notes(values))
    assert [words for words in lines if "logs" in words]
    found = {shlex.join(words): problem(words, made, library) for words in lines if words[0] == "kubectl"}
    assert {line: what for line, what in found.items() if what} == {}
    if library:  # the pods are somebody else's; they have the labels that the chart's template gives them
        (policy,) = (
            each for each in made if each["kind"] == "NetworkPolicy" and each["metadata"]["name"].startswith("hooks")
        )
        ((key, value),) = policy["spec"]["podSelector"]["matchLabels"].items()
        assert all(option(words, "-l") == f"{key}={value}" for words in lines if "logs" in words)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (
            "kubectl logs -l app.kubernetes.io/instance=hooks -c webhook-sidecar --tail=-1 --prefix",
            "selects the pods of tests",
        ),
        ("kubectl logs -l app.kubernetes.io/name=webhook-sidecar -c webhook-sidecar", "shows ten lines"),
        ("kubectl logs -l app=nobody -c webhook-sidecar --tail=-1 --prefix", "selects no pod"),
        ("kubectl -n shop logs deployment/shop -c sidecar", "container sidecar"),
        ("kubectl -n shop rollout status deployment/other", "deployment/other is not there"),
        ("kubectl -n shop delete configmap -l webhook-sidecar/injected=other", "selects nothing to delete"),
        ("kubectl create secret generic a --from-file=b", "a later apply would warn"),
        ("kubectl edit configmap", "edit is checked by nothing"),
    ],
)
def test_a_line_that_shows_nothing_is_found(line: str, what: str) -> None:
    assert (problem(line.split(), applied("docs/kubernetes.md")) or "").startswith(what)


@pytest.mark.parametrize("page", PAGES)
def test_helm_lines_of_a_page_are_taken_by_helm(page: str) -> None:
    """Those that render do, with the values of a gateway; the others are only known words."""
    for words in of_page(page):
        if words[0] != "helm":
            continue
        if words[1] in ("template", "install"):
            rest = [str(CHART) if word in ("helm/", ".") else word for word in words[2:]]
            if "-f" in rest:
                rest[rest.index("-f") + 1] = str(CHART / "ci/gateway-values.yaml")
            assert objects(helm("template", *rest))
        else:
            assert words[1] in ("test", "push", "upgrade", "plugin"), words
            assert words[1] != "test" or words[2] in ("hooks", "shop")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("new.txt", "old.txt", "whsec.txt", "secret.txt", "stripe-secret"):
        (tmp_path / name).write_text("a secret of nobody")
    for name in ("hooks.yaml", "config.yaml"):
        (tmp_path / name).write_text(CONFIG)
    (tmp_path / "shop.yaml").write_text(written(workload(), service()))
    options = Options(config=CONFIG, config_file="hooks.yaml", secret=["stripe"])
    (tmp_path / "shop-with-sidecar.yaml").write_text(inject((tmp_path / "shop.yaml").read_text(), options, "").text)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_secrets_of_a_page_are_made_as_they_are_written(page: str, folder: Path) -> None:
    lines = [words for words in of_page(page) if words[0] == "kubectl" and {"create", "secret"} <= set(words)]
    assert lines
    for words in lines:
        made = subprocess.run(
            [
                needs(TOOLS / "kubectl"),
                *(word for word in words[1:] if word not in ("-o", "yaml")),
                "--dry-run=client",
                "-o",
                "yaml",
            ],
            capture_output=True,
            text=True,
            check=True,
            cwd=folder,
        )
        secret = yaml.safe_load(made.stdout)
        assert secret["kind"] == "Secret"
        saved = "kubectl.kubernetes.io/last-applied-configuration" in secret["metadata"].get("annotations", {})
        assert saved is ("--save-config" in words)


@pytest.mark.parametrize("page", ["docs/inject.md", "docs/kubernetes.md"])
def test_inject_lines_of_a_page_run(
    page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ran = 0
    for words in of_page(page):
        if words[:2] == ["sidecar", "inject"] and ("--config" not in words or option(words, "--secret") == "stripe"):
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((folder / "shop.yaml").read_bytes())))
            assert main(words[1:]) == 0, words
            assert objects(capfd.readouterr().out)
            ran += 1
    assert ran >= (5 if page == "docs/inject.md" else 1)


def test_no_example_has_an_annotation_that_kubernetes_warns_of() -> None:
    """https://kubernetes.io/docs/reference/labels-annotations-taints/"""
    deprecated = (
        "kubernetes.io/ingress.class",
        "seccomp.security.alpha.kubernetes.io",
        "container.apparmor.security.beta.kubernetes.io",
        "scheduler.alpha.kubernetes.io",
        "service.alpha.kubernetes.io",
        "volume.beta.kubernetes.io",
    )
    files = [
        *(ROOT / "docs").glob("*.md"),
        *CHART.rglob("*.yaml"),
        CHART / "README.md",
        *(ROOT / "kustomize").rglob("*.yaml"),
    ]
    assert [(file.name, word) for file in files for word in deprecated if word in file.read_text()] == []
