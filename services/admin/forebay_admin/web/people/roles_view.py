"""What each role may, as the console shows it: permissions by roles, and each call. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from forebay.wire.v1 import identity_pb2
from forebay_admin.people.people import Role
from forebay_admin.people.permissions import GROUPS
from forebay_admin.people.roles import Reach, calls, reach
from forebay_admin.web.paging import step

PATH = "/console/roles"
WORDS = {Reach.ALL: "all", Reach.OWN: "own", Reach.NONE: "—"}
PART = "part"
_TONES = {WORDS[Reach.ALL]: "good", WORDS[Reach.OWN]: "", PART: "warn", WORDS[Reach.NONE]: ""}


@dataclass(frozen=True, slots=True)
class Cell:
    word: str
    tone: str
    title: str
    """Which calls are meant, where the word does not say."""


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    cells: Sequence[Cell]
    """One a role, in the order of Role."""


@dataclass(frozen=True, slots=True)
class CustomRoleRow:
    name: str
    path: str
    about: str
    permissions: Sequence[str]
    users: int


def matrix() -> Sequence[Line]:
    """A line for each permission."""
    return tuple(Line(name, tuple(_of_many(role, members) for role in Role)) for name, members in GROUPS.items())


def call_matrix() -> Sequence[Line]:
    """A line for each call."""
    return tuple(Line(call, tuple(_cell(WORDS[reach(role, call)]) for role in Role)) for call in sorted(calls()))


def custom_role(role: identity_pb2.CustomRole) -> CustomRoleRow:
    return CustomRoleRow(role.name, f"{PATH}/{step(role.name)}", role.about, tuple(role.permissions), role.users)


def _of_many(role: Role, members: Iterable[str]) -> Cell:
    reaches = {call: reach(role, call) for call in sorted(members)}
    if len(set(reaches.values())) == 1:
        return _cell(WORDS[next(iter(reaches.values()))])
    told = [call if far is Reach.ALL else f"{call} (own)" for call, far in reaches.items() if far is not Reach.NONE]
    return Cell(PART, _TONES[PART], ", ".join(told))


def _cell(word: str) -> Cell:
    return Cell(word, _TONES[word], "")
