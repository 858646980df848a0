"""Which requests are traced, what headers say of it, and that export never gets into anybody's way."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest

from forebay.errors import BadSettings
from forebay.metrics import Metrics
from forebay.telemetry import JsonLines
from forebay.traces import spans
from forebay.traces.context import Place, is_sampled, place_in, read_traceparent, read_tracestate, unpacked
from forebay.traces.opening import open_tracing, read_wanted
from forebay.traces.spans import ALL, Kind, Sampling, Span, Traces, current

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
NOT_SAMPLED = f"00-{TRACE}-{SPAN}-00"
OWN = bytes.fromhex("0198c0ffee007abc8a00000000000001")
PLACE = Place(b"t" * 16, b"s" * 8)


def span(name: str = "a span") -> Span:
    return Span(name, Kind.INTERNAL, PLACE, b"", 1.0, 2.0)


def traces(bound: int = ALL, *, heeds_parent: bool = True, most: int = 100) -> Traces:
    return Traces(Sampling(bound, heeds_parent), most, lambda: None, most)


# --- headers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        PARENT[:-1],
        PARENT + "0",
        PARENT + "-what",
        PARENT.upper(),
        f"ff{PARENT[2:]}",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00_{TRACE}-{SPAN}-01",
        f"cc{PARENT[2:]}.what",
        f"{PARENT}\n",
    ],
)
def test_a_malformed_traceparent_is_no_context(text: str) -> None:
    assert read_traceparent(text) is None


def test_a_later_version_of_traceparent_is_read_as_ours_and_told_as_ours() -> None:
    assert read_traceparent(f"cc{PARENT[2:]}-what-the-future-brings") == PARENT
    assert read_traceparent(f"cc{PARENT[2:]}") == PARENT


def test_what_is_asked_from_a_place_names_that_place() -> None:
    place = place_in(PARENT, "a=b")
    assert place.traceparent == PARENT
    assert is_sampled(PARENT)
    assert not is_sampled(NOT_SAMPLED)
    assert is_sampled(f"00-{TRACE}-{SPAN}-03")
    assert unpacked(place.packed) == place._replace(state="")
    assert unpacked(b"") is unpacked(place.packed + b"x") is None


@pytest.mark.parametrize(
    ("text", "is_well_formed"),
    [
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", True),
        ("rojo=1 , tenant@vendor=with space", True),
        ("rojo=1,,congo=2", True),
        ("rojo=1,rojo=2", False),
        ("Rojo=1", False),
        ("rojo=a=b", False),
        ("rojo", False),
        ("rojo=\u00e4", False),
        ("rojo=" + "x" * 257, False),
        (",".join(f"k{n}=1" for n in range(33)), False),
        (",".join(f"key{n}={'x' * 40}" for n in range(12)), False),
    ],
)
def test_a_tracestate_passes_whole_or_not_at_all(text: str, is_well_formed: bool) -> None:
    assert read_tracestate(text) == (text if is_well_formed else "")


# --- which are traced -------------------------------------------------------------------------------------------------


def test_what_a_client_has_decided_is_followed() -> None:
    begun = traces(bound=0).begin(OWN, PARENT, "a=b")
    assert begun is not None
    assert (begun.place.trace.hex(), begun.parent.hex(), begun.place.state) == (TRACE, SPAN, "a=b")
    assert begun.place.span.hex() != SPAN
    assert traces(bound=ALL).begin(OWN, NOT_SAMPLED) is None


def test_without_heed_of_its_parent_a_trace_is_kept_by_its_id_alone() -> None:
    assert traces(bound=0, heeds_parent=False).begin(OWN, PARENT) is None
    begun = traces(bound=ALL, heeds_parent=False).begin(OWN, NOT_SAMPLED)
    assert begun is not None
    assert begun.parent.hex() == SPAN


def test_a_request_without_a_context_is_the_trace_of_its_ledger_id_and_kept_by_its_random_end() -> None:
    assert traces(bound=1).begin(OWN) is None
    begun = traces(bound=2).begin(OWN)
    assert begun is not None
    assert (begun.place.trace, begun.parent) == (OWN, b"")


def test_a_ratio_keeps_that_part_of_the_traces() -> None:
    kept = Sampling(ALL // 4, heeds_parent=True)
    ids = [bytes(9) + (n * ALL // 1000).to_bytes(7) for n in range(1000)]
    assert sum(kept.keeps(each, None) for each in ids) == 250


@pytest.mark.parametrize(
    ("given", "bound", "heeds_parent"),
    [
        ({}, ALL, True),
        ({"OTEL_TRACES_SAMPLER_ARG": "0.5"}, ALL // 2, True),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}, ALL // 4, False),
        ({"OTEL_TRACES_SAMPLER": "always_on", "OTEL_TRACES_SAMPLER_ARG": "0.25"}, ALL, False),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, 0, True),
    ],
)
def test_the_standards_samplers_are_known(given: dict[str, str], bound: int, heeds_parent: bool) -> None:
    wanted = read_wanted({**ENDPOINT, **given})
    assert wanted is not None
    assert wanted.sampling == Sampling(bound, heeds_parent)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"},
        {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"},
        {**ENDPOINT, "OTEL_TRACES_SAMPLER": "always_off"},
        {**ENDPOINT, "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
    ],
)
def test_nothing_is_traced_where_the_environment_does_not_ask_for_it(given: dict[str, str]) -> None:
    assert read_wanted(given) is None
    with open_tracing("gateway", given) as opened:
        assert opened is None
        assert spans.opened() is None


def test_all_that_is_wrong_in_the_environment_is_told_at_once() -> None:
    wrong = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_TRACES_EXPORTER": "zipkin",
        "OTEL_TRACES_SAMPLER": "jaeger_remote",
        "OTEL_TRACES_SAMPLER_ARG": "nan",
        "OTEL_BSP_MAX_QUEUE_SIZE": "-1",
    }
    with pytest.raises(BadSettings) as raised:
        read_wanted({**ENDPOINT, **wrong})
    told = "\n".join(raised.value.problems)
    for name in wrong.keys() - {"OTEL_TRACES_SAMPLER_ARG"}:
        assert name in told
    with pytest.raises(BadSettings, match="OTEL_TRACES_SAMPLER_ARG"):
        read_wanted({**ENDPOINT, "OTEL_TRACES_SAMPLER_ARG": "nan"})


# --- exporting --------------------------------------------------------------------------------------------------------


def test_what_is_told_is_exported_when_the_process_drains_at_the_latest() -> None:
    got: list[Span] = []

    def export(batch: Sequence[Span]) -> str:
        got.extend(batch)
        return ""

    metrics = Metrics()
    with open_tracing("gateway", ENDPOINT, metrics, export=export) as opened:
        assert opened is not None
        assert spans.opened() is opened
        opened.tell(span("one"), span("another"))
    assert [each.name for each in got] == ["one", "another"]
    assert spans.opened() is None
    assert b"forebay_spans_exported_total 2.0" in metrics.exposition()
    assert b"forebay_spans_dropped_total 0.0" in metrics.exposition()


def test_spans_that_find_no_room_are_dropped_and_counted() -> None:
    held, is_held = threading.Event(), threading.Event()

    def export(batch: Sequence[Span]) -> str:
        is_held.set()
        held.wait(60)
        return ""

    metrics = Metrics()
    small = {**ENDPOINT, "OTEL_BSP_MAX_QUEUE_SIZE": "2", "OTEL_BSP_SCHEDULE_DELAY": "1"}
    with open_tracing("gateway", small, metrics, export=export) as opened:
        assert opened is not None
        opened.tell(span())
        assert is_held.wait(60)
        for _ in range(5):
            opened.tell(span())  # two find room, and nobody waits
        held.set()
    assert b"forebay_spans_dropped_total 3.0" in metrics.exposition()
    assert b"forebay_spans_exported_total 3.0" in metrics.exposition()


def test_what_nobody_takes_is_counted_and_said_once_until_somebody_does(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    answers = iter(["refused", "refused", "", ""])
    metrics = Metrics()
    one_by_one = {**ENDPOINT, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"}
    with open_tracing("gateway", one_by_one, metrics, export=lambda batch: next(answers)) as opened:
        assert opened is not None
        opened.tell(*[span()] * 4)
    assert b"forebay_spans_dropped_total 2.0" in metrics.exposition()
    assert b"forebay_spans_exported_total 2.0" in metrics.exposition()
    assert [record.message for record in caplog.records] == [
        "traces are exported",
        "traces cannot be exported, spans are dropped",
        "traces are exported again",
    ]


def test_an_exporter_that_raises_does_not_end_exporting() -> None:
    got: list[Span] = []

    def export(batch: Sequence[Span]) -> str:
        if not got:
            got.extend(batch)
            raise RuntimeError("once")
        got.extend(batch)
        return ""

    metrics = Metrics()
    one_by_one = {**ENDPOINT, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"}
    with open_tracing("gateway", one_by_one, metrics, export=export) as opened:
        assert opened is not None
        opened.tell(span("lost"), span("kept"))
    assert [each.name for each in got] == ["lost", "kept"]
    assert b"forebay_spans_dropped_total 1.0" in metrics.exposition()


def test_draining_waits_for_a_collector_that_does_not_answer_no_longer_than_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("forebay.traces.opening.LAST_S", 0.05)
    held = threading.Event()

    def export(batch: Sequence[Span]) -> str:
        held.wait(60)
        return ""

    metrics = Metrics()
    with open_tracing("gateway", ENDPOINT, metrics, export=export) as opened:
        assert opened is not None
        opened.tell(span(), span())
    assert b"forebay_spans_dropped_total 2.0" in metrics.exposition()
    held.set()


def test_lines_of_the_log_name_the_span_in_which_they_were_written_and_no_other() -> None:
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    handler.setFormatter(JsonLines("gateway"))
    log = logging.getLogger("of this test")
    log.addHandler(handler)
    log.setLevel("INFO")
    with open_tracing("gateway", ENDPOINT, export=lambda batch: ""):
        log.info("before")
        token = current.set(PLACE)
        log.info("inside", extra={"action": "test"})
        current.reset(token)
    token = current.set(PLACE)
    log.info("when nothing is traced")
    current.reset(token)
    log.removeHandler(handler)
    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    named = {line["event"]: (line.get("trace_id"), line.get("span_id")) for line in lines}
    assert named == {
        "before": (None, None),
        "inside": (PLACE.trace.hex(), PLACE.span.hex()),
        "when nothing is traced": (None, None),
    }


def test_opentelemetry_is_not_imported_by_any_service_where_no_endpoint_is_set() -> None:
    story = (
        "import sys, forebay_gateway.service, forebay_gateway.worker\n"
        "from forebay.launch import load_services\n"
        "assert len(load_services(['all'])) == 5\n"
        "from forebay.traces.opening import open_tracing\n"
        "with open_tracing('gateway') as opened:\n"
        "    assert opened is None\n"
        "found = [name for name in sys.modules if name.partition('.')[0] == 'opentelemetry']\n"
        "sys.exit(f'imported: {found}' if found else 0)\n"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run([sys.executable, "-c", story], env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
