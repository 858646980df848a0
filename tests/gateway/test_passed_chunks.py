"""A chunk that repeats passes as the bytes that it came in, and nobody can tell: not by what the client gets, not by what is
counted, not by when it ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_gateway.canonical.answer_stream import DONE, AnswerStream
from forebay_gateway.canonical.repeated_chunk import RepeatedChunk, framed
from forebay_gateway.engine_answer import EngineAnswer, TroubledEngine
from forebay_gateway.relayed import Relayed
from tests.gateway.test_http_out_bytes import OK, Talk
from tests.gateway.test_repeated_chunk import TEXTS, roomy, tight, vllm

HEAD = OK + b"transfer-encoding: chunked\r\n\r\n"
END = framed(DONE) + b"0\r\n\r\n"


def event(text: str, finish: str | None = None) -> bytes:
    told = vllm(text)
    told["choices"][0]["finish_reason"] = finish
    return b"data: " + tight(told) + b"\n\n"


@dataclass
class Client:
    """Takes what goes out in one turn, framed or not, and forgets how it came; slow once it has so many pieces."""

    slow_after: int = 1 << 30
    got: list[bytes] = field(default_factory=list)
    as_they_came: int = 0
    has_gone: bool = False
    takes_framed: bool = True

    @property
    def is_full(self) -> bool:
        return len(self.got) >= self.slow_after

    @property
    def wire(self) -> Client | None:
        return self if self.takes_framed else None

    def write(self, chunk: bytes) -> None:
        if self.has_gone:
            raise ConnectionResetError("gone")
        size, _, rest = chunk.partition(b"\r\n")
        assert (len(rest), rest[-2:]) == (int(size, 16) + 2, b"\r\n"), chunk
        self.got.append(rest[:-2])
        self.as_they_came += 1

    def write_now(self, piece: bytes) -> bool:
        if self.has_gone:
            raise ConnectionResetError("gone")
        self.got.append(piece)
        return self.is_full


@dataclass
class Hears:
    """In the attempt's place."""

    cut_at: int = 1 << 30
    counted: list[int] = field(default_factory=list)
    estimated_prompt: int = 9

    def hear_of_piece(self, counted: int) -> bool:
        self.counted.append(counted)
        return counted >= self.cut_at

    def demand_bounded(self, size: int) -> None:
        pass


@dataclass
class Story:
    talk: Talk
    client: Client
    hears: Hears
    stream: AnswerStream
    pouring: asyncio.Task[None]

    def told(self) -> dict[str, Any]:
        return {
            "got": b"".join(self.client.got),
            "counted": self.stream.counted,
            "heard": self.hears.counted[-1:],
            "done": self.stream.is_done,
            "cut": self.stream.is_cut,
            "error": self.stream.error,
            "usage": self.stream.usage(9),
        }


async def begin(
    model: str = "m", *, client: Client | None = None, cut_at: int = 1 << 30, is_bounded: bool = False
) -> Story:
    talk, client, hears = Talk(), client or Client(), Hears(cut_at)
    talk.hear(HEAD)
    await talk.response.wait_head()
    answer, stream = EngineAnswer(talk.response), AnswerStream(model, 1, wants_usage=True)
    relayed = Relayed(hears, cast(Any, client), answer, stream, is_bounded=is_bounded)
    pouring = asyncio.create_task(answer.pour(relayed.pass_now))
    await asyncio.sleep(0)
    return Story(talk, client, hears, stream, pouring)


async def settled(story: Story) -> dict[str, Any]:
    """After the engine has gone too."""
    story.talk.end()
    try:
        await story.pouring
    except (TroubledEngine, OSError) as error:
        return {**story.told(), "raised": str(error)}
    return story.told()


async def follow(
    pieces: list[bytes], model: str, cut_at: int, *, takes_framed: bool = True
) -> tuple[dict[str, Any], int]:
    story = await begin(model, client=Client(takes_framed=takes_framed), cut_at=cut_at)
    story.talk.hear(*pieces)
    return await settled(story), story.client.as_they_came


def in_upper_case(chunk: bytes) -> bytes:
    size, _, rest = chunk.partition(b"\r\n")
    return size.upper() + b"\r\n" + rest


def with_an_extension(chunk: bytes) -> bytes:
    return chunk.replace(b"\r\n", b";x=y\r\n", 1)


def with_zeros(chunk: bytes) -> bytes:
    return b"000" + chunk


