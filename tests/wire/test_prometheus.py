"""A real Prometheus scrapes a real sidecar under traffic of every kind, and answers what dashboards and alert rules ask.

The routes here have everything that a metric needs: handshakes, shadow mode, replay, a list of networks, several secrets.
Prometheus scrapes twice a second, and the variables of the dashboards are set to seconds.
"""

import base64
import contextlib
import http.client
import itertools
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import promql
import pytest
import yaml
from craft import Craft
from cryptography.hazmat.primitives.asymmetric import ec
from key_server import KeyServer
from needs import needs
from ports import free_port
from receiver import Receiver
from sidecar_process import Sidecar
from waiting import WaitUntil

ROOT = Path(__file__).parents[2]
RULES = ROOT / "helm/rules/webhook-sidecar.yaml"
VARIABLES = {"$__rate_interval": "20s", "$__range": "20s", "$quiet": "2s", "$namespace": ".*", "$route": ".*"}
ENV = {"VERIFY_TOKEN": "CANARY-SECRET-verify-token-19d2"}
SERVER_ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"


def route(name: str, verify: str = "begini", env: str = "BEGINI_API_KEY", **more: Any) -> dict[str, Any]:
    return {"name": name, "path": f"/webhooks/{name}", "verify": verify, "secrets": [{"env": env}]} | more


def published(name: str) -> dict[str, Any]:
    """A route whose keys are published at ISSUER/NAME."""
    signature = {"kind": "jwt", "header": "Authorization", "prefix": "Bearer ", "algorithms": ["ES256"]}
    verify = {
        "signature": signature,
        "claims": {"iss": ISSUER},
        "binds_body": False,
        "keys": {"jwks": f"{ISSUER}/{name}"},
    }
    return {"name": name, "path": f"/webhooks/{name}", "verify": verify | {"expiry": "required"}}


def jwks() -> bytes:
    point = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    x, y = (base64.urlsafe_b64encode(number.to_bytes(32)).rstrip(b"=").decode() for number in (point.x, point.y))
    return json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "kid": "a", "x": x, "y": y}]}).encode()


#: A token whose key nobody knows: it causes a fetch.
UNKNOWN_KEY = b".".join(
    base64.urlsafe_b64encode(part).rstrip(b"=")
    for part in (b'{"alg":"ES256","kid":"new"}', b'{"iss":"https://keys.example","exp":9999999999}', b"x" * 64)
)
STORE = free_port()
ISSUER = "https://keys.example"
#: Serves one of two documents; fetching the other one fails.
KEY_SERVER = KeyServer(Path(tempfile.gettempdir()), tls=False)
KEY_SERVER.serve("/fetched", jwks())
CONFIG = {
    "replay_store": f"redis://127.0.0.1:{STORE}/0",
    # Nobody is there, so the package's list stays, and the failures are counted.
    "ip_ranges": {"refresh": "1h", "sources": {"github": f"https://127.0.0.1:{free_port()}/meta"}},
    "keys": {"mirrors": {f"{ISSUER}/": f"{KEY_SERVER.url}/"}},
    "routes": [
        published("fetched"),
        published("failing"),
        route(
            "begini",
            secrets=[
                {"id": "next", "env": "OTHER_API_KEY"},
                {"id": "current", "env": "BEGINI_API_KEY"},
                {"id": "previous", "env": "ACME_SECRET", "retire_by": "2020-12-31"},
            ],
            replay="10m",
        ),
        route("github", "github", "GITHUB_SECRET", allow=["preset:github"]),
        route("slack", "slack", "SLACK_SECRET"),
        route("shadow", mode="shadow"),
        route("meta", "meta", "GITHUB_SECRET", verify_token={"env": "VERIFY_TOKEN"}),
        route("down", upstream=f"http://127.0.0.1:{free_port()}"),
    ],
}


