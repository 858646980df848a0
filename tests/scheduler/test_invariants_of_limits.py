"""Limits through the whole core: at each moment what is reserved, spent and lent is what requests in fact hold, used
and were lent, and nobody is refused who had room. The count here is made by looking at every request there is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from forebay.errors import Refusal
from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend
from forebay_scheduler.request import BackendId, GroupId, KeyId, PoolName, Request, Used, UserId
from forebay_scheduler.rules import Rules
from forebay_scheduler.terms import Budget, BudgetUnit, GroupTerms, KeyTerms, Limits, UserTerms
from tests.scheduler.doubles import Around, GatewayDouble, Running, thorough

pytestmark = pytest.mark.timeout(300)  # what is tried is fixed; how long that takes is the machine's


USERS = ["alice", "bob"]
BACKENDS = [Backend(BackendId("gpu1"), PoolName("default"), frozenset({"m"}), 4, running=0)]
GROUP_SLOTS = 4
indices = st.integers(0, 20)


class Limiting(RuleBasedStateMachine):
    """Users alice and bob are in one group. All three have budgets; the group has a limit on what it has at once."""

    def __init__(self) -> None:
        super().__init__()
        self.around = Around(Rules(), {backend.id: backend for backend in BACKENDS})
        self.amounts = {"budget of alice": 3_000, "budget of bob": 3_000, "budget of lab": 4_500}
        self.spent = dict.fromkeys(self.amounts, 0)
        self.generated: dict[bytes, int] = {}
        self.at_once = GROUP_SLOTS

    @initialize()
    def begin(self) -> None:
        self.tell()
        gateway = self.around.start("g1")
        gateway.limited = {f"key of {user}" for user in USERS}
        self.around.exchange()

    def tell(self) -> None:
        def of(name: str, at_once: int | None = None) -> Limits:
            budget = f"budget of {name}"
            return Limits(concurrency=at_once, budgets=(Budget(budget, BudgetUnit.TOKENS, self.amounts[budget]),))

        self.around.tell(
            ev.PolicyChanged(
                users=tuple(UserTerms(UserId(user), GroupId("lab"), limits=of(user)) for user in USERS),
                groups=(GroupTerms(GroupId("lab"), limits=of("lab", self.at_once)),),
                keys=tuple(KeyTerms(KeyId(f"key of {user}"), UserId(user)) for user in USERS),
            )
        )

    @property
    def gateway(self) -> GatewayDouble:
        return self.around.gateways["g1"]

    def budgets_of(self, request: Request) -> list[str]:
        return [f"budget of {request.user}", "budget of lab"]

    def open_requests(self) -> list[Request]:
        running = [one.request for one in self.gateway.running.values()]
        return [*self.gateway.waiting.values(), *running]

    def picked(self, index: int) -> Running | None:
        running = list(self.gateway.running.values())
        return running[index % len(running)] if running else None

    def standing(self, budget: str) -> Any:
        return next(one for one in self.around.policy.dispatch.limits.budgets() if one.budget_id == budget)

    @rule(user=st.sampled_from(USERS), prompt=st.sampled_from([0, 50, 400]), most=st.sampled_from([0, 50, 300]))
    def submit(self, user: str, prompt: int, most: int) -> None:
        request = Request(
            self.around.new_id(),
            UserId(user),
            "m",
            self.around.now,
            key=KeyId(f"key of {user}"),
            prompt_tokens=prompt,
            max_output_tokens=most,
        )
        tokens = max(1, request.prompt_tokens + self.around.policy.dispatch.cost.expected_output(request))
        has_room = all(self.standing(budget).free >= tokens for budget in self.budgets_of(request))
        has_place = len(self.open_requests()) < self.at_once
        is_lent = bool(self.gateway.allotments)
        refused_before = self.around.rejects.copy()
        self.around.submitted[request.ledger_id] = request
        self.gateway.ask(request)
        self.around.exchange()
        if is_lent:
            return  # what was lent may have covered it, or comes back first
        is_in = request.ledger_id in self.gateway.waiting or request.ledger_id in self.gateway.running
        assert is_in == (has_room and has_place)
        if not is_in:
            new = self.around.rejects - refused_before
            assert new.keys() <= {Refusal.QUOTA_SPENT, Refusal.CONCURRENCY_LIMITED}

    @rule(index=indices, tokens=st.integers(1, 600))
    def answer_flows(self, index: int, tokens: int) -> None:
        """It is cut off, and ends, when a budget has no room for more than was reserved."""
        one = self.picked(index)
        if one is None:
            return
        self.gateway.progress(one.request.ledger_id, tokens)
        so_far = one.completion_tokens
        cutoffs = self.around.cutoffs
        self.around.exchange()
        if self.around.cutoffs > cutoffs:
            self.count(one.request, Used(one.request.prompt_tokens, 0, so_far))

    @rule(index=indices, completion=st.integers(0, 500), prompt=st.integers(0, 500))
    def finish(self, index: int, completion: int, prompt: int) -> None:
        one = self.picked(index)
        if one is not None:
            used = Used(prompt, 0, max(completion, one.completion_tokens))
            self.gateway.finish(one.request.ledger_id, used)
            self.count(one.request, used)
            self.around.exchange()

    def count(self, request: Request, used: Used) -> None:
        for budget in self.budgets_of(request):
            self.spent[budget] += used.prompt_tokens + used.completion_tokens

    @rule(index=indices)
    def cancel(self, index: int) -> None:
        waiting = list(self.gateway.waiting)
        if waiting:
            self.gateway.cancel_waiting(waiting[index % len(waiting)])
            self.around.exchange()

    @rule(index=indices, cause=st.sampled_from(list(ev.NackCause)))
    def nack(self, index: int, cause: ev.NackCause) -> None:
        one = self.picked(index)
        if one is not None and one.completion_tokens == 0:
            self.gateway.nack(one.request.ledger_id, cause)
            self.around.exchange()

    @rule(index=indices, is_told_again=st.booleans())
    def settle_twice(self, index: int, is_told_again: bool) -> None:
        """Also of a wrong lease, which counts for nothing."""
        one = self.picked(index)
        if one is None:
            return
        session = self.gateway.session
        assert session is not None
        used = Used(10, 0, max(5, one.completion_tokens))
        wrong = type(one.claim.lease)(one.claim.lease.epoch, one.claim.lease.seq + 10_000)
        self.around.leader.apply(ev.Settle(session, one.request.ledger_id, wrong, used=Used(9_999, 0, 9_999)))
        self.gateway.inbox.clear()
        lease = one.claim.lease
        self.gateway.finish(one.request.ledger_id, used)
        self.count(one.request, used)
        self.around.exchange()
        self.around.leader.apply(ev.Settle(session, one.request.ledger_id, lease, used=used))
        if is_told_again:
            self.around.leader.save()
            self.around.confirm_states(self.around.leader)
            self.around.leader.apply(ev.Settle(session, one.request.ledger_id, lease, used=used))
        self.around.exchange()

    @rule()
    def beat(self) -> None:
        self.around.seq += 1
        self.gateway.beat(self.around.seq)
        self.around.exchange()

    @rule()
    def connect_again(self) -> None:
        self.gateway.connect(self.around.leader)
        self.gateway.allotments.clear()
        self.around.exchange()

    @rule(is_saved=st.booleans())
    def another_leads(self, is_saved: bool) -> None:
        """Ends that no stored state holds are told again."""
        if is_saved:
            self.around.leader.save()
            self.around.confirm_states(self.around.leader)
        self.around.depose(self.around.leader)
        self.around.lead()
        self.gateway.connect(self.around.leader)
        self.gateway.allotments.clear()
        self.around.exchange()

    @rule(budget=st.sampled_from(["budget of alice", "budget of lab"]), amount=st.sampled_from([0, 500, 3_000, 6_000]))
    def change_budget(self, budget: str, amount: int) -> None:
        """Also below what is used: then nothing more begins."""
        self.amounts[budget] = amount
        self.tell()
        self.around.exchange()

    @rule(at_once=st.sampled_from([0, 1, GROUP_SLOTS]))
    def change_concurrency(self, at_once: int) -> None:
        self.at_once = at_once
        self.tell()

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        for _ in range(max(1, int(seconds))):
            self.around.pass_time(min(1.0, seconds))
            if self.gateway.session is not None:
                self.gateway.end_expired()
        self.around.exchange()

    @invariant()
    def limits_are_as_the_requests_say(self) -> None:
        running = {one.request.ledger_id: one.completion_tokens for one in self.gateway.running.values()}
        for budget, amount in self.amounts.items():
            standing = self.standing(budget)
            assert standing.amount == amount
            assert standing.spent == self.spent[budget], budget
            assert standing.spent + standing.reserved + standing.lent + standing.free == amount
            mine = [request for request in self.open_requests() if budget in self.budgets_of(request)]
            least = sum(request.prompt_tokens + running.get(request.ledger_id, 0) for request in mine)
            most = sum(
                max(1, request.prompt_tokens + max(256 + 250, running.get(request.ledger_id, 0))) for request in mine
            )
            assert least <= standing.reserved <= most
            assert standing.lent >= 0
            if not mine:
                assert standing.reserved == 0
            if not self.gateway.allotments:
                assert standing.lent == 0, "what is lent is not lost"

    @invariant()
    def ends_are_single(self) -> None:
        self.around.check_ends()
        self.around.check_slots()


TestLimiting = Limiting.TestCase
TestLimiting.settings = thorough(60, 40)
