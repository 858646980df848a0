"""Answers in Anthropic's dialect: whole ones, golden streams, and the grammar of any stream."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import anthropic
import httpx2
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.canonical.dialect import Translation
from forebay_gateway.dialects.anthropic.answer import MessagesTranslation

Json = dict[str, Any]
USED = {"prompt_tokens": 50, "completion_tokens": 9, "total_tokens": 59, "prompt_tokens_details": {"cached_tokens": 32}}
COUNTED = {"input_tokens": 18, "output_tokens": 9, "cache_read_input_tokens": 32, "cache_creation_input_tokens": 0}
ESTIMATED = {"input_tokens": 48, "output_tokens": 0, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}


def translation() -> Translation:
    return MessagesTranslation("asked-for")


def whole(message: Json, **choice: Any) -> Json:
    return translation().whole(
        {"id": "x", "model": "engine's", "choices": [{"index": 0, "message": message, **choice}], "usage": USED}
    )


def call(index: int | None, arguments: Any = None, *, name: str | None = None, id: str | None = None) -> Json:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    told = {"index": index, "id": id, "function": function}
    return {key: value for key, value in told.items() if value is not None}


def chunk(finish: str | None = None, *, choice: Json | None = None, **delta: Any) -> Json:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **(choice or {})}]}


def stream(chunks: Iterable[Json]) -> bytes:
    writer = translation().writer(48)
    return b"".join([*(writer.write(each) for each in chunks), writer.end(USED)])


def events(written: bytes) -> list[Json]:
    told = []
    assert written.endswith(b"\n\n")
    for event in written[:-2].split(b"\n\n"):
        name, line = re.fullmatch(rb"event: (\w+)\ndata: (.*)", event).groups()  # type: ignore[union-attr]
        told.append(orjson.loads(line))
        assert told[-1]["type"] == name.decode()
    return told


def start(index: int, **block: Any) -> Json:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, name: str, text: str) -> Json:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, name: text}}


def text(index: int, said: str) -> Json:
    return delta(index, "text_delta", "text", said)


def thought(index: int, said: str) -> Json:
    return delta(index, "thinking_delta", "thinking", said)


def arguments(index: int, said: str) -> Json:
    return delta(index, "input_json_delta", "partial_json", said)


def stop(index: int) -> Json:
    return {"type": "content_block_stop", "index": index}


def ending(reason: str, sequence: str | None = None) -> list[Json]:
    stopped = {"stop_reason": reason, "stop_sequence": sequence}
    return [{"type": "message_delta", "delta": stopped, "usage": COUNTED}, {"type": "message_stop"}]


# --- whole answers ----------------------------------------------------------------------------------------------------


def test_a_whole_answer_has_its_blocks_in_order_and_counts_cached_tokens_apart() -> None:
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Köln"}'}},
        {"type": "function", "function": {"name": "clock", "arguments": ""}},
    ]
    message = whole(
        {"role": "assistant", "reasoning_content": "Hm.", "content": "I look.", "tool_calls": calls},
        finish_reason="tool_calls",
    )
    assert re.fullmatch("msg_[0-9a-f]{24}", message.pop("id"))
    assert re.fullmatch("toolu_[0-9a-f]{24}", message["content"][3].pop("id"))
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": "asked-for",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": ""},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "c1", "name": "weather", "input": {"town": "Köln"}},
            {"type": "tool_use", "name": "clock", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": COUNTED,
    }


def test_arguments_that_are_no_object_are_handed_on_as_they_were_written() -> None:
    for written in ('{"town": "Kö', "[1]"):
        calls = [{"id": "c", "function": {"name": "weather", "arguments": written}}]
        assert whole({"content": None, "tool_calls": calls})["content"][0]["input"] == {"arguments": written}


def test_an_answer_that_says_nothing_has_no_blocks_but_a_list_of_them() -> None:
    for message in ({"content": ""}, {"content": None}, {}):
        assert whole(message, finish_reason="stop")["content"] == []


@pytest.mark.parametrize(
    ("choice", "reason", "sequence"),
    [
        ({"finish_reason": "stop"}, "end_turn", None),
        ({"finish_reason": "length"}, "max_tokens", None),
        ({"finish_reason": "tool_calls"}, "tool_use", None),
        ({"finish_reason": "content_filter"}, "refusal", None),
        ({"finish_reason": "abort"}, "end_turn", None),
        ({"finish_reason": "stop", "stop_reason": "END"}, "stop_sequence", "END"),
        ({"finish_reason": "stop", "matched_stop": "END"}, "stop_sequence", "END"),
        ({"finish_reason": "stop", "stop_reason": 151645}, "end_turn", None),
        ({"finish_reason": "length", "stop_reason": None}, "max_tokens", None),
    ],
)
def test_why_it_stopped_is_told_alike_in_whole_and_in_a_stream(choice: Json, reason: str, sequence: str | None) -> None:
    message = whole({"content": "x"}, **choice)
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)
    assert events(stream([chunk(content="x"), chunk(choice=choice)]))[-2:] == ending(reason, sequence)


def test_a_call_is_why_it_stopped_even_when_the_engine_says_stop() -> None:
    assert whole({"tool_calls": [call(0, "{}", name="clock")]}, finish_reason="stop")["stop_reason"] == "tool_use"
    assert events(stream([chunk("stop", tool_calls=[call(0, "{}", name="clock")])]))[-2:] == ending("tool_use")
    assert events(stream([chunk("length", tool_calls=[call(0, "{", name="clock")])]))[-2:] == ending("max_tokens")


# --- golden streams ---------------------------------------------------------------------------------------------------


def test_a_text_byte_by_byte() -> None:
    writer = translation().writer(48)
    begun = writer.write(chunk(role="assistant", content=""))
    assert re.sub(rb"msg_[0-9a-f]{24}", b"msg_1", begun) == (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message",'
        b'"role":"assistant","model":"asked-for","content":[],"stop_reason":null,"stop_sequence":null,'
        b'"usage":{"input_tokens":48,"output_tokens":0,"cache_read_input_tokens":0,"cache_creation_input_tokens":0}}}\n\n'
    )
    assert writer.write(chunk(content="Good")) == (
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"text","text":""}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"Good"}}\n\n'
    )
    assert writer.write(chunk(content=' "day"\n')) == (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":" \\"day\\"\\n"}}\n\n'
    )
    assert writer.write(chunk("stop")) == b""
    assert writer.end(USED) == (
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
        b'"usage":{"input_tokens":18,"output_tokens":9,"cache_read_input_tokens":32,"cache_creation_input_tokens":0}}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )


def test_thoughts_then_a_text_then_two_calls_in_fragments() -> None:
    told = events(
        stream(
            [
                chunk(role="assistant"),
                chunk(reasoning_content="Which "),
                chunk(reasoning_content="town?"),
                chunk(content="I look."),
                chunk(tool_calls=[call(0, "", name="weather", id="c1")]),
                chunk(tool_calls=[call(0, '{"town":')]),
                chunk(tool_calls=[call(0, '"Köln"}')]),
                chunk(tool_calls=[call(1, '{"zone"', name="clock", id="c2")]),
                chunk(tool_calls=[call(1, ":1}")]),
                chunk("tool_calls"),
            ]
        )
    )
    assert told[0]["message"]["usage"] == ESTIMATED
    assert told[1:] == [
        start(0, type="thinking", thinking="", signature=""),
        thought(0, "Which "),
        thought(0, "town?"),
        stop(0),
        start(1, type="text", text=""),
        text(1, "I look."),
        stop(1),
        start(2, type="tool_use", id="c1", name="weather", input={}),
        arguments(2, '{"town":'),
        arguments(2, '"Köln"}'),
        stop(2),
        start(3, type="tool_use", id="c2", name="clock", input={}),
        arguments(3, '{"zone"'),
        arguments(3, ":1}"),
        stop(3),
        *ending("tool_use"),
    ]


def test_calls_whose_fragments_alternate_are_told_one_after_the_other() -> None:
    told = events(
        stream(
            [
                chunk(tool_calls=[call(0, "", name="a", id="c1"), call(1, "", name="b", id="c2")]),
                chunk(tool_calls=[call(0, '{"x":'), call(1, '{"y":')]),
                chunk(tool_calls=[call(0, "1}"), call(1, "2")]),
                chunk("tool_calls", tool_calls=[call(1, "}")]),
            ]
        )
    )
    assert told[1:-2] == [
        start(0, type="tool_use", id="c1", name="a", input={}),
        arguments(0, '{"x":'),
        arguments(0, "1}"),
        stop(0),
        start(1, type="tool_use", id="c2", name="b", input={}),
        arguments(1, '{"y":'),
        arguments(1, "2"),
        arguments(1, "}"),
        stop(1),
    ]


def test_a_text_in_the_middle_of_a_call_waits_and_one_after_it_does_not() -> None:
    writer = translation().writer(48)
    writer.write(chunk(tool_calls=[call(0, '{"x":', name="a", id="c1")]))
    assert writer.write(chunk(content="Well,")) == b""
    assert events(writer.write(chunk(tool_calls=[call(0, "1}")]))) == [
        arguments(0, "1}"),
        stop(0),
        start(1, type="text", text=""),
        text(1, "Well,"),
    ]
    assert events(writer.write(chunk(content=" done."))) == [text(1, " done.")]


def test_calls_without_number_id_or_text_arguments_are_understood() -> None:
    told = events(
        stream([chunk(tool_calls=[call(None, {"x": 1}, name="a"), call(None, '{"y":', name="b"), call(None, "2}")])])
    )
    assert re.fullmatch("toolu_[0-9a-f]{24}", told[1]["content_block"]["id"])
    assert [each["content_block"]["name"] for each in told if each["type"] == "content_block_start"] == ["a", "b"]
    assert [each["delta"]["partial_json"] for each in told if each["type"] == "content_block_delta"] == [
        '{"x":1}',
        '{"y":',
        "2}",
    ]


def test_an_answer_cut_at_its_length_ends_with_the_block_that_was_open() -> None:
    told = events(stream([chunk(reasoning="Hm"), chunk("length")]))
    assert told[1:] == [
        start(0, type="thinking", thinking="", signature=""),
        thought(0, "Hm"),
        stop(0),
        *ending("max_tokens"),
    ]


def test_an_empty_answer_is_still_a_message() -> None:
    for chunks in ([], [chunk(role="assistant")], [chunk("stop", content="")]):
        told = events(stream(chunks))
        assert [each["type"] for each in told] == ["message_start", "message_delta", "message_stop"]


# --- whatever an engine says ------------------------------------------------------------------------------------------


@st.composite
def engine_chunks(draw: st.DrawFn) -> tuple[list[Json], str, str, dict[int, str]]:
    """(chunks, text, thoughts, arguments of each call), the sources interleaved in any way."""
    words = st.text(min_size=1, max_size=4)
    texts, thoughts = draw(st.lists(words, max_size=5)), draw(st.lists(words, max_size=4))
    sources: list[list[Json]] = [[{"content": word} for word in texts], [{"reasoning_content": w} for w in thoughts]]
    written: dict[int, str] = {}
    for index in range(draw(st.integers(0, 3))):
        value = draw(
            st.dictionaries(words, st.integers(-9, 9) | words | st.dictionaries(words, words, max_size=2), max_size=3)
        )
        told = orjson.dumps(value).decode()
        told = told[: draw(st.integers(0, len(told)))] if draw(st.booleans()) else told
        cuts = sorted(draw(st.sets(st.integers(0, len(told)), max_size=4)))
        pieces = [told[a:b] for a, b in zip([0, *cuts], [*cuts, len(told)], strict=True)]
        first = call(index, pieces[0], name=f"tool{index}", id=f"c{index}")
        if draw(st.booleans()):  # who is called comes first, what with later
            pieces, first = ["", *pieces], call(index, name=f"tool{index}", id=f"c{index}")
        later = [{"tool_calls": [call(index, piece)]} for piece in pieces[1:]]
        sources.append([{"tool_calls": [first]}, *later])
        written[index] = told
    deltas: list[Json] = [{"role": "assistant"}]
    while any(sources):
        source = draw(st.sampled_from([source for source in sources if source]))
        deltas.append(source.pop(0))
    finish = draw(st.sampled_from(["stop", "length", "tool_calls"]))
    return [*(chunk(**each) for each in deltas), chunk(finish)], "".join(texts), "".join(thoughts), written


def blocks_by_the_grammar(told: Sequence[Json]) -> list[Json]:
    """The blocks put together; fails where Anthropic's grammar is broken."""
    assert told[0]["type"] == "message_start"
    assert [each["type"] for each in told[-2:]] == ["message_delta", "message_stop"]
    blocks: list[Json] = []
    is_open = False
    for each in told[1:-2]:
        match each["type"]:
            case "content_block_start":
                assert not is_open
                assert each["index"] == len(blocks)
                blocks.append({**each["content_block"], "said": ""})
                is_open = True
            case "content_block_delta":
                assert is_open
                assert each["index"] == len(blocks) - 1
                kind, said = each["delta"].values()
                assert {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "tool_use"}[kind] == (
                    blocks[-1]["type"]
                )
                assert said
                blocks[-1]["said"] += said
            case "content_block_stop":
                assert is_open
                assert each["index"] == len(blocks) - 1
                is_open = False
            case kind:
                pytest.fail(f"{kind} in the middle")
    assert not is_open
    return blocks


