"""The rules by which alerts open, and what an operator may set of each. Pure; whether one holds is said in `findings`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from forebay_registry.health.states import Levels


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


class Rule(StrEnum):
    """Also the last part of the subject on NATS."""

    BACKEND_UNHEALTHY = "backend_unhealthy"
    """Graver once it is offline."""
    BACKEND_FLAPPING = "backend_flapping"
    MODELS_UNSERVED = "models_unserved"
    MODEL_MISSING = "model_missing"
    NODE_SILENT = "node_silent"
    NODE_CLOCK_WRONG = "node_clock_wrong"
    NODE_TWO_AGENTS = "node_two_agents"
    NODE_OTHER_MACHINE = "node_other_machine"
    NODE_SAMPLES_DROPPED = "node_samples_dropped"
    GPU_DRIVER_FAILED = "gpu_driver_failed"
    GPU_LOST = "gpu_lost"
    GPU_HOT = "gpu_hot"
    GPU_MEMORY_HOT = "gpu_memory_hot"
    GPU_THROTTLING = "gpu_throttling"
    GPU_ECC = "gpu_ecc"
    GPU_XID = "gpu_xid"
    VRAM_FULL = "vram_full"
    DISK_FULL = "disk_full"
    COMMAND_REFUSED = "command_refused"
    REGISTRY_WITHOUT_POSTGRES = "registry_without_postgres"
    REGISTRY_WITHOUT_NATS = "registry_without_nats"


FROM_SAMPLES = frozenset(
    {
        Rule.NODE_SILENT,
        Rule.GPU_DRIVER_FAILED,
        Rule.GPU_LOST,
        Rule.GPU_HOT,
        Rule.GPU_MEMORY_HOT,
        Rule.GPU_THROTTLING,
        Rule.GPU_ECC,
        Rule.GPU_XID,
        Rule.VRAM_FULL,
        Rule.DISK_FULL,
        Rule.NODE_CLOCK_WRONG,
        Rule.NODE_TWO_AGENTS,
        Rule.NODE_SAMPLES_DROPPED,
    }
)
"""Of a node that is silent, or that was not heard of yet, nobody knows whether they still hold."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Of one rule."""

    severity: Severity
    for_s: float
    """It has to hold for so long before an alert opens."""
    clear_s: float = 60.0
    """And not to hold for so long before it closes."""
    levels: Levels | None = None
    """Where it is about a number: reached at one, left at the other."""
    is_on: bool = True


_W, _C, _I = Severity.WARNING, Severity.CRITICAL, Severity.INFO

USUAL: Mapping[Rule, Terms] = MappingProxyType(
    {
        Rule.BACKEND_UNHEALTHY: Terms(_W, 30.0, 30.0),
        Rule.BACKEND_FLAPPING: Terms(_W, 0.0, levels=Levels(3.0, 2.0)),
        Rule.MODELS_UNSERVED: Terms(_C, 30.0, 15.0),
        Rule.MODEL_MISSING: Terms(_W, 900.0),
        Rule.NODE_SILENT: Terms(_W, 30.0, 30.0),
        Rule.NODE_CLOCK_WRONG: Terms(_W, 60.0),
        Rule.NODE_TWO_AGENTS: Terms(_W, 30.0, 120.0),
        Rule.NODE_OTHER_MACHINE: Terms(_W, 0.0),
        Rule.NODE_SAMPLES_DROPPED: Terms(_W, 120.0),
        Rule.GPU_DRIVER_FAILED: Terms(_C, 60.0),
        Rule.GPU_LOST: Terms(_C, 10.0),
        Rule.GPU_HOT: Terms(_W, 60.0, levels=Levels(88.0, 83.0)),
        Rule.GPU_MEMORY_HOT: Terms(_W, 60.0, levels=Levels(100.0, 95.0)),
        Rule.GPU_THROTTLING: Terms(_W, 60.0, 120.0),
        Rule.GPU_ECC: Terms(_W, 0.0),
        Rule.GPU_XID: Terms(_W, 0.0, levels=Levels(3600.0, 3600.0)),
        Rule.VRAM_FULL: Terms(_I, 300.0, levels=Levels(0.98, 0.95)),
        Rule.DISK_FULL: Terms(_W, 60.0, levels=Levels(0.95, 0.93)),
        Rule.COMMAND_REFUSED: Terms(_W, 0.0, 0.0, levels=Levels(3600.0, 3600.0)),
        Rule.REGISTRY_WITHOUT_POSTGRES: Terms(_C, 20.0, 10.0),
        Rule.REGISTRY_WITHOUT_NATS: Terms(_W, 60.0, 10.0),
    }
)

