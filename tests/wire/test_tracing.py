"""Traces: `traceparent` on its way, spans at a real OTLP/HTTP receiver, and exemplars in the metrics.

The collector is a server of this test that decodes what it is sent by the protocol's own definitions.
"""

import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from craft import Craft
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from receiver import Receiver
from sidecar_process import Config, Sidecar, Start

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SENT = [
    (b"traceparent", f"00-{TRACE}-{PARENT}-00".encode()),
    (b"tracestate", b"congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"),
]
SERVER, CLIENT, INTERNAL = 2, 3, 1
CONFIG: Config = {"tracing": {}}
ENV = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_RESOURCE_ATTRIBUTES": "service.name=hooks,k8s.pod.name=one"}
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


class Collector:
    """Takes spans over HTTP. While `down` it answers 400, which nobody tries again."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.spans: list[Any] = []
        self.ids: set[bytes] = set()
        self.down = False
        self.changed = threading.Condition()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(400 if collector.down else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()
                if not collector.down:
                    collector.take(self.path, self.headers, body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, path: str, headers: Any, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self.changed:
            self.requests.append((path, headers, request))
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    # A response that took too long has its spans sent again.
                    self.spans += [span for span in scope.spans if span.span_id not in self.ids]
                    self.ids |= {span.span_id for span in scope.spans}
            self.changed.notify_all()

    def wait(self, count: int) -> dict[str, Any]:
        """So many spans, by name."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.spans) >= count, 10), self.spans
            spans, self.spans = self.spans, []
        assert len(spans) == count, [span.name for span in spans]
        return {span.name: span for span in spans}


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def has_protobuf(running: Sidecar) -> bool:
    """Whether the process has loaded the library of protobuf, which every exporter needs."""
    with open(f"/proc/{running.process.pid}/maps") as maps:
        return "/_upb/" in maps.read()


