"""The discovery among operators: two at once, one in the middle of its own steps, and a finder that breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from forebay.clock import ManualClock
from forebay.errors import NotFound, Unavailable
from forebay.wire.v1 import types_pb2
from forebay.wire.v1.discovery_pb2 import FoundEngine
from forebay.wire.v1.telemetry_pb2 import TelemetrySample
from forebay_registry.backend import BackendId, Desired, Kept, Node, NodeId
from forebay_registry.discovery.decide import ACTOR
from forebay_registry.discovery.discovery import Discovery
from forebay_registry.discovery.offers import Offer, Policy, Site
from forebay_registry.wanted import catalog
from forebay_registry.wanted.catalog import AddBackend

NODE = NodeId("no-1")
URL = "http://10.0.0.5:8000"


async def _at_once() -> None:
    return


class Roster:
    """As much of the real one as the discovery sees; what is decided is decided by the real catalog."""

    def __init__(self) -> None:
        self.backends: dict[BackendId, Desired] = {}
        self.nodes = {NODE: Node(NODE, "gpu-1", 0.0, "ada")}
        self.before: Callable[[], Awaitable[None]] = _at_once
        """What happens elsewhere before a change is made."""

    def kept(self) -> Kept:
        return Kept(tuple(self.backends.values()), tuple(self.nodes.values()), {})

    async def add_backend(self, order: AddBackend) -> tuple[Any, bool]:
        await self.before()
        return self.put(order)

    def put(self, order: AddBackend) -> tuple[Any, bool]:
        new_id = BackendId(f"be-{len(self.backends)}")
        added = catalog.add(order, self.backends, self.nodes, new_id=new_id, now=0.0)
        self.backends[added.backend.id] = added.backend
        return added.backend, added.created

    async def remove_backend(self, name: str, actor: str, *, only: Desired | None = None) -> Any:
        await self.before()
        gone = catalog.remove(name, self.backends, only=only)
        return self.backends.pop(gone.id)


class Memory:
    def __init__(self) -> None:
        self.kept = {NODE: Site("gpu-1", Policy.AUTO, addresses=("10.0.0.5",))}
        self.urls: dict[str, str] = {}
        self.lose_answers = False

    async def sites(self) -> dict[NodeId, Site]:
        await asyncio.sleep(0)
        return dict(self.kept)

    async def remembered(self) -> dict[str, str]:
        await asyncio.sleep(0)
        return dict(self.urls)

    async def put_site(self, node_id: NodeId, site: Site) -> None:
        await asyncio.sleep(0)
        self.kept[node_id] = site
        if self.lose_answers:
            raise Unavailable

    async def note_joined(self, node_id: NodeId, joined_from: str) -> None:
        await asyncio.sleep(0)
        self.kept[node_id] = replace(self.kept[node_id], joined_from=joined_from)

    async def remember(self, added: Mapping[str, str], now: float) -> None:
        self.urls.update(added)

    async def forget(self, urls: list[str]) -> None:
        for url in urls:
            self.urls.pop(url, None)


class House:
    def __init__(self, cluster: Any = None) -> None:
        self.clock, self.roster, self.memory = ManualClock(), Roster(), Memory()
        forget = {"agent": 60.0, "kubernetes": 60.0}
        self.discovery = Discovery(
            self.roster, self.memory, self.clock, usual=Policy.SUGGEST, forget_s=forget, cluster=cluster
        )

    def hear(self, *ports: int, kind: types_pb2.EngineKind.ValueType = types_pb2.ENGINE_KIND_VLLM) -> None:
        engines = [FoundEngine(kind=kind, port=port, listens_on="0.0.0.0") for port in ports]
        sample = TelemetrySample(node="gpu-1", engines=engines, engines_age_s=0)
        self.discovery.hear(NODE, sample, self.clock.now())

    async def round(self) -> None:
        await self.discovery._round()

    def the_operators(self) -> Desired:
        """The backend, adopted by ada at this very moment."""
        (backend,) = self.roster.backends.values()
        self.roster.backends[backend.id] = replace(backend, changed_by="ada", found_by="", pool="hers")
        return self.roster.backends[backend.id]


async def added() -> House:
    house = House()
    house.hear(8000)
    await house.round()
    assert [(b.url, b.changed_by) for b in house.roster.backends.values()] == [(URL, ACTOR)]
    return house


async def test_what_an_operator_takes_over_while_it_is_being_changed_stays_theirs() -> None:
    house = await added()

    async def adopt() -> None:
        house.the_operators()

    house.roster.before = adopt
    house.hear(8000, kind=types_pb2.ENGINE_KIND_SGLANG)
    await house.round()
    assert [(b.changed_by, b.found_by, b.pool) for b in house.roster.backends.values()] == [("ada", "", "hers")]


async def test_what_an_operator_takes_over_while_it_is_being_removed_stays() -> None:
    house = await added()
    house.hear()
    await house.round()
    house.clock.advance(61.0)
    house.hear()

    async def adopt() -> None:
        house.the_operators()

    house.roster.before = adopt
    await house.round()
    assert [b.changed_by for b in house.roster.backends.values()] == ["ada"]


async def test_two_operators_who_say_something_of_a_node_at_once_are_both_heard() -> None:
    house = House()
    say = house.discovery.set_site
    await asyncio.gather(
        say("gpu-1", policy=Policy.OFF, clear_policy=False, pool=None, addresses=None),
        say("gpu-1", policy=None, clear_policy=False, pool="lab", addresses=None),
        house.discovery.note_joined(NODE, "10.0.0.9"),
    )
    site = house.memory.kept[NODE]
    assert (site.policy, site.pool, site.joined_from) == (Policy.OFF, "lab", "10.0.0.9")
    assert await house.discovery.sites() == (site,)


async def test_what_was_said_counts_though_the_answer_of_postgres_was_lost() -> None:
    house = House()
    await house.discovery.sites()
    house.memory.lose_answers = True
    with pytest.raises(Unavailable):
        await house.discovery.set_site("gpu-1", policy=Policy.OFF, clear_policy=False, pool=None, addresses=None)
    assert [site.policy for site in await house.discovery.sites()] == [Policy.OFF]
    with pytest.raises(NotFound):
        await house.discovery.set_site("gpu-2", policy=None, clear_policy=False, pool=None, addresses=None)


async def test_a_finder_that_breaks_ends_neither_the_discovery_nor_the_registry(
    caplog: pytest.LogCaptureFixture, eventually: Callable[..., Any]
) -> None:
    class Broken:
        is_known = True

        @property
        def offers(self) -> tuple[Offer, ...]:
            raise ValueError("nobody foresaw this")

    house = House(Broken())
    running = asyncio.create_task(house.discovery.run())
    await eventually(lambda: "nobody foresaw this" in caplog.text)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
