"""Anthropic's requests: what engines get for them, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.asked import Asked
from forebay_gateway.canonical.file_parts import file_parts
from forebay_gateway.canonical.forms import CHAT
from forebay_gateway.dialects.anthropic.answer import MessagesTranslation
from forebay_gateway.dialects.anthropic.request import parse_messages
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.refused import BadField

HELLO = [{"role": "user", "content": "hello"}]
PIXEL = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}
PIXEL_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}
PDF_SOURCE = {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
WEATHER = {"name": "weather", "description": "Of a town.", "input_schema": {"type": "object", "properties": {}}}


def asked(**body: Any) -> Asked:
    return parse_messages(orjson.dumps({"model": "m", "max_tokens": 100, "messages": HELLO, **body}))


def messages_of(*messages: dict[str, Any], **body: Any) -> list[dict[str, Any]]:
    messages_sent: list[dict[str, Any]] = asked(messages=list(messages), **body).fields["messages"]
    return messages_sent


def refused(**body: Any) -> BadField:
    """At once, or where no engine is Anthropic's."""
    try:
        made = asked(**body)
    except BadField as error:
        return error
    assert made.untranslated is not None
    return made.untranslated


def test_a_plain_request_becomes_a_chat_request_of_one_answer() -> None:
    made = asked(stream=True)
    made.native = {}  # of which test_anthropic_native.py tells
    assert made == Asked(
        form=CHAT,
        model="m",
        stream=True,
        width=1,
        choices=1,
        samples=1,
        max_output_tokens=100,
        include_usage=True,
        fields={"model": "m", "messages": HELLO, "max_tokens": 100, "stream": True},
        raw=b"",
        translation=MessagesTranslation("m"),
        continues=True,
    )


def test_the_system_prompt_is_one_message_and_first() -> None:
    assert messages_of(*HELLO, system="Be brief.") == [{"role": "system", "content": "Be brief."}, *HELLO]
    blocks = [
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Be kind."},
    ]
    assert messages_of(*HELLO, system=blocks)[0] == {"role": "system", "content": "Be brief.\n\nBe kind."}
    assert messages_of(*HELLO, system="") == messages_of(*HELLO, system=[]) == messages_of(*HELLO, system=None) == HELLO


def test_system_messages_of_the_conversation_join_the_system_prompt() -> None:
    late = {"role": "system", "content": [{"type": "text", "text": "Hurry."}]}
    assert messages_of(*HELLO, late, system="Be brief.") == [
        {"role": "system", "content": "Be brief.\n\nHurry."},
        *HELLO,
    ]


def test_the_line_for_anthropics_accounts_is_left_out_since_it_differs_each_time() -> None:
    line = "x-anthropic-billing-header: cc_version=2.1; cch=eb6c6;"
    for system in ([{"type": "text", "text": line}, {"type": "text", "text": "Be brief."}], f"{line}\nBe brief."):
        assert messages_of(*HELLO, system=system)[0] == {"role": "system", "content": "Be brief."}
    assert messages_of(*HELLO, system=line) == HELLO


def test_a_message_of_one_text_is_a_string_and_any_other_a_list_of_parts() -> None:
    one, other = {"type": "text", "text": "What is"}, {"type": "text", "text": "this?"}
    assert messages_of({"role": "user", "content": [one]}) == [{"role": "user", "content": "What is"}]
    by_url = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    assert messages_of({"role": "user", "content": [one, PIXEL, by_url, other]})[0]["content"] == [
        one,
        PIXEL_PART,
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        other,
    ]


def test_documents_are_read_when_they_are_text() -> None:
    text = {"type": "document", "title": "Log", "source": {"type": "text", "media_type": "text/plain", "data": "a\nb"}}
    assert messages_of({"role": "user", "content": [text]})[0]["content"] == "Log\n\na\nb"
    inner = [{"type": "text", "text": "c"}, PIXEL]
    pieces = {"type": "document", "context": "Old.", "source": {"type": "content", "content": inner}}
    assert messages_of({"role": "user", "content": [pieces]})[0]["content"] == [
        {"type": "text", "text": "Old."},
        {"type": "text", "text": "c"},
        PIXEL_PART,
    ]