@pytest.fixture(scope="module", autouse=True)
def collector() -> Iterator[Collector]:
    made = Collector()
    CONFIG["tracing"]["endpoint"] = made.url  # before the module's process starts
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_without_tracing_both_fields_pass_untouched_and_nothing_of_opentelemetry_is_imported(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    running = start()
    assert running.ask(craft.begini(headers=SENT)).status == 200
    seen = receiver.requests[0]
    assert [field for field in seen.headers if field[0].startswith(b"trace")] == SENT
    assert not has_protobuf(running)
    code = (
        "import sys, sidecar.cli.main, sidecar.process.program, sidecar.process.worker, sidecar.telemetry.tracing; "
        "sys.exit(any(n.startswith(('opentelemetry', 'google', 'requests')) for n in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_delivery_has_spans_of_itself_its_verification_and_the_receivers_part(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], collector: Collector
) -> None:
    assert has_protobuf(sidecar)
    mark = sidecar.mark()
    assert sidecar.ask(craft.begini(headers=SENT)).status == 200
    spans = collector.wait(3)
    whole, verify, upstream = spans["POST /webhooks/begini"], spans["verify"], spans["upstream"]
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert whole.parent_span_id.hex() == PARENT
    assert verify.parent_span_id == upstream.parent_span_id == whole.span_id
    assert (whole.kind, verify.kind, upstream.kind) == (SERVER, INTERNAL, CLIENT)
    assert whole.start_time_unix_nano <= verify.start_time_unix_nano < verify.end_time_unix_nano
    assert verify.end_time_unix_nano <= upstream.start_time_unix_nano < upstream.end_time_unix_nano
    assert upstream.end_time_unix_nano <= whole.end_time_unix_nano
    told = attributes(whole)
    assert told["http.route"] == told["url.path"] == "/webhooks/begini"
    assert (told["http.response.status_code"], told["webhook.outcome"]) == (200, "accepted")
    assert told["client.address"] == "127.0.0.1"
    assert "webhook.reason" not in told
    assert attributes(verify) == {"webhook.secret": "current"}
    assert attributes(upstream)["http.response.status_code"] == 200
    # The receiver's own span becomes a child of ours.
    seen = receiver.requests[0]
    assert seen.values(b"traceparent") == [f"00-{TRACE}-{upstream.span_id.hex()}-01".encode()]
    assert seen.values(b"tracestate") == [SENT[1][1]]
    assert sidecar.delivery(mark)["trace_id"] == TRACE
    path, headers, request = collector.requests[-1]
    assert (path, headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
    resource = attributes(request.resource_spans[0].resource)
    assert (resource["service.name"], resource["k8s.pod.name"]) == ("hooks", "one")


@pytest.mark.parametrize(
    "sent",
    [
        [],
        [(b"traceparent", b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01")],
        [(b"traceparent", b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")],
        [(b"traceparent", b"nonsense"), (b"tracestate", b"a=b")],
        [SENT[0], SENT[0]],
    ],
)
def test_where_the_sender_has_no_trace_one_begins_here(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], collector: Collector, sent: Any
) -> None:
    assert sidecar.ask(craft.begini(headers=sent)).status == 200
    spans = collector.wait(3)
    whole = spans["POST /webhooks/begini"]
    assert whole.parent_span_id == b""
    assert whole.trace_id.hex() != TRACE
    seen = receiver.requests[0]
    made = f"00-{whole.trace_id.hex()}-{spans['upstream'].span_id.hex()}-01".encode()
    assert seen.values(b"traceparent") == [made]
    assert seen.values(b"tracestate") == []


def test_a_refused_delivery_has_no_upstream_span_and_says_why(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], collector: Collector
) -> None:
    assert sidecar.ask(craft.begini(secret="OTHER_API_KEY")).status == 403
    spans = collector.wait(2)
    told = attributes(spans["POST /webhooks/begini"])
    assert (told["webhook.outcome"], told["webhook.reason"]) == ("rejected", "signature_mismatch")
    assert told["http.response.status_code"] == 403
    assert attributes(spans["verify"]) == {}
    assert sidecar.ask(craft.request(b"/nowhere", method=b"PROPFIND")).status == 404
    spans = collector.wait(1)
    assert attributes(spans["HTTP"])["http.request.method"] == "_OTHER"


def test_what_fails_at_the_receiver_is_an_error(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], collector: Collector
) -> None:
    receiver.then(BUSY)
    assert sidecar.ask(craft.begini()).status == 503
    spans = collector.wait(3)
    assert (spans["upstream"].status.code, spans["POST /webhooks/begini"].status.code) == (2, 2)
    assert sidecar.ask(craft.begini(path=b"/webhooks/down")).status == 502
    spans = collector.wait(3)
    assert attributes(spans["upstream"])["error.type"] == "upstream_unreachable"
    assert spans["POST /webhooks/down"].status.code == 2


def test_spans_hold_no_secret_no_signature_no_body_and_no_query(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], collector: Collector
) -> None:
    assert sidecar.ask(craft.begini(path=b"/webhooks/begini?token=CANARY-SECRET-query")).status == 200
    collector.wait(3)
    text = "".join(str(request) for _, _, request in collector.requests)
    for secret in ("CANARY", *(made.decode()[:20] for made in craft.sent_signatures)):
        assert secret not in text


def test_of_openmetrics_the_three_times_have_exemplars_and_of_the_old_format_none(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], collector: Collector
) -> None:
    other = "5" * 32  # of no other test
    assert sidecar.ask(craft.begini(headers=[(b"traceparent", f"00-{other}-{PARENT}-01".encode())])).status == 200
    whole = collector.wait(3)["POST /webhooks/begini"]
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    _, text = sidecar.admin("/metrics", headers=accept)
    found = re.findall(
        r'^webhook_sidecar_(\w+)_bucket{le="(\S+)",route="begini"} \S+ # {span_id="(\w+)",trace_id="(\w+)"} (\S+) (\S+)$',
        text.decode(),
        re.MULTILINE,
    )
    assert {name for name, *_ in found} == {
        "delivery_duration_seconds",
        "verify_duration_seconds",
        "upstream_duration_seconds",
    }
    for _, bound, _, _, value, _ in found:
        assert float(value) <= float(bound)
    ours = [each for each in found if each[3] == other]
    assert len(ours) == 3
    assert {each[2] for each in ours} == {whole.span_id.hex()}
    assert b"# {" not in sidecar.admin("/metrics")[1]


def test_a_share_is_traced_and_the_rest_is_left_as_it_came(
    start: Start, receiver: Receiver, craft: type[Craft], collector: Collector
) -> None:
    running = start({"tracing": {"endpoint": f"{collector.url}/v1/traces", "sample": 0.5}}, env=ENV)
    low = (b"traceparent", f"00-{'1' * 32}-{PARENT}-00".encode())
    high = (b"traceparent", f"00-{'e' * 32}-{PARENT}-01".encode())
    assert running.ask(craft.begini(headers=[high])).status == 200
    assert running.ask(craft.begini(headers=[low])).status == 200
    assert {span.trace_id.hex() for span in collector.wait(3).values()} == {"1" * 32}
    assert receiver.requests[0].values(b"traceparent") == [high[1]]
    assert receiver.requests[1].values(b"traceparent") != [low[1]]


def test_a_failing_collector_is_reported_once_and_costs_no_delivery(
    start: Start, receiver: Receiver, craft: type[Craft], collector: Collector
) -> None:
    running = start({"tracing": {"endpoint": collector.url}}, env=ENV)
    collector.down = True
    mark = running.mark()
    assert running.ask(craft.begini()).status == 200
    running.line(mark, event="traces_lost")
    assert running.ask(craft.begini()).status == 200
    collector.down = False
    running.ask(craft.begini())
    running.line(mark, event="traces_sent_again")
    assert sum(line.get("event") == "traces_lost" for line in running.lines) == 1
    with collector.changed:
        collector.changed.wait_for(lambda: collector.spans, 10)
        collector.spans = []


def test_the_last_spans_leave_before_the_end_and_a_collector_that_hangs_does_not_delay_it(
    start: Start, receiver: Receiver, craft: type[Craft], collector: Collector
) -> None:
    late = ENV | {"OTEL_BSP_SCHEDULE_DELAY": "60000"}
    running = start({"tracing": {"endpoint": collector.url}}, env=late)
    assert running.ask(craft.begini()).status == 200
    running.stop()
    collector.wait(3)
    receiver.then(lambda peer: peer.gone())  # it never answers
    running = start({"tracing": {"endpoint": receiver.url}, "routes": [{"path": "/open", "open": True}]}, env=late)
    assert running.ask(craft.request(b"/nowhere")).status == 404
    running.stop()  # within the harness's patience


def test_workers_have_traces_and_exemplars_too(
    start: Start, receiver: Receiver, craft: type[Craft], collector: Collector
) -> None:
    running = start({"tracing": {"endpoint": collector.url}, "workers": 2}, env=ENV)
    for _ in range(6):
        assert running.ask(craft.begini(headers=SENT)).status == 200
    with collector.changed:
        assert collector.changed.wait_for(lambda: len(collector.spans) >= 18, 10)
        collector.spans = []
    _, text = running.admin("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert text.count(TRACE.encode()) >= 3


def test_tracing_changes_only_by_a_restart(
    start: Start, receiver: Receiver, craft: type[Craft], collector: Collector
) -> None:
    running = start()
    running.write(running.config | {"tracing": {"endpoint": collector.url}})
    status, text = running.admin("/-/reload", method="POST")
    assert status == 400
    assert f"tracing: can't change from off to {collector.url} (sample: 1) while running; restart" in text.decode()
