"""The queue's page: who waits in which pool, shares against weights, slots; and each request one by one."""

from __future__ import annotations

import time

import pytest

from forebay.ledger_id import new_ledger_id
from forebay.wire.v1 import admin_pb2, scheduler_pb2, types_pb2
from forebay.wire.v1 import usage_queries_pb2 as usage
from forebay_admin.people.people import Role
from forebay_admin.web.work.queue_view import (
    MOST_ROWS,
    Filter,
    filter_of,
    filter_of_topic,
    queue_view,
    requests_of,
    shares_view,
    verdict,
)
from tests.admin.web.conftest import House, page

NAMES = admin_pb2.Names(users={"u1": "alice", "u2": "bob"}, groups={"g": "lab"}, backends={"b1": "big-gpu"})
STANDARD, BATCH = types_pb2.BAND_STANDARD, types_pb2.BAND_BATCH


def queued(user: str = "u1", **more: object) -> scheduler_pb2.QueuedUser:
    usual = {"pool": "lab", "model": "llama", "requests": 1, "oldest_ms": 1000, "band": STANDARD}
    return scheduler_pb2.QueuedUser(user_id=user, **{**usual, **more})  # type: ignore[arg-type]


def asked_of(*waiting: scheduler_pb2.QueuedUser, **more: object) -> admin_pb2.ViewQueueResponse:
    queue = scheduler_pb2.ShowQueueResponse(waiting=waiting, **more)  # type: ignore[arg-type]
    return admin_pb2.ViewQueueResponse(queue=queue, names=NAMES)


def test_who_is_expected_to_start_first_stands_first_and_what_nobody_foresees_last() -> None:
    told = asked_of(
        queued("u1", predicted_wait_ms=9000, blocked_by=["no free slot"]),
        queued("u2", predicted_wait_ms=0),
        queued("u3", predicted_wait_ms=500, requests=4, oldest_ms=8000),
    )
    (pool,) = queue_view(told, Filter(), 10.0).pools
    assert [(one.turn, one.user, one.foreseen_s) for one in pool.waiting] == [
        (1, "u3", 0.5),
        (2, "alice", 9.0),
        (3, "bob", None),
    ]
    assert (pool.requests, pool.oldest_s, pool.waiting[1].because) == (6, 8.0, ("no free slot",))
    assert [one.is_known for one in pool.waiting] == [False, True, True]


def test_pools_stand_apart_and_sums_are_of_all_whatever_is_filtered() -> None:
    told = asked_of(queued(), queued("u2", pool="", band=BATCH, requests=5, oldest_ms=7000))
    assert [pool.name for pool in queue_view(told, Filter(), 1.0).pools] == ["default", "lab"]
    view = queue_view(told, Filter(band="batch"), 1.0)
    assert [pool.name for pool in view.pools] == ["default"]
    assert (view.waiting, view.users, view.oldest_s, view.is_filtered) == (6, 2, 7.0, True)
    assert [pool.name for pool in queue_view(told, Filter(q="ALI"), 1.0).pools] == ["lab"]
    assert queue_view(told, Filter(q="nobody"), 1.0).pools == ()


def test_a_long_queue_says_how_much_of_it_is_not_shown() -> None:
    told = asked_of(*(queued(f"u{n}", predicted_wait_ms=n) for n in range(MOST_ROWS + 7)))
    (pool,) = queue_view(told, Filter(), 1.0).pools
    assert (len(pool.waiting), pool.more) == (MOST_ROWS, 7)


def test_a_filter_takes_what_can_be_in_a_name_and_finds_nothing_by_the_rest() -> None:
    assert filter_of({"q": " a\x00b ", "band": "urgent", "pool": "x" * 500}) == Filter(q="ab", pool="x" * 60)
    asked = Filter("lab,1", "batch", "a&b")
    assert filter_of_topic(asked.query()) == asked


@pytest.mark.parametrize(
    ("held", "tone", "state"),
    [
        ({"held": 1, "cap": 4}, "good", "takes requests"),
        ({"held": 4, "cap": 4}, "info", "full"),
        ({"held": 1, "cap": 4, "closed_because": "its breaker is open"}, "bad", "closed"),
        ({"held": 1, "cap": 4, "draining": True}, "warn", "draining"),
        ({"held": 0, "cap": 4, "draining": True}, "warn", "drained"),
    ],
)
def test_what_a_backend_takes_is_one_word_with_a_tone(held: dict[str, int], tone: str, state: str) -> None:
    told = asked_of(held=[scheduler_pb2.HeldSlots(backend_id="b1", **held)])  # type: ignore[arg-type]
    (slots,) = queue_view(told, Filter(), 1.0).slots
    assert (slots.backend, slots.tone, slots.state) == ("big-gpu", tone, state)


def test_what_somebody_had_is_set_against_what_their_weight_is_worth() -> None:
    shares = [
        scheduler_pb2.UserShare(pool="lab", user_id="u1", due=0.75, ahead_tokens=5000, weight_milli=3000, groups=["g"]),
        scheduler_pb2.UserShare(pool="lab", user_id="u2", due=0.25, ahead_tokens=0, weight_milli=1000),
    ]
    had = usage.QueryUsageResponse(
        lines=[
            usage.UsageLine(pool="lab", user_id="u1", sums=usage.UsageSums(prompt_tokens=40, completion_tokens=10)),
            usage.UsageLine(pool="lab", user_id="u2", sums=usage.UsageSums(prompt_tokens=50)),
            usage.UsageLine(pool="lab", user_id="gone", sums=usage.UsageSums(prompt_tokens=9000)),
            usage.UsageLine(pool="other", user_id="u1", sums=usage.UsageSums(prompt_tokens=9000)),
        ]
    )
    (pool,) = shares_view(asked_of(shares=shares), had, Filter(), 1.0, 3600.0).pools
    assert [(one.user, one.had, one.verdict) for one in pool.shares] == [
        ("bob", 0.5, "more than its part"),
        ("alice", 0.5, "less than its part"),
    ], "the least ahead goes next; those who are gone take nobody's part"
    assert pool.shares[1].groups == ("lab",)
    (unknown,) = shares_view(asked_of(shares=shares), None, Filter(q="bob"), 1.0, 3600.0).pools
    assert [(one.had, one.verdict) for one in unknown.shares] == [(None, "not known")]


