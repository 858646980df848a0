"""What can be plotted of the past: which plots a page has, what an address asks for, and the numbers that it answers. Pure.

A plot's numbers are {"t": [unix seconds …], "series": [{"label", "unit", "values": [number or null …]} …]}."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from forebay.errors import BadInput
from forebay.wire.v1 import history_pb2 as wire
from forebay.wire.v1 import usage_queries_pb2
from forebay_admin.fleet.history_rows import ENERGIES, Point, points_of, with_gaps

US = 1_000_000
HISTORY, USAGE = "/console/data/history.json", "/console/data/usage.json"


@dataclass(frozen=True, slots=True)
class Span:
    word: str
    seconds: int
    resolution_s: int
    """Of history."""
    bucket: usage_queries_pb2.UsageBucket.ValueType
    """Of usage."""


SPANS: Mapping[str, Span] = {
    span.word: span
    for span in (
        Span("hour", 3600, 60, usage_queries_pb2.USAGE_BUCKET_MINUTE),
        Span("day", 86_400, 300, usage_queries_pb2.USAGE_BUCKET_HOUR),
        Span("week", 7 * 86_400, 3600, usage_queries_pb2.USAGE_BUCKET_HOUR),
        Span("month", 30 * 86_400, 3600, usage_queries_pb2.USAGE_BUCKET_DAY),
    )
}
USUAL_SPAN = "day"

KINDS = {
    "node": wire.SERIES_KIND_NODE,
    "gpu": wire.SERIES_KIND_GPU,
    "backend": wire.SERIES_KIND_BACKEND,
    "model": wire.SERIES_KIND_MODEL,
}
_MOST_NAMES = 64
_MOST_METRICS = 8
_ENERGY = "energy_"

_UNITS: Sequence[tuple[str, str, float]] = (
    ("_bytes_per_s", "MB/s", 1e-6),
    ("_bytes", "GB", 1e-9),
    ("_percent", "%", 1.0),
    ("_fraction", "%", 100.0),
    ("serving", "%", 100.0),
    ("thermal_slowdown", "%", 100.0),
    ("_mhz", "MHz", 1.0),
    ("power_w", "W", 1.0),
    ("temperature_c", "°C", 1.0),
    ("tokens_per_s", "tokens/s", 1.0),
    ("ttft_s", "s", 1.0),
    ("queue_s", "s", 1.0),
    ("_wh", "Wh", 1.0),
)
"""Ending of a metric's name → the unit that it is shown in, and how many of it one is."""

Plain = dict[str, object]


