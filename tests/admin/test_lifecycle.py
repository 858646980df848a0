"""Drains, maintenance and health: what the registry is asked for operators, what is audited, and what people read."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner

from forebay.errors import BadInput
from forebay.launch import cli
from forebay.wire.v1 import lifecycle_pb2, registry_pb2
from forebay_admin.cli.fleet.maintenance import parse_moment
from forebay_admin.fleet import lifecycle_desk
from forebay_admin.people.people import Role
from tests.admin.replica import Running, until
from tests.admin.test_cli import Invoke, forebay, told
from tests.admin.test_operator import query, refused, somebody

__all__ = ["forebay"]  # the fixture

NODE, POOL = lifecycle_pb2.LIFECYCLE_SCOPE_NODE, lifecycle_pb2.LIFECYCLE_SCOPE_POOL


async def test_a_look_is_asked_of_the_registry_with_the_callers_name_and_audited(
    admin: Running, forebay: Invoke
) -> None:
    operator = await somebody(admin, "dana", Role.OPERATOR)
    await operator.RegisterBackend(name="big-gpu", url="http://127.0.0.1:1")
    answer = await operator.ProbeBackend(name="big-gpu")
    assert (answer.backend.name, answer.looked) == ("big-gpu", True)
    assert admin.site.registry.lifecycle.looks == [("big-gpu", "dana")]
    rows = await query(admin, "SELECT actor, subject, after FROM admin.audit_log WHERE action = 'backend.probe'")
    assert [(r["actor"], r["subject"], json.loads(r["after"])) for r in rows] == [
        ("dana", "big-gpu", {"health": "healthy", "looked": True})
    ]
    assert "There is no backend x." in await refused(operator.ProbeBackend(name="x"))
    assert (await forebay("backend", "probe", "big-gpu")).stdout == "big-gpu is healthy.\n"
    admin.site.registry.lifecycle.looks_end = False
    assert "still awaited" in (await forebay("backend", "probe", "big-gpu")).stdout
    assert told(await forebay("backend", "probe", "big-gpu", "--json"))["looked"] is False


async def test_a_drain_goes_to_the_registry_with_the_callers_name_and_is_audited_before_and_after(
    admin: Running,
) -> None:
    operator = await somebody(admin, "dana", Role.OPERATOR)
    await operator.RegisterBackend(name="big-gpu", url="http://127.0.0.1:1")
    admin.site.scheduler.running = 3
    answer = await operator.DrainBackend(name="big-gpu", deadline_s=600, force=True, reason="too hot")
    assert (answer.backend_id, answer.name, answer.running, answer.drained) == ("backend-1", "big-gpu", 3, False)
    (order,) = admin.site.registry.lifecycle.drains.values()
    assert (order.by, order.deadline_us, order.force, order.reason) == ("dana", 600_000_000, True, "too hot")
    await operator.DrainBackend(name="big-gpu", undo=True)
    assert admin.site.registry.lifecycle.drains == {}
    assert [(d.actor, d.backend_id, d.undo) for d in admin.site.scheduler.drains] == [("dana", "backend-1", True)], (
        "one that was asked of the scheduler itself, before an upgrade, is undone too"
    )
    rows = await query(
        admin,
        "SELECT actor, action, subject, before, after FROM admin.audit_log WHERE action LIKE '%drain' ORDER BY id",
    )
    assert [(r["actor"], r["action"], r["subject"]) for r in rows] == [
        ("dana", "backend.drain", "big-gpu"),
        ("dana", "backend.undrain", "big-gpu"),
    ]
    facts = {"deadline": "1970-01-01T00:10:00+00:00", "force": True, "reason": "too hot"}
    assert json.loads(rows[0]["after"]) == {**facts, "running": 3}
    assert json.loads(rows[1]["before"]) == facts
    assert await refused(operator.DrainBackend(name="x")) == "NOT_FOUND: There is no backend x."
    assert "at most 30 days" in await refused(operator.DrainBackend(name="x", deadline_s=31 * 86_400))
    assert "has no deadline" in await refused(operator.DrainBackend(name="x", deadline_s=1, undo=True))


async def test_a_drain_holds_though_no_scheduler_tells_what_runs(
    admin: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = await admin.operator()
    await operator.RegisterBackend(name="big-gpu", url="http://127.0.0.1:1")
    admin.site.registry.lifecycle.schedulers = []
    monkeypatch.setattr(lifecycle_desk, "SHOWN_S", 0.1)
    answer = await operator.DrainBackend(name="big-gpu")
    assert (answer.running, answer.drained, answer.running_unknown) == (0, False, True)
    assert len(admin.site.registry.lifecycle.drains) == 1


async def test_a_change_is_audited_though_whoever_asked_for_it_is_gone(admin: Running) -> None:
    registry, operator = admin.site.registry.lifecycle, await admin.operator()
    await operator.RegisterBackend(name="big", url="http://127.0.0.1:1")
    window = lifecycle_pb2.MaintenanceWindow(scope=POOL, name="default", begins_at_us=1, ends_at_us=2)

    async def leave(call: Awaitable[Any], has_come: Callable[[], Any]) -> None:
        registry.answers.clear()
        going = asyncio.ensure_future(call)
        await until(has_come)
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)
        registry.answers.set()

    async def audited(action: str) -> None:
        async with asyncio.timeout(10):
            while not await query(admin, f"SELECT FROM admin.audit_log WHERE action = '{action}'"):
                await asyncio.sleep(0.01)

    await leave(operator.DrainBackend(name="big"), lambda: registry.drains)
    await audited("backend.drain")
    await leave(operator.DrainBackend(name="big", undo=True), lambda: not registry.drains)
    await audited("backend.undrain")
    await leave(operator.ScheduleMaintenance(window=window), lambda: registry.windows)
    await audited("maintenance.add")
    await leave(operator.CancelMaintenance(id="mw-1"), lambda: not registry.windows)
    await audited("maintenance.remove")


async def test_an_invitation_is_made_though_whoever_asked_for_it_is_gone(admin: Running) -> None:
    operator = await admin.operator()
    connection = await asyncpg.connect(admin.site.database_url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE admin.audit_log")
            going = asyncio.ensure_future(operator.InviteNode(name="gpu-1"))
            waits = "SELECT FROM pg_locks WHERE relation = 'admin.audit_log'::regclass AND NOT granted"
            async with asyncio.timeout(10):
                while not await connection.fetch(waits):
                    await asyncio.sleep(0.01)
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)
        async with asyncio.timeout(10):
            while not await connection.fetch("SELECT FROM admin.audit_log WHERE action = 'node.invite'"):
                await asyncio.sleep(0.01)
    finally:
        await connection.close()


async def test_a_whole_node_is_drained_and_undrained(forebay: Invoke, admin: Running) -> None:
    for name in ("one", "two"):
        await forebay("backend", "add", name, f"http://127.0.0.1/{name}")
    admin.site.registry.lifecycle.on_node["box"] = ["one", "two"]
    drained = await forebay("node", "drain", "box", "--deadline", "5m", "--force", "--wait")
    lines = drained.output.splitlines()
    assert [line.partition(" after ")[0] for line in lines] == ["Backend one is drained", "Backend two is drained"]
    ((scope, name),) = admin.site.registry.lifecycle.drains
    assert (scope, name) == (NODE, "box")
    assert [one["name"] for one in told(await forebay("node", "drain", "box", "--json"))] == ["one", "two"]
    assert (await forebay("node", "undrain", "box")).output == "The node box gets requests again: one, two.\n"
    empty = await forebay("node", "drain", "new-box")
    assert empty.output == "Nothing is sent to the node new-box; it has no backends.\n"
    acts = await query(admin, "SELECT action, subject FROM admin.audit_log WHERE action LIKE 'node.%' ORDER BY id")
    assert [tuple(row.values()) for row in acts] == [
        ("node.drain", "box"),
        ("node.drain", "box"),
        ("node.undrain", "box"),
        ("node.drain", "new-box"),
    ]


async def test_maintenance_is_announced_listed_and_removed(forebay: Invoke, admin: Running) -> None:
    added = await forebay(
        "maintenance",
        "add",
        "--pool",
        "default",
        "--from",
        "now",
        "--to",
        "+2h",
        "--drain-before",
        "10m",
        "--reason",
        "x",
    )
    assert added.output.startswith("Maintenance mw-1 of pool default: ")
    (window,) = admin.site.registry.lifecycle.windows.values()
    assert (window.scope, window.name, window.drain_before_s, window.by) == (POOL, "default", 600, "admin")
    assert window.ends_at_us - window.begins_at_us == 7200 * 1_000_000
    assert abs(window.begins_at_us / 1e6 - time.time()) < 60
    listed = (await forebay("maintenance", "list")).output
    assert "pool default" in listed
    assert "10 min before" in listed.replace("600 s", "10 min")
    assert told(await forebay("maintenance", "list", "--json"))[0]["scope"] == "pool"
    assert (await forebay("maintenance", "remove", "mw-1")).output == "Maintenance mw-1 of pool default is removed.\n"
    assert (await forebay("maintenance", "list")).output.startswith("No maintenance is planned.")
    gone = await forebay("maintenance", "remove", "mw-1")
    assert gone.exit_code != 0
    for words, why in (
        (("--to", "+1h"), "whose maintenance"),
        (("--node", "a", "--pool", "b", "--to", "+1h"), "whose maintenance"),
        (("--node", "a", "--to", "tomorrow"), "is not a time"),
    ):
        refusal = await forebay("maintenance", "add", *words)
        assert why in refusal.output + str(refusal.exception)
    acts = await query(
        admin, "SELECT action, before, after FROM admin.audit_log WHERE action LIKE 'maint%' ORDER BY id"
    )
    assert [row["action"] for row in acts] == ["maintenance.add", "maintenance.remove"]
    assert json.loads(acts[0]["after"]) == json.loads(acts[1]["before"])


async def test_backend_show_tells_how_a_backend_has_changed_and_what_keeps_it_empty(
    forebay: Invoke, admin: Running
) -> None:
    await forebay("backend", "add", "gpu", "http://127.0.0.1:1")
    lifecycle = admin.site.registry.lifecycle
    lifecycle.changes = [
        lifecycle_pb2.HealthChange(
            backend_id="backend-1",
            backend="gpu",
            at_us=round((time.time() - 30) * 1e6),
            before=registry_pb2.BACKEND_HEALTH_HEALTHY,
            after=registry_pb2.BACKEND_HEALTH_OFFLINE,
            cause="node_silent",
            reason="Nothing listens at gpu.",
        )
    ]
    drained = await forebay("backend", "drain", "gpu", "--reason", "too hot")
    assert drained.output == "Backend gpu is drained: nothing runs there, nothing new is sent.\n"
    shown = " ".join((await forebay("backend", "show", "gpu")).output.split())
    for words in ("offline", "healthy", "node_silent", "Nothing listens at gpu.", "by admin (backend): too hot"):
        assert words in shown
    page = told(await forebay("backend", "show", "gpu", "--json"))
    assert [change["after"] for change in page["history"]] == ["offline"]
    assert page["drains"][0]["reason"] == "too hot"
    assert (await forebay("backend", "undrain", "gpu")).output == "Backend gpu gets requests again.\n"


async def test_members_and_auditors_change_nothing(admin: Running) -> None:
    auditor = await somebody(admin, "otto", Role.AUDITOR)
    assert (await auditor.ShowMaintenance()).windows == []
    for call in (auditor.DrainBackend(name="x"), auditor.DrainNode(node="x"), auditor.CancelMaintenance(id="x")):
        assert (await refused(call)).startswith("PERMISSION_DENIED")


def test_moments_are_read_as_people_write_them() -> None:
    assert parse_moment("now", 5.0) == 5.0
    assert parse_moment("+30m", 5.0) == 1805.0
    assert parse_moment("2026-12-01T22:00Z", 0.0) == 1_796_162_400.0
    assert parse_moment("2026-12-01T23:00+01:00", 0.0) == 1_796_162_400.0
    for text in ("", "tomorrow", "+", "+1x", "9999999-01-01"):
        with pytest.raises(BadInput):
            parse_moment(text, 0.0)


@pytest.mark.parametrize(
    "words", [("maintenance", "add"), ("maintenance", "list"), ("node", "drain"), ("backend", "drain")]
)
def test_every_command_has_a_help_with_its_json(words: tuple[str, ...]) -> None:
    assert "With --json:" in CliRunner().invoke(cli, [*words, "--help"]).output
