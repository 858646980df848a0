"""Metrics as plain numbers: the code that counts does `child.value += 1`; only a scrape turns them into text.

A child is looked up once, where labels are known, and kept. No locks: one thread counts, and a scrape that reads a number
while it grows is as right as one a moment earlier."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

MOST_CHILDREN = 1000
"""Of one metric: label values beyond are counted together under OTHERS. Labels are bounded by what they name; this holds
where that is wrong, so that nothing a client or an engine makes up can fill the memory here or in Prometheus."""

OTHERS = "(others)"

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Number:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0.0


class Distribution:
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Counter:
    def __init__(self, name: str, about: str, labels: Sequence[str]) -> None:
        self.name, self.about, self.labels = name, about, tuple(labels)
        self.children: dict[tuple[str, ...], Number] = {}

    def child(self, *values: str) -> Number:
        known = self.children.get(values)
        if known is None:
            values = _bounded(values, self.children)
            known = self.children.setdefault(values, Number())
        return known

    def collect(self) -> Metric:
        family = CounterMetricFamily(self.name, self.about, labels=self.labels)
        for values, number in list(self.children.items()):
            family.add_metric(values, number.value)
        return family


class Histogram:
    def __init__(self, name: str, about: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self.name, self.about, self.labels = name, about, tuple(labels)
        self.bounds = tuple(float(bound) for bound in bounds)  # le="1.0", as every client of Prometheus writes it
        self.children: dict[tuple[str, ...], Distribution] = {}

    def child(self, *values: str) -> Distribution:
        known = self.children.get(values)
        if known is None:
            values = _bounded(values, self.children)
            known = self.children.setdefault(values, Distribution(self.bounds))
        return known

    def collect(self) -> Metric:
        family = HistogramMetricFamily(self.name, self.about, labels=self.labels)
        for values, distribution in list(self.children.items()):
            running, buckets = 0, []
            for bound, count in zip((*self.bounds, float("inf")), distribution.counts, strict=True):
                running += count
                buckets.append(("+Inf" if bound == float("inf") else str(bound), float(running)))
            family.add_metric(values, buckets, distribution.total)
        return family


def _bounded(values: tuple[str, ...], children: Mapping[tuple[str, ...], object]) -> tuple[str, ...]:
    return values if len(children) < MOST_CHILDREN else tuple(OTHERS for _ in values)


class Gauge:
    """Read when scraped: `read` gives (label values, number) pairs."""

    def __init__(
        self, name: str, about: str, labels: Sequence[str], read: Callable[[], Iterable[tuple[Sequence[str], float]]]
    ) -> None:
        self.name, self.about, self.labels, self.read = name, about, tuple(labels), read

    def collect(self) -> Metric:
        family = GaugeMetricFamily(self.name, self.about, labels=self.labels)
        for values, number in list(self.read()):
            family.add_metric(list(values), number)
        return family


class CounterReading(Gauge):
    """The same for something that only ever grows and is counted elsewhere."""

    def collect(self) -> Metric:
        family = CounterMetricFamily(self.name, self.about, labels=self.labels)
        for values, number in list(self.read()):
            family.add_metric(list(values), number)
        return family


M = TypeVar("M", Counter, Histogram, Gauge, CounterReading)


class Metrics(Collector):
    """All the metrics of one service. Names start with `forebay_`; `_total` is added to counters by the exposition."""

    def __init__(self) -> None:
        self._all: list[Counter | Histogram | Gauge] = []
        self._sources: list[Callable[[], Iterable[Metric]]] = []
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def counter(self, name: str, about: str, labels: Sequence[str] = ()) -> Counter:
        return self._add(Counter(name, about, labels))

    def histogram(
        self, name: str, about: str, labels: Sequence[str] = (), bounds: Sequence[float] = LATENCY_BUCKETS_S
    ) -> Histogram:
        return self._add(Histogram(name, about, labels, bounds))

    def gauge(
        self, name: str, about: str, labels: Sequence[str], read: Callable[[], Iterable[tuple[Sequence[str], float]]]
    ) -> Gauge:
        return self._add(Gauge(name, about, labels, read))

    def counter_reading(
        self, name: str, about: str, labels: Sequence[str], read: Callable[[], Iterable[tuple[Sequence[str], float]]]
    ) -> CounterReading:
        return self._add(CounterReading(name, about, labels, read))

    def add_source(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Whole families that others have counted, read when scraped. Their names are no other's here."""
        self._sources.append(read)

    def _add(self, metric: M) -> M:
        self._all.append(metric)
        return metric

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        for metric in self._all:
            yield metric.collect()
        for read in self._sources:
            yield from read()

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)