def test_other_documents_become_files_which_know_the_clients_own_words_for_them() -> None:
    pdf = {"type": "document", "title": "Log", "context": "Old.", "source": PDF_SOURCE}
    linked = {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": [linked]}
    fields = asked(messages=[{"role": "user", "content": [result, pdf]}]).fields
    told, said = fields["messages"]
    assert told == {"role": "tool", "tool_call_id": "1", "content": ""}
    assert said["content"] == [
        {"type": "file", "file": {"file_url": "https://example.org/a.pdf"}},
        {"type": "text", "text": "Old."},
        {"type": "file", "file": {"filename": "Log", "file_data": "data:application/pdf;base64,JVBE"}},
    ]
    assert [part.param(part.source()[0]) for part in file_parts(fields)] == [
        "messages[0].content[0].content[0].source.url",
        "messages[0].content[1].source.data",
    ]


def test_what_only_anthropic_understands_is_left_out_for_the_others_who_are_not_asked() -> None:
    found = {"type": "search_result", "source": "a", "title": "A", "content": [{"type": "text", "text": "x"}]}
    kept = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
    use = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    history = [
        {"role": "user", "content": [found, {"type": "text", "text": "Hello."}, kept]},
        {"role": "assistant", "content": [use, {"type": "text", "text": "Yes?"}]},
        *HELLO,
    ]
    made = asked(messages=history, tools=[SEARCH], tool_choice={"type": "any"}, thinking={"type": "deep"})
    assert made.untranslated is not None
    assert made.untranslated.param == "messages[0].content[0].type"
    said = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes?"}, *HELLO]
    assert made.fields == {"model": "m", "messages": said, "max_tokens": 100}
    assert [kind for kind in EngineKind if made.suits(kind)] == [EngineKind.ANTHROPIC]
    made.untranslated = None
    assert all(made.suits(kind) for kind in EngineKind)


def test_what_is_wrong_for_everybody_is_refused_at_once_beside_what_only_anthropic_understands() -> None:
    for wrong in ({"tools": [SEARCH, {"name": "x"}]}, {"tools": [SEARCH], "temperature": "hot"}):
        with pytest.raises(BadField):
            asked(**wrong)


def test_what_an_assistant_said_thought_and_called_is_one_message() -> None:
    blocks = [
        {"type": "thinking", "thinking": "Which town?", "signature": ""},
        {"type": "redacted_thinking", "data": "xxxx"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"town": "Köln"}},
        {"type": "tool_use", "id": "toolu_2", "name": "clock", "input": {}},
    ]
    assert messages_of(*HELLO, {"role": "assistant", "content": blocks})[1] == {
        "role": "assistant",
        "content": "I look.",
        "reasoning_content": "Which town?",
        "tool_calls": [
            {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"town":"Köln"}'}},
            {"id": "toolu_2", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
        ],
    }


def test_an_assistant_that_only_called_said_nothing_and_one_that_said_nothing_said_an_empty_text() -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "clock", "input": {}}
    assert messages_of(*HELLO, {"role": "assistant", "content": [call]})[1]["content"] is None
    assert messages_of(*HELLO, {"role": "assistant", "content": []})[1]["content"] == ""


def test_results_of_tools_come_first_then_their_images_then_what_the_person_says() -> None:
    content = [
        {"type": "tool_result", "tool_use_id": "1", "content": "18 °C"},
        {"type": "tool_result", "tool_use_id": "2", "content": [{"type": "text", "text": "seen"}, PIXEL]},
        {"type": "tool_result", "tool_use_id": "3", "content": "no such file", "is_error": True},
        {"type": "tool_result", "tool_use_id": "4"},
        {"type": "text", "text": "And now?"},
    ]
    assert messages_of({"role": "user", "content": content}) == [
        {"role": "tool", "tool_call_id": "1", "content": "18 °C"},
        {"role": "tool", "tool_call_id": "2", "content": "seen"},
        {"role": "tool", "tool_call_id": "3", "content": "Error: no such file"},
        {"role": "tool", "tool_call_id": "4", "content": ""},
        {"role": "user", "content": [PIXEL_PART, {"type": "text", "text": "And now?"}]},
    ]


def test_results_alone_need_no_word_of_the_person() -> None:
    results = [{"type": "tool_result", "tool_use_id": "1", "content": "18 °C"}]
    assert [message["role"] for message in messages_of({"role": "user", "content": results})] == ["tool"]


def test_tools_become_functions() -> None:
    named = {**WEATHER, "type": "custom", "cache_control": {"type": "ephemeral"}}
    assert asked(tools=[WEATHER, named]).fields["tools"] == 2 * [
        {
            "type": "function",
            "function": {"name": "weather", "description": "Of a town.", "parameters": WEATHER["input_schema"]},
        }
    ]


def test_no_tools_are_no_tools_and_then_nothing_is_chosen() -> None:
    for choice in (None, {"type": "auto"}, {"type": "none"}):
        fields = asked(tools=[], tool_choice=choice).fields
        assert fields.keys().isdisjoint({"tools", "tool_choice", "parallel_tool_calls"})
    assert refused(tools=[], tool_choice={"type": "any"}).param == "tool_choice"


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "weather"}, {"tool_choice": {"type": "function", "function": {"name": "weather"}}}),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
    ],
)
def test_a_choice_of_tools_is_put_in_engines_words(choice: dict[str, Any], sent: dict[str, Any]) -> None:
    fields = asked(tools=[WEATHER], tool_choice=choice).fields
    assert {name: fields[name] for name in ("tool_choice", "parallel_tool_calls") if name in fields} == sent