@dataclass(frozen=True, slots=True)
class Plot:
    id: str
    title: str
    unit: str
    src: str
    kind: str = "line"
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What an address of history asks for."""

    kind: str
    names: tuple[str, ...]
    metrics: tuple[str, ...]
    span: Span
    is_summed: bool

    def request(self, now: float) -> wire.ReadHistoryRequest:
        of_history = [metric for metric in self.metrics if not metric.startswith(_ENERGY)]
        return wire.ReadHistoryRequest(
            kind=KINDS[self.kind],
            names=self.names,
            from_us=round((now - self.span.seconds) * US),
            to_us=round(now * US),
            resolution_s=self.span.resolution_s,
            metrics=of_history,
            energy_only=not of_history,
        )


def span_named(text: str) -> Span:
    """Raises BadInput."""
    span = SPANS.get(text or USUAL_SPAN)
    if span is None:
        raise BadInput(f"A span is one of {', '.join(SPANS)}.")
    return span


def asked(kind: str, names: Sequence[str], metrics: Sequence[str], span: str, *, is_summed: bool) -> Asked:
    """Raises BadInput."""
    if kind not in KINDS:
        raise BadInput(f"There is history of {', '.join(KINDS)}.")
    if not 0 < len(metrics) <= _MOST_METRICS or len(names) > _MOST_NAMES:
        raise BadInput(f"Name 1 to {_MOST_METRICS} metrics, and {_MOST_NAMES} names at most.")
    unknown = [m for m in metrics if m.startswith(_ENERGY) and m.removeprefix(_ENERGY) not in ENERGIES]
    if unknown:
        raise BadInput(f"There is no {unknown[0][:60]}; there are {', '.join(_ENERGY + one for one in ENERGIES)}.")
    return Asked(kind, tuple(names), tuple(metrics), span_named(span), is_summed)


def history_numbers(pages: Iterable[wire.ReadHistoryResponse], asked_for: Asked) -> Plain:
    """Means, in the units that people read."""
    resolution_s, known, ends = asked_for.span.resolution_s, dict[str, list[Point]](), list[tuple[int, int]]()
    names: dict[str, str] = {}
    for page in pages:
        resolution_s = page.resolution_s or resolution_s
        for series in page.series:
            known.setdefault(series.id, []).extend(points_of(series))
            names[series.id] = series.name
            ends.append((series.from_us, series.to_us))
    if not ends:
        return {"t": [], "series": []}
    begin, end = min(b for b, _ in ends), max(e for _, e in ends)
    filled = {ref: with_gaps(points, begin, end, resolution_s, "") for ref, points in known.items()}
    times = [point.at_us // US for point in next(iter(filled.values()))]
    columns = [
        (names[ref], metric, [_number(point, metric) for point in points])
        for ref, points in filled.items()
        for metric in asked_for.metrics
    ]
    if asked_for.is_summed:
        columns = [("", metric, _summed([c for _, m, c in columns if m == metric])) for metric in asked_for.metrics]
    has_several = len({name for name, _, _ in columns}) > 1
    return {
        "t": times,
        "series": [
            {
                "label": _label(name, metric, of_many=len(asked_for.metrics) > 1, has_several=has_several),
                "unit": unit_of(metric)[0],
                "values": values,
            }
            for name, metric, values in columns
            if any(value is not None for value in values)
        ],
    }


def usage_numbers(told: usage_queries_pb2.QueryUsageResponse, span: Span, columns: Sequence[str]) -> Plain:
    """Of one thing, by bucket. A bucket in which nothing was asked has zeros, not gaps."""
    by_time = {line.at_us // US: line.sums for line in told.lines}
    step = _BUCKET_S[span.bucket]
    first = told.from_us // US // step * step
    times = list(range(first, told.to_us // US, step))
    nothing = usage_queries_pb2.UsageSums()
    return {
        "t": times,
        "series": [
            {
                "label": USAGE_WORDS[name],
                "unit": "",
                "values": [getattr(by_time.get(at, nothing), name) for at in times],
            }
            for name in columns
        ],
    }


USAGE_WORDS = {
    "requests": "Requests",
    "failed": "Failed",
    "refused": "Refused",
    "prompt_tokens": "Prompt tokens",
    "completion_tokens": "Completion tokens",
}
_BUCKET_S = {
    usage_queries_pb2.USAGE_BUCKET_MINUTE: 60,
    usage_queries_pb2.USAGE_BUCKET_HOUR: 3600,
    usage_queries_pb2.USAGE_BUCKET_DAY: 86_400,
}


def usage_begins(span: Span, now: float) -> int:
    """Where a bucket does, in unix seconds, so that the first one is whole."""
    step = _BUCKET_S[span.bucket]
    return int(now - span.seconds) // step * step


def usage_columns(names: Sequence[str]) -> tuple[str, ...]:
    """Raises BadInput."""
    if not names or any(name not in USAGE_WORDS for name in names) or len(names) > len(USAGE_WORDS):
        raise BadInput(f"Columns of usage are {', '.join(USAGE_WORDS)}.")
    return tuple(dict.fromkeys(names))


def unit_of(metric: str) -> tuple[str, float]:
    for ending, unit, factor in _UNITS:
        if metric.endswith(ending):
            return unit, factor
    return "", 1.0


# --- the plots of pages -----------------------------------------------------------------------------------------------


def overview_plots(span: str) -> tuple[Plot, ...]:
    tokens = ("prompt_tokens_per_s", "completion_tokens_per_s")
    return (
        history_plot("tokens", "Tokens read and written", "backend", (), tokens, span, is_summed=True),
        history_plot(
            "busy", "Running and waiting in engines", "backend", (), ("running", "waiting"), span, is_summed=True
        ),
        history_plot("power", "Power of GPUs", "gpu", (), ("power_w",), span, is_summed=True),
    )


def node_plots(node: str, gpus: Sequence[int], span: str) -> tuple[Plot, ...]:
    names = tuple(f"{node}/{index}" for index in gpus)
    of_gpus = (
        history_plot("gpu-busy", "GPUs busy", "gpu", names, ("utilization_percent",), span),
        history_plot("gpu-memory", "GPU memory in use", "gpu", names, ("memory_used_bytes",), span),
        history_plot("gpu-power", "Power of its GPUs", "gpu", names, ("power_w",), span),
        history_plot("gpu-heat", "Temperature of its GPUs", "gpu", names, ("temperature_c",), span),
        history_plot("gpu-clock", "Clocks of its GPUs", "gpu", names, ("sm_clock_mhz",), span),
        history_plot("gpu-energy", "Energy of its GPUs", "gpu", names, ("energy_gpu_wh",), span, look="bars"),
    )
    network = ("network_received_bytes_per_s", "network_sent_bytes_per_s")
    return (
        *(of_gpus if names else ()),
        history_plot("cpu", "Processors busy", "node", (node,), ("cpu_percent",), span),
        history_plot(
            "memory", "Memory and swap in use", "node", (node,), ("memory_used_bytes", "swap_used_bytes"), span
        ),
        history_plot("network", "Network", "node", (node,), network, span),
        history_plot("server-power", "Power of the server", "node", (node,), ("power_w",), span),
    )


def backend_plots(backend: str, span: str) -> tuple[Plot, ...]:
    one = (backend,)
    tokens = ("prompt_tokens_per_s", "completion_tokens_per_s")
    return (
        history_plot("running", "Running and waiting inside", "backend", one, ("running", "waiting"), span),
        history_plot("tokens", "Tokens read and written", "backend", one, tokens, span),
        history_plot("ttft", "First token and wait inside the engine", "backend", one, ("ttft_s", "queue_s"), span),
        history_plot("cache", "Cache in use, and found there", "backend", one, _CACHE, span),
        history_plot("serving", "Took requests", "backend", one, ("serving",), span),
        history_plot("energy", "Energy of its GPUs", "backend", one, ("energy_gpu_wh",), span, look="bars"),
    )


def model_plots(model: str, span: str) -> tuple[Plot, ...]:
    requests = {"model": model, "span": span, "column": ("requests", "failed", "refused")}
    tokens = {"model": model, "span": span, "column": ("prompt_tokens", "completion_tokens")}
    return (
        Plot("requests", "Requests", "", f"{USAGE}?{urlencode(requests, doseq=True)}", "bars"),
        Plot("used-tokens", "Tokens", "", f"{USAGE}?{urlencode(tokens, doseq=True)}", "bars"),
        history_plot("backends", "Backends that have it", "model", (model,), _HAVING, span),
        history_plot("running", "Running and waiting", "model", (model,), ("running", "waiting"), span),
    )


_METRIC_WORDS = {
    "prompt_tokens_per_s": "Read",
    "completion_tokens_per_s": "Written",
    "ttft_s": "First token",
    "queue_s": "Wait inside",
    "kv_used_fraction": "In use",
    "prefix_hit_fraction": "Found there",
    "power_w": "Power",
    "temperature_c": "Temperature",
    "utilization_percent": "Busy",
    "cpu_percent": "Busy",
    "memory_used_bytes": "Memory",
    "swap_used_bytes": "Swap",
    "network_received_bytes_per_s": "Received",
    "network_sent_bytes_per_s": "Sent",
    "sm_clock_mhz": "Clock",
    "energy_gpu_wh": "GPUs",
    "energy_server_wh": "Server",
    "energy_idle_wh": "While nothing ran",
    "backends": "Have it",
    "serving_backends": "Take requests",
    "loaded_backends": "Have it in memory",
}
_CACHE = ("kv_used_fraction", "prefix_hit_fraction")
_HAVING = ("backends", "serving_backends", "loaded_backends")


def history_plot(
    id: str,
    title: str,
    kind: str,
    names: Sequence[str],
    metrics: Sequence[str],
    span: str,
    *,
    is_summed: bool = False,
    look: str = "line",
) -> Plot:
    query: dict[str, object] = {"kind": kind, "name": names, "metric": metrics, "span": span}
    if is_summed:
        query["sum"] = "1"
    return Plot(id, title, unit_of(metrics[0])[0], f"{HISTORY}?{urlencode(query, doseq=True)}", look)


def _number(point: Point, metric: str) -> float | None:
    factor = unit_of(metric)[1]
    if metric.startswith(_ENERGY):
        found = point.energies[ENERGIES.index(metric.removeprefix(_ENERGY))]
    else:
        found = point.values[metric][1] if metric in point.values else None
    return None if found is None else round(found * factor, 4)


def _summed(columns: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Of those that are known at each time."""
    found: list[float | None] = []
    for numbers in zip(*columns, strict=True):
        known = [number for number in numbers if number is not None]
        found.append(round(sum(known), 4) if known else None)
    return found


def _label(name: str, metric: str, *, of_many: bool, has_several: bool) -> str:
    said = _METRIC_WORDS.get(metric, metric.replace("_", " ").capitalize())
    if not has_several:
        return said
    return f"{name} {said.lower()}" if of_many else name
