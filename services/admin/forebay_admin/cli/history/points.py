"""Points of history as people read them: rows, small pictures, amounts with their units. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from forebay_admin.cli.plain import Plain
from forebay_admin.cli.words import gigabytes, moment
from forebay_admin.fleet.history_rows import ENERGIES, STATISTICS, Point
from forebay_admin.fleet.history_rows import with_gaps as with_gaps

_BARS = "▁▂▃▄▅▆▇█"
_GAP = " "


def plain_point(point: Point, metrics: Sequence[str]) -> Plain:
    """`null` for what is not known."""
    answer: Plain = {"at": moment(point.at_us)}
    for metric in metrics:
        told = point.values.get(metric)
        answer[metric] = (
            None
            if told is None
            else {**dict(zip(STATISTICS, told, strict=True)), "samples": point.samples.get(metric, 0)}
        )
    answer["energy"] = plain_energy(point)
    return answer


def plain_energy(point: Point) -> Plain | None:
    if all(wh is None for wh in point.energies[:3]):
        return None
    return {**dict(zip(ENERGIES, point.energies, strict=True)), "estimated": point.is_estimated}


def sparkline(numbers: Sequence[float | None], width: int) -> str:
    """One bar for each number, or for the mean of several where they are more than `width`. A gap is a blank."""
    if len(numbers) > width:
        edges = [round(i * len(numbers) / width) for i in range(width + 1)]
        numbers = [_mean(numbers[a:b]) for a, b in pairwise(edges)]
    told = [number for number in numbers if number is not None]
    if not told:
        return _GAP * len(numbers)
    least, most = min(told), max(told)
    step = (most - least) / (len(_BARS) - 1)

    def bar(number: float | None) -> str:
        if number is None:
            return _GAP
        return _BARS[round((number - least) / step)] if step else _BARS[0]

    return "".join(bar(number) for number in numbers)


def amount(metric: str, number: float | None) -> str:
    """With the unit that the metric's name says."""
    if number is None:
        return ""
    for ending, write in _UNITS.items():
        if metric.endswith(ending):
            return write(number)
    return f"{number:,.2f}".rstrip("0").rstrip(".")


_UNITS: dict[str, Callable[[float], str]] = {
    "_bytes_per_s": lambda n: f"{n / 1e6:,.1f} MB/s",
    "tokens_per_s": lambda n: f"{n:,.1f}",
    "_bytes": lambda n: gigabytes(round(n)),
    "_percent": lambda n: f"{n:.0f} %",
    "_fraction": lambda n: f"{100 * n:.0f} %",
    "serving": lambda n: f"{100 * n:.0f} %",
    "thermal_slowdown": lambda n: f"{100 * n:.0f} %",
    "_mhz": lambda n: f"{n:,.0f} MHz",
    "power_w": lambda n: f"{n:,.0f} W",
    "temperature_c": lambda n: f"{n:.0f} °C",
    "ttft_s": lambda n: f"{n:.2f} s",
    "queue_s": lambda n: f"{n:.2f} s",
}


def watt_hours(wh: float | None) -> str:
    """850 Wh, 12.3 kWh"""
    if wh is None:
        return ""
    return f"{wh:,.1f} Wh" if wh < 1000 else f"{wh / 1000:,.1f} kWh"


def over_all(points: Iterable[Point], metric: str) -> tuple[float | None, ...]:
    """Its STATISTICS over all points; each point counts the same."""
    told = [point.values[metric] for point in points if metric in point.values]
    if not told:
        return (None,) * len(STATISTICS)
    mins, means, maxs, lasts = zip(*told, strict=True)
    return min(mins), sum(means) / len(means), max(maxs), lasts[-1]


def total(points: Iterable[Point], energy: str) -> float | None:
    place = ENERGIES.index(energy)
    told = [wh for point in points if (wh := point.energies[place]) is not None]
    return sum(told) if told else None


def _mean(numbers: Sequence[float | None]) -> float | None:
    told = [number for number in numbers if number is not None]
    return sum(told) / len(told) if told else None