def test_tools_that_a_server_would_run_are_refused_rather_than_forgotten() -> None:
    for body, param in (
        ({"tools": [WEATHER, {"type": "web_search_20250305", "name": "web_search"}]}, "tools[1].type"),
        ({"mcp_servers": [{"type": "url", "url": "https://example.org", "name": "x"}]}, "mcp_servers"),
    ):
        error = refused(**body)
        assert error.param == param
        assert "runs no server tools" in error.message


def test_sampling_stops_and_user_travel_under_the_names_that_engines_know() -> None:
    fields = asked(
        temperature=0.5, top_p=0.9, top_k=40, stop_sequences=["END"], metadata={"user_id": "u-1"}, seed=7
    ).fields
    assert fields == {
        "model": "m",
        "messages": HELLO,
        "max_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "stop": ["END"],
        "user": "u-1",
        "seed": 7,
    }
    assert "stop" not in asked(stop_sequences=[]).fields


def test_what_only_anthropic_understands_or_what_would_make_several_answers_stays_here() -> None:
    ignored = ("cache_control", "service_tier", "anthropic_beta", "betas", "container", "context_management")
    others = ("n", "best_of", "stream_options", "max_completion_tokens")
    assert asked(**{name: ["x"] for name in (*ignored, *others)}).fields == asked().fields


@pytest.mark.parametrize(
    ("body", "effort", "thinks"),
    [
        ({}, None, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low", True),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, "medium", True),
        ({"thinking": {"type": "enabled", "budget_tokens": 16384}}, "high", True),
        ({"thinking": {"type": "enabled"}}, None, True),
        ({"thinking": {"type": "adaptive"}}, None, True),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, "high", True),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}, "output_config": {"effort": "high"}}, "high", True),
        ({"thinking": {"type": "disabled"}}, None, False),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, None, False),
        ({"output_config": {"effort": "medium"}}, "medium", None),
    ],
)
def test_thinking_is_asked_for_in_all_the_ways_that_engines_know(
    body: dict[str, Any], effort: str | None, thinks: bool | None
) -> None:
    fields = asked(**body).fields
    assert fields.get("reasoning_effort") == effort
    assert fields.get("chat_template_kwargs") == (None if thinks is None else {"enable_thinking": thinks})


def test_what_the_client_says_to_the_chat_template_itself_is_kept() -> None:
    fields = asked(thinking={"type": "adaptive"}, chat_template_kwargs={"tone": "dry"}).fields
    assert fields["chat_template_kwargs"] == {"tone": "dry", "enable_thinking": True}


def test_a_schema_for_the_answer_becomes_a_response_format() -> None:
    schema = {"type": "object", "properties": {"town": {"type": "string"}}}
    older = asked(output_format={"type": "json_schema", "schema": schema}).fields
    assert "output_format" not in older
    assert older["response_format"]["json_schema"]["schema"] == schema
    assert asked(output_config={"format": {"type": "json_schema", "schema": schema}}).fields["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema},
    }