@given(engine_chunks())
def test_any_answer_keeps_the_grammar_and_loses_nothing(answer: tuple[list[Json], str, str, dict[int, str]]) -> None:
    chunks, said, thought_of, written = answer
    blocks = blocks_by_the_grammar(events(stream(chunks)))
    assert "".join(block["said"] for block in blocks if block["type"] == "text") == said
    assert "".join(block["said"] for block in blocks if block["type"] == "thinking") == thought_of
    calls = {block["id"]: (block["name"], block["said"]) for block in blocks if block["type"] == "tool_use"}
    assert calls == {f"c{index}": (f"tool{index}", told) for index, told in written.items()}
    assert len(calls) == sum(block["type"] == "tool_use" for block in blocks)


# --- the official SDK -------------------------------------------------------------------------------------------------


def client(body: bytes, content_type: str) -> anthropic.Anthropic:
    reply = httpx2.Response(200, content=body, headers={"content-type": content_type})
    transport = httpx2.MockTransport(lambda request: reply)
    return anthropic.Anthropic(
        api_key="fb-x", base_url="http://gateway", http_client=httpx2.Client(transport=transport), max_retries=0
    )


def test_the_sdk_puts_a_stream_together() -> None:
    written = stream(
        [
            chunk(role="assistant"),
            chunk(reasoning_content="Which town?"),
            chunk(content="I "),
            chunk(content="look."),
            chunk(tool_calls=[call(0, '{"town":', name="weather", id="c1")]),
            chunk("tool_calls", tool_calls=[call(0, '"Köln"}')]),
        ]
    )
    with (
        client(written, "text/event-stream") as sdk,
        sdk.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}]) as running,
    ):
        message = running.get_final_message()
    assert [block.to_dict() for block in message.content] == [
        {"type": "thinking", "thinking": "Which town?", "signature": ""},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "c1", "name": "weather", "input": {"town": "Köln"}},
    ]
    assert (message.stop_reason, message.usage.to_dict()) == ("tool_use", COUNTED)


def test_the_sdk_reads_a_whole_answer() -> None:
    with client(orjson.dumps(whole({"content": "Hi."}, finish_reason="stop")), "application/json") as sdk:
        message = sdk.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}])
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "Hi."}]
    assert message.stop_reason == "end_turn"
