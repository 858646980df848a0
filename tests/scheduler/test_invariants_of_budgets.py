"""Budgets over time, through the whole core and three gateways that crash, come back and tell things again: what is spent,
reserved, lent and free is the budget at every step, no more is spent than the documented error, and what fits passes.

The count here knows no running sums: it is a list of what each request used and when its end was told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend
from forebay_scheduler.limits.periods import span_of_window
from forebay_scheduler.request import BackendId, GroupId, KeyId, LedgerId, PoolName, Request, Used, UserId
from forebay_scheduler.rules import Rules
from forebay_scheduler.terms import Budget, BudgetUnit, GroupTerms, KeyTerms, Limits, Period, UserTerms
from tests.scheduler.doubles import Around, GatewayDouble, thorough

pytestmark = pytest.mark.timeout(300)  # what is tried is fixed; how long that takes is the machine's

USERS = ["alice", "bob"]
GATEWAYS = ["g1", "g2", "g3"]
BACKENDS = [Backend(BackendId("gpu1"), PoolName("default"), frozenset({"m"}), 8, running=0)]
DAY_US = 86_400_000_000
CARRY_MOST = 1_500
names = st.sampled_from(GATEWAYS)
indices = st.integers(0, 20)


@dataclass
class Entry:
    """The end of a request, as a leader has heard of it."""

    ledger_id: LedgerId
    gateway: str
    generation: int
    budgets: tuple[str, ...]
    at_us: int
    tokens: int
    is_stored: bool = False


class Budgeting(RuleBasedStateMachine):
    """Alice and bob have a budget each day, which carries over; their group has one of the last 24 hours."""

    def __init__(self) -> None:
        super().__init__()
        self.around = Around(Rules(), {backend.id: backend for backend in BACKENDS})
        self.amounts = {"alice": 3_000, "bob": 3_000, "lab": 5_000}
        self.carried = dict.fromkeys(USERS, (0, 0))
        """User → how much, and into which day."""
        self.entries: list[Entry] = []
        self.day = self.today()
        self.told: dict[str, int] = {}
        self.dying: list[tuple[GatewayDouble, Request, Used]] = []
        """What gateways ran when they died, until their death is proven: it is counted as far as it was told."""
        self.excused = dict.fromkeys(self.amounts, 0)
        """By so much it may be overspent: answers that ran over, and what there is less of than there was."""

    @initialize()
    def begin(self) -> None:
        self.tell()
        for name in GATEWAYS:
            self.start(name)

    def start(self, name: str) -> None:
        self.around.start(name).limited = {f"key of {user}" for user in USERS}
        self.around.exchange()

    def tell(self) -> None:
        def daily(user: str) -> Limits:
            carried, day = self.carried[user]
            budget = Budget(
                user, BudgetUnit.TOKENS, self.amounts[user], Period.DAY, carried=carried, carried_since_us=day * DAY_US
            )
            return Limits(budgets=(budget,))

        window = Budget("lab", BudgetUnit.TOKENS, self.amounts["lab"], window_s=86_400)
        self.around.tell(
            ev.PolicyChanged(
                users=tuple(UserTerms(UserId(user), GroupId("lab"), limits=daily(user)) for user in USERS),
                groups=(GroupTerms(GroupId("lab"), limits=Limits(budgets=(window,))),),
                keys=tuple(KeyTerms(KeyId(f"key of {user}"), UserId(user)) for user in USERS),
            )
        )
        self.around.exchange()
        for name, before in self.told.items():
            self.excused[name] += max(0, before - self.amount(name))
        self.told = {name: self.amount(name) for name in self.amounts}

    # -- the plain reckoning

    def today(self) -> int:
        return self.around.wall_us // DAY_US

    def amount(self, name: str) -> int:
        if name == "lab":
            return self.amounts[name]
        carried, day = self.carried[name]
        return self.amounts[name] + (carried if day == self.day else 0)

    def spent(self, name: str) -> int:
        since = span_of_window(86_400, self.around.wall_us).start_us if name == "lab" else self.day * DAY_US
        return sum(one.tokens for one in self.entries if name in one.budgets and one.at_us >= since)

    def standing(self, name: str) -> Any:
        return next(one for one in self.around.policy.dispatch.limits.budgets() if one.budget_id == name)

    def count(self, gateway: GatewayDouble, request: Request, used: Used) -> None:
        tokens = used.prompt_tokens + used.completion_tokens
        of = (str(request.user), "lab")
        name, generation = gateway.process
        self.entries.append(Entry(request.ledger_id, name, generation, of, self.around.wall_us, tokens))

    def alive(self, name: str) -> GatewayDouble | None:
        gateway = self.around.gateways[name]
        return gateway if gateway.is_alive else None

    # -- what happens

    @rule(
        name=names,
        user=st.sampled_from(USERS),
        prompt=st.sampled_from([0, 50, 400]),
        most=st.sampled_from([0, 50, 300]),
    )
    def submit(self, name: str, user: str, prompt: int, most: int) -> None:
        gateway = self.alive(name)
        if gateway is None:
            return
        request = Request(
            self.around.new_id(),
            UserId(user),
            "m",
            self.around.now,
            key=KeyId(f"key of {user}"),
            prompt_tokens=prompt,
            max_output_tokens=most,
        )
        tokens = max(1, prompt + self.around.policy.dispatch.cost.expected_output(request))
        fits = all(self.standing(budget).free >= tokens for budget in (user, "lab"))
        is_lent = any(one.allotments for one in self.around.gateways.values())
        self.around.submitted[request.ledger_id] = request
        gateway.ask(request)
        self.around.exchange()
        if not is_lent:  # what was lent may have covered it, or comes back first
            assert fits == (request.ledger_id in gateway.waiting or request.ledger_id in gateway.running)

    def picked(self, name: str, index: int) -> tuple[GatewayDouble, LedgerId] | None:
        gateway = self.alive(name)
        running = list(gateway.running) if gateway is not None else []
        return (gateway, running[index % len(running)]) if gateway is not None and running else None

    @rule(name=names, index=indices, tokens=st.integers(1, 600))
    def answer_flows(self, name: str, index: int, tokens: int) -> None:
        """It is cut off, and ends, when a budget has no room for more than was reserved."""
        picked = self.picked(name, index)
        if picked is None:
            return
        gateway, ledger_id = picked
        one = gateway.running[ledger_id]
        gateway.progress(ledger_id, tokens)
        for budget in (str(one.request.user), "lab"):
            self.excused[budget] += tokens
        cutoffs = self.around.cutoffs
        self.around.exchange()
        if self.around.cutoffs > cutoffs:
            self.count(gateway, one.request, Used(one.request.prompt_tokens, 0, one.completion_tokens))

    @rule(name=names, index=indices, is_away=st.booleans())
    def finish(self, name: str, index: int, is_away: bool) -> None:
        """While its stream is broken: it tells when it is back, and twice."""
        picked = self.picked(name, index)
        if picked is None:
            return
        gateway, ledger_id = picked
        one = gateway.running[ledger_id]
        used = Used(one.request.prompt_tokens, 0, one.completion_tokens)
        if is_away:
            self.around.lose(gateway)
            gateway.allotments.clear()
        gateway.finish(ledger_id, used)
        if is_away:
            gateway.connect(self.around.leader)
            self.around.exchange()
            gateway.connect(self.around.leader)
        self.count(gateway, one.request, used)
        self.around.exchange()

    @rule(name=names, cause=st.sampled_from(list(ev.NackCause)), index=indices)
    def nack(self, name: str, cause: ev.NackCause, index: int) -> None:
        picked = self.picked(name, index)
        if picked is not None and picked[0].running[picked[1]].completion_tokens == 0:
            picked[0].nack(picked[1], cause)
            self.around.exchange()

    @rule(name=names)
    def crash(self, name: str) -> None:
        """What it had not told is lost, and so is what no stored state holds when another leads."""
        gateway = self.alive(name)
        if gateway is not None:
            self.dying += [
                (gateway, one.request, Used(one.request.prompt_tokens, 0, one.completion_tokens))
                for one in gateway.running.values()
            ]
            self.around.kill(name)
            gateway.allotments.clear()

    @rule(name=names)
    def come_back(self, name: str) -> None:
        if self.alive(name) is None:
            self.start(name)
            self.bury(lambda gateway: gateway.process[0] == name)

    def bury(self, is_proven: Callable[[GatewayDouble], bool]) -> None:
        for gateway, request, used in self.dying:
            if is_proven(gateway):
                self.count(gateway, request, used)
        self.dying = [one for one in self.dying if not is_proven(one[0])]

    @rule(name=names)
    def beat(self, name: str) -> None:
        gateway = self.alive(name)
        if gateway is not None:
            self.around.seq += 1
            gateway.beat(self.around.seq)
            self.around.exchange()

    @rule(is_stored=st.booleans())
    def another_leads(self, is_stored: bool) -> None:
        if is_stored:
            self.around.leader.save()
            self.around.confirm_states(self.around.leader)
            for entry in self.entries:
                entry.is_stored = True
        self.around.depose(self.around.leader)
        self.around.lead()
        self.dying.clear()  # this one has never heard of them
        held = {name: self.standing(name) for name in self.amounts}
        kept = []
        for entry in self.entries:
            gateway = self.around.gateways[entry.gateway]
            is_told_again = gateway.is_alive and gateway.process[1] == entry.generation
            if entry.is_stored or is_told_again:
                kept.append(entry)
            if not entry.is_stored:
                entry.at_us = self.around.wall_us
        self.entries = kept
        for gateway in self.around.gateways.values():
            if gateway.is_alive:
                gateway.connect(self.around.leader)
                gateway.allotments.clear()
        self.around.exchange()
        for name, before in held.items():
            self.excused[name] += max(0, before.free - self.standing(name).free)

    @rule(name=st.sampled_from(["alice", "lab"]), amount=st.sampled_from([500, 3_000, 6_000]))
    def change_the_budget(self, name: str, amount: int) -> None:
        self.amounts[name] = amount
        self.tell()

    @rule(hours=st.sampled_from([1, 5, 13, 24]), is_told_first=st.booleans(), late=st.sampled_from([0, 200]))
    def hours_pass(self, hours: int, is_told_first: bool, late: int) -> None:
        """Over the end of a day, admin counts what was left, and again when rows come in late."""
        self.around.exchange()
        turns_to = (self.around.wall_us + hours * 3_600_000_000) // DAY_US
        is_turn = turns_to > self.day
        if is_turn:
            left = {user: max(0, self.amount(user) - self.spent(user)) for user in USERS}
            self.carried = {user: (min(CARRY_MOST, left[user]), turns_to) for user in USERS}
            if is_told_first:  # admin's clock is ahead: what was carried into this day is no longer told
                self.tell()
        self.around.pass_time(hours * 3600.0)
        for gateway in self.around.gateways.values():
            if gateway.session is not None:
                gateway.end_expired()
        self.around.exchange()
        self.bury(lambda gateway: True)
        if is_turn:
            self.day = turns_to
            self.tell()
            if late:
                self.carried = {user: (max(0, much - late), day) for user, (much, day) in self.carried.items()}
                self.tell()

    @rule()
    def the_clock_steps_back_and_comes_again(self) -> None:
        for wall_us in (self.around.wall_us - 7_200_000_000, self.around.wall_us):
            self.around.leader.apply(ev.Tick(wall_us))
        self.around.exchange()

    # -- what holds

    @invariant()
    def the_budget_is_what_is_spent_reserved_lent_and_free(self) -> None:
        if not self.around.policy_told:
            return
        running = [one for gateway in self.around.gateways.values() for one in gateway.running.values()]
        waiting = [one for gateway in self.around.gateways.values() for one in gateway.waiting.values()]
        for name in self.amounts:
            standing = self.standing(name)
            assert standing.amount == self.amount(name), name
            assert standing.spent == self.spent(name), name
            assert standing.spent + standing.reserved + standing.lent + standing.free == standing.amount
            mine = [
                one.request.prompt_tokens + one.completion_tokens
                for one in running
                if name in (one.request.user, "lab")
            ]
            mine += [one.prompt_tokens for one in waiting if name in (one.user, "lab")]
            assert standing.reserved >= sum(mine), name
            assert standing.lent >= 0
            if standing.free >= 0:
                self.excused[name] = 0
            assert -standing.free <= self.excused[name], f"{name} is overspent by {-standing.free}"

    @invariant()
    def ends_are_single(self) -> None:
        self.around.check_ends()
        self.around.check_slots()

    def teardown(self) -> None:
        """Everybody comes back and ends: nothing stays reserved or lent."""
        if not self.around.policy_told:
            return
        for name in GATEWAYS:
            self.come_back(name)
        for gateway in self.around.gateways.values():
            gateway.allotments.clear()
            self.around.lose(gateway)
            gateway.connect(self.around.leader)
        self.around.exchange()
        for _ in range(200):
            busy = [gateway for gateway in self.around.gateways.values() if gateway.running or gateway.waiting]
            if not busy:
                break
            for gateway in busy:
                for ledger_id in list(gateway.running):
                    gateway.finish(ledger_id, Used())
                self.around.exchange()
            self.around.pass_time(1.0)
        for name in self.amounts:
            assert (self.standing(name).reserved, self.standing(name).lent) == (0, 0), name


TestBudgeting = Budgeting.TestCase
TestBudgeting.settings = thorough(30, 40)
