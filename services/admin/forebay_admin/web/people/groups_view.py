"""Groups as the console shows them: a tree, and one of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forebay.wire.v1 import admin_pb2
from forebay_admin.web.paging import address, step
from forebay_admin.web.people.amounts import CAP_WORDS, caps_told, unix, weight
from forebay_admin.web.people.limits_view import member_budget_words

PATH = "/console/groups"


@dataclass(frozen=True, slots=True)
class GroupRow:
    name: str
    path: str
    depth: int
    """0 is outermost."""
    parent: str
    weight: str
    share: str
    """Of what its siblings have together."""
    members: int
    is_paused: bool


@dataclass(frozen=True, slots=True)
class GroupView:
    row: GroupRow
    created_at: float | None
    above: Sequence[str]
    """The outermost first."""
    children: Sequence[GroupRow]
    may_lie_in: Sequence[str]
    """Groups that can become its parent."""
    members_path: str
    limits_path: str
    usage_path: str
    audit_path: str


@dataclass(frozen=True, slots=True)
class MembersStart:
    """What new members of a group start with."""

    caps: Sequence[tuple[str, int]]
    budgets: Sequence[str]


def group_rows(groups: Sequence[admin_pb2.Group]) -> Sequence[GroupRow]:
    """Each below the group that it lies in, siblings by name."""
    children: dict[str, list[admin_pb2.Group]] = {}
    known = {group.id for group in groups}
    for group in groups:
        children.setdefault(group.parent_id if group.parent_id in known else "", []).append(group)
    found: list[GroupRow] = []

    def walk(parent_id: str, depth: int) -> None:
        siblings = children.get(parent_id, [])
        together = sum(one.weight_milli for one in siblings)
        for group in sorted(siblings, key=lambda one: one.name.lower()):
            found.append(_row(group, depth, together))
            walk(group.id, depth + 1)

    walk("", 0)
    return tuple(found)


def group_view(groups: Sequence[admin_pb2.Group], name: str) -> GroupView | None:
    """None where there is none of that name, whatever its letters' case."""
    rows = group_rows(groups)
    by_id = {group.id: group for group in groups}
    group = next((one for one in groups if one.name.lower() == name.lower()), None)
    if group is None:
        return None
    within = _within(groups, group.id)
    above: list[str] = []
    parent = by_id.get(group.parent_id)
    while parent is not None and len(above) < len(groups):
        above.insert(0, parent.name)
        parent = by_id.get(parent.parent_id)
    return GroupView(
        row=next(row for row in rows if row.name == group.name),
        created_at=unix(group.created_at_us),
        above=above,
        children=tuple(row for row in rows if row.parent == group.name),
        may_lie_in=tuple(row.name for row in rows if row.name not in within),
        members_path=address("/console/users", {}, group=group.name),
        limits_path=f"/console/limits/group/{step(group.name)}",
        usage_path=address("/console/usage", {}, group=group.name),
        audit_path=address("/console/audit", {}, subject=group.name),
    )


def members_start(limits: Sequence[admin_pb2.MemberLimits]) -> MembersStart:
    if not limits:
        return MembersStart((), ())
    one = limits[0]
    return MembersStart(
        tuple((CAP_WORDS[name], most) for name, most in caps_told(one).items()),
        tuple(member_budget_words(budget) for budget in one.budgets),
    )


def _row(group: admin_pb2.Group, depth: int, together: int) -> GroupRow:
    return GroupRow(
        group.name,
        f"{PATH}/{step(group.name)}",
        depth,
        group.parent_name,
        weight(group.weight_milli),
        f"{100 * group.weight_milli / together:.3g} %" if together else "—",
        group.members,
        group.paused,
    )


def _within(groups: Sequence[admin_pb2.Group], group_id: str) -> set[str]:
    """The names of the group and of those that lie in it."""
    inside = {group_id}
    grew = True
    while grew:
        more = {one.id for one in groups if one.parent_id in inside} - inside
        inside |= more
        grew = bool(more)
    return {one.name for one in groups if one.id in inside}
