"""A minute that is over: whose energy was taken in it, and what is written of each series. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from forebay_registry.history.energy import Holding, shared
from forebay_registry.history.rollup import Energy, Minute, Slot
from forebay_registry.history.series import METRICS, Kind, Series

_RUNNING, _WAITING, _WRITTEN = (
    METRICS[Kind.BACKEND].index(metric) for metric in ("running", "waiting", "completion_tokens_per_s")
)


@dataclass(frozen=True, slots=True)
class Over:
    """A series in a minute that is over, before it is counted up: there are thousands at once, and others wait meanwhile."""

    series: Series
    at: int
    slot: Slot | None
    """None: only the energy is known, which a counter told afterwards."""
    energy: Energy


def energies(taken: Mapping[Series, Energy], holdings: Iterable[Holding]) -> dict[Series, Energy]:
    """Of all series of one minute, from what GPUs and hosts took in it."""
    gpus = {_place(series): energy for series, energy in taken.items() if series.kind is Kind.GPU}
    servers = {s.ref: e.server_wh for s, e in taken.items() if s.kind is Kind.NODE and e.server_wh is not None}
    of_nodes: dict[str, list[Energy]] = {}
    for (node, _), energy in gpus.items():
        of_nodes.setdefault(node, []).append(energy)
    found = dict(taken)
    for node, all_of_it in of_nodes.items():
        found[Series(Kind.NODE, node)] = _of_node(all_of_it, servers.get(node))
    for backend, energy in shared(gpus, servers, holdings).items():
        found[Series(Kind.BACKEND, backend)] = energy
    return found


def finish(over: Over) -> Minute:
    if over.slot is None:
        return Minute(over.series, over.at, [], [], [], [], [], over.energy)
    minute = over.slot.close(over.series, over.at, over.energy)
    return with_idle(minute)


def with_idle(minute: Minute) -> Minute:
    """Its energy was for nothing if nothing ran or waited all minute long; where the engine does not tell, nobody knows."""
    taken = minute.energy.gpu_wh
    if minute.series.kind is not Kind.BACKEND or not minute.maxs:
        return minute
    if taken is None or (running := minute.maxs[_RUNNING]) is None:
        return minute
    # What came and went between two looks at how many run shows in the tokens.
    is_idle = running == 0 and not minute.maxs[_WAITING] and not minute.maxs[_WRITTEN]
    return replace(minute, energy=replace(minute.energy, idle_wh=taken if is_idle else 0.0))


def _of_node(gpus: list[Energy], server_wh: float | None) -> Energy:
    """All its GPUs, and the machine where that is told."""
    return Energy(
        gpu_wh=sum(e.gpu_wh or 0.0 for e in gpus),
        server_wh=server_wh,
        measured_s=sum(e.measured_s for e in gpus) / len(gpus),
        is_estimated=any(e.is_estimated for e in gpus),
    )


def _place(series: Series) -> tuple[str, int]:
    node, _, index = series.ref.rpartition("/")
    return node, int(index)
