"""What is so right now of what admin stands on, read when its metrics are."""

from __future__ import annotations

from collections.abc import Callable

from forebay.bus import Bus
from forebay.database import Database, measure_connections
from forebay.metrics import Metrics


def measure(metrics: Metrics, database: Database, bus: Bus, is_database_missing: Callable[[], bool]) -> None:
    """`is_database_missing`: as /readyz says it."""
    metrics.gauge(
        "forebay_admin_bus_connected", "1 while the bus is there.", (), lambda: [((), float(bus.is_connected))]
    )
    metrics.gauge(
        "forebay_admin_database_connected",
        "1 while Postgres answers.",
        (),
        lambda: [((), float(not is_database_missing()))],
    )
    measure_connections(metrics, "forebay_admin", database)
