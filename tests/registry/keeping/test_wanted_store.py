"""The desired state on a real Postgres: one transaction and one version for each change."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from forebay.database import Database
from forebay.errors import AlreadyExists
from forebay_registry.backend import BackendId, Desired, EngineKind, Kept, ModelFacts, Node, NodeId, Pool, Pull, Seen
from forebay_registry.keeping.store import Store
from forebay_registry.keeping.wanted_store import WantedStore
from forebay_registry.wanted.state import Change, Edit, Kind, Outdated

NODE = Node(NodeId("no-1"), "gpu-1", 5.0, "ada", labels=(("rack", "a"),), note="left", has_agent=False)
POOL = Pool("lab", ("lab.example.com",), "/lab", ("llama",), Pull.NEVER)
FACTS = ModelFacts("llama", ("chat",), 8192, "Q4_K_M", 5_000_000_000, "The usual one.")
CREATED = (Change(Kind.POOL, "lab", None, {"name": "lab"}),)


def backend(name: str, url: str) -> Desired:
    return Desired(BackendId(f"be-{name}"), name, url, None, "default", 0, None, changed_by="ada", changed_at=5.0)


async def test_a_change_is_stored_whole_and_comes_back_as_it_was(database: Database) -> None:
    store = WantedStore(database)
    big = backend("big", "http://big")
    await store.write(Edit(0, "ada", 7.0, CREATED, (big,), (NODE,), (POOL,), (FACTS,)))
    assert await store.load() == Kept((big,), (NODE,), {big.id: Seen()}, (POOL,), (FACTS,), version=1)
    gone = (Change(Kind.POOL, "lab", {"name": "lab"}, None),)
    await store.write(
        Edit(
            1,
            "bob",
            8.0,
            gone,
            gone_backends=(big.id,),
            gone_nodes=(NODE.id,),
            gone_pools=("lab",),
            gone_models=("llama",),
        )
    )
    assert await store.load() == Kept((), (), {}, version=2)
    versions = await store.versions(limit=10)
    assert [(v.number, v.actor, v.at, v.changes) for v in versions] == [(2, "bob", 8.0, gone), (1, "ada", 7.0, CREATED)]
    assert [v.number for v in await store.versions(limit=1, before=2)] == [1]
    assert [v.number for v in await store.versions(limit=9, after=1)] == [2]


async def test_of_two_changes_of_one_version_one_is_made_and_the_other_wholly_not(database: Database) -> None:
    store = WantedStore(database)
    edits = [
        Edit(0, name, 1.0, CREATED, (backend(name, f"http://{name}"),), pools=(Pool(f"of-{name}"),))
        for name in ("a", "b")
    ]
    done = await asyncio.gather(*(store.write(edit) for edit in edits), return_exceptions=True)
    assert [type(one) for one in done if one is not None] == [Outdated]
    kept = await store.load()
    winner = edits[done.index(None)].actor
    assert ([b.name for b in kept.backends], [p.name for p in kept.pools]) == ([winner], [f"of-{winner}"])
    assert len(await store.versions(limit=9)) == 1


async def test_two_backends_change_places_and_what_was_seen_of_them_is_void(database: Database) -> None:
    store = WantedStore(database)
    await store.write(Edit(0, "ada", 1.0, CREATED, (backend("a", "http://a"), backend("b", "http://b"))))
    await Store(database).remember(BackendId("be-a"), "http://a", Seen(EngineKind.VLLM, 4))
    await store.write(Edit(1, "ada", 2.0, CREATED, (backend("a", "http://b"), backend("b", "http://a"))))
    kept = await store.load()
    assert {b.name: b.url for b in kept.backends} == {"a": "http://b", "b": "http://a"}
    assert set(kept.seen.values()) == {Seen()}


async def test_a_name_that_is_taken_leaves_nothing_of_the_change(database: Database) -> None:
    store = WantedStore(database)
    await store.write(Edit(0, "ada", 1.0, CREATED, (backend("a", "http://a"),)))
    with pytest.raises(AlreadyExists):
        await store.write(Edit(1, "ada", 2.0, CREATED, (backend("b", "http://a"),), pools=(POOL,)))
    kept = await store.load()
    assert (kept.pools, kept.version) == ((), 1)


async def test_facts_about_nodes_make_no_version(database: Database) -> None:
    store = WantedStore(database)
    await store.write(Edit(0, "ada", 1.0, (), nodes=(NODE,)))
    assert (await store.load()).version == 0
    assert await store.versions(limit=9) == ()


async def test_a_backend_whose_node_goes_stays_without_one(database: Database) -> None:
    store = WantedStore(database)
    on_it = Desired(BackendId("be-a"), "a", "http://a", None, "default", 0, NODE.id, changed_by="ada", changed_at=5.0)
    await store.write(Edit(0, "ada", 1.0, CREATED, (on_it,), (NODE,)))
    await store.write(Edit(1, "ada", 1.0, CREATED, gone_nodes=(NODE.id,)))
    assert (await store.load()).backends[0].node_id is None


async def test_words_of_a_newer_version_are_passed_over(database: Database) -> None:
    store = WantedStore(database)
    await store.write(Edit(0, "ada", 1.0, CREATED, pools=(POOL,)))
    async with database.writing() as connection:
        await connection.execute(text("UPDATE registry.pools SET pull = 'nightly'"))
        await connection.execute(
            text(
                "UPDATE registry.fleet_versions SET changes = "
                """'[{"kind": "region", "name": "x", "before": null, "after": {}}]'::jsonb"""
            )
        )
    assert (await store.load()).pools[0].pull is Pull.NEVER
    assert (await store.versions(limit=1))[0].changes == ()
