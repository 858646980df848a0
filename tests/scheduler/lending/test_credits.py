"""Each rule of credits and allotments as a sentence; then any order of events, against honest gateways."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from forebay_scheduler.decisions import CreditLent
from forebay_scheduler.lending.allotments import Allotments
from forebay_scheduler.lending.credits import Began, Credits, Freed, Target
from forebay_scheduler.request import BackendId, GatewayName, KeyId, LedgerId, PoolName, Process, SessionId

G1: Process = (GatewayName("g1"), 1)
G2: Process = (GatewayName("g2"), 1)
S1, S2 = SessionId(1), SessionId(2)
B, P = BackendId("gpu1"), PoolName("p")
T1 = Target(G1, P, "m", B)


def new_credits(*, is_on: bool = True) -> Credits:
    numbers = itertools.count(1000, 1000)
    return Credits(lambda count: next(numbers), is_on=is_on)


def lend(credits: Credits, target: Target = T1, session: SessionId = S1, seq: int = 7, free: int = 6) -> CreditLent:
    lent = credits.lend(target, session, seq, free=free, has_backlog=False, is_only_backend=True)
    assert lent is not None
    return lent[0]


def ledger_id(number: int) -> LedgerId:
    return LedgerId(number.to_bytes(16))


def test_a_credit_starts_small_and_answers_a_heartbeat() -> None:
    lent = new_credits().lend(T1, S1, 7, free=6, has_backlog=False, is_only_backend=True)
    assert lent == (CreditLent(S1, 1, B, P, "m", 3, 1.0, 7, first_lease=1000, leases=192), 3)
    assert lend(new_credits(), free=1).slots == 1
    assert lend(new_credits(), free=100).slots == 8


def test_a_gateway_that_holds_many_slots_because_it_asked_is_lent_as_many() -> None:
    """Else a loan would take as many heartbeats to grow as its size has bits, and most requests asked until then."""
    told = new_credits().lend(T1, S1, 7, free=1000, has_backlog=False, is_only_backend=True, asked=200)
    assert told is not None
    assert (told[0].slots, told[1]) == (200, 200)
    assert told[0].leases == 200 * 64
    scarce = new_credits().lend(T1, S1, 7, free=100, has_backlog=False, is_only_backend=True, asked=200)
    assert scarce is not None
    assert scarce[1] == 50, "never more than half of what is free"


def test_a_full_loan_grows_by_what_was_asked_for_beside_it() -> None:
    credits = new_credits()
    lent = lend(credits, free=4)
    for number in range(2):
        credits.started(G1, lent.id, 1000 + number, ledger_id(number), 1)
    for seq, asked, free, more in ((8, 30, 100, 30), (9, 30, 100, 0), (10, 30, 5, 0)):
        told = credits.lend(T1, S1, seq, free=free, has_backlog=False, is_only_backend=True, asked=asked)
        assert told is not None
        assert told[1] == more, seq


def test_nothing_is_lent_when_somebody_waits_or_there_is_a_choice_or_no_room_or_it_is_switched_off() -> None:
    for credits, free, has_backlog, is_only_backend in (
        (new_credits(), 6, True, True),
        (new_credits(), 6, False, False),
        (new_credits(), 0, False, True),
        (new_credits(is_on=False), 6, False, True),
    ):
        assert credits.lend(T1, S1, 7, free=free, has_backlog=has_backlog, is_only_backend=is_only_backend) is None


def test_what_is_begun_on_a_credit_is_held_within_it_and_can_be_used_again() -> None:
    credits = new_credits()
    lent = lend(credits, free=4)
    assert credits.started(G1, lent.id, 1000, ledger_id(1), 2) is Began.WITHIN
    assert credits.settled(G1, ledger_id(1), 2) == 0
    assert credits.started(G1, lent.id, 1001, ledger_id(2), 2) is Began.WITHIN
    assert credits.lent_on(B) == 2


def test_what_is_told_twice_is_counted_once() -> None:
    credits = new_credits()
    lent = lend(credits)
    assert credits.started(G1, lent.id, 1000, ledger_id(1), 1) is Began.WITHIN
    assert credits.started(G1, lent.id, 1000, ledger_id(1), 1) is Began.AGAIN
    assert credits.settled(G1, ledger_id(1), 1) == 0
    assert credits.started(G1, lent.id, 1000, ledger_id(1), 1) is Began.AGAIN
    assert credits.returned(G1, lent.id) == Freed(G1, B, "m", 3)
    assert credits.returned(G1, lent.id) is None


def test_what_a_credit_does_not_cover_is_held_beside_it() -> None:
    credits = new_credits()
    lent = lend(credits, free=4)
    assert credits.started(G1, lent.id, 1000, ledger_id(1), 1) is Began.WITHIN
    assert credits.started(G1, lent.id, 1000, ledger_id(2), 1) is Began.BEYOND, "a name used twice"
    assert credits.started(G1, lent.id, 5, ledger_id(3), 1) is Began.BEYOND, "a name that is not its own"
    assert credits.started(G1, lent.id, 1001, ledger_id(4), 2) is Began.BEYOND, "too wide for what is left"
    assert credits.started(G1, 99, 1002, ledger_id(5), 1) is Began.BEYOND, "no such credit"
    assert credits.started(G2, lent.id, 1003, ledger_id(6), 1) is Began.BEYOND, "another gateway's"
    assert [credits.settled(G1, ledger_id(number), 1) for number in (1, 2, 3, 5)] == [0, 1, 1, 1]


def test_what_runs_when_its_credit_is_returned_keeps_its_own_slots() -> None:
    credits = new_credits()
    lent = lend(credits)
    credits.started(G1, lent.id, 1000, ledger_id(1), 2)
    assert credits.returned(G1, lent.id) == Freed(G1, B, "m", 1)
    assert credits.settled(G1, ledger_id(1), 2) == 2
    assert credits.settled(G1, ledger_id(9), 4) == 4, "one that was never begun on a credit"


def test_one_that_is_used_to_the_full_grows_and_one_that_is_not_used_runs_out() -> None:
    credits = new_credits()
    lent = lend(credits, free=4)
    for number in range(2):
        credits.started(G1, lent.id, 1000 + number, ledger_id(number), 1)
    grown = credits.lend(T1, S1, 8, free=5, has_backlog=False, is_only_backend=True)
    assert grown is not None
    assert (grown[0].id, grown[0].slots, grown[0].beat_seq, grown[1]) == (lent.id, 4, 8, 2)
    for number in range(2):
        credits.settled(G1, ledger_id(number), 1)
    renewals = [credits.lend(T1, S1, seq, free=5, has_backlog=False, is_only_backend=True) for seq in range(9, 15)]
    assert [renewal is not None for renewal in renewals] == [True, True, False, False, False, False]
    assert credits.returned(G1, lent.id) == Freed(G1, B, "m", 4)
    assert lend(credits).id == 2


def test_names_of_leases_are_renewed_before_they_run_out_and_the_old_ones_hold_until_a_new_one_is_used() -> None:
    credits = new_credits()
    lent = lend(credits, free=2)
    assert (lent.first_lease, lent.leases) == (1000, 64)
    for number in range(32):
        credits.started(G1, lent.id, 1000 + number, ledger_id(number), 1)
        credits.settled(G1, ledger_id(number), 1)
    renewed = lend(credits, seq=8, free=0)
    assert renewed.first_lease == 2000
    assert credits.started(G1, lent.id, 1040, ledger_id(40), 1) is Began.WITHIN
    credits.settled(G1, ledger_id(40), 1)
    assert credits.started(G1, lent.id, 2000, ledger_id(41), 1) is Began.WITHIN
    credits.settled(G1, ledger_id(41), 1)
    assert credits.started(G1, lent.id, 1041, ledger_id(42), 1) is Began.BEYOND


def test_a_backlog_recalls_what_is_lent_once_and_gives_it_fifty_milliseconds() -> None:
    credits = new_credits()
    lent = lend(credits)
    assert credits.recalling_until(P, now=5.0) is None
    (recall,) = credits.recall(P, now=5.0)
    assert (recall.id, recall.is_recall) == (lent.id, True)
    assert credits.recall(P, now=5.01) == []
    assert credits.recall(PoolName("other"), now=5.0) == []
    assert credits.recalling_until(P, now=5.01) == 5.05
    assert credits.recalling_until(P, now=5.05) is None
    assert credits.lent_on(B) == 3, "held until it is returned"
    assert credits.lend(T1, S1, 8, free=5, has_backlog=False, is_only_backend=True) is None
    assert credits.returned(G1, lent.id) == Freed(G1, B, "m", 3)


def test_a_returned_credit_is_not_waited_for() -> None:
    credits = new_credits()
    lent = lend(credits)
    credits.recall(P, now=5.0)
    credits.returned(G1, lent.id)
    assert credits.recalling_until(P, now=5.01) is None


def test_out_of_reach_a_credit_is_held_whatever_time_passes_until_a_hello_or_a_death() -> None:
    credits = new_credits()
    lent = lend(credits)
    credits.started(G1, lent.id, 1000, ledger_id(1), 1)
    credits.lose(G1)
    assert credits.recall(P, now=500.0) == []
    assert credits.lent_on(B) == 3
    assert credits.forget(G1) == [Freed(G1, B, "m", 3)]
    assert credits.forget(G1) == []
    assert credits.settled(G1, ledger_id(1), 1) == 1, "its Hello claimed it: it is held like any other"


def test_an_allotment_is_out_until_it_is_returned_or_its_process_says_hello_or_is_dead() -> None:
    allotments = Allotments(is_on=True)
    key = KeyId("k")
    lent = allotments.lend(G1, S1, key, requests=5, tokens=900, money_micros=0, beat_seq=3)
    assert lent is not None
    assert (lent.id, lent.valid_s, lent.beat_seq, lent.is_recall) == (1, 1.0, 3, False)
    assert allotments.lend(G1, S1, key, requests=5, tokens=900, money_micros=0, beat_seq=3) is None
    out = allotments.renewable(G1, S1, key)
    assert out is not None
    renewed = allotments.renew(out, S1, 4, requests=0, tokens=0, money_micros=0)
    assert (renewed.id, renewed.tokens, renewed.beat_seq) == (1, 900, 4)
    assert [recall.is_recall for recall in allotments.recall(key)] == [True]
    assert allotments.recall(key) == []
    assert allotments.renewable(G1, S1, key) is None
    assert allotments.returned(G2, 1) is None
    returned = allotments.returned(G1, 1)
    assert returned is not None
    assert returned.tokens == 900
    assert allotments.returned(G1, 1) is None

    allotments.lend(G1, S1, key, requests=5, tokens=900, money_micros=0, beat_seq=6)
    allotments.lose(G1)
    assert allotments.renewable(G1, S2, key) is None
    assert [allotment.id for allotment in allotments] == [2]
    assert [allotment.id for allotment in allotments.forget(G1)] == [2]
    assert list(allotments) == []


def test_what_is_lent_on_an_allotment_again_is_told_as_the_sum_until_that_no_longer_fits_the_wire() -> None:
    allotments = Allotments(is_on=True)
    key = KeyId("k")
    allotments.lend(G1, S1, key, requests=5, tokens=900, money_micros=7, beat_seq=3)
    for beat_seq, sums in ((4, (7, 1000, 7)), (5, (9, 1100, 7))):
        out = allotments.renewable(G1, S1, key)
        assert out is not None
        told = allotments.renew(out, S1, beat_seq, requests=2, tokens=100, money_micros=0)
        assert (told.id, told.beat_seq, (told.requests, told.tokens, told.money_micros)) == (1, beat_seq, sums)
    out = allotments.renewable(G1, S1, key)
    assert out is not None
    allotments.renew(out, S1, 6, requests=1 << 31, tokens=0, money_micros=0)
    assert allotments.renewable(G1, S1, key) is None, "it runs out, and another is lent when it is returned"
    assert allotments.get(G1, key) is not None
    allotments.returned(G1, 1)
    assert allotments.lend(G1, S1, key, requests=5, tokens=900, money_micros=7, beat_seq=7) is not None


def test_switched_off_no_allotment_is_lent() -> None:
    lent = Allotments(is_on=False).lend(G1, S1, KeyId("k"), requests=1, tokens=1, money_micros=0, beat_seq=1)
    assert lent is None


@dataclass
class Lent:
    """What a gateway knows of a credit."""

    terms: CreditLent
    valid_until: float
    used_names: int = 0


@dataclass
class Borrower:
    """One process that begins on its credits all it can, each until its own clock says that it is over."""

    process: Process
    session: SessionId | None = None
    credits: dict[int, Lent] = field(default_factory=dict)
    running: dict[LedgerId, tuple[int, int]] = field(default_factory=dict)
    """The credit and the slots."""
    inbox: deque[CreditLent] = field(default_factory=deque)
    outbox: deque[tuple[str, int, int, LedgerId, int]] = field(default_factory=deque)
    sent_at: dict[int, float] = field(default_factory=dict)
    returned: set[int] = field(default_factory=set)
    """A renewal that crosses a return on its way is ignored."""

    def inside(self, credit: int) -> int:
        return sum(slots for of, slots in self.running.values() if of == credit)


class Borrowing(RuleBasedStateMachine):
    CAP = 6

    def __init__(self) -> None:
        super().__init__()
        self.now = 10.0
        self.next_name = 1
        self.next_id = 0
        self.sessions = 0
        self.seq = 0
        self.credits = Credits(self.new_names, is_on=True, leases_for_slot=2)
        self.used: dict[Process, int] = {}
        self.widths: dict[tuple[Process, LedgerId], int] = {}
        """What the leader knows to run."""
        self.borrowers = [Borrower(G1), Borrower(G2)]
        for borrower in self.borrowers:
            self.hello(borrower)

    def new_names(self, count: int) -> int:
        self.next_name += count
        return self.next_name - count

    borrower = st.integers(0, 1)

    @rule(which=borrower)
    def reconnect(self, which: int) -> None:
        self.hello(self.borrowers[which])

    def hello(self, borrower: Borrower) -> None:
        borrower.inbox.clear()
        borrower.outbox.clear()
        borrower.credits.clear()
        self.sessions += 1
        borrower.session = SessionId(self.sessions)
        self.credits.forget(borrower.process)
        self.widths = {key: slots for key, slots in self.widths.items() if key[0] != borrower.process}
        for ledger_id, (_, slots) in borrower.running.items():
            self.widths[borrower.process, ledger_id] = slots
            borrower.running[ledger_id] = (0, slots)
        self.used[borrower.process] = sum(slots for _, slots in borrower.running.values())

    @rule(which=borrower)
    def lose(self, which: int) -> None:
        borrower = self.borrowers[which]
        borrower.session = None
        borrower.outbox.clear()
        self.credits.lose(borrower.process)

    @rule(which=borrower, has_backlog=st.booleans(), delay_s=st.sampled_from([0.0, 0.3]))
    def beat(self, which: int, has_backlog: bool, delay_s: float) -> None:
        borrower = self.borrowers[which]
        if borrower.session is None:
            return
        self.seq += 1
        borrower.sent_at[self.seq] = self.now
        self.now += delay_s
        free = self.CAP - sum(self.used.values())
        lent = self.credits.lend(
            Target(borrower.process, P, "m", B),
            borrower.session,
            self.seq,
            free=free,
            has_backlog=has_backlog,
            is_only_backend=True,
        )
        if lent is not None:
            assert lent[1] <= max(0, free)
            self.used[borrower.process] += lent[1]
            borrower.inbox.append(lent[0])

    @rule()
    def recall(self) -> None:
        for told in self.credits.recall(P, self.now):
            (borrower,) = (borrower for borrower in self.borrowers if borrower.session == told.session)
            borrower.inbox.append(told)

    @rule(which=borrower)
    def receive(self, which: int) -> None:
        borrower = self.borrowers[which]
        if not borrower.inbox:
            return
        told = borrower.inbox.popleft()
        if told.is_recall:
            self.give_back(borrower, told.id)
            return
        if told.id in borrower.returned:
            return
        known = borrower.credits.get(told.id)
        names = known.used_names if known is not None and known.terms.first_lease == told.first_lease else 0
        borrower.credits[told.id] = Lent(told, borrower.sent_at[told.beat_seq] + told.valid_s, names)

    def give_back(self, borrower: Borrower, credit: int) -> None:
        borrower.credits.pop(credit, None)
        borrower.returned.add(credit)
        if borrower.session is not None:
            borrower.outbox.append(("returned", credit, 0, ledger_id(0), 0))

    @rule(which=borrower, slots=st.integers(1, 2))
    def begin(self, which: int, slots: int) -> None:
        borrower = self.borrowers[which]
        for lent in borrower.credits.values():
            is_free = borrower.inside(lent.terms.id) + slots <= lent.terms.slots
            if self.now < lent.valid_until and is_free and lent.used_names < lent.terms.leases:
                self.next_id += 1
                name = lent.terms.first_lease + lent.used_names
                lent.used_names += 1
                borrower.running[ledger_id(self.next_id)] = (lent.terms.id, slots)
                if borrower.session is not None:
                    borrower.outbox.append(("started", lent.terms.id, name, ledger_id(self.next_id), slots))
                return

    @rule(which=borrower)
    def finish(self, which: int) -> None:
        borrower = self.borrowers[which]
        if borrower.running:
            ended, (_, slots) = borrower.running.popitem()
            if borrower.session is not None:
                borrower.outbox.append(("settled", 0, 0, ended, slots))

    @rule(seconds=st.sampled_from([0.1, 1.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for borrower in self.borrowers:
            for credit in [credit for credit, lent in borrower.credits.items() if self.now >= lent.valid_until]:
                self.give_back(borrower, credit)

    @rule(which=borrower, times=st.integers(1, 3), is_doubled=st.booleans())
    def hear(self, which: int, times: int, is_doubled: bool) -> None:
        borrower = self.borrowers[which]
        while borrower.outbox and times:
            said = borrower.outbox.popleft()
            self.take_in(borrower, said)
            if is_doubled:
                self.take_in(borrower, said)
            times -= 1

    def take_in(self, borrower: Borrower, said: tuple[str, int, int, LedgerId, int]) -> None:
        what, credit, name, of, slots = said
        key = borrower.process, of
        if what == "returned":
            freed = self.credits.returned(borrower.process, credit)
            self.used[borrower.process] -= 0 if freed is None else freed.slots
        elif what == "started":
            began = self.credits.started(borrower.process, credit, name, of, slots)
            assert began is not Began.BEYOND, "an honest gateway is covered"
            self.widths[key] = slots
        elif key in self.widths:
            self.used[borrower.process] -= self.credits.settled(borrower.process, of, self.widths.pop(key))

    @invariant()
    def all_that_may_run_is_held_and_fits(self) -> None:
        for borrower in self.borrowers:
            running = sum(slots for _, slots in borrower.running.values())
            unused = sum(
                lent.terms.slots - borrower.inside(credit)
                for credit, lent in borrower.credits.items()
                if self.now < lent.valid_until
            )
            assert running + unused <= self.used[borrower.process]
        assert sum(self.used.values()) <= self.CAP

    def teardown(self) -> None:
        self.wait(1.0)
        for which, borrower in enumerate(self.borrowers):
            if borrower.session is None:
                self.hello(borrower)
            while borrower.inbox:
                self.receive(which)
            for credit in list(borrower.credits):
                self.give_back(borrower, credit)
            while borrower.running:
                self.finish(which)
            while borrower.outbox:
                self.hear(which, 1, False)
        assert list(self.credits) == []
        assert set(self.used.values()) == {0}, "nothing leaks"


TestBorrowing = Borrowing.TestCase
TestBorrowing.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
