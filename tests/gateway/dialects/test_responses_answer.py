"""Chat's answer becomes a response, whole or event by event, and both tell the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import httpx2
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import APIError, OpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from forebay_gateway.canonical.folding import fold_chat
from forebay_gateway.dialects.openai.errors import OPENAI
from forebay_gateway.dialects.responses.answer import ResponseTranslation
from forebay_gateway.dialects.responses.echo import echo_of
from forebay_gateway.dialects.responses.errors import RESPONSES, error_event
from forebay_gateway.refused import ContextTooLong, EngineFailed

Json = dict[str, Any]
USAGE: Json = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
USED: Json = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 15,
}


def translation(**asked: Any) -> ResponseTranslation:
    """Items are named in the order in which they are made: resp_1, msg_1, fc_1, fc_2."""
    count: Counter[str] = Counter()

    def new_id(prefix: str) -> str:
        count[prefix] += 1
        return f"{prefix}_{count[prefix]}"

    return ResponseTranslation("m", echo_of(asked, asked.get("tools", [])), new_id)


def chunk(*, finish: str | None = None, logprobs: Any = None, **delta: Any) -> Json:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1700, "model": "engine's", "choices": [choice]}


def call(index: int, arguments: str = "", **first: Any) -> Json:
    """`first`: its id and its function's name, in the first piece."""
    name = {"name": first.pop("name")} if "name" in first else {}
    return {"index": index, **first, "function": {**name, "arguments": arguments}}


def written(*chunks: Json, usage: Json = USAGE, **asked: Any) -> bytes:
    writer = translation(**asked).writer(0)
    return b"".join([*map(writer.write, chunks), writer.end(usage)])


def read(stream: bytes) -> list[Json]:
    told = []
    for block in stream.decode().removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        event = orjson.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        told.append(event)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    return told


def events(*chunks: Json, **asked: Any) -> list[Json]:
    """Without their numbers."""
    return [
        {name: value for name, value in event.items() if name != "sequence_number"}
        for event in read(written(*chunks, **asked))
    ]


def between(*chunks: Json) -> list[Json]:
    """The events between the two that announce a response and the one that ends it."""
    return events(*chunks)[2:-1]


def final(*chunks: Json, **asked: Any) -> Json:
    response: Json = events(*chunks, **asked)[-1]["response"]
    return response


def whole(*chunks: Json, usage: Json | None = USAGE, **asked: Any) -> Json:
    return translation(**asked).whole(fold_chat(chunks, "m", usage))


def message(text: str, name: str = "msg_1", status: str = "completed") -> Json:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {"id": name, "type": "message", "role": "assistant", "content": content, "status": status}


def reasoning(text: str, name: str = "rs_1") -> Json:
    content = [{"type": "reasoning_text", "text": text}]
    return {"id": name, "type": "reasoning", "summary": [], "content": content, "status": "completed"}


def function_call(arguments: str, number: int = 1, status: str = "completed") -> Json:
    told = {"call_id": f"c{number}", "name": f"f{number}", "arguments": arguments, "status": status}
    return {"id": f"fc_{number}", "type": "function_call", **told}


# --- streams, event by event ----------------------------------------------------------------------------------------


def test_a_text_is_told_piece_by_piece() -> None:
    told = events(chunk(role="assistant", content=""), chunk(content="Hel"), chunk(content="lo"), chunk(finish="stop"))
    announced = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1700,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": "m",
        "output": [],
        "usage": None,
        "background": False,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": None,
        "truncation": "disabled",
        "user": None,
    }
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    empty: Json = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    part = {**empty, "text": "Hello"}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "content": [part], "status": "completed"}
    assert told == [
        {"type": "response.created", "response": announced},
        {"type": "response.in_progress", "response": announced},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**item, "content": [], "status": "in_progress"},
        },
        {"type": "response.content_part.added", **place, "part": empty},
        {"type": "response.output_text.delta", **place, "delta": "Hel", "logprobs": []},
        {"type": "response.output_text.delta", **place, "delta": "lo", "logprobs": []},
        {"type": "response.output_text.done", **place, "text": "Hello", "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {
            "type": "response.completed",
            "response": {**announced, "status": "completed", "output": [item], "usage": USED},
        },
    ]