class Prometheus:
    """A server with a configuration that scrapes one target twice a second and evaluates the rules."""

    def __init__(self, directory: Path, target: str) -> None:
        program = needs("prometheus")
        self.address = f"127.0.0.1:{free_port()}"
        scrape = {
            "job_name": "hooks",
            "static_configs": [{"targets": [target], "labels": {"namespace": "shop", "pod": "hooks-1"}}],
        }
        every = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"}
        config = {"global": every, "rule_files": [str(RULES)], "scrape_configs": [scrape]}
        (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self.log = (directory / "log").open("wb")
        self.process = subprocess.Popen(
            [
                program,
                f"--config.file={directory / 'prometheus.yaml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={self.address}",
                "--log.level=warn",
            ],
            stdout=self.log,
            stderr=self.log,
        )

    def get(self, path: str, **arguments: Any) -> Any:
        connection = http.client.HTTPConnection(self.address, timeout=10)
        try:
            connection.request("GET", f"/api/v1/{path}?{urlencode(arguments, doseq=True)}")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert answer["status"] == "success", answer
        return answer["data"]

    def scraped(self) -> list[Any]:
        with contextlib.suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
            found: list[Any] = self.get("query", query="up == 1")["result"]
            return found
        return []

    def saw(self, secret: str, at: float) -> bool:
        """Whether this secret had matched within the time after which one counts as unused.

        Only where it was scraped at the beginning and at the end of that time: on a slow machine a scrape may be missed.
        """
        matched = f'webhook_sidecar_secret_matches_total{{route="begini", secret="{secret}"}}'
        quiet = VARIABLES["$quiet"]
        query = f"increase({matched}[{quiet}]) > 0 and {matched} and {matched} offset {quiet}"
        return bool(self.get("query", query=query, time=at)["result"])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


class Watched:
    """A Prometheus and the moment at which it knew everything."""

    def __init__(self, prometheus: Prometheus, at: float) -> None:
        self.prometheus = prometheus
        self.at = at
        self.known = promql.exported(prometheus.get("series", **{"match[]": '{job="hooks"}'}))

    def series(self, query: str) -> list[Any]:
        """What a query has as its result, values and all."""
        found: list[Any] = self.prometheus.get("query", query=query, time=self.at)["result"]
        return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    arguments = [
        "--bind",
        "127.0.0.1",
        "--port",
        str(STORE),
        "--dir",
        str(tmp_path_factory.mktemp("store")),
        "--save",
        "",
    ]
    server = subprocess.Popen([needs("redis-server"), *arguments], stdout=subprocess.DEVNULL)
    yield
    server.terminate()
    server.wait(10)


@pytest.fixture(scope="module")
def watched(
    store: None,
    process: Sidecar,
    receivers: dict[str, Receiver],
    craft: type[Craft],
    wait_until: WaitUntil,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Watched]:
    """After some seconds of traffic with the previous secret, and then with the current one until Prometheus knows it too."""
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), process.admin_address)
    try:
        wait_until(prometheus.scraped, "the first scrape", 30)
        wait_until(lambda: process.metric("replay_store_up") == 1, "the store")
        numbers = itertools.count()
        began = at = time.time()
        while at < began + 2 or not prometheus.saw("previous", at):
            everything_happens(process, receivers["plain"], craft, "ACME_SECRET", next(numbers))
            at = time.time()
        while at < began + 60 and (prometheus.saw("previous", at) or not prometheus.saw("current", at)):
            everything_happens(process, receivers["plain"], craft, "BEGINI_API_KEY", next(numbers))
            at = time.time()
        yield Watched(prometheus, at)
    finally:
        prometheus.stop()


def everything_happens(process: Sidecar, receiver: Receiver, craft: type[Craft], secret: str, number: int) -> None:
    body = b'{"mark":"%b","n":%d,"more":"%b"}' % (craft.body_mark, number, b"x" * 100 * number)
    token = ENV["VERIFY_TOKEN"].encode()
    again = craft.begini(body, secret=secret)
    for raw in (
        again,
        again,
        craft.begini(body).replace(b'"n":', b'"n": '),
        craft.request(body=body),
        craft.slack(body),
        craft.slack(body, age=4000),
        craft.slack(body, age=-4000),
        craft.github(body),
        craft.begini(body, path=b"/webhooks/down"),
        craft.begini(body, path=b"/webhooks/shadow", secret="SLACK_SECRET"),
        craft.request(b"/nowhere", body=body),
        craft.request(version=b"HTTP/9.9"),
        craft.request(b"/webhooks/fetched", [(b"Authorization", b"Bearer " + UNKNOWN_KEY)], body),
    ):
        process.ask(raw)
    receiver.then(SERVER_ERROR)
    process.ask(craft.begini(body + b" ", secret=secret))
    for verify_token in (token, b"another"):
        query = b"?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=" + verify_token
        with process.connect() as client:
            client.send(craft.request(b"/webhooks/meta" + query, method=b"GET")).answer("GET")
    time.sleep(0.1)  # a round makes ten signatures, which the end of the run searches for


