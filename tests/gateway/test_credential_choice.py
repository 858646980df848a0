"""Which credential a request is sent with, and how one that its provider refuses rests and comes back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.wire.v1 import admin_pb2
from forebay_gateway.credential import Credential, CredentialFault
from forebay_gateway.engines.credential_choice import (
    LONGEST_REST_S,
    Accepted,
    CredentialChoice,
    Faulted,
    NoneLeft,
    Use,
)
from forebay_gateway.engines.errors import Blame, EngineTrouble, judge
from forebay_gateway.refused import EngineRefused

REFUSED, FORBIDDEN, LIMITED = CredentialFault
OK = Accepted()


class Desk:
    """One backend, `b`, and a clock."""

    def __init__(self, *labels: str) -> None:
        self.held = [Credential(label, f"secret of {label}") for label in labels]
        self.choice = CredentialChoice(lambda backend: self.held if backend == "b" else [])
        self.now = 100.0

    def take(self, model: str = "m", tried: tuple[str, ...] = ()) -> Use:
        taken = self.choice.take("b", model, self.now, tried)
        assert isinstance(taken, Use), taken
        return taken

    def label(self, model: str = "m") -> str:
        """Of one that is taken and does well."""
        use = self.take(model)
        self.choice.settle(use, OK, self.now)
        return use.credential.label

    def fault(self, label: str, fault: CredentialFault, after_s: float | None = None, model: str = "m") -> None:
        others = tuple(c.label for c in self.held if c.label != label)
        self.choice.settle(self.take(model, others), Faulted(fault, after_s), self.now)

    def resting(self) -> dict[str, str]:
        return {label: str(fault) for _, label, fault in self.choice.resting(self.now)}


def test_the_good_ones_take_turns() -> None:
    desk = Desk("a", "b", "c")
    assert [desk.label() for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]


def test_one_that_is_refused_rests_a_minute_then_twice_as_long_and_never_more_than_an_hour() -> None:
    desk, rests = Desk("a", "b"), []
    for _ in range(9):
        desk.fault("a", REFUSED)
        began = desk.now
        while desk.resting():
            assert desk.label() == "b"
            desk.now += 30
        rests.append(desk.now - began)
    assert rests == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


def test_a_limit_rests_as_long_as_the_provider_says_or_from_five_seconds_up() -> None:
    desk = Desk("a", "b")
    desk.fault("a", LIMITED, 7.0)
    desk.now += 6.9
    assert desk.label() == "b"
    desk.now += 0.1
    assert desk.label() == "a"
    rests = []
    for _ in range(6):
        desk.fault("a", LIMITED)
        began = desk.now
        while desk.resting():
            desk.now += 5
        rests.append(desk.now - began)
    assert rests == [5, 10, 20, 40, 60, 60]


def test_one_request_tries_it_and_the_others_wait_for_what_that_one_hears() -> None:
    desk = Desk("a", "b")
    desk.fault("a", REFUSED)
    desk.now += 60
    desk.label()
    trial = desk.take(tried=("b",))
    assert [desk.label() for _ in range(3)] == ["b"] * 3
    assert desk.resting() == {"a": "refused"}
    desk.choice.settle(trial, None, desk.now)  # its engine died, or its client went: nobody knows
    again = desk.take(tried=("b",))
    desk.choice.settle(again, OK, desk.now + 1)
    desk.now += 1
    assert desk.resting() == {}
    assert {desk.label(), desk.label()} == {"a", "b"}


def test_a_success_begins_anew() -> None:
    desk = Desk("a", "b")
    for rest_s in (60, 60):
        desk.fault("a", REFUSED)
        desk.now += rest_s
        desk.choice.settle(desk.take(tried=("b",)), OK, desk.now)
        assert desk.resting() == {}
        desk.now += 1


def test_what_was_under_way_when_it_began_to_rest_makes_the_rest_no_longer() -> None:
    desk = Desk("a", "b")
    under_way = [desk.take(tried=("b",)) for _ in range(20)]
    desk.now += 1
    news = [desk.choice.settle(use, Faulted(REFUSED), desk.now) for use in under_way]
    assert news == [True] + [False] * 19
    desk.now += 60
    assert desk.resting() == {}


def test_an_answer_to_what_was_sent_before_does_not_end_a_rest() -> None:
    desk = Desk("a", "b")
    early = desk.take(tried=("b",))
    desk.now += 1
    desk.fault("a", REFUSED)
    desk.choice.settle(early, OK, desk.now)
    assert desk.resting() == {"a": "refused"}


def test_a_limit_of_one_model_leaves_the_credential_to_the_others_and_a_wrong_key_does_not() -> None:
    desk = Desk("a", "b")
    for fault in (LIMITED, FORBIDDEN):
        desk.fault("a", fault, model="large")
        assert {desk.label("large") for _ in range(4)} == {"b"}
        assert {desk.label("small") for _ in range(4)} == {"a", "b"}
        desk.now += 100
    desk.fault("a", REFUSED, model="large")
    assert {desk.label("small") for _ in range(4)} == {"b"}


def test_another_key_under_the_same_label_is_not_held_to_account() -> None:
    desk = Desk("a", "b")
    desk.fault("a", REFUSED)
    desk.held[0] = Credential("a", "a new one")
    assert {desk.label(), desk.label()} == {"a", "b"}
    assert desk.resting() == {}


def test_when_all_rest_the_soonest_limit_is_told_or_that_all_are_refused() -> None:
    desk = Desk("a", "b")
    desk.fault("a", REFUSED)
    desk.fault("b", LIMITED, 20)
    assert desk.choice.take("b", "m", desk.now) == NoneLeft(is_limit=True, retry_after_s=20)
    desk.now += 20
    desk.fault("b", REFUSED)
    desk.now += 10
    assert desk.choice.take("b", "m", desk.now) == NoneLeft(is_limit=False, retry_after_s=30)


def test_a_lone_one_is_never_held_back() -> None:
    desk = Desk("a")
    desk.fault("a", REFUSED)
    assert desk.resting() == {"a": "refused"}
    assert desk.label() == "a"
    assert isinstance(desk.choice.take("b", "m", desk.now, ("a",)), NoneLeft)


VERDICT = st.sampled_from([OK, None, Faulted(REFUSED), Faulted(FORBIDDEN), Faulted(LIMITED), Faulted(LIMITED, 30.0)])


@given(
    st.integers(2, 4),
    st.lists(st.tuples(st.sampled_from("mn"), VERDICT, st.floats(0, 100), st.booleans()), max_size=60),
)
def test_whatever_happens_none_that_rests_is_used_and_every_one_comes_back(
    number: int, steps: list[tuple[str, Accepted | Faulted | None, float, bool]]
) -> None:
    desk = Desk(*(f"key-{n}" for n in range(number)))
    rests: dict[tuple[str, str], float] = {}
    under_way: list[tuple[Use, Accepted | Faulted | None]] = []
    for model, verdict, passed_s, settles_now in steps:
        desk.now += passed_s
        taken = desk.choice.take("b", model, desk.now)
        if isinstance(taken, NoneLeft):
            assert SHORTEST <= taken.retry_after_s <= LONGEST_REST_S
            continue
        label = taken.credential.label
        for scope in (model, ""):
            assert rests.get((label, scope), 0.0) <= desk.now, "one that rests was used"
        under_way.append((taken, verdict))
        while under_way and settles_now:
            use, heard = under_way.pop(0)
            if desk.choice.settle(use, heard, desk.now):
                assert isinstance(heard, Faulted)
                scope = "" if heard.fault is REFUSED else use.model
                rests[use.credential.label, scope] = desk.now + 1.0  # at least
    for use, _ in under_way:
        desk.choice.settle(use, None, desk.now)
    desk.now += LONGEST_REST_S
    used = set()
    for _ in range(number):
        use = desk.take()
        used.add(use.credential.label)
        desk.choice.settle(use, OK, desk.now)
        desk.now += 1
    assert used == {c.label for c in desk.held}
    assert desk.choice.take("b", "m", desk.now) != NoneLeft(False, 1.0)


SHORTEST = 1.0


def body(**error: object) -> bytes:
    return json.dumps({"error": error}).encode()


@pytest.mark.parametrize(
    ("status", "told", "blame", "fault"),
    [
        (401, body(message="Incorrect API key provided", code="invalid_api_key"), Blame.FAILED, REFUSED),
        (401, json.dumps({"message": "invalid api token"}).encode(), Blame.FAILED, REFUSED),
        (402, body(message="Insufficient credits", code=402), Blame.FAILED, REFUSED),
        (429, body(message="You exceeded your current quota", code="insufficient_quota"), Blame.FAILED, REFUSED),
        (403, body(message="Project does not have access to model m"), Blame.FAILED, FORBIDDEN),
        (429, body(message="Rate limit reached"), Blame.BUSY, LIMITED),
        (529, body(message="Overloaded"), Blame.BUSY, None),
        (503, body(message="busy"), Blame.BUSY, None),
        (500, body(message="oops"), Blame.FAILED, None),
    ],
)
def test_what_providers_say_of_credentials(
    status: int, told: bytes, blame: Blame, fault: CredentialFault | None
) -> None:
    judged = judge(status, told, "9")
    assert isinstance(judged, EngineTrouble)
    assert (judged.blame, judged.fault) == (blame, fault)


def test_words_that_a_moderation_holds_back_are_the_clients_matter() -> None:
    flagged = body(message="Flagged", code=403, metadata={"reasons": ["violence"], "flagged_input": "…"})
    judged = judge(403, flagged, None)
    assert isinstance(judged, EngineRefused)
    assert (judged.status, judged.code) == (400, "content_filter")


def test_secrets_are_not_shown() -> None:
    use = Desk("a").take()
    assert "secret of" not in repr(use)
    assert admin_pb2.BackendCredential(backend_id="b", bearer="x").all == []
