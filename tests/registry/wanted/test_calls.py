"""The desired state of the fleet as a whole, from a call to Postgres and to whoever watches."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from forebay.clock import ManualClock
from forebay.database import Database
from forebay.errors import BadInput, NotFound
from forebay.plain_message import plain_of, read_message
from forebay.wire.v1 import fleet_pb2 as wire
from forebay_registry.backend import Condition, Model, Observed, Pool, Seen
from forebay_registry.fleet.fleet import Fleet
from forebay_registry.fleet.watch import Watchers
from forebay_registry.keeping.wanted_store import WantedStore
from forebay_registry.roster import Roster
from forebay_registry.wanted.calls import FleetCalls
from forebay_registry.wanted.catalog import models_of, parse_add
from forebay_registry.wanted.state import Outdated


class NoPatrol:
    """Looks at nothing."""

    def watch(self, *_: Any) -> None: ...
    def forget(self, *_: Any) -> None: ...


class House:
    """A registry's memory on a real Postgres."""

    def __init__(self, database: Database) -> None:
        self.fleet = Fleet()
        self.store = WantedStore(database)
        patrol: Any = NoPatrol()
        self.roster = Roster(
            fleet=self.fleet, watchers=Watchers(self.fleet), patrol=patrol, store=self.store, clock=ManualClock(100.0)
        )
        self.calls = FleetCalls(self.roster, self.store)

    async def open(self) -> House:
        self.roster.adopt(await self.store.load())
        self.roster.stored.set()
        return self

    async def change(self, fleet: dict[str, Any], **more: Any) -> wire.ChangeFleetResponse:
        wanted = read_message(wire.FleetSpec(), fleet)[0]
        return await self.calls.change(wire.ChangeFleetRequest(actor="ada", wanted=wanted, **more))

    async def read(self, version: int | None = None) -> dict[str, Any]:
        return plain_of((await self.calls.read(wire.ReadFleetRequest(version=version))).fleet)


@pytest.fixture
async def house(database: Database) -> House:
    return await House(database).open()


FLEET: dict[str, Any] = {
    "nodes": [{"name": "gpu-1"}],
    "backends": [{"name": "big", "url": "http://big:8000", "node": "gpu-1", "gpu_indices": [0], "weight": 2.0}],
    "pools": [{"name": "default", "hosts": ["llm.example.com"], "required_models": ["llama"]}],
    "models": [{"name": "llama", "context_length": 4096, "quantization": "fp8", "description": "Ours."}],
}


async def test_a_fleet_is_planned_made_told_and_the_same_again_changes_nothing(house: House) -> None:
    before = house.fleet.since(None)
    planned = await house.change(FLEET, dry_run=True)
    assert (planned.version, len(planned.changes), await house.read()) == (0, 4, {})
    made = await house.change(FLEET)
    assert made.version == 1
    assert made.changes == planned.changes
    assert await house.read() == FLEET
    told = house.fleet.since(before.version)
    assert told.pools == (Pool("default", ("llm.example.com",), "", ("llama",)),)
    (view,) = told.changed
    assert (view.name, view.gpu_indices, view.weight_milli) == ("big", (0,), 2000)
    again = await house.change(FLEET)
    assert (again.version, list(again.changes)) == (1, [])
    assert house.fleet.since(told.version).pools is None


async def test_every_way_to_change_the_fleet_makes_a_version_that_can_be_had_again(house: House) -> None:
    await house.change(FLEET)
    await house.roster.add_backend(parse_add(actor="bob", name="small", url="http://small", slots=2))
    await house.roster.name_models("big", {"llama": "meta/llama"}, (), "bob")
    await house.roster.enrol_node("gpu-1", "bob")
    await house.roster.remove_backend("big", "cid")
    versions = (await house.calls.versions(wire.ListFleetVersionsRequest())).versions
    beyond = wire.ListFleetVersionsRequest(before_version=2**64 - 1)  # more than Postgres counts to
    assert (await house.calls.versions(beyond)).versions == versions
    assert [(v.version, v.actor, [f"{c.kind} {c.name}" for c in v.changes]) for v in versions] == [
        (4, "cid", ["backend big"]),
        (3, "bob", ["backend big"]),
        (2, "bob", ["backend small"]),
        (1, "ada", ["node gpu-1", "pool default", "model llama", "backend big"]),
    ]
    (named,) = versions[1].changes[0].fields
    assert (named.field, named.before, named.after) == ("models", "", '{"llama":"meta/llama"}')
    assert await house.read(1) == FLEET
    assert await house.read(0) == {}
    assert [b["name"] for b in (await house.read(3))["backends"]] == ["big", "small"]
    with pytest.raises(NotFound, match="the newest is 4"):
        await house.read(5)


