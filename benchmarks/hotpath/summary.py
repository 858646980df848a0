"""What came of repetitions: the middle of those that count. Pure."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from benchmarks.hotpath.loads import Reading


@dataclass(frozen=True, slots=True)
class Sample:
    scenario: str
    system: str
    repetition: int
    reading: Reading


@dataclass(frozen=True, slots=True)
class Middle:
    """Medians over the runs without an error. Times in microseconds; None where there is nothing to tell."""

    runs: int
    invalid: int
    """Runs with an error, a broken stream, or a rate that was not held: they count for nothing."""
    us_per_answer: float | None = None
    us_per_answer_best: float | None = None
    us_per_token: float | None = None
    answers_per_s: float | None = None
    tokens_per_s: float | None = None
    latency_p50_us: float | None = None
    latency_p99_us: float | None = None
    first_p50_us: float | None = None
    transit_p50_us: float | None = None
    transit_p99_us: float | None = None
    rss_mb: float | None = None
    errors: int = 0
    """In all runs, streams without a token or their end among them."""
    said: str = ""
    """Of the first error."""

    @property
    def is_valid(self) -> bool:
        return self.runs > self.invalid

    @property
    def per_core(self) -> float | None:
        """Requests a second that a whole core would answer."""
        return 1e6 / self.us_per_answer if self.us_per_answer else None


Summary = Mapping[tuple[str, str], Middle]
"""By scenario and system."""

_HELD_WITHIN_S = 0.1


def summed_up(samples: Iterable[Sample]) -> Summary:
    gathered: dict[tuple[str, str], list[Reading]] = defaultdict(list)
    for sample in samples:
        gathered[sample.scenario, sample.system].append(sample.reading)
    return {key: _middle(readings) for key, readings in gathered.items()}


def counts(reading: Reading) -> bool:
    return reading.is_valid and reading.behind_s <= _HELD_WITHIN_S


def _middle(readings: list[Reading]) -> Middle:
    good = [one for one in readings if counts(one)]
    errors = sum(one.errors + one.incomplete for one in readings)
    said = next((one.said for one in readings if one.said), "")
    if not good:
        return Middle(len(readings), len(readings), errors=errors, said=said)
    is_charged = any(one.cpu_s for one in good)

    def median(values: Iterable[float | None]) -> float | None:
        there = [value for value in values if value is not None]
        return statistics.median(there) if there else None

    costs = [one.us_per_answer for one in good if one.answers]
    return Middle(
        runs=len(readings),
        invalid=len(readings) - len(good),
        us_per_answer=median(costs) if is_charged else None,
        us_per_answer_best=min(costs, default=None) if is_charged else None,
        us_per_token=median(one.us_per_token for one in good if one.tokens) if is_charged else None,
        answers_per_s=median(one.answers / one.seconds for one in good),
        tokens_per_s=median(one.tokens / one.seconds for one in good if one.tokens),
        latency_p50_us=median(one.latency_p50_us for one in good),
        latency_p99_us=median(one.latency_p99_us for one in good),
        first_p50_us=median(one.first_p50_us for one in good),
        transit_p50_us=median(one.transit_p50_us for one in good),
        transit_p99_us=median(one.transit_p99_us for one in good),
        rss_mb=median(one.rss_mb for one in good) if is_charged else None,
        errors=errors,
        said=said,
    )
