"""Who waits for slots here and who holds some: what requests ask, what they are given, and what the scheduler has to hear.

Slots come in three ways: granted by the scheduler; on a credit that it lent, in the very turn in which they are asked for;
and, while no scheduler leads, by the gateway itself within its ceilings. The stream on which all this is told is the
session's; what is said while none stands is part of the next Hello."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from forebay.clock import Clock
from forebay.errors import ForebayError, Refusal
from forebay.wire.v1 import scheduler_pb2
from forebay_gateway.accounting import NOTHING_USED, Outcome, Usage
from forebay_gateway.engines.errors import Blame
from forebay_gateway.fleet import Fleet
from forebay_gateway.meters import Meters
from forebay_gateway.refused import Refused, as_refusal
from forebay_gateway.slots import scheduler_wire as wire
from forebay_gateway.slots.allotments import Allotment, Allotments
from forebay_gateway.slots.asking import BY_ITSELF, Ask, Epoch, Grant
from forebay_gateway.slots.ceilings import Ceiling, Ceilings
from forebay_gateway.slots.credits import Credit, Credits, Lent
from forebay_gateway.slots.fence import Fence
from forebay_gateway.slots.local_dispatch import LocalTurns

log = logging.getLogger(__name__)

MOST_UNCONFIRMED = 20_000
"""Settles that are kept for a leader to come. The oldest go first: the ledger has their rows, only the scheduler's counters
of a leader that died would lack them."""
_SMALL_PROMPT_BLOCKS = 2
_EXPECTED_OUTPUT = 256
"""Completion tokens of a choice whose client set no lower limit, as the scheduler expects before it learns better."""
_LIMITS = {Refusal.QUOTA_SPENT, Refusal.RATE_LIMITED, Refusal.CONCURRENCY_LIMITED}


@dataclass(slots=True)
class _Waiting:
    ask: Ask
    granted: asyncio.Future[Grant]
    excluded: list[str] = field(default_factory=list)
    attempts: int = 0


@dataclass(slots=True)
class _Held:
    ask: Ask
    grant: Grant
    excluded: list[str]
    credit: Credit | None = None
    """On which it began."""
    completion_tokens: int = 0


@dataclass(slots=True)
class _Ended:
    ask: Ask | None
    """None of a grant that came when its request was over."""
    settle: scheduler_pb2.Settle


class Places:
    """Implements `asking.Slots`."""

    def __init__(
        self,
        *,
        clock: Clock,
        fleet: Fleet,
        fence: Fence,
        meters: Meters,
        uses_credits: bool,
        on_revoke: Callable[[bytes, ForebayError], None],
        on_cutoff: Callable[[bytes, Refusal], None],
        on_drained: Callable[[bytes], None],
        on_emptied: Callable[[bytes], None] | None = None,
    ) -> None:
        """`on_revoke`: called with the ledger id of a granted request that has to end; `on_cutoff`: of one whose answer
        ends here, as if it had reached its length; `on_drained`: of one that goes elsewhere unless its answer has begun;
        `on_emptied`: of one that leaves its backend, whatever of it has been sent."""
        self._clock = clock
        self._fleet = fleet
        self._fence = fence
        self._uses_credits = uses_credits
        self._on_revoke = on_revoke
        self._on_cutoff = on_cutoff
        self._on_drained = on_drained
        self._on_emptied = on_emptied or on_drained
        self._starts = meters.own_starts
        self._credit_starts = meters.own_starts.child("credit")
        self._waiting: dict[bytes, _Waiting] = {}
        self._waiting_for: dict[tuple[str, str], int] = {}
        """(pool, model) → requests; what begins on a credit must not overtake any."""
        self._withdrawing: set[bytes] = set()
        self._held: dict[bytes, _Held] = {}
        self._unconfirmed: dict[bytes, _Ended] = {}
        self._ceilings = Ceilings()
        self._credits = Credits()
        self._allotments = Allotments()
        self._lent_by = BY_ITSELF
        self._local: LocalTurns | None = None
        """While no scheduler leads."""
        self._local_leases = 0
        self._outbox: wire.Outbox | None = None
        """None while no session stands: then all of it is part of the next Hello."""
        self._sealed: deque[wire.Outbox] = deque()
        """Frames before that one, to which nothing may be added."""
        self.wake: Callable[[], None] = _nobody
        """Called when there is something to say."""
        self.wake_soon: Callable[[], None] = _nobody
        """The same for what may wait for a moment, to go with more of its kind: nobody waits for what comes of it."""
        self._is_woken = False
        """Something has woken it soon, and it has not come yet."""

    # --- asking (asking.Slots) --------------------------------------------------------------------------------------

    async def ask(self, ask: Ask) -> Grant:
        grant = self.begin(ask)
        if grant is not None:
            return grant
        waiting = _Waiting(ask, asyncio.get_running_loop().create_future(), list(ask.excluded))
        self._wait(waiting)
        if self._outbox is not None:
            self._outbox.submits[ask.ledger_id] = wire.submit_to_wire(ask, self._clock.monotonic(), ask.excluded)
            self.wake()
        if self._local is not None:
            self._local.add(ask)
            self._begin_locally()
        return await _granted(waiting)

    async def ask_again(self, grant: Grant, blame: Blame, retry_after_s: float | None) -> Grant:
        held = self._release(grant.ledger_id, is_nacked=True)
        assert held is not None
        waiting = _Waiting(
            held.ask,
            asyncio.get_running_loop().create_future(),
            [*held.excluded, grant.backend_id],
            grant.attempt,
        )
        self._wait(waiting)
        if self._outbox is not None:
            self._outbox.nacks.append(wire.nack_to_wire(grant, blame, retry_after_s, held.ask.traced))
            self._outbox.progress.pop(grant.ledger_id, None)
            self.wake()
        if self._local is not None:
            self._local.add(held.ask, first=True)
            self._begin_locally()
        return await _granted(waiting)

    def end(self, ledger_id: bytes, outcome: Outcome, usage: Usage) -> None:
        outbox = self._outbox
        was_waiting = ledger_id in self._waiting and self._stop_waiting(ledger_id) is not None
        # What was not asked yet is not asked: a frame's cancels are read before its submits, so both would leave it queued.
        if was_waiting and outbox is not None and outbox.submits.pop(ledger_id, None) is None:
            outbox.cancels.append(ledger_id)
            self.wake()
        held = self._release(ledger_id)
        if held is not None:
            # Where a credit stands nobody waits for its slots.
            self._settle(held.ask, held.grant, outcome, usage, soon=self._credits.stands(held.credit))
            if self._local is not None:
                self._begin_locally()

    async def withdraw(self, ledger_id: bytes) -> None:
        outbox = self._outbox
        was_waiting = self._stop_waiting(ledger_id) is not None
        was_held = self._release(ledger_id) is not None
        if was_held:
            self._begin_locally()
        if outbox is None or not (was_waiting or was_held):
            return  # what it asked is part of the next Hello, or is not
        outbox.progress.pop(ledger_id, None)
        if was_waiting and outbox.submits.pop(ledger_id, None) is not None:
            return
        # A grant may be on its way, of the same id as the one that is asked for next: only once this was acted upon, no
        # word of the first can follow. Cancelled and not settled, since what is settled is over for good.
        acted_upon = outbox.withdrawn.setdefault(ledger_id, asyncio.get_running_loop().create_future())
        outbox.cancels.append(ledger_id)
        self._withdrawing.add(ledger_id)
        self.wake()
        try:
            await acted_upon
        finally:
            self._withdrawing.discard(ledger_id)

    def first_token(self, ledger_id: bytes, ttft_ms: int) -> None:
        if self._outbox is not None:
            self._outbox.first_tokens[ledger_id] = ttft_ms
            if not self._is_woken:
                self._is_woken = True
                self.wake_soon()

    def progress(self, ledger_id: bytes, completion_tokens: int) -> None:
        held = self._held.get(ledger_id)
        if held is not None:
            held.completion_tokens = completion_tokens
            if self._outbox is not None:
                self._outbox.progress[ledger_id] = completion_tokens
                if not self._is_woken:
                    self._is_woken = True
                    self.wake_soon()

    @property
    def is_past_fence(self) -> bool:
        return self._clock.monotonic() > self._fence.past_at

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def held(self) -> int:
        return len(self._held)

    @property
    def unconfirmed(self) -> int:
        return len(self._unconfirmed)

    @property
    def ceiling_slots(self) -> int:
        return self._ceilings.total

    @property
    def credit_slots(self) -> int:
        return self._credits.slots

    @property
    def is_local(self) -> bool:
        return self._local is not None

    # --- a session begins and ends ----------------------------------------------------------------------------------

    def hello(self, gateway: str, generation: int) -> scheduler_pb2.Hello:
        """The whole truth. From now on it is told what changes, and nothing begins without a scheduler's word."""
        now = self._clock.monotonic()
        self._drop_outbox()
        self._outbox = wire.Outbox()
        return scheduler_pb2.Hello(
            gateway=gateway,
            generation=generation,
            held=[wire.held_to_wire(h.ask, h.grant, now, h.excluded, h.completion_tokens) for h in self._held.values()],
            queued=[wire.submit_to_wire(w.ask, now, w.excluded, w.attempts) for w in self._waiting.values()],
            unconfirmed=[_with_request(ended, now) for ended in self._unconfirmed.values()],
            ceilings=[wire.ceiling_to_wire(ceiling) for ceiling in self._ceilings],
        )

    def welcomed(self, epoch: Epoch) -> None:
        """A leader has taken the Hello."""
        self._local = None
        self._allotments.end_all()
        lent_before, allotted_before = self._credits.take_ended(), self._allotments.take_ended()
        if epoch == self._lent_by and self._outbox is not None:
            # Another leader's numbers mean nothing to this one, or something else.
            self._outbox.credit_returns += lent_before
            self._outbox.allotment_returns += allotted_before
            self.wake()
        else:
            self._credits.forget_numbers()
            self._allotments.forget_numbers()
        self._lent_by = epoch

    def session_over(self) -> None:
        """Nobody listens any more. What was lent with credits cannot be told in the turn in which it is used, so it is not
        used; allotments last until they expire."""
        self._drop_outbox()
        self._credits.end_all()
        self._begin_locally()

    def begin_local(self) -> None:
        """No scheduler has led for a while: until one does, requests begin within the ceilings."""
        if self._local is not None:
            return
        log.warning(
            "no scheduler leads, requests begin within the ceilings",
            extra={"action": "local_mode", "waiting": len(self._waiting), "ceilings": self._ceilings.total},
        )
        self._local = LocalTurns(lambda ask: self._is_waiting(ask.ledger_id))
        for waiting in self._waiting.values():
            self._local.add(waiting.ask)
        self._begin_locally()

    def look_again(self) -> None:
        """Time has passed, or the fleet has changed."""
        self._begin_locally()

    def take_outbox(self) -> wire.Outbox:
        """What there is to say. Only while a session stands."""
        self._is_woken = False
        if self._sealed:
            self.wake()  # for those after it
            return self._sealed.popleft()
        outbox = self._outbox
        assert outbox is not None
        now = self._clock.monotonic()
        self._credits.end_expired(now)
        self._allotments.end_expired(now)
        outbox.credit_returns += self._credits.take_ended()
        outbox.allotment_returns += self._allotments.take_ended()
        self._outbox = outbox.split_off_later()
        if not self._outbox.is_empty:
            (self.wake if self._outbox.is_pressing or outbox.credit_returns else self.wake_soon)()
        return outbox

    @property
    def has_news(self) -> bool:
        """There is something to say. Only while a session stands."""
        return bool(self._sealed) or (self._outbox is not None and not self._outbox.is_empty)

    def _drop_outbox(self) -> None:
        """Nobody hears it: the next Hello says how things are."""
        for outbox in (*self._sealed, *((self._outbox,) if self._outbox is not None else ())):
            outbox.acted_upon()
        self._sealed.clear()
        self._outbox = None
        self._is_woken = False

    # --- what the scheduler says --------------------------------------------------------------------------------------

    def take_grant(self, grant: Grant) -> None:
        if grant.ledger_id in self._withdrawing:
            return  # it is cancelled, slots and all
        waiting = self._stop_waiting(grant.ledger_id)
        if waiting is not None and not waiting.granted.done():
            self._allotments.note(waiting.ask.key_id, grant.is_limited)
            self._hold(_Held(waiting.ask, grant, waiting.excluded))
            waiting.granted.set_result(grant)
            return
        held = self._held.get(grant.ledger_id)
        if held is None or held.grant.lease != grant.lease or held.grant.epoch != grant.epoch:
            self.hand_back(grant)  # its request is over, or runs on another grant

    def hand_back(self, grant: Grant) -> None:
        """Slots that nobody here uses."""
        settle = wire.settle_to_wire(grant, Outcome.CANCELLED, NOTHING_USED)
        if grant.ledger_id not in self._held and grant.ledger_id not in self._waiting:
            self._unconfirmed.setdefault(grant.ledger_id, _Ended(None, settle))  # what was used before stays so
        if self._outbox is not None:
            self._outbox.settles.append(settle)
            self.wake()

    def take_reject(self, reject: scheduler_pb2.Reject) -> None:
        waiting = self._stop_waiting(reject.ledger_id)
        if waiting is None:
            return
        word = as_refusal(reject.reason)
        if word in _LIMITS or reject.HasField("standing"):
            self._allotments.note(waiting.ask.key_id, True)
        if not waiting.granted.done():
            waiting.granted.set_exception(
                Refused(
                    word,
                    reject.message or f"The scheduler refused this request ({reject.reason}).",
                    retry_after_s=reject.retry_after_ms / 1000 if reject.retry_after_ms else None,
                    standing=wire.standing_from_wire(reject.standing) if reject.HasField("standing") else None,
                )
            )

    def take_revoke(self, ledger_id: bytes, reason: str, *, is_forced: bool = False) -> None:
        error = Refused(as_refusal(reason), f"Forebay took this request's place back ({reason}). Send it again.")
        if reason == Refusal.DRAINING:  # the backend, not the request
            if ledger_id in self._held:
                (self._on_emptied if is_forced else self._on_drained)(ledger_id)
            return
        waiting = self._stop_waiting(ledger_id)
        if waiting is not None:
            if not waiting.granted.done():
                waiting.granted.set_exception(error)
        elif ledger_id in self._held:
            self._on_revoke(ledger_id, error)

    def take_cutoff(self, ledger_id: bytes, reason: str) -> None:
        held = self._held.get(ledger_id)
        if held is not None:
            self._allotments.note(held.ask.key_id, True)
            self._on_cutoff(ledger_id, as_refusal(reason))

    def take_settled(self, ledger_ids: Iterable[bytes]) -> None:
        for ledger_id in ledger_ids:
            self._unconfirmed.pop(ledger_id, None)

    def take_ceiling(self, ceiling: Ceiling) -> None:
        held = self._ceilings.tell(ceiling)
        if self._outbox is not None:
            self._outbox.ceiling_acks.append(
                scheduler_pb2.CeilingAck(backend_id=ceiling.backend_id, version=ceiling.version, held=held)
            )
            self.wake()

    def take_credit(self, lent: Lent) -> None:
        """One that is not to be used goes straight back."""
        if self._uses_credits:
            self._credits.lend(lent)
        else:
            self.recall_credit(lent.id)

    def recall_credit(self, credit_id: int) -> None:
        self._credits.end(credit_id)
        self.wake()

    def take_allotment(self, allotment: Allotment) -> None:
        self._allotments.lend(allotment)

    def recall_allotment(self, allotment_id: int) -> None:
        self._allotments.end(allotment_id)
        self.wake()

    @property
    def has_credits(self) -> bool:
        return len(self._credits) > 0

    # --- beginning without asking -----------------------------------------------------------------------------------

    def begin(self, ask: Ask) -> Grant | None:
        """On a credit, in this turn. It is told soon; until then its slots count as held, since they are lent."""
        if self._outbox is None or ask.excluded or (ask.pool, ask.model) in self._waiting_for:
            return None
        is_small = len(ask.prefix_hashes) < _SMALL_PROMPT_BLOCKS and not ask.session_key
        if not is_small and len(self._fleet.serving(ask.model, ask.pool)) > 1:
            return None  # which one is best, only the scheduler knows
        now = self._clock.monotonic()
        credit = self._credits.find(ask.pool, ask.model, ask.width, now)
        if credit is None:
            return None
        backend_id = credit.lent.backend_id
        if self._ceilings.room(backend_id) < ask.width or not self._fleet.may_begin(backend_id):
            return None
        if not self._allotments.spend(ask.key_id, _tokens(ask), now):
            return None
        while credit.in_use + self._outbox.passed.get(credit.lent.id, 0) + ask.width > credit.lent.slots:
            self._seal()  # first the scheduler hears what has ended on these slots
        lease = credit.begin(ask.width)
        self._outbox.credit_starts[ask.ledger_id] = wire.credit_start_to_wire(ask, now, credit.lent, lease)
        if not self._is_woken:
            self._is_woken = True
            self.wake_soon()
        self._credit_starts.value += 1
        grant = self._own_grant(ask, backend_id, lease, self._lent_by, 1, now)
        self._hold(_Held(ask, grant, [], credit))
        return grant

    def _seal(self) -> None:
        """What is to be said now goes before all that comes."""
        assert self._outbox is not None
        self._sealed.append(self._outbox)
        self._outbox = self._outbox.split_off_later()
        self.wake()

    def _begin_locally(self) -> None:
        if self._local is None or self._outbox is not None:
            return
        for ask, backend_id in self._local.starts(self._room, self._may_begin):
            waiting = self._stop_waiting(ask.ledger_id)
            assert waiting is not None
            self._local_leases += 1
            self._starts.child("local").value += 1
            now = self._clock.monotonic()
            grant = self._own_grant(ask, backend_id, self._local_leases, BY_ITSELF, waiting.attempts + 1, now)
            self._hold(_Held(ask, grant, waiting.excluded))
            waiting.granted.set_result(grant)

    def _room(self, pool: str, model: str) -> Iterator[tuple[str, int]]:
        for backend in self._fleet.serving(model, pool):
            if backend.may_begin:
                yield backend.id, self._ceilings.room(backend.id)

    def _may_begin(self, ask: Ask, backend_id: str) -> bool:
        if backend_id in self._waiting[ask.ledger_id].excluded:
            return False
        return self._allotments.spend(ask.key_id, _tokens(ask), self._clock.monotonic())

    def _own_grant(self, ask: Ask, backend_id: str, lease: int, epoch: Epoch, attempt: int, now: float) -> Grant:
        return Grant(
            ledger_id=ask.ledger_id,
            backend_id=backend_id,
            lease=lease,
            epoch=epoch,
            attempt=attempt,
            queue_ms=round((now - ask.arrived) * 1000) if now > ask.arrived else 0,
            is_limited=self._allotments.is_limited(ask.key_id),
        )

    # --- the books --------------------------------------------------------------------------------------------------

    def _is_waiting(self, ledger_id: bytes) -> bool:
        waiting = self._waiting.get(ledger_id)
        return waiting is not None and not waiting.granted.done()

    def _wait(self, waiting: _Waiting) -> None:
        ask = waiting.ask
        self._waiting[ask.ledger_id] = waiting
        place = (ask.pool, ask.model)
        self._waiting_for[place] = self._waiting_for.get(place, 0) + 1

    def _stop_waiting(self, ledger_id: bytes) -> _Waiting | None:
        waiting = self._waiting.pop(ledger_id, None)
        if waiting is not None:
            place = (waiting.ask.pool, waiting.ask.model)
            self._waiting_for[place] -= 1
            if not self._waiting_for[place]:
                del self._waiting_for[place]
        return waiting

    def _hold(self, held: _Held) -> None:
        self._held[held.ask.ledger_id] = held
        self._ceilings.take(held.grant.backend_id, held.ask.width)

    def _release(self, ledger_id: bytes, *, is_nacked: bool = False) -> _Held | None:
        held = self._held.pop(ledger_id, None)
        if held is not None:
            self._ceilings.give_back(held.grant.backend_id, held.ask.width)
            if held.credit is not None:
                held.credit.in_use -= held.ask.width
                if self._outbox is not None and (is_nacked or ledger_id in self._outbox.credit_starts):
                    passed, credit_id = self._outbox.passed, held.credit.lent.id
                    passed[credit_id] = passed.get(credit_id, 0) + held.ask.width
        return held

    def _settle(self, ask: Ask, grant: Grant, outcome: Outcome, usage: Usage, *, soon: bool) -> None:
        settle = wire.settle_to_wire(grant, outcome, usage)
        self._unconfirmed[grant.ledger_id] = _Ended(ask, settle)
        if len(self._unconfirmed) > MOST_UNCONFIRMED:
            del self._unconfirmed[next(iter(self._unconfirmed))]
        if self._outbox is not None:
            self._outbox.settles.append(settle)
            if self._outbox.progress:
                self._outbox.progress.pop(grant.ledger_id, None)
            if not soon:
                self.wake()
            elif not self._is_woken:
                self._is_woken = True
                self.wake_soon()


def _with_request(ended: _Ended, now: float) -> scheduler_pb2.Settle:
    if ended.ask is None:
        return ended.settle
    whole = scheduler_pb2.Settle()
    whole.CopyFrom(ended.settle)
    whole.request.CopyFrom(wire.submit_to_wire(ended.ask, now))
    del whole.request.prefix_hashes[:]
    return whole


def _tokens(ask: Ask) -> int:
    """What is taken off an allotment."""
    return ask.prompt_tokens + ask.width * min(ask.max_output_tokens or _EXPECTED_OUTPUT, _EXPECTED_OUTPUT)


async def _granted(waiting: _Waiting) -> Grant:
    try:
        return await waiting.granted
    except asyncio.CancelledError:
        if waiting.granted.done() and not waiting.granted.cancelled():
            waiting.granted.exception()  # a refusal that came in the very turn in which the client went: nobody needs it
        raise


def _nobody() -> None: ...
