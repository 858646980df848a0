"""`forebay apply`, `diff` and `fleet`, through a real admin: plans, problems with lines, keys, what admin keeps itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner, Result

from forebay.errors import BadInput, NotPossible, Unavailable
from forebay.launch import cli
from forebay.rpc import translated
from forebay_admin.fleet.own_part import PoolSaid, plan_own
from forebay_admin.models.model_rules import Alias
from forebay_admin.models.terms import Placement, PoolTerms
from tests.admin.replica import Running, until
from tests.admin.test_operator import query

Invoke = Callable[..., Awaitable[Result]]

FLEET = """\
nodes:
- name: gpu-1
backends:
- name: big
  url: http://gpu-1:8000
  node: gpu-1
  gpu_indices: [0, 1]
  slots: 8
  bearer_file: big.key
- name: small
  url: http://small:8000
pools:
- name: lab
  hosts: [lab.example.com]
  placement: least_loaded
- name: default
  sticky: true
models:
- name: llama
  context_length: 8192
  aliases: [gpt-4o]
"""


@pytest.fixture
async def forebay(admin: Running) -> Invoke:
    """`await forebay("apply", "-f", path)`, as the first admin."""

    async def invoke(*words: str, stdin: str | None = None) -> Result:
        environment = {"FOREBAY_ADMIN": admin.grpc_address, "FOREBAY_TOKEN": admin.site.first_key}
        return await asyncio.to_thread(CliRunner().invoke, cli, words, stdin, environment)

    return invoke


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "big.key").write_text("sk-secret\n")
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET)
    return path


def told(result: Result) -> Any:
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


async def test_a_fleet_is_planned_applied_and_the_same_again_changes_nothing(
    forebay: Invoke, admin: Running, file: Path
) -> None:
    planned = await forebay("apply", "-f", str(file), "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert planned.output.splitlines() == [
        "+ node gpu-1",
        "+ pool lab",
        '    hosts: ["lab.example.com"]',
        "    placement: least_loaded",
        "    sticky: false",
        "+ model llama",
        "    context_length: 8192",
        '    aliases: ["gpt-4o"]',
        "+ backend big",
        "    gpu_indices: [0,1]",
        "    node: gpu-1",
        "    slots: 8",
        "    url: http://gpu-1:8000",
        "+ backend small",
        "    url: http://small:8000",
        "~ pool default",
        "    placement: not set → expected_ttft",
        "    sticky: not set → true",
        "5 created, 1 changed, 0 removed. Nothing was changed: the fleet is at version 0.",
    ]
    assert (await forebay("diff", "-f", str(file))).exit_code == 1
    done = told(await forebay("apply", "-f", str(file), "--json"))
    assert (done["version"], done["keys_given"], done["applied"], len(done["changes"])) == (1, ["big"], True, 6)
    again = await forebay("apply", "-f", str(file))
    assert again.output == "No changes: the fleet is at version 1.\n"
    same = await forebay("diff", "-f", str(file))
    assert (same.exit_code, same.output) == (0, "No difference.\n")
    backends = told(await forebay("backend", "list", "--json"))
    assert [(b["name"], b["has_credential"]) for b in backends] == [("big", True), ("small", False)]
    pools = told(await forebay("pool", "list", "--json"))
    assert [(p["pool"], p["placement"], p["sticky"], p["hosts"]) for p in pools] == [
        ("default", "expected_ttft", True, []),
        ("lab", "least_loaded", False, ["lab.example.com"]),
    ]
    assert told(await forebay("model", "alias", "--json"))[0]["alias"] == "gpt-4o"


async def test_what_is_exported_is_the_fleet_and_an_older_version_can_be_had_back(
    forebay: Invoke, admin: Running, file: Path, tmp_path: Path
) -> None:
    await forebay("apply", "-f", str(file))
    exported = await forebay("fleet", "export")
    assert "sk-secret" not in exported.output
    assert "bearer" not in exported.output
    same = await forebay("diff", "--prune", "-f", "-", stdin=exported.output)
    assert (same.exit_code, same.output) == (0, "No difference.\n")
    done = await forebay(
        "apply", "-f", "-", "--prune", stdin="backends: [{name: small, url: http://small:8000, slots: 2}]"
    )
    assert done.output.splitlines() == [
        "- node gpu-1",
        "- pool lab",
        "- model llama",
        "~ backend small",
        "    slots: not set → 2",
        "- backend big",
        "0 created, 1 changed, 4 removed. The fleet is at version 2.",
    ]
    history = await forebay("fleet", "history")
    (row,) = [line for line in history.output.splitlines() if line.split()[:1] == ["2"]]
    assert "admin" in row
    assert "-node gpu-1, -pool lab, -model llama, ~backend small, -backend big" in row
    first = told(await forebay("fleet", "history", "1", "--json"))
    assert (first["version"], first["actor"], len(first["changes"])) == (1, "admin", 5)
    assert (await forebay("fleet", "history", "9")).exit_code != 0
    # The key of a backend that is gone is gone with it.
    back = told(await forebay("apply", "-f", str(file), "--json"))
    assert back["keys_given"] == ["big"]


async def test_every_problem_is_told_at_once_with_its_line_and_nothing_is_changed(
    forebay: Invoke, tmp_path: Path
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "backends:\n"
        "- name: big\n"
        "  url: http://big\n"
        "  slots: many\n"
        "- name: lost\n"
        "  url: http://lost\n"
        "  node: none\n"
        "- name: cloud\n"
        "  url: http://169.254.169.254\n"
        "pools:\n"
        "- name: lab\n"
        "  placement: leest_loaded\n"
        "  colour: red\n"
        "models:\n"
        "- name: llama\n"
        "  aliases: [llama]\n"
    )
    done = await forebay("apply", "-f", str(path))
    assert isinstance(done.exception, BadInput)
    lines = done.exception.message.splitlines()
    assert lines[0] == "The fleet file has 6 problems; nothing was changed."
    assert [line.split(": ")[0].replace(f"{path}:", "").strip() for line in lines[1:]] == [
        "4 backends.big.slots",
        "7 backends.lost.node",
        "9 backends.cloud.url",
        "12 pools.lab.placement",
        "13 pools.lab.colour",
        "16 models.llama.aliases",
    ]
    assert told(await forebay("fleet", "export", "--json"))["version"] == 0


async def test_a_key_stays_with_the_address_it_was_given_for(forebay: Invoke, file: Path) -> None:
    await forebay("apply", "-f", str(file))
    moved = "backends: [{name: big, url: http://elsewhere:8000}]"
    refused = await forebay("apply", "-f", "-", stdin=moved)
    assert isinstance(refused.exception, BadInput)
    assert "its key was given for the old one" in refused.exception.message
    file.write_text("backends: [{name: big, url: http://elsewhere:8000, bearer_file: big.key}]")
    assert told(await forebay("apply", "-f", str(file), "--json"))["keys_given"] == ["big"]
    assert told(await forebay("apply", "-f", str(file), "--json"))["keys_given"] == []
    assert told(await forebay("apply", "-f", str(file), "--renew-keys", "--json"))["keys_given"] == ["big"]
    file.write_text("backends: [{name: big, url: http://elsewhere:8000, bearer_file: none.key}]")
    missing = await forebay("apply", "-f", str(file))
    assert isinstance(missing.exception, BadInput)


async def test_a_key_is_not_lost_to_a_move_that_was_refused(forebay: Invoke, admin: Running, file: Path) -> None:
    await forebay("apply", "-f", str(file))
    file.write_text("backends: [{name: big, url: http://elsewhere:8000, bearer_file: big.key}]")
    admin.site.registry.refuse = NotPossible  # somebody else changed the fleet at that moment
    assert isinstance((await forebay("apply", "-f", str(file))).exception, NotPossible)
    key = ("--bearer-file", str(file.with_name("big.key")))
    moved = await forebay("backend", "add", "big", "http://elsewhere:8000", "--replace", *key)
    assert isinstance(moved.exception, NotPossible), moved.output
    big = next(b for b in told(await forebay("backend", "list", "--json")) if b["name"] == "big")
    assert (big["url"], big["has_credential"]) == ("http://gpu-1:8000", True)
    watcher = await admin.watcher("gateway")
    async for snapshot in watcher.WatchCredentials():
        assert [one.bearer for one in snapshot.credentials] == ["sk-secret"]
        break
    admin.site.registry.refuse = Unavailable  # it may have been made: no key may follow to another address
    assert (await forebay("apply", "-f", str(file))).exit_code != 0
    big = next(b for b in told(await forebay("backend", "list", "--json")) if b["name"] == "big")
    assert not big["has_credential"]


async def test_a_change_is_audited_though_whoever_asked_for_it_is_gone(admin: Running) -> None:
    admin.site.registry.answers.clear()
    operator = await admin.operator()
    wanted = {"backends": [{"name": "big", "url": "http://big"}]}
    going = asyncio.ensure_future(operator.ApplyFleet(wanted=wanted))
    await until(lambda: "big" in admin.site.registry.known)
    going.cancel()
    await asyncio.gather(going, return_exceptions=True)
    admin.site.registry.answers.set()
    async with asyncio.timeout(10):
        while not await query(admin, "SELECT FROM admin.audit_log WHERE action = 'fleet.backend.created'"):
            await asyncio.sleep(0.01)


async def test_each_thing_that_changes_is_audited_with_how_it_was(forebay: Invoke, admin: Running, file: Path) -> None:
    await forebay("apply", "-f", str(file))
    await forebay("apply", "-f", "-", stdin="backends: [{name: small, url: http://small:8000, slots: 2}]")
    connection = await asyncpg.connect(admin.site.database_url)
    try:
        rows = await connection.fetch(
            "SELECT actor, action, subject, before, after FROM admin.audit_log WHERE action LIKE 'fleet.%' ORDER BY id"
        )
    finally:
        await connection.close()
    assert [(r["action"], r["subject"]) for r in rows][:3] == [
        ("fleet.node.created", "gpu-1"),
        ("fleet.pool.created", "lab"),
        ("fleet.model.created", "llama"),
    ]
    last = rows[-1]
    assert (last["actor"], last["action"], last["subject"]) == ("admin", "fleet.backend.changed", "small")
    assert (json.loads(last["before"]), json.loads(last["after"])) == ({}, {"slots": "2"})


async def test_a_plan_that_is_no_more_true_is_refused(forebay: Invoke, admin: Running, file: Path) -> None:
    await forebay("apply", "-f", str(file))
    operator = await admin.operator()
    with pytest.raises(NotPossible, match="somebody else"), translated():
        await operator.ApplyFleet(base_version=0)


# --- what admin keeps itself, decided ---


def test_of_what_the_file_says_nothing_everything_stays() -> None:
    own = plan_own(
        [PoolSaid("lab")], {"llama": []}, {"lab": PoolTerms("lab", Placement.RANDOM)}, [Alias("gpt", "llama", "")]
    )
    assert own.is_empty
    assert own.problems == ()


def test_aliases_become_those_of_the_file_and_may_move_from_one_model_to_another() -> None:
    held = [Alias("gpt", "old", ""), Alias("extra", "old", ""), Alias("theirs", "old", "lab")]
    own = plan_own([], {"new": ["gpt"], "old": ["extra"]}, {}, held)
    assert (own.put, own.removed, own.problems) == ((Alias("gpt", "new", ""),), (Alias("gpt", "old", ""),), ())
    assert own.aliases == {"new": ((), ("gpt",)), "old": (("extra", "gpt"), ("extra",))}
    (problem,) = plan_own([], {"new": ["gpt"]}, {}, held).problems
    assert (problem.path, problem.why) == (
        "models.new.aliases",
        "gpt stands for old already; an alias stands for one model.",
    )


def test_an_alias_that_two_entries_name_or_that_leads_to_another_is_a_problem() -> None:
    assert len(plan_own([], {"a": ["x"], "b": ["x"]}, {}, []).problems) == 1
    assert len(plan_own([], {"a": ["b"], "b": ["c"]}, {}, []).problems) == 1
