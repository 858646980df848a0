"""What a decision costs the scheduler's core: processor time, at a size that no fleet in sight reaches."""

from __future__ import annotations

import gc
import random
import time
from dataclasses import dataclass

import forebay_scheduler.policy
from forebay.collector import calm
from forebay_scheduler import decisions as de
from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import (
    BackendId,
    Epoch,
    GatewayName,
    GroupId,
    KeyId,
    Lease,
    LedgerId,
    PoolName,
    Request,
    SessionId,
    Used,
    UserId,
)
from forebay_scheduler.rules import Rules
from forebay_scheduler.terms import GroupTerms, UserTerms

SESSION = SessionId(1)
BLOCKS = 8
WINDOW = 2000


def step_ns() -> float:
    """What this machine takes right now to store and read a number in a small dictionary: a yardstick for the rest."""
    numbers: dict[int, int] = {}
    began = time.thread_time_ns()
    for n in range(1_000_000):
        numbers[n & 1023] = n
        numbers.get(n)
    return (time.thread_time_ns() - began) / 1_000_000


def is_compiled() -> bool:
    """Whether the core that is measured is native code."""
    return not forebay_scheduler.policy.__file__.endswith(".py")


@dataclass(frozen=True, slots=True)
class Costs:
    """Microseconds of processor time for one end of a request and the start of the next."""

    mean: float
    p50: float
    p99: float


class Crowd:
    """A core with a long queue: users in groups, backends that are all busy, and requests that keep coming."""

    def __init__(self, *, queued: int, backends: int, users: int, models: int = 1, groups: int = 100, seed: int = 1):
        self.chance = random.Random(seed)
        self.now = 1000.0
        self.count = 0
        self.users = users
        self.groups = groups
        self.models = [f"m{n}" for n in range(models)]
        self.running: list[tuple[LedgerId, Lease]] = []
        rules = Rules(queue_per_pool=1_000_000, queue_per_user=1_000_000, locality_window=WINDOW)
        self.policy = Policy(rules, Epoch(1, 1), self.now, seed=seed)
        self.apply(
            ev.PolicyChanged(
                users=tuple(UserTerms(UserId(f"u{n}"), GroupId(f"g{n % groups}")) for n in range(users)),
                groups=tuple(GroupTerms(GroupId(f"g{n}"), weight=1.0 + n % 4) for n in range(groups)),
            )
        )
        serves = min(3, models)
        self.apply(
            ev.FleetChanged(
                tuple(
                    Backend(
                        BackendId(f"b{n:04}"),
                        PoolName("default"),
                        frozenset(self.models[(n + step) % models] for step in range(serves)),
                        slots=4,
                        kv_tokens=400_000,
                    )
                    for n in range(backends)
                )
            )
        )
        self.apply(ev.SessionOpened(SESSION, GatewayName("g"), 1))
        for _ in range(queued + 4 * backends):
            self.submit()

    def apply(self, *events: ev.Event) -> None:
        pending = self.policy.apply(events, self.now)
        while pending:
            decision = pending.pop()
            match decision:
                case de.Grant():
                    self.note(decision)
                case de.StoreCeilings(ticket):
                    pending += self.policy.apply((ev.CeilingsStored(ticket),), self.now)
                case de.CeilingTold(session, backend, _, _, version):
                    pending += self.policy.apply((ev.CeilingAcked(session, backend, version, 0),), self.now)
                case _:
                    pass

    def note(self, grant: de.Grant) -> None:
        """Its first token comes soon."""
        self.running.append((grant.ledger_id, grant.lease))
        self.policy.apply((ev.FirstToken(SESSION, grant.ledger_id, 0.3),), self.now)

    def request(self) -> Request:
        self.count += 1
        user = self.chance.randrange(self.users)
        opening = self.chance.randrange(1000)
        return Request(
            LedgerId(b"%016d" % self.count),
            UserId(f"u{user}"),
            self.chance.choice(self.models),
            self.now,
            key=KeyId(f"k{user}"),
            group=GroupId(f"g{user % self.groups}"),
            prompt_tokens=BLOCKS * 512,
            prefix_hashes=tuple(opening * 1000 + block for block in range(BLOCKS)),
        )

    def submit(self) -> None:
        self.apply(ev.Submit(SESSION, self.request()))


