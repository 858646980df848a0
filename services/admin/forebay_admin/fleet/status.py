"""How the whole is, from what every part said: a part each, since when, and what to do; and one word for all of it. Pure.

Down is said when it is known that no request is served. What is not known is said to be unknown, and is not well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from forebay.backend_states import Condition, condition_named
from forebay.silence import silent_after_s
from forebay.wire.v1 import alerts_pb2, registry_pb2, scheduler_pb2
from forebay.wire.v1 import status_pb2 as wire

OK, STANDBY = wire.PART_STATE_OK, wire.PART_STATE_STANDBY
DEGRADED, DOWN, UNKNOWN = wire.PART_STATE_DEGRADED, wire.PART_STATE_DOWN, wire.PART_STATE_UNKNOWN

_MOST_NAMED = 4


@dataclass(frozen=True, slots=True)
class SchedulerSaid:
    address: str
    role: Literal["leading", "standby", "away"]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RegistrySaid:
    address: str
    standing: str
    """Empty: it says nothing."""
    since_us: int = 0
    postgres: tuple[bool, int] = (False, 0)
    """Whether it is there, and since when that is so."""
    nats: tuple[bool, int] = (False, 0)
    hears_admin: bool = True
    error: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """None is what whoever knows it did not answer."""

    now: float
    admin: str
    """Where this admin is."""
    admin_since_us: int
    database: tuple[bool, int, str]
    """Admin's own: whether it is there, since when that is so, and why not."""
    nats: tuple[bool, int]
    schedulers: Sequence[SchedulerSaid]
    registries: Sequence[RegistrySaid]
    queue: scheduler_pb2.ShowQueueResponse | None = None
    backends: Sequence[registry_pb2.Backend] | None = None
    nodes: Sequence[registry_pb2.Node] | None = None
    models: Sequence[registry_pb2.FleetModel] | None = None
    alerts: alerts_pb2.ListAlertsResponse | None = None


def judge(said: Said, version: str) -> wire.ShowStatusResponse:
    parts = [
        *_gateways(said),
        *_schedulers(said.schedulers),
        *_registries(said.registries),
        _part("admin", said.admin, OK, "answering", said.admin_since_us),
        *_postgres(said),
        *_nats(said),
        *_agents(said),
        *_backends(said),
        *_models(said),
        *_webhooks(said),
    ]
    alerts = list(said.alerts.alerts) if said.alerts is not None else []
    state = _overall(said, parts, alerts)
    return wire.ShowStatusResponse(
        state=state,
        summary=_summary(state, said, parts, alerts),
        parts=parts,
        alerts=alerts,
        at_us=round(said.now * 1_000_000),
        version=version,
    )


# --- the whole --------------------------------------------------------------------------------------------------------


def _overall(
    said: Said, parts: Iterable[wire.StatusPart], alerts: Iterable[alerts_pb2.Alert]
) -> wire.OverallState.ValueType:
    if _why_down(said):
        return wire.OVERALL_STATE_DOWN
    is_well = all(part.state in (OK, STANDBY) for part in parts)
    return wire.OVERALL_STATE_OK if is_well and not any(map(is_pressing, alerts)) else wire.OVERALL_STATE_DEGRADED


def _why_down(said: Said) -> str:
    """Why no request is served; empty where some are, or nobody knows."""
    if said.queue is not None and not any(gateway.connected for gateway in said.queue.gateways):
        return "No gateway is connected"
    if said.backends and not any(_takes_new(backend) for backend in said.backends):
        return "No backend takes requests"
    return ""


def is_pressing(alert: alerts_pb2.Alert) -> bool:
    """Somebody has to look, and nobody has said that he knows."""
    is_known = alert.HasField("acked_at_us") or alert.HasField("silenced_until_us") or alert.HasField("closed_at_us")
    return alert.severity >= alerts_pb2.ALERT_SEVERITY_WARNING and not is_known


def _summary(
    state: wire.OverallState.ValueType,
    said: Said,
    parts: Sequence[wire.StatusPart],
    alerts: Sequence[alerts_pb2.Alert],
) -> str:
    if state == wire.OVERALL_STATE_OK:
        kinds = Counter(part.kind for part in parts)
        models = len(said.models or ())
        return f"All is well: {_number(kinds['gateway'], 'gateway')}, {_number(kinds['backend'], 'backend')}, " + (
            f"{_number(models, 'model')}."
        )
    troubled = Counter(part.kind for part in parts if part.state in (DEGRADED, DOWN, UNKNOWN))
    told = [f"{_number(count, kind)}" for kind, count in troubled.items()]
    pressing = sum(map(is_pressing, alerts))
    told += [_number(pressing, "open alert")] if pressing else []
    what = ", ".join(told)
    if state == wire.OVERALL_STATE_DOWN:
        return f"{_why_down(said)}: no request is served. Look after: {what}."
    return f"Requests are served, and this is to be looked after: {what}."


