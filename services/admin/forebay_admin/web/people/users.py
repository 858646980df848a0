"""`/console/users`: who there is, what each may, and what lets them in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from aiohttp import web

from forebay.errors import NotFound
from forebay.wire.v1 import admin_pb2, identity_pb2
from forebay_admin.row_files import Row
from forebay_admin.web.downloads import send_csv
from forebay_admin.web.drafts import CORRECTABLE, NO_DRAFTS, Drafts, demand_sure, refused, sent
from forebay_admin.web.forms import Form
from forebay_admin.web.paging import step
from forebay_admin.web.people.amounts import ROLES, role_of
from forebay_admin.web.people.keys_view import key_rows
from forebay_admin.web.people.limits_view import limits_view
from forebay_admin.web.people.users_view import (
    COLUMNS,
    PATH,
    STATES,
    asked_for,
    session_rows,
    token_rows,
    user_rows_of_file,
    user_view,
    users_view,
)
from forebay_admin.web.visit import Visit, Visits

_KEYS_SHOWN = 10
_AT_ONCE_OF_FILE = 500


class UsersPages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        get, post, one = self._visits.get, self._visits.post, f"{PATH}/{{name}}"
        return [
            get(PATH, self._list, call="ListUsers"),
            get(f"{PATH}.csv", self._file, call="ListUsers"),
            post(PATH, sent("add", self._add, self._show_list, "name"), call="AddUser"),
            post(
                "/console/service-accounts",
                sent("service", self._add_program, self._show_list, "name"),
                call="AddServiceAccount",
            ),
            get(one, self._one, call="ListUsers"),
            post(f"{one}/rights", sent("rights", self._rights, self._show, "role"), call="SetUserRights"),
            post(f"{one}/share", sent("share", self._share, self._show, "group"), call="ChangeUser"),
            post(f"{one}/disable", sent("disable", self._disable, self._show, "sure"), call="SetUserRights"),
            post(f"{one}/enable", sent("enable", self._enable, self._show), call="SetUserRights"),
            post(f"{one}/password", sent("password", self._password, self._show), call="ResetPassword"),
            post(f"{one}/sessions/end", sent("end-all", self._end, self._show, "sure"), call="EndSessions", whole=True),
            post(f"{one}/sessions/{{id}}/end", sent("end", self._end_one, self._show), call="EndSession", whole=True),
            post(f"{one}/tokens/{{id}}/revoke", self._revoke, call="RevokeToken", whole=True),
        ]

    # --- all of them ----------------------------------------------------------------------------------------------------

    async def _list(self, visit: Visit) -> web.StreamResponse:
        return await self._show_list(visit, NO_DRAFTS)

    async def _show_list(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        query = Form(tuple(visit.query.items()))
        try:
            told = await visit.ask("ListUsers", asked_for(query))
        except CORRECTABLE as error:
            drafts, told = refused("filter", query, error, "group"), admin_pb2.ListUsersResponse()
        groups = await visit.ask_or_none("ListGroups", admin_pb2.ListGroupsRequest())
        return visit.page(
            "people/users.html",
            title="Users",
            status=drafts.status,
            view=users_view(told, visit.query),
            drafts=drafts,
            filters=drafts.filled("filter", query),
            states=tuple(STATES.items()),
            roles=tuple(ROLES),
            groups=[group.name for group in groups.groups] if groups is not None else [],
        )

    async def _file(self, visit: Visit) -> web.StreamResponse:
        wanted = asked_for(Form(tuple(visit.query.items())))

        async def pieces() -> AsyncIterator[Sequence[Row]]:
            wanted.limit, wanted.after, has_more = _AT_ONCE_OF_FILE, "", True
            while has_more:
                told = await visit.ask("ListUsers", wanted)
                yield user_rows_of_file(told.users)
                has_more = told.has_more
                wanted.after = told.users[-1].id if told.users else ""

        return await send_csv(visit, "users", COLUMNS, pieces())

    async def _add(self, visit: Visit) -> web.StreamResponse:
        form = visit.form
        order = admin_pb2.AddUserRequest(
            name=form.demand("name", "The name"), group=form.get("group"), role=role_of(form)
        )
        added = (await visit.ask("AddUser", order)).user
        return visit.done(f"{PATH}/{step(added.name)}", f"{added.name} was added to {added.group_name}.")

    async def _add_program(self, visit: Visit) -> web.StreamResponse:
        form = visit.form
        role_of(form)
        order = identity_pb2.AddServiceAccountRequest(
            name=form.demand("name", "The name"),
            group=form.get("group"),
            role=form.get("role", "member"),
            owner_group=form.demand("owner_group", "The group that answers for it"),
        )
        added = (await visit.ask("AddServiceAccount", order)).user
        return visit.done(f"{PATH}/{step(added.name)}", f"The service account {added.name} was added.")

    # --- one of them ----------------------------------------------------------------------------------------------------

    async def _one(self, visit: Visit) -> web.StreamResponse:
        return await self._show(visit, NO_DRAFTS)

    async def _show(self, visit: Visit, drafts: Drafts, reset: object = None) -> web.StreamResponse:
        name = visit.part("name")
        identity = (await visit.ask("ShowUser", identity_pb2.ShowUserRequest(name=name))).user
        users = (await visit.ask("ListUsers", admin_pb2.ListUsersRequest(name=identity.name))).users
        if not users:
            raise NotFound(f"There is no user {name}.")
        view = user_view(identity, users[0])
        roles = await visit.ask_or_none("ListCustomRoles", identity_pb2.ListCustomRolesRequest())
        groups = await visit.ask_or_none("ListGroups", admin_pb2.ListGroupsRequest())
        subject = admin_pb2.QuotaSubject(user=view.name)
        quotas = await visit.ask_or_none("ShowQuota", admin_pb2.ShowQuotaRequest(subject=subject))
        keys = await visit.ask_or_none("ListKeys", admin_pb2.ListKeysRequest(user=view.name, limit=_KEYS_SHOWN))
        sessions = await visit.ask_or_none("ListSessions", identity_pb2.ListSessionsRequest(user=view.name))
        tokens = await visit.ask_or_none("ListTokens", identity_pb2.ListTokensRequest(user=view.name))
        return visit.page(
            "people/user.html",
            title=view.name,
            status=drafts.status,
            view=view,
            drafts=drafts,
            roles=tuple(ROLES),
            custom_roles=[(one.name, one.name, one.about) for one in roles.roles] if roles is not None else [],
            groups=[group.name for group in groups.groups] if groups is not None else [view.group],
            limits=limits_view(quotas.quotas, visit.now) if quotas is not None else None,
            keys=key_rows(keys.keys, visit.now) if keys is not None else None,
            has_more_keys=keys is not None and keys.has_more,
            sessions=session_rows(sessions) if sessions is not None else None,
            tokens=token_rows(tokens) if tokens is not None else None,
            reset=reset,
        )

    async def _rights(self, visit: Visit) -> web.StreamResponse:
        name, form = visit.part("name"), visit.form
        role_of(form)
        order = identity_pb2.SetUserRightsRequest(
            name=name,
            role=form.demand("role", "The role"),
            custom_roles=identity_pb2.CustomRoleNames(names=form.many("custom_roles")),
            owner_group=form.get("owner_group") or None,
        )
        user = (await visit.ask("SetUserRights", order)).user
        return visit.done(_path(user.name), f"{user.name} may now do what {_article(user.role)} may.")

    async def _share(self, visit: Visit) -> web.StreamResponse:
        name, form = visit.part("name"), visit.form
        order = admin_pb2.ChangeUserRequest(
            name=name,
            group=form.demand("group", "The group"),
            weight_milli=form.weight(),
            max_queued=form.whole("max_queued", 0, most=1_000_000),
            paused=form.is_ticked("paused"),
        )
        user = (await visit.ask("ChangeUser", order)).user
        return visit.done(_path(user.name), "Saved.")

    async def _disable(self, visit: Visit) -> web.StreamResponse:
        demand_sure(visit.form)
        return await self._let_in(visit, disabled=True)

    async def _enable(self, visit: Visit) -> web.StreamResponse:
        return await self._let_in(visit, disabled=False)

    async def _let_in(self, visit: Visit, *, disabled: bool) -> web.StreamResponse:
        name = visit.part("name")
        await visit.ask("SetUserRights", identity_pb2.SetUserRightsRequest(name=name, disabled=disabled))
        said = "is disabled: their keys, sessions and tokens let nobody in" if disabled else "is let in again"
        return visit.done(_path(name), f"{name} {said}.")

    async def _password(self, visit: Visit) -> web.StreamResponse:
        reset = await visit.ask("ResetPassword", identity_pb2.ResetPasswordRequest(user=visit.part("name")))
        return await self._show(visit, NO_DRAFTS, reset)

    async def _end(self, visit: Visit) -> web.StreamResponse:
        demand_sure(visit.form)
        name = visit.part("name")
        ended = (await visit.ask("EndSessions", identity_pb2.EndSessionsRequest(user=name))).ended
        return visit.done(_path(name), f"{ended} of {name}'s sessions ended.")

    async def _end_one(self, visit: Visit) -> web.StreamResponse:
        await visit.ask("EndSession", identity_pb2.EndSessionRequest(id=visit.part("id")))
        return visit.done(_path(visit.part("name")), "The session ended.")

    async def _revoke(self, visit: Visit) -> web.StreamResponse:
        return await sent(f"token-{visit.part('id')}", self._really_revoke, self._show, "sure")(visit)

    async def _really_revoke(self, visit: Visit) -> web.StreamResponse:
        demand_sure(visit.form)
        token = (await visit.ask("RevokeToken", identity_pb2.RevokeTokenRequest(id=visit.part("id")))).token
        return visit.done(_path(visit.part("name")), f"The token {token.name} was revoked.")


def _path(name: str) -> str:
    return f"{PATH}/{step(name)}"


def _article(role: str) -> str:
    return f"{'a' if role == 'member' else 'an'} {role}"
