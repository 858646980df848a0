"""The requests' side of the core: what becomes of each, from the asking to its end. Pure.

What waits is `queues`' to keep, whose turn it is `fairness`' to say, which waiting one gets a free slot `matching`'s, and
where to `placing`'s. Which slots there are and who may have them is `slots`', whether a request may ask at all `limits`'.
Which gateways live is `policy`'s: here a gateway is who asks."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from forebay.errors import Refusal
from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend
from forebay_scheduler.decision_log import DecisionLog, Story
from forebay_scheduler.decisions import (
    NO_RATES,
    CreditLent,
    Cutoff,
    Decision,
    Grant,
    Reject,
    Revoke,
    Settled,
)
from forebay_scheduler.fairness import waits
from forebay_scheduler.fairness.cost import CostModel
from forebay_scheduler.fairness.fair_queue import Charge
from forebay_scheduler.fairness.shares import Shares
from forebay_scheduler.gateways import Gateway
from forebay_scheduler.handover import gather, hand_over
from forebay_scheduler.holds import Held
from forebay_scheduler.lending.credits import Began
from forebay_scheduler.limits.limits import LimitBook
from forebay_scheduler.lines import Line
from forebay_scheduler.matching import Matching
from forebay_scheduler.placing.choices import Choice
from forebay_scheduler.queues import Queues
from forebay_scheduler.request import (
    NOTHING_USED,
    Claim,
    Epoch,
    Lease,
    LedgerId,
    Process,
    Request,
    Used,
    UserId,
)
from forebay_scheduler.rules import Rules
from forebay_scheduler.saved import SavedState
from forebay_scheduler.settlements import Settlements
from forebay_scheduler.slots import Slots
from forebay_scheduler.tally import Tally

_SHORTEST_PAUSE_S = 0.25
"""For a backend that is busy without saying for how long, or that a gateway has not heard of yet."""
_UNREACHED_S = 0.5
"""For one that a request could not reach: the registry hears of it at once too, and has looked by then."""
_RECALL_S = 0.05
"""How long nobody is refused for want of what was lent."""


class Dispatch:
    def __init__(
        self,
        rules: Rules,
        epoch: Epoch,
        now: float,
        *,
        gateway_of: Callable[[Process], Gateway | None],
        recovered: Iterable[LedgerId],
        seed: int,
        wall_us: int | None,
    ) -> None:
        """`gateway_of`: the gateway of a process, if it has not been given up. `recovered`: settles that count already.
        `wall_us`: the time of day, microseconds since the epoch."""
        self.now = now
        self.epoch = epoch
        self.out: list[Decision] = []
        self.tally = Tally()
        self.may_start = True
        self.shares = Shares()
        self.cost = CostModel()
        self.limits = LimitBook(wall_us, now)
        self.settlements = Settlements(recovered)
        self.log = DecisionLog(rules.explained)
        self._rules = rules
        self._gateway_of = gateway_of
        self._seq = 0
        self.slots = Slots(
            rules,
            self.limits,
            line_of=lambda pool: self.queues.line(pool),
            silent_s=self._silent_s,
            new_leases=self._new_leases,
        )
        self.stations, self.holds, self.closures = self.slots.stations, self.slots.holds, self.slots.closures
        self.ceilings, self.lender = self.slots.ceilings, self.slots.lender
        self.queues = Queues(rules, self.shares, self.stations, random.Random(seed))
        self._matching = Matching(self.stations, self._place, self._begin, self._is_held_up, float(rules.pass_window))
        self._held_back: dict[LedgerId, tuple[float, Gateway, Request]] = {}
        """Not admitted, because of what is lent and recalled: until then it may come back."""

    def begin_turn(self, now: float) -> list[Decision]:
        """Returns the list that this turn's decisions will be in."""
        self.now = now
        self.out = []
        return self.out

    def end_turn(self) -> None:
        """Start, in turn, whatever can start now."""
        if not self.may_start:
            return
        slots, queues = self.slots, self.queues
        while slots.roomy or queues.wanted:
            roomy, slots.roomy = slots.roomy, {}
            for station in roomy:
                if queues.has_backlog(station.facts.pool):
                    self._matching.fill(queues.line(station.facts.pool), station)
            wanted, queues.wanted = queues.wanted, {}
            for pool, model in wanted:
                serving = self.stations.serving(pool, model)
                if serving is not None and (serving.free or serving.cold):
                    self._matching.serve(queues.line(pool), model, serving)

    # -- what gateways say --------------------------------------------------------------------------------------------

    def submit(self, gateway: Gateway, request: Request) -> None:
        ledger_id = request.ledger_id
        if ledger_id in self.queues or self.holds.get(ledger_id) is not None or ledger_id in self.settlements:
            return  # sent again
        self.tally.submits += 1
        story = self.log.begin(request, gateway.name)
        refusal = self._judge(request)
        if refusal is not None:
            self._reject(gateway, request, refusal)
            return
        self._admit(gateway, request, story)

    def _admit(self, gateway: Gateway, request: Request, story: Story, *, is_last_try: bool = False) -> None:
        tokens = self._expected_tokens(request)
        refused = self.limits.admit(request, tokens, self.now)
        if refused is not None:
            recalled = [] if is_last_try else self.lender.recall_allotments(refused.lent)
            if recalled:
                self.out.extend(recalled)
                self._held_back[request.ledger_id] = self.now + _RECALL_S, gateway, request
                self.queues.keep(gateway, request)
            else:
                self._reject(gateway, request, refused.reason, refused.retry_after_s, refused.message)
            return
        line = self.queues.line(request.pool)
        if self.slots.roomy and line.queue:
            self.end_turn()  # what became free in the same frame is for those who wait already
        if (
            self.may_start
            and self.slots.is_fleet_known
            and not line.queue.waiting_for(request.model)
            and not self.shares.is_paused(request)
        ):
            choice = self.slots.place(line, request, gateway, tokens, self.now)
            if choice is not None:
                charge = line.queue.pass_by(request, self.cost.estimate(request, choice.cached_tokens))
                self._grant(line, gateway, request, choice, charge, tokens, story, 0.0)
                self.lender.wish(gateway.process, request, self.now)
                return
        self._let_wait(gateway, request, line, story)

    def _let_wait(self, gateway: Gateway, request: Request, line: Line, story: Story) -> None:
        if self.queues.is_full(line, request.user):
            self.end_turn()  # what came in the same frame may be about to leave the queue
            is_recalling = self.lender.recalling_until(line.pool, self.now) is not None
            if self.queues.is_full(line, request.user) and not is_recalling:
                self.limits.release(request.ledger_id, self.now)
                self._reject(gateway, request, Refusal.QUEUE_FULL)
                return
        wait_s = story.predicted_wait_s = self.predicted_wait_s(line, request)
        # While nothing moves at all, nothing is known of when it will again.
        if wait_s is not None and request.deadline_s is not None and request.deadline_s < wait_s < math.inf:
            self.limits.release(request.ledger_id, self.now)
            message = f"It would have to wait for about {wait_s:.0f} s, which is longer than its deadline allows."
            self._reject(gateway, request, Refusal.QUEUE_TIMEOUT, waits.retry_after_s(wait_s), message)
            return
        self._enqueue(gateway, request)

    def cancel(self, gateway: Gateway, ledger_id: LedgerId) -> None:
        """Queued, or granted so recently that the gateway did not know."""
        if self.queues.owner(ledger_id) is gateway:
            self._withdraw(ledger_id)
        elif (held := self._held_by(gateway, ledger_id)) is not None:
            # What was generated is counted, though its client does not want it any more.
            has_run = held.first_token_at is not None or held.completion_tokens > 0
            self._finish(held, self._used_so_far(held) if has_run else NOTHING_USED, "cancelled")
            self._give_back(held)
            if has_run:
                self.settlements.note(ledger_id, gateway.process)
        else:
            return
        self.limits.release(ledger_id, self.now)
        self.log.note_end(ledger_id, "cancelled")
        self.tally.cancels += 1

    def note_first_token(self, gateway: Gateway, ledger_id: LedgerId, ttft_s: float) -> None:
        held = self._held_by(gateway, ledger_id)
        if held is None or held.first_token_at is not None:
            return
        held.first_token_at = self.now
        ttft_s = ttft_s or self.now - held.since
        station = held.station
        if station is not None:
            placement = self.queues.line(held.request.pool).placement
            if placement.note_first_token(station, held.request, ttft_s, self.now):
                self.slots.roomy[station] = None  # it had enough to read
            self.slots.note_success(held, self.now)
        if held.story is not None and held.story.attempts:
            held.story.attempts[-1].ttft_s = ttft_s

    def note_progress(self, gateway: Gateway, ledger_id: LedgerId, completion_tokens: int) -> None:
        held = self._held_by(gateway, ledger_id)
        if held is None or completion_tokens <= held.completion_tokens:
            return
        held.completion_tokens = completion_tokens
        cached = held.choice.cached_tokens if held.choice is not None else 0
        so_far = self.cost.so_far(held.request, cached, completion_tokens)
        self.queues.line(held.request.pool).queue.extend(held.charge, so_far)
        if not held.is_cut and not self.limits.extend(ledger_id, completion_tokens, self.now):
            held.is_cut = True
            self.tally.cutoffs += 1
            assert gateway.session is not None, "who speaks is there"
            self.out.append(Cutoff(gateway.session, ledger_id, Refusal.QUOTA_SPENT))

    def settle(self, gateway: Gateway, settle: ev.Settle) -> None:
        self.tally.settles += 1
        ledger_id = settle.ledger_id
        held = self._held_by(gateway, ledger_id)
        if ledger_id in self.settlements:
            self.tally.stale_settles += 1
            if held is not None and held.lease == settle.lease:
                # Given up and counted, and then it was there after all: its slots return, and it is not counted twice.
                self.queues.line(held.request.pool).queue.settle(held.charge, 0)
                self.limits.release(ledger_id, self.now)
                self.log.note_end(ledger_id, settle.end)
                self._give_back(held, settle.used, is_success=settle.is_success)
            if self.settlements.told_again(ledger_id, gateway.process):
                self.out.append(Settled(settle.session, ledger_id))
            return
        if settle.lease is None:
            self.cancel(gateway, ledger_id)
        elif held is not None and held.lease == settle.lease:
            self._finish(held, settle.used, settle.end)
            if settle.is_success:
                self.slots.note_success(held, self.now)
                self.cost.learn(held.request.model, settle.used.completion_tokens)
            self._give_back(held, settle.used, is_success=settle.is_success)
            self.settlements.note(ledger_id, gateway.process)
            return
        elif held is None and settle.request is not None:
            # Granted by another leader or begun by the gateway itself, and over before this one heard of it.
            self._withdraw(ledger_id)
            queue = self.queues.line(settle.request.pool).queue
            queue.settle(queue.adopt(settle.request, 0), self.cost.actual(settle.request, settle.used))
            self.limits.replay(settle.request, settle.used, self.now)
            self.settlements.note(ledger_id, gateway.process)
            return
        else:
            self.tally.stale_settles += 1
        self.out.append(Settled(settle.session, ledger_id))

    def nack(self, gateway: Gateway, nack: ev.Nack) -> None:
        held = self._held_by(gateway, nack.ledger_id)
        if held is None or held.lease.seq != nack.lease_seq:
            return
        self.tally.nacks += 1
        request, station = held.request, held.station
        line = self.queues.line(request.pool)
        if station is not None:
            line.placement.note_failure(station, request, self.now, is_busy=nack.cause is ev.NackCause.BUSY)
            if nack.cause.blames_backend:
                self.closures.note_failure(station, request.ledger_id, self.now)
                if nack.cause is ev.NackCause.UNREACHABLE:
                    self.closures.pause(station, _UNREACHED_S, self.now)
            else:
                self.closures.pause(station, max(nack.retry_after_s, _SHORTEST_PAUSE_S), self.now)
        self._refund(held, f"nack: {nack.cause}")
        again = replace(request, attempts=held.attempt, excluded=request.excluded | {held.backend})
        if not nack.cause.blames_backend and not self._could_run(again):
            # Merely busy, or new to the gateway: worth another try when it is the only one.
            again = replace(again, excluded=request.excluded)
        if again.attempts < self._rules.attempts and self._could_run(again) and line.retries.spend():
            self.tally.retries += 1
            self._enqueue(gateway, again, is_retry=True)
        else:
            self.limits.release(again.ledger_id, self.now)
            self._reject(gateway, again, Refusal.ENGINE_FAILED)

    # -- what a gateway says that it has, when it speaks for the first time or again ----------------------------------

    def knows(self, ledger_id: LedgerId) -> bool:
        return ledger_id in self.queues or self.holds.get(ledger_id) is not None

    def claim(self, gateway: Gateway, claim: Claim) -> None:
        """A grant that it still uses: of another leader, or of its own making."""
        ledger_id = claim.request.ledger_id
        known = self.holds.get(ledger_id)
        if known is not None:
            if known.process == gateway.process and known.lease == claim.lease:
                return
            self._finish(known, NOTHING_USED, "replaced")
            self._give_back(known)
        self._withdraw(ledger_id)
        so_far = self.cost.so_far(claim.request, 0, claim.completion_tokens)
        cost = max(so_far, self.cost.estimate(claim.request, 0))
        charge = self.queues.line(claim.request.pool).queue.adopt(claim.request, cost)
        tokens = self._expected_tokens(claim.request)
        self.limits.adopt(claim.request, tokens, self.now)
        self.limits.extend(ledger_id, claim.completion_tokens, self.now)
        held = Held(claim.request, claim.backend, claim.lease, claim.attempt, gateway.process, self.now, charge, tokens)
        held.completion_tokens = claim.completion_tokens
        held.first_token_at = self.now if claim.completion_tokens else None
        self._adopt(gateway, held)

    def requeue(self, gateway: Gateway, request: Request) -> None:
        """That it waits: it was admitted already, by this leader or another.

        It names every backend that did not serve the request, those among them that were merely busy. Where no other is
        left it may go to them again: how often is limited by its attempts."""
        if request.attempts >= self._rules.attempts:
            self._reject(gateway, request, Refusal.ENGINE_FAILED)  # as it was before, and that was lost on its way
            return
        if request.excluded and self.slots.is_fleet_known and not self._could_run(request):
            request = replace(request, excluded=frozenset())
        if self.log.get(request.ledger_id) is None:
            self.log.begin(request, gateway.name)
        self.limits.adopt(request, self._expected_tokens(request), self.now)
        self._enqueue(gateway, request)

    def forget(self, held: Held) -> None:
        """It does not name it any more, and has not told how it ended. A grant that it never saw, unless something was heard
        of it: then that counts."""
        if held.first_token_at is not None or held.completion_tokens:
            self._finish(held, self._used_so_far(held), "forgotten")
            self._give_back(held)
        else:
            self.limits.release(held.request.ledger_id, self.now)
            self._refund(held, "forgotten")

    # -- gateways that are out of reach -------------------------------------------------------------------------------

    def park(self, gateway: Gateway) -> None:
        """A grant could not reach it now, and one that it was not told of yet did not."""
        self.take_back_untold(gateway.process)
        for request in gateway.waiting.values():
            self.slots.let_go(request)
        self.queues.park(gateway)
        self.lender.lose(gateway.process)

    def take_back_untold(self, process: Process) -> None:
        for held in self.holds.of(process):
            if not held.is_told:
                self._take_back(held)

    def abandon(self, held: Held) -> None:
        """Its gateway is dead: what it was told to have used is what it used."""
        self._finish(held, self._used_so_far(held), "gateway_lost")
        self._give_back(held)
        self.settlements.note(held.request.ledger_id, None)

    def drop(self, ledger_id: LedgerId) -> None:
        """It no longer waits, and never ran."""
        self._withdraw(ledger_id)
        self.limits.release(ledger_id, self.now)
        self.log.note_end(ledger_id, "dropped")

    # -- what is lent ahead -------------------------------------------------------------------------------------------

    def lend(self, gateway: Gateway, beat_seq: int) -> None:
        """It has sent a heartbeat: what it may use without asking until the next."""
        if not self.may_start or gateway.session is None:
            return
        has_backlog = self.queues.has_backlog
        for told in self.lender.answer(gateway.process, gateway.session, beat_seq, self.now, has_backlog):
            self.out.append(told)
            if isinstance(told, CreditLent):
                self.slots.review_aside(told.backend)

    def credit_started(self, gateway: Gateway, started: ev.CreditStarted) -> None:
        """It runs already, whatever the credit says."""
        request, process = started.request, gateway.process
        ledger_id = request.ledger_id
        if ledger_id in self.settlements or self.holds.get(ledger_id) is not None:
            return  # told again
        if ledger_id in self.queues:
            self._withdraw(ledger_id)
            self.limits.release(ledger_id, self.now)
        backend = self.lender.backend_of(process, started.credit)
        self.tally.stale_starts += backend is None
        began = self.slots.begin_on_credit(process, started.credit, started.lease_seq, request, started.backend)
        if began is Began.AGAIN:
            return
        self.tally.credit_starts += 1
        tokens = self._expected_tokens(request)
        allotment = self.lender.allotment_of(process, request)
        if allotment is None:
            self.limits.adopt(request, tokens, self.now)
        else:
            self.limits.admit_lent(request, allotment, tokens, self.now)
        charge = self.queues.line(request.pool).queue.pass_by(request, self.cost.estimate(request, 0))
        lease = Lease(self.epoch, started.lease_seq)
        held = Held(request, backend or started.backend, lease, 1, process, self.now, charge, tokens)
        self._adopt(gateway, held).attempts[-1].is_on_credit = True
        self.lender.wish(process, request, self.now)

    def credit_returned(self, gateway: Gateway, credit: int) -> None:
        if self.slots.credit_returned(gateway.process, credit):
            self.ceilings_changed()

    def allotment_returned(self, gateway: Gateway, allotment: int) -> None:
        self.lender.allotment_returned(gateway.process, allotment, self.now)
        self._retry_held_back()

    def end_lending(self, process: Process) -> None:
        self.slots.end_lending(process, self.now)
        self._retry_held_back()

    def _retry_held_back(self) -> None:
        """What would have been refused while something is lent that it needs: once that is back, or not in time."""
        for ledger_id, (_, gateway, request) in list(self._held_back.items()):
            del self._held_back[ledger_id]
            if ledger_id not in self.queues:
                continue  # cancelled meanwhile
            self.queues.take(ledger_id)
            if gateway.is_reachable:
                self._admit(gateway, request, self.log.begin(request, gateway.name), is_last_try=True)

    def _new_leases(self, count: int) -> int:
        first = self._seq + 1
        self._seq += count
        return first

    # -- what others say ----------------------------------------------------------------------------------------------

    def change_fleet(self, backends: Iterable[Backend]) -> None:
        self.slots.change_fleet(backends, self.now)
        self._want_all()

    def change_policy(self, change: ev.PolicyChanged) -> None:
        self.limits.change(change, self.now)
        self.cost.change(change.models, change.removed_models)
        self.shares.change(
            change.users, change.groups, change.keys, change.removed, change.removed_groups, change.removed_keys
        )
        self.queues.change_policy(change)
        self._want_all()
        for station in list(self.stations.kept):
            assert station.kept_for is not None
            request = self.queues.line(station.facts.pool).queue.get(station.kept_for)
            if request is not None and self.shares.is_paused(request):
                self.slots.let_go(request)  # others may use it till then

    def revoke_waiting(self, gateway: Gateway, user: UserId) -> None:
        for request in [request for request in gateway.waiting.values() if request.user == user]:
            self.drop(request.ledger_id)
            self.log.note_end(request.ledger_id, "refused", Refusal.KEY_REVOKED)
            if gateway.session is not None:
                self.tally.revokes += 1
                self.out.append(Revoke(gateway.session, request.ledger_id, Refusal.KEY_REVOKED))

    def ceilings_changed(self) -> None:
        """Some were raised, or somebody may be asked again: grants that waited for it go out."""
        for held in self.slots.raised():
            self._tell_grant(held, self._gateway_of(held.process))
        self._want_all()

    # -- time ---------------------------------------------------------------------------------------------------------

    def let_time_pass(self, seconds: float, wall_us: int | None) -> None:
        self.limits.tick(wall_us, self.now)
        self.queues.let_time_pass(seconds)
        for gateway, request in self.queues.expired(self.now):
            self._withdraw(request.ledger_id)
            self.limits.release(request.ledger_id, self.now)
            self._reject(gateway, request, self._judge(request) or Refusal.QUEUE_TIMEOUT)
        for held in self.slots.given_up(self.now):
            self._take_back(held)
        if any(until <= self.now for until, _, _ in self._held_back.values()):
            self._retry_held_back()
        for held, is_forced in self.slots.overdue(self.now):
            self._send_elsewhere(held, is_forced=is_forced)
        self.slots.let_time_pass(self.now)
        self._want_all()

    def _send_elsewhere(self, held: Held, *, is_forced: bool) -> None:
        """Its backend should be empty by now: its gateway is to ask for another, or to end what has begun to be answered."""
        gateway = self._gateway_of(held.process)
        if gateway is None or gateway.session is None or (held.is_ended if is_forced else held.is_cut):
            return
        held.is_cut = True
        held.is_ended = is_forced
        self.out.append(Revoke(gateway.session, held.request.ledger_id, Refusal.DRAINING, is_forced))

    def _want_all(self) -> None:
        """Look again for everything that waits."""
        self.queues.want_all()
        # These have no room for anybody else, so whoever they are kept for is not met by looking for room.
        self.slots.roomy.update(dict.fromkeys(self.stations.kept))

    # -- waiting and starting -----------------------------------------------------------------------------------------

    def _enqueue(self, gateway: Gateway, request: Request, *, is_retry: bool = False) -> None:
        self.queues.put(gateway, request, is_retry=is_retry)
        self.out.extend(self.lender.recall(request.pool, self.now))

    def _withdraw(self, ledger_id: LedgerId) -> None:
        """It no longer waits, if it did."""
        request = self.queues.withdraw(ledger_id)
        if request is not None:
            self._held_back.pop(ledger_id, None)
            self.slots.let_go(request)

    def _place(self, line: Line, request: Request) -> Choice | None:
        """Where one that waits could start now."""
        gateway = self.queues.owner(request.ledger_id)
        assert gateway is not None
        return self.slots.place(line, request, gateway, self._expected_tokens(request), self.now)

    def _is_held_up(self, request: Request) -> bool:
        """Its gateway's ceilings are in the way."""
        gateway = self.queues.owner(request.ledger_id)
        return gateway is not None and self.slots.is_short(gateway.process)

    def _begin(self, line: Line, request: Request, choice: Choice, ahead: float) -> None:
        """It waits, and starts there."""
        gateway = self.queues.take(request.ledger_id)
        if request.width > 1:
            self.slots.let_go(request)
            self.queues.wanted[request.pool, request.model] = None  # who could not pass it may go now
        charge = line.queue.start(request, self.cost.estimate(request, choice.cached_tokens))
        story = self.log.get(request.ledger_id)
        self._grant(line, gateway, request, choice, charge, self._expected_tokens(request), story, ahead)

    def _grant(
        self,
        line: Line,
        gateway: Gateway,
        request: Request,
        choice: Choice,
        charge: Charge,
        tokens: int,
        story: Story | None,
        ahead: float,
    ) -> None:
        backend, now = choice.station.id, self.now
        self._seq += 1
        held = Held(
            request,
            backend,
            Lease(self.epoch, self._seq),
            request.attempts + 1,
            gateway.process,
            now,
            charge,
            tokens,
            station=choice.station,
            choice=choice,
            story=story,
        )
        if not request.attempts:
            line.retries.note_first_attempt()
        self.tally.grants += 1
        if story is not None:
            self.log.note_grant(story, backend, choice, now - request.arrived_at, charge.cost, ahead)
        if self.slots.take(line, held, choice, now):
            self._tell_grant(held, gateway)

    def _tell_grant(self, held: Held, gateway: Gateway | None) -> None:
        assert gateway is not None, "what is out of reach is parked, so it is not granted anything"
        assert gateway.session is not None
        request = held.request
        queued_s = self.now - request.arrived_at
        standing = None
        if self.limits.is_limited(request):
            standing = self.limits.standing(request, self.now) or NO_RATES
        self.out.append(
            Grant(
                gateway.session,
                request.ledger_id,
                held.backend,
                held.attempt,
                held.lease,
                request.width,
                queued_s if queued_s > 0.0 else 0.0,
                standing,
            )
        )

    def _adopt(self, gateway: Gateway, held: Held) -> Story:
        """It runs already."""
        self.slots.adopt(held, self.now)
        request = held.request
        story = held.story = self.log.begin(request, gateway.name)
        self.log.note_grant(story, held.backend, None, self.now - request.arrived_at, held.charge.cost, 0.0)
        return story

    # -- ending -------------------------------------------------------------------------------------------------------

    def _held_by(self, gateway: Gateway, ledger_id: LedgerId) -> Held | None:
        held = self.holds.get(ledger_id)
        return held if held is not None and held.process == gateway.process else None

    def _finish(self, held: Held, used: Used, end: str) -> None:
        """What it used is known: counted for its turn, its limits and whoever asks later. Once."""
        request = held.request
        actual = self.cost.actual(request, used)
        self.queues.line(request.pool).queue.settle(held.charge, actual)
        self.limits.settle(request.ledger_id, used, self.now)
        if held.story is not None:
            held.story.end(end, settled=actual)

    def _give_back(self, held: Held, used: Used = NOTHING_USED, *, is_success: bool = False) -> None:
        """The grant is over; its charge has been settled."""
        line = self.queues.line(held.request.pool)
        self.slots.give_back(line, held, self.now, used, is_success=is_success)
        if line.queue.models:
            line.pace.note_cost(held.charge.cost)

    def _refund(self, held: Held, why: str) -> None:
        """It was in vain: nothing is charged, and what was reserved of its limits stays for the next attempt."""
        self.queues.line(held.request.pool).queue.settle(held.charge, 0)
        self.log.note_return(held.request.ledger_id, why)
        self._give_back(held)

    def _take_back(self, held: Held) -> None:
        """A grant that its gateway never saw: it waits again, at its old place."""
        gateway, request = self._gateway_of(held.process), held.request
        self._refund(held, "its gateway's ceiling could not be raised")
        if gateway is None:
            return
        if gateway.is_reachable:
            self._enqueue(gateway, request, is_retry=True)
        else:
            self.queues.keep(gateway, request)

    def _used_so_far(self, held: Held) -> Used:
        cached = held.choice.cached_tokens if held.choice is not None else 0
        return Used(held.request.prompt_tokens, cached, held.completion_tokens)

    def _expected_tokens(self, request: Request) -> int:
        return request.prompt_tokens + request.width * self.cost.expected_output(request)

    def _silent_s(self, process: Process) -> float:
        gateway = self._gateway_of(process)
        return 0.0 if gateway is None else max(0.0, self.now - gateway.heard_at)

    # -- what a successor needs ---------------------------------------------------------------------------------------

    def saved(self) -> SavedState:
        return gather(self.queues, self.slots, self.limits, self.cost, self.now)

    def restore(self, state: SavedState) -> None:
        hand_over(state, self.queues, self.slots, self.limits, self.cost, self.now)

    # -- refusing -----------------------------------------------------------------------------------------------------

    def predicted_wait_s(self, line: Line, request: Request) -> float | None:
        """What one that waits, or joins the queue now, is to expect; None when nothing is known yet."""
        rate = line.pace.tokens_per_s
        if rate is None:
            return None
        return waits.predicted_wait_s(line.queue.standing(request), self._usual_cost(line, request), rate)

    def _usual_cost(self, line: Line, request: Request) -> float:
        """Those before it in its line cost what requests here cost, whatever it costs itself. In milli-tokens."""
        return line.pace.mean or self.cost.estimate(request)

    def _comes_back_after_s(self, line: Line, request: Request) -> float:
        standing, cost, rate = line.queue.standing(request), self._usual_cost(line, request), line.pace.tokens_per_s
        predicted_s = waits.predicted_wait_s(standing, cost, rate)
        return line.returns.after_s(request.user, predicted_s, waits.wait_for_one_s(standing, cost, rate), self.now)

    def _could_run(self, request: Request) -> bool:
        """Some backend that is up, and that has not failed it, could take it now or later."""
        serving = self.stations.serving(request.pool, request.model)
        if serving is None:
            return False
        width, excluded = request.width, request.excluded
        if width == 1 and not excluded and serving.free:
            return True
        return any(
            station.facts.is_open
            and station.id not in excluded
            and self.stations.width_limit(station, request.model) >= width
            for station in serving.stations
        )

    def _judge(self, request: Request) -> Refusal | None:
        """Whether waiting makes sense at all. Before the fleet is known it does."""
        if not self.slots.is_fleet_known or self._could_run(request):
            return None
        serving = self.stations.serving(request.pool, request.model)
        if serving is not None and 0 < serving.widest < request.width:
            return Refusal.WIDTH_TOO_LARGE
        return Refusal.ENGINE_FAILED if request.attempts else Refusal.NO_BACKEND

    def _reject(
        self,
        gateway: Gateway,
        request: Request,
        reason: Refusal,
        retry_after_s: float | None = None,
        message: str | None = None,
    ) -> None:
        """`message`, with its time to come back, is given by who refuses it; else both follow from the reason."""
        assert gateway.session is not None, "only a gateway within reach is refused anything"
        self.tally.rejects[reason] += 1
        self.log.note_end(request.ledger_id, "refused", reason)
        if message is None:
            message = _message(reason, request)
            match reason:
                case Refusal.WIDTH_TOO_LARGE:
                    retry_after_s = None
                case Refusal.NO_BACKEND | Refusal.ENGINE_FAILED:
                    retry_after_s = self._rules.no_backend_retry_s
                case _:
                    retry_after_s = self._comes_back_after_s(self.queues.line(request.pool), request)
        standing = self.limits.standing(request, self.now)
        self.out.append(Reject(gateway.session, request.ledger_id, reason, retry_after_s, message, standing))

    def queued(self) -> Iterator[Request]:
        for line in self.queues.lines:
            yield from line.queue


def _message(reason: Refusal, request: Request) -> str:
    model = request.model
    match reason:
        case Refusal.NO_BACKEND:
            return f"No healthy backend in pool {request.pool!r} serves {model!r}."
        case Refusal.WIDTH_TOO_LARGE:
            return f"No backend that serves {model!r} has the {request.width} slots that this request needs at once."
        case Refusal.ENGINE_FAILED:
            return f"{request.attempts} attempt(s) on backends that serve {model!r} failed; there is no other to try."
        case Refusal.QUEUE_FULL:
            return "Too many requests are waiting already."
        case _:
            return "No slot became free in time."
