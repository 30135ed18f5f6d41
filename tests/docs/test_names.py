"""Metrics, reasons, hints, events, keys and presets: the pages name all there are, and none that there isn't.

Each check is a function of text that gives what is wrong with it, so that a test can show that it finds something.
"""

import ast
import re
import time
from collections.abc import Callable, Iterable
from functools import cache
from itertools import pairwise
from typing import Any, cast

import configuration_page
import pytest
import yaml
from pages import NAMES, ROOT, code, fences, named, read, rows
from prometheus_client.core import Metric

import sidecar
from sidecar.config.files import FileRecorder
from sidecar.config.keys import json_schema
from sidecar.config.loader import load_config
from sidecar.config.presets import preset_names
from sidecar.config.ranges import range_names
from sidecar.outcomes import ENDS, HandshakeResult, Hint, Outcome, Reason
from sidecar.process.data_processes import DataProcesses
from sidecar.process.ip_ranges import PublishedRanges, RangesRefresher
from sidecar.process.key_fetch import Fetcher, Result
from sidecar.process.key_store import KeyStore
from sidecar.process.reload import Reloader
from sidecar.replay.store import OnFailure
from sidecar.telemetry.log import Log
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.process_metrics import ProcessMetrics
from sidecar.telemetry.prometheus import METRICS, LogMetrics
from sidecar.telemetry.scrape import Scraper
from sidecar.telemetry.totals import Totals

PAGES = {name: read(name) for name in NAMES}
EVERYTHING = "\n".join(PAGES.values())


def together(*lists: Iterable[str]) -> set[str]:
    return {word for each in lists for word in each}


# -- metrics --


class NoLog:
    """Of a log as much as a reloader needs."""

    settings = None

    def event(self, *arguments: Any, **fields: Any) -> None:
        """Drops it."""


class Processes:
    """Processes that handle deliveries."""

    exits = 0
    serving = 1
    pids = ()


def families() -> list[Metric]:
    """Every family that the program can export, each with a sample."""
    config = load_config(str(ROOT / "config/full.yaml"), {}, resolve_secrets=False)
    metrics = Metrics()
    metrics.configure(config.routes.routes, authorizes=True)
    scraper = Scraper(Totals([metrics]), shared_store=True)
    ranges, processes, log = PublishedRanges(time.time), cast(DataProcesses, Processes()), cast(Log, NoLog())
    reloader = Reloader(config, FileRecorder(), {}, networks={}, keys=KeyStore(), processes=processes, log=log)
    keys = KeyStore()
    keys.counts_of("oidc")
    keys.confirmations.apply(Fetcher({}), cast(Log, NoLog()), ["sns"])
    for owner in (
        reloader,
        RangesRefresher(ranges, reloader, log),
        ProcessMetrics(processes, 1),
        LogMetrics([metrics.log]),
        keys,
    ):
        scraper.registry.register(owner)
    return [family for family in scraper.collect() if family.name.startswith("webhook_sidecar_")]


FAMILIES = families()
SAMPLES = {sample.name for family in FAMILIES for sample in family.samples}


def metric_rows() -> set[tuple[str, str, frozenset[str]]]:
    """Name, type and labels of each family, as the page should have them."""
    found = set()
    for family in FAMILIES:
        labels = frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
        found.add((family.name + "_total" * (family.type == "counter"), family.type, labels))
    return found


def wrong_metrics(page: str) -> set[Any]:
    told = {(named(row[0])[0], row[1], frozenset(named(row[2]))) for row in rows(page) if "webhook_sidecar_" in row[0]}
    return told ^ metric_rows()


def unknown_metrics(text: str) -> set[str]:
    known = SAMPLES | {family.name for family in FAMILIES if family.type == "histogram"}
    return {name for name in re.findall(r"webhook_sidecar_[a-z_]*[a-z]", text) if name not in known}


def test_the_table_of_the_program_has_every_metric_and_no_other() -> None:
    assert metric_rows() == {(metric.name, metric.type, frozenset(metric.labels)) for metric in METRICS}


def test_every_metric_has_its_row_with_type_and_labels_and_no_other_has() -> None:
    assert wrong_metrics(PAGES["docs/metrics.md"]) == set()


def test_no_page_names_a_metric_that_there_is_not() -> None:
    assert unknown_metrics(EVERYTHING) == set()


