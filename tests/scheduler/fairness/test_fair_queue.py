"""What the fair queue promises those who wait, and the ledger behind it."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_scheduler.fairness.fair_queue import Charge, FairQueue, FairRules
from forebay_scheduler.fairness.shares import Shares
from forebay_scheduler.fairness.tree import Node
from forebay_scheduler.request import Band, GroupId, KeyId, LedgerId, Request, UserId
from forebay_scheduler.terms import GroupTerms, KeyTerms, UserTerms

TOKEN = 1000
"""Milli-tokens."""
_seq = iter(range(1, 10**9))


def want(user: str, *, key: str = "k", group: str = "", model: str = "m", band: Band = Band.STANDARD) -> Request:
    seq = next(_seq)
    ledger_id = LedgerId(seq.to_bytes(16, "big"))
    return Request(ledger_id, UserId(user), model, float(seq), band=band, key=KeyId(key), group=GroupId(group))


def weighed(**weights: float) -> Shares:
    shares = Shares()
    shares.change(users=[UserTerms(UserId(user), weight=weight) for user, weight in weights.items()])
    return shares


def take(queue: FairQueue, cost: int = 100 * TOKEN, model: str = "m") -> tuple[Request, Charge]:
    request = queue.heads([model], 0.0, 1)[0].request
    return request, queue.start(request, cost)


def drain(queue: FairQueue, count: int, cost: int = 100 * TOKEN, model: str = "m") -> list[str]:
    return [take(queue, cost, model)[0].user for _ in range(count)]


def every_node(queue: FairQueue) -> list[Node]:
    return [node for root in queue.roots for node in root.within()]


def balances(queue: FairQueue) -> bool:
    return all(
        node.reserved == sum(child.reserved for child in node.children.values())
        and node.settled == node.gone + sum(child.settled for child in node.children.values())
        and node.present == sum(child.present for child in node.children.values())
        for node in every_node(queue)
        if node.children
    )


def test_equal_users_are_served_in_turn_and_each_first_in_first_out() -> None:
    queue = FairQueue(Shares())
    for user in ("ann", "ann", "ann", "ben", "ben", "cid"):
        queue.push(want(user))
    assert drain(queue, 6) == ["ann", "ben", "cid", "ann", "ben", "ann"]


def test_twice_the_weight_is_twice_the_tokens() -> None:
    queue = FairQueue(weighed(ann=2.0, ben=1.0))
    for _ in range(60):
        queue.push(want("ann"))
        queue.push(want("ben"))
    assert Counter(drain(queue, 60)) == {"ann": 40, "ben": 20}


def test_shares_are_of_tokens_and_not_of_requests() -> None:
    queue = FairQueue(Shares())
    for _ in range(100):
        queue.push(want("long"))
        queue.push(want("short"))
    tokens: Counter[str] = Counter()
    for _ in range(100):
        request = queue.heads(["m"], 0.0, 1)[0].request
        cost = 1000 * TOKEN if request.user == "long" else 100 * TOKEN
        queue.start(request, cost)
        tokens[request.user] += cost
    assert abs(tokens["long"] - tokens["short"]) <= 2 * 1000 * TOKEN


def test_groups_share_before_their_members_do() -> None:
    queue = FairQueue(Shares())
    for _ in range(30):
        for user, group in (("ann", "law"), ("ben", "math"), ("cid", "math"), ("dot", "math")):
            queue.push(want(user, group=group))
    assert Counter(drain(queue, 36)) == {"ann": 18, "ben": 6, "cid": 6, "dot": 6}


def test_a_key_shares_with_the_other_keys_of_its_user_only() -> None:
    queue = FairQueue(Shares())
    for _ in range(20):
        queue.push(want("ann", key="k1"))
        queue.push(want("ann", key="k2"))
        queue.push(want("ben"))
    assert Counter(drain(queue, 20)) == {"ann": 10, "ben": 10}


def test_system_goes_first_and_the_others_share_sixty_four_to_sixteen_to_one() -> None:
    queue = FairQueue(Shares(), FairRules(credit_tokens=0.0))
    for band, count in ((Band.BATCH, 200), (Band.STANDARD, 200), (Band.INTERACTIVE, 200), (Band.SYSTEM, 3)):
        for _ in range(count):
            queue.push(want(band.value, band=band))
    assert drain(queue, 3) == ["system"] * 3
    assert Counter(drain(queue, 162)) == {"interactive": 128, "standard": 32, "batch": 2}


def test_who_comes_back_from_idling_is_ahead_by_the_credit_and_no_more() -> None:
    queue = FairQueue(Shares(), FairRules(credit_tokens=512.0))
    for _ in range(200):
        queue.push(want("busy"))
    drain(queue, 100)
    for _ in range(50):
        queue.push(want("light"))
    served = drain(queue, 20)
    assert served[:6] == ["light"] * 6  # 512 tokens at 100 each
    assert Counter(served[6:])["light"] == 7


def test_newcomers_do_not_lower_the_floor_for_each_other() -> None:
    queue = FairQueue(Shares(), FairRules(credit_tokens=512.0))
    for _ in range(100):
        queue.push(want("busy"))
    drain(queue, 90)
    for number in range(20):
        queue.push(want(f"new{number}"))
    lags = [queue.ahead_of(want("busy")), queue.ahead_of(want("new19"))]
    assert lags == [512.0, 0.0]
    assert drain(queue, 20) == [f"new{number}" for number in range(20)]


def test_a_lone_user_gets_everything_and_owes_nothing_for_it() -> None:
    queue = FairQueue(Shares())
    for _ in range(100):
        queue.settle(queue.pass_by(want("ann"), 1000 * TOKEN), 1000 * TOKEN)
    for _ in range(4):
        queue.push(want("ann"))
        queue.push(want("ben"))
    assert drain(queue, 2, 3000 * TOKEN) == ["ben", "ann"]


def test_what_was_reserved_too_much_comes_back_and_what_ran_over_is_charged() -> None:
    queue = FairQueue(Shares())
    charge = queue.pass_by(want("ann"), 500 * TOKEN)
    queue.extend(charge, 400 * TOKEN)
    assert (queue.reserved, queue.settled) == (500 * TOKEN, 0)
    queue.extend(charge, 900 * TOKEN)
    assert queue.reserved == 900 * TOKEN
    queue.settle(charge, 50 * TOKEN)
    queue.settle(charge, 7000 * TOKEN)
    assert (queue.reserved, queue.settled) == (0, 50 * TOKEN)
    assert balances(queue)


def test_a_grant_in_vain_costs_nothing_and_its_request_is_next_again() -> None:
    queue = FairQueue(Shares())
    for user in ("ann", "ann", "ben", "ben"):
        queue.push(want(user))
    request, charge = take(queue)
    queue.settle(charge, 0)
    queue.restore(request)
    assert queue.heads(["m"], 0.0, 1)[0].request is request
    assert (queue.reserved, queue.settled) == (0, 0)
    assert drain(queue, 4) == ["ann", "ben", "ann", "ben"]


def test_a_cancelled_request_leaves_no_trace() -> None:
    queue = FairQueue(Shares())
    requests = [want("ann") for _ in range(5)]
    for request in requests:
        queue.push(request)
    assert queue.remove(requests[2].ledger_id)
    assert not queue.remove(requests[2].ledger_id)
    assert list(queue.behind(requests[1])) == requests[3:]
    assert queue.standing(requests[3]).place == 3
    assert [take(queue)[0] for _ in range(4)] == [*requests[:2], *requests[3:]]
    assert len(queue) == queue.waiting_of(UserId("ann")) == queue.waiting_for("m") == 0
    assert not queue.models


def test_a_paused_user_waits_and_a_paused_group_with_all_within() -> None:
    shares = Shares()
    queue = FairQueue(shares)
    for user, group in (("ann", "law"), ("ben", "math"), ("cid", "")):
        queue.push(want(user, group=group))
    shares.change(
        users=[UserTerms(UserId("cid"), is_paused=True)], groups=[GroupTerms(GroupId("math"), is_paused=True)]
    )
    queue.reshape()
    assert [head.request.user for head in queue.heads(["m"], math.inf, 9)] == ["ann"]
    assert drain(queue, 1) == ["ann"]
    assert queue.heads(["m"], math.inf, 9) == []
    assert not queue.models
    shares.change(users=[UserTerms(UserId("cid"))], groups=[GroupTerms(GroupId("math"))])
    queue.reshape()
    assert sorted(drain(queue, 2)) == ["ben", "cid"]


def test_a_user_whom_gateways_took_for_a_member_of_two_groups_is_one_when_policy_knows_him() -> None:
    shares = Shares()
    queue = FairQueue(shares)
    waiting = [want("ann", key=key, group=group) for key, group in (("k1", "law"), ("k2", "math"), ("k2", "math"))]
    for request in waiting:
        queue.push(request)
    running = [
        queue.pass_by(want("ann", key=key, group=group), 50 * TOKEN) for key, group in (("k1", "law"), ("k2", "math"))
    ]
    queue.push(want("ben"))
    for group in ("", "law", "arts"):
        shares.change(users=[UserTerms(UserId("ann"), GroupId(group))])
        queue.reshape()
        assert balances(queue)
        owners = [node for node in every_node(queue) if node.name == "u:ann" and node.children]
        (owner,) = owners
        assert set(owner.children) == {"k:k1", "k:k2"}
        assert (owner.reserved, owner.present) == (100 * TOKEN, 5)
        assert [node.name for node in owner.path()][1:-1] == ([f"g:{group}"] if group else [])
    for charge in running:
        queue.settle(charge, 40 * TOKEN)
    assert sorted(drain(queue, 4)) == ["ann", "ann", "ann", "ben"]
    assert balances(queue)


def test_a_user_who_changes_group_takes_along_what_waits_and_what_runs() -> None:
    shares = Shares()
    shares.change(users=[UserTerms(UserId("ann"), GroupId("law")), UserTerms(UserId("ben"), GroupId("law"))])
    queue = FairQueue(shares)
    first = queue.pass_by(want("ann"), 100 * TOKEN)
    queue.settle(queue.pass_by(want("ann"), 30 * TOKEN), 30 * TOKEN)
    waiting = want("ann")
    queue.push(waiting)
    queue.push(want("ben"))
    shares.change(
        users=[UserTerms(UserId("ann"), GroupId("math"))], groups=[GroupTerms(GroupId("math"), GroupId("science"))]
    )
    queue.reshape()
    assert balances(queue)
    assert queue.due(waiting) == 0.5
    assert (queue.reserved, queue.settled) == (100 * TOKEN, 30 * TOKEN)
    nodes = {node.name: node for node in every_node(queue)}
    assert nodes["g:science"].reserved == nodes["g:math"].reserved == 100 * TOKEN
    assert nodes["g:law"].settled == 30 * TOKEN
    queue.settle(first, 90 * TOKEN)
    assert balances(queue)
    assert nodes["g:science"].settled == 90 * TOKEN
    assert sorted(drain(queue, 2)) == ["ann", "ben"]


def test_a_weight_of_zero_is_the_smallest_there_is() -> None:
    shares = Shares()
    shares.change(
        users=[UserTerms(UserId("none"), weight=0.0), UserTerms(UserId("less"), weight=-3.0)],
        keys=[KeyTerms(KeyId("k"), UserId("none"), weight=math.nan)],
    )
    queue = FairQueue(shares)
    for _ in range(3):
        for user in ("none", "less", "ann"):
            queue.push(want(user))
    assert Counter(drain(queue, 5)) == {"none": 1, "less": 1, "ann": 3}
    assert all(math.isfinite(node.vt) for node in every_node(queue) if node.parent is not None and node.present)


def test_within_the_window_others_are_named_by_how_far_they_are_ahead() -> None:
    queue = FairQueue(Shares())
    for user, cost in (("ann", 0), ("ben", 300), ("cid", 700), ("dot", 2500)):
        queue.settle(queue.adopt(want(user), cost * TOKEN), cost * TOKEN)
        queue.push(want(user))
    assert [(head.request.user, head.ahead) for head in queue.heads(["m"], 2000.0, 16)] == [
        ("ann", 0.0),
        ("ben", 300.0),
        ("cid", 700.0),
    ]
    assert len(queue.heads(["m"], 2000.0, 2)) == 2
    assert len(queue.heads(["m"], 0.0, 16)) == 1


def test_what_a_leader_leaves_behind_keeps_the_order_without_what_only_was_reserved() -> None:
    rng = random.Random(7)
    queue = FairQueue(Shares())
    users = [f"user{number}" for number in range(12)]
    for user in users:
        queue.push(want(user, group=f"g{int(user[4:]) % 3}"))
    for user in users * 3:
        cost = rng.randrange(4000) * TOKEN
        queue.settle(queue.adopt(want(user, group=f"g{int(user[4:]) % 3}"), cost), cost)
    reserved = queue.pass_by(want(users[0], group="g0"), 9000 * TOKEN)
    successor = FairQueue(Shares())
    successor.restore_lags([*queue.lags(), ("nonsense", 5), ("standard\x1fx:y", 5), ("standard\x1fu:a\x1fu:b", 5)])
    for request in queue:
        successor.push(request)
    queue.settle(reserved, 0)
    assert drain(successor, 12) == drain(queue, 12)


def test_a_million_passing_keys_are_forgotten() -> None:
    rules = FairRules(idle_kept=1000)
    queue = FairQueue(Shares(), rules)
    for number in range(12_000):
        queue.settle(queue.pass_by(want("shop", key=f"k{number}"), 600 * TOKEN), 600 * TOKEN)
        queue.settle(queue.pass_by(want(f"passer{number}", group=f"g{number % 7}"), TOKEN), 600 * TOKEN)
    assert len(every_node(queue)) < 2500
    assert queue.settled == 24_000 * 600 * TOKEN
    assert balances(queue)


costs = st.integers(1, 2000)


@settings(deadline=None, max_examples=60)
@given(
    weights=st.lists(st.sampled_from((0.5, 1.0, 2.0, 3.0)), min_size=2, max_size=4),
    estimates=st.lists(costs, min_size=60, max_size=60),
    errors=st.lists(st.integers(-300, 300), min_size=60, max_size=60),
    slots=st.integers(1, 6),
    window=st.sampled_from((0.0, 500.0)),
    seed=st.integers(0, 1000),
)
def test_two_who_always_have_something_waiting_are_never_further_apart_than_the_bound(
    weights: list[float], estimates: list[int], errors: list[int], slots: int, window: float, seed: int
) -> None:
    names = [f"user{number}" for number in range(len(weights))]
    by_name = dict(zip(names, weights, strict=True))
    rng = random.Random(seed)
    queue = FairQueue(weighed(**by_name))
    for name in names:
        for _ in range(3):
            queue.push(want(name))
    running: list[tuple[str, Charge, int]] = []
    served = dict.fromkeys(names, 0.0)
    # 2 (Q + max c/w + sum over both of D·ε/w), and the credit with which the first may begin.
    most_running = slots * 300 / min(weights)
    bound = 2 * (window + 2000 / min(weights) + 2 * most_running)
    trace = [dict(served)]
    for estimate, error in zip(estimates, errors, strict=True):
        if len(running) == slots:
            name, charge, actual = running.pop(rng.randrange(slots))
            served[name] += (actual - charge.cost) / TOKEN / by_name[name]
            queue.settle(charge, actual)
        head = rng.choice(queue.heads(["m"], window, 16))
        charge = queue.start(head.request, estimate * TOKEN)
        served[head.request.user] += estimate / by_name[head.request.user]
        running.append((head.request.user, charge, max(0, estimate + error) * TOKEN))
        queue.push(want(head.request.user))
        trace.append(dict(served))
    for begin in trace[::7]:
        for end in trace[::5]:
            gained = [end[name] - begin[name] for name in names]
            assert max(gained) - min(gained) <= 2 * bound  # either end of an interval may be at the bound
    assert max(served.values()) - min(served.values()) <= bound


def history(
    names: Mapping[str, str], seed: int, *, by_cost: int = 1, by_weight: float = 1.0, keys: int = 1, steps: int = 150
) -> list[str]:
    """Who was served in one random history, with its users renamed, its costs or weights scaled, or its keys split."""
    rng = random.Random(seed)
    shares = weighed(**{names[user]: weight * by_weight for user, weight in (("a", 1.0), ("b", 2.0), ("c", 4.0))})
    queue = FairQueue(shares, FairRules(credit_tokens=512.0 * by_cost / by_weight))
    real = {name: user for user, name in names.items()}
    served: list[str] = []
    running: list[tuple[Charge, int]] = []
    for step in range(steps):
        for user in rng.sample(("a", "b", "c"), 2):
            queue.push(want(names[user], key=f"k{step % keys}" if user == "a" else "k"))
        cost, actual = rng.randrange(1, 2048) * TOKEN * by_cost, rng.randrange(1, 2048) * TOKEN * by_cost
        request, charge = take(queue, cost)
        served.append(real[request.user])
        running.append((charge, actual))
        if len(running) > 3:
            queue.settle(*running.pop(rng.randrange(4)))
    return served


PLAIN = {"a": "a", "b": "b", "c": "c"}


@pytest.mark.parametrize("seed", range(8))
def test_names_do_not_matter(seed: int) -> None:
    assert history(PLAIN, seed) == history({"a": "zoe", "b": "adam", "c": "b"}, seed)


@pytest.mark.parametrize("seed", range(8))
def test_splitting_ones_traffic_over_keys_gains_nothing(seed: int) -> None:
    assert history(PLAIN, seed) == history(PLAIN, seed, keys=5)


@pytest.mark.parametrize("seed", range(4))
def test_scaling_all_costs_or_all_weights_changes_no_order(seed: int) -> None:
    assert history(PLAIN, seed) == history(PLAIN, seed, by_cost=8)
    assert history(PLAIN, seed) == history(PLAIN, seed, by_weight=4.0)


def test_every_request_starts_within_the_bound_of_its_share() -> None:
    """Bursts of others, of any cost up to the largest, never delay it further."""
    rng = random.Random(3)
    largest = 2000
    for _ in range(20):
        queue = FairQueue(Shares(), FairRules(credit_tokens=0.0))
        for user in range(10):
            for _ in range(40):
                queue.push(want(f"user{user}"))
        drain(queue, 30, rng.randrange(1, largest) * TOKEN)
        mine = want("mine")
        queue.push(mine)
        bound = (largest + 2 * largest) / queue.due(mine)
        tokens = 0
        while queue.waiting_of(UserId("mine")):
            cost = rng.randrange(1, largest)
            take(queue, cost * TOKEN)
            tokens += cost
        assert tokens <= bound
