"""`/console/groups`: who shares with whom, how much each group counts, and what its members start with."""

from __future__ import annotations

from aiohttp import web

from forebay.errors import NotFound
from forebay.wire.v1 import admin_pb2
from forebay_admin.web.drafts import NO_DRAFTS, Drafts, demand_sure, sent
from forebay_admin.web.paging import step
from forebay_admin.web.people.amounts import CAP_WORDS, cap_of, caps_told
from forebay_admin.web.people.groups_view import PATH, GroupView, group_rows, group_view, members_start
from forebay_admin.web.people.limits_view import PERIOD_WORDS, UNITS, limits_view, order_of
from forebay_admin.web.people.users_view import users_view
from forebay_admin.web.visit import Visit, Visits

_MEMBERS_SHOWN = 20


class GroupsPages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        get, post, one = self._visits.get, self._visits.post, f"{PATH}/{{name}}"
        return [
            get(PATH, self._list, call="ListGroups"),
            post(PATH, sent("add", self._add, self._show_list, "name"), call="AddGroup"),
            post(
                "/console/group-presets", sent("preset", self._preset, self._show_list, "preset"), call="PresetGroups"
            ),
            get(one, self._one, call="ListGroups"),
            post(f"{one}/change", sent("change", self._change, self._show, "parent"), call="ChangeGroup"),
            post(f"{one}/remove", sent("remove", self._remove, self._show, "sure"), call="RemoveGroup"),
            post(f"{one}/members", sent("members", self._members, self._show), call="SetMemberLimits"),
            post(
                f"{one}/member-budgets",
                sent("member-budget", self._member_budget, self._show, "amount"),
                call="SetMemberLimits",
            ),
            post(
                f"{one}/member-budgets/remove",
                sent("no-budgets", self._no_member_budgets, self._show, "sure"),
                call="SetMemberLimits",
            ),
        ]

    async def _list(self, visit: Visit) -> web.StreamResponse:
        return await self._show_list(visit, NO_DRAFTS)

    async def _show_list(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        told = await visit.ask("ListGroups", admin_pb2.ListGroupsRequest())
        return visit.page(
            "people/groups.html", title="Groups", status=drafts.status, rows=group_rows(told.groups), drafts=drafts
        )

    async def _add(self, visit: Visit) -> web.StreamResponse:
        form = visit.form
        order = admin_pb2.AddGroupRequest(
            name=form.demand("name", "The name"), parent=form.get("parent"), weight_milli=form.weight()
        )
        group = (await visit.ask("AddGroup", order)).group
        return visit.done(f"{PATH}/{step(group.name)}", f"The group {group.name} was added.")

    async def _preset(self, visit: Visit) -> web.StreamResponse:
        demand_sure(visit.form)
        preset = visit.form.demand("preset", "The preset")
        told = await visit.ask("PresetGroups", admin_pb2.PresetGroupsRequest(preset=preset))
        return visit.done(PATH, f"The preset's {len(told.groups)} groups are there, with its weights.")

    async def _one(self, visit: Visit) -> web.StreamResponse:
        return await self._show(visit, NO_DRAFTS)

    async def _show(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        view = await _view(visit)
        name = view.row.name
        subject = admin_pb2.QuotaSubject(group=name)
        quotas = await visit.ask_or_none("ShowQuota", admin_pb2.ShowQuotaRequest(subject=subject))
        start = await visit.ask_or_none("ShowMemberLimits", admin_pb2.ShowMemberLimitsRequest(group=name))
        wanted = admin_pb2.ListUsersRequest(group=name, limit=_MEMBERS_SHOWN)
        members = await visit.ask_or_none("ListUsers", wanted)
        caps = caps_told(start.limits[0]) if start is not None and start.limits else {}
        return visit.page(
            "people/group.html",
            title=name,
            status=drafts.status,
            view=view,
            drafts=drafts,
            limits=limits_view(quotas.quotas, visit.now) if quotas is not None else None,
            start=members_start(start.limits) if start is not None else None,
            caps=caps,
            cap_words=tuple(CAP_WORDS.items()),
            members=users_view(members, {}).rows if members is not None else None,
            has_more=members is not None and members.has_more,
            units=tuple(UNITS),
            periods=tuple(PERIOD_WORDS.items()),
        )

    async def _change(self, visit: Visit) -> web.StreamResponse:
        form = visit.form
        order = admin_pb2.ChangeGroupRequest(
            name=visit.part("name"),
            parent=form.get("parent"),
            weight_milli=form.weight(),
            paused=form.is_ticked("paused"),
        )
        await visit.ask("ChangeGroup", order)
        return _done(visit, "Saved.")

    async def _remove(self, visit: Visit) -> web.StreamResponse:
        demand_sure(visit.form)
        removed = (await visit.ask("RemoveGroup", admin_pb2.RemoveGroupRequest(name=visit.part("name")))).group
        return visit.done(PATH, f"The group {removed.name} is removed.")

    async def _members(self, visit: Visit) -> web.StreamResponse:
        order = admin_pb2.SetMemberLimitsRequest(
            group=visit.part("name"),
            requests_per_minute=cap_of(visit.form, "requests_per_minute"),
            tokens_per_minute=cap_of(visit.form, "tokens_per_minute"),
            concurrency=cap_of(visit.form, "concurrency"),
        )
        await visit.ask("SetMemberLimits", order)
        return _done(visit, "New members start with these limits; those who are there keep theirs.")

    async def _member_budget(self, visit: Visit) -> web.StreamResponse:
        budgets = [order_of(visit.form)]
        await visit.ask("SetMemberLimits", admin_pb2.SetMemberLimitsRequest(group=visit.part("name"), budgets=budgets))
        return _done(visit, "New members start with this budget too.")

    async def _no_member_budgets(self, visit: Visit) -> web.StreamResponse:
        demand_sure(visit.form)
        await visit.ask("SetMemberLimits", admin_pb2.SetMemberLimitsRequest(group=visit.part("name"), no_budgets=True))
        return _done(visit, "New members start without a budget.")


async def _view(visit: Visit) -> GroupView:
    """Raises NotFound."""
    told = await visit.ask("ListGroups", admin_pb2.ListGroupsRequest())
    view = group_view(told.groups, visit.part("name"))
    if view is None:
        raise NotFound(f"There is no group {visit.part('name')[:60]}.")
    return view


def _done(visit: Visit, notice: str) -> web.StreamResponse:
    return visit.done(f"{PATH}/{step(visit.part('name'))}", notice)
