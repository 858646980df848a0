"""What a conversation is called, which of its branches is read, how much of it there may be; which models are offered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from forebay.errors import BadInput, NotPossible
from forebay.wire.v1 import registry_pb2
from forebay_admin.chat.conversation import (
    LONGEST_TITLE,
    UNTITLED,
    ChatLimits,
    Held,
    Message,
    Role,
    demand_conversation_room,
    demand_message,
    demand_room,
    demand_text_room,
    read_branch,
    title_of,
)
from forebay_admin.chat.export import fenced, file_name
from forebay_admin.chat.models import offers
from forebay_admin.keys.key_terms import KeyTerms
from forebay_admin.keys.keys import Limits

T0 = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = ChatLimits(conversations=2, bytes=100, days=0)


def said(id: str, parent: str | None, second: int = 0) -> Message:
    return Message(id, parent, Role.USER, {"parts": []}, T0 + timedelta(seconds=second))


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello", "Hello"),
        ("  two\n lines\t", "two lines"),
        ("", UNTITLED),
        ("\x00\x07", UNTITLED),
        ("x" * 61, "x" * 59 + "…"),
        ("a word " * 20, "a word a word a word a word a word a word a word a word a…"),
    ],
)
def test_a_title_is_the_first_words_on_one_line(text: str, title: str) -> None:
    assert title_of(text) == title
    assert len(title) <= LONGEST_TITLE


def test_a_branch_is_read_from_its_root_and_the_newest_where_none_is_named() -> None:
    tree = [said("a", None), said("b1", "a", 1), said("b2", "a", 2), said("c1", "b1", 3)]
    assert [m.id for m in read_branch(tree)] == ["a", "b1", "c1"]
    assert [m.id for m in read_branch(tree, "b2")] == ["a", "b2"]
    assert [m.id for m in read_branch(tree, "b1")] == ["a", "b1", "c1"], "what was said since the branch was chosen"
    assert [m.id for m in read_branch(tree, "gone")] == ["a", "b1", "c1"]
    assert read_branch([]) == []
    assert [m.id for m in read_branch([said("a", "b"), said("b", "a")], "a")] == ["b", "a"]


def test_who_has_as_much_as_may_be_is_told_what_to_do() -> None:
    demand_room(Held(1, 90), LIMITS, more_conversations=1, more_bytes=10)
    with pytest.raises(NotPossible, match="chat_per_user"):
        demand_room(Held(2, 0), LIMITS, more_conversations=1)
    with pytest.raises(NotPossible, match="chat_bytes_per_user"):
        demand_room(Held(1, 95), LIMITS, more_bytes=6)
    demand_room(Held(5, 500), LIMITS, more_bytes=-3)
    with pytest.raises(NotPossible, match="messages"):
        demand_text_room(2000, 0, more_bytes=1, more_messages=1)
    with pytest.raises(NotPossible, match="16 MiB"):
        demand_text_room(1, 16 * 1024**2, more_bytes=1, more_messages=0)
    demand_text_room(1, 17 * 1024**2, more_bytes=-1, more_messages=0)
    with pytest.raises(NotPossible, match="128 MiB"):
        demand_conversation_room(128 * 1024**2, more_bytes=1)


def test_a_message_that_goes_too_deep_is_refused() -> None:
    deep: object = "x"
    for _ in range(40):
        deep = [deep]
    told = {"role": "assistant", "content": {"parts": [], "tool_calls": [deep]}}
    with pytest.raises(BadInput, match="deep"):
        demand_message("answer-1", told, T0)


def test_a_fence_is_longer_than_those_within() -> None:
    assert fenced("x") == "```\nx\n```"
    assert fenced("````\ny") == "`````\n````\ny\n`````"
    assert file_name("../é/x", "md") == "x.md"
    assert file_name("…", "json") == "conversation.json"


def test_models_are_offered_as_far_as_the_key_goes_and_those_that_are_well_first() -> None:
    model = registry_pb2.FleetModel
    fleet = [
        model(name="away", pools=["default"], capabilities=["completion"]),
        model(name="secret", pools=["default"], healthy_backends=1),
        model(name="night", pools=["night"], healthy_backends=1),
        model(name="eyes", pools=["default"], healthy_backends=1, capabilities=["multimodal", "completion"]),
        model(name="vectors", pools=["default"], healthy_backends=1, capabilities=["embedding"]),
    ]
    found = offers(fleet, Limits(terms=KeyTerms(denied_models=("sec*",))))
    assert [(offer.name, offer.is_well, offer.talks) for offer in found] == [
        ("eyes", True, True),
        ("vectors", True, False),
        ("away", False, True),
    ]
    assert found[0].capabilities == ("completion", "vision")
    assert [offer.name for offer in offers(fleet, Limits(pool="night"))] == ["night"]
    assert [offer.name for offer in offers(fleet, Limits(allowed_models=("ey*",)))] == ["eyes"]
