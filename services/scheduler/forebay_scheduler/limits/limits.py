"""The book of limits: admits a request or says why not, and keeps count of what is reserved, spent and lent.

All limits of the request's key, its user, its group and the groups around it apply, and all or nothing: a refusal reserves
nothing. A limit counts what was admitted after it was set; requests that have no limits leave no trace here. What a
request costs is by the prices of the moment in which it was admitted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from forebay_scheduler import terms
from forebay_scheduler.decisions import RateStanding
from forebay_scheduler.events import PolicyChanged
from forebay_scheduler.limits.budget import Account, Calendar
from forebay_scheduler.limits.gcra import Rate
from forebay_scheduler.limits.lent import Allotment, Lent, small_share
from forebay_scheduler.limits.periods import Span, zone_named
from forebay_scheduler.limits.prices import PriceList, Prices
from forebay_scheduler.limits.refusals import Refused, Wanted, highest, obstacles
from forebay_scheduler.limits.rolling import RollingAccount
from forebay_scheduler.limits.subjects import Chain, Subject
from forebay_scheduler.request import GroupId, KeyId, LedgerId, Request, Used, UserId

_MICROS = 1_000_000
_CHAINS_KEPT = 200_000
_EARLY_KEPT = 10_000
"""Settles that came before the news that their requests began: for as many as come while a frame is on its way."""
_RESTORED_KEPT_S = 600.0
"""Counts of a leader before wait so long for the policy that names their budgets."""
_LONGEST_DEBT_US = 3600 * _MICROS
"""What another leader's clock says of a bucket is believed up to this."""
_NEWEST = 0.05


@dataclass(frozen=True, slots=True)
class SpentSoFar:
    """Of one budget in its period, or in the steps of its window."""

    subject: str
    budget_id: str
    period_start_us: int
    """Of a window: when the oldest step began in which something was spent."""
    amount: int
    later: tuple[int, ...] = ()
    """Of a window: in each step after that one, up to the running one."""


@dataclass(frozen=True, slots=True)
class RateFilled:
    subject: str
    rate: str
    """requests or tokens"""
    full_until_us: int
    """The moment, since the epoch, at which its bucket is empty if nothing else comes."""


@dataclass(frozen=True, slots=True)
class BudgetStanding:
    subject: str
    budget_id: str
    amount: int
    spent: int
    reserved: int
    lent: int

    @property
    def free(self) -> int:
        return self.amount - self.spent - self.reserved - self.lent


class _Reservation:
    __slots__ = ("chain", "charged", "is_lent", "money", "prices", "prompt_tokens", "since", "tokens")

    def __init__(self, chain: Chain, prices: Prices, prompt_tokens: int, tokens: int, since: float) -> None:
        self.chain = chain
        self.prices = prices
        self.prompt_tokens = prompt_tokens
        self.tokens = tokens
        """Reserved in budgets."""
        self.charged = tokens
        """To the token rates."""
        self.money = 0
        self.since = since
        self.is_lent = False


