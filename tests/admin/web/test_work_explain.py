"""What became of a request, told as a story: to operators with what the scheduler decided, to its owner from the ledger."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from uuid import UUID

import pytest

from forebay.errors import Refusal
from forebay.ledger_id import new_ledger_id
from forebay.wire.v1 import admin_pb2, prices_pb2, scheduler_pb2, types_pb2, usage_pb2
from forebay_admin.people.people import Role
from forebay_admin.web.work.explain import explain_path
from forebay_admin.web.work.explain_view import Story, entries_of, stories_of
from forebay_admin.web.work.refusals import ADVICE, advice
from tests.admin.test_usage_queries import enter, opened, record
from tests.admin.web.conftest import House, page

NAMES = admin_pb2.Names(users={"u1": "alice"}, groups={"g": "lab"}, backends={"b1": "big-gpu", "b2": "old-gpu"})
LEDGER_ID = new_ledger_id(1_800_000_000.0)


def attempt(**more: object) -> scheduler_pb2.Attempt:
    usual: dict[str, object] = {"number": 1, "backend_id": "b1", "policy": "expected_ttft", "queued_ms": 1200}
    return scheduler_pb2.Attempt(**{**usual, **more})  # type: ignore[arg-type]


def story_of(*attempts: scheduler_pb2.Attempt, **more: object) -> Story:
    usual: dict[str, object] = {"ledger_id": LEDGER_ID, "request_id": "r", "user_id": "u1", "state": "ended"}
    one = scheduler_pb2.Explanation(attempts=attempts, **{**usual, **more})  # type: ignore[arg-type]
    (story,) = stories_of(admin_pb2.ViewExplanationResponse(explanations=[one], names=NAMES))
    return story


def test_every_word_of_a_refusal_says_what_it_means_and_what_to_do() -> None:
    assert set(ADVICE) == set(Refusal)
    assert all(told.means.endswith(".") and told.do.endswith(".") for told in ADVICE.values())
    assert advice("an engine's own word") is None


def test_a_story_goes_from_arrival_over_the_placing_to_the_first_token_and_the_end() -> None:
    story = story_of(
        attempt(predicted_ttft_ms=300, ttft_ms=500, end="finished", reserved_milli=9_000_000, settled_milli=7_000_000),
        gateway="gw-1",
        predicted_wait_ms=1000,
        wait_bound_ms=9000,
    )
    assert [(step.after_s, step.title) for step in story.steps] == [
        (0.0, "It came to gw-1"),
        (1.2, "Attempt 1: placed on big-gpu by expected_ttft"),
        (1.7, "Its first token came 500 ms later"),
        (None, "The attempt ended: finished"),
    ]
    assert story.steps[0].text == "It was expected to wait 1.0 s, and never longer than 9.0 s."
    assert story.steps[2].text == "200 ms later than the 300 ms that were expected."
    assert story.steps[3].text == "9,000 weighted tokens were reserved, 7,000 charged."
    assert [
        step.tone
        for step in story_of(attempt(end="unreachable"), attempt(end="finished")).steps
        if "ended" in step.title
    ] == [
        "warn",
        "good",
    ], "it was placed again, and that went well"
    assert story_of(attempt(end="cancelled"), state="cancelled").steps[-1].title == "It is cancelled"
    assert (story.user, story.ledger_id) == ("alice", str(UUID(bytes=LEDGER_ID)))


@pytest.mark.parametrize(
    ("came_ms", "text", "tone"),
    [
        (300, "As expected.", "good"),
        (250, "50 ms sooner than the 300 ms that were expected.", "good"),
        (2000, "1.7 s later than the 300 ms that were expected.", "warn"),
    ],
)
def test_a_first_token_is_set_against_what_was_expected(came_ms: int, text: str, tone: str) -> None:
    step = story_of(attempt(predicted_ttft_ms=300, ttft_ms=came_ms)).steps[2]
    assert (step.text, step.tone) == (text, tone)


def test_how_a_request_came_to_a_backend_otherwise_is_told_too() -> None:
    lent, known, jumped = (
        story_of(attempt(on_credit=True)),
        story_of(attempt(policy="")),
        story_of(attempt(passed_over_tokens=4000.4, cached_tokens=1500)),
    )
    assert lent.steps[1].title == "Attempt 1: its gateway began it on big-gpu"
    assert known.steps[1].title == "Attempt 1: it was on big-gpu already"
    assert jumped.steps[1].text == "1,500 tokens of its prompt were believed to be cached there."
    assert jumped.steps[2].text == "It was 4,000 tokens ahead of the least served."


def test_one_that_waits_says_for_what_and_how_many_go_first() -> None:
    story = story_of(state="waiting", waited_ms=2500, due=0.25, ahead=2, blocked_by=["no free slot"])
    assert (story.waits_for, story.due, story.ahead) == (("no free slot",), 0.25, 2)
    assert (story.steps[-1].after_s, story.steps[-1].text) == (2.5, "2 requests of the same key first.")
    assert story_of(state="ended", due=0.25).due is None


def test_one_that_was_refused_says_what_to_do() -> None:
    story = story_of(state="refused", reason="queue_timeout", waited_ms=60_000)
    assert story.steps[-1].title == "It was refused, without having been placed"
    assert story.advice == ADVICE[Refusal.QUEUE_TIMEOUT]
    assert story.tone == "bad"


def test_candidates_stand_by_what_they_would_have_cost_with_the_chosen_one_marked() -> None:
    candidates = [
        scheduler_pb2.Candidate(backend_id="b2", total_s=3.0, wait_s=2.5, load_model_s=0.5),
        scheduler_pb2.Candidate(backend_id="b1", total_s=0.5, prefill_s=0.5, cached_tokens=10, free_slots=2),
    ]
    (choice,) = story_of(attempt(candidates=candidates)).choices
    assert [(score.backend, score.is_chosen, score.total_s) for score in choice.scores] == [
        ("big-gpu", True, 0.5),
        ("old-gpu", False, 3.0),
    ]
    assert choice.scores[1].terms_s == (2.5, 0.5, 0.0, 0.0, 0.0, 0.0)


def test_a_row_of_the_ledger_says_what_it_cost_or_why_nothing() -> None:
    row = usage_pb2.UsageRecord(
        ledger_id=LEDGER_ID,
        model="m",
        model_requested="alias",
        outcome=types_pb2.OUTCOME_REFUSED,
        reason="rate_limited",
    )
    free = prices_pb2.RequestCost(record=row, why="Nothing had a price.")
    free.record.unbilled = "no_price"
    paid = prices_pb2.RequestCost(record=row, price=prices_pb2.PriceVersion(id="7", model="m*"))
    paid.record.cost_micros = 0
    one, other = entries_of(prices_pb2.ShowCostResponse(costs=[free, paid]), NAMES)
    assert (one.cost_micros, one.unbilled, one.why_unbilled) == (None, "no_price", "Nothing had a price.")
    assert (other.cost_micros, other.price) == (0, "m*, version 7"), "what costs nothing is billed all the same"
    assert one.advice == ADVICE[Refusal.RATE_LIMITED]
    facts = dict(one.facts)
    assert (facts["Model"], facts["First token"]) == ("m (asked for: alias)", "")


asynchronous = pytest.mark.asyncio(loop_scope="module")


@asynchronous
async def test_an_operator_reads_the_whole_story(house: House) -> None:
    operator = await house.of(Role.OPERATOR)
    ledger_id = new_ledger_id(time.time())
    candidates = [scheduler_pb2.Candidate(backend_id="b-9", total_s=0.25, wait_s=0.125)]
    house.admin.site.scheduler.remembered = [
        scheduler_pb2.Explanation(
            request_id="req<1>",
            ledger_id=ledger_id,
            state="refused",
            reason="queue_full",
            model="llama",
            attempts=[attempt(backend_id="b-9", candidates=candidates)],
        )
    ]
    text = await page(operator, explain_path("req<1>"))
    for told in ("req&lt;1&gt;", "What to do:", "Send fewer at once", "Why b-9 (attempt 1", "0.125", "chosen"):
        assert told in text
    assert "The ledger has no row of it yet" in text
    status, _, to = await operator.get("/console/explain?id=req%3C1%3E", headers={"accept": "text/html"})
    assert (status, to) == (303, "/console/explain/req%3C1%3E")


@asynchronous
async def test_a_request_that_only_the_ledger_knows_is_told_from_there(house: House) -> None:
    operator = await house.of(Role.OPERATOR)
    now = datetime.now(UTC)
    row = record(now, request_id="in-ledger", reason="engine_failed", outcome=types_pb2.OUTCOME_FAILED)
    async with opened(house.admin.site) as database:
        await enter(database, [row])
    for asked in ("in-ledger", str(UUID(bytes=row.ledger_id))):
        text = await page(operator, explain_path(asked))
        assert "The scheduler remembers the latest requests only" in text
        assert "It was not billed" in text
        assert "The engines that it was given to failed." in text
    assert "in-ledger" in await page(operator, "/console/explain"), "the latest stand below the form"


@asynchronous
async def test_members_see_their_own_requests_and_nobody_elses(house: House) -> None:
    member, other = await house.of(Role.MEMBER), await house.signed_in("somebody-else")
    users = {user.name: user for user in (await house.root.ListUsers()).users}
    mine = record(datetime.now(UTC), request_id="my-own", user_id=users["some-member"].id)
    async with opened(house.admin.site) as database:
        await enter(database, [mine])
    house.admin.site.scheduler.remembered = [
        scheduler_pb2.Explanation(request_id="my-own", ledger_id=mine.ledger_id, state="ended", attempts=[attempt()])
    ]
    text = await page(member, explain_path("my-own"))
    assert "What the ledger keeps" in text
    assert "Step by step" not in text, "backends and others' loads are no business of members"
    assert "No request of that id is known" in await page(other, explain_path("my-own"), status=404)


@asynchronous
async def test_an_id_that_cannot_be_one_is_said_beside_the_field(house: House) -> None:
    operator = await house.of(Role.OPERATOR)
    for asked in ("x" * 300, "a%0Ab"):
        text = await page(operator, f"/console/explain?id={asked}", status=400)
        assert 'aria-invalid="true"' in text
    await page(operator, "/console/explain?id=a%00b", status=400)
    assert "No request of that id is known" in await page(operator, "/console/explain/never", status=404)
    nobody = await house.nobody()
    status, _, to = await nobody.get("/console/explain/x", headers={"accept": "text/html"})
    assert (status, to) == (303, "/sign-in?next=%2Fconsole%2Fexplain%2Fx")


@asynchronous
async def test_while_no_scheduler_leads_the_ledgers_part_is_shown_all_the_same(house: House) -> None:
    operator = await house.of(Role.OPERATOR)
    row = record(datetime.now(UTC), request_id="lonely")
    async with opened(house.admin.site) as database:
        await enter(database, [row])
    house.admin.site.scheduler.leads = False
    try:
        text = await page(operator, explain_path("lonely"))
    finally:
        house.admin.site.scheduler.leads = True
    assert "standby" in text
    assert "What the ledger keeps" in text
