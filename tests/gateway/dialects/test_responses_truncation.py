"""What of a conversation goes when it is too long: the oldest, and never what it cannot do without."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.dialects.responses.truncation import shortened
from tests.gateway.dialects.test_responses_request import called, messages, output_of

Json = dict[str, Any]
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,aGk="}


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def said(text: str) -> Json:
    return {"role": "assistant", "content": text}


def texts(told: list[Json] | None) -> list[Any]:
    assert told is not None
    return [message["content"] for message in told]


CHAT = messages(*[of(f"{n:020}") for n in range(4) for of in (user, said)], user("last"), instructions="Be brief.")


def test_a_little_goes_at_first_and_then_more() -> None:
    assert texts(shortened(CHAT, 0))[0] == "Be brief."
    assert [len(texts(shortened(CHAT, tries))) for tries in range(4)] == [8, 6, 4, 2]
    assert texts(shortened(CHAT, 3)) == ["Be brief.", "last"]
    assert texts(shortened(CHAT, 0))[1] == f"{1:020}", "the oldest turn is gone, question and answer"


def test_there_is_an_end_to_it() -> None:
    assert shortened(CHAT, 4) is None
    assert shortened(messages(user("last"), instructions="Be brief."), 0) is None
    assert shortened(messages(said("a")), 0) is None


def test_calls_of_the_last_turn_go_with_their_outputs_but_for_the_last() -> None:
    told = messages(
        user("old"),
        said("answer"),
        user("last"),
        called("c1"),
        output_of("c1", [{"type": "input_text", "text": "one"}, IMAGE]),
        said("next"),
        called("c2"),
        called("c3"),
        output_of("c2", "two"),
        output_of("c3", "three"),
    )
    least = shortened(told, 3)
    assert least is not None
    assert [message["role"] for message in least] == ["user", "assistant", "tool", "tool"]
    assert least[0]["content"] == "last"
    assert [call["id"] for call in least[1]["tool_calls"]] == ["c2", "c3"]


TURNS = st.lists(
    st.sampled_from(
        [
            [user("q")],
            [said("a")],
            [called("c1"), output_of("c1", "x")],
            [called("c1"), called("c2"), output_of("c1", [IMAGE]), output_of("c2", "y")],
            [{"role": "developer", "content": "Be brief."}],
        ]
    ),
    min_size=1,
    max_size=12,
)


@given(TURNS, st.integers(0, 4))
def test_whatever_is_left_is_a_conversation(turns: list[list[Json]], tries: int) -> None:
    told = messages(*[item for turn in turns for item in turn])
    left = shortened(told, tries)
    if left is None:
        return
    assert len(left) < len(told)
    assert [message for message in left if message["role"] == "system"] == [
        message for message in told if message["role"] == "system"
    ]
    users = [message for message in told if message == user("q")]
    if users:
        assert user("q") in left
    assert left[-1] == told[-1]
    made: list[str] = []
    for message in left:
        made += [call["id"] for call in message.get("tool_calls", ())]
        if message["role"] == "tool":
            made.remove(message["tool_call_id"])
    assert not made, "each call has its output, and each output its call"