@settings(max_examples=60, deadline=None)
@given(
    texts=TEXTS,
    frame=st.sampled_from([lambda chunk: chunk, in_upper_case, with_an_extension, with_zeros]),
    model=st.sampled_from(["m", "another"]),
    cuts=st.lists(st.integers(0, 4000), max_size=6),
    odd=st.sampled_from([b"", b": waiting\n\n", b'data: {"error":{}}\n\n', event("x") + event("y"), event("x")[:40]]),
    cut_at=st.sampled_from([3, 1 << 30]),
)  # fmt: skip
def test_it_makes_no_difference_however_the_bytes_come(
    texts: list[str], frame: Any, model: str, cuts: list[int], odd: bytes, cut_at: int
) -> None:
    events = [event(text) for text in texts]
    if odd:
        events.insert(len(events) // 2, odd)
    chunks = [*(frame(framed(one)) for one in (*events, event("", "stop"))), END]
    whole = b"".join(chunks)
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    # Chunk by chunk to begin with, as nearly all of them come, and then anywhere.
    pieces = [whole[begin:end] for begin, end in pairwise(places)] if len(cuts) > 3 else chunks
    told, _ = asyncio.run(follow(pieces, model, cut_at))
    assert asyncio.run(follow(pieces, model, cut_at, takes_framed=False)) == (told, 0)


@pytest.mark.parametrize("frame", [lambda chunk: chunk, in_upper_case], ids=["in small letters", "in capitals"])
@pytest.mark.parametrize("model", ["m", "another"])
async def test_all_but_the_first_pass_framed(model: str, frame: Any) -> None:
    texts = [f" word {number:0{number}}" for number in range(1, 12)]
    told, framed_ones = await follow([*(frame(framed(event(text))) for text in texts), END], model, 1 << 30)
    assert framed_ones == len(texts) - 1
    assert told["counted"] == len(texts)
    assert told["got"] == b"".join(event(text).replace(b'"m"', f'"{model}"'.encode()) for text in texts)


async def test_what_others_wrote_is_not_taken_for_a_chunk() -> None:
    chunks = RepeatedChunk("content")
    first = event("one")
    chunks.learn(first, "one", first)
    whole = framed(event(" two"))
    assert chunks.told_framed(whole) == whole
    size = len(event(" two"))
    for other in (
        whole[:-1],
        whole + b"\n",
        whole[1:],
        whole * 2,
        b"%x\r\n%b\r\n" % (size + 1, event(" two")),
        b"%x\r\n%b\r\n" % (size - 1, event(" two")),
        b"%x\n%b\r\n" % (size, event(" two")),
        b"%x\r\n%b\n\n" % (size, event(" two")),
        b" " + whole,
        b"",
        b"0\r\n\r\n",
        framed(event(" two").replace(b"two", b'"')),
        framed(event(" two").replace(b"two", b"\xff")),
    ):
        assert chunks.told_framed(other) is None, other


async def test_a_chunk_within_a_chunk_is_text() -> None:
    """Of a chunk that says that it has what looks like another: its bytes are not passed as a chunk of their own."""
    story = await begin()
    story.talk.hear(framed(event("a")), framed(event("b")))
    assert story.client.as_they_came == 1
    inner = framed(event("c"))
    story.talk.hear(b"%x\r\n" % (len(inner) + 7), inner, b"data: 1\r\n")
    assert story.client.as_they_came == 1
    assert "raised" in await settled(story)


async def test_a_slow_client_is_waited_for() -> None:
    story = await begin(client=Client(slow_after=3))
    story.talk.hear(framed(event("a")), framed(event("b")), framed(event("c")))
    await story.pouring
    assert (story.client.as_they_came, story.stream.counted) == (2, 3)
    story.talk.hear(framed(event("d")))
    assert (len(story.client.got), story.stream.counted) == (3, 3), "it waits here"


async def test_a_client_that_has_gone_is_told_of_to_whoever_pours() -> None:
    story = await begin()
    story.talk.hear(framed(event("a")), framed(event("b")))
    story.client.has_gone = True
    story.talk.hear(framed(event("c")), framed(event("d")))
    with pytest.raises(ConnectionResetError):
        await story.pouring


async def test_an_answer_that_is_cut_ends_with_the_piece_after_which_it_was_decided() -> None:
    story = await begin(cut_at=3)
    story.talk.hear(*(framed(event(text)) for text in "abcde"))
    await story.pouring
    assert (story.stream.is_cut, story.stream.counted, story.client.as_they_came) == (True, 3, 2)


async def test_the_next_answer_on_a_connection_begins_anew() -> None:
    story = await begin()
    story.talk.hear(framed(event("a")), framed(event("b")), framed(event("", "stop")), END)
    await story.pouring
    (kept,) = story.talk.kept.free
    assert kept is story.talk.connection
    response = story.talk.ask()
    story.talk.hear(HEAD, framed(event("c")))
    assert await response.read() == event("c")
    assert story.client.as_they_came == 1


async def test_what_is_gathered_passes_no_chunk() -> None:
    story = await begin(is_bounded=True)
    story.talk.hear(framed(event("a")), framed(event("b")))
    assert (story.client.as_they_came, story.stream.counted) == (0, 2)
    story.pouring.cancel()


def test_both_line_lengths_are_known() -> None:
    """Where the size has a digit more, and where it has not."""
    for written in (tight, roomy):
        for length in range(1, 300):
            chunks = RepeatedChunk("content")
            first = b"data: " + written(vllm("one")) + b"\n\n"
            chunks.learn(first, "one", first)
            whole = framed(b"data: " + written(vllm("x" * length)) + b"\n\n")
            assert chunks.told_framed(whole) == whole
