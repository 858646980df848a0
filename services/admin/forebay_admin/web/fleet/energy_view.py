"""What a node and its GPUs took, in kWh; what that costs and emits, where the one who looks says what a kWh does. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from forebay.wire.v1 import history_pb2 as wire
from forebay_admin.web.forms import Form


@dataclass(frozen=True, slots=True)
class Rates:
    per_kwh: float | None = None
    """In the installation's own money."""
    co2_g: float | None = None
    """For a kWh."""


@dataclass(frozen=True, slots=True)
class EnergyRow:
    name: str
    gpu_kwh: float
    server_kwh: float | None
    is_estimated: bool
    cost: float | None
    co2_kg: float | None


@dataclass(frozen=True, slots=True)
class EnergyView:
    rows: tuple[EnergyRow, ...]
    begins_at: float
    ends_at: float
    rates: Rates


def read_rates(form: Form) -> Rates:
    """Of an address. Raises WrongField."""
    return Rates(
        form.number("kwh", most=1e6) if form.get("kwh") else None,
        form.number("co2", most=1e6) if form.get("co2") else None,
    )


def energy_view(
    node: str, by_node: wire.ShowEnergyResponse, by_gpu: wire.ShowEnergyResponse, rates: Rates
) -> EnergyView:
    """The whole node first, then each of its GPUs."""
    rows = [_row(one, rates) for one in by_node.sums if one.name == node]
    rows += sorted((_row(one, rates) for one in _of_node(by_gpu.sums, node)), key=lambda row: row.name)
    return EnergyView(tuple(rows), by_node.from_us / 1e6, by_node.to_us / 1e6, rates)


def _of_node(sums: Iterable[wire.EnergySum], node: str) -> Iterable[wire.EnergySum]:
    return (one for one in sums if one.name.startswith(f"{node}/"))


def _row(one: wire.EnergySum, rates: Rates) -> EnergyRow:
    server = one.server_wh / 1000 if one.HasField("server_wh") else None
    taken = one.gpu_wh / 1000 if server is None else server
    return EnergyRow(
        one.name,
        one.gpu_wh / 1000,
        server,
        one.estimated,
        taken * rates.per_kwh if rates.per_kwh is not None else None,
        taken * rates.co2_g / 1000 if rates.co2_g is not None else None,
    )