def test_reasoning_text_and_two_calls_that_alternate_are_told_one_after_the_other() -> None:
    told = between(
        chunk(reasoning_content="Hm"),
        chunk(reasoning="m."),
        chunk(content="Ok."),
        chunk(tool_calls=[call(0, '{"a"', id="c1", name="f1")]),
        chunk(tool_calls=[call(1, "{", id="c2", name="f2")]),
        chunk(tool_calls=[call(0, ":1}")]),
        chunk(tool_calls=[call(1, "}")]),
        chunk(finish="tool_calls"),
    )
    thought, said = {"item_id": "rs_1", "output_index": 0}, {"item_id": "msg_1", "output_index": 1}
    first, second = {"item_id": "fc_1", "output_index": 2}, {"item_id": "fc_2", "output_index": 3}
    thought["content_index"] = said["content_index"] = 0
    part = {"type": "output_text", "text": "Ok.", "annotations": [], "logprobs": []}
    calls = [function_call('{"a":1}', 1), function_call("{}", 2)]
    begun = [{**item, "arguments": "", "status": "in_progress"} for item in calls]
    assert told == [
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**reasoning(""), "content": [], "status": "in_progress"},
        },
        {"type": "response.content_part.added", **thought, "part": {"type": "reasoning_text", "text": ""}},
        {"type": "response.reasoning_text.delta", **thought, "delta": "Hm"},
        {"type": "response.reasoning_text.delta", **thought, "delta": "m."},
        {"type": "response.reasoning_text.done", **thought, "text": "Hmm."},
        {"type": "response.content_part.done", **thought, "part": {"type": "reasoning_text", "text": "Hmm."}},
        {"type": "response.output_item.done", "output_index": 0, "item": reasoning("Hmm.")},
        {
            "type": "response.output_item.added",
            "output_index": 1,
            "item": {**message(""), "content": [], "status": "in_progress"},
        },
        {"type": "response.content_part.added", **said, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", **said, "delta": "Ok.", "logprobs": []},
        {"type": "response.output_text.done", **said, "text": "Ok.", "logprobs": []},
        {"type": "response.content_part.done", **said, "part": part},
        {"type": "response.output_item.done", "output_index": 1, "item": message("Ok.")},
        {"type": "response.output_item.added", "output_index": 2, "item": begun[0]},
        {"type": "response.function_call_arguments.delta", **first, "delta": '{"a"'},
        {"type": "response.function_call_arguments.delta", **first, "delta": ":1}"},
        {"type": "response.function_call_arguments.done", **first, "name": "f1", "arguments": '{"a":1}'},
        {"type": "response.output_item.done", "output_index": 2, "item": calls[0]},
        {"type": "response.output_item.added", "output_index": 3, "item": begun[1]},
        {"type": "response.function_call_arguments.delta", **second, "delta": "{}"},
        {"type": "response.function_call_arguments.done", **second, "name": "f2", "arguments": "{}"},
        {"type": "response.output_item.done", "output_index": 3, "item": calls[1]},
    ]


def test_a_call_ends_as_soon_as_its_arguments_are_whole_and_another_begins() -> None:
    writer = translation().writer(0)
    writer.write(chunk(tool_calls=[call(0, '{"a":', id="c1", name="f1")]))
    writer.write(chunk(tool_calls=[call(0, "1}")]))
    told = writer.write(chunk(tool_calls=[call(1, "{", id="c2", name="f2")])).decode()
    assert [line.removeprefix("event: response.") for line in told.splitlines() if line.startswith("event: ")] == [
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
    ]
    assert writer.write(chunk(tool_calls=[call(0, " \n")])) == b"", "blanks after it change nothing"