def in_content(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(blocks)}]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": None}, "model"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"content": "hello"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "hello"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [*HELLO, {"role": "assistant", "content": None}]}, "messages[1].content"),
        (in_content("hello"), "messages[0].content[0]"),
        (in_content({"text": "hello"}), "messages[0].content[0].type"),
        (in_content({"type": "text"}), "messages[0].content[0].text"),
        (in_content({"type": "search_result"}), "messages[0].content[0].type"),
        (in_content({"type": "image"}), "messages[0].content[0].source"),
        (in_content({"type": "image", "source": {"type": "file"}}), "messages[0].content[0].source.type"),
        (in_content({"type": "image", "source": {"type": "base64"}}), "messages[0].content[0].source.media_type"),
        (in_content({"type": "tool_result"}), "messages[0].content[0].tool_use_id"),
        (
            in_content({"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": 1}]}),
            "messages[0].content[0].content[0].text",
        ),
        (
            in_content({"type": "tool_result", "tool_use_id": "1", "is_error": "yes"}),
            "messages[0].content[0].is_error",
        ),
        (in_content({"type": "image"}, role="assistant"), "messages[0].content[0].type"),
        (
            in_content({"type": "tool_use", "id": "1", "name": "x", "input": "{}"}, role="assistant"),
            "messages[0].content[0].input",
        ),
        ({"system": 7}, "system"),
        ({"system": [PIXEL]}, "system[0].type"),
        ({"tools": {}}, "tools"),
        ({"tools": [7]}, "tools[0]"),
        ({"tools": [{"name": "x"}]}, "tools[0].input_schema"),
        ({"tools": [{**WEATHER, "description": 7}]}, "tools[0].description"),
        ({"tools": [WEATHER], "tool_choice": "auto"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stop_sequences": [7]}, "stop_sequences"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_k": True}, "top_k"),
        ({"metadata": "u-1"}, "metadata"),
        ({"metadata": {"user_id": 7}}, "metadata.user_id"),
        ({"thinking": True}, "thinking"),
        ({"thinking": {"type": "deep"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": "x"}}, "thinking.budget_tokens"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
        ({"output_format": {"type": "xml"}}, "output_format.type"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ],
)
def test_every_complaint_names_the_place(body: dict[str, Any], param: str) -> None:
    error = refused(**body)
    assert error.param == param
    assert f"`{param}`" in error.message


def test_input_that_cannot_be_written_again_is_refused() -> None:
    deep = b'{"a":' * 400 + b"1" + b"}" * 400
    call = b'{"type":"tool_use","id":"1","name":"x","input":' + deep + b"}"
    with pytest.raises(BadField, match="nested too deeply"):
        parse_messages(b'{"model":"m","max_tokens":1,"messages":[{"role":"assistant","content":[' + call + b"]}]}")


KEYS = st.sampled_from(["type", "role", "content", "text", "source", "url", "id", "name", "input", "effort", "format"])
WORDS = st.sampled_from(
    ["user", "assistant", "text", "image", "tool_use", "tool_result", "base64", "auto", "enabled", "x"]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 1 << 33) | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
TEXT = {"type": "text", "text": "x"}
SAID = st.sampled_from(
    [
        TEXT,
        PIXEL,
        {"type": "image", "source": {"type": "url", "url": "http://x"}},
        {"type": "document", "title": "t", "source": {"type": "text", "data": "x"}},
        {"type": "document", "title": "t", "source": PDF_SOURCE},
        {"type": "document", "source": {"type": "content", "content": [TEXT, PIXEL]}},
        {"type": "tool_result", "tool_use_id": "1", "content": [TEXT, PIXEL], "is_error": True},
        {"type": "tool_result", "tool_use_id": "1", "content": "x"},
    ]
)
ANSWERED = st.sampled_from(
    [
        TEXT,
        {"type": "thinking", "thinking": "x", "signature": ""},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "tool_use", "id": "1", "name": "x", "input": {"a": [1]}},
    ]
)
MESSAGES = st.one_of(
    st.fixed_dictionaries({"role": st.just("user"), "content": WORDS | st.lists(SAID, max_size=4)}),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": WORDS | st.lists(ANSWERED, max_size=4)}),
    st.fixed_dictionaries({"role": st.just("system"), "content": WORDS | st.just([TEXT])}),
)
RIGHT_BODIES = st.fixed_dictionaries(
    {"model": st.just("m"), "max_tokens": st.just(9), "messages": st.lists(MESSAGES, min_size=1, max_size=4)},
    optional={
        "system": st.sampled_from(["x", [TEXT, TEXT]]),
        "tools": st.sampled_from([[], [WEATHER]]),
        "tool_choice": st.sampled_from([{"type": "auto", "disable_parallel_tool_use": True}, {"type": "none"}]),
        "thinking": st.sampled_from([{"type": "enabled", "budget_tokens": 5000}, {"type": "disabled"}]),
        "output_config": st.just({"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}}),
        "metadata": st.just({"user_id": "u"}),
        "stop_sequences": st.just(["x"]),
        "temperature": st.just(0.5),
        "chat_template_kwargs": ANYTHING,
        "stream_options": ANYTHING,
        "seed": ANYTHING,
    },
)


@st.composite
def bodies(draw: st.DrawFn) -> Any:
    """Right ones, and most of them with anything at all in one place."""
    body = orjson.loads(orjson.dumps(draw(RIGHT_BODIES)))  # a copy that may be changed
    owner: Any = None
    key: Any = None
    inner: Any = body
    while isinstance(inner, dict | list) and inner and draw(st.integers(0, 9)):
        owner = inner
        key = draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        inner = owner[key]
    if owner is not None and draw(st.integers(0, 3)):
        owner[key] = draw(ANYTHING)
    return body


@given(bodies() | ANYTHING)
def test_whatever_comes_is_understood_or_refused(body: Any) -> None:
    try:
        got = parse_messages(orjson.dumps(body))
    except BadField:
        return
    assert all(isinstance(message["role"], str) for message in got.fields["messages"])
    got.form.prefix_hashes("m", "tenant", got.fields)
    assert orjson.loads(orjson.dumps(got.fields)) == got.fields


@given(RIGHT_BODIES)
def test_what_is_right_is_understood(body: Any) -> None:
    assert parse_messages(orjson.dumps(body)).fields["messages"]


@given(st.binary(max_size=60))
def test_whatever_bytes_come_are_refused(raw: bytes) -> None:
    with pytest.raises(BadField):
        parse_messages(raw)
