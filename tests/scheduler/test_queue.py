"""Users in turn, each first in, first out."""

from __future__ import annotations

from forebay_scheduler.queue import TurnQueue
from forebay_scheduler.request import BackendId, LedgerId, Request, UserId

HERE = BackendId("here")


def want(name: str, user: str, arrived_at: float = 0.0, *, excluded: tuple[str, ...] = (), model: str = "m") -> Request:
    ids = frozenset(BackendId(backend) for backend in excluded)
    return Request(LedgerId(name.encode()), UserId(user), model, arrived_at, excluded=ids)


def anywhere(request: Request) -> BackendId:
    return HERE


def drain(queue: TurnQueue) -> list[str]:
    order = []
    while (popped := queue.pop(anywhere)) is not None:
        order.append(popped[0].ledger_id.decode())
    return order


def test_users_are_served_in_turn_and_each_first_in_first_out() -> None:
    queue = TurnQueue()
    for name, user in [
        ("a1", "alice"),
        ("a2", "alice"),
        ("a3", "alice"),
        ("b1", "bob"),
        ("b2", "bob"),
        ("c1", "carol"),
    ]:
        queue.push(want(name, user))
    assert drain(queue) == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert len(queue) == 0


def test_a_request_that_comes_back_finds_the_place_that_its_arrival_gives_it() -> None:
    queue = TurnQueue()
    for name, arrived_at in [("a2", 2.0), ("a4", 4.0), ("a3", 3.0), ("a1", 1.0)]:
        queue.push(want(name, "alice", arrived_at))
    assert drain(queue) == ["a1", "a2", "a3", "a4"]


def test_a_user_whose_turn_was_in_vain_is_next_again() -> None:
    queue = TurnQueue()
    for name, user in [("a1", "alice"), ("a2", "alice"), ("b1", "bob")]:
        queue.push(want(name, user))
    popped = queue.pop(anywhere)
    assert popped is not None
    queue.restore(popped[0])
    assert drain(queue) == ["a1", "b1", "a2"]


def test_a_head_that_cannot_start_blocks_its_own_line_and_no_other_user() -> None:
    queue = TurnQueue()
    for name, user in [("a1", "alice"), ("a2", "alice"), ("b1", "bob")]:
        queue.push(want(name, user))
    popped = queue.pop(lambda request: None if request.ledger_id == b"a1" else HERE)
    assert popped is not None
    assert popped[0].ledger_id == b"b1"
    assert queue.pop(lambda request: None if request.ledger_id == b"a1" else HERE) is None


def test_those_behind_a_request_that_a_backend_has_failed_may_pass_it() -> None:
    queue = TurnQueue()
    queue.push(want("a1", "alice", 1.0, excluded=("here",)))
    queue.push(want("a2", "alice", 2.0))
    popped = queue.pop(lambda request: None if HERE in request.excluded else HERE)
    assert popped is not None
    assert popped[0].ledger_id == b"a2"


def test_requests_for_another_model_wait_in_a_line_of_their_own() -> None:
    queue = TurnQueue()
    queue.push(want("m1", "alice", 1.0))
    queue.push(want("n1", "alice", 2.0, model="n"))
    popped = queue.pop(lambda request: HERE if request.model == "n" else None)
    assert popped is not None
    assert popped[0].ledger_id == b"n1"


def test_what_is_removed_is_gone_wherever_it_stood() -> None:
    queue = TurnQueue()
    for name in ("a1", "a2", "a3"):
        queue.push(want(name, "alice"))
    assert queue.remove(LedgerId(b"a2"))
    assert queue.remove(LedgerId(b"a1"))
    assert not queue.remove(LedgerId(b"a1"))
    assert queue.waiting_of(UserId("alice")) == 1
    assert [request.ledger_id for request in queue] == [b"a3"]
    assert drain(queue) == ["a3"]
