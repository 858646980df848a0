"""`forebay backend set`, `node set` and `pool set`: one thing of the fleet changed by itself, through a real admin."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from forebay.errors import BadInput, ForebayError, NotFound, NotPossible
from forebay.launch import cli
from forebay.wire.v1 import fleet_parts_pb2, fleet_pb2
from forebay_admin.fleet.parts import backend_patched, patched, pool_patched
from forebay_admin.fleet.parts_desk import FleetPartsDesk
from forebay_admin.people.access import Actor
from forebay_admin.people.people import Role
from tests.admin.replica import Running
from tests.admin.test_operator import query

Invoke = Callable[..., Awaitable[Result]]
ANYBODY = Actor("admin", Role.ADMIN)
FIELDS = ("pool", "node", "gpu_indices", "weight", "labels")

FLEET = """\
nodes: [{name: box, note: old}, {name: other}]
backends:
- {name: big, url: "http://big:8000", node: box, gpu_indices: [0, 1], slots: 8, labels: {rack: a, row: b}}
- {name: small, url: "http://small:8000"}
pools: [{name: lab, hosts: [lab.example.com], required_models: [llama], placement: random, locality_window: 7}]
"""


@pytest.fixture
async def forebay(admin: Running) -> Invoke:
    """`await forebay("backend", "set", "big")`, as the first admin, of FLEET."""

    async def invoke(*words: str, stdin: str | None = None) -> Result:
        environment = {"FOREBAY_ADMIN": admin.grpc_address, "FOREBAY_TOKEN": admin.site.first_key}
        return await asyncio.to_thread(CliRunner().invoke, cli, words, stdin, environment)

    assert (await invoke("apply", "-f", "-", stdin=FLEET)).exit_code == 0
    return invoke


def told(result: Result) -> Any:
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def refusal(result: Result, kind: type[ForebayError]) -> str:
    assert isinstance(result.exception, kind), (result.output, result.exception)
    return result.exception.message


async def test_a_backend_is_changed_by_itself_and_the_same_again_changes_nothing(
    forebay: Invoke, admin: Running
) -> None:
    words = ("backend", "set", "big", "--weight", "2.5", "--label", "rack=c", "--reset", "labels.row", "--disable")
    done = await forebay(*words, "--reset", "slots", "--pool", "night")
    assert done.output.splitlines() == [
        "~ backend big",
        "    enabled: not set → false",
        '    labels: {"rack":"a","row":"b"} → {"rack":"c"}',
        "    pool: not set → night",
        "    slots: 8 → not set",
        "    weight: not set → 2.5",
        "The fleet is at version 2.",
    ]
    again = await forebay(*words)
    assert again.output == "No changes: it is so already, and the fleet is at version 2.\n"
    (row,) = await query(admin, "SELECT * FROM admin.audit_log WHERE action = 'fleet.backend.changed'")
    assert (row["actor"], row["subject"], json.loads(row["before"])["slots"]) == ("admin", "big", "8")
    assert json.loads(row["after"])["weight"] == "2.5"
    moved = told(await forebay("backend", "set", "big", "--node", "other", "--enable", "--json"))
    assert (moved["backend"]["node"], moved["backend"]["gpu_indices"]) == ("other", []), (
        "the GPUs were the other node's"
    )
    assert moved["version"] == 3
    assert {field["field"] for change in moved["changes"] for field in change["fields"]} == {
        *("node", "gpu_indices", "enabled"),
    }


async def test_a_node_and_a_pool_are_too_and_of_changes_at_once_all_are_made(forebay: Invoke, admin: Running) -> None:
    node = told(await forebay("node", "set", "box", "--label", "rack=a", "--reset", "note", "--json"))
    assert node["node"] == {"name": "box", "labels": {"rack": "a"}, "note": ""}
    pool = told(await forebay("pool", "set", "lab", "--sticky", "--path-prefix", "/lab", "--reset", "hosts", "--json"))
    assert pool["pool"] == {
        "name": "lab",
        "hosts": [],
        "path_prefix": "/lab",
        "required_models": ["llama"],
        "pull": "",
        "placement": "random",
        "sticky": True,
        "locality_window": 7,
    }
    as_usual = ("--reset", "placement", "--reset", "sticky", "--locality-window", "default")
    usual = told(await forebay("pool", "set", "lab", *as_usual, "--json"))["pool"]
    assert (usual["placement"], usual["sticky"], usual["locality_window"]) == ("expected_ttft", False, None)
    new = told(await forebay("pool", "set", "new", "--host", "new.example.com", "--json"))
    assert [(change["name"], change["what"]) for change in new["changes"]] == [("new", "created")]
    made = told(await forebay("pool", "set", "both", "--host", "both.example.com", "--sticky", "--json"))
    (change,) = made["changes"]
    assert [field["field"] for field in change["fields"]] == ["hosts", "placement", "sticky"], "each told once"
    # What was possible before is told as before.
    terms = told(await forebay("pool", "set", "lab", "--placement", "weighted", "--json"))
    assert (terms["pool"], terms["placement"]) == ("lab", "weighted")

    operator = await admin.operator()
    await asyncio.gather(
        *(operator.ChangeBackend(name=name, labels={label: "yes"}) for name in ("big", "small") for label in "xyz")
    )
    fleet = told(await forebay("fleet", "export", "--json"))["fleet"]
    assert [{"x", "y", "z"} <= backend["labels"].keys() for backend in fleet["backends"]] == [True, True]


async def test_what_cannot_be_is_told_clearly_and_changes_nothing(forebay: Invoke, admin: Running) -> None:
    nothing = refusal(await forebay("backend", "set", "big"), BadInput)
    assert nothing == "Say what is to be changed; nothing was named."
    assert "did you mean big?" in refusal(await forebay("backend", "set", "bigg", "--slots", "1"), NotFound)
    assert "There is no node 'none'" in refusal(await forebay("node", "set", "none", "--note", "x"), NotFound)
    lost = refusal(await forebay("backend", "set", "big", "--node", "none", "--weight", "-1"), BadInput)
    assert [line.partition(":")[0] for line in lost.splitlines()] == ["weight", "node"]
    taken = refusal(await forebay("pool", "set", "new", "--host", "lab.example.com"), BadInput)
    assert taken == "hosts: lab.example.com leads to the pool lab already."
    much = await forebay("backend", "set", "big", "--kv-tokens", "9" * 30)
    assert (much.exit_code, "not in the range" in much.output) == (2, True), "and no message has room for it"
    admin.site.registry.declared = ["backends.small", "pools.lab"]
    declared = refusal(await forebay("backend", "set", "small", "--slots", "2"), NotPossible)
    assert "small stands in the registry's configuration file ([[registry.backends]] in forebay.toml)" in declared
    assert isinstance((await forebay("pool", "set", "lab", "--require", "qwen")).exception, NotPossible)
    assert (await forebay("pool", "set", "lab", "--reset", "sticky")).exit_code == 0, "no file says that"
    stale = refusal(await forebay("backend", "set", "big", "--slots", "2", "--base-version", "0"), NotPossible)
    assert "somebody else" in stale
    assert told(await forebay("fleet", "export", "--json"))["version"] == 1


# --- decided ---


def test_labels_are_put_beside_the_others_and_all_of_them_can_be_replaced() -> None:
    held = {"name": "big", "labels": {"a": "1", "b.c": "2"}}
    assert patched(held, {"labels": {"d": "3"}}, ["labels.b.c"], FIELDS)["labels"] == {"a": "1", "d": "3"}
    assert patched(held, {"labels": {"d": "3"}}, ["labels"], FIELDS)["labels"] == {"d": "3"}
    assert patched(held, {}, ["labels.a", "labels.b.c"], FIELDS) == {"name": "big"}


def test_a_backend_keeps_its_gpus_unless_its_node_is_another() -> None:
    held = {"name": "big", "node": "box", "gpu_indices": [0]}
    assert backend_patched(held, {"node": "box"}, [], FIELDS) == held
    assert backend_patched(held, {}, ["node"], FIELDS) == {"name": "big"}
    assert backend_patched(held, {"node": "b", "gpu_indices": [2]}, [], FIELDS)["gpu_indices"] == [2]


def test_a_pool_whose_every_word_on_placing_is_taken_back_places_as_usual() -> None:
    fields = ("hosts", "placement", "sticky", "locality_window")
    assert pool_patched({"name": "lab", "sticky": True}, {}, ["sticky"], fields)["placement"] == "expected_ttft"
    assert pool_patched({"name": "lab", "hosts": ["a"]}, {}, ["hosts"], fields) == {"name": "lab"}


@pytest.mark.parametrize(
    ("said", "reset", "why"),
    [
        ({}, [], "nothing was named"),
        ({}, ["url"], "'url' is nothing that can be as usual again"),
        ({}, ["wieght"], "did you mean weight?"),
        ({}, ["weight.x"], "nothing that can be as usual"),
        ({}, ["labels."], "nothing that can be as usual"),
        ({"weight": 2.0}, ["weight"], "say one of the two"),
        ({"labels": {"a": "1"}}, ["labels.a"], "say one of the two"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(said: dict[str, Any], reset: list[str], why: str) -> None:
    with pytest.raises(BadInput, match=why.replace("?", r"\?")):
        patched({"name": "big", "weight": 1.0}, said, reset, FIELDS)


class _Changed:
    """The fleet as somebody else's admin changes it `times` times, each right before ours."""

    def __init__(self, times: int) -> None:
        self.version, self._times = 1, times
        self.planned_on: list[int] = []

    async def export(self, _: fleet_pb2.ExportFleetRequest) -> fleet_pb2.ExportFleetResponse:
        fleet = fleet_pb2.FleetSpec(nodes=[fleet_pb2.NodeSpec(name="box", labels={"seen": str(self.version)})])
        return fleet_pb2.ExportFleetResponse(fleet=fleet, version=self.version)

    async def apply(self, request: fleet_pb2.ApplyFleetRequest, _: Actor) -> fleet_pb2.ApplyFleetResponse:
        self.planned_on.append(request.base_version)
        if self._times:
            self._times -= 1
            self.version += 1
        if request.base_version != self.version:
            raise NotPossible("somebody else changed it")
        assert request.wanted.nodes[0].labels == {"seen": str(self.version), "rack": "a"}
        return fleet_pb2.ApplyFleetResponse(version=self.version + 1)


@pytest.mark.parametrize(("times", "base", "is_made"), [(2, None, True), (9, None, False), (1, 1, False)])
async def test_what_was_said_holds_for_what_others_made_of_it_meanwhile(
    times: int, base: int | None, is_made: bool
) -> None:
    state = _Changed(times)
    desk = FleetPartsDesk(state)  # type: ignore[arg-type]
    request = fleet_parts_pb2.ChangeNodeRequest(name="box", labels={"rack": "a"}, base_version=base)
    if is_made:
        assert (await desk.change_node(request, ANYBODY)).version == times + 2
    else:
        with pytest.raises(NotPossible, match="somebody else"):
            await desk.change_node(request, ANYBODY)
    assert state.planned_on == list(range(1, len(state.planned_on) + 1))
    assert len(state.planned_on) == (1 if base else min(times + 1, 5))
