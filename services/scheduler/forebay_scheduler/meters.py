"""What the scheduler tells a scrape: the core's own counts, and how things stand."""

from __future__ import annotations

from collections.abc import Callable

from forebay.metrics import Histogram, Metrics
from forebay_scheduler.policy import Policy
from forebay_scheduler.tally import Tally

_COUNTS = {
    "submits": "Requests that asked for slots.",
    "grants": "Slots given to a request.",
    "settles": "Ends of requests told.",
    "stale_settles": "Ends told again, or of a lease that is not in force: they freed nothing.",
    "cancels": "Requests whose client went before they ended.",
    "nacks": "Grants that a backend did not serve.",
    "retries": "Requests placed again.",
    "revokes": "Grants or places in the queue taken back.",
    "orphans": "Requests whose gateway was lost before they settled.",
    "gateways_lost": "Gateways whose death was proven.",
}


def make_queue_histogram(metrics: Metrics) -> Histogram:
    return metrics.histogram("forebay_scheduler_queue_seconds", "From arrival at the gateway to the grant.")


def add_meters(metrics: Metrics, policy: Policy) -> None:
    tally = policy.tally
    for name, about in _COUNTS.items():
        metrics.counter_reading(f"forebay_scheduler_{name}", about, (), _reading(tally, name))
    metrics.counter_reading(
        "forebay_scheduler_rejects",
        "Requests refused, by reason.",
        ("reason",),
        lambda: [((str(reason),), count) for reason, count in list(tally.rejects.items())],
    )
    metrics.gauge(
        "forebay_scheduler_waiting",
        "Requests in the queue.",
        (),
        lambda: [((), sum(len(gateway.waiting) for gateway in policy.gateways))],
    )
    metrics.gauge(
        "forebay_scheduler_slots",
        "Slots of a backend: its cap, those held, those of dead gateways not returned yet.",
        ("backend", "what"),
        lambda: [
            ((backend.id, what), count)
            for backend in list(policy.fleet)
            for what, count in (
                ("cap", backend.slots),
                ("held", policy.holds.live_on(backend.id)),
                ("quarantined", policy.holds.quarantined_on(backend.id)),
            )
        ],
    )


def _reading(tally: Tally, name: str) -> Callable[[], list[tuple[tuple[str, ...], float]]]:
    return lambda: [((), float(getattr(tally, name)))]
