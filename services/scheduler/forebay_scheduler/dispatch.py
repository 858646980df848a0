"""The requests' side of the core: what waits, what is granted, what is refused. Pure.

Who goes next is `queue`'s business, where to is `placement`'s, which slots are taken is `holds`'. Which gateways there
are, and whether they live, is `policy`'s: here a gateway is who asks."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from forebay.errors import Refusal
from forebay_scheduler.backend import Fleet
from forebay_scheduler.breaker import Breaker
from forebay_scheduler.decisions import Decision, Grant, Reject, Revoke, Settled
from forebay_scheduler.drain_rate import DrainRate
from forebay_scheduler.events import Nack, Settle, UserLimits
from forebay_scheduler.gateways import Gateway
from forebay_scheduler.holds import Holds
from forebay_scheduler.placement import Round
from forebay_scheduler.queue import Queue
from forebay_scheduler.request import BackendId, Epoch, Held, Lease, LedgerId, PoolName, Request, UserId
from forebay_scheduler.retry_budget import RetryBudget
from forebay_scheduler.rules import Rules
from forebay_scheduler.tally import Tally

_SHORTEST_PAUSE_S = 0.25
"""For a backend that is busy without saying for how long, or that a gateway has not heard of yet."""


@dataclass(slots=True)
class _Line:
    """One pool: its queue, and how it is doing."""

    queue: Queue
    retries: RetryBudget
    drain: DrainRate = field(default_factory=DrainRate)


class Dispatch:
    def __init__(self, rules: Rules, epoch: Epoch, now: float, new_queue: Callable[[], Queue]) -> None:
        self.now = now
        self.epoch = epoch
        self.out: list[Decision] = []
        self.tally = Tally()
        self.fleet: Fleet | None = None
        """None until it is known for the first time: till then everything waits."""
        self.holds = Holds(rules)
        self.breaker = Breaker(rules.breaker_failures, rules.breaker_rest_s)
        self._rules = rules
        self._new_queue = new_queue
        self._lines: dict[PoolName, _Line] = {}
        self._limits: dict[UserId, UserLimits] = {}
        self._owners: dict[LedgerId, Gateway] = {}
        self._expiries: list[tuple[float, LedgerId]] = []
        self._seq = 0

    def begin(self, now: float) -> list[Decision]:
        """A new turn. Returns the list that its decisions will be in."""
        for line in self._lines.values():
            if line.queue:
                line.drain.note_time(now - self.now)
        self.now = now
        self.out = []
        return self.out

    def queued(self) -> Iterator[Request]:
        for line in self._lines.values():
            yield from line.queue

    # -- what gateways say --------------------------------------------------------------------------------------------

    def submit(self, gateway: Gateway, request: Request, *, may_start: bool) -> None:
        if self.knows(request.ledger_id):
            return  # sent again
        self.tally.submits += 1
        refusal = self._judge(request)
        if refusal is None and self._is_full(request):
            if may_start:
                self.start_waiting(request.pool)  # what came in the same frame may be about to leave the queue
            if self._is_full(request):
                refusal = Refusal.QUEUE_FULL
        if refusal is None:
            self.enqueue(gateway, request)
        else:
            self._reject(gateway, request, refusal)

    def cancel(self, gateway: Gateway, ledger_id: LedgerId) -> None:
        """Queued, or granted so recently that the gateway did not know."""
        if self._owners.get(ledger_id) is gateway:
            self.withdraw(ledger_id)
        elif (held := self.held_by(gateway, ledger_id)) is not None:
            self.give_back(held)
        else:
            return
        self.tally.cancels += 1

    def note_first_token(self, gateway: Gateway, ledger_id: LedgerId) -> None:
        held = self.held_by(gateway, ledger_id)
        if held is not None:
            self.holds.note_first_token(held, self.now)
            self.breaker.note_success(held.backend, ledger_id)

    def note_progress(self, gateway: Gateway, ledger_id: LedgerId, completion_tokens: int) -> None:
        held = self.held_by(gateway, ledger_id)
        if held is not None:
            self.holds.note_progress(held, completion_tokens)

    def settle(self, gateway: Gateway, settle: Settle) -> None:
        self.tally.settles += 1
        self.out.append(Settled(settle.session, settle.ledger_id))
        held = self.held_by(gateway, settle.ledger_id)
        if settle.lease is None:
            self.cancel(gateway, settle.ledger_id)
        elif held is not None and held.lease == settle.lease:
            if settle.is_success:
                self.breaker.note_success(held.backend, settle.ledger_id)
            self.give_back(held)
        else:
            self.tally.stale_settles += 1

    def nack(self, gateway: Gateway, nack: Nack) -> None:
        held = self.held_by(gateway, nack.ledger_id)
        if held is None or held.lease.seq != nack.lease_seq:
            return
        self.tally.nacks += 1
        if nack.cause.blames_backend:
            self.breaker.note_failure(held.backend, nack.ledger_id, self.now)
        else:
            self.breaker.pause(held.backend, max(nack.retry_after_s, _SHORTEST_PAUSE_S), self.now)
        self.holds.give_back(nack.ledger_id)
        self.breaker.note_end(held.backend, nack.ledger_id)

        again = replace(held.request, attempts=held.attempt, excluded=held.request.excluded | {held.backend})
        if not nack.cause.blames_backend and not self._could_run(again):
            # Merely busy, or new to the gateway: worth another try when it is the only one.
            again = replace(again, excluded=held.request.excluded)
        line = self._line(again.pool)
        if again.attempts < self._rules.attempts and self._could_run(again) and line.retries.spend():
            self.tally.retries += 1
            self.enqueue(gateway, again, is_retry=True)
        else:
            self._reject(gateway, again, Refusal.ENGINE_FAILED)

    # -- what others say ----------------------------------------------------------------------------------------------

    def change_fleet(self, fleet: Fleet) -> None:
        before, self.fleet = self.fleet or Fleet(), fleet
        self.breaker.keep_only({backend.id for backend in fleet})
        for backend in fleet:
            known = before.get(backend.id)
            if backend.healthy and known is not None and not known.healthy:
                self.breaker.reset(backend.id)

    def change_limits(self, users: Iterable[UserLimits], removed: Iterable[UserId]) -> None:
        self._limits.update({limits.user: limits for limits in users})
        for user in removed:
            self._limits.pop(user, None)

    def revoke_waiting(self, gateway: Gateway, user: UserId) -> None:
        for request in [request for request in gateway.waiting.values() if request.user == user]:
            self.withdraw(request.ledger_id)
            if gateway.session is not None:
                self.tally.revokes += 1
                self.out.append(Revoke(gateway.session, request.ledger_id, Refusal.KEY_REVOKED))

    def expire(self) -> None:
        """Refuse what has waited for as long as it may."""
        while self._expiries and self._expiries[0][0] <= self.now:
            ledger_id = heapq.heappop(self._expiries)[1]
            gateway = self._owners.get(ledger_id)
            if gateway is None or not gateway.is_reachable:
                continue  # gone, granted, or parked: then its gateway submits it again when it returns
            request = gateway.waiting[ledger_id]
            if self._expires_at(request) <= self.now:
                self.withdraw(ledger_id)
                self._reject(gateway, request, self._judge(request) or Refusal.QUEUE_TIMEOUT)

    # -- the queue and the slots --------------------------------------------------------------------------------------

    def start_all(self) -> None:
        for pool in self._lines:
            self.start_waiting(pool)

    def start_waiting(self, pool: PoolName) -> None:
        """Grant, in turn, whatever can start now."""
        line = self._lines.get(pool)
        if line is None or not line.queue or self.fleet is None:
            return
        free = {
            backend.id: max(0, self.holds.free(backend))
            for backend in self.fleet.in_pool(pool)
            if backend.is_open and self.breaker.allows(backend.id, self.now)
        }
        placing = Round(self.fleet, pool, free)
        while placing.has_room and (next_up := line.queue.pop(placing.place)) is not None:
            request, backend = next_up
            placing.take(backend, request.width)
            self._grant(request, backend)
            if not self.breaker.allows(backend, self.now):
                placing.close(backend)

    def knows(self, ledger_id: LedgerId) -> bool:
        return ledger_id in self._owners or self.holds.get(ledger_id) is not None

    def held_by(self, gateway: Gateway, ledger_id: LedgerId) -> Held | None:
        held = self.holds.get(ledger_id)
        return held if held is not None and (held.gateway, held.generation) == gateway.process else None

    def enqueue(self, gateway: Gateway, request: Request, *, is_retry: bool = False) -> None:
        self._owners[request.ledger_id] = gateway
        gateway.waiting[request.ledger_id] = request
        queue = self._line(request.pool).queue
        if is_retry:
            queue.restore(request)
        else:
            queue.push(request)
        heapq.heappush(self._expiries, (self._expires_at(request), request.ledger_id))

    def park(self, gateway: Gateway) -> None:
        """Out of the queue, but not forgotten: a grant could not reach it now."""
        for ledger_id, request in gateway.waiting.items():
            self._line(request.pool).queue.remove(ledger_id)

    def unpark(self, gateway: Gateway) -> None:
        for request in list(gateway.waiting.values()):
            self.enqueue(gateway, request)

    def withdraw(self, ledger_id: LedgerId) -> None:
        """It no longer waits."""
        gateway = self._owners.pop(ledger_id, None)
        if gateway is not None:
            request = gateway.waiting.pop(ledger_id)
            self._line(request.pool).queue.remove(ledger_id)

    def give_back(self, held: Held) -> None:
        """The grant is over."""
        self.holds.give_back(held.request.ledger_id)
        self.breaker.note_end(held.backend, held.request.ledger_id)
        line = self._line(held.request.pool)
        if line.queue:
            line.drain.note_end()

    def _grant(self, request: Request, backend: BackendId) -> None:
        gateway = self._owners.pop(request.ledger_id)
        del gateway.waiting[request.ledger_id]
        assert gateway.session is not None, "what is out of reach is parked, so it is not in the queue"
        self._seq += 1
        lease = Lease(self.epoch, self._seq)
        attempt = request.attempts + 1
        self.holds.take(Held(request, backend, lease, attempt, *gateway.process, since=self.now))
        self.breaker.note_grant(backend, request.ledger_id)
        if attempt == 1:
            self._line(request.pool).retries.note_first_attempt()
        self.tally.grants += 1
        queued_s = max(0.0, self.now - request.arrived_at)
        self.out.append(Grant(gateway.session, request.ledger_id, backend, attempt, lease, request.width, queued_s))

    def _line(self, pool: PoolName) -> _Line:
        line = self._lines.get(pool)
        if line is None:
            retries = RetryBudget(self._rules.retry_share, self._rules.retry_reserve)
            line = self._lines[pool] = _Line(self._new_queue(), retries)
        return line

    # -- refusing -----------------------------------------------------------------------------------------------------

    def _could_run(self, request: Request) -> bool:
        """Some backend that is up, and that has not failed it, could take it now or later."""
        return any(
            backend.is_open and backend.slots >= request.width and backend.id not in request.excluded
            for backend in (self.fleet.serving(request.pool, request.model) if self.fleet else ())
        )

    def _judge(self, request: Request) -> Refusal | None:
        """Whether waiting makes sense at all. Before the fleet is known it does."""
        if self.fleet is None or self._could_run(request):
            return None
        caps = [backend.slots for backend in self.fleet.serving(request.pool, request.model)]
        if caps and max(caps) < request.width:
            return Refusal.WIDTH_TOO_LARGE
        return Refusal.ENGINE_FAILED if request.attempts else Refusal.NO_BACKEND

    def _is_full(self, request: Request) -> bool:
        queue = self._line(request.pool).queue
        limits = self._limits.get(request.user)
        most = self._rules.queue_per_user if limits is None or limits.max_queued is None else limits.max_queued
        return len(queue) >= self._rules.queue_per_pool or queue.waiting_of(request.user) >= most

    def _expires_at(self, request: Request) -> float:
        allowed_s = self._rules.queue_timeout_s[request.band]
        return request.arrived_at + (allowed_s if request.deadline_s is None else min(allowed_s, request.deadline_s))

    def _reject(self, gateway: Gateway, request: Request, reason: Refusal) -> None:
        assert gateway.session is not None, "only a gateway within reach is refused anything"
        self.tally.rejects[reason] += 1
        line = self._line(request.pool)
        retry_after_s: float | None
        match reason:
            case Refusal.WIDTH_TOO_LARGE:
                retry_after_s = None
            case Refusal.NO_BACKEND | Refusal.ENGINE_FAILED:
                retry_after_s = self._rules.no_backend_retry_s
            case _:
                retry_after_s = line.drain.retry_after_s(len(line.queue) + 1)
        self.out.append(Reject(gateway.session, request.ledger_id, reason, retry_after_s, _message(reason, request)))


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
