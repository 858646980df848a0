"""Watchers at their own speed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from forebay_registry.backend import BackendId, Condition, Desired, Load, Observed
from forebay_registry.fleet.fleet import Fleet, Update, View, apply, view_of
from forebay_registry.fleet.watch import Told, Watchers
from tests.leaping_time import in_leaping_time

WANTED = Desired(BackendId("be-1"), "one", "http://one", None, "default", 1, None, changed_by="ada", changed_at=1.0)
VIEW = view_of(WANTED, Observed(), has_credential=False)


def with_running(running: int) -> View:
    return replace(VIEW, load=Load(running, None, None, 1.0))


def heard(told: Told) -> Update:
    assert told.update is not None
    return told.update


class Watched:
    def __init__(self, load_gap_s: float = 0.1) -> None:
        self.fleet = Fleet()
        self.watchers = Watchers(self.fleet, load_gap_s)

    def put(self, view: View) -> None:
        if self.fleet.put(view):
            self.watchers.notify()


@in_leaping_time
async def test_nobody_sees_an_empty_fleet_before_the_real_one_is_known() -> None:
    watched = Watched()
    following = watched.watchers.follow()
    first = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0.02)
    assert not first.done()
    watched.put(VIEW)
    watched.watchers.open(7)
    told = await first
    update = told.update
    assert told.epoch == 7
    assert update is not None
    assert (update.is_snapshot, update.changed) == (True, (VIEW,))
    assert watched.watchers.count == 1
    await following.aclose()  # type: ignore[attr-defined]
    assert watched.watchers.count == 0


@in_leaping_time
async def test_a_change_of_health_is_told_at_once_gauges_only_at_the_gap() -> None:
    watched, loop = Watched(load_gap_s=0.3), asyncio.get_running_loop()
    watched.put(VIEW)
    watched.watchers.open(1)
    following = watched.watchers.follow()
    await anext(following)
    began = loop.time()
    watched.put(with_running(1))
    pending = asyncio.ensure_future(anext(following))
    for running in range(2, 10):
        await asyncio.sleep(0.01)
        watched.put(with_running(running))
    update = heard(await pending)
    assert [v.load and v.load.running for v in update.changed] == [9], "the newest, once"
    assert loop.time() - began > 0.25
    began = loop.time()
    pending = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    watched.put(with_running(10))
    await asyncio.sleep(0.02)
    assert not pending.done()
    watched.put(replace(with_running(11), condition=Condition.UNHEALTHY))
    update = heard(await asyncio.wait_for(pending, 0.1))
    assert update.changed[0].condition is Condition.UNHEALTHY
    assert loop.time() - began < 0.2


@in_leaping_time
async def test_a_thousand_changes_while_a_watcher_sleeps_are_one_update() -> None:
    watched = Watched(load_gap_s=0.0)
    watched.watchers.open(1)
    following = watched.watchers.follow()
    known = apply({}, heard(await anext(following)))
    for number in range(1000):
        watched.put(replace(VIEW, slots=number + 1))
    update = heard(await asyncio.wait_for(anext(following), 30))
    assert len(update.changed) == 1
    assert apply(known, update) == {VIEW.id: replace(VIEW, slots=1000)}
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(following), 0.02)


@in_leaping_time
async def test_one_that_stands_by_says_who_leads_and_begins_each_epoch_with_a_snapshot() -> None:
    watched = Watched()
    watched.put(VIEW)
    following = watched.watchers.follow()
    watched.watchers.stand_by(5, "one:8094")
    assert await anext(following) == Told(5, None, "one:8094")
    pending = asyncio.ensure_future(anext(following))
    watched.put(replace(VIEW, slots=9))
    watched.watchers.stand_by(5, "one:8094")
    await asyncio.sleep(0.01)
    assert not pending.done(), "the same word again is no news, and what is seen here is none either"
    for epoch in (6, 7):
        watched.watchers.open(epoch)
        told = await asyncio.wait_for(pending, 30)
        assert (told.epoch, heard(told).is_snapshot, len(heard(told).changed)) == (epoch, True, 1)
        pending = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0)
    watched.watchers.stand_by(8, "two:8094")
    assert await asyncio.wait_for(pending, 30) == Told(8, None, "two:8094")
