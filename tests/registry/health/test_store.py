"""Drains, windows and the history of health on a real PostgreSQL, and in the sealed file for when that is away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from forebay.clock import ManualClock
from forebay.database import Database
from forebay.sealed import Seal, SnapshotFile
from forebay_registry.backend import BackendId, Condition, Desired
from forebay_registry.health.keeper import LifecycleKeeper, decode_orders, encode_orders
from forebay_registry.health.lifecycle import CHANGES_KEPT, Change, Lifecycle
from forebay_registry.health.order_book import Orders
from forebay_registry.health.orders import Drain, Scope, Window
from forebay_registry.health.store import LifecycleStore
from forebay_registry.keeping.snapshot import NotReadable
from tests.registry.keeping.rows import add_backend, remove_while

ONE, GONE = BackendId("be-1"), BackendId("be-9")
GPU = Desired(ONE, "gpu", "http://gpu", None, "default", 4, None, "ada", 0.0)
DRAIN = Drain(Scope.BACKEND, "be-1", 1_000.5, "ada", 2_000.25, is_forced=True, reason="too hot")
WINDOW = Window("mw-1", Scope.POOL, "default", 5_000.0, 6_000.0, 600, "new driver", "bob", 1_000.0)
CHANGE = Change(
    ONE, "gpu", 7.25, Condition.HEALTHY, Condition.SATURATED, "queue", "Requests wait.", in_maintenance=True
)


@pytest.fixture
def kept(database: Database) -> LifecycleStore:
    return LifecycleStore(database)


async def test_orders_are_kept_changed_and_lifted(kept: LifecycleStore) -> None:
    assert await kept.orders() == Orders()
    await kept.put_drain(DRAIN)
    later = replace(DRAIN, ends_at=None, is_forced=False)
    of_node = replace(DRAIN, scope=Scope.NODE, subject="no-1")
    await kept.put_drain(later)
    await kept.put_drain(of_node)
    await kept.put_window(WINDOW)
    orders = await kept.orders()
    assert (set(orders.drains), orders.windows) == ({later, of_node}, (WINDOW,))
    await kept.lift_drain(Scope.BACKEND, "be-1")
    await kept.put_window(replace(WINDOW, id="mw-2", added_at=6_000.0 + 90_000.0))
    orders = await kept.orders()
    assert orders.drains == (of_node,)
    assert [w.id for w in orders.windows] == ["mw-2"], "a new one sweeps out those that have been over for long"
    await kept.remove_window("mw-2")
    assert (await kept.orders()).windows == ()


async def test_the_last_changes_of_each_backend_are_kept_and_go_with_it(
    kept: LifecycleStore, database: Database
) -> None:
    await add_backend(database, ONE, "gpu")
    many = [replace(CHANGE, at=float(number)) for number in range(CHANGES_KEPT + 5)]
    await kept.add_changes(many[:40])
    await kept.add_changes([*many[40:], replace(CHANGE, backend_id=GONE)])
    told = await kept.history()
    assert told == {ONE: many[5:]}


async def test_a_start_without_postgres_knows_the_orders_from_the_sealed_file(
    kept: LifecycleStore, tmp_path: Path
) -> None:
    clock = ManualClock(1_500.0)
    file = SnapshotFile(tmp_path / "orders", Seal(b"s" * 32, "orders"), 1e9)
    first, second = Lifecycle(clock), Lifecycle(clock)
    await kept.put_drain(DRAIN)
    keeper = LifecycleKeeper(first, kept, file, clock)
    await keeper.write_snapshot()
    assert not (tmp_path / "orders").exists(), "what is not known yet is not written down as nothing"
    await keeper.load()
    await keeper.write_snapshot()
    await LifecycleKeeper(second, kept, file, clock).start_from_snapshot()
    assert second.orders.all() == Orders((DRAIN,), ())


def test_orders_as_bytes_come_back_and_others_are_not_read() -> None:
    orders = Orders((DRAIN,), (WINDOW,))
    assert decode_orders(encode_orders(orders)) == orders
    for page in (b"{}", b"[]", b'{"format": 2}', b'{"format": 1, "drains": [{"scope": "moon"}], "windows": []}'):
        with pytest.raises(NotReadable):
            decode_orders(page)


async def test_a_change_that_postgres_refuses_is_lost_alone(kept: LifecycleStore, database: Database) -> None:
    await add_backend(database, ONE, "gpu")
    lifecycle = Lifecycle(ManualClock())
    keeper = LifecycleKeeper(lifecycle, kept, None, ManualClock())
    for reason in ("a\0b", "Requests wait."):
        lifecycle.unsaved.append(replace(CHANGE, reason=reason))
        await keeper.save_changes()
    assert not lifecycle.unsaved
    assert await kept.history() == {ONE: [CHANGE]}


async def test_a_backend_that_is_removed_while_its_changes_are_written_takes_nothing_along(
    kept: LifecycleStore, database: Database
) -> None:
    await add_backend(database, ONE, "gpu")
    await add_backend(database, "be-2", "cpu")
    both = [CHANGE, replace(CHANGE, backend_id=BackendId("be-2"))]
    await remove_while(database, "backends", ONE, kept.add_changes(both))
    assert list(await kept.history()) == ["be-2"]


async def test_the_sealed_file_of_orders_that_do_not_change_does_not_grow_old(
    kept: LifecycleStore, tmp_path: Path
) -> None:
    clock = ManualClock()
    file = SnapshotFile(tmp_path / "orders", Seal(b"s" * 32, "orders"), 7200.0)
    await kept.put_drain(DRAIN)
    keeper = LifecycleKeeper(Lifecycle(clock), kept, file, clock)
    await keeper.load()
    for _ in range(5):
        await keeper.write_snapshot()
        clock.advance(3600.0)
    later = Lifecycle(clock)
    await LifecycleKeeper(later, kept, file, clock).start_from_snapshot()
    assert later.orders.all() == Orders((DRAIN,), ())
