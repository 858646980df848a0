"""One order on one backend, from its turn to its end or to the first thing that goes wrong. To try again is `runner`'s."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from forebay.clock import Clock
from forebay_registry.backend import NodeId
from forebay_registry.engines.probe import Target as Address
from forebay_registry.fleet.fleet import View
from forebay_registry.library.choosing import name_at
from forebay_registry.library.door import Door
from forebay_registry.library.job import Action, Job
from forebay_registry.library.loading import load, unload
from forebay_registry.library.ollama import Ollama
from forebay_registry.library.progress import Layers, demand_room
from forebay_registry.library.turns import Turns

FreeBytes = Callable[[NodeId], int | None]
"""On a node's disk, as its agent said lately; None when nobody tells."""


@dataclass(frozen=True, slots=True)
class Step:
    """News of an order under way. What is None or empty is as it was."""

    status: str = ""
    completed_bytes: int | None = None
    total_bytes: int | None = None
    note: str = ""
    load_ms: int | None = None
    warmup_ms: int | None = None


class Work:
    def __init__(
        self,
        session: aiohttp.ClientSession,
        clock: Clock,
        *,
        pulls_per_node: int,
        reserve_bytes: int,
        free_bytes: FreeBytes,
        node_name: Callable[[NodeId], str],
    ) -> None:
        self._session = session
        self._clock = clock
        self._turns = Turns(pulls_per_node)
        self._reserve_bytes = reserve_bytes
        self._free_bytes = free_bytes
        self._node_name = node_name
        self._rooms: dict[str, dict[Layers, int]] = {}
        """Node → what each pull there has yet to fetch, in bytes."""

    async def carry_out(self, job: Job, view: View, address: Address) -> AsyncGenerator[Step, None]:
        """Raises EngineTrouble."""
        door, model = self.door(view, address), name_at(view, job.model)
        match job.action:
            case Action.PULL:
                async with aclosing(self._pull(job, view, door, model)) as steps:
                    async for step in steps:
                        yield step
            case Action.DELETE:
                await Ollama(door).delete(model)
            case Action.COPY:
                await Ollama(door).copy(model, job.destination)
            case Action.PRELOAD:
                yield Step("loading")
                loaded = await load(door, view, model, keep_alive=job.keep_alive, source=job.source, clock=self._clock)
                yield Step("loaded", note=loaded.note, load_ms=loaded.load_ms, warmup_ms=loaded.warmup_ms)
            case Action.UNLOAD:
                await unload(door, view.kind, model)

    def door(self, view: View, address: Address) -> Door:
        return Door(self._session, address, view.name)

    async def _pull(self, job: Job, view: View, door: Door, model: str) -> AsyncGenerator[Step, None]:
        ollama = Ollama(door)
        yield Step("waiting for its turn")
        async with self._turns.turn(_store_of(view), model) as turn:
            if turn.brought and await ollama.digest_of(model) == turn.brought:
                turn.delivered = turn.brought
                yield Step("success", note="Another pull on its node had brought it.")
                return
            layers, room = Layers(), self._rooms.setdefault(view.node_id or "", {})
            try:
                async with aclosing(ollama.pull(model)) as lines:
                    async for line in lines:
                        is_new = layers.take(line)
                        if is_new and not job.force:
                            self._demand_room(layers, room, view)
                        room[layers] = layers.to_fetch
                        yield Step(line.status, layers.completed, layers.total)
            finally:
                room.pop(layers, None)
            turn.delivered = await ollama.digest_of(model)

    def _demand_room(self, layers: Layers, room: Mapping[Layers, int], view: View) -> None:
        if view.node_id is None:
            return
        promised = sum(to_fetch for other, to_fetch in room.items() if other is not layers)
        free, node = self._free_bytes(view.node_id), self._node_name(view.node_id)
        demand_room(layers.to_fetch, free, promised, self._reserve_bytes, backend=view.name, node=node)


def _store_of(view: View) -> str:
    return view.node_id or urlsplit(view.url).hostname or view.url
