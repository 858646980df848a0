"""Why each of the last requests went where it went."""

from __future__ import annotations

from forebay_scheduler.decision_log import DecisionLog
from forebay_scheduler.request import BackendId, GatewayName, LedgerId, Request, UserId

G1, GPU1, GPU2 = GatewayName("g1"), BackendId("gpu1"), BackendId("gpu2")


def want(name: str, request_id: str = "") -> Request:
    return Request(LedgerId(name.encode()), UserId("alice"), "m", 0.0, request_id=request_id)


def test_only_the_last_ones_are_remembered_and_the_oldest_is_forgotten_first() -> None:
    log = DecisionLog(2)
    for name in "abc":
        log.begin(want(name), G1)
    assert [story.request.ledger_id for story in log] == [b"b", b"c"]
    assert log.get(LedgerId(b"a")) is None
    assert len(log) == 2


def test_what_is_begun_again_takes_no_room_of_others() -> None:
    log = DecisionLog(2)
    for name in "aabb":
        log.begin(want(name), G1)
    assert [story.request.ledger_id for story in log] == [b"a", b"b"]


def test_a_name_that_a_client_used_twice_finds_both_the_newest_first() -> None:
    log = DecisionLog(9)
    for name, label in [("a", "mine"), ("b", "other"), ("c", "mine")]:
        log.begin(want(name, label), G1)
    assert [story.request.ledger_id for story in log.named("mine")] == [b"c", b"a"]


def test_each_attempt_keeps_its_own_end() -> None:
    log = DecisionLog(9)
    story = log.begin(want("a"), G1)
    log.note_grant(story, GPU1, None, 0.5, 612_000, 0.0)
    assert story.state == "running"
    log.note_return(LedgerId(b"a"), "nack: failed")
    assert story.state == "waiting"
    log.note_grant(story, GPU2, None, 0.7, 612_000, 12.0)
    log.note_end(LedgerId(b"a"), "finished", settled=300_000)
    log.note_end(LedgerId(b"a"), "dropped")
    ends = [(attempt.number, attempt.backend, attempt.end, attempt.settled) for attempt in story.attempts]
    assert ends == [(1, "gpu1", "nack: failed", 0), (2, "gpu2", "finished", 300_000)]


def test_the_end_of_what_was_forgotten_is_nothing() -> None:
    DecisionLog(1).note_end(LedgerId(b"a"), "finished")