class LimitBook:
    def __init__(self, wall_us: int | None = None, now: float = 0.0) -> None:
        self.unknown_zones: set[str] = set()
        """Names of time zones that this host does not know: their budgets go by UTC."""
        self._subjects: dict[tuple[str, str], Subject] = {}
        """Those that have limits, by kind and name."""
        self._group_of: dict[UserId, GroupId] = {}
        self._parent_of: dict[GroupId, GroupId] = {}
        self._prices = PriceList()
        self._chains: dict[tuple[KeyId, UserId, GroupId], Chain | None] = {}
        self._reserved: dict[LedgerId, _Reservation] = {}
        self._calendars: dict[tuple[terms.Period, str, int], Calendar] = {}
        self._allotments: dict[int, Allotment] = {}
        self._allotments_made = 0
        self._early: dict[LedgerId, Used | None] = {}
        """Settles of requests that nobody has told of yet; None: that did begin on an allotment, and are over."""
        self._restored: dict[tuple[str, str], dict[int, tuple[int, ...]]] = {}
        """Of each budget what a leader before has counted, and from when on; nobody has taken it yet."""
        self._restored_rates: dict[tuple[str, str], int] = {}
        self._restored_at = float("-inf")
        self._levels_at = float("-inf")
        """What arrived before this is in the levels that a leader before has left."""
        self._has_policy = False
        self._held_s = 0.0
        self._wall_us: int | None = None
        self._wall_at = now
        self.tick(wall_us, now)

    # --- who has which limits

    def change(self, changed: PolicyChanged, now: float) -> None:
        at_us = int(now * _MICROS)
        self._has_policy = True
        self._prices.change(changed.models, changed.removed_models, changed.prices)
        for group in changed.removed_groups:
            self._parent_of.pop(group, None)
            self._limit("group", group, terms.UNLIMITED, at_us)
        for group_terms in changed.groups:
            self._parent_of.pop(group_terms.group, None)
            if group_terms.parent is not None:
                self._parent_of[group_terms.group] = group_terms.parent
            self._limit("group", group_terms.group, group_terms.limits, at_us)
        for user in changed.removed:
            self._group_of.pop(user, None)
            self._limit("user", user, terms.UNLIMITED, at_us)
        for user_terms in changed.users:
            self._group_of.pop(user_terms.user, None)
            if user_terms.group is not None:
                self._group_of[user_terms.user] = user_terms.group
            self._limit("user", user_terms.user, user_terms.limits, at_us)
        for key in changed.removed_keys:
            self._limit("key", key, terms.UNLIMITED, at_us)
        for key_terms in changed.keys:
            self._limit("key", key_terms.key, key_terms.limits, at_us)
        self._chains.clear()

    def _limit(self, kind: str, name: str, limits: terms.Limits, at_us: int) -> None:
        subject = self._subjects.get((kind, name))
        if limits.is_unlimited and subject is None:
            return
        if subject is None:
            subject = self._subjects[kind, name] = Subject(kind, name)
        ref = subject.ref
        subject.change(limits, at_us, lambda budget: self._open_account(ref, budget), _close_account)
        if limits.is_unlimited:
            del self._subjects[kind, name]
        self._refill(subject, at_us)

    def _open_account(self, ref: str, budget: terms.Budget) -> Account:
        of = budget.period, budget.time_zone, budget.window_s
        calendar = self._calendars.get(of)
        if calendar is None:
            zone = zone_named(budget.time_zone)
            if zone is None:
                self.unknown_zones.add(budget.time_zone)
            calendar = self._calendars[of] = Calendar(budget.period, budget.time_zone or "UTC", zone, budget.window_s)
            if self._wall_us is not None:
                calendar.turn(self._wall_us)
        account = (RollingAccount if budget.window_s else Account)(ref, budget, calendar)
        calendar.accounts[account] = None
        if calendar.span is not None:
            account.begin(calendar.span, self._left_of(account, calendar.span))
        return account

    def _left_of(self, account: Account, span: Span) -> dict[int, int]:
        """What a leader before has counted of it; told once."""
        of = account.subject, account.terms.id
        left = self._restored.get(of)
        if left is None:
            return {}
        taken = account.take(left, span)
        if not left:
            del self._restored[of]
        return taken

    def is_limited(self, request: Request) -> bool:
        return bool(self._subjects) and self._chain_of(request.key, request.user, request.group) is not None

    def _chain_of(self, key: KeyId, user: UserId, group: GroupId) -> Chain | None:
        who = (key, user, group)
        try:
            return self._chains[who]
        except KeyError:
            pass
        subjects = [s for ref in self._around(key, user, group) if (s := self._subjects.get(ref)) is not None]
        if len(self._chains) >= _CHAINS_KEPT:
            self._chains.clear()
        chain = self._chains[who] = Chain(subjects) if subjects else None
        return chain

    def _around(self, key: KeyId, user: UserId, group: GroupId) -> Iterator[tuple[str, str]]:
        yield "key", key
        yield "user", user
        around: GroupId | None = self._group_of.get(user, group)
        seen: set[GroupId] = set()  # admin refuses groups that lie in themselves; should one come, each counts once
        while around and around not in seen:
            seen.add(around)
            yield "group", around
            around = self._parent_of.get(around)

    # --- the life of a request

    def admit(self, request: Request, estimate_tokens: int, now: float) -> Refused | None:
        """Reserves the estimate (prompt and expected output) in all limits that apply, or says why not."""
        if not self._subjects:
            return None
        chain = self._chain_of(request.key, request.user, request.group)
        if chain is None or request.ledger_id in self._reserved:
            return None
        at_us = int(now * _MICROS)
        reservation = self._reservation(request, chain, estimate_tokens, now)
        tokens, money = reservation.tokens, reservation.money
        for account in chain.token_accounts:
            if account.amount - account.spent - account.reserved - account.lent < tokens:
                return self._refuse(chain, tokens, money, now)
        if money:  # what costs nothing passes where no money is left
            for account in chain.money_accounts:
                if account.amount - account.spent - account.reserved - account.lent < money:
                    return self._refuse(chain, tokens, money, now)
        for rate in chain.request_rates:
            if not rate.has_room(1, at_us):
                return self._refuse(chain, tokens, money, now)
        for rate in chain.token_rates:
            if not rate.has_room(tokens, at_us):
                return self._refuse(chain, tokens, money, now)
        for places in chain.places:
            if places.running + places.lent >= places.limit:
                return self._refuse(chain, tokens, money, now)
        for rate in chain.request_rates:
            rate.take(1)
        for rate in chain.token_rates:
            rate.take(tokens)
        self._hold(request.ledger_id, reservation)
        return None

    def adopt(self, request: Request, estimate_tokens: int, now: float) -> None:
        """It is admitted already, by another leader or by its gateway: reserved, and never refused."""
        if not self.is_limited(request) or request.ledger_id in self._reserved:
            return
        chain = self._chain_of(request.key, request.user, request.group)
        assert chain is not None
        reservation = self._reservation(request, chain, estimate_tokens, now)
        # What the leader before has charged for it is in the levels that it left.
        is_new = request.arrived_at >= self._levels_at
        charged = (1, reservation.charged) if is_new else (0, 0)
        self._reserve(request.ledger_id, reservation, *charged, int(now * _MICROS))

    def extend(self, ledger_id: LedgerId, completion_tokens: int, now: float) -> bool:
        """So many have come so far. False: a budget has no room for more than was reserved, and the answer must end."""
        reservation = self._reserved.get(ledger_id)
        if reservation is None:
            return True
        chain = reservation.chain
        so_far = reservation.prompt_tokens + completion_tokens
        more = so_far - reservation.charged
        if more > 0:
            reservation.charged = so_far
            at_us = int(now * _MICROS)
            for rate in chain.token_rates:
                rate.charge(more, at_us)
        goes_on = True
        more = so_far - reservation.tokens
        if more > 0:
            # They were generated, and are counted, whether there is room or not.
            reservation.tokens = so_far
            for account in chain.token_accounts:
                account.reserved += more
                goes_on = goes_on and account.free >= 0
        if chain.money_accounts:
            money = reservation.prices.expected(reservation.prompt_tokens, completion_tokens)
            more = money - reservation.money
            if more > 0:
                reservation.money = money
                for account in chain.money_accounts:
                    account.reserved += more
                    goes_on = goes_on and account.free >= 0
        return goes_on

    def settle(self, ledger_id: LedgerId, used: Used, now: float) -> None:
        """What it really used takes the place of what was reserved. Of an unknown one, nothing; twice is once."""
        reservation = self._reserved.pop(ledger_id, None)
        if reservation is None:
            self._note_early(ledger_id, used)
            return
        chain = reservation.chain
        tokens = used.prompt_tokens + used.completion_tokens
        if chain.token_rates and tokens != reservation.charged:
            at_us = int(now * _MICROS)
            for rate in chain.token_rates:
                rate.charge(tokens - reservation.charged, at_us)
        held_s = max(0.0, now - reservation.since)
        self._held_s += _NEWEST * (held_s - self._held_s)
        for places in chain.places:
            places.leave(held_s)
        for account in chain.token_accounts:
            account.reserved -= reservation.tokens
            account.spent += tokens
            account.is_counted = True
        if chain.money_accounts:
            money = reservation.prices.of(used)
            for account in chain.money_accounts:
                account.reserved -= reservation.money
                account.spent += money
                account.is_counted = True
        if reservation.is_lent:
            self._remember(ledger_id, None)

    def release(self, ledger_id: LedgerId, now: float) -> None:
        """It never ran: all is as if it had not been asked for."""
        reservation = self._reserved.pop(ledger_id, None)
        if reservation is None:
            return
        at_us = int(now * _MICROS)
        chain = reservation.chain
        for rate in chain.request_rates:
            rate.charge(-1, at_us)
        for rate in chain.token_rates:
            rate.charge(-reservation.charged, at_us)
        for places in chain.places:
            places.running -= 1
        for account in chain.token_accounts:
            account.reserved -= reservation.tokens
        for account in chain.money_accounts:
            account.reserved -= reservation.money
        if reservation.is_lent:
            self._remember(ledger_id, None)

    def replay(self, request: Request, used: Used, now: float) -> None:
        """The end of a request that this leader never saw. Whether it was counted before is for the caller to know."""
        if request.ledger_id in self._reserved:
            self.settle(request.ledger_id, used, now)
            return
        if self._subjects:
            self._charge_at_once(request, used, now)
        if self._allotments_made:
            self._remember(request.ledger_id, None)

    def standing(self, request: Request, now: float) -> RateStanding | None:
        """The tightest of its rates. None when there is none."""
        chain = self._chain_of(request.key, request.user, request.group) if self._subjects else None
        if chain is None or not (chain.request_rates or chain.token_rates):
            return None
        at_us = int(now * _MICROS)
        requests, tokens = _tightest(chain.request_rates, at_us), _tightest(chain.token_rates, at_us)
        return RateStanding(*requests, *tokens)

    def _reservation(self, request: Request, chain: Chain, estimate_tokens: int, now: float) -> _Reservation:
        prompt_tokens = request.prompt_tokens
        prices = self._prices.of(request.model)
        tokens = max(1, estimate_tokens, prompt_tokens)
        reservation = _Reservation(chain, prices, prompt_tokens, tokens, now)
        if chain.money_accounts:
            reservation.money = prices.expected(prompt_tokens, tokens - prompt_tokens)
        return reservation

    def _reserve(self, ledger_id: LedgerId, reservation: _Reservation, requests: int, tokens: int, at_us: int) -> None:
        chain = reservation.chain
        for rate in chain.request_rates:
            rate.charge(requests, at_us)
        for rate in chain.token_rates:
            rate.charge(tokens, at_us)
        self._hold(ledger_id, reservation)

    def _hold(self, ledger_id: LedgerId, reservation: _Reservation) -> None:
        chain = reservation.chain
        for places in chain.places:
            places.running += 1
        for account in chain.token_accounts:
            account.reserved += reservation.tokens
        for account in chain.money_accounts:
            account.reserved += reservation.money
        self._reserved[ledger_id] = reservation

    def _charge_at_once(self, request: Request, used: Used, now: float) -> None:
        chain = self._chain_of(request.key, request.user, request.group)
        if chain is None:
            return
        tokens = used.prompt_tokens + used.completion_tokens
        if request.arrived_at >= self._levels_at:
            at_us = int(now * _MICROS)
            for rate in chain.request_rates:
                rate.charge(1, at_us)
            for rate in chain.token_rates:
                rate.charge(tokens, at_us)
        for account in chain.token_accounts:
            account.spend(tokens)
        money = self._prices.of(request.model).of(used)
        for account in chain.money_accounts:
            account.spend(money)

    def _refuse(self, chain: Chain, tokens: int, money: int, now: float) -> Refused:
        found = obstacles(chain, Wanted(tokens, money), self._wall(now), int(now * _MICROS), self._held_s)
        told = highest(found)
        missing = {id(obstacle.counter) for obstacle in found}
        lent = tuple(
            allotment.id
            for allotment in self._allotments.values()
            if any(id(counter) in missing for counter in allotment.chain.counters())
        )
        return Refused(told.reason, told.retry_after_s, told.message, lent)

    # --- what is lent

    def lend(self, key: KeyId, user: UserId, group: GroupId, now: float) -> Lent | None:
        """A little of all that limits this key, for one gateway. None where it is tight, or where nothing limits."""
        chain = self._chain_of(key, user, group) if self._subjects else None
        at_us = int(now * _MICROS)
        share = small_share(chain, at_us) if chain is not None else None
        if chain is None or share is None:
            return None
        self._allotments_made += 1
        lent = Lent(self._allotments_made, key, *share)
        allotment = self._allotments[lent.id] = Allotment(lent, chain)
        allotment.lend(at_us)
        return lent

    def top_up(self, allotment_id: int, now: float) -> Lent | None:
        """Lends on it again what was used of it. Gives how much more that is; None: nothing."""
        allotment = self._allotments.get(allotment_id)
        at_us = int(now * _MICROS)
        share = None if allotment is None else small_share(allotment.chain, at_us)
        if allotment is None or share is None:
            return None
        more = allotment.top_up(share, at_us)
        return Lent(allotment_id, allotment.key, *more) if any(more) else None

    def admit_lent(self, request: Request, allotment_id: int, estimate_tokens: int, now: float) -> None:
        """A gateway has begun it on this allotment. What the allotment does not cover is reserved all the same. Told again,
        or after its end, it changes nothing."""
        ledger_id = request.ledger_id
        if ledger_id in self._reserved:
            return
        is_over = ledger_id in self._early
        ended = self._early.get(ledger_id)
        if is_over and ended is None:
            return
        allotment = self._allotments.get(allotment_id)
        if allotment is None or allotment.key != request.key:
            self.adopt(request, estimate_tokens, now)
        else:
            reservation = self._reservation(request, allotment.chain, estimate_tokens, now)
            requests, tokens, _ = allotment.take(reservation.tokens, reservation.money)
            self._reserve(ledger_id, reservation, 1 - requests, reservation.tokens - tokens, int(now * _MICROS))
        if ledger_id in self._reserved:
            self._reserved[ledger_id].is_lent = True
            if ended is not None:
                self.settle(ledger_id, ended, now)

    def take_back(self, allotment_id: int, now: float) -> None:
        """It was returned, or is no longer valid: what was not used is free again. Twice is once."""
        allotment = self._allotments.pop(allotment_id, None)
        if allotment is not None:
            allotment.take_back(int(now * _MICROS))

    def lent_to(self, key: KeyId) -> list[int]:
        return [allotment.id for allotment in self._allotments.values() if allotment.key == key]

    def _note_early(self, ledger_id: LedgerId, used: Used) -> None:
        if self._allotments_made and ledger_id not in self._early:
            self._remember(ledger_id, used)

    def _remember(self, ledger_id: LedgerId, used: Used | None) -> None:
        if len(self._early) >= _EARLY_KEPT:
            del self._early[next(iter(self._early))]
        self._early[ledger_id] = used

    # --- time, and what outlives a leader

    def tick(self, wall_us: int | None, now: float) -> None:
        """Budgets begin anew by the calendar. Without a time of day, it is as it was, plus what has passed."""
        if self._has_policy and now - self._restored_at > _RESTORED_KEPT_S:
            self._restored.clear()
            self._restored_rates.clear()
        if wall_us is None:
            wall_us = self._wall(now)
            if wall_us is None:
                return
        self._wall_us, self._wall_at = wall_us, now
        for calendar in self._calendars.values():
            if calendar.turn(wall_us) and (span := calendar.span) is not None:
                for account in calendar.accounts:
                    account.begin(span, self._left_of(account, span))

    def spent(self) -> list[SpentSoFar]:
        """What was settled in the running periods, where it is counted here."""
        found = [
            SpentSoFar(account.subject, account.terms.id, left[0], left[1][0], left[1][1:])
            for calendar in self._calendars.values()
            for account in calendar.accounts
            if account.is_counted and (left := account.left()) is not None
        ]
        # Their policy may still come, to this leader or to the next one.
        found.extend(
            SpentSoFar(*of, start_us, amounts[0], amounts[1:])
            for of, left in self._restored.items()
            for start_us, amounts in left.items()
        )
        return found

    def budgets(self) -> Iterator[BudgetStanding]:
        """All there are, for whoever looks at the scheduler from outside."""
        for calendar in self._calendars.values():
            for account in calendar.accounts:
                yield BudgetStanding(
                    account.subject, account.terms.id, account.amount, account.spent, account.reserved, account.lent
                )

    def levels(self, now: float) -> list[RateFilled]:
        """Of all rates that are in use, with what is reserved: the next leader does not charge that again."""
        wall_us = self._wall(now)
        if wall_us is None:
            return []
        at_us = int(now * _MICROS)
        return [
            RateFilled(subject.ref, what, wall_us + empty_in_us)
            for subject in self._subjects.values()
            for what, rate in (("requests", subject.request_rate), ("tokens", subject.token_rate))
            if rate is not None and (empty_in_us := rate.empty_in_us(at_us))
        ]

    def restore(
        self, spent: Iterable[SpentSoFar], levels: Iterable[RateFilled], stored_at_us: int, wall_us: int, now: float
    ) -> None:
        """What the leader before has stored, told before anything is admitted. Budgets and rates that are not known yet get
        theirs when the policy comes."""
        self.tick(wall_us, now)
        self._restored_at = now
        self._levels_at = now - max(0, wall_us - stored_at_us) / _MICROS
        self._restored = {}
        for one in spent:
            of_budget = self._restored.setdefault((one.subject, one.budget_id), {})
            of_budget[one.period_start_us] = (one.amount, *one.later)
        self._restored_rates = {(one.subject, one.rate): one.full_until_us for one in levels}
        for subject in self._subjects.values():
            self._refill(subject, int(now * _MICROS))
            for account in subject.accounts.values():
                if account.span is not None and (left := self._left_of(account, account.span)):
                    account.restore(left)

    def _refill(self, subject: Subject, at_us: int) -> None:
        if not self._restored_rates:
            return
        wall_us = self._wall(at_us / _MICROS)
        for what, rate in (("requests", subject.request_rate), ("tokens", subject.token_rate)):
            full_until_us = self._restored_rates.pop((subject.ref, what), None) if rate is not None else None
            if rate is not None and full_until_us is not None and wall_us is not None:
                rate.refill(min(max(0, full_until_us - wall_us), _LONGEST_DEBT_US), at_us)

    def _wall(self, now: float) -> int | None:
        if self._wall_us is None:
            return None
        return self._wall_us + max(0, int((now - self._wall_at) * _MICROS))


def _close_account(account: Account) -> None:
    account.calendar.accounts.pop(account, None)


def _tightest(rates: Iterable[Rate], at_us: int) -> tuple[int | None, int, float]:
    """Limit, remaining, and seconds until all of it is there again."""
    found = [(rate.room(at_us), rate.limit, rate.empty_in_us(at_us) / _MICROS) for rate in rates]
    if not found:
        return None, 0, 0.0
    remaining, limit, reset_s = min(found)
    return limit, remaining, reset_s
