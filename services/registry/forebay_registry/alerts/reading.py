"""The facts that rules look at, read from what the registry has in memory. Of each node the last sample is held as it came,
and read when it is asked for: samples are far more often than rounds."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from forebay.clock import Clock
from forebay.wire.v1 import telemetry_pb2
from forebay_registry.alerts.facts import BackendFacts, DiskFacts, Facts, GpuFacts, NodeFacts, Refused
from forebay_registry.backend import Condition, Node, NodeId
from forebay_registry.fleet.fleet import View
from forebay_registry.health.lifecycle import Change, Lifecycle
from forebay_registry.health.orders import Scope
from forebay_registry.nodes.troubles import Trouble

_MOST_GPUS, _MOST_DISKS = 64, 16
"""Of one node: more no machine has, and an agent that says so opens no thousand alerts."""
_MOST_TEXT = 200
_REFUSALS_KEPT = 200

T = TypeVar("T")


class FactReader:
    def __init__(
        self,
        clock: Clock,
        lifecycle: Lifecycle,
        *,
        views: Callable[[], Sequence[View]],
        nodes: Callable[[], Sequence[Node]],
        troubles_of: Callable[[NodeId], Mapping[Trouble, str]],
        has_postgres: Callable[[], bool],
        has_nats: Callable[[], bool],
        flap_window_s: float,
    ) -> None:
        self._clock = clock
        self._lifecycle = lifecycle
        self._views = views
        self._nodes = nodes
        self._troubles_of = troubles_of
        self._has_postgres = has_postgres
        self._has_nats = has_nats
        self._flap_window_s = flap_window_s
        self._samples: dict[NodeId, telemetry_pb2.TelemetrySample] = {}
        self._refusals: deque[tuple[float, str, str, str]] = deque(maxlen=_REFUSALS_KEPT)

    def hear(self, node_id: NodeId, sample: telemetry_pb2.TelemetrySample, heard_at: float) -> None:
        self._samples[node_id] = sample

    def hear_refusal(self, node: str, order: str, why: str) -> None:
        """Of a command, by the agent of that node."""
        self._refusals.append((self._clock.monotonic(), node, order, _text(why)))

    async def facts(self) -> Facts:
        """As of now, more or less: of a large fleet it takes a while, in which others have their turn. Raises Unavailable
        while the fleet is not known."""
        nodes, views = self._nodes(), self._views()
        today, now = self._clock.now(), self._clock.monotonic()
        names = {node.id: node.name for node in nodes}
        for gone in self._samples.keys() - names.keys():
            del self._samples[gone]
        resting = {w.subject for w in self._lifecycle.orders.windows() if w.scope is Scope.NODE and w.holds(today)}
        backends = [self._backend(view, names, today) async for view in _in_turns(views, 200) if view.enabled]
        told = [self._node(node, node.id in resting) async for node in _in_turns(nodes, 25) if node.has_agent]
        return Facts(
            backends=tuple(backends),
            nodes=tuple(told),
            refused=_last_refusals(self._refusals, now),
            has_postgres=self._has_postgres(),
            has_nats=self._has_nats(),
        )

    def _backend(self, view: View, names: Mapping[NodeId, str], today: float) -> BackendFacts:
        verdict, since = view.verdict, today - self._flap_window_s
        changed_at = verdict.since if verdict is not None else 0.0
        # Whoever has not changed in that time has not fallen in it either, and most have not.
        falls = _falls(self._lifecycle.changes_of(view.id), since) if changed_at >= since else 0
        return BackendFacts(
            name=view.name,
            pool=view.pool,
            node=names.get(view.node_id, "") if view.node_id is not None else "",
            condition=view.condition,
            since=changed_at,
            reason=_text(view.reason),
            falls=falls,
            missing_models=view.missing_models,
            models=tuple(model.name for model in view.models),
            in_maintenance=verdict is not None and verdict.maintenance_until is not None,
        )

    def _node(self, node: Node, in_maintenance: bool) -> NodeFacts:
        sample = self._samples.get(node.id)
        troubles = self._troubles_of(node.id)
        if sample is None:
            return NodeFacts(node.name, False, troubles, in_maintenance=in_maintenance)
        is_failed = sample.gpu_state == telemetry_pb2.GPU_STATE_FAILED
        return NodeFacts(
            name=node.name,
            is_heard=True,
            troubles=troubles,
            driver_error=(_text(sample.gpu_message) or "it says nothing.") if is_failed else "",
            gpus=tuple(_gpu(gpu, sample.sampled_at_us) for gpu in sample.gpus[:_MOST_GPUS]),
            disks=tuple(_disks(sample.host)),
            in_maintenance=in_maintenance,
        )


async def _in_turns(things: Sequence[T], most: int) -> AsyncIterator[T]:
    for number, thing in enumerate(things, start=1):
        yield thing
        if number % most == 0:
            await asyncio.sleep(0)


def _gpu(gpu: telemetry_pb2.GpuSample, sampled_at_us: int) -> GpuFacts:
    used = None
    if gpu.HasField("memory_used_bytes") and gpu.memory_total_bytes:
        used = gpu.memory_used_bytes / gpu.memory_total_bytes
    # Both by the node's own clock, so that it does not matter whether it is right.
    xid_age_s = (sampled_at_us - gpu.last_xid_at_us) / 1e6 if gpu.HasField("last_xid_at_us") else None
    return GpuFacts(
        index=gpu.index,
        name=_text(gpu.name),
        error=_text(gpu.error),
        temperature_c=gpu.temperature_c if gpu.HasField("temperature_c") else None,
        memory_temperature_c=gpu.memory_temperature_c if gpu.HasField("memory_temperature_c") else None,
        clock_reasons=tuple(gpu.clock_reasons),
        memory_used=used,
        ecc_uncorrected=gpu.ecc_uncorrected_volatile if gpu.HasField("ecc_uncorrected_volatile") else None,
        repair_pending=gpu.repair_pending,
        repair_failed=gpu.repair_failed,
        last_xid=gpu.last_xid if gpu.HasField("last_xid") else None,
        xid_age_s=xid_age_s,
    )


def _disks(host: telemetry_pb2.HostSample) -> Iterable[DiskFacts]:
    if host.disks:
        return [
            DiskFacts(_text(d.path), d.total_bytes, d.free_bytes) for d in host.disks[:_MOST_DISKS] if d.total_bytes
        ]
    if host.disk_total_bytes:  # an agent that tells of one only
        return [DiskFacts("/", host.disk_total_bytes, host.disk_free_bytes)]
    return []


def _falls(changes: Iterable[Change], since: float) -> int:
    """`changes`: the newest first."""
    falls = 0
    for change in changes:
        if change.at < since:
            break
        went = change.after.is_down or change.after is Condition.STARTING
        falls += change.before.takes_new and went and not change.in_maintenance
    return falls


def _last_refusals(refusals: Iterable[tuple[float, str, str, str]], now: float) -> tuple[Refused, ...]:
    """The last of each node."""
    last = {node: Refused(node, order, why, now - at) for at, node, order, why in refusals}
    return tuple(last.values())


def _text(told: str) -> str:
    """What others chose, as it may stand in a sentence, a log and a database."""
    if len(told) <= _MOST_TEXT and told.isprintable():  # as nearly all are
        return told
    return "".join(c if c.isprintable() else " " for c in told[:_MOST_TEXT]).strip()
