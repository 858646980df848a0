"""Why a request waits, or went where it went."""

from __future__ import annotations

from forebay_scheduler import events as ev
from forebay_scheduler.explaining import explain, find
from tests.scheduler.one_gateway import S1, Place, want


def test_one_that_waits_says_why_who_is_before_it_and_what_is_its_due() -> None:
    place = Place()
    place.submit(0.0, want("a"), want("b"), want("c"), want("d"))
    (story,) = find(place.policy, "call-d", b"")
    told = explain(place.policy, story, 3.0)
    assert (told.state, told.waited_ms, told.ahead, told.due) == ("waiting", 3000, 1, 1.0)
    assert told.blocked_by
    assert not told.attempts
    assert (told.gateway, told.user_id, told.prompt_tokens, told.arrived_at_us) == ("g1", "alice", 100, 7)


def test_one_that_has_ended_says_where_it_went_and_how_well_that_was_foreseen() -> None:
    place = Place()
    place.submit(0.5, request := want("a"))
    place.say(0.9, ev.FirstToken(S1, request.ledger_id, 0.3))
    place.settle(1.5, request, 20)
    (story,) = find(place.policy, "", request.ledger_id)
    told = explain(place.policy, story, 9.0)
    assert (told.state, told.waited_ms) == ("finished", 500)
    (attempt,) = told.attempts
    assert (attempt.number, attempt.backend_id, attempt.end, attempt.ttft_ms) == (1, "gpu1", "finished", 300)
    assert attempt.reserved_milli == (100 + 2 * 256) * 1000
    assert attempt.settled_milli == (100 + 2 * 20) * 1000
    assert attempt.policy == "expected_ttft"
    assert attempt.candidates[0].backend_id == "gpu1"


def test_one_that_a_backend_failed_and_that_waits_again_says_so() -> None:
    place = Place()
    place.submit(0.0, want("a"), want("b"))
    first = place.grants[want("a").ledger_id]
    place.say(1.0, ev.Nack(S1, first.ledger_id, first.lease.seq))
    (story,) = find(place.policy, "call-a", b"")
    told = explain(place.policy, story, 2.0)
    assert told.state == "waiting"
    assert [attempt.end for attempt in told.attempts] == ["nack: failed"]
    assert told.blocked_by


def test_a_refused_one_names_the_reason() -> None:
    place = Place()
    wide = want("a")
    wide.width = 5
    place.submit(0.0, wide)
    (story,) = find(place.policy, wide.ledger_id.hex(), b"")
    told = explain(place.policy, story, 1.0)
    assert (told.state, told.reason) == ("refused", "width_too_large")


def test_what_nobody_knows_is_not_found() -> None:
    place = Place()
    assert find(place.policy, "call-z", b"") == []
    assert find(place.policy, "ff" * 16, b"") == []
    assert find(place.policy, "", b"z" * 16) == []
