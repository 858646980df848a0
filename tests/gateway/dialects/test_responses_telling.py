"""A response in the background is told again from any number on, while it runs and when it is over: the same events, each
once, under the numbers that they had."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.dialects.responses.answer import ResponseTranslation
from forebay_gateway.dialects.responses.echo import echo_of
from forebay_gateway.dialects.responses.stream import ResponseWriter
from forebay_gateway.dialects.responses.telling import Telling, telling_of
from tests.gateway.dialects.test_responses_answer import USAGE, any_answer, chunk, orderly_answer

Json = dict[str, Any]
ERROR = {"code": "server_error", "message": "It broke."}
ENDINGS = st.sampled_from(["ended", "failed", "cancelled"])


class Shouting:
    """Conceals, visibly."""

    def conceal(self, text: str) -> str:
        return f"!{text}"

    def reveal(self, concealed: str) -> str | None:
        return concealed.removeprefix("!")


def queued() -> tuple[ResponseTranslation, Json]:
    count: Counter[str] = Counter()

    def named(prefix: str) -> str:
        count[prefix] += 1
        return f"{prefix}_{count[prefix]}"

    tools = [{"type": "custom", "name": "f0"}]
    translation = ResponseTranslation("m", echo_of({}, tools), named, thoughts=Shouting())
    return translation, translation.queue(1800.5)


def all_of(telling: Telling, after: int = -1) -> list[bytes]:
    told = list(telling.events(after))
    assert [number for number, _ in told] == list(range(after + 1, after + 1 + len(told)))
    return [event for _, event in told]


def cut_up(stream: bytes) -> list[bytes]:
    return [block + b"\n\n" for block in stream.split(b"\n\n")[:-1]]


def through_the_store(response: Json, cuts: Json) -> Telling:
    return telling_of(orjson.loads(orjson.dumps(response)), orjson.loads(orjson.dumps(cuts)))


def write_all(chunks: list[Json], translation: ResponseTranslation, ending: str) -> list[bytes]:
    """What a client who stays gets, from the third event on."""
    writer = translation.writer(0)
    out = b"".join(map(writer.write, chunks))
    if ending == "ended":
        out += writer.end(USAGE)
        translation.telling.final = translation.response
    else:
        translation.telling.final = translation.broken(ending, ERROR if ending == "failed" else None)
    return cut_up(out)


@given(st.one_of(any_answer(), orderly_answer()), ENDINGS, st.data())
def test_any_answer_is_told_again_from_any_number(chunks: list[Json], ending: str, data: st.DataObject) -> None:
    translation, announced = queued()
    written = write_all(chunks, translation, ending)
    telling = translation.telling
    told = all_of(telling)
    assert [orjson.loads(event.split(b"data: ")[1])["type"] for event in told[:2]] == [
        "response.created",
        "response.queued",
    ]
    assert told[2 : 2 + len(written)] == written
    assert telling.final is not None
    assert (telling.final["status"] in ("completed", "incomplete")) == (ending == "ended")
    assert telling.final["created_at"] == announced["created_at"] == 1800
    after = data.draw(st.integers(-1, len(told)))
    assert all_of(telling, after) == told[after + 1 :]
    assert all_of(through_the_store(telling.final, telling.cuts()), after) == told[after + 1 :]


@given(st.one_of(any_answer(), orderly_answer()), st.data())
def test_one_who_comes_and_goes_while_it_is_written_misses_nothing(chunks: list[Json], data: st.DataObject) -> None:
    translation, announced = queued()
    here: list[bytes] = []
    elsewhere: list[bytes] = []
    writer: ResponseWriter | None = None
    for chunk_of_answer in [None, *chunks]:
        if chunk_of_answer is not None:
            writer = writer or translation.writer(0)
            writer.write(chunk_of_answer)
        telling = translation.telling
        if data.draw(st.booleans()):
            here += all_of(telling, len(here) - 1)
        if data.draw(st.booleans()):
            shown = through_the_store(telling.so_far(announced), telling.cuts())
            elsewhere += all_of(shown, len(elsewhere) - 1)
    assert writer is not None
    writer.end(USAGE)
    translation.telling.final = translation.response
    here += all_of(translation.telling, len(here) - 1)
    assert here == all_of(translation.telling)
    assert translation.response is not None
    elsewhere += all_of(through_the_store(translation.response, translation.telling.cuts()), len(elsewhere) - 1)
    assert elsewhere == here


def test_one_that_is_being_told_grows_meanwhile() -> None:
    translation, _ = queued()
    writer = translation.writer(0)
    writer.write(chunk(content="a"))
    telling = translation.telling.events()
    first = [next(telling) for _ in range(6)]
    writer.write(chunk(content="b"))
    writer.end(USAGE)
    translation.telling.final = translation.response
    assert [event for _, event in [*first, *telling]] == all_of(translation.telling)


def test_an_attempt_that_came_to_nothing_is_not_told() -> None:
    translation, _ = queued()
    translation.writer(0)
    assert not translation.telling.has_begun
    writer = translation.writer(0)
    writer.write(chunk(content="a"))
    assert translation.telling.has_begun
    assert len(all_of(translation.telling)) == 6


def test_log_probabilities_are_told_with_their_pieces() -> None:
    def with_logprobs(text: str) -> Json:
        return chunk(content=text, logprobs={"content": [{"token": text, "logprob": -0.5, "bytes": [1]}]})

    translation, _ = queued()
    chunks = [with_logprobs("a"), with_logprobs("b"), chunk(finish="stop")]
    written = write_all(chunks, translation, "ended")
    telling = translation.telling
    assert telling.final is not None
    again = all_of(through_the_store(telling.final, telling.cuts()))
    assert again[2:] == written
    assert b'"delta":"b","logprobs":[{"token":"b"' in written[4]


def test_one_that_no_engine_ever_began_ends_after_its_announcement() -> None:
    translation, _ = queued()
    telling = translation.telling
    telling.final = translation.broken("failed", ERROR)
    assert telling.final is not None
    assert (telling.final["status"], telling.final["error"], telling.final["output"]) == ("failed", ERROR, [])
    assert all_of(through_the_store(telling.final, telling.cuts())) == all_of(telling)
    assert len(all_of(telling)) == 3
