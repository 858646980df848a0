"""The scheduler's core: state, event and time in, decisions out. Synchronous and pure; no clock is read here.

This file knows which gateways live, which are out of reach and which are dead, and what follows for what they had. What
becomes of a single request is `dispatch`'s business; streams, files and tasks are nobody's here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from forebay_scheduler import events as ev
from forebay_scheduler.decisions import Decision, Orphan, SessionEnded, Settled, StoredCeilings
from forebay_scheduler.dispatch import Dispatch
from forebay_scheduler.gateways import Gateway, Roster
from forebay_scheduler.holds import Held
from forebay_scheduler.lost import Lost
from forebay_scheduler.quarantine import Quarantine, Quarantined
from forebay_scheduler.request import BackendId, Epoch, Process, Request
from forebay_scheduler.rules import Rules
from forebay_scheduler.saved import NOTHING_SAVED, SavedState
from forebay_scheduler.tally import Tally

_Handler = Callable[[Gateway, Any], None]


class Policy:
    def __init__(
        self,
        rules: Rules,
        epoch: Epoch,
        now: float,
        *,
        recovered: Iterable[StoredCeilings] = (),
        state: SavedState = NOTHING_SAVED,
        seed: int = 0,
        wall_us: int | None = None,
    ) -> None:
        """`recovered`: the most that each gateway may hold, as the last leader stored it. Until a gateway has spoken to
        this leader, or its death is proven, all of that counts as held. `state`: what the last leader had counted.
        `wall_us`: the time of day, microseconds since the epoch; without it no budget has a period before the first Tick."""
        self._rules = rules
        self._now = self._ticked_at = now
        self._roster = Roster()
        self._lost = Lost()
        self._quarantine = Quarantine()
        self._unheard: set[Process] = set()
        self._listening_since = now
        self.dispatch = Dispatch(
            rules, epoch, now, gateway_of=self._roster.at, recovered=state.settled, seed=seed, wall_us=wall_us
        )
        self._ceilings = self.dispatch.ceilings
        self.dispatch.restore(state)
        self._recover(list(recovered))
        dispatch = self.dispatch
        self._handlers: dict[type, _Handler] = {
            ev.Heard: lambda gateway, said: None,
            ev.Submit: lambda gateway, said: dispatch.submit(gateway, said.request),
            ev.Settle: self._settle,
            ev.FirstToken: lambda gateway, said: dispatch.note_first_token(gateway, said.ledger_id, said.ttft_s),
            ev.Progress: lambda gateway, said: dispatch.note_progress(gateway, said.ledger_id, said.completion_tokens),
            ev.Cancel: lambda gateway, said: dispatch.cancel(gateway, said.ledger_id),
            ev.Nack: dispatch.nack,
            ev.CeilingAcked: self._ceiling_acked,
            ev.Beat: lambda gateway, said: dispatch.lend(gateway, said.seq),
            ev.CreditStarted: dispatch.credit_started,
            ev.CreditReturned: lambda gateway, said: dispatch.credit_returned(gateway, said.credit),
            ev.AllotmentReturned: lambda gateway, said: dispatch.allotment_returned(gateway, said.allotment),
            ev.GatewayLeft: lambda gateway, said: self._leave(gateway),
        }

    # -- what the edge says and asks ----------------------------------------------------------------------------------

    def apply(self, events: Iterable[ev.Event], now: float) -> list[Decision]:
        """Take in what has happened, and start what can start."""
        happened = tuple(events)  # all of them or none: one that cannot be read must not cost the others' decisions
        now = max(now, self._now)  # a clock that goes back stands still
        if now - self._now > self._rules.session_ttl_s:
            # It was this process that slept: what the gateways said meanwhile lies unread, so nobody is silent yet.
            self._listening_since = now
        self._now = now
        out = self.dispatch.begin_turn(now)
        for event in happened:
            handler = self._handlers.get(type(event))
            if handler is None:
                self._take_in(event)
                continue
            gateway = self._roster.speaking(event.session)  # type: ignore[union-attr]
            if gateway is None:
                self._turn_away(event.session)  # type: ignore[union-attr]
                continue
            gateway.heard_at = now
            if gateway.is_silent:
                self._end_session(gateway, "nothing was heard of it for too long; its next Hello tells where it stands")
                continue
            handler(gateway, event)
        self.dispatch.end_turn()
        for told in self._ceilings.turn(self._now):
            out.append(told)
        return out

    def stop(self) -> None:
        """Grant nothing more; what runs is settled as before."""
        self.dispatch.may_start = False

    @property
    def epoch(self) -> Epoch:
        return self.dispatch.epoch

    @property
    def tally(self) -> Tally:
        return self.dispatch.tally

    @property
    def gateways(self) -> Iterator[Gateway]:
        return iter(self._roster)

    @property
    def unheard(self) -> int:
        """Gateways of the stored ceilings that have not spoken to this leader yet."""
        return len(self._unheard)

    def queued(self) -> Iterator[Request]:
        """What waits for slots, pool by pool; requests of gateways that are out of reach are not among it."""
        return self.dispatch.queued()

    def quarantined_on(self, backend: BackendId) -> int:
        return self._quarantine.slots_on(backend)

    def save(self) -> tuple[int, SavedState]:
        """The state as it is now, and its number, to be told with StateStored once it is stored."""
        number, settled = self.dispatch.settlements.begin_state()
        return number, replace(self.dispatch.saved(), settled=tuple(settled))

    # -- events -------------------------------------------------------------------------------------------------------

    def _take_in(self, event: ev.Event) -> None:
        dispatch = self.dispatch
        match event:
            case ev.Tick(wall_us):
                self._let_time_pass(wall_us)
            case ev.FleetChanged(backends):
                dispatch.change_fleet(backends)
                self._review_out_of_reach()
                self._release_quarantine()
            case ev.BackendsReported(backends):
                dispatch.slots.report(backends, self._now)
                self._release_quarantine()
            case ev.PolicyChanged():
                dispatch.change_policy(event)
                for gateway in self._roster:
                    for user in event.removed:
                        dispatch.revoke_waiting(gateway, user)
            case ev.SessionOpened():
                self._open(event)
            case ev.GatewayDied(name, generation):
                known = self._roster.at((name, generation))
                if known is not None:
                    self._end_session(known, "this gateway was reported dead")
                    self._bury(known)
            case ev.SessionLost(session):
                lost = self._roster.speaking(session)
                if lost is not None:
                    self._roster.close_session(lost)
                    if not lost.is_silent:
                        self._lose(lost)
            case ev.CeilingsStored(ticket):
                self._ceilings.stored(ticket)
                dispatch.ceilings_changed()
            case ev.StateStored(number):
                for process, ledger_id in dispatch.settlements.stored(number):
                    teller = self._roster.at(process)
                    if teller is not None and teller.session is not None:
                        dispatch.out.append(Settled(teller.session, ledger_id))
            case ev.SettledAcked(ledger_ids):
                dispatch.settlements.acked(ledger_ids)
            case ev.BusChanged(is_away):
                self._ceilings.bus_changed(is_away)
                dispatch.ceilings_changed()
            case ev.DrainAsked():
                dispatch.slots.drain(event, self._now)
            case _:
                raise TypeError(f"no such event: {event!r}")

    def _turn_away(self, session: Any) -> None:
        ended = SessionEnded(session, "another session speaks for this gateway, or it was given up")
        if ended not in self.dispatch.out:
            self.dispatch.out.append(ended)

    def _settle(self, gateway: Gateway, settle: ev.Settle) -> None:
        self.dispatch.settle(gateway, settle)
        self._lost.settled(gateway.name, settle.ledger_id)

    def _ceiling_acked(self, gateway: Gateway, acked: ev.CeilingAcked) -> None:
        self._ceilings.acked(acked.session, acked.backend, acked.version, acked.held)
        self.dispatch.ceilings_changed()

    # -- gateways that come and go ------------------------------------------------------------------------------------

    def _open(self, hello: ev.SessionOpened) -> None:
        dispatch = self.dispatch
        if self._roster.is_outdated(hello.gateway, hello.generation):
            dispatch.out.append(SessionEnded(hello.session, "a later start of this gateway is known"))
            return
        known = self._roster.get(hello.gateway)
        if known is not None:
            self._end_session(known, "the gateway has opened another session")
            if known.generation < hello.generation:
                self._bury(known)
            else:
                dispatch.take_back_untold(known.process)
        gateway = self._roster.open(hello.gateway, hello.generation, hello.session, self._now)
        self._unheard.discard(gateway.process)
        self._lost.found(gateway.process)
        self._quarantine.drop(gateway.process)
        self._drop_waiting(gateway)
        for settle in hello.settles:
            self._settle(gateway, settle)
        claims = {claim.request.ledger_id: claim for claim in hello.claims}
        for held in dispatch.holds.of(gateway.process):
            claim = claims.get(held.request.ledger_id)
            if claim is None or claim.lease != held.lease:
                dispatch.forget(held)
        held_slots: dict[BackendId, int] = {}
        for claim in hello.claims:
            held_slots[claim.backend] = held_slots.get(claim.backend, 0) + claim.request.width
        dispatch.end_lending(gateway.process)
        self._ceilings.open(gateway.process, hello.session, held_slots, dict(hello.ceilings))
        for claim in hello.claims:
            dispatch.claim(gateway, claim)
        for request in hello.queued:
            if not dispatch.knows(request.ledger_id) and request.ledger_id not in dispatch.settlements:
                dispatch.requeue(gateway, request)
        self._review_out_of_reach()
        dispatch.ceilings_changed()

    def _leave(self, gateway: Gateway) -> None:
        self._drop_waiting(gateway)
        for held in self.dispatch.holds.of(gateway.process):
            self.dispatch.forget(held)
        self.dispatch.end_lending(gateway.process)
        self._ceilings.leave(gateway.process)
        self._roster.remove(gateway)
        self._review_out_of_reach()
        self.dispatch.ceilings_changed()

    def _lose(self, gateway: Gateway) -> None:
        """It is out of reach and may return: its requests are parked, its grants stand, and it may begin work within its
        ceilings by itself."""
        gateway.lost_at = self._now
        self.dispatch.park(gateway)
        self._ceilings.lose(gateway.process)
        self._review_out_of_reach()
        self._note_lost(gateway)

    def _bury(self, gateway: Gateway, *, blind_until: float | None = None) -> None:
        """Its death is proven: what waited is dropped, its slots go into quarantine."""
        dispatch = self.dispatch
        dispatch.tally.gateways_lost += 1
        self._note_lost(gateway)
        self._lost.bury(gateway.process)
        dispatch.take_back_untold(gateway.process)
        self._drop_waiting(gateway)
        kept = self._ceilings.bury(gateway.process, self._now, gateway.heard_at)
        self._put_in_quarantine(gateway.process, kept, blind_until)
        for held in dispatch.holds.of(gateway.process):
            dispatch.abandon(held)
        dispatch.end_lending(gateway.process)
        self._unheard.discard(gateway.process)
        self._roster.remove(gateway)
        self._review_out_of_reach()

    def _put_in_quarantine(self, process: Process, slots: dict[BackendId, int], blind_until: float | None) -> None:
        for backend, count in slots.items():
            self._quarantine.add(
                Quarantined(
                    backend,
                    count,
                    process,
                    since=self._now,
                    blind_until=self._now + self._rules.quarantine_blind_s if blind_until is None else blind_until,
                    limit=self._now + self._rules.quarantine_limit_s,
                )
            )

    def _drop_waiting(self, gateway: Gateway) -> None:
        for ledger_id in list(gateway.waiting):
            self.dispatch.drop(ledger_id)

    def _end_session(self, gateway: Gateway, why: str) -> None:
        if gateway.session is not None:
            self.dispatch.out.append(SessionEnded(gateway.session, why))
            self._roster.close_session(gateway)

    def _note_lost(self, gateway: Gateway) -> None:
        running = [_orphan(gateway, held.request, held) for held in self.dispatch.holds.of(gateway.process)]
        waiting = [_orphan(gateway, request, None) for request in gateway.waiting.values()]
        self._lost.note(gateway.process, running + waiting, gateway.heard_at + self._rules.orphan_after_s)

    def _review_out_of_reach(self) -> None:
        """What gateways out of reach may begin by themselves, and what dead ones may still run, is not to be given out."""
        kept: Counter[BackendId] = Counter()
        for process in self._ceilings.out_of_reach():
            for backend, slots in self._ceilings.reserved(process).items():
                kept[backend] += slots
            for held in self.dispatch.holds.of(process):
                kept[held.backend] -= held.slots
        self.dispatch.slots.set_out_of_reach(kept)

    # -- starting after another leader --------------------------------------------------------------------------------

    def _recover(self, stored: list[StoredCeilings]) -> None:
        self._ceilings.recover(stored)
        for process, entries in _by_process(stored).items():
            silent_s = min(entry.silent_s for entry in entries)
            is_proven = silent_s >= self._rules.fence_s + self._rules.fence_margin_s
            if any(entry.is_dead for entry in entries) or is_proven or self._roster.is_outdated(*process):
                self._roster.note_generation(*process)
                self._put_in_quarantine(process, self._ceilings.bury(process, self._now, self._now - silent_s), None)
                continue
            known = self._roster.get(process[0])
            if known is not None:
                self._unheard.discard(known.process)
                self._put_in_quarantine(
                    known.process, self._ceilings.bury(known.process, self._now, known.heard_at), None
                )
            self._roster.expect(*process, self._now - silent_s)
            self._unheard.add(process)

    # -- time ---------------------------------------------------------------------------------------------------------

    def _let_time_pass(self, wall_us: int | None) -> None:
        passed_s, self._ticked_at = self._now - self._ticked_at, self._now  # whatever else happened between two ticks
        for gateway in self._roster:
            heard_at = max(gateway.heard_at, self._listening_since)
            if self._now >= self._silence_proves_at(heard_at):
                self._end_session(gateway, "nothing was heard of this gateway for too long")
                self._bury(gateway)
            elif gateway.is_reachable and self._now >= heard_at + self._rules.session_ttl_s:
                gateway.is_silent = True
                self._lose(gateway)
        given_up = self._lost.give_up(self._now)
        self.tally.orphans += len(given_up)
        self.dispatch.out.extend(given_up)
        self._release_quarantine()
        self.dispatch.let_time_pass(passed_s, wall_us)

    def _release_quarantine(self) -> None:
        released = self._quarantine.release(self.dispatch.slots.facts_of, self._running_at, self._now)
        for process, backend, slots in released:
            self._ceilings.release(process, backend, slots)
        if released:
            self._review_out_of_reach()
            self.dispatch.ceilings_changed()

    def _running_at(self, backend: BackendId, at: float) -> int:
        """Slots of requests that certainly ran there. What a gateway had that has not spoken since may have ended."""
        gateways = (gateway for gateway in self._roster if gateway.is_reachable and gateway.heard_at >= at)
        return self.dispatch.holds.running_at(backend, at, {gateway.process for gateway in gateways})

    def _silence_proves_at(self, heard_at: float) -> float:
        return heard_at + self._rules.fence_s + self._rules.fence_margin_s


def _by_process(stored: Iterable[StoredCeilings]) -> dict[Process, list[StoredCeilings]]:
    by_process: dict[Process, list[StoredCeilings]] = {}
    for entry in stored:
        by_process.setdefault((entry.gateway, entry.generation), []).append(entry)
    return dict(sorted(by_process.items()))  # of one gateway's processes the latest comes last


def _orphan(gateway: Gateway, request: Request, held: Held | None) -> Orphan:
    first = held.first_token_at if held else None
    return Orphan(
        request if held is None else replace(request, attempts=held.attempt),
        gateway.name,
        gateway.generation,
        backend=held.backend if held else None,
        queued_s=(held.since if held else gateway.heard_at) - request.arrived_at,
        ttft_s=None if first is None else first - request.arrived_at,
        lived_s=gateway.heard_at - request.arrived_at,
        completion_tokens=held.completion_tokens if held else 0,
    )
