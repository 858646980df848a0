"""Who begins next while no scheduler leads, and which scheduler is tried next."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_gateway.slots.asking import Ask
from forebay_gateway.slots.local_dispatch import LocalTurns
from forebay_gateway.slots.scheduler_addresses import SchedulerAddresses
from tests.gateway.line import make_ask


class Desk:
    """Begins what it is told to and keeps the count of free slots."""

    def __init__(self, **free: int) -> None:
        self.free = free
        self.waiting: set[bytes] = set()
        self.turns = LocalTurns(lambda ask: ask.ledger_id in self.waiting)
        self.stuck_keys: set[str] = set()

    def submit(self, user: str, times: int = 1, **fields: object) -> list[Ask]:
        asks = [make_ask(user_id=user, **fields) for _ in range(times)]
        for ask in asks:
            self.waiting.add(ask.ledger_id)
            self.turns.add(ask)
        return asks

    def start(self) -> list[tuple[str, str]]:
        """(user, backend)"""
        begun = []
        for ask, backend in self.turns.starts(
            lambda pool, model: self.free.items(), lambda ask, backend: ask.key_id not in self.stuck_keys
        ):
            self.free[backend] -= ask.width
            assert self.free[backend] >= 0
            self.waiting.remove(ask.ledger_id)
            begun.append((ask.user_id, backend))
        return begun


def test_users_take_turns_and_the_most_free_backend_gets_the_request() -> None:
    desk = Desk(one=1, two=3)
    desk.submit("alice", 3)
    desk.submit("bob", 1)
    assert desk.start() == [("alice", "two"), ("bob", "two"), ("alice", "two"), ("alice", "one")]


def test_the_turn_goes_on_where_it_stopped() -> None:
    desk = Desk(one=1)
    desk.submit("alice", 2)
    desk.submit("bob", 2)
    begun = desk.start()
    for _ in range(3):
        desk.free["one"] = 1
        begun += desk.start()
    assert [user for user, _ in begun] == ["alice", "bob", "alice", "bob"]


def test_a_request_that_cannot_begin_stops_nobody_else() -> None:
    desk = Desk(one=2)
    desk.stuck_keys = {"limited"}
    desk.submit("alice", 1, key_id="limited")
    desk.submit("alice", 1)
    desk.submit("bob", 1, width=3)
    desk.submit("carol", 1)
    assert desk.start() == [("alice", "one"), ("carol", "one")]
    desk.stuck_keys = set()
    desk.free["one"] = 4
    assert sorted(desk.start()) == [("alice", "one"), ("bob", "one")]


def test_what_was_given_up_is_passed_by_and_what_failed_goes_first_again() -> None:
    desk = Desk(one=0)
    first, second = desk.submit("alice", 2)
    desk.waiting.remove(first.ledger_id)
    failed = make_ask(user_id="alice", key_id="failed")
    desk.waiting.add(failed.ledger_id)
    desk.turns.add(failed, first=True)
    desk.free["one"] = 1
    desk.start()
    assert desk.waiting == {second.ledger_id}


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), max_size=30),
    st.integers(0, 6),
    st.integers(0, 6),
)
def test_whatever_waits_when_it_is_done_has_no_room(asked: list[tuple[str, int]], one: int, two: int) -> None:
    desk = Desk(one=one, two=two)
    asks = [ask for user, width in asked for ask in desk.submit(user, width=width)]
    desk.start()
    by_user: dict[str, list[Ask]] = {}
    for ask in asks:
        if ask.ledger_id in desk.waiting:
            by_user.setdefault(ask.user_id, []).append(ask)
    for waiting in by_user.values():
        assert all(ask.width > max(desk.free.values()) for ask in waiting[:8])


# --- which scheduler ------------------------------------------------------------------------------------------------


def test_a_single_scheduler_is_tried_ever_more_slowly() -> None:
    addresses = SchedulerAddresses(["a:1"])
    assert [addresses.failed("away") for _ in range(6)] == [0.05, 0.1, 0.2, 0.25, 0.25, 0.25]
    assert addresses.current == "a:1"
    addresses.stood()
    assert addresses.failed("away") == 0.05


def test_each_is_tried_once_in_a_round_and_the_one_that_was_named_first() -> None:
    addresses = SchedulerAddresses(["a:1", "b:1", "c:1"])
    assert (addresses.failed("it stands by; c:1 leads."), addresses.current) == (0.0, "c:1")
    assert (addresses.failed("away"), addresses.current) == (0.0, "b:1")
    assert (addresses.failed("it stands by; c:1 leads."), addresses.current) == (0.05, "c:1")
    assert (addresses.failed("a:1 leads"), addresses.current) == (0.0, "a:1")


def test_two_that_name_each_other_are_not_asked_without_a_pause() -> None:
    addresses = SchedulerAddresses(["a:1", "b:1"])
    waits = [addresses.failed(f"{other} leads") for other in ("b:1", "a:1") * 4]
    assert waits == [0.0, 0.05, 0.0, 0.1, 0.0, 0.2, 0.0, 0.25]


def test_a_name_that_is_not_ours_or_only_looks_like_one_says_nothing() -> None:
    addresses = SchedulerAddresses(["a:80", "b:80", "a:8093"])
    assert (addresses.failed("(a:8093)!"), addresses.current) == (0.0, "a:8093")
    assert (addresses.failed("z:1 leads"), addresses.current) == (0.0, "b:80")


def test_patience_grows_while_none_answers() -> None:
    addresses = SchedulerAddresses(["a:1"])
    seen = []
    for _ in range(5):
        seen.append(addresses.patience_s)
        addresses.failed("it does not answer")
    assert seen == [1.0, 2.0, 4.0, 5.0, 5.0]
