"""Who belongs where."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forebay_scheduler.fairness.shares import Shares
from forebay_scheduler.request import GroupId, LedgerId, Request, UserId
from forebay_scheduler.terms import SMALLEST_WEIGHT, GroupTerms, UserTerms

names = st.sampled_from("abcdef")


def group(name: str, parent: str | None = None, weight: float = 1.0) -> GroupTerms:
    return GroupTerms(GroupId(name), GroupId(parent) if parent else None, weight)


def asking(user: str, told: str = "") -> Request:
    return Request(LedgerId(b"1"), UserId(user), "m", 0.0, group=GroupId(told))


def test_policy_knows_better_than_the_gateway_where_it_knows_the_user() -> None:
    shares = Shares()
    shares.change(
        users=[UserTerms(UserId("ann"), GroupId("law")), UserTerms(UserId("ben"))],
        groups=[group("math", "science"), group("law")],
    )
    assert shares.groups_of(asking("ann", "math")) == ("law",)
    assert shares.groups_of(asking("ben", "math")) == ()
    assert shares.groups_of(asking("cid", "math")) == ("science", "math")
    assert [*shares.groups_of(asking("cid", "unheard of"))] == ["unheard of"]
    assert shares.groups_of(asking("cid")) == ()


def test_a_removed_user_and_a_removed_group_are_unknown_again() -> None:
    shares = Shares()
    shares.change(users=[UserTerms(UserId("ann"), GroupId("law"), 3.0)], groups=[group("law", "arts", 2.0)])
    shares.change(removed_users=[UserId("ann")], removed_groups=[GroupId("law")])
    assert shares.groups_of(asking("ann", "law")) == ("law",)
    assert (shares.weight_of_user(UserId("ann")), shares.weight_of_group(GroupId("law"))) == (1.0, 1.0)


def test_the_edge_that_closes_a_cycle_is_ignored_and_named() -> None:
    shares = Shares()
    shares.change(groups=[group("a", "b"), group("b", "c"), group("c", "a"), group("d", "d"), group("e", "a")])
    assert [*shares.cycles] == ["c", "d"]
    assert shares.path_of(GroupId("e")) == ("c", "b", "a", "e")
    assert [*shares.path_of(GroupId("d"))] == ["d"]
    shares.change(groups=[group("c")])
    assert [*shares.cycles] == ["d"]


@given(st.lists(st.tuples(names, st.none() | names), max_size=12))
def test_whatever_the_edges_every_group_has_one_path_and_their_order_does_not_matter(
    edges: list[tuple[str, str | None]],
) -> None:
    last = dict(edges)
    one, other = Shares(), Shares()
    for name, parent in last.items():
        one.change(groups=[group(name, parent)])
    other.change(groups=[group(name, parent) for name, parent in reversed(last.items())])
    for name in last:
        path = one.path_of(GroupId(name))
        assert path == other.path_of(GroupId(name))
        assert len(set(path)) == len(path)
        assert all(one.path_of(inner) == path[: place + 1] for place, inner in enumerate(path))
    assert one.cycles == other.cycles


def test_what_is_not_positive_is_the_smallest_weight() -> None:
    shares = Shares()
    for told in (0.0, -1.0, float("nan"), SMALLEST_WEIGHT / 2):
        shares.change(groups=[group("law", weight=told)])
        assert shares.weight_of_group(GroupId("law")) == SMALLEST_WEIGHT