def test_a_refusal_is_a_message() -> None:
    told = between(chunk(refusal="I can"), chunk(refusal="not."))
    assert [event["type"] for event in told] == [
        "response.output_item.added",
        "response.content_part.added",
        "response.refusal.delta",
        "response.refusal.delta",
        "response.refusal.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    assert told[4]["refusal"] == "I cannot."
    assert told[-1]["item"]["content"] == [{"type": "refusal", "refusal": "I cannot."}]


def test_an_answer_that_reached_its_length_is_incomplete_and_so_is_its_last_item() -> None:
    chunks = chunk(reasoning="Hm."), chunk(content="Hel"), chunk(finish="length")
    told = events(*chunks)
    assert told[-1]["type"] == "response.incomplete"
    assert told[-2]["item"] == message("Hel", status="incomplete")
    response = told[-1]["response"]
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"] == [reasoning("Hm."), message("Hel", status="incomplete")]
    assert response == whole(*chunks)


def test_a_call_that_was_cut_is_incomplete() -> None:
    chunks = chunk(tool_calls=[call(0, '{"a', id="c1", name="f1")]), chunk(finish="length")
    assert final(*chunks)["output"] == [function_call('{"a', status="incomplete")]
    assert final(*chunks) == whole(*chunks)


def test_a_filtered_answer_says_so() -> None:
    assert final(chunk(finish="content_filter"))["incomplete_details"] == {"reason": "content_filter"}


@pytest.mark.parametrize(
    "chunks", [[], [chunk()], [chunk(role="assistant", content="", tool_calls=[]), chunk(finish="stop")]]
)
def test_an_answer_without_anything_is_complete_and_empty(chunks: list[Json]) -> None:
    told = events(*chunks)
    assert [event["type"] for event in told] == ["response.created", "response.in_progress", "response.completed"]
    assert told[-1]["response"]["output"] == []
    assert told[-1]["response"]["created_at"] == (1700 if chunks else 0)


def test_reasoning_between_two_texts_is_told_where_it_comes() -> None:
    chunks = chunk(content="a"), chunk(reasoning="b"), chunk(content="c")
    assert final(*chunks)["output"] == [message("a"), reasoning("b"), message("c", "msg_2")]


def test_what_is_said_while_a_call_is_not_whole_waits_for_its_end() -> None:
    chunks = (
        chunk(tool_calls=[call(0, "{", id="c1", name="f1")]),
        chunk(content="a"),
        chunk(tool_calls=[call(0, "}")]),
        chunk(content="b"),
    )
    assert final(*chunks)["output"] == [function_call("{}"), message("ab")]


def test_a_call_is_announced_when_its_name_is_known() -> None:
    writer = translation().writer(0)
    assert b"output_item" not in writer.write(chunk(tool_calls=[call(0, '{"a"', id="c1")]))
    assert b"output_item.added" in writer.write(chunk(tool_calls=[call(0, ":1}", name="f1")]))
    assert orjson.loads(writer.end(USAGE).split(b"data: ")[-1])["response"]["output"] == [function_call('{"a":1}')]


def test_a_call_that_never_gets_a_name_is_told_all_the_same() -> None:
    (item,) = final(chunk(tool_calls=[call(0, "{}", id="c1")]))["output"]
    assert (item["name"], item["arguments"]) == ("", "{}")


def test_a_call_without_an_id_gets_one() -> None:
    chunks = (chunk(tool_calls=[call(0, "{}", name="f1")]),)
    assert final(*chunks)["output"][0]["call_id"] == "call_1"
    assert final(*chunks) == whole(*chunks)


def test_both_names_of_reasoning_with_the_same_text_are_one_reasoning() -> None:
    assert final(chunk(reasoning="a", reasoning_content="a"))["output"] == [reasoning("a")]


def test_log_probabilities_are_told_with_their_text() -> None:
    top = {"token": "b", "logprob": -1.5, "bytes": None}
    told = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [top]}
    expected = [{**told, "top_logprobs": [{**top, "bytes": []}]}]
    chunks = chunk(content="a", logprobs={"content": [told]}), chunk(content="a", logprobs={"content": [told]})
    deltas = [event for event in between(*chunks) if event["type"].endswith("text.delta")]
    assert [event["logprobs"] for event in deltas] == [expected, expected]
    assert final(*chunks)["output"][0]["content"][0]["logprobs"] == expected * 2
    assert final(*chunks) == whole(*chunks)


