"""Bodies that are short to send and long to read."""

from __future__ import annotations

import tracemalloc

import pytest

from forebay_gateway.canonical.fields import MOST_VALUES, parse_object
from forebay_gateway.refused import BodyTooLarge

_MOST_BODY = 32 << 20


@pytest.mark.parametrize("value", ["{}", "[]", '{"a":0}', "0", '"a1"', "1.5", '{"a":[{}]}'])
def test_a_body_of_many_small_values_is_refused_before_it_is_read(value: str) -> None:
    one = value.encode() + b","
    body = b'{"model":"m","messages":[' + one * ((_MOST_BODY - 100) // len(one)) + value.encode() + b"]}"
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge, match="2000000 values"):
            parse_object(body, "`model` and `messages`")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_long_text_and_many_tokens_are_read() -> None:
    code = b"for name, value in {one[0]: two} if so: do(name, value)  # as before\\n"
    text = parse_object(b'{"input":"' + code * (_MOST_BODY // len(code)) + b'"}', "`input`")
    assert len(text["input"]) > 30_000_000
    tokens = parse_object(b'{"input":[' + b"12345," * (MOST_VALUES - 2) + b"0]}", "`input`")
    assert len(tokens["input"]) == MOST_VALUES - 1
