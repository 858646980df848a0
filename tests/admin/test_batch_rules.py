"""What batches decide without a database: whether an input will do, what an answer means, whose turn it is."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest

from forebay_admin.batches.batch import BatchError, Ending, Status, may_become
from forebay_admin.batches.input_check import MOST_LINE_BYTES, InputCheck, body_in
from forebay_admin.batches.line import (
    Again,
    Answer,
    Done,
    Heard,
    Lost,
    Stop,
    entry,
    fault_of,
    judged,
    judged_by_ledger,
)
from forebay_admin.batches.pace import Pace
from forebay_admin.batches.turns import Turns
from tests.admin.batch_gateway import line

ENDPOINT = "/v1/chat/completions"


def checked(content: bytes, piece: int = 1 << 20) -> InputCheck:
    check = InputCheck(ENDPOINT)
    for at in range(0, len(content), piece):
        check.feed(content[at : at + piece])
    check.end()
    return check


# --- the input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 7, 100, 1 << 20])
def test_lines_are_found_where_they_stand_however_the_file_comes(piece: int) -> None:
    content = line(1) + b"\n  \n" + line(2) + line(3).rstrip(b"\n")
    check = checked(content, piece)
    assert check.errors == []
    assert [(one.line, one.custom_id) for one in check.lines] == [(1, "r-1"), (4, "r-2"), (5, "r-3")]
    for one in check.lines:
        raw = content[one.first_byte : one.first_byte + one.size_bytes]
        assert orjson.loads(raw)["custom_id"] == one.custom_id
        assert orjson.loads(body_in(raw))["model"] == "tiny"


@pytest.mark.parametrize(
    ("wrong", "code", "param"),
    [
        (b"{\n", "invalid_json_line", ""),
        (b'["a list"]\n', "invalid_json_line", ""),
        (b"\xff\xfe\n", "invalid_json_line", ""),
        (line(1, custom_id=None), "missing_required_parameter", "custom_id"),
        (line(1, custom_id=""), "missing_required_parameter", "custom_id"),
        (line(1, custom_id="x" * 513), "missing_required_parameter", "custom_id"),
        (line(1, custom_id="nul\0"), "missing_required_parameter", "custom_id"),
        (line(0), "duplicate_custom_id", "custom_id"),
        (line(1, method="GET"), "invalid_method", "method"),
        (line(1, url="/v1/embeddings"), "invalid_url", "url"),
        (line(1, body="text"), "missing_required_parameter", "body"),
        (line(1, body={"model": "tiny", "stream": True}), "unsupported_parameter", "body.stream"),
        (line(1, body={"model": "tiny", "background": True}), "unsupported_parameter", "body.background"),
        (line(1, body={"messages": []}), "missing_required_parameter", "body.model"),
        (line(1, body={"model": "another"}), "mismatched_model", "body.model"),
    ],
)
def test_a_line_that_will_not_do_says_why(wrong: bytes, code: str, param: str) -> None:
    check = checked(line(0) + wrong + line(2))
    (error,) = check.errors
    assert (error.code, error.line, error.param) == (code, 2, param)
    assert error.message
    assert [one.custom_id for one in check.lines] == ["r-0", "r-2"]


def test_what_streams_not_may_say_so() -> None:
    assert checked(line(1, body={"model": "tiny", "stream": False, "background": None})).errors == []


@pytest.mark.parametrize("content", [b"", b"\n\n", b"   "])
def test_an_empty_file_is_no_batch(content: bytes) -> None:
    assert [error.code for error in checked(content).errors] == ["empty_file"]


def test_a_line_that_is_too_long_is_never_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay_admin.batches.input_check.MOST_LINE_BYTES", 1000)
    check = InputCheck(ENDPOINT)
    check.feed(line(1))
    for _ in range(100):
        check.feed(b"x" * 100)
        assert len(check._rest) <= 1000
    check.feed(b"\n" + line(2))
    check.end()
    assert [(error.code, error.line) for error in check.errors] == [("line_too_long", 2)]
    assert [one.line for one in check.lines] == [1, 3]
    assert MOST_LINE_BYTES > 1000


def test_more_lines_than_may_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay_admin.batches.input_check.MOST_LINES", 3)
    check = checked(b"".join(line(n) for n in range(4)))
    assert check.errors == [BatchError("too_many_requests", "A batch may have 3 requests; this is one more.", line=4)]


def test_empty_lines_are_passed_quickly_and_not_for_ever() -> None:
    began = time.process_time()
    check = InputCheck(ENDPOINT)
    for _ in range(200):
        check.feed(b"\n" * (1 << 20))
    check.end()
    assert [error.code for error in check.errors] == ["too_many_lines"]
    assert check.is_hopeless
    mixed = checked(b" \n" * 300_000)
    assert [error.code for error in mixed.errors] == ["too_many_lines"]
    assert time.process_time() - began < 2.0


def test_empty_lines_count_wherever_they_stand() -> None:
    check = checked(line(1) + b"\n\n\n" + line(2) + b"\n" * 50_000 + line(3), 1000)
    assert [(one.line, one.custom_id) for one in check.lines] == [(1, "r-1"), (5, "r-2"), (50_006, "r-3")]
    assert check.errors == []


def test_nobody_reads_more_than_a_hundred_errors() -> None:
    check = checked(b"nonsense\n" * 500)
    assert len(check.errors) == 100
    assert check.is_hopeless


# --- what an answer means ---------------------------------------------------------------------------------------------


def heard(status: int, reason: str = "", after_s: float | None = None, body: bytes = b'{"a":1}') -> Heard:
    return Heard(status, "req-1", reason, after_s, body)


@pytest.mark.parametrize("status", [200, 400, 403, 404, 413, 422, 501])
def test_what_trying_again_would_not_change_is_the_lines_answer(status: int) -> None:
    verdict = judged(heard(status), engine_failures=0)
    assert verdict == Done(Answer(status, "req-1", b'{"a":1}'))
    assert isinstance(verdict, Done)
    assert verdict.answer.is_success == (status == 200)


def test_a_refusal_for_now_is_tried_again_when_it_says() -> None:
    assert judged(heard(429, "rate_limited", 3.5), 0) == Again("rate_limited", 3.5)
    assert judged(heard(503, "no_backend"), 50) == Again("no_backend")
    assert judged(heard(429, "quota_spent"), 0) == Again("quota_spent")


def test_an_engine_fails_three_times_and_not_for_ever() -> None:
    assert [type(judged(heard(502, "engine_failed"), before)) for before in range(3)] == [Again, Again, Done]
    first = judged(heard(502, "engine_failed"), 0)
    assert isinstance(first, Again)
    assert first.engine_failed


def test_what_a_gateway_says_not_to_try_again_is_paid_once() -> None:
    once = Heard(502, "req-1", "output_invalid", None, b'{"a":1}', may_retry=False)
    verdict = judged(once, 0)
    assert isinstance(verdict, Done)
    assert not verdict.answer.is_success
    assert isinstance(judged(Heard(429, "req-1", "quota_spent", None, b"{}", may_retry=False), 0), Again)


def test_a_key_that_ended_ends_the_batch_and_a_gateway_that_knows_it_not_does_not() -> None:
    assert isinstance(judged(heard(401, "key_revoked"), 0), Stop)
    assert isinstance(judged(heard(401, "key_expired"), 0), Stop)
    assert isinstance(judged(heard(401, "invalid_key"), 0), Again)


def test_the_ledger_says_whether_a_line_was_done() -> None:
    assert judged_by_ledger("finished") == Lost()
    for outcome in ("cancelled", "failed", "refused", "gateway_lost"):
        assert judged_by_ledger(outcome) == Again(outcome)


# --- entries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{\n "a": [1,\r\n 2]\n}', {"a": [1, 2]}),
        (b"<html>\nBad gateway", "<html>\nBad gateway"),
        (b"", ""),
        (b'{"a":1}', {"a": 1}),
    ],
)
def test_an_entry_is_one_line_whatever_was_answered(body: bytes, told: object) -> None:
    verdict = judged(heard(400, body=body), 0)
    assert isinstance(verdict, Done)
    made = entry("batch_req_1", "r-1", verdict.answer)
    assert made.count(b"\n") == 1
    assert made.endswith(b"\n")
    assert orjson.loads(made) == {
        "id": "batch_req_1",
        "custom_id": "r-1",
        "response": {"status_code": 400, "request_id": "req-1", "body": told},
        "error": None,
    }


def test_an_entry_without_an_answer_has_an_error() -> None:
    told = orjson.loads(entry("batch_req_1", "r-1", (fault_of(Ending.EXPIRED).value, "too late")))
    assert (told["response"], told["error"]) == (None, {"code": "batch_expired", "message": "too late"})
    assert [fault_of(ending).value for ending in (Ending.CANCELLED, Ending.FAILED)] == [
        "batch_cancelled",
        "batch_failed",
    ]


# --- statuses, turns and pace -----------------------------------------------------------------------------------------


def test_what_has_ended_becomes_nothing_else() -> None:
    for ended in ("completed", "failed", "expired", "cancelled"):
        assert not any(may_become(Status(ended), after) for after in Status)
        assert Ending(ended).status is Status(ended)
    assert not may_become(Status.FINALIZING, Status.CANCELLING)


async def test_a_place_goes_to_whoever_has_the_fewest_then_to_whoever_has_waited_longer() -> None:
    turns, order = Turns(2), []

    async def wait(user: str) -> None:
        await turns.take(user)
        order.append(user)

    await wait("alice")
    await wait("alice")
    waiting = [asyncio.create_task(wait(user)) for user in ("alice", "bob", "alice", "carol", "bob")]
    await asyncio.sleep(0)
    for user in ("alice", "alice", "bob", "carol", "bob"):
        turns.give_back(user)
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert order[2:] == ["bob", "alice", "carol", "bob", "alice"]


async def test_who_goes_while_waiting_takes_no_place_along() -> None:
    turns = Turns(1)
    await turns.take("alice")
    waiting = asyncio.create_task(turns.take("bob"))
    await asyncio.sleep(0)
    waiting.cancel()
    turns.give_back("alice")
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(30):
        await turns.take("carol")


def test_a_refused_batch_slows_down_by_rounds_and_recovers_with_answers() -> None:
    pace = Pace(16)
    for _ in range(12):
        pace.refused(began=0.0, now=1.0, after_s=None)
    assert (pace.allowed, pace.not_before) == (8, 1.5)
    pace.refused(began=2.0, now=2.0, after_s=None)
    assert (pace.allowed, pace.not_before) == (4, 3.0)
    for _ in range(20):
        pace.refused(began=pace.not_before, now=pace.not_before, after_s=None)
    assert pace.allowed == 1
    before = pace.not_before
    pace.refused(began=before, now=before, after_s=None)
    assert pace.not_before == before + 120
    for _ in range(300):
        pace.answered()
    assert pace.allowed == 16


def test_it_waits_as_long_as_it_was_told() -> None:
    pace = Pace(4)
    pace.refused(began=0.0, now=10.0, after_s=30.0)
    assert pace.not_before == 40.0
