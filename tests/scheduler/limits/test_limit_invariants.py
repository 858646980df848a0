"""Whatever happens in whatever order: the book of limits agrees with a plain list of entries.

The list knows no running sums: for each budget it keeps who reserved, spent and was lent what, and adds it up each time.
Rates are buckets of fractions that are never rounded."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forebay.errors import Refusal
from forebay_scheduler.events import PolicyChanged
from forebay_scheduler.limits.limits import LimitBook
from forebay_scheduler.limits.subjects import Subject
from forebay_scheduler.request import GroupId, KeyId, LedgerId, Request, Used, UserId
from forebay_scheduler.terms import (
    Budget,
    BudgetUnit,
    GroupTerms,
    KeyTerms,
    Limits,
    ModelTerms,
    Period,
    UserTerms,
)

WALL_US = int(datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()) * 1_000_000
MODELS = {"cheap": (1_000_000, 500_000, 3_000_000), "odd": (333_333, 0, 700_001), "free": (0, 0, 0)}
OWNERS = {"k1": "alice", "k2": "alice", "k3": "bob"}
GROUPS = {"alice": "physics", "bob": "faculty"}
PARENTS = {"physics": "faculty"}
SUBJECTS = ["key:k1", "key:k3", "user:alice", "user:bob", "group:physics", "group:faculty"]
STEP = 40
"""Tokens between two words of progress, at most."""


@dataclass
class BudgetEntries:
    terms: Budget
    spent: list[tuple[str, int]] = field(default_factory=list)
    """With the name of the period in which it was settled."""
    reserved: dict[bytes, int] = field(default_factory=dict)
    lent: dict[int, int] = field(default_factory=dict)
    was_lowered: bool = False

    def spent_in(self, period: str) -> int:
        return sum(amount for name, amount in self.spent if name == period)

    def free(self, period: str) -> int:
        return self.terms.amount - self.spent_in(period) - sum(self.reserved.values()) - sum(self.lent.values())


@dataclass
class FractionBucket:
    limit: int
    level: Fraction = Fraction(0)

    def pass_time(self, us: int) -> None:
        self.level = max(Fraction(0), self.level - Fraction(self.limit * us, 60_000_000))

    def has_room(self, units: int) -> bool:
        return self.level + units <= self.limit or (self.level == 0 and self.limit > 0)

    def charge(self, units: int) -> None:
        self.level = max(Fraction(0), self.level + units)

    def change(self, limit: int) -> None:
        if limit < self.limit:
            self.level = min(self.level, Fraction(limit))
        self.limit = limit


@dataclass
class SubjectEntries:
    requests: FractionBucket | None = None
    tokens: FractionBucket | None = None
    places: PlaceEntries | None = None
    budgets: dict[str, BudgetEntries] = field(default_factory=dict)


@dataclass
class PlaceEntries:
    limit: int
    running: set[bytes] = field(default_factory=set)
    lent: dict[int, int] = field(default_factory=dict)


@dataclass
class Counters:
    """What one request is counted by."""

    requests: list[FractionBucket]
    tokens: list[FractionBucket]
    places: list[PlaceEntries]
    budgets: list[BudgetEntries]

    def __bool__(self) -> bool:
        return bool(self.requests or self.tokens or self.places or self.budgets)


@dataclass
class Running:
    request: Request
    estimate: int
    counters: Counters
    charged: int
    is_lent: bool
    completion: int = 0


@dataclass
class Lending:
    key: str
    counters: Counters
    requests: int
    tokens: int
    money: int
    is_open: bool = True


def budgets(amounts: list[int]) -> st.SearchStrategy[tuple[Budget, ...]]:
    def one(unit: BudgetUnit) -> st.SearchStrategy[Budget]:
        return st.builds(
            lambda amount, period: Budget(f"{unit}-{period}", unit, amount, period),
            st.sampled_from(amounts),
            st.sampled_from([Period.EVER, Period.HOUR, Period.DAY]),
        )

    return st.lists(st.sampled_from(list(BudgetUnit)).flatmap(one), max_size=2, unique_by=lambda b: b.id).map(tuple)


LIMITS = st.builds(
    Limits,
    st.sampled_from([None, None, 0, 2, 60, 600]),
    st.sampled_from([None, None, 300, 6000, 30_000]),
    st.sampled_from([None, None, 0, 1, 3, 40]),
    budgets([0, 150, 900, 4000, 60_000]),
)

ROOMY = st.builds(
    Limits,
    st.sampled_from([None, 600, 3000]),
    st.sampled_from([None, 30_000, 200_000]),
    st.sampled_from([None, 40, 200]),
    budgets([4000, 60_000]),
)
"""To begin with: there is something to lend and to run over."""


class LimitKeeping(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.at_us = 1_000_000
        self.wall_us = WALL_US
        self.count = 0
        self.subjects = {ref: SubjectEntries() for ref in SUBJECTS}
        self.limits = {ref: Limits() for ref in SUBJECTS}
        self.running: dict[bytes, Running] = {}
        self.ended: list[tuple[Request, bool]] = []
        """With whether it began on an allotment that this leader knew."""
        self.lendings: dict[int, Lending] = {}
        self.ended_early: dict[bytes, tuple[Request, Used]] = {}
        self.book = LimitBook(self.wall_us, self.now)
        self.book.change(self.policy(), self.now)

    @property
    def now(self) -> float:
        return self.at_us / 1_000_000

    def policy(self) -> PolicyChanged:
        return PolicyChanged(
            users=tuple(UserTerms(UserId(u), GroupId(g), limits=self.limits[f"user:{u}"]) for u, g in GROUPS.items()),
            groups=tuple(
                GroupTerms(GroupId(g), GroupId(PARENTS[g]) if g in PARENTS else None, limits=self.limits[f"group:{g}"])
                for g in ("physics", "faculty")
            ),
            keys=tuple(KeyTerms(KeyId(k), UserId(OWNERS[k]), limits=self.limits[f"key:{k}"]) for k in ("k1", "k3")),
            models=tuple(ModelTerms(model, *prices) for model, prices in MODELS.items()),
        )

    # -- the plain reckoning

    def period(self, budget: Budget) -> str:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.wall_us)
        return moment.strftime({Period.EVER: "ever", Period.HOUR: "%x %H", Period.DAY: "%x"}[budget.period])

    def counters(self, key: str) -> Counters:
        refs, group = [f"key:{key}", f"user:{OWNERS[key]}"], GROUPS[OWNERS[key]]
        while group:
            refs.append(f"group:{group}")
            group = PARENTS.get(group, "")
        own = [self.subjects[ref] for ref in refs if ref in self.subjects]
        return Counters(
            [s.requests for s in own if s.requests],
            [s.tokens for s in own if s.tokens],
            [s.places for s in own if s.places],
            [b for s in own for b in s.budgets.values()],
        )

    def price(self, model: str, prompt: int, cached: int, completion: int) -> int:
        per_prompt, per_cached, per_completion = MODELS[model]
        exact = Fraction((prompt - cached) * per_prompt + cached * per_cached + completion * per_completion, 1_000_000)
        return int(exact + Fraction(1, 2))

    def need(self, budget: BudgetEntries, request: Request, tokens: int) -> int:
        if budget.terms.unit is BudgetUnit.TOKENS:
            return tokens
        return self.price(request.model, request.prompt_tokens, 0, tokens - request.prompt_tokens)

    def why_not(self, request: Request, tokens: int, counters: Counters) -> Refusal | None:
        for budget in counters.budgets:
            need = self.need(budget, request, tokens)
            if need and budget.free(self.period(budget.terms)) < need:
                return Refusal.QUOTA_SPENT
        if not all(rate.has_room(1) for rate in counters.requests):
            return Refusal.RATE_LIMITED
        if not all(rate.has_room(tokens) for rate in counters.tokens):
            return Refusal.RATE_LIMITED
        if any(len(p.running) + sum(p.lent.values()) >= p.limit for p in counters.places):
            return Refusal.CONCURRENCY_LIMITED
        return None

    def hold(self, request: Request, tokens: int, counters: Counters, lending: int | None = None) -> None:
        is_lent = lending is not None
        covered_requests = covered_tokens = 0
        if lending is not None and lending in self.lendings and self.lendings[lending].is_open:
            loan = self.lendings[lending]
            money = self.price(request.model, request.prompt_tokens, 0, tokens - request.prompt_tokens)
            if not any(b.terms.unit is BudgetUnit.MONEY for b in counters.budgets):
                money = 0
            covered_requests, covered_tokens = min(1, loan.requests), min(tokens, loan.tokens)
            covered_money = min(money, loan.money)
            loan.requests -= covered_requests
            loan.tokens -= covered_tokens
            loan.money -= covered_money
            self.write_lent(lending)
        for rate in counters.requests:
            rate.charge(1 - covered_requests)
        for rate in counters.tokens:
            rate.charge(tokens - covered_tokens)
        for places in counters.places:
            places.running.add(request.ledger_id)
        for budget in counters.budgets:
            budget.reserved[request.ledger_id] = self.need(budget, request, tokens)
        if counters:
            self.running[request.ledger_id] = Running(request, tokens, counters, tokens, is_lent)

    def write_lent(self, lending: int) -> None:
        loan = self.lendings[lending]
        for places in loan.counters.places:
            places.lent[lending] = loan.requests if loan.is_open else 0
        for budget in loan.counters.budgets:
            left = loan.tokens if budget.terms.unit is BudgetUnit.TOKENS else loan.money
            budget.lent[lending] = left if loan.is_open else 0

    def let_go(self, one: Running) -> None:
        for places in one.counters.places:
            places.running.remove(one.request.ledger_id)
        for budget in one.counters.budgets:
            del budget.reserved[one.request.ledger_id]
        del self.running[one.request.ledger_id]
        self.ended.append((one.request, one.is_lent))

    def end(self, one: Running, used: Used) -> None:
        tokens = used.prompt_tokens + used.completion_tokens
        self.let_go(one)
        for rate in one.counters.tokens:
            rate.charge(tokens - one.charged)
        self.spend(one.request, one.counters, used)

    def spend(self, request: Request, counters: Counters, used: Used) -> None:
        tokens = used.prompt_tokens + used.completion_tokens
        money = self.price(request.model, used.prompt_tokens, used.cached_prompt_tokens, used.completion_tokens)
        for budget in counters.budgets:
            amount = tokens if budget.terms.unit is BudgetUnit.TOKENS else money
            budget.spent.append((self.period(budget.terms), amount))

    # -- what happens

    @initialize(limits=st.lists(ROOMY, min_size=len(SUBJECTS), max_size=len(SUBJECTS)))
    def begin(self, limits: list[Limits]) -> None:
        for ref, some in zip(SUBJECTS, limits, strict=True):
            self.limit(ref, some)

    def new(self, key: str, model: str, prompt: int) -> Request:
        self.count += 1
        return Request(
            LedgerId(self.count.to_bytes(16)),
            UserId(OWNERS[key]),
            model,
            self.now,
            key=KeyId(key),
            prompt_tokens=prompt,
        )

    keys = st.sampled_from(sorted(OWNERS))
    models = st.sampled_from(sorted(MODELS))
    few = st.integers(0, 120)
    which = st.integers(0, 1000)

    @rule(key=keys, model=models, prompt=few, output=st.integers(1, 300), twice=st.booleans())
    def submit(self, key: str, model: str, prompt: int, output: int, twice: bool) -> None:
        request = self.new(key, model, prompt)
        counters = self.counters(key)
        expected = self.why_not(request, prompt + output, counters)
        for _ in range(1 + twice):
            refused = self.book.admit(request, prompt + output, self.now)
            assert (refused and refused.reason) == expected
            if refused is not None and refused.retry_after_s is not None:
                assert refused.retry_after_s > 0
        if expected is None:
            self.hold(request, prompt + output, counters)

    def pick(self, which: int) -> Running:
        return list(self.running.values())[which % len(self.running)]

    @precondition(lambda self: self.running)
    @rule(which=which, more=st.integers(0, STEP))
    def progress(self, which: int, more: int) -> None:
        one = self.pick(which)
        one.completion += more
        so_far = one.request.prompt_tokens + one.completion
        goes_on = True
        if so_far > one.charged:
            for rate in one.counters.tokens:
                rate.charge(so_far - one.charged)
            one.charged = so_far
        for budget in one.counters.budgets:
            need = self.need(budget, one.request, so_far)
            if need > budget.reserved[one.request.ledger_id]:
                budget.reserved[one.request.ledger_id] = need
                goes_on = goes_on and budget.free(self.period(budget.terms)) >= 0
        assert self.book.extend(one.request.ledger_id, one.completion, self.now) == goes_on
        if not goes_on:
            used = Used(one.request.prompt_tokens, 0, one.completion)
            self.book.settle(one.request.ledger_id, used, self.now)
            self.end(one, used)

    @precondition(lambda self: self.running)
    @rule(which=which, cached=st.integers(0, 50), less=st.integers(0, 50), twice=st.booleans())
    def settle(self, which: int, cached: int, less: int, twice: bool) -> None:
        one = self.pick(which)
        prompt = max(0, one.request.prompt_tokens - less)
        used = Used(prompt, min(prompt, cached), one.completion)
        for _ in range(1 + twice):
            self.book.settle(one.request.ledger_id, used, self.now)
        self.end(one, used)

    @precondition(lambda self: self.running)
    @rule(which=which, twice=st.booleans())
    def release(self, which: int, twice: bool) -> None:
        one = self.pick(which)
        for _ in range(1 + twice):
            self.book.release(one.request.ledger_id, self.now)
        self.let_go(one)
        for rate in one.counters.requests:
            rate.charge(-1)
        for rate in one.counters.tokens:
            rate.charge(-one.charged)

    @rule(key=keys, model=models, prompt=few, completion=few)
    def replay(self, key: str, model: str, prompt: int, completion: int) -> None:
        request, used = self.new(key, model, prompt), Used(prompt, 0, completion)
        counters = self.counters(key)
        self.book.replay(request, used, self.now)
        for rate in counters.requests:
            rate.charge(1)
        for rate in counters.tokens:
            rate.charge(prompt + completion)
        self.spend(request, counters, used)

    @rule(key=keys)
    def lend(self, key: str) -> None:
        counters = self.counters(key)
        free_before = [b.free(self.period(b.terms)) for b in counters.budgets]
        lent = self.book.lend(KeyId(key), UserId(OWNERS[key]), GroupId(""), self.now)
        if lent is None:
            return
        assert counters
        self.lendings[lent.id] = Lending(key, counters, lent.requests, lent.tokens, lent.money_micros)
        for rate, units in [(r, lent.requests) for r in counters.requests] + [
            (r, lent.tokens) for r in counters.tokens
        ]:
            assert units * 60 <= rate.limit, "at most a second's worth"
            assert units * 8 <= rate.limit - rate.level
            rate.charge(units)
        for budget, free in zip(counters.budgets, free_before, strict=True):
            assert (lent.tokens if budget.terms.unit is BudgetUnit.TOKENS else lent.money_micros) * 8 <= free
        self.write_lent(lent.id)

    @precondition(lambda self: self.lendings)
    @rule(which=which)
    def top_up(self, which: int) -> None:
        lending = sorted(self.lendings)[which % len(self.lendings)]
        loan = self.lendings[lending]
        more = self.book.top_up(lending, self.now)
        if more is None:
            return
        assert loan.is_open
        assert more.id == lending
        for rate, units in [(r, more.requests) for r in loan.counters.requests] + [
            (r, more.tokens) for r in loan.counters.tokens
        ]:
            assert units * 60 <= rate.limit, "at most a second's worth"
            assert units * 8 <= rate.limit - rate.level
            rate.charge(units)
        loan.requests += more.requests
        loan.tokens += more.tokens
        loan.money += more.money_micros
        self.write_lent(lending)

    @precondition(lambda self: self.lendings)
    @rule(which=which, model=models, prompt=few, output=st.integers(1, 300), twice=st.booleans())
    def begin_on_loan(self, which: int, model: str, prompt: int, output: int, twice: bool) -> None:
        lending = sorted(self.lendings)[which % len(self.lendings)]
        loan = self.lendings[lending]
        request = self.new(loan.key, model, prompt)
        for _ in range(1 + twice):
            self.book.admit_lent(request, lending, prompt + output, self.now)
        self.hold(request, prompt + output, loan.counters if loan.is_open else self.counters(loan.key), lending)

    @precondition(lambda self: any(loan.is_open for loan in self.lendings.values()))
    @rule(which=which, model=models, prompt=few, output=st.integers(1, 300), completion=few)
    def end_before_it_is_said_to_have_begun(
        self, which: int, model: str, prompt: int, output: int, completion: int
    ) -> None:
        lending = sorted(self.lendings)[which % len(self.lendings)]
        loan = self.lendings[lending]
        request, used = self.new(loan.key, model, prompt), Used(prompt, 0, completion)
        self.book.settle(request.ledger_id, used, self.now)
        self.book.admit_lent(request, lending, prompt + output, self.now)
        self.hold(request, prompt + output, loan.counters if loan.is_open else self.counters(loan.key), lending)
        if request.ledger_id in self.running:
            self.end(self.running[request.ledger_id], used)

    @precondition(lambda self: any(is_lent for _, is_lent in self.ended))
    @rule(which=which)
    def say_again_that_it_began_or_ended(self, which: int) -> None:
        again = [request for request, is_lent in self.ended if is_lent]
        request = again[which % len(again)]
        for lending in self.lendings or (1,):
            self.book.admit_lent(request, lending, 100, self.now)
        self.book.settle(request.ledger_id, Used(5, 0, 5), self.now)

    @precondition(lambda self: self.lendings)
    @rule(which=which, twice=st.booleans())
    def take_back(self, which: int, twice: bool) -> None:
        lending = sorted(self.lendings)[which % len(self.lendings)]
        loan = self.lendings[lending]
        for _ in range(1 + twice):
            self.book.take_back(lending, self.now)
        if loan.is_open:
            for rate in loan.counters.requests:
                rate.charge(-loan.requests)
            for rate in loan.counters.tokens:
                rate.charge(-loan.tokens)
            loan.is_open = False
            self.write_lent(lending)

    @rule(ref=st.sampled_from(SUBJECTS), limits=LIMITS)
    def change_limits(self, ref: str, limits: Limits) -> None:
        self.limit(ref, limits)

    def limit(self, ref: str, limits: Limits) -> None:
        self.limits[ref] = limits
        entries = self.subjects[ref]
        entries.requests = self.changed(entries.requests, limits.requests_per_minute)
        entries.tokens = self.changed(entries.tokens, limits.tokens_per_minute)
        if limits.concurrency is None:
            entries.places = None
        elif entries.places is None:
            entries.places = PlaceEntries(limits.concurrency)
        else:
            entries.places.limit = limits.concurrency
        before, entries.budgets = entries.budgets, {}
        for terms in limits.budgets:
            kept = before.get(terms.id) or BudgetEntries(terms)
            kept.was_lowered |= terms.amount < kept.terms.amount
            kept.terms = terms
            entries.budgets[terms.id] = kept
        self.book.change(self.policy(), self.now)

    def changed(self, bucket: FractionBucket | None, limit: int | None) -> FractionBucket | None:
        if limit is None:
            return None
        if bucket is None:
            return FractionBucket(limit)
        bucket.change(limit)
        return bucket

    def rates(self) -> list[FractionBucket]:
        """All that somebody still counts by."""
        found: dict[int, FractionBucket] = {}
        alive = [self.counters(key) for key in OWNERS]
        alive += [one.counters for one in self.running.values()] + [loan.counters for loan in self.lendings.values()]
        for counters in alive:
            found.update({id(rate): rate for rate in counters.requests + counters.tokens})
        return list(found.values())

    @rule(passed_us=st.one_of(st.integers(0, 3_000_000), st.sampled_from([0, 60_000_000, 10**13])))
    def pass_time(self, passed_us: int) -> None:
        self.at_us += passed_us
        for rate in self.rates():
            rate.pass_time(passed_us)

    @rule(wall_s=st.sampled_from([0, 1, 600, 3600, 86400, 40 * 86400]))
    def turn_the_calendar(self, wall_s: int) -> None:
        self.wall_us += wall_s * 1_000_000
        self.book.tick(self.wall_us, self.now)

    @rule(back_s=st.integers(1, 7200))
    def the_wall_clock_goes_back_and_returns(self, back_s: int) -> None:
        self.book.tick(self.wall_us - back_s * 1_000_000, self.now)
        self.book.tick(self.wall_us, self.now)

    @rule(policy_first=st.booleans())
    def another_leader_takes_over(self, policy_first: bool) -> None:
        self.book.tick(self.wall_us, self.now)
        spent, levels = self.book.spent(), self.book.levels(self.now)
        self.book = LimitBook(self.wall_us, self.now)
        if policy_first:
            self.book.change(self.policy(), self.now)
        self.book.restore(spent, levels, self.wall_us, self.wall_us, self.now)
        if not policy_first:
            self.book.change(self.policy(), self.now)
        self.lendings.clear()
        self.ended.clear()
        running, self.running = self.running, {}
        for entries in self.subjects.values():
            if entries.places:
                entries.places.running.clear()
                entries.places.lent.clear()
            for budget in entries.budgets.values():
                budget.reserved.clear()
                budget.lent.clear()
        self.at_us += 1  # the next one hears of them a little later
        for rate in self.rates():
            rate.pass_time(1)
        for one in running.values():
            request = one.request
            request.arrived_at = self.now - 1.0
            self.book.adopt(request, one.estimate, self.now)
            counters = self.counters(request.key)
            self.hold(request, one.estimate, Counters([], [], counters.places, counters.budgets))
            if counters:
                self.running[request.ledger_id] = Running(
                    request, one.estimate, counters, one.estimate, False, one.completion
                )
        self.levels_agree(after_restore=True)

    # -- what holds

    def subject(self, ref: str) -> Subject | None:
        kind, name = ref.split(":")
        return self.book._subjects.get((kind, name))

    def levels_agree(self, after_restore: bool = False) -> None:
        """What is stored is rounded to a microsecond, and believed up to an hour; from there on it is exact again."""
        for ref, entries in self.subjects.items():
            subject = self.subject(ref)
            for bucket, rate in (
                (entries.requests, subject.request_rate if subject else None),
                (entries.tokens, subject.token_rate if subject else None),
            ):
                assert (bucket is None) == (rate is None)
                if bucket is None or rate is None:
                    continue
                level = Fraction(rate._drain(self.at_us), 60_000_000)
                if after_restore:
                    left = min(bucket.level, Fraction(bucket.limit * 60))
                    assert abs(level - left) <= Fraction(bucket.limit * 2, 60_000_000)
                    bucket.level = level
                assert level == bucket.level

    @invariant()
    def rates_agree(self) -> None:
        self.levels_agree()

    @invariant()
    def budgets_agree(self) -> None:
        found = {(b.subject, b.budget_id): b for b in self.book.budgets()}
        expected = {(ref, id_): b for ref, entries in self.subjects.items() for id_, b in entries.budgets.items()}
        assert found.keys() == expected.keys()
        for where, budget in expected.items():
            real, period = found[where], self.period(budget.terms)
            assert real.amount == budget.terms.amount
            assert real.spent == budget.spent_in(period)
            assert real.reserved == sum(budget.reserved.values())
            assert real.lent == sum(budget.lent.values())
            assert real.spent + real.reserved + real.lent + real.free == real.amount
            assert min(real.spent, real.reserved, real.lent) >= 0

    @invariant()
    def places_agree(self) -> None:
        for ref, entries in self.subjects.items():
            if entries.places is not None:
                subject = self.subject(ref)
                assert subject is not None
                assert subject.places is not None
                assert subject.places.running == len(entries.places.running)
                assert subject.places.lent == sum(entries.places.lent.values())

    def teardown(self) -> None:
        for one in list(self.running.values()):
            self.book.release(one.request.ledger_id, self.now)
        for lending in self.lendings:
            self.book.take_back(lending, self.now)
        assert not self.book._reserved
        assert not self.book._allotments
        for budget in self.book.budgets():
            assert (budget.reserved, budget.lent) == (0, 0)
        for subject in self.book._subjects.values():
            if subject.places is not None:
                assert (subject.places.running, subject.places.lent) == (0, 0)


TestLimitKeeping = LimitKeeping.TestCase
TestLimitKeeping.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