def test_usage_of_which_an_engine_tells_little_is_filled_with_zeros() -> None:
    told = final(chunk(content="a"), usage={"prompt_tokens": 3, "completion_tokens": 2})["usage"]
    assert (told["input_tokens"], told["output_tokens"], told["total_tokens"]) == (3, 2, 5)
    assert told["input_tokens_details"]["cached_tokens"] == told["output_tokens_details"]["reasoning_tokens"] == 0


@pytest.mark.parametrize(
    "odd",
    [
        {"choices": None},
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": {"content": ["a"], "reasoning": 7, "tool_calls": 7}}]},
        {"choices": [{"delta": {"tool_calls": [7, {"index": 5, "function": 7}]}}]},
        {"choices": [{"delta": {"content": ""}, "logprobs": {"content": [7]}}]},
    ],
)
def test_a_piece_that_is_hardly_one_does_no_harm(odd: Json) -> None:
    said = [item for item in final(chunk(content="a"), odd, chunk(content="b"))["output"] if item["type"] == "message"]
    assert said == [message("ab")]


# --- whole answers --------------------------------------------------------------------------------------------------


def test_a_whole_answer_has_its_items_in_the_order_in_which_models_speak() -> None:
    said: Json = {
        "role": "assistant",
        "content": "Ok.",
        "reasoning_content": "Hm.",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f1", "arguments": "{}"}}],
    }
    answer = {
        "created": 1700,
        "choices": [{"index": 0, "message": said, "finish_reason": "tool_calls"}],
        "usage": USAGE,
    }
    response = translation().whole(answer)
    assert response["output"] == [reasoning("Hm."), message("Ok."), function_call("{}")]
    assert (response["id"], response["model"], response["created_at"]) == ("resp_1", "m", 1700)
    assert (response["status"], response["usage"]) == ("completed", USED)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": []},
        {"choices": [7]},
        {"choices": [{"message": 7, "logprobs": 7}], "usage": 7, "created": "now"},
        {"choices": [{"message": {"content": [], "tool_calls": [7], "reasoning": {}}, "finish_reason": None}]},
    ],
)
def test_a_whole_answer_that_is_hardly_one_is_an_empty_response(answer: Json) -> None:
    response = translation().whole(answer)
    assert (response["output"], response["created_at"], response["usage"]) == ([], 0, None)


def test_arguments_that_came_as_an_object_become_text() -> None:
    said = {"tool_calls": [{"id": "c1", "function": {"name": "f1", "arguments": {"a": 1}}}]}
    assert translation().whole({"choices": [{"message": said}]})["output"] == [function_call('{"a":1}')]


# --- any answer -----------------------------------------------------------------------------------------------------

TEXT = st.text(max_size=4)
FINISHES = st.sampled_from([None, "stop", "length", "tool_calls", "content_filter"])
SPEECH = st.one_of([st.fixed_dictionaries({name: TEXT}) for name in ("content", "reasoning_content", "refusal")])
ARGUMENTS = st.dictionaries(TEXT, st.integers(-9, 9) | TEXT, max_size=2).map(lambda value: orjson.dumps(value).decode())


