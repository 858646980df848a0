"""Nodes. There they are asked by a sidecar's address; here an agent reports by itself, so that registering one describes it
and makes the command with which its agent joins."""

from __future__ import annotations

from typing import Any

from forebay.errors import AlreadyExists, BadInput, NotPossible
from forebay.wire.v1 import fleet_parts_pb2, fleet_pb2, registry_pb2
from forebay_admin.fleet.invitations import demand_node_name
from forebay_admin.seeds import fleet_edit
from forebay_admin.seeds.asking import Asking
from forebay_admin.seeds.fields import Fields
from forebay_admin.seeds.mindrouter.shapes import is_online, number, the_node
from forebay_admin.seeds.refusals import NoCounterpart
from forebay_admin.seeds.route import SeedRoute

_KEPT = ("hostname", "sidecar_url")
"""As labels."""


def shape(node: registry_pb2.Node, now: float) -> dict[str, Any]:
    sample = node.last_sample if node.HasField("last_sample") else None
    gpu = sample.gpus[0] if sample is not None and sample.gpus else None
    status = "online" if is_online(node, now) else "unknown" if node.without_agent else "offline"
    return {
        "id": number("node", node.id),
        "name": node.name,
        "hostname": node.labels.get("hostname") or (sample.host.hostname if sample is not None else "") or None,
        "sidecar_url": node.labels.get("sidecar_url"),
        "sidecar_key_set": False,
        "status": status,
        "gpu_count": len(sample.gpus) if sample is not None else None,
        "driver_version": (gpu.driver_version or None) if gpu is not None else None,
        "cuda_version": (gpu.cuda_version or None) if gpu is not None else None,
        "sidecar_version": (sample.agent_version or None) if sample is not None else None,
    }


async def list_nodes(asking: Asking) -> Any:
    return [shape(node, asking.now) for node in (await asking.call("ShowNodes")).nodes]


async def register(asking: Asking) -> Any:
    """`join_command`, which they do not have, is to be run on that machine."""
    body = asking.body()
    name, labels = body.text("name", needed=True, longest=100), _labels(body)
    body.done()
    demand_node_name(name)  # as an invitation does, which comes last
    if any(node.name == name for node in (await asking.call("ShowNodes")).nodes):
        raise AlreadyExists(f"Node with name '{name}' already exists")
    wanted = fleet_pb2.FleetSpec(nodes=[fleet_pb2.NodeSpec(name=name, labels=labels)])
    done = await asking.make("ApplyFleet", fleet_pb2.ApplyFleetRequest(wanted=wanted))
    fleet_edit.demand_none(done.problems)
    invitation = await asking.call("InviteNode", name=name)
    return {**shape(await the_node(asking, name), asking.now), "join_command": invitation.command}


async def update(asking: Asking) -> Any:
    node, body = await the_node(asking), asking.body()
    if not body.said():
        raise BadInput("No fields to update")
    name, labels = body.text("name", node.name, longest=100), _labels(body)
    body.done()
    if name != node.name:
        raise NoCounterpart("A node keeps its name, under which its agent reports: have it join under the other one.")
    if body.is_said("sidecar_key"):
        raise NoCounterpart("Nodes have no sidecar key here: an agent proves itself by a key of its own.")
    reset = [f"labels.{name}" for name in _KEPT if body.is_cleared(name) and name in node.labels]
    change = fleet_parts_pb2.ChangeNodeRequest(name=node.name, labels=labels, reset=reset)
    await asking.make("ChangeNode", change)
    return shape(await the_node(asking, node.id), asking.now)


async def remove(asking: Asking) -> Any:
    node = await the_node(asking)
    if any(backend.node_id == node.id for backend in (await asking.call("ShowBackends")).backends):
        raise NotPossible("Cannot delete node with active backends. Remove backends first.")
    await fleet_edit.remove(asking, "node", node.name)
    return {"status": "deleted", "node_id": number("node", node.id)}


async def refresh(asking: Asking) -> Any:
    """An agent reports every few seconds: what is told here is never older."""
    node = await the_node(asking)
    if node.without_agent:
        raise BadInput("Node has no agent: run the join command of POST /api/admin/nodes/register there.")
    return {"status": "refreshed", "node_id": number("node", node.id)}


def _labels(body: Fields) -> dict[str, str]:
    return {name: text for name in _KEPT if (text := body.text(name, longest=253))}


_ONE = "/nodes/{node_id}"
ROUTES = (
    SeedRoute("POST", "/nodes/register", register, ("ApplyFleet", "InviteNode", "ShowNodes")),
    SeedRoute("GET", "/nodes", list_nodes, ("ShowNodes",)),
    SeedRoute("PATCH", _ONE, update, ("ChangeNode", "ShowNodes")),
    SeedRoute("DELETE", _ONE, remove, (*fleet_edit.CALLS, "ShowNodes", "ShowBackends")),
    SeedRoute("POST", f"{_ONE}/refresh", refresh, ("ShowNodes",)),
)
