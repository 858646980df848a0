"""What the scheduler tells a scrape: the core's own counts, and how things stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from forebay.bus import Bus
from forebay.errors import Refusal
from forebay.metrics import Histogram, Metrics
from forebay_scheduler.doorway import Doorway
from forebay_scheduler.fairness.gaps import gaps
from forebay_scheduler.policy import Policy

_COUNTS = {
    "submits": "Requests that asked for slots.",
    "grants": "Slots given to a request.",
    "settles": "Ends of requests told.",
    "stale_settles": "Ends told again, or of a lease that is not in force: they freed nothing.",
    "cutoffs": "Answers ended because a budget was used up.",
    "credit_starts": "Requests that a gateway began on slots it was lent.",
    "cancels": "Requests whose client went before they ended.",
    "nacks": "Grants that a backend did not serve.",
    "retries": "Requests placed again.",
    "revokes": "Grants or places in the queue taken back.",
    "orphans": "Requests whose gateway was lost before they settled.",
    "gateways_lost": "Gateways whose death was proven.",
}


def make_queue_histogram(metrics: Metrics) -> Histogram:
    return metrics.histogram("forebay_scheduler_queue_seconds", "From arrival at the gateway to the grant.")


def add_meters(metrics: Metrics, doorway: Doorway, bus: Bus) -> None:
    """Of the term in which this scheduler leads; while it stands by, only that, and whether the bus is there."""
    for name, about in _COUNTS.items():
        metrics.counter_reading(f"forebay_scheduler_{name}", about, (), _reading(doorway, name))
    metrics.counter_reading(
        "forebay_scheduler_rejects",
        "Requests refused, by reason.",
        ("reason",),
        lambda: [((str(reason),), count) for policy in doorway.leading for reason, count in _rejects(policy)],
    )
    metrics.gauge(
        "forebay_scheduler_leads",
        "1 while this scheduler leads, 0 while it stands by.",
        (),
        lambda: [((), float(len(doorway.leading)))],
    )
    metrics.gauge(
        "forebay_scheduler_waiting",
        "Requests in the queue.",
        (),
        lambda: [((), float(sum(len(g.waiting) for g in policy.gateways))) for policy in doorway.leading],
    )
    metrics.gauge(
        "forebay_scheduler_bus_connected", "1 while the bus is there.", (), lambda: [((), float(bus.is_connected))]
    )
    metrics.gauge(
        "forebay_scheduler_gateways",
        "Gateways that are known, by whether they can be reached.",
        ("reachable",),
        lambda: [reading for policy in doorway.leading for reading in _gateways(policy)],
    )
    metrics.gauge(
        "forebay_scheduler_pool_waiting",
        "Requests in the queue of a pool.",
        ("pool",),
        lambda: [
            ((line.pool,), float(len(line.queue)))
            for policy in doorway.leading
            for line in list(policy.dispatch.queues.lines)
        ],
    )
    metrics.gauge(
        "forebay_scheduler_fairness_gap_tokens",
        "By how many tokens of weight one somebody is served ahead of another who waits for the same model: the widest gap "
        "between two bands, groups, users or keys of a pool.",
        ("pool", "level"),
        lambda: [
            ((line.pool, level), gap)
            for policy in doorway.leading
            for line in list(policy.dispatch.queues.lines)
            for level, gap in gaps(line.queue.roots).items()
        ],
    )
    metrics.gauge(
        "forebay_scheduler_slots",
        "Slots of a backend: its cap, those in use, those of dead gateways not returned yet, those lent on credit.",
        ("backend", "what"),
        lambda: [reading for policy in doorway.leading for reading in _slots(policy)],
    )


def _reading(doorway: Doorway, name: str) -> Callable[[], list[tuple[tuple[str, ...], float]]]:
    return lambda: [((), float(getattr(policy.tally, name))) for policy in doorway.leading]


def _rejects(policy: Policy) -> list[tuple[Refusal, int]]:
    return list(policy.tally.rejects.items())


def _gateways(policy: Policy) -> Iterator[tuple[tuple[str, ...], float]]:
    reachable = [gateway.is_reachable for gateway in policy.gateways]
    yield ("yes",), float(sum(reachable))
    yield ("no",), float(len(reachable) - sum(reachable))


def _slots(policy: Policy) -> Iterator[tuple[tuple[str, ...], float]]:
    for station in list(policy.dispatch.stations):
        yield (station.id, "cap"), float(station.facts.slots)
        yield (station.id, "held"), float(station.used)
        yield (station.id, "quarantined"), float(policy.quarantined_on(station.id))
        yield (station.id, "lent"), float(policy.dispatch.lender.lent_on(station.id))
