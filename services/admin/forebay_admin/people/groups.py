"""Groups and how they nest: a share of a group is divided among its members and the groups within it. Pure; keeping them is
group_store's job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from forebay.errors import BadInput
from forebay_admin.people.weights import ONE

DEEPEST = 8
"""Levels. Each costs the scheduler a little for every request."""

PRESETS: Mapping[str, Mapping[str, int]] = {
    "university": {"faculty": 3 * ONE, "staff": 2 * ONE, "student": ONE, "admin": 10 * ONE},
}
"""Name → groups with their weights."""


@dataclass(frozen=True, slots=True)
class Group:
    id: str
    name: str
    parent_id: str | None
    weight_milli: int
    paused: bool
    created_at: datetime
    members: int = 0
    """Users right in it."""


def ancestors(groups: Mapping[str, Group], group_id: str | None) -> Iterator[Group]:
    """The group itself first, its outermost ancestor last. It ends also where what is stored is not a tree."""
    seen: set[str] = set()
    while group_id is not None and group_id not in seen and group_id in groups:
        seen.add(group_id)
        yield groups[group_id]
        group_id = groups[group_id].parent_id


def demand_place(groups: Mapping[str, Group], group: Group | None, parent: Group | None) -> None:
    """Whether `group` (None: a new one) may stand in `parent` (None: outermost). Raises BadInput."""
    above = list(ancestors(groups, parent.id if parent is not None else None))
    if group is not None and parent is not None and any(one.id == group.id for one in above):
        path = " in ".join(one.name for one in above)
        where = "itself" if parent.id == group.id else f"{parent.name}, which is within it ({path})"
        raise BadInput(f"{group.name} cannot be in {where}.")
    levels = len(above) + (_height(groups, group.id) if group is not None else 1)
    if levels > DEEPEST:
        raise BadInput(f"Groups nest at most {DEEPEST} levels deep; this would make {levels}.")


def in_order(groups: Iterable[Group]) -> list[Group]:
    """Parents before their children, siblings by name."""
    every = sorted(groups, key=lambda group: group.name.lower())
    known = {group.id for group in every}
    within: dict[str | None, list[Group]] = {}
    for group in every:
        within.setdefault(group.parent_id if group.parent_id in known else None, []).append(group)
    ordered: list[Group] = []
    waiting = list(reversed(within.get(None, ())))
    while waiting:
        group = waiting.pop()
        ordered.append(group)
        waiting += reversed(within.get(group.id, ()))
    return ordered


def preset_named(name: str) -> Mapping[str, int]:
    """Raises BadInput."""
    preset = PRESETS.get(name)
    if preset is None:
        raise BadInput(f"There is no preset {name}; there are {', '.join(PRESETS)}.")
    return preset


def _height(groups: Mapping[str, Group], group_id: str) -> int:
    """Levels from this group down, itself included."""
    level, height = [group_id], 0
    while level and height <= DEEPEST:
        height += 1
        level = [group.id for group in groups.values() if group.parent_id in level]
    return height
