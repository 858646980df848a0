"""Which rules hold for what, at one moment. Pure: facts in, findings out; how long they have held is `book`'s to count."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from forebay_registry.alerts.facts import BackendFacts, DiskFacts, Facts, GpuFacts, NodeFacts
from forebay_registry.alerts.rules import FROM_SAMPLES, AlertSettings, Rule, Severity
from forebay_registry.backend import Condition
from forebay_registry.nodes.troubles import Trouble

Key = tuple[str, str]
"""The word of the rule, and the subject."""

REGISTRY = "registry"
_SLOWED = frozenset({"hw_slowdown", "hw_thermal_slowdown", "sw_thermal_slowdown", "hw_power_brake_slowdown"})
"""Reasons of slow clocks that are no choice of anybody's; a power cap is one."""
_GRAVE_XIDS = frozenset({48, 64, 74, 79, 95, 119, 120, 140})
"""By NVIDIA's catalogue: memory that cannot be corrected or repaired, a link that failed, a GPU that fell off the bus or
whose own processor hangs. Others, such as 13, 31, 43 and 45, are mostly a program's fault."""
_HOTTER_C = 7.0
"""So much above the limit is grave."""
_FULLEST = 0.99
_MOST_NAMED = 5
_MOST_TEXT = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    rule: Rule
    subject: str
    severity: Severity
    summary: str
    todo: str
    node: str = ""

    @property
    def key(self) -> Key:
        return self.rule, self.subject


@dataclass(frozen=True, slots=True)
class Seen:
    findings: dict[Key, Finding]
    blind: frozenset[str]
    """Subjects of which it is not known now what holds for them. That of a node stands for all that its samples tell."""
    calm: frozenset[str]
    """Subjects under maintenance, likewise."""

    def is_blind_to(self, rule: str, subject: str, node: str) -> bool:
        if rule in FROM_SAMPLES:
            return f"node/{node}" in self.blind
        return subject in self.blind and not subject.startswith("node/")

    def is_calm(self, subject: str, node: str) -> bool:
        return subject in self.calm or (bool(node) and f"node/{node}" in self.calm)


def find(facts: Facts, settings: AlertSettings, before: Collection[Key] = ()) -> Seen:
    """`before`: what held when it was last looked at, for numbers that are left at another level than they are reached."""
    finder = _Finder(settings, before)
    found = {f.key: f for f in finder.all_of(facts) if settings.terms[f.rule].is_on}
    blind = {f"node/{n.name}" for n in facts.nodes if n.is_silent or not n.is_heard or not facts.has_nats}
    unknown = [b for b in facts.backends if b.condition is Condition.UNKNOWN]
    blind |= {f"backend/{b.name}" for b in unknown} | {f"pool/{b.pool}" for b in unknown}
    calm = {f"node/{n.name}" for n in facts.nodes if n.in_maintenance}
    calm |= {f"backend/{b.name}" for b in facts.backends if b.in_maintenance}
    return Seen(found, frozenset(blind), frozenset(calm))


