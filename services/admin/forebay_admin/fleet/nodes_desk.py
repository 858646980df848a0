"""Operators' calls about engines that were found, about where nodes are, and commands to their agents."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, ForebayError
from forebay.wire.v1 import commands_pb2, discovery_pb2
from forebay_admin.audit.audit import Audit
from forebay_admin.audit.audit_store import Facts
from forebay_admin.fleet.node_client import NodeClient
from forebay_admin.people.access import Actor

_NO_OUTCOME = "not known: whoever gave the command did not wait for its end"


class NodesDesk:
    def __init__(self, database: Database, registry: NodeClient, clock: Clock) -> None:
        self._audit = Audit(database, clock)
        self._registry = registry

    async def show_found(self) -> discovery_pb2.ListFoundBackendsResponse:
        return await self._registry.found()

    async def adopt(
        self, request: discovery_pb2.AdoptBackendRequest, actor: Actor
    ) -> discovery_pb2.AdoptBackendResponse:
        if not request.name:
            raise BadInput("Name what was found; see: forebay backend found")
        await self._audit.demand()
        request.actor = actor.name
        adopted = await self._registry.adopt(request)
        before: Facts | None = None if adopted.created else {"found_by": "itself"}
        await self._audit.record(actor, "backend.adopt", adopted.name, before=before, after={"url": adopted.url})
        return adopted

    async def set_discovery(
        self, request: discovery_pb2.SetNodeDiscoveryRequest, actor: Actor
    ) -> discovery_pb2.SetNodeDiscoveryResponse:
        await self._audit.demand()
        request.actor = actor.name
        changed = await self._registry.set_discovery(request)
        if changed.before != changed.after:
            before, after = _facts(changed.before), _facts(changed.after)
            await self._audit.record(actor, "node.discovery", request.node, before=before, after=after)
        return changed

    async def command(
        self, request: commands_pb2.CommandNodeRequest, actor: Actor
    ) -> AsyncGenerator[commands_pb2.CommandNodeResponse, None]:
        """Each answer of the agent. That it was given is audited before it is, and its end afterwards."""
        request.actor = actor.name
        order = _order(request)
        await self._audit.record(actor, "node.command", request.node, after=order)
        outcome, message = "unanswered", _NO_OUTCOME
        try:
            async with aclosing(self._registry.command(request)) as answers:
                async for answer in answers:
                    state = commands_pb2.CommandState.Name(answer.answer.state)
                    outcome = state.removeprefix("COMMAND_STATE_").lower()
                    message = answer.answer.message
                    yield answer
        except ForebayError as error:
            outcome, message = "unanswered", error.message
            raise
        finally:
            ended: Facts = {**order, "outcome": outcome, "message": message}
            await self._audit.record(actor, "node.command.ended", request.node, after=ended)


def _order(request: commands_pb2.CommandNodeRequest) -> dict[str, str | int | bool | list[str] | None]:
    """Raises BadInput."""
    kind = request.WhichOneof("order")
    if not request.node or kind is None:
        raise BadInput("A command needs a node and an order: probe, sample, pull or delete.")
    if kind in ("pull", "delete"):
        model = getattr(request, kind).model
        if not model:
            raise BadInput("Name a model.")
        return {"order": kind, "model": model[:512]}
    return {"order": kind}


def _facts(site: discovery_pb2.NodeDiscovery) -> dict[str, str | int | bool | list[str] | None]:
    policy = discovery_pb2.DiscoveryPolicy.Name(site.policy).removeprefix("DISCOVERY_POLICY_").lower()
    return {"policy": policy, "pool": site.pool, "addresses": list(site.addresses)}
