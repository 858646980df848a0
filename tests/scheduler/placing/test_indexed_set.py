"""A set that can be drawn from in constant time, against a plain one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forebay_scheduler.placing.indexed_set import IndexedSet


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9))))
def test_it_holds_what_a_set_holds_and_every_position_has_a_member(steps: list[tuple[bool, int]]) -> None:
    members: IndexedSet[int] = IndexedSet()
    truth: set[int] = set()
    for adds, member in steps:
        if adds:
            members.add(member)
            truth.add(member)
        else:
            members.discard(member)
            truth.discard(member)
        assert len(members) == len(truth)
        assert {members[position] for position in range(len(members))} == truth == set(members)
        assert all((member in members) == (member in truth) for member in range(10))
