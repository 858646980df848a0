"""Users. What of them is not kept here (addresses, full names, colleges) is taken where they are made, told as null, and
refused where it alone would be changed."""

from __future__ import annotations

from typing import Any

from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2, identity_pb2, usage_queries_pb2
from forebay_admin.seeds.asking import Asking
from forebay_admin.seeds.mindrouter.keys import key_shape, usage_of
from forebay_admin.seeds.mindrouter.shapes import (
    all_keys,
    iso,
    number,
    page_of,
    since_us,
    the_group,
    the_group_said,
    the_user,
)
from forebay_admin.seeds.refusals import NoCounterpart
from forebay_admin.seeds.route import SeedRoute, instead
from forebay_admin.sign_in.passwords import demand_good

_ROLES = ("student", "staff", "faculty", "admin")
_NOT_KEPT = ("full_name", "college", "department", "intended_use")
_MONTHS = 12
_MONTH_US = 31 * 86_400 * 1_000_000
_KEYS_SHOWN = 1000


def shape(user: admin_pb2.User) -> dict[str, Any]:
    return {
        "id": number("user", user.id),
        "uuid": user.id,
        "username": user.name,
        "email": user.name if "@" in user.name else None,
        "full_name": None,
        "role": admin_pb2.Role.Name(user.role).removeprefix("ROLE_").lower(),
        "group_id": number("group", user.group_id),
        "group_name": user.group_name,
        "is_active": not user.disabled,
        "created_at": iso(user.created_at_us),
        "last_login_at": None,
    }


async def list_users(asking: Asking) -> Any:
    skip, limit = page_of(asking)
    group_id, search = asking.query.which("group_id"), asking.query.text("search").lower()
    asking.query.done()
    users = list((await asking.call("ListUsers")).users)
    if group_id:
        group = await the_group(asking, group_id)
        users = [user for user in users if user.group_id == group.id]
    found = [user for user in users if search in user.name.lower()]
    shown = [shape(user) for user in found[skip : skip + limit]]
    return {"total": len(found), "skip": skip, "limit": limit, "users": shown}


async def create(asking: Asking) -> Any:
    body = asking.body()
    name, email = body.text("username", needed=True, longest=100), body.text("email", needed=True, longest=255)
    password = body.text("password", needed=True, longest=256)
    group_id, role = body.which("group_id", needed=True), body.word("role", _ROLES, "student")
    full_name = body.text("full_name") or None
    body.done()
    group = await the_group_said(asking, group_id)
    demand_good(password, name)  # before anything is made
    request = admin_pb2.AddUserRequest(
        name=name, group=group.name, role=admin_pb2.ROLE_ADMIN if role == "admin" else admin_pb2.ROLE_MEMBER
    )
    user = (await asking.make("AddUser", request)).user
    await _set_password(asking, user.name, password)
    told = shape(user)
    fields = ("id", "uuid", "username", "role", "group_id", "group_name", "is_active")
    return {**{field: told[field] for field in fields}, "email": email, "full_name": full_name}


async def show(asking: Asking) -> Any:
    user = await the_user(asking)
    keys = await all_keys(asking, user=user.name)
    by_model = await _usage(asking, user, by=[usage_queries_pb2.USAGE_COLUMN_MODEL], order_by_requests=True)
    by_key = await usage_of(asking, from_us=since_us(asking.now, user.created_at_us), user=user.name)
    sums = by_model.total
    loved = [{"model": line.model, "count": line.sums.requests} for line in by_model.lines if line.model]
    return {
        "user": {**shape(user), **dict.fromkeys(_NOT_KEPT)},
        "stats": {
            "total_tokens": sums.prompt_tokens + sums.completion_tokens,
            "prompt_tokens": sums.prompt_tokens,
            "completion_tokens": sums.completion_tokens,
            "request_count": sums.requests,
            "favorite_models": loved[:5],
            "api_key_count": len(keys),
        },
        "quota": await _quota(asking, user, sums.prompt_tokens + sums.completion_tokens),
        "api_keys": [
            {**key_shape(key, by_key, asking.now), "token_totals": _totals(by_key, key.id)}
            for key in keys[-_KEYS_SHOWN:]
        ],
        "monthly_usage": await _monthly(asking, user),
    }


