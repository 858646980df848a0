"""Whether ports can be opened, and whoever is to be reached can be: judged from what was tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from forebay.doctor.finding import Finding, Grade


@dataclass(frozen=True, slots=True)
class PortFacts:
    is_free: bool
    why_not: str = ""
    """In the system's words."""
    held_by: str | None = None
    """The service of Forebay that answers there or at its ops port; None: another program."""


def judge_port(setting: str, address: str, service: str, facts: PortFacts) -> Finding:
    """`setting` is where `service` is to listen."""
    if facts.is_free:
        return Finding("ports", setting, Grade.OK, f"{address} is free")
    if facts.held_by == service:
        return Finding("ports", setting, Grade.OK, f"{address}: {service} runs there")
    if facts.held_by:
        return Finding(
            "ports",
            setting,
            Grade.FAIL,
            f"{address}: {facts.held_by} runs there, and not {service}",
            "Two services were given one port: change one of them.",
        )
    return Finding(
        "ports",
        setting,
        Grade.FAIL,
        f"{address} cannot be opened: {facts.why_not}",
        f"`ss -ltnp` says who has it; or set another with {setting}.",
    )


def judge_shared_ports(addresses: Mapping[str, str]) -> list[Finding]:
    """Of all listeners, by setting: two that are the same."""
    by_address: dict[str, list[str]] = {}
    for setting, address in addresses.items():
        by_address.setdefault(address, []).append(setting)
    return [
        Finding("ports", " and ".join(settings), Grade.FAIL, f"both listen at {address}", "Change one of them.")
        for address, settings in by_address.items()
        if len(settings) > 1 and not address.endswith(":0")
    ]


def judge_reach(setting: str, address: str, took_s: float | None, why: str, *, runs_here: bool) -> Finding:
    """Of a peer. `runs_here`: it is one of the services that are looked at, which need not run yet."""
    if took_s is not None:
        slow = took_s > 0.5
        return Finding(
            "addresses", setting, Grade.WARN if slow else Grade.OK, f"{address} answers after {took_s * 1000:.0f} ms",
            "Each grant waits for that: bring them nearer together." if slow else "",
        )  # fmt: skip
    if runs_here:
        return Finding("addresses", setting, Grade.OK, f"{address} does not answer: {why}; it does not run yet")
    return Finding(
        "addresses",
        setting,
        Grade.WARN,
        f"{address} does not answer: {why}",
        "Start it, or look at firewalls and names between here and there.",
    )


def judge_nats(setting: str, address: str, told: Mapping[str, object] | str) -> list[Finding]:
    """`told`: what the server says of itself first, or why it said nothing."""
    if isinstance(told, str):
        return [
            Finding(
                "stores",
                setting,
                Grade.FAIL,
                f"{address}: {told}",
                "Start NATS (2.10 or newer, with JetStream), or set the right address.",
            )
        ]
    version = str(told.get("version", "0"))
    findings = []
    if _numbers(version) < (2, 10):
        findings.append(
            Finding("stores", setting, Grade.FAIL, f"{address}: NATS {version}", "Forebay needs 2.10 or newer.")
        )
    if not told.get("jetstream"):
        findings.append(
            Finding(
                "stores",
                setting,
                Grade.FAIL,
                f"{address}: NATS {version} without JetStream",
                "Turn it on: `jetstream { store_dir: … }` in nats.conf.",
            )
        )
    if not told.get("auth_required"):
        findings.append(
            Finding(
                "stores",
                setting,
                Grade.WARN,
                f"{address}: NATS lets everybody in",
                "Give it the users that `forebay secrets make` writes.",
            )
        )
    return findings or [
        Finding("stores", setting, Grade.OK, f"{address}: NATS {version} with JetStream, for users it knows")
    ]


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    version: str
    most_connections: int
    connections: int
    is_standby: bool


def judge_postgres(setting: str, address: str, told: PostgresFacts | str) -> list[Finding]:
    if isinstance(told, str):
        return [
            Finding(
                "stores",
                setting,
                Grade.FAIL,
                f"{address}: {told}",
                "Start PostgreSQL (14 or newer), or set the right address, user and password.",
            )
        ]
    found = f"{address}: PostgreSQL {told.version}, {told.connections} of {told.most_connections} connections"
    if _numbers(told.version) < (14,):
        return [Finding("stores", setting, Grade.FAIL, found, "Forebay needs 14 or newer.")]
    if told.is_standby:
        return [
            Finding(
                "stores", setting, Grade.FAIL, f"{found}; a standby, where nothing can be written", "Name the primary."
            )
        ]
    if told.connections > told.most_connections * 0.8:
        return [
            Finding(
                "stores",
                setting,
                Grade.WARN,
                found,
                "Raise max_connections: admin and the registry want about 20 each.",
            )
        ]
    return [Finding("stores", setting, Grade.OK, found)]


def judge_versions(ours: str, running: Mapping[str, str]) -> list[Finding]:
    """`running`: the version of each service that answered."""
    findings = []
    for service, theirs in running.items():
        if theirs == ours:
            findings.append(Finding("versions", service, Grade.OK, f"{theirs} runs"))
        else:
            findings.append(
                Finding(
                    "versions",
                    service,
                    Grade.WARN,
                    f"{theirs} runs, and {ours} is installed here",
                    "Restart it, or finish the upgrade: services of two versions are meant to meet for a while only.",
                )
            )
    return findings


def _numbers(version: str) -> tuple[int, ...]:
    """`18.6 (Debian …)` → (18, 6)."""
    numbers = []
    for part in version.split()[0].split("."):
        digits = "".join(character for character in part if character.isdigit())
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