def test_nothing_used_is_not_known_rather_than_less() -> None:
    share = scheduler_pb2.UserShare(pool="lab", user_id="u1", due=0.5)
    (pool,) = shares_view(asked_of(shares=[share]), usage.QueryUsageResponse(), Filter(), 1.0, 60.0).pools
    assert pool.shares[0].had is None
    assert verdict(0.5, 0.55) == "about its part"
    assert verdict(0.0, 0.5) == "nothing is due"


def test_requests_that_wait_stand_before_those_that_run_and_the_rest_is_left_out() -> None:
    recent = [
        scheduler_pb2.Explanation(request_id="done", state="ended"),
        scheduler_pb2.Explanation(
            request_id="runs",
            user_id="u1",
            state="running",
            attempts=[scheduler_pb2.Attempt(number=1, backend_id="b1")],
        ),
        scheduler_pb2.Explanation(request_id="short", state="waiting", waited_ms=10),
        scheduler_pb2.Explanation(request_id="long", state="waiting", waited_ms=9000, predicted_wait_ms=1, ahead=2),
    ]
    told = admin_pb2.ViewDumpResponse(dump=scheduler_pb2.DumpResponse(recent=recent), names=NAMES)
    rows, more = requests_of(told, Filter())
    assert ([row.id for row in rows], more) == (["long", "short", "runs"], 0)
    assert (rows[2].backend, rows[0].backend, rows[0].ahead) == ("big-gpu", "", 2)
    assert [row.id for row in requests_of(told, Filter(q="alice"))[0]] == ["runs"]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_page_shows_the_queue_to_who_may_see_it(house: House) -> None:
    auditor, member = await house.of(Role.AUDITOR), await house.of(Role.MEMBER)
    scheduler = house.admin.site.scheduler
    users = {user.name: user.id for user in (await house.root.ListUsers()).users}
    mine = users["some-member"]
    scheduler.queue = scheduler_pb2.ShowQueueResponse(
        waiting=[queued(mine, requests=3, predicted_wait_ms=4000, blocked_by=["no free <slot>"])],
        shares=[scheduler_pb2.UserShare(pool="lab", user_id=mine, due=1.0, weight_milli=2500, waiting=3)],
        held=[scheduler_pb2.HeldSlots(backend_id="b-1", cap=4, held=4, cap_is_found=True)],
        gateways=[scheduler_pb2.GatewaySession(gateway="gw-1", connected=True, heard_ago_ms=300)],
    )
    text = await page(auditor, "/console/queue")
    for told in ("some-member", "about 4.0 s", "no free &lt;slot&gt;", "4 of about 4", "gw-1", "2.5", "connected"):
        assert told in text
    assert 'data-live="queue"' in text
    assert "/console/queue/requests" not in text, "an auditor may not see everything that the scheduler knows"
    filtered = await page(auditor, "/console/queue?q=nobody%26you&band=batch")
    assert "Nobody of these waits" in filtered
    assert 'data-live="queue:band=batch&amp;q=nobody%26you"' in filtered
    await page(member, "/console/queue", status=403)
    await page(auditor, "/console/queue/requests", status=403)


@pytest.mark.asyncio(loop_scope="module")
async def test_operators_see_each_request_with_a_way_to_its_explanation(house: House) -> None:
    operator = await house.of(Role.OPERATOR)
    waiting = scheduler_pb2.Explanation(
        request_id="a/b c", ledger_id=new_ledger_id(time.time()), state="waiting", waited_ms=1500, key_id="fbk1"
    )
    house.admin.site.scheduler.remembered = [waiting]
    text = await page(operator, "/console/queue/requests")
    assert 'href="/console/explain/a%2Fb%20c"' in text
    assert "fbk1" in text
    assert "Nothing waits or runs" in await page(operator, "/console/queue/requests?band=batch")


@pytest.mark.asyncio(loop_scope="module")
async def test_without_a_scheduler_the_page_says_so_and_stays_a_page(house: House) -> None:
    operator = await house.of(Role.OPERATOR)
    scheduler = house.admin.site.scheduler
    scheduler.leads = False
    try:
        text = await page(operator, "/console/queue")
    finally:
        scheduler.leads = True
    assert "Not known at the moment" in text
    assert "standby" in text


@pytest.mark.asyncio(loop_scope="module")
async def test_the_queue_renews_itself_for_who_may_see_it_and_for_nobody_else(house: House) -> None:
    operator, member = await house.of(Role.OPERATOR), await house.of(Role.MEMBER)
    house.admin.site.scheduler.queue = scheduler_pb2.ShowQueueResponse(waiting=[queued("somebody", requests=7)])
    topic = "queue%3Apool%3Dlab"
    async with operator.session.get(f"{operator.url}/live?topics={topic}") as stream:
        assert stream.status == 200
        told = ""
        while "</table>" not in told:
            told += (await stream.content.readany()).decode()
    assert "event: queue:pool=lab" in told
    assert "somebody" in told
    assert "<form" not in told
    async with member.session.get(f"{member.url}/live?topics=queue") as refused:
        assert refused.status == 403
