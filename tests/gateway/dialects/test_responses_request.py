"""A request for a response becomes a chat request that any engine understands, or a complaint that names the field."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.asked import Asked
from forebay_gateway.canonical.fields import parse_object
from forebay_gateway.canonical.forms import CHAT
from forebay_gateway.dialects.responses.answer import ResponseTranslation
from forebay_gateway.dialects.responses.keeping import Ground, wish_in
from forebay_gateway.dialects.responses.other_calls import KINDS
from forebay_gateway.dialects.responses.request import NEEDED_FIELDS, ask_for_response
from forebay_gateway.refused import BadField

Json = dict[str, Any]
IMAGE = "data:image/png;base64,aGk="
WEATHER: Json = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    "strict": False,
}
PATCH: Json = {"type": "custom", "name": "patch"}
TIME: Json = {"type": "function", "name": "time", "parameters": None, "strict": None}


def parse_response(raw: bytes) -> Asked:
    body = parse_object(raw, NEEDED_FIELDS)
    wish_in(body)
    return ask_for_response(body, Ground())


def parse(**fields: Any) -> Asked:
    body = {"model": "m", "input": "hi", **fields}
    return parse_response(orjson.dumps({name: value for name, value in body.items() if value is not ...}))


def fields(**asked: Any) -> Json:
    return dict(parse(**asked).fields)


def messages(*items: Json, **asked: Any) -> list[Json]:
    told: list[Json] = fields(input=list(items), **asked)["messages"]
    return told


def echo(**asked: Any) -> Json:
    translation = parse(**asked).translation
    assert translation is not None
    return translation.whole({"choices": []})


def complaint(**asked: Any) -> BadField:
    with pytest.raises(BadField) as caught:
        parse(**asked)
    return caught.value


def called(call_id: str, name: str = "weather", arguments: str = "{}") -> Json:
    return {"type": "function_call", "id": "fc_1", "call_id": call_id, "name": name, "arguments": arguments}


def output_of(call_id: str, output: Any) -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def tool_call(call_id: str, name: str = "weather", arguments: str = "{}") -> Json:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


# --- the request as a whole -----------------------------------------------------------------------------------------


def test_a_text_is_a_message_of_the_user() -> None:
    asked = parse(input="Hello")
    assert asked.fields == {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    assert (asked.form, asked.model, asked.stream, asked.raw) == (CHAT, "m", False, b"")
    assert (asked.width, asked.choices, asked.samples, asked.max_output_tokens) == (1, 1, 1, 0)
    assert asked.include_usage
    assert isinstance(asked.translation, ResponseTranslation)


def test_the_usual_settings_get_chats_names() -> None:
    asked = parse(max_output_tokens=100, temperature=0, top_p=0.5, seed=-3, safety_identifier="u1", stream=True)
    assert asked.stream
    assert asked.max_output_tokens == 100
    assert {name: value for name, value in asked.fields.items() if name not in ("model", "messages")} == {
        "max_tokens": 100,
        "temperature": 0,
        "top_p": 0.5,
        "seed": -3,
        "user": "u1",
    }


def test_what_engines_do_not_know_stays_here() -> None:
    asked = fields(
        store=True,
        truncation="auto",
        metadata={"a": "b"},
        include=["reasoning.encrypted_content"],
        service_tier="auto",
        prompt_cache_key="k",
        text={"verbosity": "low"},
        stream_options={"include_obfuscation": True},
        reasoning={"summary": "auto"},
    )
    assert asked.keys() == {"model", "messages"}


def test_nulls_are_like_fields_that_are_not_there() -> None:
    names = "instructions max_output_tokens temperature top_p tools tool_choice parallel_tool_calls text reasoning user"
    more = "include metadata store stream stream_options truncation previous_response_id conversation prompt background"
    assert fields(**dict.fromkeys([*names.split(), *more.split()])) == fields()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 0}, {"logprobs": True, "top_logprobs": 0}),
        ({"top_logprobs": 0}, {}),
        ({"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"reasoning": {"effort": "none"}}, {"chat_template_kwargs": {"enable_thinking": False}}),
        ({"text": {"format": {"type": "text"}}}, {}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
        ({"user": "u", "safety_identifier": "s"}, {"user": "u"}),
    ],
)
def test_a_setting_is_translated(asked: Json, expected: Json) -> None:
    told = fields(**asked)
    assert {name: value for name, value in told.items() if name not in ("model", "messages")} == expected


def test_the_answer_repeats_what_was_asked() -> None:
    said = echo(
        instructions="Be brief.",
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=7,
        metadata={"a": "b"},
        tools=[WEATHER, {"type": "web_search"}],
        tool_choice="required",
        parallel_tool_calls=False,
        reasoning={"effort": "low"},
        text={"verbosity": "low"},
        store=True,
        truncation="auto",
        user="u",
    )
    assert said["store"] is False, "nothing is kept"
    assert said["truncation"] == "auto"
    assert said["tools"] == [WEATHER]
    assert said["text"] == {"verbosity": "low", "format": {"type": "text"}}
    assert said["reasoning"] == {"effort": "low", "summary": None}
    names = ("instructions", "temperature", "top_p", "max_output_tokens", "metadata", "tool_choice", "user")
    assert [said[name] for name in names] == ["Be brief.", 0.5, 0.9, 7, {"a": "b"}, "required", "u"]
    assert said["parallel_tool_calls"] is False
    assert said["previous_response_id"] is None


# --- the conversation -----------------------------------------------------------------------------------------------


def test_all_that_the_system_says_is_one_message_in_front() -> None:
    told = messages(
        {"role": "developer", "content": [{"type": "input_text", "text": "Second."}]},
        {"role": "user", "content": "hi"},
        {"type": "message", "role": "system", "content": "Third."},
        instructions="First.",
    )
    assert told == [
        {"role": "system", "content": "First.\n\nSecond.\n\nThird."},
        {"role": "user", "content": "hi"},
    ]


def test_parts_of_text_are_one_text_and_an_image_keeps_them_apart() -> None:
    text = {"type": "input_text", "text": "a"}
    image = {"type": "input_image", "image_url": IMAGE, "detail": "low"}
    assert messages({"role": "user", "content": [text, {**text, "text": "b"}]}) == [{"role": "user", "content": "a\nb"}]
    assert messages({"role": "user", "content": [text, image]}) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}},
            ],
        }
    ]


def test_a_detail_that_chat_does_not_know_is_left_to_the_engine() -> None:
    image = {"type": "input_image", "image_url": IMAGE, "detail": "original", "file_id": None}
    (message,) = messages({"role": "user", "content": [image]})
    assert message["content"] == [{"type": "image_url", "image_url": {"url": IMAGE}}]


def test_files_are_parts_that_know_the_clients_own_place_for_them() -> None:
    file = {"type": "input_file", "file_id": "file-1", "filename": "a.txt", "file_data": None}
    image = {"type": "input_image", "file_id": "file-2", "detail": "high"}
    said, _, output, shown = messages({"role": "user", "content": [image]}, called("c"), output_of("c", [file]))
    assert said["content"] == [{"type": "image_url", "image_url": {"file_id": "file-2", "detail": "high"}}]
    assert output["content"] == ""
    assert shown["content"][1] == {"type": "file", "file": {"file_id": "file-1", "filename": "a.txt"}}
    assert [part.at for part in (said["content"][0], shown["content"][1])] == [
        "input[0].content[0].",
        "input[2].output[0].",
    ]


def test_what_the_assistant_said_is_text_refusals_too() -> None:
    said = [{"type": "output_text", "text": "a", "annotations": []}, {"type": "refusal", "refusal": "no"}]
    assert messages(
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": said}
    ) == [{"role": "assistant", "content": "ano"}]


def test_a_turn_with_calls_is_one_message_and_its_outputs_follow_it() -> None:
    told = messages(
        {"role": "user", "content": "hi"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"role": "assistant", "content": "Let me see."},
        called("c1"),
        called("c2", "time"),
        output_of("c1", "sunny"),
        output_of("c2", [{"type": "input_text", "text": "noon"}]),
        {"role": "assistant", "content": "Sunny at noon."},
    )
    assert told == [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning_content": "Hm.",
            "tool_calls": [tool_call("c1"), tool_call("c2", "time")],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "c2", "content": "noon"},
        {"role": "assistant", "content": "Sunny at noon."},
    ]


def test_calls_with_nothing_said_before_them_have_a_message_of_their_own() -> None:
    assert messages(called("c1"), output_of("c1", ""), called("c2")) == [
        {"role": "assistant", "content": None, "tool_calls": [tool_call("c1")]},
        {"role": "tool", "tool_call_id": "c1", "content": ""},
        {"role": "assistant", "content": None, "tool_calls": [tool_call("c2")]},
    ]


def test_what_is_said_and_thought_between_two_calls_stays_in_their_message() -> None:
    told = messages(
        called("c1"),
        {"role": "assistant", "content": "And then:"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        called("c2"),
        output_of("c1", "1"),
    )
    assert told[0] == {
        "role": "assistant",
        "content": "And then:",
        "reasoning_content": "Hm.",
        "tool_calls": [tool_call("c1"), tool_call("c2")],
    }


def test_two_messages_of_the_assistant_without_calls_stay_two() -> None:
    said = {"role": "assistant", "content": "a"}
    assert messages(said, said) == [said, said]


def test_reasoning_that_cannot_be_read_or_led_nowhere_is_dropped() -> None:
    told = messages(
        {"type": "reasoning", "summary": [], "content": None, "encrypted_content": "xyz"},
        {"role": "assistant", "content": "a"},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
    )
    assert told == [
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
    ]


def test_an_image_that_a_function_gave_is_shown_after_all_outputs() -> None:
    image = {"type": "input_image", "image_url": IMAGE}
    told = messages(
        called("c1"),
        called("c2"),
        output_of("c1", [{"type": "input_text", "text": "a picture"}, image]),
        output_of("c2", "done"),
        {"role": "user", "content": "go on"},
    )
    assert told[1:] == [
        {"role": "tool", "tool_call_id": "c1", "content": "a picture"},
        {"role": "tool", "tool_call_id": "c2", "content": "done"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Output of c1:"},
                {"type": "image_url", "image_url": {"url": IMAGE}},
            ],
        },
        {"role": "user", "content": "go on"},
    ]


def test_an_image_in_the_last_output_is_the_last_message() -> None:
    told = messages(called("c1"), output_of("c1", [{"type": "input_image", "image_url": IMAGE}]))
    assert [message["role"] for message in told] == ["assistant", "tool", "user"]


# --- tools ----------------------------------------------------------------------------------------------------------

CHAT_WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": WEATHER["parameters"],
        "strict": False,
    },
}
CHAT_TIME = {
    "type": "function",
    "function": {"name": "time", "description": "", "parameters": {"type": "object", "properties": {}}},
}


def test_functions_are_nested_and_other_tools_left_out() -> None:
    others = [{"type": "web_search"}, {"type": "local_shell"}, {"type": "mcp", "server_label": "x"}]
    told = fields(tools=[*others, WEATHER, TIME], parallel_tool_calls=False, tool_choice="auto")
    assert told["tools"] == [CHAT_WEATHER, CHAT_TIME]
    assert told["tool_choice"] == "auto"
    assert told["parallel_tool_calls"] is False


def test_where_no_function_is_left_the_engine_hears_of_no_tools() -> None:
    told = fields(tools=[{"type": "web_search"}], tool_choice="auto", parallel_tool_calls=True)
    assert told.keys() == {"model", "messages"}


@pytest.mark.parametrize(
    ("choice", "expected", "tools"),
    [
        ("none", "none", [CHAT_WEATHER, CHAT_TIME]),
        ("required", "required", [CHAT_WEATHER, CHAT_TIME]),
        (
            {"type": "function", "name": "time"},
            {"type": "function", "function": {"name": "time"}},
            [CHAT_WEATHER, CHAT_TIME],
        ),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "time"}]},
            "required",
            [CHAT_TIME],
        ),
    ],
)
def test_a_choice_among_tools_is_translated(choice: Any, expected: Any, tools: list[Json]) -> None:
    told = fields(tools=[WEATHER, TIME], tool_choice=choice)
    assert (told["tool_choice"], told["tools"]) == (expected, tools)


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        ("sometimes", "tool_choice"),
        (7, "tool_choice"),
        ({}, "tool_choice.type"),
        ({"type": "web_search"}, "tool_choice.type"),
        ({"type": "custom", "name": "weather"}, "tool_choice.name"),
        ({"type": "custom"}, "tool_choice.name"),
        ({"type": "function"}, "tool_choice.name"),
        ({"type": "function", "name": "patch"}, "tool_choice.name"),
        ({"type": "allowed_tools", "mode": "auto"}, "tool_choice.tools"),
        ({"type": "allowed_tools", "tools": []}, "tool_choice.mode"),
        ({"type": "allowed_tools", "mode": "required", "tools": []}, "tool_choice.mode"),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}]}, "tool_choice.tools[0].type"),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "x"}]},
            "tool_choice.tools[0].name",
        ),
    ],
)
def test_a_choice_that_cannot_be_kept_is_refused(choice: Any, param: str) -> None:
    tools = [WEATHER, {"type": "custom", "name": "patch"}, {"type": "web_search"}]
    assert complaint(tools=tools, tool_choice=choice).param == param


def test_a_call_cannot_be_demanded_where_there_is_no_function() -> None:
    assert complaint(tools=[{"type": "web_search"}], tool_choice="required").param == "tool_choice"


def test_a_sound_is_told_as_chat_does() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}
    assert messages({"role": "user", "content": [sound]}) == [{"role": "user", "content": [sound]}]


# --- complaints -----------------------------------------------------------------------------------------------------


def test_a_stored_prompt_is_refused_with_a_way_out() -> None:
    error = complaint(prompt={"id": "pmpt_1"})
    assert error.param == "prompt"
    assert "send the whole input" in error.message


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"model": ...}, "model"),
        ({"model": 7}, "model"),
        ({"input": ...}, "input"),
        ({"input": 7}, "input"),
        ({"input": []}, "input"),
        ({"input": [], "instructions": "Be brief."}, "input"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
        ({"input": ["hi"]}, "input[0]"),
        ({"input": [{}]}, "input[0].type"),
        ({"input": [{"type": 7}]}, "input[0].type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input"),
        ({"input": [{"type": "guess_call", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "custom_tool_call", "call_id": "c", "name": "patch"}]}, "input[0].input"),
        ({"input": [{"type": "custom_tool_call_output", "call_id": "c"}]}, "input[0].output"),
        ({"input": [{"type": "shell_call", "action": {}}]}, "input[0].id"),
        ({"input": [{"type": "shell_call_output", "call_id": "c", "output": ["x"]}]}, "input[0].output[0]"),
        ({"input": [{"type": "computer_call_output", "call_id": "c"}]}, "input[0].output"),
        ({"input": [{"type": "message", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": 7, "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": 7}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": ["x"]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "audio"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input[0].content[0].input_audio"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]}]},
            "input[0].content[0].input_audio.format",
        ),
        ({"tools": [{"type": "custom"}]}, "tools[0].name"),
        ({"tools": [{"type": "custom", "name": "p", "format": {"type": "grammar"}}]}, "tools[0].format.syntax"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0].file_id"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f", "file_url": "u"}]}]},
            "input[0].content[0].file_url",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": 7}]}]},
            "input[0].content[0].file_data",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f", "image_url": IMAGE}]}]},
            "input[0].content[0].file_id",
        ),
        (
            {"input": [{"role": "system", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "input[0].content",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].image_url"),
        (
            {"input": [{"role": "system", "content": [{"type": "input_image", "image_url": IMAGE}]}]},
            "input[0].content",
        ),
        ({"input": [{**called("c"), "call_id": None}]}, "input[0].call_id"),
        ({"input": [{**called("c"), "name": 7}]}, "input[0].name"),
        ({"input": [{**called("c"), "arguments": {}}]}, "input[0].arguments"),
        ({"input": [output_of("c", None)]}, "input[0].output"),
        ({"input": [output_of("c", [{"type": "input_file"}])]}, "input[0].output[0].file_id"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "reasoning", "summary": [{"text": 7}]}]}, "input[0].summary[0].text"),
        ({"input": [{"type": "reasoning", "content": "x"}]}, "input[0].content"),
        ({"instructions": ["x"]}, "instructions"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": []}, "top_p"),
        ({"seed": 0.5}, "seed"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"include": "x"}, "include"),
        ({"include": [7]}, "include[0]"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"a": 7}}, "metadata.a"),
        ({"store": "no"}, "store"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": True}, "stream_options"),
        ({"truncation": "some"}, "truncation"),
        ({"background": "no"}, "background"),
        ({"user": 7}, "user"),
        ({"safety_identifier": 7}, "safety_identifier"),
        ({"reasoning": "low"}, "reasoning"),
        ({"reasoning": {"effort": 7}}, "reasoning.effort"),
        ({"text": "json"}, "text"),
        ({"text": {"verbosity": 7}}, "text.verbosity"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"text": {"format": {}}}, "text.format.type"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": []}}}, "text.format.schema"),
        ({"tools": {}}, "tools"),
        ({"tools": [7]}, "tools[0]"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{**WEATHER, "parameters": "x"}]}, "tools[0].parameters"),
        ({"tools": [{**WEATHER, "description": 7}]}, "tools[0].description"),
        ({"tools": [{**WEATHER, "strict": 7}]}, "tools[0].strict"),
        ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
    ],
)
def test_a_complaint_names_the_field(asked: Json, param: str) -> None:
    error = complaint(**asked)
    assert error.param == param
    assert f"`{param}`" in error.message


def test_a_schema_too_deep_to_be_sent_on_is_refused_at_once() -> None:
    deep = b'{"a":' * 300 + b"1" + b"}" * 300
    body = b'{"model":"m","input":"hi","tools":[{"type":"function","name":"f","parameters":%b}]}' % deep
    with pytest.raises(BadField, match="too deeply"):
        parse_response(body)


NOISE = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "text", "name"]), inner),
    max_leaves=5,
)
TEXTS = st.sampled_from(["", "a", "c1", "weather", "time", "patch"])
ROLES = st.sampled_from(["user", "assistant", "system", "developer"])
PARTS = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["input_text", "output_text"]), "text": TEXTS}),
    st.fixed_dictionaries({"type": st.just("refusal"), "refusal": TEXTS}),
    st.fixed_dictionaries({"type": st.just("input_image"), "image_url": st.just(IMAGE)}),
)
CONTENTS = TEXTS | st.lists(PARTS, max_size=3)
ITEMS = st.one_of(
    st.fixed_dictionaries({"role": st.just("user"), "content": CONTENTS}),
    st.fixed_dictionaries({"type": st.just("message"), "role": ROLES, "content": TEXTS}),
    st.builds(called, TEXTS, TEXTS, TEXTS),
    st.builds(output_of, TEXTS, CONTENTS),
    st.fixed_dictionaries({"type": st.just("custom_tool_call"), "call_id": TEXTS, "name": TEXTS, "input": TEXTS}),
    st.fixed_dictionaries(
        {"type": st.sampled_from(KINDS), "id": TEXTS}, optional={"output": CONTENTS, "action": NOISE}
    ),
    st.fixed_dictionaries({"type": st.just("reasoning"), "summary": st.lists(PARTS, max_size=2)}),
)
FORMATS = st.sampled_from([{"type": "text"}, {"type": "json_schema", "name": "n", "schema": {"type": "object"}}])
BODIES = st.fixed_dictionaries(
    {"model": st.just("m"), "input": TEXTS | st.lists(ITEMS, min_size=1, max_size=6)},
    optional={
        "instructions": TEXTS,
        "tools": st.lists(st.sampled_from([WEATHER, TIME, PATCH, {"type": "web_search"}]), max_size=3),
        "tool_choice": st.sampled_from(["auto", "none", {"type": "function", "name": "weather"}]),
        "text": st.fixed_dictionaries({"format": FORMATS}),
        "reasoning": st.fixed_dictionaries({"effort": TEXTS}),
        "temperature": st.floats(0, 2),
        "top_logprobs": st.integers(0, 20),
        "metadata": st.dictionaries(TEXTS, TEXTS),
        "include": st.lists(TEXTS),
        "stream": st.booleans(),
    },
)


def places_in(value: Any) -> list[tuple[Any, Any]]:
    """(holder, name or number) of all that there is inside."""
    names: list[Any] = (
        list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    )
    return [place for name in names for place in ((value, name), *places_in(value[name]))]


@st.composite
def bodies(draw: st.DrawFn) -> Any:
    """Well-formed, but for up to two values somewhere in them."""
    body = orjson.loads(orjson.dumps(draw(BODIES)))
    for _ in range(draw(st.integers(0, 2))):
        holder, name = draw(st.sampled_from(places_in(body)))
        holder[name] = draw(NOISE)
    return body


@given(bodies() | NOISE)
def test_whatever_comes_there_is_a_request_or_a_complaint(body: Any) -> None:
    try:
        asked = parse_response(orjson.dumps(body))
    except BadField:
        return
    assert asked.translation is not None
    assert asked.fields["messages"]
    assert all(isinstance(message["role"], str) for message in asked.fields["messages"])
    orjson.dumps(dict(asked.fields))
    asked.form.prefix_hashes(asked.model, "tenant", asked.fields)
    assert asked.translation.writer(0).end({}).endswith(b"\n\n")
