"""`/console/roles`: what the built-in roles may, and roles of one's own."""

from __future__ import annotations

from aiohttp import web

from forebay.errors import NotFound
from forebay.wire.v1 import identity_pb2
from forebay_admin.people.people import Role
from forebay_admin.web.drafts import NO_DRAFTS, Drafts, demand_sure, sent
from forebay_admin.web.paging import step
from forebay_admin.web.people.roles_view import PATH, CustomRoleRow, call_matrix, custom_role, matrix
from forebay_admin.web.visit import Visit, Visits


class RolesPages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        get, post, one = self._visits.get, self._visits.post, f"{PATH}/{{name}}"
        return [
            get(PATH, self._list, call="ListCustomRoles"),
            post(PATH, sent("add", self._add, self._show_list, "name"), call="SetCustomRole"),
            get(one, self._one, call="ListCustomRoles"),
            post(f"{one}/change", sent("change", self._change, self._show, "permissions"), call="SetCustomRole"),
            post(f"{one}/remove", sent("remove", self._remove, self._show, "sure"), call="RemoveCustomRole"),
        ]

    async def _list(self, visit: Visit) -> web.StreamResponse:
        return await self._show_list(visit, NO_DRAFTS)

    async def _show_list(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        told = await visit.ask("ListCustomRoles", identity_pb2.ListCustomRolesRequest())
        return visit.page(
            "people/roles.html",
            title="Roles",
            status=drafts.status,
            built_in=tuple(Role),
            lines=matrix(),
            calls=call_matrix(),
            custom=[custom_role(role) for role in told.roles],
            permissions=tuple(told.permissions),
            drafts=drafts,
        )

    async def _add(self, visit: Visit) -> web.StreamResponse:
        name = visit.form.demand("name", "The name")
        return await self._set(visit, name)

    async def _one(self, visit: Visit) -> web.StreamResponse:
        return await self._show(visit, NO_DRAFTS)

    async def _show(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        role, permissions = await _role(visit)
        return visit.page(
            "people/role.html",
            title=role.name,
            status=drafts.status,
            role=role,
            permissions=permissions,
            others=[one for one in role.permissions if one not in permissions],
            drafts=drafts,
        )

    async def _change(self, visit: Visit) -> web.StreamResponse:
        return await self._set(visit, visit.part("name"))

    async def _set(self, visit: Visit, name: str) -> web.StreamResponse:
        form = visit.form
        order = identity_pb2.SetCustomRoleRequest(
            name=name, permissions=[*form.many("permissions"), *form.many("others")], about=form.get("about")
        )
        role = (await visit.ask("SetCustomRole", order)).role
        return visit.done(f"{PATH}/{step(role.name)}", f"The role {role.name} is set.")

    async def _remove(self, visit: Visit) -> web.StreamResponse:
        demand_sure(visit.form)
        order = identity_pb2.RemoveCustomRoleRequest(name=visit.part("name"))
        removed = (await visit.ask("RemoveCustomRole", order)).role
        return visit.done(PATH, f"The role {removed.name} is removed.")


async def _role(visit: Visit) -> tuple[CustomRoleRow, tuple[str, ...]]:
    """And all permissions that there are. Raises NotFound."""
    told = await visit.ask("ListCustomRoles", identity_pb2.ListCustomRolesRequest())
    name = visit.part("name")
    found = next((role for role in told.roles if role.name.lower() == name.lower()), None)
    if found is None:
        raise NotFound(f"There is no role {name[:60]} of yours; {', '.join(Role)} are built in.")
    return custom_role(found), tuple(told.permissions)
