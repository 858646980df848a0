"""Samples of one minute as min, mean, max and last. Pure, and cheap: thousands of numbers come each second.

What was not told in a minute is None in it, never zero. Two parts of one minute (a registry that was restarted in it) become
one: `merge`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from forebay_registry.history.series import Series

MOST_SAMPLES = 32_767
"""That are counted in a minute; the column is not wider."""

Values = Sequence[float | None]
"""One reading of a series, in the order of METRICS."""


@dataclass(slots=True)
class Energy:
    """What a series took in one minute."""

    gpu_wh: float | None = None
    """By its GPUs. None: not known."""
    server_wh: float | None = None
    """By the whole machine, where the host tells; a backend's is its part of it."""
    idle_wh: float | None = None
    """The part of `gpu_wh` of a backend that ran nothing. None where its engine does not tell."""
    measured_s: float = 0.0
    """Of how many seconds it is."""
    is_estimated: bool = False
    """From power and time, for want of the GPU's own counter."""


@dataclass(frozen=True, slots=True)
class Minute:
    """A series in one minute; the lists are in the order of METRICS."""

    series: Series
    at: int
    """Its first second, since the epoch, by the registry's clock."""
    samples: list[int]
    mins: list[float | None]
    means: list[float | None]
    maxs: list[float | None]
    lasts: list[float | None]
    energy: Energy = field(default_factory=Energy)


class Slot:
    """A minute that is still open."""

    __slots__ = ("_lasts", "_maxs", "_mins", "_samples", "_sums")

    def __init__(self, metrics: int) -> None:
        self._samples = [0] * metrics
        self._mins = [0.0] * metrics
        self._maxs = [0.0] * metrics
        self._sums = [0.0] * metrics
        self._lasts = [0.0] * metrics

    def add(self, values: Values) -> None:
        samples, mins, maxs, sums, lasts = self._samples, self._mins, self._maxs, self._sums, self._lasts
        for i, value in enumerate(values):
            if value is None:
                continue
            if not samples[i]:
                mins[i] = maxs[i] = value
            elif value < mins[i]:
                mins[i] = value
            elif value > maxs[i]:
                maxs[i] = value
            samples[i] += 1
            sums[i] += value
            lasts[i] = value

    def close(self, series: Series, at: int, energy: Energy) -> Minute:
        told = self._samples

        def where_told(numbers: list[float]) -> list[float | None]:
            return [number if n else None for number, n in zip(numbers, told, strict=True)]

        means = [total / n if n else None for total, n in zip(self._sums, told, strict=True)]
        mins, maxs, lasts = where_told(self._mins), where_told(self._maxs), where_told(self._lasts)
        return Minute(series, at, [min(n, MOST_SAMPLES) for n in told], mins, means, maxs, lasts, energy)


def merge(earlier: Minute, later: Minute) -> Minute:
    """Two parts of one minute of one series. Either may know fewer metrics: a newer version wrote the other."""
    samples = [min(a + b, MOST_SAMPLES) for a, b in zip_longest(earlier.samples, later.samples, fillvalue=0)]
    parts = zip_longest(earlier.samples, earlier.means, later.samples, later.means)
    means = [_mean(n or 0, mean, m or 0, other) for n, mean, m, other in parts]
    return Minute(
        later.series,
        later.at,
        samples,
        _each(min, earlier.mins, later.mins),
        means,
        _each(max, earlier.maxs, later.maxs),
        _each(lambda _, last: last, earlier.lasts, later.lasts),
        add(earlier.energy, later.energy),
    )


def add(one: Energy, other: Energy) -> Energy:
    return Energy(
        _sum(one.gpu_wh, other.gpu_wh),
        _sum(one.server_wh, other.server_wh),
        _sum(one.idle_wh, other.idle_wh),
        one.measured_s + other.measured_s,
        one.is_estimated or other.is_estimated,
    )


def _mean(n: int, mean: float | None, m: int, other: float | None) -> float | None:
    if mean is None or other is None:
        return mean if other is None else other
    return (mean * n + other * m) / (n + m)


def _each(join: Callable[[float, float], float], ours: Values, theirs: Values) -> list[float | None]:
    return [_either(join, a, b) for a, b in zip_longest(ours, theirs)]


def _sum(one: float | None, other: float | None) -> float | None:
    return _either(lambda a, b: a + b, one, other)


def _either(join: Callable[[float, float], float], one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return join(one, other)
