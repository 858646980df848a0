"""What a collector is sent, and what becomes of it when the collector is away, busy or of another opinion."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

from forebay.errors import BadSettings
from forebay.metrics import Metrics
from forebay.traces.context import Place
from forebay.traces.opening import open_tracing, read_wanted
from forebay.traces.otlp import Collector, Sender, make_writer, read_collector
from forebay.traces.spans import Event, Kind, Span

PLACE = Place(b"t" * 16, b"the span", "a=b")
SPAN = Span(
    "chat m",
    Kind.SERVER,
    PLACE,
    b"above it",
    100.5,
    101.25,
    {"text": "caf\u00e9", "whole": 3, "part": 0.5, "yes": True, "several": ["stop", "length"], "broken": "\udcff"},
    "engine_failed",
    (Event("first_byte", 100.75),),
    has_remote_parent=True,
)


@dataclass
class Heard:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Double:
    """A collector. It answers with these statuses, one after the other, and with the last from then on."""

    statuses: list[int]
    url: str = ""
    heard: list[Heard] = field(default_factory=list)


@contextmanager
def collector(*statuses: int) -> Iterator[Double]:
    double = Double(list(statuses))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            double.heard.append(Heard(self.path, {name.lower(): v for name, v in self.headers.items()}, body))
            self.send_response(double.statuses.pop(0) if len(double.statuses) > 1 else double.statuses[0])
            self.send_header("retry-after", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    double.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.traces.otlp._FIRST_RETRY_S", 0.01)


def send(url: str, message: bytes = b"spans", is_ending: bool = False, **more: object) -> str:
    ending = threading.Event()
    if is_ending:
        ending.set()
    return Sender(replace(Collector(url), **more), ending).send(message)  # type: ignore[arg-type]


def test_a_span_is_written_with_all_that_it_says() -> None:
    message = make_writer({"service.name": "forebay-gateway"})([SPAN, Span("inside", Kind.INTERNAL, PLACE, b"", 1, 2)])
    (resource,) = ExportTraceServiceRequest.FromString(message).resource_spans
    assert [(a.key, a.value.string_value) for a in resource.resource.attributes] == [
        ("service.name", "forebay-gateway")
    ]
    first, second = resource.scope_spans[0].spans
    assert (first.trace_id, first.span_id, first.parent_span_id) == (PLACE.trace, PLACE.span, b"above it")
    assert (first.name, first.kind, first.trace_state) == ("chat m", trace_pb2.Span.SPAN_KIND_SERVER, "a=b")
    assert (first.start_time_unix_nano, first.end_time_unix_nano) == (100_500_000_000, 101_250_000_000)
    assert first.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    assert first.flags == 0x301
    values = {each.key: each.value for each in first.attributes}
    assert values["text"].string_value == "caf\u00e9"
    assert values["whole"].int_value == 3
    assert values["part"].double_value == 0.5
    assert values["yes"].bool_value
    assert [each.string_value for each in values["several"].array_value.values] == ["stop", "length"]
    assert values["broken"].string_value == "?"
    assert values["error.type"].string_value == "engine_failed"
    assert [(event.name, event.time_unix_nano) for event in first.events] == [("first_byte", 100_750_000_000)]
    assert (second.parent_span_id, second.kind) == (b"", trace_pb2.Span.SPAN_KIND_INTERNAL)
    assert (second.status.code, second.flags) == (trace_pb2.Status.STATUS_CODE_UNSET, 0x101)


def test_a_collector_gets_it_with_the_headers_it_asks_for() -> None:
    with collector(200) as double:
        assert send(f"{double.url}/v1/traces?x=1", headers={"api-key": "s3cret"}, compresses=True) == ""
    (heard,) = double.heard
    assert heard.path == "/v1/traces?x=1"
    assert heard.headers["content-type"] == "application/x-protobuf"
    assert heard.headers["api-key"] == "s3cret"
    assert gzip.decompress(heard.body) == b"spans"
    assert "s3cret" not in repr(Collector(double.url, {"api-key": "s3cret"}))


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_collector_that_is_busy_is_asked_again(status: int) -> None:
    with collector(status, status, 200) as double:
        assert send(double.url) == ""
    assert len(double.heard) == 3


def test_a_collector_that_refuses_is_not_asked_again() -> None:
    with collector(400) as double:
        assert send(double.url) == "the collector answered 400"
    assert len(double.heard) == 1


def test_no_batch_is_tried_for_longer_than_it_may_or_once_the_process_ends() -> None:
    with collector(503) as double:
        assert send(double.url, timeout_s=0.2) == "the collector answered 503"
        assert len(double.heard) > 1
        double.heard.clear()
        assert send(double.url, is_ending=True) == "the collector answered 503"
        assert len(double.heard) == 1


def test_a_collector_that_is_away_is_told_in_words() -> None:
    assert send("http://127.0.0.1:9", timeout_s=0.05).startswith("ConnectionRefusedError")


def test_the_environment_says_where_to_and_traces_own_variables_go_first() -> None:
    both = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4318/base/",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%20b, Tenant = t ",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
    }
    problems: list[str] = []
    assert read_collector(both, problems) == Collector(
        "https://collector:4318/base/v1/traces", {"api-key": "a b", "tenant": "t"}, 2.5, True
    )
    own = {**both, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://other/own/path"}
    told = read_collector(own, problems)
    assert told is not None
    assert told.url == "http://other/own/path"
    assert problems == []
    assert read_collector({}, problems) is None


def test_what_is_wrong_with_the_environment_is_told_with_the_variables_name(tmp_path: Path) -> None:
    wrong = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%0d%0ax: y",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "10s",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "zstd",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "missing.pem"),
    }
    with pytest.raises(BadSettings) as raised:
        read_wanted(wrong)
    for name in wrong:
        assert any(problem.startswith(f"{name}:") for problem in raised.value.problems), name


def test_a_process_tells_its_collector_who_it_is() -> None:
    with collector(200) as double:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": double.url,
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        }
        metrics = Metrics()
        with pytest.MonkeyPatch.context() as patched:
            for name, value in environ.items():
                patched.setenv(name, value)
            with open_tracing("gateway", environ, metrics) as opened:
                assert opened is not None
                opened.tell(SPAN)
    (heard,) = double.heard
    (resource,) = ExportTraceServiceRequest.FromString(heard.body).resource_spans
    told = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert told["service.name"] == "forebay-gateway"
    assert told["deployment.environment.name"] == "test"
    assert told["service.instance.id"]
    assert b"forebay_spans_exported_total 1.0" in metrics.exposition()
