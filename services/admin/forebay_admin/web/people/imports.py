"""`/console/import`: files of users and of keys. What a file would do is shown first; it is done once that plan is
confirmed, as a whole or not at all."""

from __future__ import annotations

from aiohttp import web

from forebay.wire.v1 import bulk_pb2
from forebay_admin.bulk.sheet import MOST_BYTES
from forebay_admin.web.drafts import NO_DRAFTS, Drafts, sent
from forebay_admin.web.forms import Form
from forebay_admin.web.visit import Visit, Visits

PATH = "/console/import"
_MOST_BYTES = 4 * MOST_BYTES
"""Of a form with a file in it, which may be written three bytes for one."""


class ImportsPages:
    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def routes(self) -> list[web.RouteDef]:
        get, post = self._visits.get, self._visits.post
        return [
            get(f"{PATH}/users", self._users, call="ImportUsers"),
            post(
                f"{PATH}/users",
                sent("import", self._import_users, self._show_users, "csv"),
                call="ImportUsers",
                most_bytes=_MOST_BYTES,
            ),
            get(f"{PATH}/keys", self._keys, call="ImportKeys", whole=True),
            post(
                f"{PATH}/keys",
                sent("import", self._import_keys, self._show_keys, "csv"),
                call="ImportKeys",
                whole=True,
                most_bytes=_MOST_BYTES,
            ),
        ]

    async def _users(self, visit: Visit) -> web.StreamResponse:
        return await self._show_users(visit, NO_DRAFTS)

    async def _show_users(
        self, visit: Visit, drafts: Drafts, told: bulk_pb2.ImportUsersResponse | None = None
    ) -> web.StreamResponse:
        return visit.page(
            "people/import_users.html",
            title="Import users",
            status=_status(drafts, told),
            draft=drafts("import", csv=visit.form.raw("file") or visit.form.raw("csv")),
            told=told,
        )

    async def _import_users(self, visit: Visit) -> web.StreamResponse:
        order = bulk_pb2.ImportUsersRequest(csv=_file(visit.form), plan=visit.form.get("plan"))
        told = await visit.ask("ImportUsers", order)
        if told.done:
            return visit.done("/console/users", f"{len(told.users)} users were added.")
        return await self._show_users(visit, NO_DRAFTS, told)

    async def _keys(self, visit: Visit) -> web.StreamResponse:
        return await self._show_keys(visit, NO_DRAFTS)

    async def _show_keys(
        self, visit: Visit, drafts: Drafts, told: bulk_pb2.ImportKeysResponse | None = None
    ) -> web.StreamResponse:
        return visit.page(
            "people/import_keys.html",
            title="Import keys",
            status=_status(drafts, told),
            draft=drafts("import", csv=visit.form.raw("file") or visit.form.raw("csv")),
            told=told,
        )

    async def _import_keys(self, visit: Visit) -> web.StreamResponse:
        order = bulk_pb2.ImportKeysRequest(csv=_file(visit.form), plan=visit.form.get("plan"))
        told = await visit.ask("ImportKeys", order)
        return await self._show_keys(visit, NO_DRAFTS, told)


def _status(drafts: Drafts, told: bulk_pb2.ImportUsersResponse | bulk_pb2.ImportKeysResponse | None) -> int:
    return 400 if told is not None and told.problems else drafts.status


def _file(form: Form) -> str:
    """That was chosen, or pasted. Raises WrongField."""
    if form.get("file"):
        return form.raw("file")
    form.demand("csv", "The file")
    return form.raw("csv")
