"""The lifecycle of backends, wired: states, what is heard of them, what is stored, and operators' calls."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from forebay.bus import Bus
from forebay.clock import Clock
from forebay.database import Database
from forebay.metrics import Metrics, Number
from forebay.sealed import SnapshotFile
from forebay.silence import silent_after_s
from forebay.wire.v1.telemetry_pb2 import TelemetrySample
from forebay_registry.backend import NodeId
from forebay_registry.health.attempts import Fault
from forebay_registry.health.calls import Fleet, LifecycleCalls
from forebay_registry.health.conditions import Breaker
from forebay_registry.health.keeper import LifecycleKeeper
from forebay_registry.health.lifecycle import Lifecycle
from forebay_registry.health.patrol import Patrol
from forebay_registry.health.reports import Reports
from forebay_registry.health.store import LifecycleStore
from forebay_registry.leadership.lead import Lead
from forebay_registry.leadership.standing import Standing
from forebay_registry.nodes.ingest import Ingest
from forebay_registry.nodes.messages import said


class LifecyclePart:
    def __init__(
        self,
        lifecycle: Lifecycle,
        *,
        fleet: Fleet,
        patrol: Patrol,
        ingest: Ingest,
        bus: Bus,
        database: Database,
        lead: Lead,
        file: SnapshotFile | None,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        store = LifecycleStore(database)
        self._lifecycle = lifecycle
        self._lead = lead
        self._reports = Reports(bus, clock, lifecycle, patrol, faults=_count_faults(metrics))
        self.keeper = LifecycleKeeper(
            lifecycle,
            store,
            file,
            clock,
            epoch=lambda: lead.stance.epoch,
            stands_by=lambda: lead.stance.standing is Standing.STANDBY,
        )
        self.calls = LifecycleCalls(fleet, lifecycle, store, clock)
        ingest.on_sample.append(self._hear_sample)
        metrics.gauge(
            "forebay_registry_breakers",
            "Backends by the state of their circuit breakers.",
            ("state",),
            lambda: _by_breaker(patrol),
        )

    def work(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What is to be run beside the service, by name."""
        acting: Callable[..., Coroutine[Any, Any, None]] = self._lead.acting.during
        return {
            "hear-attempts": self._reports.hear_attempts(),
            "hear-draining": self._reports.hear_draining(),
            "tell-health": acting(self._reports.tell),
            "tick-health": acting(self._lifecycle.tick),
            "keep-health": self.keeper.run(),
        }

    def _hear_sample(self, node_id: NodeId, sample: TelemetrySample, heard_at: float) -> None:
        host = sample.host
        silent_after = silent_after_s(said(sample).interval_s)
        self._lifecycle.hear_host(node_id, host.memory_total_bytes, host.memory_available_bytes, silent_after)


def _by_breaker(patrol: Patrol) -> list[tuple[tuple[str], float]]:
    counted = patrol.breakers()
    return [((str(breaker),), float(counted[breaker])) for breaker in Breaker]


def _count_faults(metrics: Metrics) -> dict[Fault, Number]:
    counter = metrics.counter(
        "forebay_registry_reports_dropped", "Reports of gateways' attempts that were not taken.", ("reason",)
    )
    return {fault: counter.child(fault) for fault in Fault}