async def test_an_order_that_another_kind_of_call_cannot_say_keeps_the_rest(house: House) -> None:
    await house.change(FLEET)
    view, _ = await house.roster.add_backend(
        parse_add(actor="bob", name="big", url="http://big:8000", slots=3, replace=True)
    )
    assert (view.slots, view.weight_milli) == (3, 2000)


async def test_of_two_who_planned_on_the_same_version_one_wins_and_the_other_is_told(house: House) -> None:
    def pool(name: str) -> dict[str, Any]:
        return {"pools": [{"name": name}]}

    done = await asyncio.gather(
        house.change(pool("a"), base_version=0), house.change(pool("b"), base_version=0), return_exceptions=True
    )
    (lost,) = [one for one in done if isinstance(one, BaseException)]
    assert isinstance(lost, Outdated)
    assert "The fleet is at version 1 by now, and this was planned for 0" in lost.message
    assert [p.name for p in house.roster.pools()] == ["a"]


async def test_what_was_changed_behind_its_back_is_a_conflict_once_and_known_then(
    house: House, database: Database
) -> None:
    other = await House(database).open()
    await other.change({"pools": [{"name": "theirs"}]})
    with pytest.raises(Outdated, match="changed by somebody else"):
        await house.change({"pools": [{"name": "ours"}]})
    await house.change({"pools": [{"name": "ours"}]})
    assert [p.name for p in house.roster.pools()] == ["ours", "theirs"]


async def test_every_problem_is_told_at_once_and_nothing_is_changed(house: House) -> None:
    bad = {
        "backends": [
            {"name": "big", "url": "http://big", "slots": 10**6, "weight": -1.0},
            {"name": "lost", "url": "http://big", "node": "none"},
            {"name": "cloud", "url": "http://169.254.169.254/"},
        ],
        "pools": [{"name": "fine"}],
    }
    told = await house.change(bad)
    assert [problem.path for problem in told.problems] == [
        "backends.big.slots",
        "backends.big.weight",
        "backends.lost.node",
        "backends.big.url",
        "backends.lost.url",
        "backends.cloud.url",
    ]
    assert (told.version, list(told.changes), await house.read()) == (0, [], {})


async def test_one_backend_alone_is_kept_from_metadata_addresses_as_well(house: House) -> None:
    with pytest.raises(BadInput, match="metadata"):
        await house.roster.add_backend(parse_add(actor="bob", name="odd", url="http://metadata.google.internal"))


async def test_what_operators_say_of_a_model_goes_before_what_its_engine_says(house: House) -> None:
    await house.change(FLEET)
    (backend_id,) = house.roster.wanted().backends
    seen = Seen(models=(Model("llama", 131_072, ("chat",), quantization="Q4_0"), Model("other", 2048)))
    house.roster.observe(backend_id, Observed(Condition.HEALTHY, seen=seen))
    (view,) = house.roster.views()
    assert [(m.name, m.context_length, m.quantization, m.capabilities) for m in view.models] == [
        ("llama", 4096, "fp8", ("chat",)),
        ("other", 2048, "", ()),
    ]
    llama, other = models_of(house.roster.views(), house.roster.model_facts())
    assert (llama.context_length, llama.quantization, llama.description) == (4096, "fp8", "Ours.")
    assert llama.declared == ("context_length", "quantization", "description")
    assert other.declared == ()
    version = house.fleet.version
    await house.change({**FLEET, "models": []}, prune=True)
    assert [m.context_length for m in house.roster.views()[0].models] == [131_072, 2048]
    assert house.fleet.since(version).changed != ()


async def test_a_node_that_was_described_gets_its_agent_under_the_same_name(house: House) -> None:
    await house.change(FLEET)
    (described,) = house.roster.nodes()
    assert (described.has_agent, house.roster.agents) == (False, {})
    assert house.roster.node_ids == {"gpu-1": described.id}
    enrolled = await house.roster.enrol_node("gpu-1", "ada")
    assert (enrolled.id, enrolled.has_agent) == (described.id, True)
    assert house.roster.agents == {"gpu-1": enrolled.id}
    answer = await house.change({}, prune=True)
    assert [n.name for n in house.roster.nodes()] == ["gpu-1"]
    assert "has an agent" in answer.notes[0]