def test_a_wrong_page_of_metrics_is_found() -> None:
    page = PAGES["docs/metrics.md"]
    line = next(line for line in page.splitlines() if "`webhook_sidecar_in_flight`" in line)
    assert wrong_metrics(page.replace(line, "")) == {("webhook_sidecar_in_flight", "gauge", frozenset())}
    assert len(wrong_metrics(page.replace(line, line.replace("gauge", "counter")))) == 2
    assert len(wrong_metrics(page.replace(line, line.replace("| |", "| `route` |")))) == 2
    assert wrong_metrics(page.replace(line, f"{line}\n| `webhook_sidecar_x` | gauge | | x |"))
    assert unknown_metrics("rate(webhook_sidecar_delivery_total[5m])") == {"webhook_sidecar_delivery_total"}


# -- closed lists that have a page --


@cache
def events_and_names() -> tuple[set[str], set[str]]:
    """What the program logs (`log.event("...")`), and the names of its files and functions, from its source."""
    events, names = {"delivery", "handshake"}, set()
    for path in (ROOT / "sidecar").rglob("*.py"):
        names.add(path.stem)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(node.name)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "event":
                events |= {str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant)}
    return events, names


FIELDS = set(re.findall(r'"(\w+)":', (ROOT / "sidecar/telemetry/log.py").read_text(encoding="utf-8")))


def wrong_words(page: str, heading: str, words: Iterable[str], cells: int) -> set[str]:
    """Words without a row or with a cell that says nothing, and rows of other words."""
    told: list[str] = []
    empty = set()
    for row in rows(page, heading):
        told += named(row[0])
        if len(row) != cells or not all(row):
            empty |= set(named(row[0]))
    return (set(told) ^ set(words)) | empty | {word for word in told if told.count(word) > 1}


LISTS: dict[str, tuple[str, str, Callable[[], Iterable[str]], int]] = {
    "outcomes": ("docs/reasons.md", "## Outcomes", lambda: map(str, Outcome), 2),
    "reasons": ("docs/reasons.md", "## Reasons", lambda: map(str, Reason), 4),
    "fields of the log": ("docs/log.md", "## Fields of a delivery", lambda: FIELDS, 2),
    "events of the log": ("docs/log.md", "## Events", lambda: events_and_names()[0], 3),
    "hints": ("docs/troubleshooting.md", "## Hints", lambda: map(str, Hint), 3),
}


@pytest.mark.parametrize("which", LISTS)
def test_every_word_has_its_row_and_no_other_has(which: str) -> None:
    page, heading, words, cells = LISTS[which]
    assert wrong_words(PAGES[page], heading, words(), cells) == set()


@pytest.mark.parametrize("which", LISTS)
def test_a_wrong_page_of_words_is_found(which: str) -> None:
    name, heading, words_of, cells = LISTS[which]
    words = set(words_of())
    page, word = PAGES[name], min(words)
    line = next(line for line in page.splitlines() if line.startswith(f"| `{word}`"))
    assert wrong_words(page.replace(line, ""), heading, words, cells) == {word}
    assert wrong_words(page.replace(line, line.replace(word, "invented")), heading, words, cells) == {word, "invented"}
    assert wrong_words(page.replace(line, f"{line}\n{line}"), heading, words, cells) == {word}
    assert wrong_words(page.replace(line, f"| `{word}` |" + " |" * (cells - 1)), heading, words, cells) == {word}


def reasons_told(outcome: Outcome, page: str) -> list[str]:
    """The reasons that the row of an outcome names."""
    (row,) = (row for row in rows(page, "## Outcomes") if named(row[0]) == [outcome])
    return [word for word in code(row[1]) if word in set(Reason)]


def test_the_outcome_failed_names_its_reasons() -> None:
    told = reasons_told(Outcome.FAILED, PAGES["docs/reasons.md"])
    assert sorted(told) == sorted(str(reason) for outcome, reason in ENDS if outcome is Outcome.FAILED)


LABELS = {"reason": Reason, "shadow_reason": Reason, "hint": Hint, "outcome": Outcome, "result": HandshakeResult}


def unknown_label_values(text: str) -> set[str]:
    """In queries and log lines: `reason="..."`, `reason=~"a|b"`, `"hint":"..."`."""
    found = set()
    for label, words in LABELS.items():
        pattern = rf'\b{label}(?:"\s*:\s*|\s*!?=~?\s*)"([a-z_|]+)"'
        found |= {word for value in re.findall(pattern, text) for word in value.split("|") if word not in set(words)}
    return found


