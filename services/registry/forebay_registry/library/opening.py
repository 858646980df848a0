"""The library, wired: what else of the registry it needs comes in, its calls and its work go out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import aiohttp

from forebay.clock import Clock
from forebay.database import Database
from forebay.wire.v1.telemetry_pb2 import TelemetrySample
from forebay_registry.backend import Node, NodeId, Pool
from forebay_registry.library.calls import LibraryCalls
from forebay_registry.library.pins import Pins
from forebay_registry.library.runner import Fleet, JobRunner
from forebay_registry.library.store import LibraryStore
from forebay_registry.library.upkeep import Upkeep
from forebay_registry.library.work import Work
from forebay_registry.nodes.samples import Hearing

_FRESH_S = 60.0
"""What an agent said longer ago says nothing of the room that there is."""


class Library:
    def __init__(
        self,
        fleet: Fleet,
        session: aiohttp.ClientSession,
        database: Database,
        clock: Clock,
        *,
        nodes: Callable[[], tuple[Node, ...]],
        pools: Callable[[], Mapping[str, Pool]],
        heard_of: Callable[[NodeId], Hearing],
        pulls_per_node: int,
        reserve_bytes: int,
        upkeep_s: float,
    ) -> None:
        store = LibraryStore(database)
        work = Work(
            session,
            clock,
            pulls_per_node=pulls_per_node,
            reserve_bytes=reserve_bytes,
            free_bytes=lambda node_id: free_bytes(heard_of(node_id), clock.now()),
            node_name=lambda node_id: next((node.name for node in nodes() if node.id == node_id), node_id),
        )
        self.runner = JobRunner(fleet, work, store, clock)
        self._upkeep = Upkeep(self.runner, store, clock, views=fleet.views, pools=pools, every_s=upkeep_s)
        self.calls = LibraryCalls(fleet, self.runner, Pins(fleet, self.runner, work, store, clock), work)

    async def run(self) -> None:
        """Until cancelled, and again afterwards. The tables and the fleet must be there."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.runner.run(), name="model-jobs")
            tasks.create_task(self._upkeep.run(), name="model-upkeep")


def free_bytes(hearing: Hearing, now: float) -> int | None:
    """On the roomiest of the disks that the node's agent tells of, since nobody says on which of them the models lie; None
    when it does not tell, or not lately."""
    if hearing.last is None or hearing.heard_at is None or now - hearing.heard_at > _FRESH_S:
        return None
    host = TelemetrySample.FromString(hearing.last.payload).host
    told = [disk.free_bytes for disk in host.disks if disk.total_bytes]
    if host.disk_total_bytes:
        told.append(host.disk_free_bytes)
    return max(told, default=None)
