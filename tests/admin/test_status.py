"""What is made of what every part said: pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from forebay.wire.v1 import alerts_pb2, registry_pb2, scheduler_pb2
from forebay.wire.v1 import status_pb2 as wire
from forebay_admin.fleet.status import RegistrySaid, Said, SchedulerSaid, judge

NOW = 1_800_000_000.0
US = round(NOW * 1e6)
OK, DEGRADED, DOWN = wire.OVERALL_STATE_OK, wire.OVERALL_STATE_DEGRADED, wire.OVERALL_STATE_DOWN
HEALTHY = registry_pb2.BACKEND_HEALTH_HEALTHY


def backend(name: str = "gpu", health: Any = HEALTHY, **more: Any) -> registry_pb2.Backend:
    return registry_pb2.Backend(name=name, enabled=True, health=health, **more)


def queue(*gateways: scheduler_pb2.GatewaySession) -> scheduler_pb2.ShowQueueResponse:
    return scheduler_pb2.ShowQueueResponse(gateways=gateways)


WELL = Said(
    now=NOW,
    admin="admin:8092",
    admin_since_us=1,
    database=(True, 1, ""),
    nats=(True, 1),
    schedulers=[SchedulerSaid("s:1", "leading"), SchedulerSaid("s:2", "standby")],
    registries=[
        RegistrySaid("r:1", "leading", 1, (True, 1), (True, 1)),
        RegistrySaid("r:2", "standby", 1, (True, 1), (True, 1)),
    ],
    queue=queue(scheduler_pb2.GatewaySession(gateway="gw-1", connected=True)),
    backends=[backend()],
    nodes=[registry_pb2.Node(name="box", heard_at_us=US)],
    models=[registry_pb2.FleetModel(name="m", backends=["gpu"])],
    alerts=alerts_pb2.ListAlertsResponse(),
)


def part(told: wire.ShowStatusResponse, kind: str, name: str = "") -> wire.StatusPart:
    (found,) = [p for p in told.parts if (p.kind, p.name) == (kind, name)]
    return found


def test_when_all_is_well_it_says_so_and_a_standby_is_no_fault() -> None:
    told = judge(WELL, "1.0")
    assert (told.state, told.summary) == (OK, "All is well: 1 gateway, 1 backend, 1 model.")
    assert part(told, "scheduler", "s:2").state == wire.PART_STATE_STANDBY
    assert all(p.HasField("since_us") for p in told.parts if p.kind in ("postgres", "nats", "registry", "agent"))


@pytest.mark.parametrize(
    ("change", "state", "kind", "name"),
    [
        ({"queue": None, "schedulers": [SchedulerSaid("s:1", "away", "gone")]}, DEGRADED, "scheduler", "s:1"),
        ({"queue": queue()}, DOWN, "gateway", ""),
        ({"queue": queue(scheduler_pb2.GatewaySession(gateway="g", heard_ago_ms=9000))}, DOWN, "gateway", "g"),
        ({"backends": [backend(health=registry_pb2.BACKEND_HEALTH_OFFLINE)]}, DOWN, "backend", "gpu"),
        ({"backends": [], "models": []}, DEGRADED, "backend", ""),
        ({"backends": None, "models": None, "nodes": None}, DEGRADED, "agent", ""),
        ({"backends": [backend(), backend("b", 99)]}, DEGRADED, "backend", "b"),
        ({"nodes": [registry_pb2.Node(name="box", heard_at_us=US - 60_000_000)]}, DEGRADED, "agent", "box"),
        ({"nodes": [registry_pb2.Node(name="new")]}, DEGRADED, "agent", "new"),
        ({"database": (False, US, "refused")}, DEGRADED, "postgres", "of admin"),
        ({"nats": (False, US)}, DEGRADED, "nats", "of admin"),
        ({"registries": [RegistrySaid("r:1", "", error="gone")]}, DEGRADED, "registry", "r:1"),
        (
            {"registries": [RegistrySaid("r:1", "adrift", 1, (False, 5), (True, 1))]},
            DEGRADED,
            "postgres",
            "of the registry",
        ),
        (
            {"registries": [RegistrySaid("r:1", "leading", 1, (True, 5), (True, 1), hears_admin=False)]},
            DEGRADED,
            "registry",
            "r:1",
        ),
    ],
)
def test_each_part_that_is_not_well_is_named_with_what_to_do_or_why(
    change: dict[str, Any], state: int, kind: str, name: str
) -> None:
    told = judge(replace(WELL, **change), "1.0")
    assert told.state == state
    found = part(told, kind, name)
    assert found.state not in (wire.PART_STATE_OK, wire.PART_STATE_STANDBY)
    assert found.detail or found.todo
    assert kind in told.summary or state == DOWN


def test_what_is_kept_empty_or_switched_off_on_purpose_is_no_fault() -> None:
    drained = backend("b", registry_pb2.BACKEND_HEALTH_DRAINED, health_reason="It is drained by ada.")
    off = registry_pb2.Backend(name="off", health=registry_pb2.BACKEND_HEALTH_UNHEALTHY)
    told = judge(replace(WELL, backends=[backend(), drained, off]), "1.0")
    assert told.state == OK
    assert [part(told, "backend", name).word for name in ("b", "off")] == ["drained", "disabled"]


def test_a_model_that_only_such_backends_have_that_take_nothing_is_told() -> None:
    models = [registry_pb2.FleetModel(name="m", backends=["gpu"]), registry_pb2.FleetModel(name="big", backends=["b"])]
    drained = backend("b", registry_pb2.BACKEND_HEALTH_DRAINED)
    told = judge(replace(WELL, backends=[backend(), drained], models=models), "1.0")
    assert [p.name for p in told.parts if p.kind == "model"] == ["big"]
    assert told.summary == "Requests are served, and this is to be looked after: 1 model."


def test_alerts_count_until_somebody_knows_of_them_and_informations_do_not() -> None:
    def state(**alert: Any) -> int:
        grave = alerts_pb2.Alert(**({"severity": alerts_pb2.ALERT_SEVERITY_WARNING} | alert))
        return judge(replace(WELL, alerts=alerts_pb2.ListAlertsResponse(alerts=[grave])), "1.0").state

    assert state() == DEGRADED
    assert state(severity=alerts_pb2.ALERT_SEVERITY_INFO) == OK
    assert state(acked_at_us=1) == OK
    assert state(silenced_until_us=1) == OK


def test_a_webhook_that_fails_is_told_with_what_waits() -> None:
    hook = alerts_pb2.WebhookState(name="pager", failing_since_us=5, last_error="It answered 500.", waiting=2)
    told = judge(replace(WELL, alerts=alerts_pb2.ListAlertsResponse(webhooks=[hook])), "1.0")
    assert part(told, "webhook", "pager").detail == "It answered 500. 2 messages wait."