def chosen(expression: str) -> str:
    """A dashboard's query with the values of its variables."""
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> Iterator[Any]:
    for file in sorted((ROOT / "helm/dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            yield pytest.param(panel, id=f"{file.stem}-{panel['title']}")


def conditions(expression: str) -> list[str]:
    """The parts of a rule, each without its threshold and without the look at another day: what must have a result here."""
    expression = re.sub(r" offset 1[dw]", "", expression)
    return re.sub(r"(==|<=|>=|<|>) (?=[-\d]|time)", r"\1 bool ", expression).split("unless ")


@pytest.mark.parametrize("panel", [*panels()])
def test_every_query_of_a_panel_names_what_is_exported_and_has_a_result(
    watched: Watched, panel: dict[str, Any]
) -> None:
    for target in panel["targets"]:
        query = chosen(target["expr"])
        assert promql.unknown(query, watched.known) == []
        found = watched.series(query)
        assert found, query
        assert any(float(each["value"][1]) == float(each["value"][1]) for each in found), f"nothing but NaN: {query}"
        for label in re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")):
            assert all(label in each["metric"] for each in found), (label, found)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_condition_of_a_rule_names_what_is_exported_and_has_a_result(
    watched: Watched, rule: dict[str, Any]
) -> None:
    assert promql.unknown(rule["expr"], watched.known) == []
    for condition in conditions(rule["expr"]):
        found = watched.series(condition)
        assert found, condition
        for text in rule["annotations"].values():
            for label in set(re.findall(r"\$labels\.(\w+)", text)):
                assert all(label in each["metric"] for each in found), (label, found)


def test_prometheus_evaluates_every_rule_without_a_complaint(watched: Watched, wait_until: WaitUntil) -> None:
    def evaluated() -> list[dict[str, Any]] | None:
        found = [rule for group in watched.prometheus.get("rules")["groups"] for rule in group["rules"]]
        return found if all(rule["health"] != "unknown" for rule in found) else None

    found = wait_until(evaluated)
    assert {rule["name"]: (rule["health"], rule.get("lastError", "")) for rule in found} == {
        rule["alert"]: ("ok", "") for rule in rules()
    }
    assert [rule["name"] for rule in found if rule["state"] == "firing"] == ["WebhookSidecarOldSecretInUse"]


def test_the_panel_says_which_secret_is_safe_to_remove(watched: Watched) -> None:
    rotation = json.loads((ROOT / "helm/dashboards/rotation.json").read_text())
    (panel,) = (panel for panel in rotation["panels"] if panel["title"] == "Safe to remove?")
    verdicts = {
        each["metric"]["secret"]: float(each["value"][1])
        for each in watched.series(chosen(panel["targets"][0]["expr"]))
        if each["metric"]["route"] == "begini"
    }
    assert verdicts == {"next": 2, "current": 0, "previous": 1}


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("rate(webhook_sidecar_deliverys_total[5m])", "there is no metric webhook_sidecar_deliverys_total"),
        ('sum(webhook_sidecar_deliveries{route="begini"})', "there is no metric webhook_sidecar_deliveries"),
        ("up_since / webhook_sidecar_in_flight", "there is no metric up_since"),
        (
            'webhook_sidecar_deliveries_total{raeson!="x"}',
            "webhook_sidecar_deliveries_total has no label raeson",
        ),
        (
            'webhook_sidecar_deliveries_total{reason=~"replayed|overlaoded"}',
            "webhook_sidecar_deliveries_total has no reason='overlaoded'",
        ),
        (
            "sum by (rout) (webhook_sidecar_deliveries_total)",
            "no metric here has the label rout",
        ),
        (
            "webhook_sidecar_in_flight * on (secret) webhook_sidecar_buffered_bytes",
            "no metric here has the label secret",
        ),
        ('webhook_sidecar_in_flight{pod="a', "there is no metric pod"),
    ],
)
def test_a_name_that_nothing_exports_is_found(watched: Watched, query: str, complaint: str) -> None:
    assert complaint in promql.unknown(query, watched.known)


def test_promtool_finds_nothing_to_say_about_the_metrics(process: Sidecar) -> None:
    status, text = process.admin("/metrics")
    assert status == 200
    done = subprocess.run(
        [needs("promtool"), "check", "metrics"], input=text, capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
