"""What the new version of a part is told while it runs beside the old one: what must not be shared is its own, and the rest
is the same."""

from __future__ import annotations

from dataclasses import replace

from forebay.local.layout import LOOPBACK
from forebay.local.ports import any_free_port
from forebay.local.services import ServiceProcess
from forebay.local.wiring import Wiring

_WAITS_S = "86400"
"""For its readiness, with which it begins to take connections, the new gateway has as long as it is let."""


def beside_name(part: str) -> str:
    """Of a part, and for a gateway its user on NATS."""
    return f"{part}-next"


def beside(process: ServiceProcess, wiring: Wiring) -> ServiceProcess:
    name, service = beside_name(process.part), process.service
    ops_port = any_free_port()
    own: dict[str, str] = {"OPS_LISTEN": f"{LOOPBACK}:{ops_port}"}
    if service == "admin":
        own |= {"LISTEN": f"{LOOPBACK}:{any_free_port()}", "HTTP_LISTEN": f"{LOOPBACK}:{any_free_port()}"}
    else:
        own |= {"SNAPSHOT_DIR": str(wiring.data.snapshots / name)}
    if service == "registry":
        own |= {"LISTEN": f"{LOOPBACK}:{any_free_port()}"}
    if service == "scheduler":
        own |= {"LISTEN": f"{LOOPBACK}:{wiring.layout.scheduler_beside}"}  # where gateways look for it
    if service == "gateway":
        # Below the old one's, whose successor publishes what may be left in it.
        journal = wiring.data.journal / process.part / "worker-next"
        own |= {"NAME": name, "JOURNAL_DIR": str(journal), "LISTEN_WAIT_S": _WAITS_S}
        if wiring.nats is not None:
            own |= {"NATS_USER": name, "NATS_SEED_FILE": str(wiring.nats.seed_file(name))}
    if "FOREBAY_ADMIN_OPERATORS_LISTEN" in process.environ:
        own |= {"OPERATORS_LISTEN": f"{LOOPBACK}:{any_free_port()}"}
    prefix = f"FOREBAY_{service.replace('-', '_').upper()}_"
    environ = {**process.environ, **{prefix + field: value for field, value in own.items()}}
    may_miss = STANDS_BY if service == "scheduler" else frozenset()
    return replace(
        process,
        part=name,
        environ=environ,
        ops_port=ops_port,
        log=wiring.data.log(name),
        page="readyz",
        may_miss=may_miss,
    )


STANDS_BY = frozenset({"lead"})
"""What keeps a scheduler that is well, and does not lead, from being ready."""