async def update(asking: Asking) -> Any:
    user, body = await the_user(asking), asking.body()
    if not body.said():
        raise BadInput("No fields to update")
    group_id, is_active = body.which("group_id"), body.flag("is_active")
    body.done()
    if body.is_said("role"):
        raise NoCounterpart("Roles are changed by forebay user rights; nothing was changed.")
    if unkept := [name for name in ("email", *_NOT_KEPT) if body.is_said(name)]:
        raise NoCounterpart(f"Forebay keeps no {' and no '.join(unkept)} of a user; nothing was changed.")
    group = await the_group_said(asking, group_id) if group_id else None
    if is_active is False and user.name == asking.caller_name:
        raise BadInput("Cannot deactivate your own account")
    if is_active is not None and is_active is user.disabled:  # first, since it is what may be refused
        rights = identity_pb2.SetUserRightsRequest(name=user.name, disabled=not is_active)
        await asking.make("SetUserRights", rights)
    if group is not None:
        await asking.make("ChangeUser", admin_pb2.ChangeUserRequest(name=user.name, group=group.name))
    return {"status": "updated", "user_id": number("user", user.id)}


async def reset_password(asking: Asking) -> Any:
    user, body = await the_user(asking), asking.body()
    password = body.text("new_password", needed=True, longest=256)
    body.done()
    demand_good(password, user.name)
    await _set_password(asking, user.name, password)
    return {"status": "password_reset", "user_id": number("user", user.id)}


async def _set_password(asking: Asking, user: str, password: str) -> None:
    """As whoever was given the token of a reset would; a token is good once."""
    reset = await asking.call("ResetPassword", user=user)
    await asking.door.spend_reset(reset.token, password)


async def _usage(
    asking: Asking, user: admin_pb2.User, *, by: list[int], order_by_requests: bool = False, **more: Any
) -> usage_queries_pb2.QueryUsageResponse:
    order = usage_queries_pb2.USAGE_ORDER_REQUESTS if order_by_requests else usage_queries_pb2.USAGE_ORDER_TOKENS
    asked = {"from_us": since_us(asking.now, user.created_at_us), "user": user.name, "by": by, "order": order, **more}
    answer: usage_queries_pb2.QueryUsageResponse = await asking.call("QueryUsage", **asked)
    return answer


async def _monthly(asking: Asking, user: admin_pb2.User) -> list[dict[str, Any]]:
    from_us = since_us(asking.now, max(user.created_at_us, round(asking.now * 1_000_000) - _MONTHS * _MONTH_US))
    answer = await _usage(asking, user, by=[], from_us=from_us, bucket=usage_queries_pb2.USAGE_BUCKET_MONTH)
    return [
        {
            "month": (iso(line.at_us) or "")[:7],
            "prompt_tokens": line.sums.prompt_tokens,
            "completion_tokens": line.sums.completion_tokens,
            "tokens": line.sums.prompt_tokens + line.sums.completion_tokens,
            "requests": line.sums.requests,
        }
        for line in answer.lines
    ]


async def _quota(asking: Asking, user: admin_pb2.User, used: int) -> dict[str, Any] | None:
    subject = admin_pb2.QuotaSubject(user=user.name)
    quotas = (await asking.make("ShowQuota", admin_pb2.ShowQuotaRequest(subject=subject))).quotas
    budgets = [one for quota in quotas for one in quota.budgets if one.unit == admin_pb2.BUDGET_UNIT_TOKENS]
    limits = [quota.requests_per_minute for quota in quotas if quota.HasField("requests_per_minute")]
    if not quotas:
        return None
    return {
        "token_budget": min((one.amount for one in budgets), default=None),
        "tokens_used": budgets[0].spent if budgets and budgets[0].HasField("spent") else used,
        "lifetime_tokens_used": used,
        "rpm_limit": min(limits, default=None),
        "weight_override": user.weight_milli / 1000 if user.weight_milli != 1000 else None,
    }


def _totals(by_key: Any, key_id: str) -> dict[str, int]:
    sums = by_key.get(key_id)
    prompt, completion = (sums.prompt_tokens, sums.completion_tokens) if sums is not None else (0, 0)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


_ONE = "/users/{user_id}"
ROUTES = (
    SeedRoute("GET", "/users", list_users, ("ListUsers", "ListGroups")),
    SeedRoute("POST", "/users", create, ("AddUser", "ResetPassword", "ListGroups")),
    SeedRoute("GET", _ONE, show, ("ListUsers", "ListKeys", "QueryUsage", "ShowQuota")),
    SeedRoute("PATCH", _ONE, update, ("ChangeUser", "SetUserRights", "ListUsers", "ListGroups")),
    SeedRoute(
        "DELETE",
        _ONE,
        instead(
            "Users are not deleted, since the ledger names them: PATCH them with is_active false, and revoke their keys."
        ),
        ("SetUserRights",),
    ),
    SeedRoute("POST", f"{_ONE}/reset-password", reset_password, ("ResetPassword", "ListUsers")),
)
