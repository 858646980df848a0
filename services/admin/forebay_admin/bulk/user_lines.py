"""A file of users: what each line orders. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from forebay.errors import BadInput
from forebay_admin.bulk.sheet import Cells, Flaw, read_sheet
from forebay_admin.people.people import EVERYONE, Role, UserOrder, demand_name

COLUMNS = ("name", "group", "role")
_NEEDED = ("name",)


@dataclass(frozen=True, slots=True)
class UserLine:
    number: int
    order: UserOrder


@dataclass(frozen=True, slots=True)
class UserFile:
    lines: Sequence[UserLine]
    flaws: Sequence[Flaw]


def read_users(text: str) -> UserFile:
    sheet = read_sheet(text, COLUMNS, _NEEDED, COLUMNS)
    flaws = list(sheet.flaws)
    lines: list[UserLine] = []
    seen: dict[str, int] = {}
    parsed: dict[tuple[str, str], Any] = {}
    for line in sheet.lines:
        cells = Cells(line, flaws, parsed)
        name = cells.read("name", lambda text: demand_name(text, "A user's name"), "")
        group = cells.read("group", lambda text: demand_name(text, "A group's name"), EVERYONE)
        role = cells.read("role", _role, Role.MEMBER)
        if name and (before := seen.setdefault(name.lower(), line.number)) != line.number:
            cells.refuse("name", f"{name} stands on line {before} already.")
        if cells.are_right:
            lines.append(UserLine(line.number, UserOrder(name, group, role)))
    return UserFile(lines, flaws)


def _role(text: str) -> Role:
    try:
        return Role(text.lower())
    except ValueError as error:
        raise BadInput(f"There is no role {text[:40]!r}; there are {', '.join(Role)}.") from error