# --- parts ------------------------------------------------------------------------------------------------------------


def _gateways(said: Said) -> list[wire.StatusPart]:
    if said.queue is None:
        detail = "Which gateways are there is known to the scheduler that leads, and none answers."
        return [_part("gateway", "", UNKNOWN, "unknown", detail=detail)]
    if not said.queue.gateways:
        todo = "Start one (forebay run gateway), and see its log for why it finds no scheduler."
        return [_part("gateway", "", DOWN, "none", detail="No gateway is connected to the scheduler.", todo=todo)]
    return [_gateway(gateway, said.now) for gateway in said.queue.gateways]


def _gateway(gateway: scheduler_pb2.GatewaySession, now: float) -> wire.StatusPart:
    if gateway.connected:
        load = f"{gateway.running} running, {gateway.queued} waiting"
        return _part("gateway", gateway.gateway, OK, "connected", detail=load)
    since_us = round(now * 1_000_000) - gateway.heard_ago_ms * 1000
    detail = "Its session with the scheduler has ended; its slots come back once it is proven to be gone."
    return _part("gateway", gateway.gateway, DOWN, "away", since_us, detail, "See whether it runs, and its log.")


def _schedulers(schedulers: Sequence[SchedulerSaid]) -> list[wire.StatusPart]:
    leads = any(one.role == "leading" for one in schedulers)
    parts = []
    for one in schedulers:
        match one.role:
            case "leading":
                parts.append(_part("scheduler", one.address, OK, "leading"))
            case "standby" if leads:
                parts.append(_part("scheduler", one.address, STANDBY, "standby"))
            case "standby":
                todo = "A standby leads within three seconds, if it can reach NATS."
                parts.append(_part("scheduler", one.address, DEGRADED, "standby", detail="None leads.", todo=todo))
            case "away":
                todo = "See whether it runs, and its log." + (" Requests go on through the other one." if leads else "")
                parts.append(_part("scheduler", one.address, DOWN, "away", detail=one.detail, todo=todo))
    return parts


def _registries(registries: Sequence[RegistrySaid]) -> list[wire.StatusPart]:
    parts = []
    for one in registries:
        match one.standing:
            case "leading":
                deaf = "" if one.hears_admin else "It does not hear admin: new keys of engines do not reach it."
                todo = "See its setting admin_address, and its log." if deaf else ""
                parts.append(
                    _part("registry", one.address, DEGRADED if deaf else OK, one.standing, one.since_us, deaf, todo)
                )
            case "standby":
                parts.append(_part("registry", one.address, STANDBY, one.standing, one.since_us))
            case "":
                todo = "See whether it runs, and its log. Requests go on with the fleet as it was."
                parts.append(_part("registry", one.address, DOWN, "away", detail=one.error, todo=todo))
            case _:
                detail = "It goes on from memory and cannot change anything: Postgres, which says who leads, is away."
                todo = "See whether Postgres is up."
                parts.append(_part("registry", one.address, DEGRADED, one.standing, one.since_us, detail, todo))
    return parts


def _postgres(said: Said) -> list[wire.StatusPart]:
    todo = "See whether Postgres is up, and what its users' logs say of it."
    is_there, since_us, why = said.database
    parts = [_there("postgres", "of admin", is_there, since_us, why or "Admin cannot reach it.", todo)]
    for one in _that_answer(said.registries):
        detail = "The registry cannot reach it: nothing of the fleet can be changed."
        parts.append(_there("postgres", _whose(one, said.registries), *one.postgres, detail, todo))
    return parts


def _nats(said: Said) -> list[wire.StatusPart]:
    todo = "See whether NATS is up, and what its users' logs say of it."
    detail = "Admin cannot reach it: rows of usage wait at the gateways."
    parts = [_there("nats", "of admin", *said.nats, detail, todo)]
    for one in _that_answer(said.registries):
        detail = "The registry cannot reach it: nothing is heard of nodes."
        parts.append(_there("nats", _whose(one, said.registries), *one.nats, detail, todo))
    return parts


def _that_answer(registries: Iterable[RegistrySaid]) -> list[RegistrySaid]:
    return [one for one in registries if one.standing]


def _whose(one: RegistrySaid, registries: Sequence[RegistrySaid]) -> str:
    return "of the registry" if len(registries) == 1 else f"of the registry {one.address}"


def _there(kind: str, name: str, is_there: bool, since_us: int, detail: str, todo: str) -> wire.StatusPart:
    if is_there:
        return _part(kind, name, OK, "connected", since_us)
    return _part(kind, name, DOWN, "away", since_us, detail, todo)