ABOUT: Mapping[Rule, str] = MappingProxyType(
    {
        Rule.BACKEND_UNHEALTHY: "it is unhealthy; critical once it is offline",
        Rule.BACKEND_FLAPPING: "it fell three times within `flap_window_s`",
        Rule.MODELS_UNSERVED: "all backends of the pool that have a model are down",
        Rule.MODEL_MISSING: "a backend that works lacks a model that its pool requires",
        Rule.NODE_SILENT: "its agent says less than it promised",
        Rule.NODE_CLOCK_WRONG: "its clock is more than 30 s off",
        Rule.NODE_TWO_AGENTS: "two agents speak for it",
        Rule.NODE_OTHER_MACHINE: "another machine speaks for it, since a day ago at most",
        Rule.NODE_SAMPLES_DROPPED: "samples on its subject are malformed, foreign or sent again, and that goes on",
        Rule.GPU_DRIVER_FAILED: "the driver answers with an error",
        Rule.GPU_LOST: "a GPU cannot be read",
        Rule.GPU_HOT: "88 °C, until 83 °C; critical 7 °C above",
        Rule.GPU_MEMORY_HOT: "100 °C, until 95 °C; critical 7 °C above",
        Rule.GPU_THROTTLING: "heat or the power supply slow it down; a power cap is no reason",
        Rule.GPU_ECC: "memory errors that could not be corrected, or a repair that waits; critical when it failed",
        Rule.GPU_XID: "the driver reported an Xid within an hour; critical for those of the hardware",
        Rule.VRAM_FULL: "98% of a GPU's memory are in use, until 95%",
        Rule.DISK_FULL: "95% of a disk are in use, until 93%; critical from 99% on",
        Rule.COMMAND_REFUSED: "an agent refused a command, for an hour",
        Rule.REGISTRY_WITHOUT_POSTGRES: "the registry cannot reach Postgres",
        Rule.REGISTRY_WITHOUT_NATS: "the registry cannot reach NATS",
    }
)

_SPANS = frozenset({Rule.GPU_XID, Rule.COMMAND_REFUSED})
"""Rules about what happened once: their level is for how many seconds it is told."""
_SHARES = frozenset({Rule.VRAM_FULL, Rule.DISK_FULL})
_SLACK = {
    Rule.BACKEND_FLAPPING: 1.0,
    Rule.GPU_HOT: 5.0,
    Rule.GPU_MEMORY_HOT: 5.0,
    Rule.VRAM_FULL: 0.03,
    Rule.DISK_FULL: 0.02,
}


REPEAT_S = 4 * 3600.0
KEEP_S = 90 * 86_400.0


@dataclass(frozen=True, slots=True)
class AlertSettings:
    terms: Mapping[Rule, Terms] = field(default_factory=lambda: USUAL)
    repeat_s: float = REPEAT_S
    """An alert that is open and that nobody has acknowledged is told again after so long."""
    keep_s: float = KEEP_S
    """How long those that are over are kept."""


def read_alerts(table: Mapping[str, Any]) -> tuple[AlertSettings, list[str]]:
    """From `[registry.alerts]`: `repeat_s`, `keep_s`, and a table for each rule with `enabled`, `severity`, `for_s`,
    `clear_s` and, where the rule is about a number, `limit`. With all problems, a sentence each."""
    terms, problems = dict(USUAL), list[str]()
    spans = {"repeat_s": REPEAT_S, "keep_s": KEEP_S}
    for name, told in table.items():
        if name in spans:
            if not _is_number(told) or told < 60:
                problems.append(f"{name} must be a number of seconds, at least 60")
            else:
                spans[name] = float(told)
        elif name not in set(Rule):
            problems.append(f"{name}: there is no such rule; there are {', '.join(Rule)}")
        elif not isinstance(told, Mapping):
            problems.append(f"{name} must be a table, such as {{ enabled = false }}")
        else:
            terms[Rule(name)], wrong = _read_terms(Rule(name), told)
            problems += [f"{name}: {why}" for why in wrong]
    return AlertSettings(MappingProxyType(terms), spans["repeat_s"], spans["keep_s"]), problems


def _read_terms(rule: Rule, table: Mapping[str, Any]) -> tuple[Terms, list[str]]:
    terms, problems = USUAL[rule], list[str]()
    for name, told in table.items():
        if name == "enabled" and isinstance(told, bool):
            terms = replace(terms, is_on=told)
        elif name == "severity" and told in set(Severity):
            terms = replace(terms, severity=Severity(told))
        elif name == "for_s" and _is_number(told) and 0 <= told <= 86_400:
            terms = replace(terms, for_s=float(told))
        elif name == "clear_s" and _is_number(told) and 0 <= told <= 86_400:
            terms = replace(terms, clear_s=float(told))
        elif name == "limit" and terms.levels is not None and _is_limit(rule, told):
            slack = 0.0 if rule in _SPANS else _SLACK[rule]
            terms = replace(terms, levels=Levels(float(told), float(told) - slack))
        elif name == "limit" and terms.levels is None:
            problems.append("it has no limit")
        elif name in ("enabled", "severity", "for_s", "clear_s", "limit"):
            problems.append(f"{name} = {told!r} makes no sense; {_SENSE[name]}")
        else:
            problems.append(f"{name}: there is no such setting; there are {', '.join(_SENSE)}")
    return terms, problems


_SENSE = {
    "enabled": "it is true or false",
    "severity": f"it is one of {', '.join(Severity)}",
    "for_s": "it is a number of seconds, at most a day",
    "clear_s": "it is a number of seconds, at most a day",
    "limit": "it is °C for heat, a share between 0.1 and 1 for memory and disks, falls for flapping, and for what "
    "happened once the seconds for which it is told",
}


def _is_number(told: Any) -> bool:
    return isinstance(told, int | float) and not isinstance(told, bool)


def _is_limit(rule: Rule, told: Any) -> bool:
    return _is_number(told) and (0.1 <= told <= 1.0 if rule in _SHARES else 1 <= told <= 1_000_000)


def as_table() -> str:
    """The rules as Markdown."""
    lines = ["| rule | opens when | after | severity |", "|---|---|---|---|"]
    lines += [
        f"| `{rule}` | {ABOUT[rule]} | {_span(terms.for_s)} | {terms.severity} |" for rule, terms in USUAL.items()
    ]
    return "\n".join(lines)


def _span(seconds: float) -> str:
    if not seconds:
        return "at once"
    return f"{seconds:g} s" if seconds < 120 else f"{seconds / 60:g} min"
