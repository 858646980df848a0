"""What was found, and commands to agents: operators' calls, the audit log, and the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from forebay.errors import BadInput, NotFound, NotPossible, Unavailable
from forebay.launch import cli
from forebay.rpc import translated
from forebay.wire.v1 import commands_pb2, discovery_pb2
from tests.admin.replica import Running
from tests.admin.test_operator import query

Invoke = Callable[..., Awaitable[Result]]


@pytest.fixture
async def forebay(admin: Running) -> Invoke:
    async def invoke(*words: str) -> Result:
        environment = {"FOREBAY_ADMIN": admin.grpc_address, "FOREBAY_TOKEN": admin.site.first_key}
        return await asyncio.to_thread(CliRunner().invoke, cli, words, None, environment)

    return invoke


async def audited(admin: Running) -> list[tuple[str, str, Any, Any]]:
    sql = (
        "SELECT action, subject, before, after FROM admin.audit_log WHERE action LIKE 'node.%' OR action = 'backend.adopt'"
        " ORDER BY at, action"
    )
    rows = await query(admin, sql)
    return [
        (r["action"], r["subject"], *(json.loads(r[f]) if r[f] else None for f in ("before", "after"))) for r in rows
    ]


async def test_a_command_is_audited_before_it_is_given_and_when_it_ends(admin: Running) -> None:
    nodes = admin.site.registry.nodes
    operator = await admin.operator()
    answers = await operator.CommandNode(node="gpu-1", pull=commands_pb2.PullModel(model="llama3.1"), actor="mallory")
    assert [one.answer.state for one in answers] == [
        commands_pb2.COMMAND_STATE_RUNNING,
        commands_pb2.COMMAND_STATE_DONE,
    ]
    assert nodes.actors == ["admin"], "whoever an operator claims to be"
    nodes.answers = []
    with pytest.raises(Unavailable, match="was last heard 90 s ago"), translated():
        await operator.CommandNode(node="gpu-1", sample=commands_pb2.SampleNow())
    given = {"order": "pull", "model": "llama3.1"}
    unanswered = {"outcome": "unanswered", "message": "The agent of gpu-1 does not answer; it was last heard 90 s ago."}
    assert await audited(admin) == [
        ("node.command", "gpu-1", None, given),
        ("node.command.ended", "gpu-1", None, {**given, "outcome": "done", "message": "llama3.1 is there."}),
        ("node.command", "gpu-1", None, {"order": "sample"}),
        ("node.command.ended", "gpu-1", None, {"order": "sample", **unanswered}),
    ]
    for request in (
        {"node": "gpu-1"},
        {"sample": commands_pb2.SampleNow()},
        {"node": "gpu-1", "pull": commands_pb2.PullModel()},
    ):
        with pytest.raises(BadInput), translated():
            await operator.CommandNode(**request)
    assert len(nodes.commands) == 2


async def test_what_was_found_is_shown_and_adopted_and_where_a_node_is_can_be_said(admin: Running) -> None:
    operator = await admin.operator()
    assert len((await operator.ShowFoundBackends()).found) == 2
    adopted = await operator.AdoptBackend(name="gpu-1-vllm-8000", as_name="big")
    assert (adopted.name, adopted.created) == ("big", True)
    with pytest.raises(NotFound), translated():
        await operator.AdoptBackend(name="nothing")
    await operator.SetNodeDiscovery(node="gpu-1", policy=discovery_pb2.DISCOVERY_POLICY_AUTO)
    await operator.SetNodeDiscovery(node="gpu-1")
    assert await audited(admin) == [
        ("backend.adopt", "big", None, {"url": "http://10.0.0.5:8000"}),
        (
            "node.discovery",
            "gpu-1",
            {"policy": "unspecified", "pool": "", "addresses": []},
            {"policy": "auto", "pool": "", "addresses": []},
        ),
    ], "and what changes nothing is no change"


async def test_the_command_line_says_what_is_there_and_what_came_of_it(admin: Running, forebay: Invoke) -> None:
    listed = (await forebay("backend", "found")).output
    for words in (["gpu-1-ollama-11434", "not reachable", "127.0.0.1 only"], ["gpu-1-vllm-8000", "suggested", "0, 1"]):
        assert any(all(word in line for word in words) for line in listed.splitlines()), listed
    found = json.loads((await forebay("backend", "found", "--json")).stdout)
    assert found["found"][0]["standing"] == "not_possible"
    adopted = await forebay("backend", "adopt", "gpu-1-vllm-8000", "--as", "big")
    assert adopted.output == "Backend big (http://10.0.0.5:8000) is added.\n"
    said = await forebay("node", "discovery", "gpu-1", "--policy", "off", "--address", "gpu-1.lan")
    assert said.output == (
        "Node gpu-1: engines that are found there are left alone; pool default.\nIt is reached at: gpu-1.lan.\n"
    )
    cleared = await forebay("node", "discovery", "gpu-1", "--forget-addresses")
    assert "10.0.0.5, where it joined from" in cleared.output
    pulled = await forebay("node", "command", "gpu-1", "pull", "llama3.1")
    assert pulled.output == "gpu-1: llama3.1 is there.\n"
    answer = json.loads((await forebay("node", "command", "gpu-1", "pull", "llama3.1", "--json")).stdout)
    assert (answer["state"], answer["id"]) == ("done", "1")
    refused = commands_pb2.NodeCommandAnswer(
        node="gpu-1",
        state=commands_pb2.COMMAND_STATE_REFUSED,
        reason="not_allowed",
        message="This node does not allow delete.",
    )
    admin.site.registry.nodes.answers = [refused]
    result = await forebay("node", "command", "gpu-1", "delete", "m")
    assert isinstance(result.exception, NotPossible)
    assert str(result.exception) == "The agent of gpu-1 refuses (not_allowed): This node does not allow delete."
    for wrong in (("pull",), ("probe", "m")):
        assert isinstance((await forebay("node", "command", "gpu-1", *wrong)).exception, BadInput)
