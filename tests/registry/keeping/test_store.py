"""What outlives the process, on a real Postgres."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from forebay.database import Database, open_database
from forebay.errors import AlreadyExists
from forebay_registry.backend import (
    BackendId,
    Desired,
    EngineKind,
    Kept,
    Model,
    ModelFacts,
    Node,
    NodeId,
    Pool,
    Pull,
    Seen,
)
from forebay_registry.keeping import snapshot
from forebay_registry.keeping.store import MIGRATIONS, Store
from forebay_registry.keeping.tables import METADATA, SCHEMA
from forebay_registry.nodes.samples import Row, Sample
from tests.registry.conftest import Want
from tests.registry.keeping.rows import remove_while

NODE = Node(NodeId("no-1"), "gpu-1", 1_800_000_000.25, "ada", labels=(("rack", "a"),), note="left", has_agent=False)
BACKEND = Desired(
    BackendId("be-1"),
    "big",
    "http://gpu-1:8000",
    EngineKind.VLLM,
    "lab",
    8,
    NODE.id,
    changed_by="ada",
    changed_at=1_800_000_000.5,
    model_names=(("llama", "meta-llama/Llama-3.1-8B"), ("ours", "ours:7b")),
    enabled=False,
    gpu_indices=(0, 3),
    weight_milli=1500,
    kv_tokens=5_000_000_000,
    requests_per_minute=600,
    models_at_once=2,
    labels=(("rack", "a"), ("tier", "1")),
)
SEEN = Seen(EngineKind.VLLM, 16, (Model("a", 4096, ("chat", "vision"), True), Model("b")))


def row(sequence: int, heard_at: float, node: Node = NODE) -> Row:
    return Row(node.id, heard_at, Sample(node.name, 7, sequence, -5, f"sample {sequence}".encode()))


async def test_the_migrations_make_the_tables_that_the_queries_name(database: Database) -> None:
    import_module("forebay_registry.service")  # with all parts of it that have tables of their own

    def differences(connection: Connection) -> list[object]:
        options = {
            "include_schemas": True,
            "include_name": lambda name, kind, parents: kind != "schema" or name == SCHEMA,
            "include_object": lambda thing, name, kind, reflected, against: name != "schema_version",
            "compare_server_default": True,
        }
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), METADATA))

    async with database.reading() as connection:
        assert await connection.run_sync(differences) == []


async def test_a_newer_schema_with_more_columns_does_not_disturb_this_code(
    store: Store, database: Database, want: Want
) -> None:
    async with database.writing() as connection:
        for table in ("nodes", "backends", "backend_models", "last_samples"):
            await connection.execute(text(f"ALTER TABLE registry.{table} ADD COLUMN later text"))
    await want(NODE)
    await want(BACKEND)
    await store.remember(BACKEND.id, BACKEND.url, SEEN)
    await store.keep_samples([row(1, 10.0)])
    assert await store.load() == Kept((BACKEND,), (NODE,), {BACKEND.id: SEEN}, version=2)
    assert await store.last_samples() == {NODE.id: row(1, 10.0)}


async def test_what_was_wanted_and_seen_comes_back_as_it_was(store: Store, want: Want) -> None:
    assert await store.load() == Kept((), (), {})
    await want(NODE)
    await want(BACKEND)
    await store.remember(BACKEND.id, BACKEND.url, SEEN)
    plain = replace(BACKEND, id=BackendId("be-2"), name="small", url="http://small", kind=None, slots=0, node_id=None)
    await want(plain)
    kept = await store.load()
    assert set(kept.backends) == {BACKEND, plain}
    assert kept.nodes == (NODE,)
    assert kept.seen == {BACKEND.id: SEEN, plain.id: Seen()}


async def test_a_backend_at_another_address_has_not_been_seen_yet(store: Store, want: Want) -> None:
    await want(NODE)
    await want(BACKEND)
    await store.remember(BACKEND.id, BACKEND.url, SEEN)
    await want(replace(BACKEND, slots=9))
    assert (await store.load()).seen[BACKEND.id] == SEEN
    moved = replace(BACKEND, url="http://elsewhere")
    await want(moved)
    assert await store.load() == Kept((moved,), (NODE,), {BACKEND.id: Seen()}, version=4)
    await store.remember(BACKEND.id, BACKEND.url, SEEN)
    assert (await store.load()).seen[BACKEND.id] == Seen(), "news from the old address came late"


async def test_names_and_addresses_are_unique_whatever_this_process_believes(store: Store, want: Want) -> None:
    await want(NODE)
    await want(BACKEND)
    with pytest.raises(AlreadyExists, match="is taken by another one already"):
        await want(replace(BACKEND, id=BackendId("be-2"), url="http://other"))
    with pytest.raises(AlreadyExists):
        await want(replace(BACKEND, id=BackendId("be-2"), name="other"))
    with pytest.raises(AlreadyExists):
        await want(replace(NODE, id=NodeId("no-2")))


async def test_a_removed_backend_takes_its_models_along_and_late_news_of_it_changes_nothing(
    store: Store, want: Want
) -> None:
    await want(NODE)
    await want(BACKEND)
    await store.remember(BACKEND.id, BACKEND.url, SEEN)
    await want(gone={BACKEND.name})
    await want(gone={BACKEND.name})
    await store.remember(BACKEND.id, BACKEND.url, SEEN)
    assert await store.load() == Kept((), (NODE,), {}, version=3)


async def test_the_last_sample_of_each_node_is_kept_and_an_older_one_does_not_replace_it(
    store: Store, want: Want
) -> None:
    await want(NODE)
    stranger = Node(NodeId("no-9"), "gone", 0.0, "ada")
    await store.keep_samples([row(1, 10.0), row(1, 13.0, stranger)])
    await store.keep_samples([row(3, 14.0)])
    await store.keep_samples([row(2, 12.0)])
    assert await store.last_samples() == {NODE.id: row(3, 14.0)}


async def test_a_node_that_is_removed_while_samples_are_written_takes_nothing_along(
    store: Store, want: Want, database: Database
) -> None:
    other = Node(NodeId("no-2"), "gpu-2", 0.0, "ada")
    await want(NODE, other)
    await remove_while(database, "nodes", NODE.id, store.keep_samples([row(1, 10.0), row(1, 13.0, other)]))
    assert list(await store.last_samples()) == [other.id]


async def test_of_all_the_samples_that_the_version_before_kept_the_last_of_each_node_stays(
    postgres_url: str, tmp_path: Path
) -> None:
    (tmp_path / "versions").mkdir()
    for version in sorted((MIGRATIONS / "versions").glob("000[1-4]_*.py")):
        (tmp_path / "versions" / version.name).symlink_to(version)
    async with open_database(postgres_url, SCHEMA) as database:
        await database.prepare(tmp_path)
        async with database.writing() as connection:
            await connection.execute(
                text(
                    "INSERT INTO registry.nodes (id, name, enrolled_at, changed_by) VALUES ('no-1', 'gpu-1', now(), '')"
                )
            )
            for sequence in (1, 2):
                values = f"('no-1', 7, {sequence}, -5, to_timestamp({sequence}), 'sample {sequence}')"
                await connection.execute(
                    text(
                        "INSERT INTO registry.node_samples "
                        f"(node_id, agent_started_us, sequence, sampled_at_us, heard_at, payload) VALUES {values}"
                    )
                )
        await database.prepare(MIGRATIONS)
        assert await Store(database).last_samples() == {NODE.id: row(2, 2.0)}


async def test_changes_of_the_same_backend_at_the_same_time_end_in_one_of_them(store: Store, want: Want) -> None:
    await want(NODE)
    await want(BACKEND)
    others = [Seen(EngineKind.VLLM, n, tuple(Model(f"m{i:02}") for i in range(n))) for n in range(1, 12)]
    await asyncio.gather(*(store.remember(BACKEND.id, BACKEND.url, seen) for seen in others))
    assert (await store.load()).seen[BACKEND.id] in others


async def test_an_engine_kind_of_a_newer_version_is_found_out_by_probing(
    store: Store, database: Database, want: Want
) -> None:
    await want(replace(BACKEND, node_id=None))
    async with database.writing() as connection:
        await connection.execute(text("UPDATE registry.backends SET kind = 'tpu-thing', seen_kind = 'tpu-thing'"))
    kept = await store.load()
    assert (kept.backends[0].kind, kept.seen[BACKEND.id].kind) == (None, None)


NAMES = st.text(st.characters(codec="utf-8"), max_size=8)
MODELS = st.builds(
    Model, NAMES, st.none() | st.integers(0, 2**31), st.lists(NAMES, max_size=2).map(tuple), st.none() | st.booleans()
)
SEENS = st.builds(
    Seen, st.none() | st.sampled_from(EngineKind), st.none() | st.integers(1, 9), st.lists(MODELS).map(tuple)
)


@given(SEENS, st.floats(0, 2e9), st.none() | st.sampled_from(EngineKind))
def test_a_snapshot_is_read_back_as_it_was_written(seen: Seen, at: float, kind: EngineKind | None) -> None:
    pools = (Pool("lab", ("lab.example.com",), "/lab", ("llama",), Pull.NEVER),)
    models = (ModelFacts("llama", ("chat",), 8192, "Q4_K_M", 5_000_000_000, "The usual one."),)
    kept = Kept((replace(BACKEND, kind=kind, changed_at=at),), (NODE,), {BACKEND.id: seen}, pools, models, 7)
    assert snapshot.decode(snapshot.encode(kept)) == kept


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b'{"format": 2}', b'{"format":1,"backends":[{"x":1}],"nodes":[],"seen":{}}']
)
def test_a_snapshot_of_another_version_is_not_read(payload: bytes) -> None:
    with pytest.raises(snapshot.NotReadable):
        snapshot.decode(payload)
