"""The scheduler's core: state, event and time in, decisions out. Synchronous and pure; no clock is read here.

This file knows which gateways live, which are out of reach and which are dead, and what follows for what they had. What
becomes of a single request is `dispatch`'s business; streams, files and tasks are nobody's here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import assert_never

from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend, Fleet
from forebay_scheduler.decisions import Decision, Orphan, SessionEnded
from forebay_scheduler.dispatch import Dispatch
from forebay_scheduler.gateways import Gateway, Roster
from forebay_scheduler.holds import Holds
from forebay_scheduler.lost import Lost
from forebay_scheduler.queue import Queue, TurnQueue
from forebay_scheduler.request import Claim, Epoch, Held, Holding, Request
from forebay_scheduler.rules import Rules
from forebay_scheduler.tally import Tally


class Policy:
    def __init__(
        self,
        rules: Rules,
        epoch: Epoch,
        now: float,
        *,
        recovered: Iterable[Holding] = (),
        new_queue: Callable[[], Queue] = TurnQueue,
    ) -> None:
        """`recovered` is what the last leader stored of who held what; nothing is granted until those gateways have
        spoken or `recovery_grace_s` is over, because its newest grants may be missing from it."""
        self._rules = rules
        self._now = now
        self._dispatch = Dispatch(rules, epoch, now, new_queue)
        self._holds = self._dispatch.holds
        self._roster = Roster()
        self._lost = Lost()
        self._is_stopped = False
        self._listening_since = now
        self._grace_until = now + rules.recovery_grace_s
        for holding in recovered:
            self._recover(holding)

    # -- what the edge says and asks ----------------------------------------------------------------------------------

    def apply(self, events: Iterable[ev.Event], now: float) -> list[Decision]:
        """Take in what has happened, let time pass, and start what can start."""
        happened = tuple(events)  # all of them or none: one that cannot be read must not cost the others' decisions
        if now - self._now > self._rules.session_ttl_s:
            # It was this process that slept: what the gateways said meanwhile lies unread, so nobody is silent yet.
            self._listening_since = now
        self._now = now
        out = self._dispatch.begin(now)
        for event in happened:
            self._take_in(event)
        self._let_time_pass()
        if self._may_start:
            self._dispatch.start_all()
        return out

    def stop(self) -> None:
        """Grant nothing more; what runs is settled as before."""
        self._is_stopped = True

    @property
    def epoch(self) -> Epoch:
        return self._dispatch.epoch

    @property
    def tally(self) -> Tally:
        return self._dispatch.tally

    @property
    def fleet(self) -> Iterator[Backend]:
        return iter(self._dispatch.fleet or ())

    @property
    def gateways(self) -> Iterator[Gateway]:
        return iter(self._roster)

    @property
    def holds(self) -> Holds:
        return self._holds

    @property
    def is_recovering(self) -> bool:
        """Gateways of the last snapshot are still waited for."""
        return self._now < self._grace_until and any(self._awaited())

    def queued(self) -> Iterator[Request]:
        """What waits for slots, pool by pool; requests of gateways that are out of reach are not among it."""
        return self._dispatch.queued()

    def holdings(self) -> list[Holding]:
        """What a successor must keep back until it hears from the gateways itself."""
        return self._holds.holdings({gateway.process: self._now - gateway.heard_at for gateway in self._roster})

    # -- events -------------------------------------------------------------------------------------------------------

    def _take_in(self, event: ev.Event) -> None:
        match event:
            case ev.Tick():
                pass
            case ev.FleetChanged(backends):
                self._dispatch.change_fleet(Fleet(backends))
            case ev.PolicyChanged(users, removed):
                self._dispatch.change_limits(users, removed)
                for gateway in self._roster:
                    for user in removed:
                        self._dispatch.revoke_waiting(gateway, user)
            case ev.SessionOpened():
                self._open(event)
            case ev.GatewayDied(name, generation):
                known = self._roster.get(name)
                if known is not None and known.generation == generation:
                    self._end_session(known, "this gateway was reported dead")
                    self._bury(known)
            case ev.SessionLost(session):
                lost = self._roster.speaking(session)
                if lost is not None:
                    self._roster.close_session(lost)
                    self._lose(lost)
            case _:
                self._hear(event)

    def _hear(self, said: ev.Said) -> None:
        gateway = self._roster.speaking(said.session)
        if gateway is None:
            ended = SessionEnded(said.session, "another session speaks for this gateway, or it was given up")
            if ended not in self._dispatch.out:
                self._dispatch.out.append(ended)
            return
        gateway.heard_at = self._now
        if gateway.is_silent:
            gateway.is_silent = False
            self._lost.found(*gateway.process)
            self._dispatch.unpark(gateway)
        match said:
            case ev.Heard():
                pass
            case ev.GatewayLeft():
                self._leave(gateway)
            case ev.Submit(_, request):
                self._dispatch.submit(gateway, request, may_start=self._may_start)
            case ev.Cancel(_, ledger_id):
                self._dispatch.cancel(gateway, ledger_id)
            case ev.FirstToken(_, ledger_id):
                self._dispatch.note_first_token(gateway, ledger_id)
            case ev.Progress(_, ledger_id, completion_tokens):
                self._dispatch.note_progress(gateway, ledger_id, completion_tokens)
            case ev.Settle(_, ledger_id):
                self._dispatch.settle(gateway, said)
                self._lost.settled(gateway.name, ledger_id)
            case ev.Nack():
                self._dispatch.nack(gateway, said)
            case _:
                assert_never(said)

    # -- gateways that come and go ------------------------------------------------------------------------------------

    def _open(self, hello: ev.SessionOpened) -> None:
        if self._roster.is_outdated(hello.gateway, hello.generation):
            self._dispatch.out.append(SessionEnded(hello.session, "a later start of this gateway is known"))
            return
        known = self._roster.get(hello.gateway)
        if known is not None:
            self._end_session(known, "the gateway has opened another session")
            if known.generation < hello.generation:
                self._bury(known)
        gateway = self._roster.open(hello.gateway, hello.generation, hello.session, self._now)
        self._lost.found(*gateway.process)
        self._holds.hear_from(*gateway.process)
        self._drop_waiting(gateway)
        claimed = {claim.request.ledger_id for claim in hello.claims}
        for held in self._holds.of(*gateway.process):
            if held.request.ledger_id not in claimed:
                self._dispatch.give_back(held)
        for claim in hello.claims:
            self._claim(gateway, claim)
        for request in hello.queued:
            if not self._dispatch.knows(request.ledger_id):
                self._dispatch.enqueue(gateway, request)

    def _claim(self, gateway: Gateway, claim: Claim) -> None:
        known = self._dispatch.held_by(gateway, claim.request.ledger_id)
        if known is not None and known.lease == claim.lease:
            return
        self._holds.take(
            Held(
                claim.request,
                claim.backend,
                claim.lease,
                claim.attempt,
                *gateway.process,
                since=self._now,
                first_token_at=self._now if claim.completion_tokens else None,
                completion_tokens=claim.completion_tokens,
            )
        )

    def _leave(self, gateway: Gateway) -> None:
        self._drop_waiting(gateway)
        for held in self._holds.of(*gateway.process):
            self._dispatch.give_back(held)
        self._roster.remove(gateway)

    def _lose(self, gateway: Gateway) -> None:
        """It is out of reach and may return: its requests are parked, its grants stand."""
        self._dispatch.park(gateway)
        self._note_lost(gateway)

    def _bury(self, gateway: Gateway, *, blind_until: float | None = None) -> None:
        """Its death is proven: what waited is dropped, its slots go into quarantine."""
        self.tally.gateways_lost += 1
        self._note_lost(gateway)
        self._lost.bury(*gateway.process)
        self._drop_waiting(gateway)
        for held in self._holds.bury(*gateway.process, self._now, blind_until=blind_until):
            self._dispatch.breaker.note_end(held.backend, held.request.ledger_id)
        self._roster.remove(gateway)

    def _drop_waiting(self, gateway: Gateway) -> None:
        for ledger_id in list(gateway.waiting):
            self._dispatch.withdraw(ledger_id)

    def _end_session(self, gateway: Gateway, why: str) -> None:
        if gateway.session is not None:
            self._dispatch.out.append(SessionEnded(gateway.session, why))
            self._roster.close_session(gateway)

    def _note_lost(self, gateway: Gateway) -> None:
        running = [_orphan(gateway, held.request, held) for held in self._holds.of(*gateway.process)]
        waiting = [_orphan(gateway, request, None) for request in gateway.waiting.values()]
        self._lost.note(*gateway.process, running + waiting, gateway.heard_at + self._rules.orphan_after_s)

    # -- starting after another leader --------------------------------------------------------------------------------

    def _recover(self, holding: Holding) -> None:
        known = self._roster.get(holding.gateway)
        self._holds.keep_back(holding)
        is_proven = holding.silent_s >= self._rules.fence_s + self._rules.fence_margin_s
        if holding.is_dead or is_proven or self._roster.is_outdated(holding.gateway, holding.generation):
            self._holds.bury(holding.gateway, holding.generation, self._now)
            self._roster.note_generation(holding.gateway, holding.generation)
            return
        if known is not None:
            self._holds.bury(*known.process, self._now)
        self._roster.expect(holding.gateway, holding.generation, self._now - holding.silent_s)

    def _awaited(self) -> Iterator[Gateway]:
        """Gateways of the last snapshot that have not spoken to this leader."""
        return (gateway for gateway in self._roster if self._holds.is_kept_back(*gateway.process))

    @property
    def _may_start(self) -> bool:
        return not self._is_stopped and not self.is_recovering

    # -- time ---------------------------------------------------------------------------------------------------------

    def _let_time_pass(self) -> None:
        if self._now >= self._grace_until:
            for gateway in list(self._awaited()):
                # Late, but not proven dead. Where an engine can be asked, its word is enough; elsewhere the slots wait
                # until the gateway could no longer start anything, and then like those of any dead one.
                blind_until = self._silence_proves_at(gateway.heard_at) + self._rules.quarantine_blind_s
                self._bury(gateway, blind_until=blind_until)
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
        self._dispatch.out.extend(given_up)
        self._holds.release(self._dispatch.fleet or Fleet(), self._now)
        self._dispatch.expire()

    def _silence_proves_at(self, heard_at: float) -> float:
        return heard_at + self._rules.fence_s + self._rules.fence_margin_s


def _orphan(gateway: Gateway, request: Request, held: Held | None) -> Orphan:
    first = held.first_token_at if held else None
    return Orphan(
        request if held is None else replace(request, attempts=held.attempt),
        *gateway.process,
        backend=held.backend if held else None,
        queued_s=(held.since if held else gateway.heard_at) - request.arrived_at,
        ttft_s=None if first is None else first - request.arrived_at,
        lived_s=gateway.heard_at - request.arrived_at,
        completion_tokens=held.completion_tokens if held else 0,
    )