class _Finder:
    def __init__(self, settings: AlertSettings, before: Collection[Key]) -> None:
        self._settings = settings
        self._before = before

    def all_of(self, facts: Facts) -> Iterator[Finding]:
        for backend in facts.backends:
            yield from self._backend(backend)
        yield from self._unserved(facts)
        for node in facts.nodes:
            yield from self._node(node, is_deaf=not facts.has_nats)
            if node.is_heard and not node.is_silent:
                for gpu in node.gpus:
                    yield from self._gpu(node, gpu)
                for disk in node.disks:
                    yield from self._disk(node, disk)
        yield from self._commands(facts)
        yield from self._registry(facts)

    # --- backends ---------------------------------------------------------------------------------------------------

    def _backend(self, b: BackendFacts) -> Iterator[Finding]:
        subject = f"backend/{b.name}"
        if b.condition.is_down:
            is_offline = b.condition is Condition.OFFLINE
            yield self._finding(
                Rule.BACKEND_UNHEALTHY,
                subject,
                f"The backend {b.name} is {b.condition}. {b.reason}".strip(),
                f"See `forebay backend show {b.name}`, and the engine's own log.",
                node=b.node,
                severity=Severity.CRITICAL if is_offline else None,
            )
        if self._reaches(Rule.BACKEND_FLAPPING, subject, b.falls):
            yield self._finding(
                Rule.BACKEND_FLAPPING,
                subject,
                f"The backend {b.name} fell {b.falls} times lately and came back each time.",
                "Look for what restarts or overloads its engine; `forebay backend drain` keeps it out until then.",
                node=b.node,
            )
        if b.missing_models and b.condition.takes_new:
            yield self._finding(
                Rule.MODEL_MISSING,
                subject,
                f"The backend {b.name} lacks {_named(b.missing_models)}, which its pool {b.pool} requires.",
                f"See `forebay model jobs --all` for what pulling says, or `forebay model pull … --backend {b.name}`.",
                node=b.node,
            )

    def _unserved(self, facts: Facts) -> Iterator[Finding]:
        """A pool whose models nobody can give, because all that have them are down or are kept empty."""
        for pool, models in unserved(facts.backends).items():
            yield self._finding(
                Rule.MODELS_UNSERVED,
                f"pool/{pool}",
                f"In the pool {pool} no backend that works has {_named(models)}.",
                "Requests for these wait or are refused: see `forebay backend list`.",
            )

    # --- nodes ------------------------------------------------------------------------------------------------------

    def _node(self, n: NodeFacts, *, is_deaf: bool) -> Iterator[Finding]:
        for trouble, rule in _TROUBLES.items():
            # While the registry hears nobody, the silence is its own, and one alert of that is enough.
            if trouble in n.troubles and not (is_deaf and trouble is Trouble.SILENT):
                what, todo = _split(n.troubles[trouble])
                summary = f"The node {n.name}: {what}"
                yield self._finding(rule, f"node/{n.name}", summary, todo, node=n.name)
        if n.driver_error and n.is_heard and not n.is_silent:
            yield self._finding(
                Rule.GPU_DRIVER_FAILED,
                f"node/{n.name}",
                f"The GPU driver of the node {n.name} fails: {n.driver_error}",
                "Run nvidia-smi there; a driver that was updated needs its modules loaded anew, mostly a restart.",
                node=n.name,
            )

    def _gpu(self, n: NodeFacts, g: GpuFacts) -> Iterator[Finding]:
        subject = f"gpu/{n.name}/{g.index}"
        whose = f"GPU {g.index}{f' ({g.name})' if g.name else ''} of the node {n.name}"
        if g.error:
            yield self._finding(
                Rule.GPU_LOST,
                subject,
                f"{whose} cannot be read: {g.error}.",
                "What ran there has failed. Drain its backends and restart the machine; if it comes again, replace it.",
                node=n.name,
            )
            return
        for rule, degrees, what in (
            (Rule.GPU_HOT, g.temperature_c, "is"),
            (Rule.GPU_MEMORY_HOT, g.memory_temperature_c, "has memory of"),
        ):
            if self._reaches(rule, subject, degrees):
                limit = self._limit(rule)
                yield self._finding(
                    rule,
                    subject,
                    f"{whose} {what} {degrees} °C hot; {limit:g} °C are the limit.",
                    "Look after fans, air and dust, or lower its power limit (nvidia-smi -pl).",
                    node=n.name,
                    severity=Severity.CRITICAL if (degrees or 0) >= limit + _HOTTER_C else None,
                )
        if slowed := sorted(_SLOWED.intersection(g.clock_reasons)):
            yield self._finding(
                Rule.GPU_THROTTLING,
                subject,
                f"{whose} is slowed down by {', '.join(slowed)}.",
                "Thermal: look after its cooling. Power brake: look after the power supply.",
                node=n.name,
            )
        yield from self._memory(n, g, subject, whose)

    def _memory(self, n: NodeFacts, g: GpuFacts, subject: str, whose: str) -> Iterator[Finding]:
        if g.repair_failed or g.repair_pending or g.ecc_uncorrected:
            what = (
                "has memory that cannot be repaired"
                if g.repair_failed
                else f"had {g.ecc_uncorrected} memory errors that could not be corrected since its driver was loaded"
                if g.ecc_uncorrected
                else "has memory to be taken out of use at its next reset"
            )
            yield self._finding(
                Rule.GPU_ECC,
                subject,
                f"{whose} {what}.",
                "It is to be replaced." if g.repair_failed else "Drain its backends and reset it (nvidia-smi -r).",
                node=n.name,
                severity=Severity.CRITICAL if g.repair_failed else None,
            )
        if g.last_xid is not None and g.xid_age_s is not None and g.xid_age_s < self._limit(Rule.GPU_XID):
            is_grave = g.last_xid in _GRAVE_XIDS
            yield self._finding(
                Rule.GPU_XID,
                subject,
                f"The driver reported Xid {g.last_xid} for {whose}.",
                "The GPU or its link is at fault: drain its backends and restart the machine."
                if is_grave
                else "Mostly a program's fault: see the engine's log, and dmesg.",
                node=n.name,
                severity=Severity.CRITICAL if is_grave else None,
            )
        if self._reaches(Rule.VRAM_FULL, subject, g.memory_used):
            yield self._finding(
                Rule.VRAM_FULL,
                subject,
                f"{g.memory_used or 0:.1%} of the memory of {whose} are in use.",
                "What else is loaded there fails: see `forebay node show` for what holds it.",
                node=n.name,
            )

    def _disk(self, n: NodeFacts, d: DiskFacts) -> Iterator[Finding]:
        subject = f"disk/{n.name}{d.path if d.path.startswith('/') else f'/{d.path}'}"
        if d.total_bytes > 0 and self._reaches(Rule.DISK_FULL, subject, d.used):
            yield self._finding(
                Rule.DISK_FULL,
                subject,
                f"The disk {d.path} of the node {n.name} has {d.free_bytes / 1e9:.1f} GB left of "
                f"{d.total_bytes / 1e9:.0f} GB.",
                "Models are not pulled there any more: remove some (`forebay model delete`), or make room.",
                node=n.name,
                severity=Severity.CRITICAL if d.used >= _FULLEST else None,
            )

    # --- the rest ---------------------------------------------------------------------------------------------------

    def _commands(self, facts: Facts) -> Iterator[Finding]:
        for refused in facts.refused:
            if refused.age_s < self._limit(Rule.COMMAND_REFUSED):
                yield self._finding(
                    Rule.COMMAND_REFUSED,
                    f"node/{refused.node}",
                    f"The agent of {refused.node} refused the command {refused.order}: {refused.why}",
                    "bad_signature or replayed: somebody else may speak for the registry. Else see the agent's settings.",
                    node=refused.node,
                )

    def _registry(self, facts: Facts) -> Iterator[Finding]:
        if not facts.has_postgres:
            yield self._finding(
                Rule.REGISTRY_WITHOUT_POSTGRES,
                REGISTRY,
                "The registry cannot reach Postgres: the fleet goes on from memory, and nothing can be changed.",
                "See whether Postgres is up, and the registry's log for what it says.",
            )
        if not facts.has_nats:
            yield self._finding(
                Rule.REGISTRY_WITHOUT_NATS,
                REGISTRY,
                "The registry cannot reach NATS: nothing is heard of nodes and GPUs, nor of what gateways see.",
                "See whether NATS is up, and the registry's log for what it says.",
            )

    def _reaches(self, rule: Rule, subject: str, value: float | None) -> bool:
        levels = self._settings.terms[rule].levels
        return levels is not None and levels.hold(value, was=(rule, subject) in self._before)

    def _limit(self, rule: Rule) -> float:
        levels = self._settings.terms[rule].levels
        assert levels is not None
        return levels.enter

    def _finding(
        self, rule: Rule, subject: str, summary: str, todo: str, *, node: str = "", severity: Severity | None = None
    ) -> Finding:
        """`severity`: when it is graver than usual."""
        usual = self._settings.terms[rule].severity
        gravest = usual if severity is None else max(usual, severity, key=lambda s: s.rank)
        return Finding(rule, subject, gravest, _one_line(summary), todo, node)