@st.composite
def split(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> list[str]:
    text = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def any_answer(draw: st.DrawFn) -> list[Json]:
    """Pieces of all kinds in any order, several in a chunk. Arguments are never whole: what comes after that is lost."""
    seen: set[int] = set()
    chunks = []
    for _ in range(draw(st.integers(0, 12))):
        delta: Json = {}
        for piece in draw(st.lists(SPEECH, max_size=2)):
            delta |= piece
        for index in draw(st.lists(st.integers(0, 2), max_size=2)):
            first = {} if index in seen else {"id": f"c{index}", "name": f"f{index}"}
            seen.add(index)
            fragment = draw(st.sampled_from(['{"a":', "1", "[", ""]))
            delta.setdefault("tool_calls", []).append(call(index, fragment, **first))
        chunks.append(chunk(**delta))
    return [*chunks, chunk(finish=draw(FINISHES))]


@st.composite
def orderly_answer(draw: st.DrawFn) -> list[Json]:
    """As models speak: each thing to its end, then the next."""
    chunks = []
    for name in ("reasoning_content", "content", "refusal"):
        chunks += [chunk(**{name: piece}) for piece in draw(split(TEXT))]
    for index in range(draw(st.integers(0, 3))):
        first: Json = {"id": f"c{index}", "name": f"f{index}"}
        for fragment in draw(split(ARGUMENTS)):
            chunks.append(chunk(tool_calls=[call(index, fragment, **first)]))
            first = {}
    return [*chunks, chunk(finish=draw(FINISHES))]


def retold(told: list[Json]) -> list[Json]:
    """The output as the events between the first two and the last build it up. They must obey the grammar."""
    output: list[Json] = []
    item: Json | None = None
    part: Json | None = None
    for event in told:
        kind = event["type"].removeprefix("response.")
        assert event["output_index"] == len(output), event
        if kind == "output_item.added":
            assert item is None
            item = event["item"]
            assert item["status"] == "in_progress"
            assert item.get("content", []) == []
            assert item.get("arguments", "") == item.get("input", "") == ""
            continue
        assert item is not None
        if kind == "output_item.done":
            assert part is None
            item["status"] = event["item"]["status"]
            assert item["status"] in ("completed", "incomplete")
            assert item == event["item"], "what the deltas add up to"
            output.append(item)
            item = None
            continue
        assert event["item_id"] == item["id"]
        assert event.get("content_index", 0) == 0
        match kind.split("."):
            case ["content_part", "added"]:
                part = event["part"]
                item["content"].append(part)
            case ["content_part", "done"]:
                assert part == event["part"]
                part = None
            case ["function_call_arguments", "delta"]:
                item["arguments"] += event["delta"]
            case ["function_call_arguments", "done"]:
                assert event["arguments"] == item["arguments"]
            case ["custom_tool_call_input", "delta"]:
                item["input"] += event["delta"]
            case ["custom_tool_call_input", "done"]:
                assert event["input"] == item["input"]
            case [name, step]:
                assert part is not None
                assert part["type"] == name
                field = "refusal" if name == "refusal" else "text"
                if step == "delta":
                    part[field] += event["delta"]
                else:
                    assert event[field] == part[field]
    assert item is None
    return output


def nameless(response: Json) -> Json:
    """Without its items' ids."""
    output = [{name: value for name, value in item.items() if name != "id"} for item in response["output"]]
    return {**response, "output": output}


def all_said(response: Json) -> dict[str, str]:
    """Of each kind, in one; of each call the arguments."""
    said: dict[str, str] = {}
    for item in response["output"]:
        for part in item.get("content", ()):
            said[part["type"]] = said.get(part["type"], "") + part.get("text", part.get("refusal"))
        if item["type"] == "function_call":
            said[item["call_id"]] = item["name"] + item["arguments"]
        if item["type"] == "custom_tool_call":
            said[item["call_id"]] = item["name"] + item["input"]
    return said


CUSTOMS = st.sampled_from([[], [{"type": "custom", "name": "f0"}, {"type": "custom", "name": "f2"}]])


@given(any_answer() | orderly_answer(), CUSTOMS)
def test_any_answer_is_told_by_the_grammar_and_nothing_of_it_is_lost(chunks: list[Json], tools: list[Json]) -> None:
    told = read(written(*chunks, tools=tools))
    assert [event["type"] for event in told[:2]] == ["response.created", "response.in_progress"]
    response = told[-1]["response"]
    assert told[-1]["type"] == f"response.{response['status']}"
    assert retold(told[2:-1]) == response["output"]
    assert len({item["id"] for item in response["output"]}) == len(response["output"])
    assert all_said(response) == all_said(whole(*chunks, tools=tools))


@given(orderly_answer())
def test_an_orderly_answer_is_the_same_whole_and_in_pieces(chunks: list[Json]) -> None:
    assert nameless(final(*chunks)) == nameless(whole(*chunks))


@settings(max_examples=30, deadline=None)
@given(any_answer() | orderly_answer(), CUSTOMS)
def test_any_event_is_one_of_openais(chunks: list[Json], tools: list[Json]) -> None:
    for event in read(written(*chunks, tools=tools)):
        EVENTS.validate_python(event)
    Response.model_validate(whole(*chunks, tools=tools))


EVENTS: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)

