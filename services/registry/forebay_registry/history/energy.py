"""Energy from what GPUs and hosts tell, and whose it is. Pure; the clock is an argument.

A GPU's own counter is believed where there is one, since it misses nothing between two readings; else power times time, the
trapezoid of two readings. A counter that went back (the driver was loaded anew), or that says more than any GPU can draw, is
not believed. What lies in a gap that nothing tells of is not known, and is not made up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from forebay_registry.history.rollup import Energy

MOST_W = 20_000.0
"""More than any GPU or server draws: a counter or a power beyond it is a mistake."""
GAP_S = 600.0
"""How long nothing may be heard for a counter's difference to be spread over that time."""
POWER_GAP_S = 30.0
"""How far apart two readings of power may be: three times the slowest rate of an agent."""

_MINUTE = 60


@dataclass(frozen=True, slots=True)
class Reading:
    at: float
    counter_mj: int | None
    power_mw: int | None


@dataclass(frozen=True, slots=True)
class Portion:
    """Of one minute."""

    minute: int
    """Its first second since the epoch."""
    wh: float
    seconds: float
    is_estimated: bool


def between(before: Reading, now: Reading) -> list[Portion]:
    """What was taken from one reading to the next, by minutes; nothing where it is not known."""
    seconds = now.at - before.at
    if seconds <= 0:
        return []
    joules = _counted(before, now, seconds)
    is_estimated = joules is None
    if joules is None:
        joules = _estimated(before, now, seconds)
    if joules is None:
        return []
    return [
        Portion(minute, joules / 3600 * part / seconds, part, is_estimated)
        for minute, part in _minutes(before.at, now.at)
    ]


def _counted(before: Reading, now: Reading, seconds: float) -> float | None:
    if before.counter_mj is None or now.counter_mj is None or seconds > GAP_S:
        return None
    joules = (now.counter_mj - before.counter_mj) / 1000
    return joules if 0 <= joules <= MOST_W * seconds else None


def _estimated(before: Reading, now: Reading, seconds: float) -> float | None:
    if before.power_mw is None or now.power_mw is None or seconds > POWER_GAP_S:
        return None
    watts = (before.power_mw + now.power_mw) / 2000
    return watts * seconds if watts <= MOST_W else None


def _minutes(since: float, until: float) -> Iterator[tuple[int, float]]:
    """Each minute between two moments, and how many seconds of it lie there."""
    at = since
    while at < until:
        minute = int(at // _MINUTE) * _MINUTE
        end = min(until, minute + _MINUTE)
        yield minute, end - at
        at = end


class Meters:
    """The last reading of each GPU and host."""

    def __init__(self) -> None:
        self._last: dict[str, Reading] = {}

    def read(self, what: str, reading: Reading) -> list[Portion]:
        """What it took since the reading before. A first one begins, and gives nothing."""
        before = self._last.get(what)
        self._last[what] = reading
        return between(before, reading) if before is not None else []

    def begin(self, what: str, reading: Reading) -> None:
        """A reading from before this start, unless there is a newer one already."""
        self._last.setdefault(what, reading)

    def forget(self, before: float) -> None:
        """Those that were not read since then."""
        self._last = {what: reading for what, reading in self._last.items() if reading.at >= before}


# --- whose it is ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Holding:
    """Which GPUs of its node a backend runs on."""

    backend_id: str
    node_id: str
    gpu_indices: tuple[int, ...] = ()
    """Empty: nobody said. It then has those of its node that no other backend is said to have."""


def shared(
    gpus: Mapping[tuple[str, int], Energy], servers: Mapping[str, float], holdings: Iterable[Holding]
) -> dict[str, Energy]:
    """Each backend's part of one minute. `gpus`: (node id, index) → what that GPU took; `servers`: node id → Wh of the whole
    machine. A GPU of several backends is divided evenly among them; of the machine's energy a backend has the part that its
    GPUs have of all the node's GPUs."""
    by_node: dict[str, list[Holding]] = {}
    for holding in holdings:
        by_node.setdefault(holding.node_id, []).append(holding)
    of_node: dict[str, dict[int, Energy]] = {}
    for (node, index), energy in gpus.items():
        of_node.setdefault(node, {})[index] = energy
    found: dict[str, Energy] = {}
    for node, here in by_node.items():
        if node in of_node:
            found |= _on_node(of_node[node], servers.get(node), here)
    return found


def _on_node(gpus: Mapping[int, Energy], server_wh: float | None, here: Sequence[Holding]) -> dict[str, Energy]:
    claimed = {index for holding in here for index in holding.gpu_indices}
    rest = tuple(index for index in gpus if index not in claimed)
    held = {holding.backend_id: holding.gpu_indices or rest for holding in here}
    holders = {index: sum(index in indices for indices in held.values()) for index in gpus}
    total = sum(energy.gpu_wh or 0.0 for energy in gpus.values())
    found: dict[str, Energy] = {}
    for backend, indices in held.items():
        mine = [(gpus[index], holders[index]) for index in indices if index in gpus]
        told = [(energy.gpu_wh / n, energy) for energy, n in mine if energy.gpu_wh is not None]
        if not told:
            continue
        wh = sum(part for part, _ in told)
        found[backend] = Energy(
            gpu_wh=wh,
            server_wh=server_wh * wh / total if server_wh is not None and total else None,
            measured_s=sum(energy.measured_s for _, energy in told) / len(told),
            is_estimated=any(energy.is_estimated for _, energy in told),
        )
    return found
