"""OpenAI's requests in Cohere's words, held to what the fake takes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.engines.cohere_request import chat_body, embed_body, rerank_body
from forebay_gateway.refused import BadField
from tests.fakes.provider_cohere import check_chat

TOOL = {"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": {}}}
CLOCK = {"type": "function", "function": {"name": "clock"}}
PICTURE = "data:image/png;base64,aGk="


def body(*messages: Any, **fields: Any) -> dict[str, Any]:
    said = list(messages) or [{"role": "user", "content": "Hello."}]
    made = chat_body({"model": "m", "messages": said, **fields}, "command-a", streamed=False)
    check_chat(made)
    return made


def test_the_plainest_request() -> None:
    assert body() == {"model": "command-a", "messages": [{"role": "user", "content": "Hello."}], "stream": False}


def test_what_has_another_name_and_what_only_openai_serves() -> None:
    made = body(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        seed=7,
        stop=["a", "b"],
        max_completion_tokens=9,
        presence_penalty=0.1,
        user="alice",
        store=True,
        n=1,
        logprobs=False,
    )
    rest = {name: made[name] for name in made if name not in ("model", "messages", "stream")}
    assert rest == {
        "temperature": 0.5,
        "p": 0.9,
        "k": 40,
        "seed": 7,
        "stop_sequences": ["a", "b"],
        "max_tokens": 9,
        "presence_penalty": 0.1,
    }


@pytest.mark.parametrize(("asked", "sent"), [(1, 0.99), (1.0, 0.99), (0, 0.01), (0.5, 0.5)])
def test_a_top_p_that_leaves_nothing_out_is_the_most_that_cohere_takes(asked: float, sent: float) -> None:
    assert body(top_p=asked)["p"] == sent


def test_roles_and_parts() -> None:
    made = body(
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": PICTURE}}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "A dot."}]},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": ""},
    )
    assert made["messages"] == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": PICTURE}}],
        },
        {"role": "assistant", "content": "A dot."},
        {"role": "user", "content": "one\ntwo"},
    ]


def test_a_chat_of_a_system_message_alone_asks_by_it() -> None:
    assert body({"role": "system", "content": "Say hello."})["messages"] == [{"role": "user", "content": "Say hello."}]


def test_calls_with_their_plan_and_what_came_of_them() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    made = body(
        {"role": "user", "content": "Rome?"},
        {"role": "assistant", "content": None, "reasoning_content": "I will look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        tools=[TOOL],
    )
    assert made["messages"][1:] == [
        {
            "role": "assistant",
            "tool_plan": "I will look.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]


def test_tools_and_which_must_be_called() -> None:
    both = {"tools": [TOOL, CLOCK]}
    assert [tool["function"] for tool in body(**both)["tools"]] == [
        {"name": "weather", "description": "Of a city.", "parameters": {"type": "object"}},
        {"name": "clock", "parameters": {"type": "object", "properties": {}}},
    ]
    assert "tool_choice" not in body(**both, tool_choice="auto")
    assert body(**both, tool_choice="required")["tool_choice"] == "REQUIRED"
    assert body(**both, tool_choice="none")["tool_choice"] == "NONE"
    named = body(**both, tool_choice={"type": "function", "function": {"name": "clock"}})
    assert (named["tool_choice"], [t["function"]["name"] for t in named["tools"]]) == ("REQUIRED", ["clock"])
    strict = {"type": "function", "function": {"name": "clock", "strict": True}}
    assert body(tools=[strict])["strict_tools"] is True
    assert "strict_tools" not in body(tools=[strict, TOOL])


def test_json_and_thinking() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert body(response_format=wanted)["response_format"] == {"type": "json_object", "json_schema": schema}
    assert body(response_format={"type": "json_object"})["response_format"] == {"type": "json_object"}
    assert body(reasoning_effort="none")["thinking"] == {"type": "disabled"}
    assert body(reasoning_effort="low")["thinking"] == {"type": "enabled", "token_budget": 1024}
    assert body(chat_template_kwargs={"enable_thinking": True})["thinking"]["type"] == "enabled"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "no"}}}, "tool_choice"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "content": ""}]}, "messages"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "file", "file": {"file_data": "data:application/pdf;base64,aGk="}}],
                    }
                ]
            },
            "messages[0].content",
        ),
    ],
)
def test_what_cohere_cannot_do_is_refused_by_its_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadField) as error:
        chat_body({"messages": [{"role": "user", "content": "x"}], **fields}, "m", streamed=True)
    assert error.value.param == param


def test_texts_to_embed_and_documents_to_rank() -> None:
    assert embed_body({"input": "a", "dimensions": 256}, "e") == {
        "model": "e",
        "texts": ["a"],
        "input_type": "search_document",
        "embedding_types": ["float"],
        "output_dimension": 256,
    }
    assert embed_body({"input": ["a"], "input_type": "search_query"}, "e")["input_type"] == "search_query"
    for wrong in ({"input": [1, 2]}, {"input": ["x"] * 97}):
        with pytest.raises(BadField):
            embed_body(wrong, "e")
    asked = {"query": "q", "documents": ["a"], "top_n": 1, "user": "alice"}
    assert rerank_body(asked, "r") == {"model": "r", "query": "q", "documents": ["a"], "top_n": 1}


def _chats() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Chats as OpenAI takes them: whoever speaks, and whether or not a call has its result."""
    texts = st.text(max_size=8)
    part = st.builds(lambda text: {"type": "text", "text": text}, texts)
    picture = st.just({"type": "image_url", "image_url": {"url": PICTURE}})
    said = st.builds(
        lambda role, text: {"role": role, "content": text}, st.sampled_from(("system", "developer", "assistant")), texts
    )
    asked = st.builds(
        lambda content: {"role": "user", "content": content}, texts | st.lists(part | picture, min_size=1, max_size=3)
    )
    function = {"name": "weather", "arguments": "{}"}
    called = st.builds(
        lambda text, calls, result: [
            {
                "role": "assistant",
                "content": text,
                "tool_calls": [{"id": f"c{n}", "type": "function", "function": function} for n in range(calls)],
            },
            *({"role": "tool", "tool_call_id": f"c{n}", "content": result} for n in range(calls)),
        ],
        st.none() | texts,
        st.integers(1, 3),
        texts | st.lists(part, min_size=1, max_size=2),
    )
    turns = st.lists(st.one_of(said.map(lambda m: [m]), asked.map(lambda m: [m]), called), max_size=5)
    return turns.map(lambda told: [message for turn in told for message in turn])


@given(_chats(), st.sampled_from([None, "none", "low", "high"]), st.sampled_from([None, "auto", "required", "none"]))
def test_whatever_the_chat_cohere_would_take_it(
    messages: list[dict[str, Any]], effort: str | None, choice: str | None
) -> None:
    fields = {"reasoning_effort": effort, "tools": [TOOL, CLOCK], "tool_choice": choice}
    body({"role": "user", "content": "Begin."}, *messages, **fields)
