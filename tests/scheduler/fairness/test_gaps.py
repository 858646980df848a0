"""How even the shares are, as metrics tell it."""

from __future__ import annotations

from forebay_scheduler.fairness.fair_queue import FairQueue
from forebay_scheduler.fairness.gaps import LEVELS, gaps
from forebay_scheduler.fairness.shares import Shares
from forebay_scheduler.request import GroupId, KeyId, LedgerId, Request, UserId
from forebay_scheduler.terms import UserTerms

TOKEN = 1000


def want(number: int, user: str, *, model: str = "m", key: str = "k", group: str = "") -> Request:
    ledger_id = LedgerId(number.to_bytes(16, "big"))
    return Request(ledger_id, UserId(user), model, float(number), key=KeyId(key), group=GroupId(group))


def take(queue: FairQueue, model: str = "m", cost: int = 100 * TOKEN) -> None:
    queue.start(queue.heads([model], 0.0, 1)[0].request, cost)


def filled(queue: FairQueue, each: int, *users: str, model: str = "m") -> None:
    numbers = iter(range(1, 10_000))
    for _ in range(each):
        for user in users:
            queue.push(want(next(numbers), user, model=model))


def test_an_empty_queue_and_a_lone_user_have_no_gap() -> None:
    queue = FairQueue(Shares())
    assert gaps(queue.roots) == dict.fromkeys(LEVELS, 0.0)
    filled(queue, 3, "ann")
    take(queue)
    assert gaps(queue.roots) == dict.fromkeys(LEVELS, 0.0)


def test_users_in_turn_are_never_further_apart_than_one_request() -> None:
    queue = FairQueue(Shares())
    filled(queue, 20, "ann", "bob", "cem")
    widest = 0.0
    for _ in range(30):
        take(queue)
        widest = max(widest, gaps(queue.roots)["user"])
    assert widest == 100
    assert gaps(queue.roots)["key"] == 0


def test_a_gap_counts_weight_for_weight() -> None:
    shares = Shares()
    shares.change(users=[UserTerms(UserId("ann"), weight=2.0)])
    queue = FairQueue(shares)
    filled(queue, 10, "ann", "bob")
    for _ in range(3):
        take(queue)
    assert gaps(queue.roots)["user"] == 0, "two of ann's for one of bob's is even"


def test_who_is_served_out_of_turn_leaves_the_other_behind() -> None:
    queue = FairQueue(Shares())
    requests = [want(number, user) for number, user in enumerate(["ann"] * 5 + ["bob"], 1)]
    for request in requests:
        queue.push(request)
    for request in requests[:4]:
        queue.start(request, 100 * TOKEN)
    assert gaps(queue.roots)["user"] == 400


def test_those_who_wait_for_different_models_are_not_compared() -> None:
    queue = FairQueue(Shares())
    for number in range(1, 6):
        queue.push(want(number, "ann", model="a"))
    queue.push(want(9, "bob", model="b"))
    for _ in range(4):
        take(queue, "a")
    assert gaps(queue.roots)["user"] == 0


def test_who_is_paused_is_not_compared() -> None:
    shares = Shares()
    queue = FairQueue(shares)
    filled(queue, 6, "ann", "bob")
    shares.change(users=[UserTerms(UserId("bob"), is_paused=True)])
    queue.reshape()
    for _ in range(4):
        take(queue)
    assert gaps(queue.roots)["user"] == 0
