"""Alerts and the status of the whole: operators' calls, the audit log, and the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
import pytest
from click.testing import CliRunner, Result

from forebay.errors import BadInput, NotFound
from forebay.launch import cli
from forebay.rpc import translated
from forebay.wire.v1 import admin_pb2_grpc, alerts_pb2, registry_pb2, scheduler_pb2, status_pb2
from forebay_admin.people.people import Role
from tests.admin.fake_alerts import HOT
from tests.admin.replica import Running
from tests.admin.test_operator import query, somebody

Invoke = Callable[..., Awaitable[Result]]


@pytest.fixture
async def forebay(admin: Running) -> Invoke:
    async def invoke(*words: str, at: str = admin.grpc_address) -> Result:
        environment = {"FOREBAY_ADMIN": at, "FOREBAY_TOKEN": admin.site.first_key, "COLUMNS": "140"}
        return await asyncio.to_thread(CliRunner().invoke, cli, words, None, environment)

    return invoke


async def test_what_operators_say_of_alerts_is_passed_on_with_their_name_and_audited(admin: Running) -> None:
    alerts, operator = admin.site.registry.alerts, await admin.operator()
    alerts.open = [alerts_pb2.Alert()]
    alerts.open[0].CopyFrom(HOT)
    await operator.AckAlert(id="al-1f2e", note="on my way", actor="mallory")
    await operator.SilenceAlerts(subject="node/box", for_s=60, actor="mallory")
    await operator.UnsilenceAlerts(subject="node/box")
    await operator.TestAlerts()
    assert alerts.actors == ["admin"] * 4, "whoever an operator claims to be"
    for call, error in ((operator.SilenceAlerts(for_s=60), BadInput), (operator.AckAlert(id="x"), NotFound)):
        with pytest.raises(error), translated():
            await call
    news = await operator.WatchAlerts()
    assert (news[0].snapshot, [a.id for a in news[0].open]) == (True, ["al-1f2e"])
    assert [e.id for e in news[1].events] == ["al-1f2e.2"]
    rows = await query(
        admin, "SELECT action, subject, before, after FROM admin.audit_log WHERE action LIKE 'alert.%' ORDER BY at"
    )
    told = {
        r["action"]: (r["subject"], *(json.loads(r[f]) if r[f] else None for f in ("before", "after"))) for r in rows
    }
    assert list(told) == ["alert.ack", "alert.silence", "alert.unsilence", "alert.test"]
    assert told["alert.ack"] == ("al-1f2e", {"acked_by": "", "note": ""}, {"acked_by": "admin", "note": "on my way"})
    assert told["alert.silence"][1] is None
    assert told["alert.silence"][2] == told["alert.unsilence"][1]
    assert told["alert.test"] == ("all", None, {"webhooks": []})


async def test_whoever_was_sent_away_hears_of_no_more_alerts(admin: Running) -> None:
    alerts, operator = admin.site.registry.alerts, await admin.operator()
    alerts.goes_on.clear()
    await somebody(admin, "watcher", Role.AUDITOR)
    key = await operator.CreateKey(user="watcher")
    theirs = await admin.peer(key.secret)
    stub: Any = admin_pb2_grpc.OperatorStub(theirs.channel)
    watching = stub.WatchAlerts(alerts_pb2.WatchAlertsRequest(), metadata=theirs.metadata)
    assert (await watching.read()).snapshot
    await operator.RevokeKey(key_id=key.key.id)
    same = await admin.operator(key.secret)

    async def listing_for_ever() -> None:
        while True:
            await same.ListAlerts()

    with pytest.raises(grpc.aio.AioRpcError, match="This key was revoked"):
        await asyncio.wait_for(listing_for_ever(), 60)
    alerts.goes_on.set()
    with pytest.raises(grpc.aio.AioRpcError, match="This key was revoked"):
        await watching.read()


async def test_the_command_line_shows_and_handles_alerts(admin: Running, forebay: Invoke) -> None:
    alerts = admin.site.registry.alerts
    assert "No alert is open" in (await forebay("alert", "list")).output
    alerts.open = [alerts_pb2.Alert()]
    alerts.open[0].CopyFrom(HOT)
    alerts.webhooks = [
        alerts_pb2.WebhookState(
            name="pager", host="pager.example.org", waiting=3, failing_since_us=1_000_000, last_error="It answered 500."
        )
    ]
    silenced = await forebay("alert", "silence", "node/box", "--for", "2h", "--reason", "new driver")
    assert silenced.output == "Alerts of node/box are silent until 2033-05-18T03:33:20.000Z; it covers 1 open now.\n"
    acked = await forebay("alert", "ack", "al-1f2e", "--note", "fan is ordered")
    assert acked.output == "al-1f2e is known to admin: GPU 0 of box is 97 °C hot.\n"
    shown = (await forebay("alert", "list")).output
    for words in (
        "critical",
        "GPU 0 of box is 97 °C hot.",
        "Look after its fans.",
        "admin: fan is ordered",
        "new driver",
    ):
        assert words in shown
    assert "failing" in shown
    assert "It answered 500." in shown
    flat = json.loads((await forebay("alert", "list", "--json")).output)
    assert flat["alerts"][0]["severity"] == "critical"
    assert flat["alerts"][0]["opened_at"] == "1970-01-01T00:00:02.000Z"
    assert flat["alerts"][0]["closed_at"] is None
    assert "gpu/box/0" in (await forebay("alert", "show", "al-1f")).output
    ended = await forebay("alert", "unsilence", "node/box")
    assert ended.output == "Alerts of node/box are told again.\n"
    assert isinstance((await forebay("alert", "unsilence", "node/box")).exception, NotFound)
    assert "No webhook is set up" in (await forebay("alert", "test")).output
    alerts.tests = [alerts_pb2.WebhookTest(webhook="pager", detail="pager answered 500.", took_ms=12)]
    failed = await forebay("alert", "test")
    assert "pager answered 500." in failed.output
    assert str(failed.exception) == "Not delivered: pager."


def at_work(admin: Running) -> None:
    """One gateway and one backend, both well."""
    gateway = scheduler_pb2.GatewaySession(gateway="gw-1", connected=True, running=2)
    admin.site.scheduler.queue = scheduler_pb2.ShowQueueResponse(gateways=[gateway])
    admin.site.registry.known["gpu"] = registry_pb2.Backend(
        id="be-1", name="gpu", enabled=True, slots=4, health=registry_pb2.BACKEND_HEALTH_HEALTHY, pool="default"
    )


async def test_the_status_is_told_in_words_in_json_and_in_the_exit_status(admin: Running, forebay: Invoke) -> None:
    at_work(admin)
    fine = await forebay("status")
    assert (fine.exit_code, fine.output.splitlines()[0]) == (0, "ok  All is well: 1 gateway, 1 backend, 1 model.")
    assert "leading" in fine.output
    admin.site.registry.alerts.open = [HOT]
    degraded = await forebay("status")
    assert degraded.exit_code == 1
    assert "this is to be looked after: 1 open alert." in degraded.output
    assert "GPU 0 of box is 97 °C hot." in degraded.output
    admin.site.registry.known["gpu"].health = registry_pb2.BACKEND_HEALTH_OFFLINE
    down = await forebay("status", "--json")
    assert down.exit_code == 2
    told = json.loads(down.output)
    assert (told["state"], told["summary"].partition(":")[0]) == ("down", "No backend takes requests")
    states = {(part["kind"], part["name"]): part["state"] for part in told["parts"]}
    assert states["backend", "gpu"] == "down"
    assert states["model", "tiny"] == "down"
    nobody = await forebay("status", at="127.0.0.1:1")
    assert (nobody.exit_code, "Nothing answers at 127.0.0.1:1" in nobody.output) == (2, True)


async def test_a_standby_a_dead_scheduler_and_a_dead_registry_are_seen_for_what_they_are(
    admin: Running, start: Any
) -> None:
    at_work(admin)
    site = admin.site
    first, second = site.scheduler_addresses
    site.schedulers[0].leads = False
    site.schedulers[1].queue = site.schedulers[0].queue
    addresses = f"{first},{second},127.0.0.1:1"
    registries = f"{site.settings.registry_address},127.0.0.1:1"
    async with start(scheduler_address=addresses, registry_address=registries) as other:
        told: status_pb2.ShowStatusResponse = await (await other.operator()).ShowStatus()
    parts = {(p.kind, p.name): p for p in told.parts}
    assert parts["scheduler", first].state == status_pb2.PART_STATE_STANDBY
    assert parts["scheduler", second].word == "leading"
    assert parts["scheduler", "127.0.0.1:1"].state == status_pb2.PART_STATE_DOWN
    assert parts["registry", "127.0.0.1:1"].state == status_pb2.PART_STATE_DOWN
    assert parts["registry", site.settings.registry_address].since_us == 1_000_000
    assert parts["gateway", "gw-1"].detail == "2 running, 0 waiting"
    assert told.state == status_pb2.OVERALL_STATE_DEGRADED


async def test_top_is_a_picture_for_people_and_a_line_for_scripts(admin: Running, forebay: Invoke) -> None:
    at_work(admin)
    held = scheduler_pb2.HeldSlots(backend_id="be-1", cap=4, held=2)
    admin.site.scheduler.queue.held.append(held)
    shown = (await forebay("top", "--once")).output
    assert "2 of 4 slots in use" in shown
    assert "█████░░░░░" in shown
    flat = json.loads((await forebay("top", "--once", "--json")).output)
    assert (flat["running"], flat["backends"][0]["held"], flat["completion_tokens_per_s"]) == (2, 2, None)
    admin.site.schedulers[0].leads = False
    without = (await forebay("top", "--once")).output
    assert "? of ? slots in use" in without
    assert "No scheduler answers as the one that leads" in without
