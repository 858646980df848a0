"""Where a request goes: backends that may serve it, have room, and are least loaded."""

from __future__ import annotations

from forebay_scheduler.backend import Backend, Fleet
from forebay_scheduler.placement import Round
from forebay_scheduler.request import BackendId, LedgerId, PoolName, Request, UserId

POOL = PoolName("default")


def a_round(**free: int) -> Round:
    backends = [Backend(BackendId(name), POOL, frozenset({"m"}), 4) for name in free]
    return Round(Fleet(backends), POOL, {BackendId(name): slots for name, slots in free.items()})


def want(name: str, width: int = 1) -> Request:
    return Request(LedgerId(name.encode()), UserId("alice"), "m", 0.0, width=width)


def test_the_backend_with_the_most_free_slots_is_chosen() -> None:
    assert a_round(gpu1=1, gpu2=3, gpu3=2).place(want("a")) == "gpu2"


def test_equal_backends_are_taken_in_the_order_of_their_names() -> None:
    assert a_round(gpu2=2, gpu1=2).place(want("a")) == "gpu1"


def test_a_wide_request_that_fits_nowhere_sets_the_nearest_backend_aside() -> None:
    placing = a_round(gpu1=1, gpu2=2)
    assert placing.place(want("wide", width=3)) is None
    assert placing.place(want("narrow")) == "gpu1"
    placing.take(BackendId("gpu1"), 1)
    assert not placing.has_room
    assert placing.place(want("narrow too")) is None


def test_what_is_set_aside_is_kept_for_the_one_it_was_set_aside_for() -> None:
    placing = a_round(gpu1=2)
    assert placing.place(want("wide", width=3)) is None
    assert placing.place(want("other", width=3)) is None
    placing.take(BackendId("gpu1"), -1)
    assert placing.place(want("other", width=3)) is None
    assert placing.place(want("wide", width=3)) == "gpu1"


def test_a_backend_that_could_never_take_it_is_not_set_aside() -> None:
    placing = a_round(gpu1=3)
    assert placing.place(want("too wide", width=5)) is None
    assert placing.has_room