def test_no_page_asks_for_a_label_that_there_is_not() -> None:
    assert unknown_label_values(EVERYTHING) == set()


@pytest.mark.parametrize("text", ['{reason="x"}', '{hint=~"body_empty|x"}', '{outcome!="x"}', '"reason":"x"', "a", ""])
def test_a_label_that_there_is_not_is_found(text: str) -> None:
    assert unknown_label_values(text) == ({"x"} if "x" in text else set())


# -- words in the text --


def keys(schema: dict[str, Any]) -> dict[str, set[str]]:
    """Every key of the configuration, with the keys below it."""
    found: dict[str, set[str]] = {}
    for name, below in schema.get("properties", {}).items():
        inner = keys(below)
        found.setdefault(name, set()).update(inner)
        for key, under in inner.items():
            found.setdefault(key, set()).update(under)
    for below in [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())]:
        for key, under in keys(below).items():
            found.setdefault(key, set()).update(under)
    return found


KEYS = keys(json_schema())
MODULES = {path.stem for path in (ROOT / "sidecar").glob("*.py")}
#: prometheus-client's own.
PROCESS = re.compile(r"process_\w+")
WORDS = together(KEYS, Reason, Hint, Outcome, OnFailure, HandshakeResult, Result, FIELDS, SAMPLES)
#: Settings of gateways, of queues and of Docker Compose.
OTHERS_WORDS = {
    "allow_partial_message", "allowed_headers", "auth_request", "failure_mode_allow", "forward_auth",
    "header_attribute_regex", "headers_with_underscores_action", "max_age", "max_request_bytes", "network_mode",
    "retry_policy", "retry_strategy", "status_on_error", "sync_interval", "use_remote_address", "with_request_body",
}  # fmt: skip
#: `key:` in the text that are other programs' keys.
OTHERS_KEYS = {
    "acknowledgements",
    "app",
    "components",
    "max_payload",
    "network_mode",
    "retry_strategy",
    "rule_files",
    "sync_interval",
    "transformers",
    "with_request_body",
    "failure_mode_allow",
}
#: A place in Mailgun's JSON.
OTHERS_PATHS = {"signature.signature"}
CHART_KEYS = set(yaml.safe_load(read("helm/values.yaml")))


def unknown_words(text: str) -> set[str]:
    """Words in snake_case, keys (`allow:`) and paths of keys (`limits.body`) that nothing has."""
    events, names = events_and_names()
    found = set()
    for word in code(text):
        if re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", word):
            known = (
                word in WORDS | OTHERS_WORDS | events | names
                or word.startswith("webhook_sidecar_")
                or PROCESS.fullmatch(word)
            )
            found |= set() if known else {word}
        elif match := re.match(r"([a-z_]+):(?: |$)", word):
            found |= {match[1]} - KEYS.keys() - CHART_KEYS - OTHERS_KEYS
        elif re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", word):
            path = word.split(".")
            steps = pairwise(path)
            function = path[0] in MODULES and path[-1] in names | {"py"}
            other = function or path[0] in CHART_KEYS or path[-1] in ("http", "py") or word in OTHERS_PATHS
            if KEYS.get(path[0]) and not other and any(b not in KEYS.get(a, ()) for a, b in steps):
                found.add(word)
    return found


@pytest.mark.parametrize("name", [name for name in NAMES if name != "docs/providers.md"])
def test_no_page_names_a_word_that_there_is_not(name: str) -> None:
    assert unknown_words(PAGES[name]) == set()


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("`signature_wrong`", {"signature_wrong"}),
        ("`retry_by: 2026-12-31`", {"retry_by"}),
        ("`allowed:`", {"allowed"}),
        ("`limits.bodies`", {"limits.bodies"}),
        ("`limits.body`, `allow:`, `config_loaded`, `signature_mismatch` and `process_open_fds`", set()),
    ],
)
def test_a_word_that_there_is_not_is_found(text: str, unknown: set[str]) -> None:
    assert unknown_words(text) == unknown


CONFIGURATION = "".join(PAGES[f"docs/{name}"] for name in configuration_page.PAGES)


def missing_keys(page: str) -> set[str]:
    """Keys of the configuration without a row, and rows of others."""
    return {named(row[0])[0] for row in rows(page.partition("## The file")[2])} ^ KEYS.keys()


