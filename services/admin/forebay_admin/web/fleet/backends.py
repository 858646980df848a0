"""`/console/backends`: the engines, live, filtered and sorted by the address; and one of them: why it is as it is, its past,
and what can be done about it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl, quote

from aiohttp import web

from forebay.errors import NotFound
from forebay.wire.v1 import admin_pb2, discovery_pb2, fleet_pb2, lifecycle_pb2
from forebay.wire.v1 import fleet_parts_pb2 as parts
from forebay_admin.json_form import word
from forebay_admin.web.drafts import NO_DRAFTS, Drafts
from forebay_admin.web.fleet.backend_form import (
    KINDS,
    read_adoption,
    read_change,
    read_credential,
    read_named_model,
    read_new,
)
from forebay_admin.web.fleet.backends_view import (
    COLUMNS,
    BackendsView,
    BackendView,
    Filter,
    HealthView,
    backend_view,
    backends_view,
    found_rows,
    health_view,
    read_filter,
    wanted_of,
)
from forebay_admin.web.fleet.carry_out import carry_out
from forebay_admin.web.fleet.lately import LastHours
from forebay_admin.web.fleet.orders_form import demand_typed, read_drain_of_backend, read_window
from forebay_admin.web.fleet.plots import SPANS, backend_plots, span_named
from forebay_admin.web.live import Live, Topic
from forebay_admin.web.visit import Visit, Visits

_BACKENDS = "/console/backends"
_ADD, _FOUND = "/console/add-backend", "/console/found-backends"

Act = Callable[[], Awaitable[str]]


class BackendsPages:
    def __init__(self, visits: Visits, live: Live, hours: LastHours) -> None:
        self._visits = visits
        self._hours = hours
        live.add(
            [
                Topic("backends", self._backends_piece, calls=("ShowBackends",), every_s=2.0, has_argument=True),
                Topic("backend", self._backend_piece, calls=("ShowBackends",), every_s=2.0, has_argument=True),
            ]
        )

    def routes(self) -> list[web.RouteDef]:
        get, post = self._visits.get, self._visits.post
        one = f"{_BACKENDS}/{{name}}"
        return [
            get(_BACKENDS, self._list, call="ShowBackends"),
            get(_ADD, self._add_form, call="RegisterBackend"),
            post(_ADD, self._add, call="RegisterBackend"),
            get(_FOUND, self._found, call="ShowFoundBackends"),
            post(f"{_FOUND}/adopt", self._adopt, call="AdoptBackend"),
            get(one, self._backend, call="ShowBackends"),
            post(f"{one}/drain", self._drain, call="DrainBackend"),
            post(f"{one}/probe", self._probe, call="ProbeBackend"),
            post(f"{one}/undrain", self._undrain, call="DrainBackend"),
            post(f"{one}/enable", self._enable, call="ChangeBackend"),
            post(f"{one}/disable", self._disable, call="ChangeBackend"),
            post(f"{one}/change", self._change, call="ChangeBackend"),
            post(f"{one}/maintenance", self._add_window, call="ScheduleMaintenance"),
            post(f"{one}/maintenance/{{id}}/cancel", self._cancel_window, call="CancelMaintenance"),
            post(f"{one}/models", self._name_model, call="NameBackendModels"),
            post(f"{one}/models/forget", self._forget_model, call="NameBackendModels"),
            post(f"{one}/keys", self._add_credential, call="AddBackendCredential"),
            post(f"{one}/keys/forget", self._forget_credential, call="RemoveBackendCredential"),
            post(f"{one}/remove", self._remove, call="UnregisterBackend"),
        ]

    # --- all of them ------------------------------------------------------------------------------------------------

    async def _list(self, visit: Visit) -> web.StreamResponse:
        view = await self._backends_view(visit, read_filter(visit.query))
        return visit.page("fleet/backends.html", title="Backends", view=view, columns=COLUMNS)

    async def _backends_view(self, visit: Visit, asked: Filter) -> BackendsView:
        backends, nodes, queue, found, lately = await asyncio.gather(
            visit.ask("ShowBackends", admin_pb2.ShowBackendsRequest()),
            visit.ask_or_none("ShowNodes", admin_pb2.ShowNodesRequest()),
            visit.ask_or_none("ViewQueue", admin_pb2.ViewQueueRequest()),
            visit.ask_or_none("ShowFoundBackends", discovery_pb2.ListFoundBackendsRequest()),
            self._hours.by_backend(visit),
        )
        hosts = nodes.nodes if nodes is not None else None
        return backends_view(backends.backends, hosts, queue, lately, found, asked)

    async def _backends_piece(self, visit: Visit, argument: str) -> str:
        asked = read_filter(dict(parse_qsl(argument)))
        view = await self._backends_view(visit, asked)
        return visit.render("fleet/_backends.html", view=view, columns=COLUMNS)

    async def _add_form(self, visit: Visit) -> web.StreamResponse:
        return await self._add_page(visit, NO_DRAFTS)

    async def _add_page(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        nodes = await visit.ask_or_none("ShowNodes", admin_pb2.ShowNodesRequest())
        return visit.page(
            "fleet/add_backend.html",
            title="Add a backend",
            status=drafts.status,
            drafts=drafts,
            kinds=tuple(KINDS),
            nodes=[node.name for node in nodes.nodes] if nodes is not None else [],
        )

    async def _add(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            told = await visit.ask("RegisterBackend", read_new(visit.form))
            return f"Backend {told.backend.name} is {'added' if told.created else 'changed'}; it is being looked at."

        path = _of(visit.form.get("name")) if visit.form.get("name") else _BACKENDS
        return await carry_out(visit, "add", act, show=self._add_page, path=path)

    async def _found(self, visit: Visit) -> web.StreamResponse:
        return await self._found_page(visit, NO_DRAFTS)

    async def _found_page(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        told = await visit.ask("ShowFoundBackends", discovery_pb2.ListFoundBackendsRequest())
        rows = found_rows(told)
        return visit.page("fleet/found.html", title="Found engines", status=drafts.status, rows=rows, drafts=drafts)

    async def _adopt(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            told = await visit.ask("AdoptBackend", read_adoption(visit.form))
            what = "added" if told.created else "yours now: discovery leaves it alone"
            return f"Backend {told.name} is {what}."

        return await carry_out(visit, "adopt", act, show=self._found_page, path=_BACKENDS)

    # --- one of them ------------------------------------------------------------------------------------------------

    async def _backend(self, visit: Visit) -> web.StreamResponse:
        return await self._backend_page(visit, NO_DRAFTS)

    async def _backend_page(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        name = visit.part("name")
        span = span_named(visit.query.get("span", ""))
        (view, health), exported, credentials = await asyncio.gather(
            self._backend_view(visit, name),
            visit.ask_or_none("ExportFleet", fleet_pb2.ExportFleetRequest()),
            visit.ask_or_none("ListBackendCredentials", admin_pb2.ListBackendCredentialsRequest(backend=name)),
        )
        return visit.page(
            "fleet/backend.html",
            title=name,
            status=drafts.status,
            view=view,
            health=health,
            wanted=wanted_of(name, exported) if exported is not None else None,
            credentials=credentials.credentials if credentials is not None else None,
            kinds=tuple(KINDS),
            plots=backend_plots(name, span.word) if visit.may("ShowHistory") else (),
            span=span.word,
            spans=list(SPANS),
            path=_of(name),
            drafts=drafts,
        )

    async def _backend_view(self, visit: Visit, name: str) -> tuple[BackendView, HealthView | None]:
        backends, nodes, queue, lately = await asyncio.gather(
            visit.ask("ShowBackends", admin_pb2.ShowBackendsRequest()),
            visit.ask_or_none("ShowNodes", admin_pb2.ShowNodesRequest()),
            visit.ask_or_none("ViewQueue", admin_pb2.ViewQueueRequest()),
            self._hours.by_backend(visit),
        )
        backend = next((one for one in backends.backends if one.name == name), None)
        if backend is None:
            raise NotFound(f"There is no backend {name[:80]}.")
        health = await visit.ask_or_none("ShowBackendHealth", lifecycle_pb2.ShowHealthRequest(name=name))
        view = backend_view(
            backend,
            nodes.nodes if nodes is not None else None,
            queue,
            lately.get(backend.id) if lately is not None else None,
            health,
            visit.now,
        )
        return view, health_view(health, visit.now) if health is not None else None

    async def _backend_piece(self, visit: Visit, name: str) -> str:
        view, health = await self._backend_view(visit, name)
        return visit.render("fleet/_backend.html", view=view, health=health)

    async def _do(self, visit: Visit, form: str, act: Act) -> web.StreamResponse:
        return await carry_out(visit, form, act, show=self._backend_page, path=_of(visit.part("name")))

    async def _drain(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            return drained_in_words(
                await visit.ask("DrainBackend", read_drain_of_backend(visit.form, visit.part("name")))
            )

        return await self._do(visit, "drain", act)

    async def _undrain(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            name = visit.part("name")
            await visit.ask("DrainBackend", admin_pb2.DrainBackendRequest(name=name, undo=True))
            return f"{name} gets requests again."

        return await self._do(visit, "undrain", act)

    async def _probe(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            name = visit.part("name")
            told = await visit.ask("ProbeBackend", lifecycle_pb2.LookNowRequest(name=name))
            state = word(told.backend, "health") or "unknown"
            return f"{name} was looked at: it is {state}." if told.looked else f"{name} has not answered yet."

        return await self._do(visit, "probe", act)

    async def _enable(self, visit: Visit) -> web.StreamResponse:
        return await self._switch(visit, "enable", enabled=True)

    async def _disable(self, visit: Visit) -> web.StreamResponse:
        return await self._switch(visit, "disable", enabled=False)

    async def _switch(self, visit: Visit, form: str, *, enabled: bool) -> web.StreamResponse:
        async def act() -> str:
            name = visit.part("name")
            await visit.ask("ChangeBackend", parts.ChangeBackendRequest(name=name, enabled=enabled))
            return f"{name} is {'used again' if enabled else 'not used any more'}."

        return await self._do(visit, form, act)

    async def _change(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            told = await visit.ask("ChangeBackend", read_change(visit.form, visit.part("name")))
            if not told.changes:
                return f"{told.backend.name} is so already."
            return f"{told.backend.name} is changed; the fleet is at version {told.version}."

        return await self._do(visit, "change", act)

    async def _add_window(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            window = read_window(visit.form, "backend", visit.part("name"), visit.now)
            told = await visit.ask("ScheduleMaintenance", window)
            return f"Maintenance {told.window.id} is announced."

        return await self._do(visit, "maintenance", act)

    async def _cancel_window(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            told = await visit.ask("CancelMaintenance", lifecycle_pb2.RemoveMaintenanceRequest(id=visit.part("id")))
            return f"Maintenance {told.window.id} is cancelled."

        return await self._do(visit, "cancel", act)

    async def _name_model(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            await visit.ask("NameBackendModels", read_named_model(visit.form, visit.part("name")))
            return "It is called so there from now on."

        return await self._do(visit, "model", act)

    async def _forget_model(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            model = visit.form.demand("model", "The model")
            request = admin_pb2.NameBackendModelsRequest(name=visit.part("name"), removed=[model])
            await visit.ask("NameBackendModels", request)
            return f"{model} has no name of its own there any more."

        return await self._do(visit, "forget-model", act)

    async def _add_credential(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            told = await visit.ask("AddBackendCredential", read_credential(visit.form, visit.part("name")))
            return f"Key {told.credential.label} is kept, sealed; it has {told.held}."

        return await self._do(visit, "key", act)

    async def _forget_credential(self, visit: Visit) -> web.StreamResponse:
        async def act() -> str:
            label = visit.form.demand("label", "Which key")
            demand_typed(visit.form, label, "forget that key")
            request = admin_pb2.RemoveBackendCredentialRequest(backend=visit.part("name"), label=label)
            told = await visit.ask("RemoveBackendCredential", request)
            left = f"it has {told.held}" if told.held else "it has none any more, and is called without"
            return f"Key {label} is forgotten; {left}."

        return await self._do(visit, "forget-key", act)

    async def _remove(self, visit: Visit) -> web.StreamResponse:
        name = visit.part("name")

        async def act() -> str:
            demand_typed(visit.form, name, "remove it")
            await visit.ask("UnregisterBackend", admin_pb2.UnregisterBackendRequest(name=name))
            return f"Backend {name} is removed; its keys are forgotten."

        return await carry_out(visit, "remove", act, show=self._backend_page, path=_BACKENDS)


def drained_in_words(told: admin_pb2.DrainBackendResponse) -> str:
    if told.drained:
        return f"{told.name} is drained: nothing runs there, nothing new is sent."
    if told.running_unknown:
        return f"{told.name} gets nothing new; how much still runs there, no scheduler told."
    # With what gateways were lent ahead, which the scheduler has only begun to call back.
    return f"{told.name} gets nothing new; {told.running} slots are still held there."


def _of(name: str) -> str:
    return f"{_BACKENDS}/{quote(name, safe='')}"
