"""Hashes of a prompt's beginning: equal where beginnings are equal, for one model and one tenant."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.canonical.prefix_hashes import BLOCK_BYTES, MOST_BLOCKS, chat_hashes, hashes_of


def chat(*texts: str, **more: Any) -> dict[str, Any]:
    roles = ("system", *("user", "assistant") * len(texts))
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)], **more}


def shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def test_the_next_turn_of_a_conversation_shares_all_whole_blocks_of_the_last() -> None:
    system, question, answer = "s" * 5000, "q" * 3000, "a" * 3000
    first = chat_hashes("m", "u", chat(system, question))
    second = chat_hashes("m", "u", chat(system, question, answer, "and then?"))
    assert len(first) == 8000 // BLOCK_BYTES
    assert second[: len(first)] == first
    assert len(second) > len(first)


def test_a_changed_message_leaves_the_hashes_before_it_as_they_were() -> None:
    one, other = chat("s" * 5000, "first" * 2000), chat("s" * 5000, "other" * 2000)
    assert shared(chat_hashes("m", "u", one), chat_hashes("m", "u", other)) == 5000 // BLOCK_BYTES


def test_model_tenant_tools_and_roles_are_part_of_it() -> None:
    body = chat("s" * 5000)
    usual = chat_hashes("m", "u", body)
    as_user = {"messages": [{"role": "user", "content": "s" * 5000}]}
    for other in (
        chat_hashes("m2", "u", body),
        chat_hashes("m", "u2", body),
        chat_hashes("m", "u", {**body, "tools": [{"type": "function"}]}),
        chat_hashes("m", "u", as_user),
    ):
        assert shared(usual, other) == 0


def test_a_text_is_the_same_prompt_as_a_list_with_that_text() -> None:
    text = "x" * 5000
    parts = {"messages": [{"role": "system", "content": [{"type": "text", "text": text}]}]}
    assert chat_hashes("m", "u", parts) == chat_hashes("m", "u", chat(text))


def test_images_and_tool_calls_count() -> None:
    def seen(url: str, name: str) -> tuple[int, ...]:
        image = {"type": "image_url", "image_url": {"url": url}}
        call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": name}}]}
        return chat_hashes(
            "m", "u", {"messages": [{"role": "user", "content": [image]}, call, *chat("x" * 2048)["messages"]]}
        )

    assert len(seen("data:" + "a" * 3000, "f")) == 2
    assert shared(seen("data:" + "a" * 3000, "f"), seen("data:" + "b" * 3000, "f")) == 0
    assert shared(seen("data:" + "a" * 3000, "f"), seen("data:" + "a" * 3000, "g")) == 1


def test_a_short_prompt_has_none_and_a_long_one_no_more_than_the_most() -> None:
    assert chat_hashes("m", "u", chat("short")) == ()
    assert len(chat_hashes("m", "u", chat("x" * 1_000_000))) == MOST_BLOCKS


def test_odd_messages_do_no_harm() -> None:
    deep: Any = "x"
    for _ in range(400):
        deep = [deep]
    for message in (
        {},
        {"role": 1},
        {"role": [deep], "content": {"a": 1}},
        {"content": [None, 1, "x", {"type": "text"}]},
    ):
        assert chat_hashes("m", "u", {"messages": [message]}) == ()
    assert chat_hashes("m", "u", {"messages": [{"role": "user", "content": "x", "more": deep}]}) == ()


def test_other_processes_find_the_same_numbers() -> None:
    text = "from forebay_gateway.canonical import prefix_hashes as p; print(p.hashes_of('m', 'u', b'x' * 4096))"
    told = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout
    assert told.strip() == str(hashes_of("m", "u", b"x" * 4096))


@given(st.binary(min_size=1, max_size=40), st.binary(max_size=40), st.binary(max_size=40), st.integers(1, 200))
def test_as_many_are_equal_as_blocks_are(start: bytes, one: bytes, other: bytes, times: int) -> None:
    a, b = hashes_of("m", "u", start * times + one * 99), hashes_of("m", "u", start * times + other * 99)
    x, y = start * times + one * 99, start * times + other * 99
    common = next((n for n, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y)))
    assert shared(a, b) == min(MOST_BLOCKS, common // BLOCK_BYTES)
    assert all(0 <= number < 1 << 64 for number in (*a, *b))
