"""Which backend was given which beginnings of prompts, against a plain model of it."""

from __future__ import annotations

from collections import OrderedDict

from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_scheduler.placing.prefix_index import PrefixIndex

BLOCKS = 6


class NaiveIndex:
    """Each backend's cache as a list, looked at one by one."""

    def __init__(self) -> None:
        self.given: dict[int, OrderedDict[int, None]] = {}

    def insert(self, number: int, hashes: list[int]) -> None:
        given = self.given[number]
        for block in reversed(hashes):
            given.pop(block, None)
            given[block] = None
        while len(given) > BLOCKS:
            given.popitem(last=False)

    def depth(self, number: int, hashes: list[int]) -> int:
        for depth, block in enumerate(hashes):
            if block not in self.given[number]:
                return depth
        return len(hashes)


prompts = st.lists(st.integers(0, 12), max_size=5, unique=True)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.just(0), st.just([])),
        st.tuples(st.just("leave"), st.integers(0, 4), st.just([])),
        st.tuples(st.just("forget"), st.integers(0, 4), st.just([])),
        st.tuples(st.just("insert"), st.integers(0, 4), prompts),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(steps, prompts)
def test_it_finds_what_a_look_at_every_cache_finds(steps: list[tuple[str, int, list[int]]], asked: list[int]) -> None:
    index = PrefixIndex(block_tokens=512)
    naive = NaiveIndex()
    for what, which, hashes in steps:
        if what == "enter":
            number = index.enter(BLOCKS * 512)
            assert number not in naive.given
            naive.given[number] = OrderedDict()
            continue
        if not naive.given:
            continue
        number = sorted(naive.given)[which % len(naive.given)]
        if what == "leave":
            index.leave(number)
            del naive.given[number]
        elif what == "forget":
            index.forget(number)
            naive.given[number].clear()
        else:
            index.insert(number, hashes)
            naive.insert(number, hashes)
    among = sum(1 << number for number in naive.given)
    found = {number: depth for depth, mask in index.levels(asked, among) for number in range(64) if mask >> number & 1}
    assert found == {number: depth for number in naive.given if (depth := naive.depth(number, asked))}
    assert all(index.depth(number, asked) == naive.depth(number, asked) for number in naive.given)
    depths = [depth for depth, _ in index.levels(asked, among)]
    assert depths == sorted(set(depths))


def test_the_end_of_a_prompt_is_evicted_before_its_start() -> None:
    index = PrefixIndex(block_tokens=512)
    number = index.enter(4 * 512)
    index.insert(number, [1, 2, 3, 4])
    index.insert(number, [9])
    assert index.depth(number, [1, 2, 3, 4]) == 3


def test_a_backend_that_left_is_forgotten_bit_by_bit_and_its_number_is_given_again() -> None:
    index = PrefixIndex(block_tokens=512)
    gone, stays = index.enter(1000 * 512), index.enter(512)
    index.insert(gone, list(range(100)))
    index.leave(gone)
    assert index.enter(512) not in (gone, stays)
    for block in range(1000, 1005):
        index.insert(stays, [block])
    assert len(index) == 1
    assert index.enter(512) == gone
    assert index.levels(list(range(100)), 1 << gone) == []


def test_a_smaller_cache_keeps_what_was_used_last() -> None:
    index = PrefixIndex(block_tokens=512)
    number = index.enter(4 * 512)
    index.insert(number, [1, 2])
    index.insert(number, [7, 8])
    index.resize(number, 2 * 512)
    assert (index.depth(number, [1, 2]), index.depth(number, [7, 8])) == (0, 2)
