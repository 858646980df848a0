"""One term as the leader: starts from what the bus has kept, serves gateways, and stores what a successor needs, until the
lead is lost or the service ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from forebay import collector
from forebay.bus import Bus
from forebay.clock import Clock, micros
from forebay.errors import Unavailable
from forebay.metrics import Histogram
from forebay.subjects import DRAINING
from forebay.traces.spans import opened
from forebay_scheduler import orphans, standing
from forebay_scheduler.ceiling_store import CeilingStore
from forebay_scheduler.config import SchedulerSettings
from forebay_scheduler.doorway import Doorway
from forebay_scheduler.events import BusChanged, CeilingsStored, Event, StateStored
from forebay_scheduler.fencing import Deposed, TooLargeToStore
from forebay_scheduler.leadership import Leadership
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import Epoch
from forebay_scheduler.saved import NOTHING_SAVED
from forebay_scheduler.sessions import Sessions
from forebay_scheduler.state_store import StateStore
from forebay_scheduler.state_wire import read_state, state_to_wire

log = logging.getLogger(__name__)

_STATE_EVERY_S = 1.0
_DRAINING_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Means:
    """What every term is served with."""

    settings: SchedulerSettings
    clock: Clock
    bus: Bus
    doorway: Doorway
    queue_seconds: Histogram
    known: Callable[[], list[Event]]
    """The fleet and the policy, as far as they are known."""
    farewell_s: float


async def serve(means: Means, leadership: Leadership, on_begin: Callable[[], None]) -> None:
    """Wins the lead and keeps it as long as it can. Returns when it is lost; cancelled, it sends the gateways away."""
    epoch = await leadership.win()
    # From the start: reading what the last leader stored may take longer than the lead lasts.
    renewing = asyncio.create_task(leadership.renew(), name="renew")
    try:
        ceilings = CeilingStore(means.bus, means.clock, lambda is_away: means.doorway.apply((BusChanged(is_away),)))
        states = StateStore(means.bus, means.clock)
        # When this returns, no leader before this one can raise a ceiling or store a state.
        policy = await _begin(means, epoch, ceilings, states)
        if not renewing.done():
            await _lead(means, leadership, policy, ceilings, states, renewing, on_begin)
    except Deposed as deposed:
        log.info("another leads", extra={"action": "lead_lost", "why": deposed.message})
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)


async def _lead(
    means: Means,
    leadership: Leadership,
    policy: Policy,
    ceilings: CeilingStore,
    states: StateStore,
    renewing: asyncio.Task[None],
    on_begin: Callable[[], None],
) -> None:
    clock = means.clock
    sessions = Sessions(
        policy,
        clock,
        heartbeat_s=means.settings.heartbeat_s,
        fence_s=means.settings.fence_s,
        renewed_ago_s=lambda: leadership.renewed_ago_s,
        queue_seconds=means.queue_seconds,
        traces=opened(),
    )
    sessions.apply(means.known())
    means.doorway.begin(sessions)
    on_begin()
    collector.calm()
    work = [
        asyncio.create_task(sessions.tick(), name="tick"),
        asyncio.create_task(_store_ceilings(sessions, ceilings), name="store-ceilings"),
        asyncio.create_task(_store_states(sessions, states, clock), name="store-states"),
        asyncio.create_task(orphans.publish(sessions.orphans, means.bus), name="orphans"),
        asyncio.create_task(_tell_draining(sessions, means.bus), name="tell-draining"),
    ]
    try:
        done, _ = await asyncio.wait([*work, renewing], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # what went wrong, if something did
    finally:
        means.doorway.end()
        sessions.drain()
        await asyncio.sleep(means.farewell_s)  # so that gateways hear it and look for another leader at once
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


async def _begin(means: Means, epoch: Epoch, ceilings: CeilingStore, states: StateStore) -> Policy:
    recovered = await ceilings.claim(epoch)
    _, stored = await states.claim(epoch)
    wall_us = micros(means.clock.now())
    state = NOTHING_SAVED if stored is None else read_state(stored, wall_us)
    log.info(
        "starting from what the last leader stored",
        extra={"action": "recover", "gateways": len(recovered), "settled": len(state.settled)},
    )
    return Policy(
        means.settings.rules(),
        epoch,
        means.clock.monotonic(),
        recovered=recovered,
        state=state,
        seed=epoch.revision,
        wall_us=wall_us,
    )


async def _store_ceilings(sessions: Sessions, store: CeilingStore) -> None:
    """Until another leads. What is raised is told when it is stored."""
    while True:
        await sessions.has_order.wait()
        sessions.has_order.clear()
        order, sessions.to_store = sessions.to_store, None
        if order is None:
            continue
        try:
            await store.store(order)
        except TooLargeToStore as error:
            # What is stored already goes on; nothing can be raised above it.
            log.error("ceilings not stored", extra={"action": "ceilings_store", "why": error.message})
            continue
        sessions.apply((CeilingsStored(order.ticket),))


async def _tell_draining(sessions: Sessions, bus: Bus) -> None:
    """To the registry, which says when a backend is drained. Until another leads."""
    while True:
        await asyncio.sleep(_DRAINING_EVERY_S)
        report = standing.draining(sessions.policy)
        if report.backends:
            await bus.publish(DRAINING, report.SerializeToString())


async def _store_states(sessions: Sessions, store: StateStore, clock: Clock) -> None:
    """Until another leads. Ends of requests are confirmed to their gateways when they are stored."""
    while True:
        await asyncio.sleep(_STATE_EVERY_S)
        number, state = sessions.policy.save()
        payload = state_to_wire(state, micros(clock.now())).SerializeToString()
        try:
            await store.write(payload)
        except TooLargeToStore as error:
            log.error("state not stored: ends stay unconfirmed", extra={"action": "state_store", "why": error.message})
            continue
        except Unavailable as error:
            log.debug("state not stored", extra={"action": "state_store", "why": error.message})
            continue
        sessions.apply((StateStored(number),))