def _agents(said: Said) -> list[wire.StatusPart]:
    if said.nodes is None:
        return [_part("agent", "", UNKNOWN, "unknown", detail="The registry, which hears of nodes, does not answer.")]
    return [_agent(node, said.now) for node in said.nodes if not node.without_agent]


def _agent(node: registry_pb2.Node, now: float) -> wire.StatusPart:
    if not node.HasField("heard_at_us"):
        todo = "Paste what `forebay node enroll` printed on that machine, and see the agent's log."
        return _part("agent", node.name, UNKNOWN, "never heard", detail="Nothing was heard of it yet.", todo=todo)
    is_silent = now - node.heard_at_us / 1e6 > silent_after_s(node.last_sample.interval_ms / 1000)
    if is_silent or node.problems:
        detail = " ".join(node.problems) or "Nothing was heard of it lately."
        word = "silent" if is_silent else "in trouble"
        since_us = node.heard_at_us if is_silent else None
        return _part("agent", node.name, DEGRADED, word, since_us, detail, f"See `forebay node show {node.name}`.")
    return _part("agent", node.name, OK, "heard", node.heard_at_us)


def _backends(said: Said) -> list[wire.StatusPart]:
    if said.backends is None:
        return [_part("backend", "", UNKNOWN, "unknown", detail="The registry, which looks at them, does not answer.")]
    if not said.backends:
        todo = "Add one with: forebay backend add NAME URL"
        return [_part("backend", "", DEGRADED, "none", detail="There are no backends.", todo=todo)]
    return [_backend(backend) for backend in said.backends]


def _backend(backend: registry_pb2.Backend) -> wire.StatusPart:
    if not backend.enabled:
        return _part("backend", backend.name, OK, "disabled")
    condition = _condition(backend)
    state = _OF_CONDITION[condition]
    todo = "" if state == OK else f"See `forebay backend show {backend.name}`."
    since_us = backend.health_since_us or None
    return _part("backend", backend.name, state, str(condition), since_us, backend.health_reason, todo)


_OF_CONDITION: dict[Condition, wire.PartState.ValueType] = {
    Condition.HEALTHY: OK,
    Condition.DEGRADED: DEGRADED,
    Condition.SATURATED: DEGRADED,
    Condition.STARTING: DEGRADED,
    Condition.UNKNOWN: UNKNOWN,
    Condition.DRAINING: OK,  # on purpose
    Condition.DRAINED: OK,
    Condition.UNHEALTHY: DOWN,
    Condition.OFFLINE: DOWN,
}


def _models(said: Said) -> list[wire.StatusPart]:
    """Those alone that nobody can give now."""
    health = {backend.name: backend for backend in said.backends or ()}
    parts = []
    for model in said.models or ():
        having = [health[name] for name in model.backends if name in health]
        if having and not any(_takes_new(backend) for backend in having):
            detail = f"No backend that takes requests has it; it is on {_named(b.name for b in having)}."
            parts.append(_part("model", model.name, DOWN, "unserved", None, detail, "See `forebay backend list`."))
    return parts


def _webhooks(said: Said) -> list[wire.StatusPart]:
    parts = []
    for hook in said.alerts.webhooks if said.alerts is not None else ():
        if hook.HasField("failing_since_us"):
            detail = f"{hook.last_error} {_number(hook.waiting, 'message')} wait."
            todo = "Try it with: forebay alert test"
            parts.append(_part("webhook", hook.name, DEGRADED, "failing", hook.failing_since_us, detail, todo))
        else:
            parts.append(_part("webhook", hook.name, OK, "ready"))
    return parts


def _condition(backend: registry_pb2.Backend) -> Condition:
    known = registry_pb2.BackendHealth.values()
    word = registry_pb2.BackendHealth.Name(backend.health) if backend.health in known else ""
    return condition_named(word)


def _takes_new(backend: registry_pb2.Backend) -> bool:
    return backend.enabled and _condition(backend).takes_new


def _named(names: Iterable[str]) -> str:
    told = sorted(names)
    more = len(told) - _MOST_NAMED
    return ", ".join(told[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _number(count: int, what: str) -> str:
    return f"{count} {_PLURALS.get(what, what + 's') if count != 1 else what}"


_PLURALS = {"registry": "registries", "postgres": "postgres", "nats": "nats"}


def _part(
    kind: str,
    name: str,
    state: wire.PartState.ValueType,
    word: str,
    since_us: int | None = None,
    detail: str = "",
    todo: str = "",
) -> wire.StatusPart:
    return wire.StatusPart(
        kind=kind, name=name, state=state, since_us=since_us or None, detail=detail, todo=todo, word=word
    )