_TROUBLES = {
    Trouble.SILENT: Rule.NODE_SILENT,
    Trouble.CLOCK: Rule.NODE_CLOCK_WRONG,
    Trouble.TWO_AGENTS: Rule.NODE_TWO_AGENTS,
    Trouble.OTHER_MACHINE: Rule.NODE_OTHER_MACHINE,
    Trouble.DROPPED: Rule.NODE_SAMPLES_DROPPED,
}


def unserved(backends: Collection[BackendFacts]) -> dict[str, list[str]]:
    """Pool → models that its backends have, all of which are down. One that is still being looked at for the first time,
    that loads, or that is kept empty on purpose counts as one that will be there."""
    served: dict[str, set[str]] = defaultdict(set)
    known: dict[str, set[str]] = defaultdict(set)
    for b in backends:
        known[b.pool].update(b.models)
        if not b.condition.is_down:
            served[b.pool].update(b.models)
    return {pool: sorted(models - served[pool]) for pool, models in known.items() if models - served[pool]}


def _one_line(text: str) -> str:
    """What agents and engines call things may hold anything, and goes into logs, JSON and a database."""
    if len(text) > _MOST_TEXT:
        text = f"{text[:_MOST_TEXT]}…"
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _named(names: Collection[str]) -> str:
    told = sorted(names)
    more = len(told) - _MOST_NAMED
    return ", ".join(told[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _split(sentence: str) -> tuple[str, str]:
    """`troubles` says what happened and, behind a colon, what to do."""
    what, colon, todo = sentence.rpartition(": ")
    if not colon:
        return sentence, "See `forebay node list`."
    return f"{what}.", todo[:1].upper() + todo[1:]
