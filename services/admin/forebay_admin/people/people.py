"""Users and groups: what they are and which names they may have. Pure; keeping them is people_store's job."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from forebay.errors import BadInput

EVERYONE = "everyone"
"""The group of a user for whom none was named."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


class Role(StrEnum):
    """Each may do what the one before it may, and more; see `roles`."""

    MEMBER = "member"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class User:
    id: str
    name: str
    group_id: str
    group_name: str
    role: Role
    created_at: datetime
    disabled: bool = False
    weight_milli: int = 1000
    """Share against others of the group."""
    max_queued: int = 0
    """Requests; 0 is the scheduler's default."""
    paused: bool = False
    """What they send waits."""
    is_service_account: bool = False
    """A program: it has no password, and signs in nowhere."""


@dataclass(frozen=True, slots=True)
class UserOrder:
    """A user to be added."""

    name: str
    group: str
    role: Role
    is_service_account: bool = False
    owner_group_id: str | None = None
    """Who answers for it."""


def order_user(name: str, group: str, role: Role | None) -> UserOrder:
    """Raises BadInput for a name that cannot be one."""
    return UserOrder(
        demand_name(name, "A user's name"), demand_name(group or EVERYONE, "A group's name"), role or Role.MEMBER
    )


def demand_name(name: str, what: str) -> str:
    """`name`, when it can be the name of a user or group. Raises BadInput."""
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"{what} is 1 to 64 letters, digits or . _ @ + - and begins with a letter or digit; {name!r} is not."
        )
    return name


def new_user_id() -> str:
    return f"user_{secrets.token_hex(8)}"


def new_group_id() -> str:
    return f"group_{secrets.token_hex(8)}"
