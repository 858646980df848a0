"""How things stand: what operators are shown."""

from __future__ import annotations

from dataclasses import replace

from forebay.wire.v1 import types_pb2
from forebay_scheduler import events as ev
from forebay_scheduler.explaining import explain
from forebay_scheduler.request import GroupId, UserId
from forebay_scheduler.standing import show
from forebay_scheduler.terms import GroupTerms, UserTerms
from tests.scheduler.one_gateway import S1, Place, want


def test_what_waits_is_shown_by_user_with_its_age_its_band_and_its_due() -> None:
    place = Place()
    place.say(
        0.0,
        ev.PolicyChanged((UserTerms(UserId("bob"), GroupId("lab"), weight=3.0),), groups=(GroupTerms(GroupId("lab")),)),
    )
    place.submit(0.0, want("a"), want("b"))
    place.submit(1.0, want("c"), want("d", "bob", 1.0), want("e", "bob", 1.0))
    shown = show(place.policy, 4.0)
    assert (shown.epoch.term_us, shown.epoch.revision) == (3, 4)
    waiting = {one.user_id: one for one in shown.waiting}
    assert {user: (one.requests, one.oldest_ms, one.band) for user, one in waiting.items()} == {
        "alice": (1, 4000, types_pb2.BAND_STANDARD),
        "bob": (2, 3000, types_pb2.BAND_STANDARD),
    }
    assert waiting["alice"].blocked_by
    shares = {one.user_id: one for one in shown.shares}
    assert (shares["alice"].running, shares["alice"].waiting, list(shares["alice"].groups)) == (2, 1, [])
    assert (shares["bob"].running, shares["bob"].waiting, list(shares["bob"].groups)) == (0, 2, ["lab"])
    assert shares["bob"].weight_milli == 3000
    assert abs(sum(one.due for one in shown.shares) - 1.0) < 1e-6


def test_slots_and_gateways_are_shown_as_they_are() -> None:
    place = Place()
    place.submit(0.0, want("a"))
    shown = show(place.policy, 2.5)
    assert {one.backend_id: (one.cap, one.held, one.quarantined, one.lent) for one in shown.held} == {
        "gpu1": (1, 1, 0, 0),
        "gpu2": (1, 0, 0, 0),
    }
    (gateway,) = shown.gateways
    assert (gateway.gateway, gateway.generation, gateway.connected, gateway.running) == ("g1", 2, True, 1)
    assert (gateway.heard_ago_ms, gateway.ceilings) == (2500, 2)


def test_a_slot_that_is_lent_is_shown_once() -> None:
    place = Place()
    place.submit(0.0, one := want("a"))
    place.settle(0.1, one, 10)
    place.say(0.2, ev.Beat(S1, 1))
    held = {one.backend_id: (one.held, one.lent) for one in show(place.policy, 0.2).held}
    assert sum(lent for _, lent in held.values()) == 1
    assert sum(of for of, _ in held.values()) == 1


def test_who_is_paused_is_shown_and_says_nothing_about_how_fast_the_queue_drains() -> None:
    place = Place()
    place.say(0.0, ev.PolicyChanged((UserTerms(UserId("bob"), is_paused=True),)))
    place.submit(0.0, bob := want("b", "bob"))
    for second in range(1, 20):
        place.say(float(second), ev.Heard(S1), ev.Tick())
    (waiting,) = show(place.policy, 20.0).waiting
    assert (waiting.user_id, waiting.predicted_wait_ms) == ("bob", 0)
    assert list(waiting.blocked_by) == ["its user or group is paused"]
    story = place.policy.dispatch.log.get(bob.ledger_id)
    assert story is not None
    assert explain(place.policy, story, 20.0).state == "waiting"

    started = replace(want("a", arrived_at=20.0), deadline_s=5.0)
    place.submit(
        20.0, started, want("c", arrived_at=20.0), queued := replace(want("d", arrived_at=20.0), deadline_s=5.0)
    )
    assert started.ledger_id in place.grants
    assert place.policy.dispatch.knows(queued.ledger_id), "it was refused for how slowly the paused one moves"


def test_a_standstill_is_shown_and_refuses_nobody() -> None:
    place = Place()
    place.submit(0.0, want("a"), want("b"), want("c"))
    for second in range(1, 20):
        place.say(float(second), ev.Heard(S1), ev.Tick())
    place.submit(20.0, queued := replace(want("d", arrived_at=20.0), deadline_s=5.0))
    shown = show(place.policy, 20.0)
    assert sum(one.requests for one in shown.waiting) == 2
    story = place.policy.dispatch.log.get(queued.ledger_id)
    assert story is not None
    assert explain(place.policy, story, 20.0).predicted_wait_ms == 0
