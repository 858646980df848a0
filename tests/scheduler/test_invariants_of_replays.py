"""Decisions follow from state, events and seed alone: the same log gives the same ones, and what must not matter does not.

A run is made by honest doubles at random and its log kept; then it is played again, changed in one way."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_scheduler import decisions as de
from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend
from forebay_scheduler.fairness.fair_queue import FairRules
from forebay_scheduler.placing.placement import PlacingRules
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import (
    BackendId,
    Band,
    Epoch,
    GatewayName,
    GroupId,
    KeyId,
    LedgerId,
    PoolName,
    Request,
    SessionId,
    Used,
    UserId,
)
from forebay_scheduler.rules import Rules
from forebay_scheduler.terms import GroupTerms, KeyTerms, ModelTerms, UserTerms
from tests.scheduler.doubles import Around, LeaderDouble, thorough

pytestmark = pytest.mark.timeout(300)  # what is tried is fixed; how long that takes is the machine's


seeds = st.integers(0, 10**9)
USERS = ["alice", "bob", "carol"]
DEFAULT = PoolName("default")
PLAIN = Rules(
    fair=FairRules(credit_tokens=0.0),
    placing=PlacingRules(explored=0.0, jitter=0.0),
    locality_window=0,
    are_credits_lent=False,
)
"""Nothing is measured in tokens but the turn itself, and nothing is left to chance."""
WORLD = [
    Backend(BackendId("b1"), DEFAULT, frozenset({"m"}), 2, running=0),
    Backend(BackendId("b2"), DEFAULT, frozenset({"m", "n"}), 2),
    Backend(BackendId("b3"), PoolName("far"), frozenset({"m"}), 1),
]


@dataclass
class Log:
    """What a leader was told, when, and what it said."""

    told: list[tuple[float, tuple[ev.Event, ...]]] = field(default_factory=list)
    said: list[list[de.Decision]] = field(default_factory=list)


def eventful_run(seed: int, log: Log | None = None, steps: int = 80) -> Around:
    """Requests, ends, failures, streams that break: whatever comes up."""
    chance = random.Random(seed)
    around = Around(Rules(), {backend.id: backend for backend in WORLD})
    leader = around.leader
    if log is not None:
        log.told.append((around.now, (ev.FleetChanged(tuple(around.facts.values())),)))
        log.said.append([])
        apply = LeaderDouble.apply

        def noted(*events: ev.Event) -> list[de.Decision]:
            log.told.append((around.now, events))
            decided = apply(leader, *events)
            log.said.append(decided)
            return decided

        leader.apply = noted  # type: ignore[method-assign]
    for name in ("g1", "g2"):
        around.start(name)
    for _ in range(steps):
        gateway = around.gateways[chance.choice(["g1", "g2"])]
        running = list(gateway.running.values())
        match chance.randrange(12):
            case 0 | 1 | 2 | 3:
                for _ in range(chance.randrange(1, 5)):
                    around.now += 0.001
                    request = Request(
                        around.new_id(),
                        UserId(chance.choice(USERS)),
                        chance.choice("mmn"),
                        around.now,
                        chance.choice([DEFAULT, DEFAULT, PoolName("far")]),
                        chance.choice([Band.STANDARD, Band.BATCH]),
                        chance.choice([1, 1, 2]),
                        prompt_tokens=chance.randrange(200),
                        prefix_hashes=tuple(range(chance.randrange(4))),
                    )
                    around.submitted[request.ledger_id] = request
                    gateway.ask(request)
            case 4 | 5 | 6 if running:
                one = chance.choice(running)
                gateway.finish(one.request.ledger_id, Used(chance.randrange(100), 0, chance.randrange(300)))
            case 7 if running and gateway.session is not None:
                gateway.nack(chance.choice(running).request.ledger_id, chance.choice(list(ev.NackCause)))
            case 8 if gateway.waiting:
                gateway.cancel_waiting(chance.choice(list(gateway.waiting)))
            case 9:
                around.seq += 1
                gateway.beat(around.seq)
            case 10:
                if gateway.session is None:
                    gateway.connect(leader)
                elif chance.random() < 0.5:
                    around.lose(gateway)
            case _:
                around.pass_time(chance.choice([0.05, 0.2, 1.0]))
        if chance.random() < 0.7:
            around.exchange()
    return around


def digest(seed: int) -> str:
    log = Log()
    eventful_run(seed, log)
    return hashlib.sha256(repr(log.said).encode()).hexdigest()


@given(seeds)
@thorough(15)
def test_the_same_log_gives_the_same_decisions(seed: int) -> None:
    log = Log()
    around = eventful_run(seed, log)
    again = Policy(Rules(), Epoch(1, 1), 1000.0, seed=1, wall_us=round(1_700_001_000 * 1e6))
    for (now, events), said in zip(log.told, log.said, strict=True):
        assert list(again.apply(events, now)) == said
    assert again.save()[1] == around.policy.save()[1]


def test_decisions_do_not_depend_on_how_strings_are_hashed() -> None:
    code = "from tests.scheduler.test_invariants_of_replays import digest; print(*map(digest, range(8)))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(said) == 1


@given(seeds, st.integers(1, 5))
@thorough(15)
def test_how_words_are_split_into_frames_changes_no_count(seed: int, at_once: int) -> None:
    """One by one, several together, and each twice: in the end everything is settled alike."""
    results = []
    for size, times in ((1, 1), (at_once, 1), (1, 2), (100, 1)):
        around = Around(PLAIN, {backend.id: backend for backend in WORLD})
        chance = random.Random(seed)
        gateway = around.start("g1")
        around.exchange()
        uses: dict[LedgerId, Used] = {}
        for _ in range(25):
            request = Request(
                around.new_id(), UserId(chance.choice(USERS)), chance.choice("mn"), around.now, prompt_tokens=10
            )
            uses[request.ledger_id] = Used(10, 0, chance.randrange(500))
            around.submitted[request.ledger_id] = request
            gateway.ask(request)
        for _ in range(40):
            for ledger_id in list(gateway.running):
                gateway.finish(ledger_id, uses[ledger_id])
            while gateway.outbox or gateway.inbox:
                events = [gateway.outbox.popleft() for _ in range(min(size, len(gateway.outbox)))]
                around.leader.apply(*(event for event in events for _ in range(times)))
                around.receive(gateway)
            around.exchange()
        dispatch = around.policy.dispatch
        assert not gateway.waiting
        assert len(dispatch.holds) == 0
        around.leader.save()
        around.confirm_states(around.leader)
        around.exchange()
        assert not gateway.unconfirmed
        assert len(dispatch.settlements) == 0
        queue = dispatch.queues.line(DEFAULT).queue
        settled = {
            (band.name, *(step.name for step in node.path())): (node.settled, node.reserved)
            for band in queue._bands.values()
            for node in band.within()
        }
        results.append((settled, around.ends, [(s.used, s.aside, s.tokens) for s in dispatch.stations]))
    assert all(result == results[0] for result in results)


# -- what must not matter for whose turn it is


@dataclass(frozen=True)
class Ask:
    user: str
    model: str
    prompt: int
    key: str = ""
    pool: PoolName = DEFAULT


def order_of(
    asks: Sequence[Ask],
    *,
    terms: ev.PolicyChanged | None = None,
    rules: Rules = PLAIN,
    most: int = 10_000,
    pools: Sequence[PoolName] = (DEFAULT,),
) -> list[Ask]:
    """All are asked for at once, and each ends before the next begins there: in which order they begin."""
    policy = Policy(rules, Epoch(1, 1), 0.0, seed=1)
    session = SessionId(1)
    backends = [Backend(BackendId(f"only {pool}"), pool, frozenset({"m", "n"}), 1) for pool in pools]
    todo = [
        *policy.apply([ev.FleetChanged(tuple(backends)), *([terms] if terms else [])], 0.0),
        *policy.apply([ev.SessionOpened(session, GatewayName("g1"), 1)], 0.0),
    ]
    by_id = {LedgerId(b"%016d" % number): ask for number, ask in enumerate(asks, 1)}
    first = [
        Request(LedgerId(b"%016d" % (10**9 + n)), UserId(f"nobody {n}"), "m", 0.0, pool, prompt_tokens=1)
        for n, pool in enumerate(pools)
    ]
    todo += policy.apply([ev.Submit(session, request) for request in first], 0.0)
    while todo and (step := [one for one in todo if isinstance(one, de.StoreCeilings | de.CeilingTold)]):
        todo = [one for one in todo if one not in step]
        for one in step:
            told = (
                ev.CeilingsStored(one.ticket)
                if isinstance(one, de.StoreCeilings)
                else ev.CeilingAcked(session, one.backend, one.version, 0)
            )
            todo += policy.apply([told], 0.0)
    grants = [one for one in todo if isinstance(one, de.Grant)]
    assert len(grants) == len(pools)
    submits = [
        ev.Submit(
            session,
            Request(
                ledger_id,
                UserId(ask.user),
                ask.model,
                float(number) / 1e6,
                ask.pool,
                key=KeyId(ask.key or f"key of {ask.user}"),
                prompt_tokens=ask.prompt,
                max_output_tokens=1,
            ),
        )
        for number, (ledger_id, ask) in enumerate(by_id.items())
    ]
    policy.apply(submits, 0.001)
    order: list[Ask] = []
    while grants and len(order) < most:
        grant = grants.pop(0)
        ask = by_id.get(grant.ledger_id)
        if ask is not None:
            order.append(ask)
        used = Used(1 if ask is None else ask.prompt, 0, 1)
        decided = policy.apply([ev.Settle(session, grant.ledger_id, grant.lease, True, used)], 1.0)
        grants += [one for one in decided if isinstance(one, de.Grant)]
    return order


asks = st.lists(
    st.builds(Ask, st.sampled_from(USERS), st.sampled_from("mn"), st.integers(1, 400)), min_size=1, max_size=25
)
weights = st.dictionaries(st.sampled_from(USERS), st.sampled_from([0.5, 1.0, 3.0]))


def shares_of(weights: dict[str, float], times: float = 1.0, model_weight: float = 1.0) -> ev.PolicyChanged:
    return ev.PolicyChanged(
        users=tuple(UserTerms(UserId(user), GroupId("lab"), weights.get(user, 1.0) * times) for user in USERS),
        groups=(GroupTerms(GroupId("lab"), weight=2.0 * times),),
        keys=tuple(KeyTerms(KeyId(f"key of {user}"), UserId(user), weight=times) for user in USERS),
        models=tuple(ModelTerms(model, weight=model_weight) for model in "mn"),
    )


@given(asks, weights)
@thorough(25)
def test_costs_and_weights_count_only_against_each_other(asks: list[Ask], weights: dict[str, float]) -> None:
    order = order_of(asks, terms=shares_of(weights))
    assert len(order) == len(asks)
    assert order_of(asks, terms=shares_of(weights, model_weight=4.0)) == order
    assert order_of(asks, terms=shares_of(weights, times=0.25)) == order


@given(asks, st.permutations(USERS))
@thorough(25)
def test_names_do_not_matter(asks: list[Ask], names: list[str]) -> None:
    renamed = dict(zip(USERS, names, strict=True))
    order = order_of(asks)
    assert order_of([replace(ask, user=renamed[ask.user]) for ask in asks]) == [
        replace(ask, user=renamed[ask.user]) for ask in order
    ]


@given(asks, asks, st.randoms(use_true_random=False))
@thorough(25)
def test_what_happens_in_another_pool_changes_nothing(asks: list[Ask], others: list[Ask], mixed: random.Random) -> None:
    far = PoolName("far")
    elsewhere = [replace(ask, pool=far) for ask in others]
    together = [*asks, *elsewhere]
    places = sorted(mixed.sample(range(len(together)), len(asks)))
    for place, ask in zip(places, asks, strict=True):
        together[place] = ask
    rest = iter(elsewhere)
    for place in range(len(together)):
        if place not in places:
            together[place] = next(rest)
    order = order_of(together, pools=(DEFAULT, far))
    assert [ask for ask in order if ask.pool == DEFAULT] == order_of(asks)


@given(st.integers(2, 6), st.integers(1, 300), st.integers(10, 60))
@thorough(25)
def test_many_keys_give_nobody_more(keys: int, prompt: int, most: int) -> None:
    """Two who always have something waiting: one of them with many keys."""
    asks = [
        Ask(user, "m", prompt, f"{user} {n % keys if user == 'bob' else 0}") for n in range(60) for user in USERS[:2]
    ]
    served = Counter(ask.user for ask in order_of(asks, rules=replace(PLAIN, fair=FairRules()), most=most))
    assert abs(served["alice"] - served["bob"]) <= 1


@given(
    st.lists(st.tuples(st.integers(1, 500), st.integers(1, 500)), min_size=30, max_size=60), st.sampled_from([1, 2, 5])
)
@thorough(25)
def test_two_who_wait_are_served_by_weight_within_one_request_of_each(
    sizes: list[tuple[int, int]], weight: int
) -> None:
    asks = [ask for one, other in sizes for ask in (Ask("alice", "m", one), Ask("bob", "m", other))]
    terms = ev.PolicyChanged(users=(UserTerms(UserId("alice"), weight=float(weight)), UserTerms(UserId("bob"))))
    order = order_of(asks, terms=terms)
    served = {"alice": 0, "bob": 0}
    left = Counter(ask.user for ask in asks)
    longest = {user: max(ask.prompt for ask in asks if ask.user == user) + 2 for user in served}
    for ask in order:
        if not all(left[user] for user in served):
            return
        served[ask.user] += ask.prompt + 2
        left[ask.user] -= 1
        gap = abs(served["alice"] / weight - served["bob"])
        assert gap <= longest["alice"] / weight + longest["bob"]


@given(seeds)
@thorough(20)
def test_what_was_cancelled_leaves_nothing(seed: int) -> None:
    """Whether it waited, was granted without its gateway's knowing, or ran without a token."""
    chance = random.Random(seed)
    around = Around(Rules(), {backend.id: backend for backend in WORLD})
    gateway = around.start("g1")
    around.exchange()
    before = state_of(around)
    for _ in range(12):
        request = Request(around.new_id(), UserId("alice"), chance.choice("mn"), around.now, prompt_tokens=50)
        around.submitted[request.ledger_id] = request
        gateway.ask(request)
        if chance.random() < 0.5:
            around.hear(gateway)
        if chance.random() < 0.5:
            around.receive(gateway)
    steps: list[Callable[[], None]] = [around.exchange, lambda: around.hear(gateway), lambda: around.receive(gateway)]
    while gateway.waiting or gateway.running:
        for ledger_id in list(gateway.waiting)[:3]:
            gateway.cancel_waiting(ledger_id)
        for ledger_id in list(gateway.running)[:3]:
            gateway.finish(ledger_id, Used(), is_success=False)
        chance.choice(steps)()
    around.exchange()
    assert state_of(around) == before


def state_of(around: Around) -> object:
    dispatch = around.policy.dispatch
    root = dispatch.queues.line(DEFAULT).queue._shared
    return (
        len(dispatch.holds),
        len(list(around.policy.queued())),
        [(s.used, s.tokens, s.running, len(s.reading)) for s in dispatch.stations],
        (root.reserved, root.settled, root.present),
    )
