"""Groups. What theirs say that each user may is what a new user of ours starts with: a group's own limits are of all its
users together."""

from __future__ import annotations

from typing import Any

from forebay.errors import AlreadyExists, BadInput, NotPossible
from forebay.wire.v1 import admin_pb2
from forebay_admin.quotas.quotas import MOST_TOKENS
from forebay_admin.seeds.asking import Asking
from forebay_admin.seeds.fields import Fields
from forebay_admin.seeds.mindrouter.shapes import named, number, the_group
from forebay_admin.seeds.refusals import NoCounterpart
from forebay_admin.seeds.route import SeedRoute

_ROLES = ("is_admin", "is_auditor")
_WINDOW_S = 30 * 86_400
_MOST_PER_MINUTE = 2**32 - 1


def shape(group: admin_pb2.Group, limits: admin_pb2.MemberLimits) -> dict[str, Any]:
    weight = group.weight_milli / 1000
    budgets = [budget.amount for budget in limits.budgets if budget.unit == admin_pb2.BUDGET_UNIT_TOKENS]
    return {
        "id": number("group", group.id),
        "name": group.name,
        "display_name": group.name,
        "description": None,
        "token_budget": min(budgets, default=None),
        "rpm_limit": named(limits, "requests_per_minute"),
        "scheduler_weight": int(weight) if weight.is_integer() else weight,
        "is_admin": False,
        "is_auditor": False,
        "user_count": group.members,
    }


async def list_groups(asking: Asking) -> Any:
    limits = {one.group: one for one in (await asking.call("ShowMemberLimits")).limits}
    groups = (await asking.call("ListGroups")).groups
    return {"groups": [shape(group, limits.get(group.name, admin_pb2.MemberLimits())) for group in groups]}


async def create(asking: Asking) -> Any:
    body = asking.body()
    name, shown = body.text("name", needed=True, longest=50), body.text("display_name", needed=True, longest=100)
    weight_milli, limits = _weight_milli(body), _limits(body, name)
    body.done()
    _demand_kept(body)
    if any(group.name == name for group in (await asking.call("ListGroups")).groups):
        raise AlreadyExists(f"Group with name '{name}' already exists")
    group = (await asking.make("AddGroup", admin_pb2.AddGroupRequest(name=name, weight_milli=weight_milli))).group
    await _set_limits(asking, limits)
    return {"id": number("group", group.id), "name": group.name, "display_name": shown}


async def update(asking: Asking) -> Any:
    group, body = await the_group(asking), asking.body()
    if not body.said():
        raise BadInput("No fields to update")
    weight_milli, limits = _weight_milli(body), _limits(body, group.name)
    body.done()
    _demand_kept(body)
    if unkept := [name for name in ("display_name", "description") if body.is_said(name)]:
        raise NoCounterpart(f"A group has no {' and no '.join(unkept)} here; nothing was changed.")
    if weight_milli is not None:
        await asking.make("ChangeGroup", admin_pb2.ChangeGroupRequest(name=group.name, weight_milli=weight_milli))
    if limits.no_budgets:
        shown = (await asking.call("ShowMemberLimits", group=group.name)).limits
        others = (one for held in shown for one in held.budgets if one.unit != admin_pb2.BUDGET_UNIT_TOKENS)
        limits.budgets.extend(others)  # of money there is none there, so their scripts say nothing of it
    await _set_limits(asking, limits)
    return {"status": "updated", "group_id": number("group", group.id)}


async def remove(asking: Asking) -> Any:
    group = await the_group(asking)
    try:
        await asking.make("RemoveGroup", admin_pb2.RemoveGroupRequest(name=group.name))
    except BadInput as error:
        raise NotPossible(error.message) from error  # somebody is in it
    return {"status": "deleted", "group_id": number("group", group.id)}


def _weight_milli(body: Fields) -> int | None:
    weight = body.whole("scheduler_weight", least=1, most=1000)
    return weight * 1000 if weight is not None else None


def _limits(body: Fields, group: str) -> admin_pb2.SetMemberLimitsRequest:
    """Of what is said alone; a budget takes the place of those of tokens that there are."""
    tokens = body.whole("token_budget", least=1, most=MOST_TOKENS)
    requests = body.whole("rpm_limit", least=1, most=_MOST_PER_MINUTE)
    request = admin_pb2.SetMemberLimitsRequest(group=group)
    if requests is not None:
        request.requests_per_minute.most = requests
    if tokens is not None:
        request.no_budgets = True
        request.budgets.add(unit=admin_pb2.BUDGET_UNIT_TOKENS, amount=tokens, window_s=_WINDOW_S)
    return request


async def _set_limits(asking: Asking, limits: admin_pb2.SetMemberLimitsRequest) -> None:
    if limits.HasField("requests_per_minute") or limits.budgets:
        await asking.make("SetMemberLimits", limits)


def _demand_kept(body: Fields) -> None:
    """Raises NoCounterpart."""
    if any(body.flag(name) for name in _ROLES):
        raise NoCounterpart("Roles are users' here, and not groups': forebay user rights.")
    body.done()


_ONE = "/groups/{group_id}"
ROUTES = (
    SeedRoute("GET", "/groups", list_groups, ("ListGroups", "ShowMemberLimits")),
    SeedRoute("POST", "/groups", create, ("AddGroup", "SetMemberLimits", "ListGroups")),
    SeedRoute("PATCH", _ONE, update, ("ChangeGroup", "SetMemberLimits", "ShowMemberLimits", "ListGroups")),
    SeedRoute("DELETE", _ONE, remove, ("RemoveGroup", "ListGroups")),
)
