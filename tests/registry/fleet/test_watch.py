"""Watchers at their own speed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from forebay_registry.backend import BackendId, Condition, Desired, Load, Observed
from forebay_registry.fleet.fleet import Fleet, Update, View, apply, view_of
from forebay_registry.fleet.watch import Watchers

WANTED = Desired(BackendId("be-1"), "one", "http://one", None, "default", 1, None, changed_by="ada", changed_at=1.0)
VIEW = view_of(WANTED, Observed(), has_credential=False)


def with_running(running: int) -> View:
    return replace(VIEW, load=Load(running, None, None, 1.0))


class Watched:
    def __init__(self, load_gap_s: float = 0.1) -> None:
        self.fleet = Fleet(term_us=1)
        self.watchers = Watchers(self.fleet, load_gap_s)

    def put(self, view: View) -> None:
        if self.fleet.put(view):
            self.watchers.notify()


async def test_nobody_sees_an_empty_fleet_before_the_real_one_is_known() -> None:
    watched = Watched()
    following = watched.watchers.follow()
    first = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0.02)
    assert not first.done()
    watched.put(VIEW)
    watched.watchers.open()
    update = await first
    assert (update.is_snapshot, update.changed) == (True, (VIEW,))
    assert watched.watchers.count == 1
    await following.aclose()  # type: ignore[attr-defined]
    assert watched.watchers.count == 0


async def test_a_change_of_health_is_told_at_once_gauges_only_at_the_gap() -> None:
    watched, loop = Watched(load_gap_s=0.3), asyncio.get_running_loop()
    watched.put(VIEW)
    watched.watchers.open()
    following = watched.watchers.follow()
    await anext(following)
    began = loop.time()
    watched.put(with_running(1))
    pending = asyncio.ensure_future(anext(following))
    for running in range(2, 10):
        await asyncio.sleep(0.01)
        watched.put(with_running(running))
    update = await pending
    assert [v.load and v.load.running for v in update.changed] == [9], "the newest, once"
    assert loop.time() - began > 0.25
    began = loop.time()
    pending = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    watched.put(with_running(10))
    await asyncio.sleep(0.02)
    assert not pending.done()
    watched.put(replace(with_running(11), condition=Condition.UNHEALTHY))
    update = await asyncio.wait_for(pending, 0.1)
    assert update.changed[0].condition is Condition.UNHEALTHY
    assert loop.time() - began < 0.2


async def test_a_thousand_changes_while_a_watcher_sleeps_are_one_update() -> None:
    watched = Watched(load_gap_s=0.0)
    watched.watchers.open()
    following = watched.watchers.follow()
    known = apply({}, await anext(following))
    for number in range(1000):
        watched.put(replace(VIEW, slots=number + 1))
    update: Update = await asyncio.wait_for(anext(following), 1)
    assert len(update.changed) == 1
    assert apply(known, update) == {VIEW.id: replace(VIEW, slots=1000)}
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(following), 0.02)