def decisions(
    *, queued: int = 10_000, backends: int = 1000, users: int = 10_000, models: int = 1, rounds: int = 8000
) -> Costs:
    """One request ends, the next one starts: release, settle, next, place, lease. The queue is kept at its length."""
    crowd = Crowd(queued=queued, backends=backends, users=users, models=models)
    policy, running, took = crowd.policy, crowd.running, []
    calm()
    for _ in range(rounds):
        crowd.submit()
        at = crowd.chance.randrange(len(running))
        running[at], running[-1] = running[-1], running[at]
        ledger_id, lease = running.pop()
        crowd.now += 0.001
        settle = ev.Settle(SESSION, ledger_id, lease, True, Used(BLOCKS * 512, 512, 200))
        began = time.thread_time_ns()
        out = policy.apply((settle,), crowd.now)
        took.append((time.thread_time_ns() - began) / 1000)
        granted = [decision for decision in out if isinstance(decision, de.Grant)]
        assert granted, "an end frees a slot, and somebody waits for it"
        for grant in granted:
            crowd.note(grant)
        policy.dispatch.settlements.acked([ledger_id])
    gc.unfreeze()
    took.sort()
    return Costs(sum(took) / len(took), took[len(took) // 2], took[int(len(took) * 0.99)])


def uncontended(*, backends: int = 100, rounds: int = 8000) -> Costs:
    """A request comes while nobody waits, and ends: admitted, placed, leased, settled."""
    crowd = Crowd(queued=0, backends=backends, users=1000)
    for ledger_id, lease in crowd.running:
        crowd.apply(ev.Settle(SESSION, ledger_id, lease, True, Used(100, 0, 10)))
    policy, took = crowd.policy, []
    calm()
    for _ in range(rounds):
        request = crowd.request()
        crowd.now += 0.001
        began = time.thread_time_ns()
        (grant,) = policy.apply((ev.Submit(SESSION, request),), crowd.now)
        assert isinstance(grant, de.Grant)
        policy.apply((ev.Settle(SESSION, request.ledger_id, grant.lease, True, Used(4096, 512, 200)),), crowd.now)
        took.append((time.thread_time_ns() - began) / 1000)
        policy.dispatch.settlements.acked([request.ledger_id])
    gc.unfreeze()
    took.sort()
    return Costs(sum(took) / len(took), took[len(took) // 2], took[int(len(took) * 0.99)])


def progress(*, backends: int = 1000, running: int = 4000, rounds: int = 20) -> float:
    """Microseconds for each word of how far an answer has got, of which frames of a busy gateway hold hundreds."""
    crowd, in_frame, took = Crowd(queued=1000, backends=backends, users=10_000), 250, 0
    ledger_ids = [ledger_id for ledger_id, _ in crowd.running[:running]]
    calm()
    for number in range(1, rounds + 1):
        crowd.now += 0.25
        for first in range(0, len(ledger_ids), in_frame):
            told = tuple(ev.Progress(SESSION, i, 8 * number) for i in ledger_ids[first : first + in_frame])
            began = time.thread_time_ns()
            crowd.policy.apply(told, crowd.now)
            took += time.thread_time_ns() - began
    gc.unfreeze()
    return took / 1000 / rounds / len(ledger_ids)


if __name__ == "__main__":
    print("compiled" if is_compiled() else "interpreted", f"{step_ns():.0f} ns a step")
    print("10k queued, 1k backends, 10k users:", decisions())
    print("the same, 8 models:", decisions(models=8))
    print("nobody waits:", uncontended())
    print(f"how far an answer has got: {progress():.1f}")
