"""Users as the console shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forebay.wire.v1 import admin_pb2, identity_pb2
from forebay_admin.row_files import Column, Kind, Row
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.paging import address, step
from forebay_admin.web.people.amounts import ROLE_WORDS, ROLES, unix, weight

PATH = "/console/users"
AT_ONCE = 50
COLUMNS = (
    Column("name", Kind.TEXT),
    Column("group", Kind.TEXT),
    Column("role", Kind.TEXT),
    Column("is_service_account", Kind.YES_NO),
    Column("disabled", Kind.YES_NO),
    Column("paused", Kind.YES_NO),
    Column("weight_milli", Kind.WHOLE),
    Column("max_queued", Kind.WHOLE),
    Column("created_at", Kind.MOMENT),
)
STATES = {"": "All", "enabled": "Let in", "disabled": "Disabled"}
_SESSION_KINDS = {identity_pb2.SESSION_KIND_WEB: "browser", identity_pb2.SESSION_KIND_PROGRAM: "program"}


@dataclass(frozen=True, slots=True)
class UserRow:
    name: str
    path: str
    group: str
    group_path: str
    role: str
    is_program: bool
    weight: str
    state: str
    tone: str
    added_at: float | None


@dataclass(frozen=True, slots=True)
class UsersView:
    rows: Sequence[UserRow]
    next_href: str
    first_href: str
    """Empty on the first page."""


@dataclass(frozen=True, slots=True)
class SessionRow:
    id: str
    kind: str
    way: str
    address: str
    agent: str
    begun_at: float | None
    seen_at: float | None
    is_this: bool


@dataclass(frozen=True, slots=True)
class TokenRow:
    id: str
    name: str
    permissions: Sequence[str]
    used_at: float | None
    expires_at: float | None
    is_revoked: bool


@dataclass(frozen=True, slots=True)
class UserView:
    name: str
    role: str
    custom_roles: Sequence[str]
    is_program: bool
    owner_group: str
    is_disabled: bool
    is_paused: bool
    has_password: bool
    identities: Sequence[str]
    group: str
    group_path: str
    weight: str
    max_queued: int
    added_at: float | None
    path: str
    keys_path: str
    usage_path: str
    audit_path: str
    done_path: str
    limits_path: str

    @property
    def state(self) -> tuple[str, str]:
        """And its tone."""
        return _state(disabled=self.is_disabled, paused=self.is_paused)


def asked_for(query: Form) -> admin_pb2.ListUsersRequest:
    """A page of the list, as its address says. Raises WrongField."""
    state, role = query.get("state"), query.get("role")
    if state not in STATES:
        raise WrongField("state", f"There are users who are {' or '.join(filter(None, STATES))}.")
    if role and role not in ROLES:
        raise WrongField("role", f"There is no role {role[:40]!r}; there are {', '.join(ROLES)}.")
    return admin_pb2.ListUsersRequest(
        limit=AT_ONCE,
        after=query.get("after"),
        text=query.get("text"),
        group=query.get("group"),
        role=ROLES.get(role, admin_pb2.ROLE_UNSPECIFIED),
        disabled=None if not state else state == "disabled",
    )


def users_view(told: admin_pb2.ListUsersResponse, query: Mapping[str, str]) -> UsersView:
    return UsersView(
        tuple(_row(user) for user in told.users),
        address(PATH, query, after=told.users[-1].id) if told.has_more else "",
        address(PATH, query, after="") if query.get("after") else "",
    )


def user_view(identity: identity_pb2.UserIdentity, user: admin_pb2.User) -> UserView:
    name = identity.name
    return UserView(
        name=name,
        role=identity.role,
        custom_roles=tuple(identity.custom_roles),
        is_program=identity.is_service_account,
        owner_group=identity.owner_group,
        is_disabled=identity.disabled,
        is_paused=user.paused,
        has_password=identity.has_password,
        identities=tuple(f"{one.provider}: {one.subject}" for one in identity.identities),
        group=user.group_name,
        group_path=f"/console/groups/{step(user.group_name)}",
        weight=weight(user.weight_milli),
        max_queued=user.max_queued,
        added_at=unix(user.created_at_us),
        path=f"{PATH}/{step(name)}",
        keys_path=address("/console/keys", {}, user=name),
        usage_path=address("/console/usage", {}, user=name),
        audit_path=address("/console/audit", {}, subject=name),
        done_path=address("/console/audit", {}, actor=name),
        limits_path=f"/console/limits/user/{step(name)}",
    )


def session_rows(told: identity_pb2.ListSessionsResponse) -> Sequence[SessionRow]:
    return tuple(
        SessionRow(
            one.id,
            _SESSION_KINDS.get(one.kind, "unknown"),
            one.way,
            one.address,
            one.user_agent,
            unix(one.created_at_us),
            unix(one.last_seen_at_us),
            one.is_this,
        )
        for one in told.sessions
    )


def token_rows(told: identity_pb2.ListTokensResponse) -> Sequence[TokenRow]:
    return tuple(
        TokenRow(
            one.id,
            one.name,
            tuple(one.permissions),
            unix(one.last_used_at_us),
            unix(one.expires_at_us) if one.HasField("expires_at_us") else None,
            one.HasField("revoked_at_us"),
        )
        for one in told.tokens
    )


def user_rows_of_file(users: Sequence[admin_pb2.User]) -> Sequence[Row]:
    return tuple(
        {
            "name": user.name,
            "group": user.group_name,
            "role": ROLE_WORDS.get(user.role, ""),
            "is_service_account": user.is_service_account,
            "disabled": user.disabled,
            "paused": user.paused,
            "weight_milli": user.weight_milli,
            "max_queued": user.max_queued,
            "created_at_us": user.created_at_us,
        }
        for user in users
    )


def _row(user: admin_pb2.User) -> UserRow:
    state, tone = _state(disabled=user.disabled, paused=user.paused)
    return UserRow(
        user.name,
        f"{PATH}/{step(user.name)}",
        user.group_name,
        f"/console/groups/{step(user.group_name)}",
        ROLE_WORDS.get(user.role, "unknown"),
        user.is_service_account,
        weight(user.weight_milli),
        state,
        tone,
        unix(user.created_at_us),
    )


def _state(*, disabled: bool, paused: bool) -> tuple[str, str]:
    if disabled:
        return "disabled", "bad"
    return ("paused", "warn") if paused else ("let in", "good")
