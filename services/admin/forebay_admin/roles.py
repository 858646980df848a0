"""Which role may make which call, and how far it reaches. Pure; who calls is `access`'s business.

The matrix is the whole of it: a call that does not stand here nobody may make."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from forebay_admin.people import Role


class Reach(StrEnum):
    NONE = "none"
    OWN = "own"
    """What belongs to the caller: their keys, their usage."""
    ALL = "all"


_NONE, _OWN, _ALL = Reach.NONE, Reach.OWN, Reach.ALL

_MATRIX: Mapping[str, tuple[Reach, Reach, Reach, Reach]] = {
    # call                member auditor operator admin
    "CreateKey": (_OWN, _OWN, _OWN, _ALL),
    "ListKeys": (_OWN, _ALL, _ALL, _ALL),
    "RevokeKey": (_OWN, _OWN, _OWN, _ALL),
    "AddUser": (_NONE, _NONE, _NONE, _ALL),
    "ListUsers": (_NONE, _ALL, _ALL, _ALL),
    "RegisterBackend": (_NONE, _NONE, _ALL, _ALL),
    "ShowBackends": (_NONE, _ALL, _ALL, _ALL),
    "UnregisterBackend": (_NONE, _NONE, _ALL, _ALL),
    "InviteNode": (_NONE, _NONE, _ALL, _ALL),
    "ShowNodes": (_NONE, _ALL, _ALL, _ALL),
    "ShowModels": (_NONE, _ALL, _ALL, _ALL),
    "ShowUsage": (_OWN, _ALL, _ALL, _ALL),
}
_COLUMN = {role: column for column, role in enumerate(Role)}


def reach(role: Role, call: str) -> Reach:
    row = _MATRIX.get(call)
    return row[_COLUMN[role]] if row else Reach.NONE


def calls() -> tuple[str, ...]:
    """Every call that somebody may make."""
    return tuple(_MATRIX)
