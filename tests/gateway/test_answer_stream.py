"""What happens to the events of a streamed answer on their way to the client."""

from __future__ import annotations

import json
from typing import Any

from forebay_gateway.accounting import UsageSource
from forebay_gateway.canonical.answer_stream import DONE, AnswerStream, read_usage
from forebay_gateway.canonical.folding import fold_chat as fold


def event(*choices: dict[str, Any], **more: Any) -> bytes:
    return b"data: " + json.dumps({"model": "m", "choices": list(choices), **more}).encode() + b"\n\n"


def piece(text: str | None, index: int = 0, finish: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {"index": index, "delta": delta, "finish_reason": finish, **more}


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def test_bytes_pass_as_they_came_and_the_usage_chunk_does_not() -> None:
    stream = AnswerStream("m", 1, wants_usage=False)
    begin, end = event(piece("a")), event(piece(None, finish="stop"))
    assert stream.feed(begin) == begin
    assert stream.feed(end + event(usage=USAGE) + DONE) == end
    assert stream.is_done
    assert stream.tail(9) == DONE
    assert stream.usage(99).completion == 2


def test_the_usage_chunk_comes_last_for_those_who_asked() -> None:
    stream = AnswerStream("m", 1, wants_usage=True)
    stream.feed(event(piece("a")) + event(usage=USAGE) + DONE)
    assert stream.tail(9) == event(usage=USAGE) + DONE


def test_usage_that_is_told_again_and_again_of_one_choice_is_not_added_up() -> None:
    stream = AnswerStream("m", 1, wants_usage=True)
    soon = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    stream.feed(event(piece("a")) + event(usage=soon) + event(piece("b")) + event(usage=USAGE) + DONE)
    assert stream.usage(99).completion == 2
    assert stream.tail(9) == event(usage=USAGE) + DONE


def test_another_models_name_is_replaced_and_nothing_else() -> None:
    stream = AnswerStream("asked", 1, wants_usage=False)
    told = json.loads(stream.feed(event(piece('"model":"asked"'), x=1))[6:])
    assert told == {"model": "asked", "choices": [piece('"model":"asked"')], "x": 1}


def test_a_stream_that_ends_before_its_choices_do_is_an_error() -> None:
    stream = AnswerStream("m", 2, wants_usage=False)
    stream.feed(event(piece("a", 0, "stop"), piece("b", 1)))
    stream.end()
    assert stream.error is not None
    assert not stream.is_done


def test_a_stream_that_ends_without_its_mark_after_all_choices_did_is_whole() -> None:
    stream = AnswerStream("m", 2, wants_usage=False)
    stream.feed(event(piece("a", 0, "stop"), piece("b", 1, "length")))
    stream.end()
    assert stream.is_done


def test_an_end_mark_before_anything_else_is_an_error() -> None:
    stream = AnswerStream("m", 1, wants_usage=False)
    stream.feed(DONE)
    assert stream.error is not None
    assert not stream.has_begun


def test_engines_errors_are_recognised_in_each_of_their_shapes() -> None:
    for shape in (
        b'data: {"error": {"message": "boom", "code": 500}}\n\n',
        b'data: {"error": "boom"}\n\n',
        b'event: error\ndata: {"message": "boom"}\n\n',
    ):
        stream = AnswerStream("m", 1, wants_usage=False)
        assert stream.feed(shape) == b""
        assert stream.error is not None
        assert stream.error.message == "boom"


def test_tokens_are_counted_by_chunks_that_carry_something() -> None:
    stream = AnswerStream("m", 2, wants_usage=False)
    stream.feed(event({"index": 0, "delta": {"role": "assistant", "content": ""}}))
    stream.feed(event(piece("a", 0), piece("b", 1)))
    stream.feed(event({"index": 0, "delta": {"reasoning_content": "hm"}}))
    stream.feed(event({"index": 0, "delta": {"tool_calls": [{"index": 0}]}}))
    stream.feed(event(piece(None, finish="stop")))
    used = stream.usage(7)
    assert (used.completion, used.prompt, used.source) == (4, 7, UsageSource.COUNTED)


def test_usage_told_in_passing_counts_when_there_is_no_other() -> None:
    stream = AnswerStream("m", 1, wants_usage=False)
    passing = event(piece("a", finish="stop"), usage=USAGE)
    assert stream.feed(passing) == passing
    assert stream.usage(0).completion == 2


def test_usage_that_makes_no_sense_is_none() -> None:
    nonsenses: list[Any] = [None, {}, [], {"prompt_tokens": -1}, {"prompt_tokens": "3"}, {"prompt_tokens": True}]
    for nonsense in nonsenses:
        assert read_usage(nonsense) is None
    told = read_usage({"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}})
    assert told is not None
    assert told.cached_prompt == 4


def folded(*chunks: dict[str, Any]) -> dict[str, Any]:
    return fold(chunks, "m", USAGE)


def test_folding_joins_texts_by_choice_and_keeps_what_it_does_not_know() -> None:
    answer = folded(
        {"id": "x", "object": "chat.completion.chunk", "model": "file", "choices": [piece(None, 0), piece("b", 1)]},
        {"id": "x", "choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]},
        {"choices": [piece("Hel", 0)], "system_fingerprint": "f"},
        {"choices": [{"index": 0, "delta": {"content": "lo", "reasoning_content": "hm"}}]},
        {"choices": [piece(None, 0, "stop"), piece("c", 1, "length")], "timings": {"ms": 1}},
    )
    assert answer == {
        "id": "x",
        "object": "chat.completion",
        "model": "m",
        "system_fingerprint": "f",
        "timings": {"ms": 1},
        "usage": USAGE,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "reasoning_content": "hm"},
                "finish_reason": "stop",
            },
            {"index": 1, "message": {"role": "assistant", "content": "bc"}, "finish_reason": "length"},
        ],
    }


def test_folding_puts_tool_calls_together() -> None:
    def call(index: int, **more: Any) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": index, **more}]}}]}

    answer = folded(
        call(0, id="a", type="function", function={"name": "look", "arguments": ""}),
        call(0, function={"arguments": '{"x"'}),
        call(1, id="b", type="function", function={"name": "see", "arguments": "{}"}),
        call(0, function={"arguments": ":1}"}),
        {"choices": [piece(None, 0, "tool_calls")]},
    )
    message = answer["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "see", "arguments": "{}"}},
    ]


def test_folding_joins_log_probabilities() -> None:
    answer = folded(
        {"choices": [piece("a", 0, logprobs={"content": [1], "refusal": None})]},
        {"choices": [piece("b", 0, "stop", logprobs={"content": [2], "refusal": None})]},
    )
    assert answer["choices"][0]["logprobs"] == {"content": [1, 2], "refusal": None}


def test_an_answer_without_any_text_is_an_empty_one() -> None:
    assert folded({"choices": [piece(None, 0, "stop")]})["choices"][0]["message"]["content"] == ""
