"""Who waits and who holds: grants, credits, the time without a leader, and what is told of all that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from forebay.clock import ManualClock
from forebay.errors import Refusal
from forebay.wire.v1 import scheduler_pb2, types_pb2
from forebay_gateway.accounting import NOTHING_USED, Outcome, Usage, UsageSource
from forebay_gateway.engines.errors import Blame
from forebay_gateway.fleet import Backend, ModelOnBackend
from forebay_gateway.rate_standing import RateStanding
from forebay_gateway.refused import Refused
from forebay_gateway.slots import places as places_module
from forebay_gateway.slots.allotments import Allotment
from forebay_gateway.slots.asking import BY_ITSELF, Ask, Epoch, Grant
from forebay_gateway.slots.ceilings import Ceiling
from forebay_gateway.slots.credits import Lent
from forebay_gateway.slots.places import Places
from tests.gateway.line import MODEL, Line, make_ask, make_line

LEADER = Epoch(1, 7)
USED = Usage(10, 3, 5, UsageSource.ENGINE)


class Gateway:
    """Places under a leader that says what the test says."""

    def __init__(self, *backends: str, slots: int = 4, **options: Any) -> None:
        self.clock = ManualClock()
        self.clock.advance(100.0)
        names = backends or ("b1",)
        self.line: Line = make_line({"a:1": None}, backends=names, clock=self.clock, **options)  # type: ignore[dict-item]
        self.places: Places = self.line.places
        self.meet(LEADER)
        for name in names:
            self.places.take_ceiling(Ceiling(name, "default", slots, 1))
        self.frame()

    def meet(self, epoch: Epoch) -> scheduler_pb2.Hello:
        hello = self.places.hello("g", 1)
        self.places.welcomed(epoch)
        return hello

    def frame(self) -> scheduler_pb2.GatewayFrame:
        return self.places.take_outbox().to_frame()

    def ask(self, **fields: Any) -> Ask:
        return make_ask(arrived=self.clock.monotonic(), **fields)

    def know(self, *keys: str) -> None:
        """An earlier request of theirs was granted, and told no limits."""
        for key in keys or ("k",):
            self.places._allotments.note(key, is_limited=False)

    def lend(
        self, number: int = 1, *, backend: str = "b1", slots: int = 1, leases: int = 9, valid_s: float = 1.0
    ) -> None:
        expires_at = self.clock.monotonic() + valid_s
        self.places.take_credit(Lent(number, backend, "default", MODEL, slots, expires_at, number * 100, leases))


def grant_of(ask: Ask, lease: int = 1, backend: str = "b1", **fields: Any) -> Grant:
    return Grant(ask.ledger_id, backend, lease, fields.pop("epoch", LEADER), fields.pop("attempt", 1), 5, **fields)


@contextmanager
def asking(gateway: Gateway, ask: Ask) -> Iterator[asyncio.Task[Grant]]:
    task = asyncio.create_task(gateway.places.ask(ask))
    try:
        yield task
    finally:
        task.cancel()


async def begun_at_once(gateway: Gateway, ask: Ask) -> Grant | None:
    """Steps the asking once and no further: a wait, for whatever, is not at once."""
    coroutine = gateway.places.ask(ask)
    try:
        coroutine.send(None)
    except StopIteration as done:
        grant: Grant = done.value
        return grant
    coroutine.close()
    gateway.places.end(ask.ledger_id, Outcome.CANCELLED, NOTHING_USED)
    return None


# --- credits --------------------------------------------------------------------------------------------------------


async def test_a_lone_request_begins_on_credit_without_awaiting_anything_and_is_told_in_the_next_frame() -> None:
    gateway = Gateway()
    gateway.know()
    gateway.lend()
    ask = gateway.ask(prefix_hashes=(1, 2, 3, 4))  # long, but there is only one backend
    grant = await begun_at_once(gateway, ask)
    assert grant is not None
    assert (grant.backend_id, grant.lease, grant.epoch, grant.attempt) == ("b1", 100, LEADER, 1)
    frame = gateway.frame()
    (start,) = frame.credit_starts
    assert (start.credit_id, start.lease, start.request.ledger_id) == (1, 100, ask.ledger_id)
    assert list(start.request.prefix_hashes) == [1, 2, 3, 4]
    assert not frame.submits
    gateway.places.end(ask.ledger_id, Outcome.FINISHED, USED)
    (settle,) = gateway.frame().settles
    assert (settle.lease, settle.epoch.revision) == (100, 7)
    assert (settle.usage.prompt_tokens, settle.usage.cached_prompt_tokens, settle.usage.completion_tokens) == (10, 3, 5)
    assert await begun_at_once(gateway, gateway.ask()) is not None, "the slot may be used again"


async def test_what_began_and_ended_in_one_turn_ends_in_the_frame_after() -> None:
    gateway = Gateway()
    gateway.know()
    gateway.lend()
    ask = gateway.ask()
    assert await begun_at_once(gateway, ask)
    gateway.places.end(ask.ledger_id, Outcome.CANCELLED, NOTHING_USED)
    first, second = gateway.frame(), gateway.frame()
    assert (len(first.credit_starts), len(first.settles)) == (1, 0)
    assert [settle.ledger_id for settle in second.settles] == [ask.ledger_id]


async def test_what_nobody_waits_for_is_said_soon_and_all_else_at_once() -> None:
    gateway = Gateway()
    gateway.know()
    gateway.lend()
    said: list[str] = []
    gateway.places.wake, gateway.places.wake_soon = lambda: said.append("now"), lambda: said.append("soon")
    ask = gateway.ask()
    assert await begun_at_once(gateway, ask)
    gateway.places.first_token(ask.ledger_id, 5)
    gateway.places.progress(ask.ledger_id, 64)
    gateway.places.end(ask.ledger_id, Outcome.FINISHED, USED)
    assert said == ["soon"], "once is enough until it comes"
    gateway.frame()
    assert said == ["soon"] * 2, "its end is left to be told"
    said.clear()
    with asking(gateway, gateway.ask(model="other")):
        await asyncio.sleep(0)
        assert said == ["now"]
    other = gateway.ask()
    assert await begun_at_once(gateway, other)
    gateway.places.recall_credit(1)
    said.clear()
    gateway.places.end(other.ledger_id, Outcome.FINISHED, USED)
    assert said == ["now"], "somebody waits where its credit was for"


async def test_a_slot_is_used_again_in_the_frame_after_the_one_that_tells_of_its_first_use() -> None:
    gateway = Gateway()
    gateway.know()
    gateway.lend(slots=2)
    asks = [gateway.ask() for _ in range(5)]
    for ask in asks:
        assert await begun_at_once(gateway, ask)
        gateway.places.end(ask.ledger_id, Outcome.FINISHED, USED)
    waits = gateway.ask(model="other")
    with asking(gateway, waits):
        await asyncio.sleep(0)
        frames = [gateway.frame() for _ in range(4)]
    started = [[start.request.ledger_id for start in frame.credit_starts] for frame in frames]
    settled = [[settle.ledger_id for settle in frame.settles] for frame in frames]
    ids = [ask.ledger_id for ask in asks]
    assert started == [ids[:2], ids[2:4], ids[4:], []]
    assert settled == [[], ids[:2], ids[2:4], ids[4:]]
    assert [len(frame.submits) for frame in frames] == [0, 0, 0, 1], "after the ends that may make room for it"
    assert not gateway.places.has_news


async def test_what_was_sealed_is_not_told_to_the_next_leader_twice() -> None:
    gateway = Gateway()
    gateway.know()
    gateway.lend()
    first, second = gateway.ask(), gateway.ask()
    assert await begun_at_once(gateway, first)
    gateway.places.end(first.ledger_id, Outcome.FINISHED, USED)
    assert await begun_at_once(gateway, second)
    gateway.places.session_over()
    hello = gateway.meet(Epoch(1, 8))
    assert [held.request.ledger_id for held in hello.held] == [second.ledger_id]
    assert [settle.ledger_id for settle in hello.unconfirmed] == [first.ledger_id]
    assert not gateway.places.has_news


@pytest.mark.parametrize(
    "why_not",
    ["width", "time", "waiting", "unknown key", "limited key", "ceiling", "many backends", "lost", "switched off"],
)
async def test_credits_are_not_for(why_not: str) -> None:
    backends = ("b1", "b2") if why_not == "many backends" else ("b1",)
    gateway = Gateway(*backends, uses_credits=why_not != "switched off")
    gateway.know("k", "k2")
    gateway.lend()
    ask = gateway.ask(
        width=2 if why_not == "width" else 1,
        key_id="new" if why_not == "unknown key" else "k",
        prefix_hashes=(1, 2) if why_not == "many backends" else (),
    )
    match why_not:
        case "time":
            gateway.clock.advance(1.0)
        case "limited key":
            gateway.places._allotments.note("k", is_limited=True)
        case "ceiling":
            gateway.places.take_ceiling(Ceiling("b1", "default", 0, 2))
        case "lost":
            gateway.line.fleet.change([Backend("b1", "b1", "http://x", is_unhealthy=True)], [])
    if why_not == "waiting":
        with asking(gateway, gateway.ask(width=3)):
            await asyncio.sleep(0)
            assert await begun_at_once(gateway, ask) is None
        return
    assert await begun_at_once(gateway, ask) is None
    if why_not == "switched off":
        assert [returned.id for returned in gateway.frame().credit_returns] == [1]


async def test_a_short_prompt_may_go_to_any_of_several_backends_unless_its_session_has_a_home() -> None:
    gateway = Gateway("b1", "b2")
    gateway.know()
    gateway.lend(slots=2)
    assert await begun_at_once(gateway, gateway.ask(prefix_hashes=(1,), session_key="s")) is None
    assert await begun_at_once(gateway, gateway.ask(prefix_hashes=(1,))) is not None


async def test_a_limited_key_begins_on_credit_with_what_was_lent_for_it() -> None:
    gateway = Gateway()
    gateway.lend(slots=4)
    gateway.places.take_allotment(Allotment(5, "k", 1, 1000, gateway.clock.monotonic() + 1))
    grant = await begun_at_once(gateway, gateway.ask(max_output_tokens=100))
    assert grant is not None
    assert grant.is_limited, "its answer is to be counted"
    assert await begun_at_once(gateway, gateway.ask()) is None
    gateway.places.recall_allotment(5)
    assert [returned.id for returned in gateway.frame().allotment_returns] == [5]


async def test_a_recall_is_answered_after_what_was_begun_and_expiry_without_being_asked() -> None:
    gateway = Gateway()
    gateway.know()
    gateway.lend(1)
    gateway.lend(2, valid_s=0.5)
    await begun_at_once(gateway, gateway.ask())
    gateway.places.recall_credit(1)
    gateway.clock.advance(0.5)
    frame = gateway.frame()
    assert [start.credit_id for start in frame.credit_starts] == [1]
    assert sorted(returned.id for returned in frame.credit_returns) == [1, 2]
    assert await begun_at_once(gateway, gateway.ask()) is None


async def test_credits_end_with_their_session_and_are_returned_to_none_but_their_leader() -> None:
    for epoch, returned in ((LEADER, [1]), (Epoch(1, 8), [])):
        gateway = Gateway()
        gateway.know()
        gateway.lend()
        gateway.places.session_over()
        gateway.meet(epoch)
        assert [one.id for one in gateway.frame().credit_returns] == returned
        assert await begun_at_once(gateway, gateway.ask()) is None


async def test_what_began_on_credit_is_nacked_like_the_rest() -> None:
    gateway = Gateway()
    gateway.know()
    gateway.lend()
    ask = gateway.ask()
    grant = await begun_at_once(gateway, ask)
    assert grant is not None
    gateway.frame()
    again = asyncio.create_task(gateway.places.ask_again(grant, Blame.FAILED, None))
    await asyncio.sleep(0)
    (nack,) = gateway.frame().nacks
    assert (nack.ledger_id, nack.lease, nack.backend_id) == (ask.ledger_id, 100, "b1")
    gateway.places.take_grant(grant_of(ask, 2, "b2", attempt=2))
    assert (await again).backend_id == "b2"


# --- without a leader -----------------------------------------------------------------------------------------------


async def test_without_a_leader_requests_begin_within_the_ceilings_and_the_next_leader_is_told() -> None:
    gateway = Gateway("b1", "b2", slots=1)
    gateway.know()
    tasks = [asyncio.create_task(gateway.places.ask(gateway.ask(user_id=user))) for user in ("alice", "alice", "bob")]
    await asyncio.sleep(0)
    gateway.places.session_over()
    gateway.clock.advance(1.9)
    gateway.places.look_again()
    assert gateway.places.held == 0, "not yet"
    gateway.places.begin_local()
    await asyncio.sleep(0)
    assert [task.done() for task in tasks] == [True, False, True], "users take turns"
    grants = [tasks[0].result(), tasks[2].result()]
    assert {grant.backend_id for grant in grants} == {"b1", "b2"}
    assert {grant.epoch for grant in grants} == {BY_ITSELF}
    assert [grant.lease for grant in grants] == [1, 2]
    gateway.places.end(grants[0].ledger_id, Outcome.FINISHED, USED)
    await asyncio.sleep(0)
    assert tasks[1].done(), "its slots went to the next"
    gateway.places.progress(grants[1].ledger_id, 64)
    hello = gateway.meet(Epoch(1, 8))
    assert sorted((held.backend_id, held.lease, held.epoch.revision) for held in hello.held) == sorted(
        (grant.backend_id, grant.lease, 0) for grant in (grants[1], tasks[1].result())
    )
    assert max(held.completion_tokens for held in hello.held) == 64
    (settle,) = hello.unconfirmed
    assert (settle.epoch.term_us, settle.epoch.revision, settle.lease) == (0, 0, 1)
    assert settle.request.user_id == "alice"
    assert settle.usage.completion_tokens == 5
    assert sorted((ceiling.backend_id, ceiling.slots) for ceiling in hello.ceilings) == [("b1", 1), ("b2", 1)]


async def test_nothing_begins_by_itself_between_a_hello_and_its_answer() -> None:
    gateway = Gateway()
    gateway.know()
    gateway.places.session_over()
    gateway.places.begin_local()
    hello = gateway.places.hello("g", 1)
    assert not hello.queued
    with asking(gateway, gateway.ask()) as task:
        await asyncio.sleep(0)
        gateway.places.look_again()
        assert gateway.places.held == 0
        gateway.places.session_over()  # a standby, say
        await asyncio.sleep(0)
        assert task.done(), "it was not forgotten meanwhile"


async def test_limited_and_unknown_keys_begin_without_a_leader_only_on_what_was_lent() -> None:
    gateway = Gateway()
    gateway.places.take_allotment(Allotment(1, "limited", 1, 10_000, gateway.clock.monotonic() + 5))
    gateway.places.session_over()
    gateway.places.begin_local()
    assert await begun_at_once(gateway, gateway.ask(key_id="unknown")) is None
    with asking(gateway, gateway.ask(key_id="limited")) as one, asking(gateway, gateway.ask(key_id="limited")) as other:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (one.done(), other.done()) == (True, False)


async def test_a_backend_that_failed_it_or_is_unhealthy_is_not_tried_without_a_leader_either() -> None:
    gateway = Gateway("b1", "b2", "b3", slots=2)
    ill = Backend("b3", "b3", "http://x", is_unhealthy=True, models={MODEL: ModelOnBackend(MODEL)})
    gateway.line.fleet.change([ill], [])
    gateway.know()
    gateway.places.session_over()
    gateway.places.begin_local()
    grant = await gateway.places.ask(gateway.ask())
    again = await gateway.places.ask_again(grant, Blame.FAILED, None)
    assert {grant.backend_id, again.backend_id} == {"b1", "b2"}
    assert again.attempt == 2
    third = asyncio.create_task(gateway.places.ask_again(again, Blame.FAILED, None))
    await asyncio.sleep(0)
    assert not third.done()
    (queued,) = gateway.places.hello("g", 1).queued
    assert (sorted(queued.excluded_backends), queued.attempts) == (["b1", "b2"], 2)
    third.cancel()


async def test_a_lowered_ceiling_is_acknowledged_with_what_is_held_and_not_exceeded() -> None:
    gateway = Gateway(slots=3)
    gateway.know()
    asks = [gateway.ask() for _ in range(2)]
    tasks = [asyncio.create_task(gateway.places.ask(ask)) for ask in asks]
    await asyncio.sleep(0)
    for lease, ask in enumerate(asks, 1):
        gateway.places.take_grant(grant_of(ask, lease))
    gateway.frame()
    gateway.places.take_ceiling(Ceiling("b1", "default", 1, 9))
    (ack,) = gateway.frame().ceiling_acks
    assert (ack.backend_id, ack.version, ack.held) == ("b1", 9, 2)
    gateway.places.session_over()
    gateway.places.begin_local()
    with asking(gateway, gateway.ask()) as late:
        await asyncio.sleep(0)
        gateway.places.end(asks[0].ledger_id, Outcome.FINISHED, USED)
        await asyncio.sleep(0)
        assert not late.done(), "one is still held, and one is the ceiling"
        gateway.places.end(asks[1].ledger_id, Outcome.FINISHED, USED)
        await asyncio.sleep(0)
        assert late.done()
    assert all(task.done() for task in tasks)


# --- what the scheduler says ----------------------------------------------------------------------------------------


async def test_a_grant_that_nobody_waits_for_is_handed_back_and_a_settle_told_before_stays() -> None:
    gateway = Gateway()
    ask = gateway.ask()
    with asking(gateway, ask):
        await asyncio.sleep(0)
        gateway.places.take_grant(grant_of(ask))
    gateway.places.end(ask.ledger_id, Outcome.FINISHED, USED)
    gateway.frame()
    gateway.places.take_grant(grant_of(ask, lease=2))
    (settle,) = gateway.frame().settles
    assert (settle.lease, settle.outcome) == (2, types_pb2.OUTCOME_CANCELLED)
    (kept,) = gateway.places.hello("g", 1).unconfirmed
    assert (kept.lease, kept.usage.completion_tokens) == (1, 5)


async def test_settles_are_kept_until_they_are_confirmed_and_never_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places_module, "MOST_UNCONFIRMED", 3)
    gateway = Gateway()
    asks = [gateway.ask(prefix_hashes=(1, 2)) for _ in range(5)]
    for lease, ask in enumerate(asks, 1):
        with asking(gateway, ask):
            await asyncio.sleep(0)
            gateway.places.take_grant(grant_of(ask, lease))
        gateway.places.end(ask.ledger_id, Outcome.FINISHED, USED)
    assert gateway.places.unconfirmed == 3
    gateway.places.take_settled([asks[3].ledger_id, asks[0].ledger_id])
    hello = gateway.places.hello("g", 1)
    assert [settle.lease for settle in hello.unconfirmed] == [3, 5]
    assert all(settle.request.key_id == "k" and not settle.request.prefix_hashes for settle in hello.unconfirmed)


async def test_a_refusal_carries_the_standing_and_marks_its_key_as_limited() -> None:
    gateway = Gateway()
    ask = gateway.ask()
    with asking(gateway, ask) as task:
        await asyncio.sleep(0)
        standing = scheduler_pb2.RateStanding(limit_requests=60, remaining_requests=0, reset_requests_ms=1500)
        gateway.places.take_reject(
            scheduler_pb2.Reject(ledger_id=ask.ledger_id, reason="rate_limited", retry_after_ms=250, standing=standing)
        )
        with pytest.raises(Refused) as refused:
            await task
    assert (refused.value.word, refused.value.retry_after_s) == (Refusal.RATE_LIMITED, 0.25)
    assert refused.value.standing == RateStanding(60, 0, 1.5)
    gateway.lend()
    assert await begun_at_once(gateway, gateway.ask()) is None


async def test_a_cutoff_reaches_the_request_that_runs_and_no_other() -> None:
    gateway = Gateway()
    ask = gateway.ask()
    with asking(gateway, ask):
        await asyncio.sleep(0)
        gateway.places.take_cutoff(ask.ledger_id, "quota_spent")
        assert gateway.line.cut == [], "it does not run yet"
        gateway.places.take_grant(grant_of(ask))
        gateway.places.take_cutoff(ask.ledger_id, "quota_spent")
    assert gateway.line.cut == [(ask.ledger_id, Refusal.QUOTA_SPENT)]


# --- asked for once more, as another model ------------------------------------------------------------------------------


async def test_what_was_not_told_yet_is_withdrawn_without_a_word() -> None:
    gateway = Gateway()
    ask = gateway.ask()
    with asking(gateway, ask):
        await asyncio.sleep(0)
        await asyncio.wait_for(gateway.places.withdraw(ask.ledger_id), 30)
        frame = gateway.frame()
        assert (list(frame.submits), list(frame.cancels)) == ([], [])
        assert gateway.places.waiting == 0


async def test_what_waits_is_withdrawn_when_the_scheduler_has_acted_upon_it() -> None:
    gateway = Gateway()
    ask = gateway.ask()
    with asking(gateway, ask):
        await asyncio.sleep(0)
        gateway.frame()
        withdrawing = asyncio.create_task(gateway.places.withdraw(ask.ledger_id))
        await asyncio.sleep(0)
        outbox = gateway.places.take_outbox()
        assert [cancel.ledger_id for cancel in outbox.to_frame().cancels] == [ask.ledger_id]
        gateway.places.take_grant(grant_of(ask))  # it was on its way
        await asyncio.sleep(0)
        assert not withdrawing.done()
        assert gateway.places.held == 0
        outbox.acted_upon()
        await asyncio.wait_for(withdrawing, 30)
        assert list(gateway.frame().settles) == [], "the cancel ends the grant too"
    with asking(gateway, ask) as again:
        await asyncio.sleep(0)
        gateway.places.take_grant(grant_of(ask, lease=2))
        assert (await asyncio.wait_for(again, 30)).lease == 2


async def test_a_slot_that_is_withdrawn_is_cancelled_and_not_settled() -> None:
    gateway = Gateway(slots=1)
    ask = gateway.ask()
    with asking(gateway, ask) as task:
        await asyncio.sleep(0)
        gateway.places.take_grant(grant_of(ask))
        await task
        gateway.frame()
        assert gateway.places.held == 1
        withdrawing = asyncio.create_task(gateway.places.withdraw(ask.ledger_id))
        await asyncio.sleep(0)
        assert gateway.places.held == 0
        frame = gateway.frame()
        assert ([c.ledger_id for c in frame.cancels], list(frame.settles)) == ([ask.ledger_id], [])
        withdrawing.cancel()
        assert gateway.places.unconfirmed == 0
        hello = gateway.meet(Epoch(1, 8))
        assert (list(hello.held), list(hello.queued), list(hello.unconfirmed)) == ([], [], [])


async def test_what_began_on_a_credit_in_this_turn_is_withdrawn_with_the_next_frame() -> None:
    gateway = Gateway()
    gateway.know()
    gateway.lend()
    ask = gateway.ask()
    grant = await begun_at_once(gateway, ask)
    assert grant is not None
    withdrawing = asyncio.create_task(gateway.places.withdraw(ask.ledger_id))
    await asyncio.sleep(0)
    first, second = gateway.places.take_outbox(), gateway.places.take_outbox()
    assert (list(first.credit_starts), first.cancels, first.withdrawn) == ([ask.ledger_id], [], {})
    assert second.cancels == [ask.ledger_id]
    second.acted_upon()
    await asyncio.wait_for(withdrawing, 30)


async def test_nobody_waits_for_a_session_that_is_over() -> None:
    gateway = Gateway()
    ask = gateway.ask()
    with asking(gateway, ask):
        await asyncio.sleep(0)
        gateway.frame()
        withdrawing = asyncio.create_task(gateway.places.withdraw(ask.ledger_id))
        await asyncio.sleep(0)
        gateway.places.session_over()
        await asyncio.wait_for(withdrawing, 30)
        await asyncio.wait_for(gateway.places.withdraw(ask.ledger_id), 30)
        assert list(gateway.places.hello("g", 1).queued) == []