def test_every_key_of_the_configuration_has_its_row_and_no_other_has() -> None:
    assert missing_keys(CONFIGURATION) == set()


def test_a_key_without_a_row_is_found() -> None:
    page = CONFIGURATION
    assert missing_keys(page.replace("| `drain` |", "| `drains` |")) == {"drain", "drains"}


# -- the map of the packages --


def wrong_packages(docstring: str) -> set[str]:
    """Packages and modules of the program that the map leaves out or lists twice, and names that don't exist."""
    entries = re.findall(r"^    ((?:\w+/?(?:, )?)+) {2,}\S", docstring, re.MULTILINE)
    listed = [name.rstrip("/") for entry in entries for name in entry.split(", ")]
    present = {path.stem for path in (ROOT / "sidecar").iterdir() if path.suffix == ".py" or path.is_dir()}
    return (set(listed) ^ (present - {"__init__", "__main__", "__pycache__"})) | {
        name for name in listed if listed.count(name) > 1
    }


def test_the_map_lists_every_package_once() -> None:
    assert sidecar.__doc__ is not None
    assert wrong_packages(sidecar.__doc__) == set()


def test_a_wrong_map_is_found() -> None:
    assert sidecar.__doc__ is not None
    assert wrong_packages(sidecar.__doc__.replace("    routing/ ", "    router/ ")) == {"routing", "router"}
    assert wrong_packages(sidecar.__doc__.replace("    routing/ ", "    verify/  ")) == {"routing", "verify"}


def test_the_questions_of_the_design_page_name_files_that_exist() -> None:
    files = {name for row in rows(PAGES["docs/design.md"], "## Packages") for name in named(row[1]) if ".py" in name}
    assert len(files) > 8
    assert {name for name in files if not (ROOT / "sidecar" / name).exists()} == set()


# -- the admin listener --


def wrong_paths(readme: str) -> set[str]:
    """Paths of the admin listener that the table does not have, or has alone; the status page's own are not for others."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "sidecar/admin").glob("*.py"))
    paths = set(re.findall(r'Route\("([^"]+)"', source)) - {"/-/events", "/-/delivery-test"}
    return paths ^ {path.rsplit(" ")[-1] for row in rows(readme, "## The admin listener") for path in named(row[0])}


def test_the_readme_has_every_path_of_the_admin_listener_and_no_other() -> None:
    assert wrong_paths(PAGES["README.md"]) == set()


def test_a_wrong_path_is_found() -> None:
    assert wrong_paths(PAGES["README.md"].replace("| `/livez`,", "| `/health`,")) == {"/livez", "/health"}


# -- presets --


def unknown_presets(text: str) -> set[str]:
    """In code: of `--preset NAME`, `preset: NAME`, `preset:NAME` (networks) and `verify: NAME`."""
    text = "\n".join([*code(text), *(fence.text for fence in fences(text))])
    name = r"([a-z0-9][a-z0-9.-]*[a-z0-9])\b(?![/.]\w)"
    found = set(re.findall(rf"(?:--preset[ =]|\bpreset: |\bverify: ){name}", text)) - {*preset_names(), "none"}
    return found | set(re.findall(rf"\bpreset:{name}", text)) - set(range_names())


def missing_presets(page: str) -> set[str]:
    part = page.partition("\n## Presets\n")[2].partition("\n## ")[0]
    return set(preset_names()) ^ set(re.findall(r"\[([^\]]+)\]\(\.\./sidecar/presets/[^)]+\.yaml\)", part))


def test_every_preset_is_on_the_page_of_providers() -> None:
    assert missing_presets(PAGES["docs/providers.md"]) == set()


def test_every_list_of_networks_has_its_row() -> None:
    table = rows(PAGES["docs/addresses.md"], "## Networks that providers publish")
    assert {named(row[0])[0] for row in table} == set(range_names())


def test_no_page_names_a_preset_that_there_is_not() -> None:
    assert unknown_presets(EVERYTHING) == set()


def test_a_preset_that_there_is_not_is_found() -> None:
    page = PAGES["docs/providers.md"]
    assert missing_presets(page.replace("[stripe](", "[stripes](")) == {"stripe", "stripes"}
    text = "`--preset gitub`, `--preset ./own.yaml`, `{preset: slak}`, `preset:hub`\n```yaml\nverify: strip\nverify: none\n```\n"
    assert unknown_presets(text) == {"gitub", "strip", "slak", "hub"}
