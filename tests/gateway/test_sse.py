"""Server-sent events come out whole, however the bytes were cut on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.canonical.sse import EventTooLong, Splitter


def split(stream: bytes, cuts: list[int] | None = None) -> list[bytes]:
    splitter, found, begin = Splitter(), [], 0
    for cut in sorted({min(cut, len(stream)) for cut in cuts or []} | {len(stream)}):
        found += [event.data for event in splitter.feed(stream[begin:cut])]
        begin = cut
    rest = splitter.rest()
    return [*found, *([rest.data] if rest else [])]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_line_end_is_understood(end: bytes) -> None:
    stream = b"data: one" + end + end + b": a comment" + end + end + b"data:two" + end + b"data: three" + end + end
    assert split(stream) == [b"one", b"two\nthree"]


def test_a_name_and_the_raw_bytes_are_kept() -> None:
    (event,) = Splitter().feed(b"event: error\r\ndata: {}\r\n\r\n")
    assert (event.name, event.data, event.raw) == (b"error", b"{}", b"event: error\r\ndata: {}\r\n\r\n")


def test_an_event_cut_inside_its_last_line_end_goes_out_whole_and_at_once() -> None:
    splitter = Splitter()
    (one,) = splitter.feed(b"data: one\r\n\r")
    (two,) = splitter.feed(b"\ndata: two\r\n\r\n")
    assert (one.raw, two.raw) == (b"data: one\r\n\r\n", b"data: two\r\n\r\n")


def test_comments_and_blank_lines_alone_are_no_events() -> None:
    assert split(b"\n\n: waiting\n\n\n\nid: 7\n\ndata: x\n\n") == [b"x"]


def test_what_has_no_blank_line_at_the_end_is_still_told() -> None:
    assert split(b"data: one\n\ndata: [DONE]") == [b"one", b"[DONE]"]


def test_an_event_without_end_is_refused() -> None:
    splitter = Splitter(longest=100)
    splitter.feed(b"data: " + b"x" * 90)
    with pytest.raises(EventTooLong):
        splitter.feed(b"y" * 20)


texts = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)
ends = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.tuples(texts, ends, ends), max_size=6), st.lists(st.integers(0, 200), max_size=12))
def test_cuts_change_nothing(events: list[tuple[str, bytes, bytes]], cuts: list[int]) -> None:
    stream = b"".join(b"data: " + text.encode() + one + two for text, one, two in events if one + two != b"\r\n")
    wanted = [text.encode() for text, one, two in events if one + two != b"\r\n"]
    assert split(stream, cuts) == wanted
