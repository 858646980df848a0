"""OpenAI's chat as Anthropic's messages: said in its words, and never so that its API would refuse it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.asked import Asked
from forebay_gateway.dialects.openai.chat import parse_chat
from forebay_gateway.dialects.openai.completion import parse_completion
from forebay_gateway.dialects.openai.embedding import parse_embedding
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.refused import BadField
from tests.fakes.provider_anthropic_checks import check_request

Json = dict[str, Any]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER: Json = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": CITY}}
CLOCK: Json = {"type": "function", "function": {"name": "clock"}}
OLDER, NEWER = "claude-sonnet-4-5-20250929", "claude-opus-5"


def asked(*messages: Json, model: str = NEWER, **fields: Any) -> Asked:
    said = messages or ({"role": "user", "content": "Hello."},)
    return parse_chat(json.dumps({"model": model, "messages": said, **fields}).encode())


def told(*messages: Json, streamed: bool = False, **fields: Any) -> Any:
    speech = asked(*messages, **fields).speech(EngineKind.ANTHROPIC)
    assert (speech.path, speech.streamed_path) == ("/v1/messages", "/v1/messages")
    body = json.loads(speech.body(streamed=streamed, ask_usage=True))  # type: ignore[arg-type]
    check_request(body)
    return body


def refused(*messages: Json, **fields: Any) -> BadField:
    with pytest.raises(BadField) as raised:
        told(*messages, **fields)
    return raised.value


def call(name: str, id: str, arguments: str = "{}") -> Json:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def text(said: str) -> Json:
    return {"type": "text", "text": said}


def test_a_question_goes_with_a_limit_that_anthropic_wants_and_the_client_did_not_set() -> None:
    assert told() == {
        "model": NEWER,
        "messages": [{"role": "user", "content": [text("Hello.")]}],
        "max_tokens": 4096,
    }
    assert told(streamed=True, max_completion_tokens=7, max_tokens=9)["max_tokens"] == 7
    assert told(streamed=True)["stream"] is True


def test_what_is_called_the_same_goes_on_and_what_only_openai_knows_is_left_out() -> None:
    body = told(
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop="END",
        user="alice",
        store=True,
        stream_options={},
        service_tier="auto",
    )
    assert {name: body[name] for name in body if name not in ("model", "messages", "max_tokens")} == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "alice"},
    }


def test_system_messages_are_one_text_beside_the_turns_and_turns_of_one_role_are_one() -> None:
    body = told(
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One"},
        {"role": "user", "content": [{"type": "text", "text": "two"}, {"type": "text", "text": ""}]},
        {"role": "developer", "content": "Be kind."},
        {"role": "assistant", "content": "Three", "reasoning_content": "unsigned"},
        {"role": "user", "content": "Four"},
    )
    assert body["system"] == "Be brief.\n\nBe kind."
    assert body["messages"] == [
        {"role": "user", "content": [text("One"), text("two")]},
        {"role": "assistant", "content": [text("Three")]},
        {"role": "user", "content": [text("Four")]},
    ]


def test_a_chat_without_a_users_turn_gets_one_and_one_that_is_to_be_gone_on_with_ends_without_blanks() -> None:
    assert told({"role": "system", "content": "Say hello."})["messages"][0]["content"] == [text("Say hello.")]
    turns = told({"role": "assistant", "content": "Once upon "}, {"role": "assistant", "content": "a time \n"})[
        "messages"
    ]
    assert [turn["role"] for turn in turns] == ["user", "assistant"]
    assert turns[1]["content"][-1] == text("a time")
    assert refused({"role": "user", "content": ""}).param == "messages"


def test_calls_and_what_came_of_them_are_blocks_and_results_come_first() -> None:
    body = told(
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [call("weather", "call_1", '{"city": "Rome"}'), call("clock", "a.b", "no json")],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "a.b", "content": ""},
        {"role": "user", "content": "And?"},
        tools=[WEATHER, CLOCK],
    )
    assert body["messages"][1]["content"] == [
        text("Let me look."),
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}},
        {"type": "tool_use", "id": "a_b", "name": "clock", "input": {"arguments": "no json"}},
    ]
    assert body["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "call_1", "content": [text("sunny")]},
        {"type": "tool_result", "tool_use_id": "a_b"},
        text("And?"),
    ]


def test_a_conversation_with_calls_has_their_tools_even_if_the_client_sends_none_any_more() -> None:
    body = told(
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "tool_calls": [call("weather", "call_1")]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    )
    assert body["tools"] == [{"name": "weather", "input_schema": {"type": "object"}}]
    assert body["tool_choice"] == {"type": "none"}


def test_pictures_and_documents_are_told_by_their_bytes() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "data:image/png;charset=x;base64,AAAA", "detail": "low"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,BBBB"}},
    ]
    picture, document = told({"role": "user", "content": parts})["messages"][0]["content"]
    assert picture == {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    assert document["type"] == "document"
    far = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    assert refused({"role": "user", "content": far}).param == "messages[0].content[0].image_url"
    sound = [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]
    assert refused({"role": "user", "content": sound}).param == "messages[0].content[0]"


def test_tools_and_which_of_them_may_be_called() -> None:
    body = told(tools=[WEATHER, CLOCK], tool_choice="auto")
    assert body["tools"] == [
        {"name": "weather", "description": "The weather.", "input_schema": CITY},
        {"name": "clock", "input_schema": {"type": "object"}},
    ]
    assert "tool_choice" not in body
    named = {"type": "function", "function": {"name": "clock"}}
    for choice, said in (
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        (named, {"type": "tool", "name": "clock"}),
    ):
        assert told(tools=[CLOCK], tool_choice=choice)["tool_choice"] == said
    assert told(tools=[CLOCK], parallel_tool_calls=False)["tool_choice"] == {
        "type": "auto",
        "disable_parallel_tool_use": True,
    }
    assert told(tools=[CLOCK], tool_choice="none", parallel_tool_calls=False)["tool_choice"] == {"type": "none"}
    assert refused(tools=[{"type": "custom", "custom": {"name": "x"}}]).param == "tools[0]"
    assert refused(tools=[CLOCK], tool_choice="whatever").param == "tool_choice"


def test_a_schema_is_closed_on_the_way_and_any_object_is_asked_for_in_words() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "object", "properties": {}}}}}
    body = told(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    sent = body["output_config"]["format"]["schema"]
    assert sent["additionalProperties"] is False
    assert sent["properties"]["a"]["items"]["additionalProperties"] is False
    assert "JSON object" in told(response_format={"type": "json_object"})["system"]
    assert "output_config" not in told(response_format={"type": "text"})
    assert refused(response_format={"type": "json_schema"}).param == "response_format"
    deep: Json = {"type": "object"}
    for _ in range(300):
        deep = {"type": "object", "properties": {"a": deep}}
    refused(response_format={"type": "json_schema", "json_schema": {"schema": deep}})


def test_newer_models_are_told_an_effort_and_older_ones_a_budget_within_the_limit() -> None:
    body = told(reasoning_effort="high", temperature=0, max_tokens=50)
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert (body["output_config"], body["max_tokens"], "temperature" in body) == ({"effort": "high"}, 50, False)
    assert told(reasoning_effort="none")["thinking"] == {"type": "disabled"}
    assert told(chat_template_kwargs={"enable_thinking": False})["thinking"] == {"type": "disabled"}
    body = told(model=OLDER, reasoning_effort="high")
    assert (body["thinking"]["budget_tokens"], body["max_tokens"]) == (16384, 16384 + 4096)
    body = told(model=OLDER, chat_template_kwargs={"enable_thinking": True}, max_tokens=3000)
    assert (body["thinking"]["budget_tokens"], body["max_tokens"]) == (1500, 3000)
    assert "thinking" not in told(model=OLDER, reasoning_effort="low", max_tokens=1000)
    assert refused(reasoning_effort="much").param == "reasoning_effort"


@pytest.mark.parametrize(
    "model", ["claude-3-7-sonnet-latest", "claude-opus-4-20250514", "claude-opus-4-1", "claude-haiku-4-5"]
)
def test_the_older_models_are_known_by_name(model: str) -> None:
    assert told(model=model, reasoning_effort="low")["thinking"]["type"] == "enabled"
    for newer in ("claude-opus-4-6", "claude-sonnet-5", "claude-fable-5-20270101"):
        assert told(model=newer, reasoning_effort="low")["thinking"]["type"] == "adaptive"


def test_a_model_that_must_call_or_goes_on_after_a_call_does_not_think() -> None:
    assert "thinking" not in told(tools=[CLOCK], tool_choice="required", reasoning_effort="high")
    history = (
        {"role": "user", "content": "Time?"},
        {"role": "assistant", "tool_calls": [call("clock", "c1")]},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
    )
    assert "thinking" not in told(*history, tools=[CLOCK], reasoning_effort="high")
    later = ({"role": "assistant", "content": "Noon."}, {"role": "user", "content": "Thanks."})
    assert "thinking" in told(*history, *later, tools=[CLOCK], reasoning_effort="high")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("seed", 0),
        ("logprobs", True),
        ("top_logprobs", 2),
        ("logit_bias", {"1": 2}),
        ("frequency_penalty", 0.1),
    ],
)
def test_what_would_make_another_answer_and_cannot_be_said_is_refused_by_name(name: str, value: Any) -> None:
    assert refused(**{name: value}).param == name


def test_what_means_nothing_is_not_refused() -> None:
    told(n=1, logprobs=False, top_logprobs=0, frequency_penalty=0, presence_penalty=0.0, logit_bias={}, seed=None)


def test_what_is_no_chat_is_refused_before_anything_is_sent() -> None:
    for other in (
        parse_embedding(b'{"model": "m", "input": "x"}'),
        parse_completion(b'{"model": "m", "prompt": "x"}'),
    ):
        with pytest.raises(BadField, match="Anthropic's, whose API has nothing like"):
            other.speech(EngineKind.ANTHROPIC).body(streamed=False, ask_usage=False)


_texts = st.sampled_from(["", " ", "a", "b \n"])
_calls = st.lists(st.sampled_from(["weather", "clock"]), max_size=2)


@st.composite
def _chats(draw: st.DrawFn) -> list[Json]:
    """Such as a client may have had: each call is answered directly."""
    messages: list[Json] = (
        [{"role": "user", "content": "x"}] if draw(st.booleans()) else [{"role": "system", "content": "s"}]
    )
    for turn in range(draw(st.integers(0, 5))):
        match draw(st.sampled_from(["user", "system", "assistant"])):
            case "assistant":
                names = draw(_calls)
                calls = [call(name, f"c{turn}-{n}") for n, name in enumerate(names)]
                messages.append(
                    {"role": "assistant", "content": draw(_texts), **({"tool_calls": calls} if calls else {})}
                )
                for each in calls:
                    messages.append({"role": "tool", "tool_call_id": each["id"], "content": draw(_texts)})
            case role:
                messages.append({"role": role, "content": draw(_texts)})
    return messages


@given(
    _chats(),
    st.sampled_from([None, "none", "low", "high"]),
    st.sampled_from([None, "auto", "none", "required"]),
    st.sampled_from([OLDER, NEWER]),
    st.sampled_from([None, 1, 2000]),
)
def test_whatever_the_chat_anthropic_would_take_it(
    messages: list[Json], effort: str | None, choice: str | None, model: str, limit: int | None
) -> None:
    fields: Json = {"reasoning_effort": effort, "tool_choice": choice, "max_tokens": limit, "tools": [WEATHER, CLOCK]}
    told(*messages, model=model, **fields)