# --- the official SDK -----------------------------------------------------------------------------------------------

TALK = (
    chunk(reasoning="Hm."),
    chunk(content="Hel"),
    chunk(content="lo"),
    chunk(tool_calls=[call(0, '{"a":', id="c1", name="f1")]),
    chunk(tool_calls=[call(1, "{}", id="c2", name="f2")]),
    chunk(tool_calls=[call(0, "1}")]),
    chunk(finish="tool_calls"),
)


def client(body: bytes, content_type: str = "text/event-stream") -> OpenAI:
    """Of a server that always answers this."""
    answer = httpx2.Response(200, headers={"content-type": content_type}, content=body)
    transport = httpx2.MockTransport(lambda request: answer)
    return OpenAI(api_key="fb-x", base_url="http://gateway/v1", http_client=httpx2.Client(transport=transport))


def test_openais_sdk_puts_a_stream_together() -> None:
    with client(written(*TALK)) as openai, openai.responses.stream(model="m", input="hi") as stream:
        seen = [event.type for event in stream]
        response = stream.get_final_response()
    assert seen[-1] == "response.completed"
    assert response.output_text == "Hello"
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call", "function_call"]
    assert [item.arguments for item in response.output if item.type == "function_call"] == ['{"a":1}', "{}"]
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == 4


def test_openais_sdk_reads_each_event() -> None:
    with client(written(*TALK)) as openai:
        told = list(openai.responses.create(model="m", input="hi", stream=True))
    text = "".join(event.delta for event in told if event.type == "response.output_text.delta")
    assert (text, told[-1].type) == ("Hello", "response.completed")


def test_openais_sdk_reads_a_whole_response() -> None:
    with client(orjson.dumps(whole(*TALK)), "application/json") as openai:
        response = openai.responses.create(model="m", input="hi")
    assert (response.output_text, response.status, response.created_at) == ("Hello", "completed", 1700)


# --- errors ---------------------------------------------------------------------------------------------------------


def test_a_refusal_is_openais_except_in_a_stream() -> None:
    error = EngineFailed()
    plain, told = OPENAI.render(error, "r1"), RESPONSES.render(error, "r1")
    assert (told.status, told.headers, told.body) == (plain.status, plain.headers, plain.body)
    (event,) = read(told.event)
    assert (event["type"], event["code"], event["param"]) == ("error", "engine_failed", None)
    assert event["message"] == event["error"]["message"] == error.message


def test_openais_sdk_raises_on_an_error_in_a_stream() -> None:
    begun = translation().writer(0).write(chunk(content="Hel"))
    body = begun + error_event({"message": "It broke.", "type": "server_error", "code": "engine_failed"})
    with client(body) as openai, pytest.raises(APIError, match="It broke"):
        list(openai.responses.create(model="m", input="hi", stream=True))


def test_a_stream_that_breaks_ends_with_the_error_and_the_response_as_it_failed() -> None:
    made = translation()
    begun = made.writer(0).write(chunk(content="Hel"))
    told = read(begun + RESPONSES.failing(RESPONSES.render(EngineFailed("It broke."), "r1"), made))
    assert [event["type"] for event in told[-2:]] == ["error", "response.failed"]
    response = told[-1]["response"]
    assert (response["status"], response["error"]) == ("failed", {"code": "server_error", "message": "It broke."})
    assert response["output"] == [message("Hel", status="incomplete")]
    for event in told:
        EVENTS.validate_python(event)


def test_a_refusal_after_comments_alone_is_a_response_that_was_begun_and_failed() -> None:
    made = translation()
    told = read(RESPONSES.failing(RESPONSES.render(ContextTooLong(), "r1"), made))
    kinds = ["response.created", "response.in_progress", "error", "response.failed"]
    assert [event["type"] for event in told] == kinds
    assert told[-1]["response"]["id"] == told[0]["response"]["id"]
    assert told[-1]["response"]["error"]["code"] == "context_length_exceeded"
