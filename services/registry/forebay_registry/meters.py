"""What the registry counts, and what is so whenever its metrics are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from forebay.bus import Bus
from forebay.follow import Follower
from forebay.metrics import Metrics, Number
from forebay_registry.backend import Condition
from forebay_registry.engines.outcome import Outcome
from forebay_registry.engines.telemetry import Scraped
from forebay_registry.fleet.fleet import Fleet
from forebay_registry.fleet.watch import Watchers
from forebay_registry.keeping.keeper import Keeper
from forebay_registry.leadership.lead import Lead
from forebay_registry.leadership.standing import Standing
from forebay_registry.nodes.ingest import Tally
from forebay_registry.nodes.samples import Dropped


def count_probes(metrics: Metrics) -> dict[Outcome, Number]:
    counter = metrics.counter("forebay_registry_probes", "Looks at backends, by how they ended.", ("outcome",))
    return {outcome: counter.child(outcome) for outcome in Outcome}


def count_scrapes(metrics: Metrics) -> dict[Scraped, Number]:
    counter = metrics.counter(
        "forebay_registry_scrapes", "Readings of engines' gauges, by how they ended.", ("outcome",)
    )
    return {outcome: counter.child(outcome) for outcome in Scraped}


def count_samples(metrics: Metrics) -> Tally:
    dropped = metrics.counter("forebay_registry_samples_dropped", "Samples of agents not taken.", ("reason",))
    return Tally(
        taken=metrics.counter("forebay_registry_samples", "Samples of agents taken.").child(),
        lost=metrics.counter("forebay_registry_samples_lost", "Samples of agents that never came.").child(),
        dropped={why: dropped.child(why) for why in Dropped},
    )


def measure(
    metrics: Metrics, fleet: Fleet, watchers: Watchers, keeper: Keeper, credentials: Follower, bus: Bus, lead: Lead
) -> None:
    """What is so right now, read when scraped."""

    def by_condition() -> Iterable[tuple[tuple[str], float]]:
        views = fleet.views()
        return [((str(c),), sum(v.condition is c for v in views)) for c in Condition]

    def gauge(name: str, about: str, read: Callable[[], float]) -> None:
        metrics.gauge(f"forebay_registry_{name}", about, (), lambda: [((), float(read()))])

    metrics.gauge("forebay_registry_backends", "Backends by condition.", ("condition",), by_condition)

    def by_standing() -> Iterable[tuple[tuple[str], float]]:
        return [((str(s),), float(lead.stance.standing is s)) for s in Standing]

    metrics.gauge("forebay_registry_standing", "1 for how this registry stands to the others.", ("is",), by_standing)
    gauge("epoch", "Of this registry's lead, or of the newest that it knows.", lambda: lead.stance.epoch)
    gauge("fleet_version", "Changes of the fleet since the start.", lambda: fleet.version)
    gauge("watchers", "Open WatchFleet streams.", lambda: watchers.count)
    gauge("postgres_in_step", "1 while Postgres answers.", lambda: keeper.is_in_step)
    gauge("credentials_following", "1 while admin tells the engines' keys.", lambda: credentials.is_live)
    gauge("bus_connected", "1 while the bus is there.", lambda: bus.is_connected)
