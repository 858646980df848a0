"""Forms that take things out of service or keep them quiet: drains, maintenance, silences. Pure."""

from __future__ import annotations

from forebay.wire.v1 import admin_pb2, alerts_pb2, discovery_pb2, lifecycle_pb2
from forebay_admin.web.forms import Form, WrongField

US = 1_000_000
_MOST_TEXT = 200
_MOST_SILENCE_S = 366 * 86_400
_LONGEST_DRAIN_S = 30 * 86_400

_SCOPES = {
    "backend": lifecycle_pb2.LIFECYCLE_SCOPE_BACKEND,
    "node": lifecycle_pb2.LIFECYCLE_SCOPE_NODE,
    "pool": lifecycle_pb2.LIFECYCLE_SCOPE_POOL,
}
POLICIES = {
    "": discovery_pb2.DISCOVERY_POLICY_UNSPECIFIED,
    "suggest": discovery_pb2.DISCOVERY_POLICY_SUGGEST,
    "auto": discovery_pb2.DISCOVERY_POLICY_AUTO,
    "off": discovery_pb2.DISCOVERY_POLICY_OFF,
}


def one_line(form: Form, name: str, most: int = _MOST_TEXT) -> str:
    """Raises WrongField."""
    text = form.get(name)
    if len(text) > most or (text and not text.isprintable()):
        raise WrongField(name, f"This is one line of {most} characters at most.")
    return text


def read_drain_of_backend(form: Form, name: str) -> admin_pb2.DrainBackendRequest:
    """Raises WrongField."""
    deadline_s, force, reason = _drain(form)
    return admin_pb2.DrainBackendRequest(name=name, deadline_s=deadline_s, force=force, reason=reason)


def read_drain_of_node(form: Form, node: str) -> admin_pb2.DrainNodeRequest:
    """Raises WrongField."""
    deadline_s, force, reason = _drain(form)
    return admin_pb2.DrainNodeRequest(node=node, deadline_s=deadline_s, force=force, reason=reason)


def read_window(form: Form, scope: str, name: str, now: float) -> lifecycle_pb2.AddMaintenanceRequest:
    """`begins` is a moment (empty: now), `lasts` a length of time. Raises WrongField."""
    moment = form.moment("begins")
    begins = moment.timestamp() if moment is not None else now
    ends = begins + form.seconds("lasts", most=90 * 86_400)
    if ends <= now:
        raise WrongField("lasts", "That would be over already.")
    window = lifecycle_pb2.MaintenanceWindow(
        scope=_SCOPES[scope],
        name=name,
        begins_at_us=round(begins * US),
        ends_at_us=round(ends * US),
        drain_before_s=form.seconds("drain_before", 0, most=7 * 86_400),
        reason=one_line(form, "reason"),
    )
    return lifecycle_pb2.AddMaintenanceRequest(window=window)


def read_silence(form: Form) -> alerts_pb2.SilenceAlertsRequest:
    """Raises WrongField."""
    form.demand("subject", "What is to be silent")
    return alerts_pb2.SilenceAlertsRequest(
        subject=one_line(form, "subject"),
        rule=one_line(form, "rule"),
        for_s=form.seconds("for", most=_MOST_SILENCE_S),
        reason=one_line(form, "reason"),
    )


def read_discovery(form: Form, node: str) -> discovery_pb2.SetNodeDiscoveryRequest:
    """All of it: what is empty is as usual. Raises WrongField."""
    policy = form.get("policy")
    if policy not in POLICIES:
        raise WrongField("policy", f"This is one of {', '.join(word for word in POLICIES if word)}, or as usual.")
    return discovery_pb2.SetNodeDiscoveryRequest(
        node=node,
        policy=POLICIES[policy],
        pool=one_line(form, "pool"),
        addresses=discovery_pb2.Addresses(all=form.many("addresses")),
    )


def demand_typed(form: Form, name: str, what: str) -> None:
    """Whoever removes something has typed its name. Raises WrongField."""
    if form.get("confirm") != name:
        raise WrongField("confirm", f"Type {name} to {what}.")


def _drain(form: Form) -> tuple[int, bool, str]:
    deadline_s = form.seconds("deadline", 0, most=_LONGEST_DRAIN_S)
    force = form.is_ticked("force")
    if force and not deadline_s:
        raise WrongField("deadline", "What still runs can be ended at a deadline only: say when, such as 10m.")
    return deadline_s, force, one_line(form, "reason")
