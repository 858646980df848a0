"""Groups nest as a tree, never as a ring."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import BadInput
from forebay_admin.people.groups import DEEPEST, PRESETS, Group, ancestors, demand_place, in_order
from forebay_admin.people.weights import MOST, demand_weight

NOW = datetime(2027, 1, 15, tzinfo=UTC)


def tree(**parents: str) -> dict[str, Group]:
    """`b="a"`: b is within a; an empty parent is none."""
    return {name: Group(name, name, parent or None, 1000, False, NOW) for name, parent in parents.items()}


def test_a_group_cannot_be_in_itself_or_in_one_that_is_within_it() -> None:
    known = tree(a="", b="a", c="b")
    with pytest.raises(BadInput, match=r"^a cannot be in itself"):
        demand_place(known, known["a"], known["a"])
    with pytest.raises(BadInput, match=r"^a cannot be in c, which is within it \(c in b in a\)"):
        demand_place(known, known["a"], known["c"])
    demand_place(known, known["c"], known["a"])
    demand_place(known, known["b"], None)


def test_groups_nest_only_so_deep_whichever_end_grows() -> None:
    names = [f"g{n}" for n in range(DEEPEST)]
    known = tree(**{name: names[n - 1] if n else "" for n, name in enumerate(names)}, top="")
    with pytest.raises(BadInput, match="nest at most 8 levels deep; this would make 9"):
        demand_place(known, None, known[names[-1]])
    with pytest.raises(BadInput, match="nest at most 8 levels deep; this would make 9"):
        demand_place(known, known[names[0]], known["top"])
    demand_place(known, None, known[names[-2]])


def test_parents_stand_before_their_children() -> None:
    known = tree(zoo="", bee="zoo", ape="zoo", ant="", cub="bee", lost="nowhere")
    assert [group.name for group in in_order(known.values())] == ["ant", "lost", "zoo", "ape", "bee", "cub"]


def test_a_ring_that_somebody_wrote_past_us_is_walked_once() -> None:
    known = tree(a="b", b="a")
    assert [group.name for group in ancestors(known, "a")] == ["a", "b"]


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=40))
def test_whatever_moves_are_tried_it_stays_a_tree(moves: list[tuple[int, int]]) -> None:
    known = tree(**{f"g{n}": "" for n in range(8)})
    for child, parent in moves:
        group, above = known[f"g{child}"], known[f"g{parent}"]
        try:
            demand_place(known, group, above)
        except BadInput:
            continue
        known[group.id] = Group(group.id, group.name, above.id, 1000, False, NOW)
    assert len(in_order(known.values())) == 8, "whatever is on a ring is under no outermost group"
    for name in known:
        assert len(list(ancestors(known, name))) <= DEEPEST


@pytest.mark.parametrize("milli", [0, -1, MOST + 1])
def test_a_weight_that_is_no_share_is_refused(milli: int) -> None:
    with pytest.raises(BadInput, match="A weight is"):
        demand_weight(milli)


def test_the_universities_preset_has_its_four_groups() -> None:
    assert PRESETS["university"] == {"faculty": 3000, "staff": 2000, "student": 1000, "admin": 10_000}
