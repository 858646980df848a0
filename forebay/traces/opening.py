"""Export of traces by OpenTelemetry, as the standard's environment variables say; and their ids in the lines of the log.

OpenTelemetry is imported when an endpoint is set, and not before. Spans are sent by a thread of their own, in batches; while
nobody takes them they wait, so many at most, and what finds no room is dropped and counted. No request waits for it."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, NamedTuple

from forebay.errors import BadSettings, CannotStart
from forebay.metrics import Metrics
from forebay.traces import spans
from forebay.traces.otlp import Collector, Sender, make_writer, read_collector
from forebay.traces.spans import ALL, Sampling, Span, Traces

log = logging.getLogger(__name__)

LAST_S = 3.0
"""How long what is left may take to be exported when the process drains."""
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SAMPLERS = ("always_on", "always_off", "traceidratio")

Export = Callable[[Sequence[Span]], str]
"""Sends them, which may take a while. Gives why they could not be sent; empty: they were."""


class Wanted(NamedTuple):
    collector: Collector
    sampling: Sampling
    most_waiting: int
    """Spans."""
    most_together: int
    delay_s: float
    """How long a span waits at most for others to go with it."""


def read_wanted(environ: Mapping[str, str]) -> Wanted | None:
    """None: nothing is to be traced. Raises BadSettings."""
    given = {name: value.strip() for name, value in environ.items() if name.startswith("OTEL_") and value.strip()}
    exporter = given.get("OTEL_TRACES_EXPORTER", "otlp").lower()
    problems: list[str] = []
    collector = read_collector(given, problems)
    if collector is None or exporter == "none" or given.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if exporter != "otlp":
        problems.append(f"OTEL_TRACES_EXPORTER: {exporter!r} is neither otlp nor none")
    name = next((name for name in _PROTOCOLS if name in given), "")
    if name and given[name] != "http/protobuf":
        problems.append(f"{name}: traces are sent by http/protobuf (port 4318 of most collectors), not {given[name]!r}")
    sampling = _sampling(given, problems)
    most_waiting = _whole(given, "OTEL_BSP_MAX_QUEUE_SIZE", 2048, problems)
    most_together = _whole(given, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, problems)
    delay_ms = _whole(given, "OTEL_BSP_SCHEDULE_DELAY", 5000, problems)
    if problems:
        raise BadSettings(problems)
    if sampling.bound == 0 and not sampling.heeds_parent:
        return None
    return Wanted(collector, sampling, most_waiting, min(most_together, most_waiting), delay_ms / 1000)


def _sampling(given: Mapping[str, str], problems: list[str]) -> Sampling:
    name = given.get("OTEL_TRACES_SAMPLER", "parentbased_traceidratio").lower()
    kind = name.removeprefix("parentbased_")
    if kind not in _SAMPLERS:
        known = ", ".join((*_SAMPLERS, *(f"parentbased_{sampler}" for sampler in _SAMPLERS)))
        problems.append(f"OTEL_TRACES_SAMPLER: {name!r} is none of {known}")
    ratio = {"always_on": 1.0, "always_off": 0.0}.get(kind)
    if ratio is None:
        told = given.get("OTEL_TRACES_SAMPLER_ARG", "1.0")
        try:
            ratio = float(told)
        except ValueError:
            ratio = -1.0
        if not 0 <= ratio <= 1:
            problems.append(f"OTEL_TRACES_SAMPLER_ARG: {told!r} is not a number from 0 to 1")
            ratio = 0.0
    return Sampling(round(ratio * ALL), heeds_parent=name != kind)


def _whole(given: Mapping[str, str], name: str, default: int, problems: list[str]) -> int:
    told = given.get(name, str(default))
    if not told.isascii() or not told.isdecimal() or not 1 <= int(told) <= 1_000_000:
        problems.append(f"{name}: {told!r} is not a whole number from 1 to 1000000")
        return default
    return int(told)


@contextmanager
def open_tracing(
    service: str,
    environ: Mapping[str, str] = os.environ,
    metrics: Metrics | None = None,
    *,
    export: Export | None = None,
) -> Iterator[Traces | None]:
    """This process is traced as `service`, if the environment says where to; `metrics` tell what became of its spans. Left,
    what waits is exported, as far as LAST_S allows. `export`: instead of by OTLP. Raises BadSettings, CannotStart."""
    wanted = read_wanted(environ)
    if wanted is None:
        yield None
        return
    is_ending = threading.Event()
    exporting = _Exporting(wanted, export or _open_otlp(service, environ, wanted.collector, is_ending), is_ending)
    if metrics is not None:
        exporting.add_to(metrics)
    made_before = logging.getLogRecordFactory()
    naming = _naming_the_span(made_before)
    logging.setLogRecordFactory(naming)
    spans.set_opened(exporting.traces)
    exporting.start()
    log.info("traces are exported", extra={"action": "traces"})
    try:
        yield exporting.traces
    finally:
        spans.set_opened(None)
        if logging.getLogRecordFactory() is naming:
            logging.setLogRecordFactory(made_before)
        exporting.stop(LAST_S)


def _naming_the_span(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def make_record(*args: Any, **fields: Any) -> logging.LogRecord:
        record = make(*args, **fields)
        place = spans.current.get()
        if place is not None:
            record.trace_id, record.span_id = place.trace.hex(), place.span.hex()
        return record

    return make_record


class _Exporting:
    """The thread that exports, and what it counts."""

    def __init__(self, wanted: Wanted, export: Export, is_ending: threading.Event) -> None:
        self._wanted = wanted
        self._is_ending = is_ending
        self._export = export
        self._wake = threading.Event()
        self._exported = 0
        self._lost = 0
        """Spans that were taken to be sent, and could not be, or not in time."""
        self._sending = 0
        self._is_failing = False
        self.traces = Traces(wanted.sampling, wanted.most_waiting, self._wake.set, wanted.most_together)
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)

    def add_to(self, metrics: Metrics) -> None:
        metrics.counter_reading(
            "forebay_spans_exported", "Spans of traced requests that were exported.", (), lambda: [((), self._exported)]
        )
        metrics.counter_reading(
            "forebay_spans_dropped",
            "Spans of traced requests that were dropped: nobody took them, or they came too fast.",
            (),
            lambda: [((), self.traces.overflowed + self._lost)],
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self, within_s: float) -> None:
        self._is_ending.set()
        self._wake.set()
        self._thread.join(within_s)
        if self._thread.is_alive():
            left = self._sending + len(self.traces.take(self._wanted.most_waiting))
            self._lost += left
            log.warning("spans are dropped: nobody took them in time", extra={"action": "traces_left", "spans": left})

    def _run(self) -> None:
        while not self._is_ending.is_set():
            self._wake.wait(self._wanted.delay_s)
            self._wake.clear()
            while batch := self.traces.take(self._wanted.most_together):
                self._send(batch)

    def _send(self, batch: Sequence[Span]) -> None:
        self._sending = len(batch)
        try:
            why = self._export(batch)
        except Exception as error:  # whatever it is, it must not end the only thread that empties the queue
            why = repr(error)
        self._sending = 0
        if not why:
            self._exported += len(batch)
            if self._is_failing:
                log.info("traces are exported again", extra={"action": "traces"})
            self._is_failing = False
            return
        self._lost += len(batch)
        if not self._is_failing:
            log.warning("traces cannot be exported, spans are dropped", extra={"action": "traces_lost", "why": why})
        self._is_failing = True


# --- OpenTelemetry ----------------------------------------------------------------------------------------------------


def _open_otlp(service: str, environ: Mapping[str, str], collector: Collector, is_ending: threading.Event) -> Export:
    """Raises CannotStart."""
    try:
        from opentelemetry.sdk.resources import Resource

        named = _own_resource(service, environ)
        write = make_writer(Resource.create(named).attributes)
    except ModuleNotFoundError as error:
        raise CannotStart(
            f"The environment asks for traces (OTEL_EXPORTER_OTLP_ENDPOINT), and {error.name} is not installed here: "
            "pip install 'forebay[traces]', or unset it."
        ) from error
    try:
        sender = Sender(collector, is_ending)
    except OSError as error:
        raise CannotStart(f"The certificates for the traces' collector cannot be used: {error}") from error
    return lambda batch: sender.send(write(batch))


def _own_resource(service: str, environ: Mapping[str, str]) -> dict[str, str]:
    named = {
        "service.version": version("forebay"),
        "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
        "forebay.service": service,
    }
    attributes = environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if not environ.get("OTEL_SERVICE_NAME") and "service.name=" not in attributes.replace(" ", ""):
        named["service.name"] = "forebay" if "+" in service else f"forebay-{service}"
    return named
