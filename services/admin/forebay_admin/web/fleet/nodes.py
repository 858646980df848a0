"""`/console/nodes`: the machines, live; and one of them, with its past and what can be done about it."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

from aiohttp import web

from forebay.errors import NotFound
from forebay.wire.v1 import admin_pb2, commands_pb2, discovery_pb2, history_pb2, lifecycle_pb2, registry_pb2
from forebay_admin.web.drafts import NO_DRAFTS, Drafts
from forebay_admin.web.fleet.backend_form import read_node_change
from forebay_admin.web.fleet.backends_view import found_rows
from forebay_admin.web.fleet.carry_out import carry_out
from forebay_admin.web.fleet.energy_view import EnergyView, energy_view, read_rates
from forebay_admin.web.fleet.nodes_view import discovery_of, node_view, nodes_view, window_rows
from forebay_admin.web.fleet.orders_form import (
    POLICIES,
    US,
    read_discovery,
    read_drain_of_node,
    read_window,
)
from forebay_admin.web.fleet.plots import SPANS, Span, node_plots, span_named
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.live import Live, Topic
from forebay_admin.web.visit import Visit, Visits

_NODES = "/console/nodes"
_MOST_VALID_S = 30 * 86_400


class NodesPages:
    def __init__(self, visits: Visits, live: Live) -> None:
        self._visits = visits
        live.add(
            [
                Topic("nodes", self._nodes_piece, calls=("ShowNodes",), every_s=2.0),
                Topic("node", self._node_piece, calls=("ShowNodes",), every_s=2.0, has_argument=True),
            ]
        )

    def routes(self) -> list[web.RouteDef]:
        get, post = self._visits.get, self._visits.post
        one = f"{_NODES}/{{name}}"
        return [
            get(_NODES, self._list, call="ShowNodes"),
            get("/console/invite-node", self._invite_form, call="InviteNode"),
            post("/console/invite-node", self._invite, call="InviteNode"),
            get(one, self._node, call="ShowNodes"),
            post(f"{one}/drain", self._drain, call="DrainNode"),
            post(f"{one}/undrain", self._undrain, call="DrainNode"),
            post(f"{one}/maintenance", self._add_window, call="ScheduleMaintenance"),
            post(f"{one}/maintenance/{{id}}/cancel", self._cancel_window, call="CancelMaintenance"),
            post(f"{one}/discovery", self._discovery, call="SetNodeDiscovery"),
            post(f"{one}/command", self._command, call="CommandNode"),
            post(f"{one}/change", self._change, call="ChangeNode"),
        ]

    # --- all of them ------------------------------------------------------------------------------------------------

    async def _list(self, visit: Visit) -> web.StreamResponse:
        return visit.page("fleet/nodes.html", title="Nodes", view=await self._nodes_view(visit))

    async def _nodes_view(self, visit: Visit) -> Any:
        nodes, backends = await _nodes_and_backends(visit)
        return nodes_view(nodes, backends, visit.now)

    async def _nodes_piece(self, visit: Visit, _: str) -> str:
        return visit.render("fleet/_nodes.html", view=await self._nodes_view(visit))

    async def _invite_form(self, visit: Visit) -> web.StreamResponse:
        return await self._invite_page(visit, NO_DRAFTS)

    async def _invite_page(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        return visit.page(
            "fleet/invite.html", title="Invite a node", status=drafts.status, drafts=drafts, invited=None, name=""
        )

    async def _invite(self, visit: Visit) -> web.StreamResponse:
        """What it answers with stands on this page and nowhere else."""
        told = admin_pb2.InviteNodeResponse()
        name = visit.form.get("name")

        async def act() -> str:
            nonlocal told
            visit.form.demand("name", "The node's name")
            valid_s = visit.form.seconds("valid", 3600, least=60, most=_MOST_VALID_S)
            told = await visit.ask("InviteNode", admin_pb2.InviteNodeRequest(name=name, valid_s=valid_s))
            return ""

        answer = await carry_out(visit, "invite", act, show=self._invite_page, path=_NODES)
        if not told.command:
            return answer
        return visit.page("fleet/invite.html", title="Invite a node", drafts=NO_DRAFTS, invited=told, name=name)

    # --- one of them ------------------------------------------------------------------------------------------------

    async def _node(self, visit: Visit) -> web.StreamResponse:
        return await self._node_page(visit, NO_DRAFTS)

    async def _node_page(self, visit: Visit, drafts: Drafts) -> web.StreamResponse:
        name = visit.part("name")
        span = span_named(visit.query.get("span", ""))
        nodes, backends = await _nodes_and_backends(visit)
        node = _named(nodes, name)
        windows, found, energy = await asyncio.gather(
            visit.ask_or_none("ShowMaintenance", lifecycle_pb2.ListMaintenanceRequest()),
            visit.ask_or_none("ShowFoundBackends", discovery_pb2.ListFoundBackendsRequest()),
            self._energy(visit, name, span),
        )
        return visit.page(
            "fleet/node.html",
            title=name,
            status=drafts.status,
            view=node_view(node, backends, visit.now),
            windows=window_rows(windows.windows, visit.now, {"node": name}) if windows is not None else None,
            discovery=discovery_of(name, found),
            found=found_rows(found, name) if found is not None else (),
            policies=tuple(POLICIES),
            energy=energy,
            plots=node_plots(name, _gpus(node), span.word) if visit.may("ShowHistory") else (),
            span=span.word,
            spans=list(SPANS),
            path=_of(name),
            drafts=drafts,
        )

    async def _node_piece(self, visit: Visit, name: str) -> str:
        nodes, backends = await _nodes_and_backends(visit)
        return visit.render("fleet/_node.html", view=node_view(_named(nodes, name), backends, visit.now))

    async def _energy(self, visit: Visit, name: str, span: Span) -> EnergyView | None:
        rates = read_rates(Form(list(visit.query.items())))
        begin, end = round((visit.now - span.seconds) * US), round(visit.now * US)
        by_node, by_gpu = await asyncio.gather(
            *(
                visit.ask_or_none("ShowEnergy", history_pb2.ShowEnergyRequest(by=by, from_us=begin, to_us=end))
                for by in (history_pb2.ENERGY_BY_NODE, history_pb2.ENERGY_BY_GPU)
            )
        )
        return energy_view(name, by_node, by_gpu, rates) if by_node is not None and by_gpu is not None else None

    async def _drain(self, visit: Visit) -> web.StreamResponse:
        name = visit.part("name")

        async def act() -> str:
            told = await visit.ask("DrainNode", read_drain_of_node(visit.form, name))
            names = ", ".join(one.name for one in told.backends)
            return f"Nothing new is sent to {name}{f': {names}' if names else '; it has no backends'}."

        return await carry_out(visit, "drain", act, show=self._node_page, path=_of(name))

    async def _undrain(self, visit: Visit) -> web.StreamResponse:
        name = visit.part("name")

        async def act() -> str:
            await visit.ask("DrainNode", admin_pb2.DrainNodeRequest(node=name, undo=True))
            return f"{name} gets requests again; a backend that is drained by its own name stays so."

        return await carry_out(visit, "undrain", act, show=self._node_page, path=_of(name))

    async def _add_window(self, visit: Visit) -> web.StreamResponse:
        name = visit.part("name")

        async def act() -> str:
            told = await visit.ask("ScheduleMaintenance", read_window(visit.form, "node", name, visit.now))
            return f"Maintenance {told.window.id} of {name} is announced."

        return await carry_out(visit, "maintenance", act, show=self._node_page, path=_of(name))

    async def _cancel_window(self, visit: Visit) -> web.StreamResponse:
        name = visit.part("name")

        async def act() -> str:
            told = await visit.ask("CancelMaintenance", lifecycle_pb2.RemoveMaintenanceRequest(id=visit.part("id")))
            return f"Maintenance {told.window.id} is cancelled."

        return await carry_out(visit, "cancel", act, show=self._node_page, path=_of(name))

    async def _discovery(self, visit: Visit) -> web.StreamResponse:
        name = visit.part("name")

        async def act() -> str:
            await visit.ask("SetNodeDiscovery", read_discovery(visit.form, name))
            return f"What is done with engines that are found on {name} is changed."

        return await carry_out(visit, "discovery", act, show=self._node_page, path=_of(name))

    async def _command(self, visit: Visit) -> web.StreamResponse:
        name = visit.part("name")

        async def act() -> str:
            order = visit.form.get("order")
            if order not in ("probe", "sample"):
                raise WrongField("order", "An order is probe or sample.")
            request = commands_pb2.CommandNodeRequest(node=name)
            request.probe.SetInParent() if order == "probe" else request.sample.SetInParent()
            answers = await visit.collect("CommandNode", request)
            said = answers[-1].answer if answers else commands_pb2.NodeCommandAnswer()
            if said.state != commands_pb2.COMMAND_STATE_DONE:
                raise WrongField("order", said.message or "The agent gave no answer.")
            return f"{name}: {said.message or 'done'}"

        return await carry_out(visit, "command", act, show=self._node_page, path=_of(name))

    async def _change(self, visit: Visit) -> web.StreamResponse:
        name = visit.part("name")

        async def act() -> str:
            await visit.ask("ChangeNode", read_node_change(visit.form, name))
            return f"{name} is changed."

        return await carry_out(visit, "change", act, show=self._node_page, path=_of(name))


async def _nodes_and_backends(visit: Visit) -> tuple[list[registry_pb2.Node], list[registry_pb2.Backend] | None]:
    nodes, backends = await asyncio.gather(
        visit.ask("ShowNodes", admin_pb2.ShowNodesRequest()),
        visit.ask_or_none("ShowBackends", admin_pb2.ShowBackendsRequest()),
    )
    return list(nodes.nodes), None if backends is None else list(backends.backends)


def _named(nodes: list[registry_pb2.Node], name: str) -> registry_pb2.Node:
    """Raises NotFound."""
    node = next((one for one in nodes if one.name == name), None)
    if node is None:
        raise NotFound(f"There is no node {name[:80]}.")
    return node


def _gpus(node: registry_pb2.Node) -> list[int]:
    return [gpu.index for gpu in node.last_sample.gpus]


def _of(name: str) -> str:
    return f"{_NODES}/{quote(name, safe='')}"
