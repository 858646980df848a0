"""Distributions that fitted lengths and gaps are drawn from. Randomness is always the caller's."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from random import Random


class Quantiles:
    """Drawn by straight lines between the quantiles that are known."""

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        """(probability, value), from 0 to 1."""
        self._at = [at for at, _ in points]
        self._values = [value for _, value in points]

    def draw(self, random: Random) -> int:
        return self.at(random.random())

    def at(self, at: float) -> int:
        upper = min(bisect(self._at, at), len(self._at) - 1)
        low, high = self._at[upper - 1], self._at[upper]
        value = self._values[upper - 1] + (self._values[upper] - self._values[upper - 1]) * (at - low) / (high - low)
        return max(1, round(value))


def log_normal(random: Random, mean_of_log: float, deviation_of_log: float, most: int) -> int:
    """Drawn again beyond `most`: what is cut off is left out, not piled up there."""
    while True:
        value = round(random.lognormvariate(mean_of_log, deviation_of_log))
        if value <= most:
            return max(1, value)


def poisson_times(random: Random, rate: float, until: float, since: float = 0.0) -> list[float]:
    times = []
    now = since
    while (now := now + random.expovariate(rate)) < until:
        times.append(now)
    return times


def gamma_gap(random: Random, mean: float, variation: float) -> float:
    """A gap between arrivals with this coefficient of variation: 1 is Poisson, more is in bursts."""
    shape = 1 / variation**2
    return random.gammavariate(shape, mean / shape)


def zipf_shares(count: int, exponent: float) -> list[float]:
    weights = [rank**-exponent for rank in range(1, count + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]
