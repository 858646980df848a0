"""What the agent does beside sampling, wired: it looks for engines, and obeys the registry's commands."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from forebay.bus import Bus
from forebay.metrics import Metrics
from forebay.service import Ground
from forebay.signed_commands import CommandCheck
from forebay.wire.v1.telemetry_pb2 import TelemetrySample
from forebay_gpu_agent.commands.judge import OrderKind, Refusal
from forebay_gpu_agent.commands.listener import Commands, Tally
from forebay_gpu_agent.commands.orders import Orders
from forebay_gpu_agent.config import GpuAgentSettings
from forebay_gpu_agent.engines.finder import USUAL_PORTS, EngineFinder, Search


@dataclass(frozen=True, slots=True)
class Errands:
    finder: EngineFinder | None
    commands: Commands

    def add_to(self, sample: TelemetrySample) -> None:
        """Each sample before it is sent."""
        self.commands.agent_started_us = sample.agent_started_us
        if self.finder is not None:
            self.finder.add_to(sample)

    def work(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Name → what runs until it is cancelled."""
        work = {"commands": self.commands.run()}
        return work | ({"find-engines": self.finder.run()} if self.finder is not None else {})


def open_errands(
    settings: GpuAgentSettings,
    ground: Ground,
    bus: Bus,
    *,
    sample_now: Callable[[], object],
    reopen_driver: Callable[[], object],
) -> Errands:
    """`sample_now` and `reopen_driver` are called on the loop, and must not block."""
    clock, finder = ground.clock, None
    if settings.find_engines:
        search = Search(clock.monotonic, USUAL_PORTS | set(settings.engine_ports))
        finder = EngineFinder(search, clock, interval_s=settings.engines_interval_s, on_change=sample_now)
    commands = Commands(
        settings.node,
        bus,
        CommandCheck(settings.command_key) if settings.command_key else None,
        [OrderKind(word) for word in settings.commands],
        Orders(finder, sample_now=sample_now, reopen_driver=reopen_driver),
        clock,
        _count(ground.ops.metrics),
    )
    return Errands(finder, commands)


def _count(metrics: Metrics) -> Tally:
    refused = metrics.counter("forebay_agent_commands_refused", "Commands not obeyed, by why.", ("reason",))
    obeyed = metrics.counter("forebay_agent_commands", "Commands obeyed, by how they ended.", ("outcome",))
    return Tally(obeyed.child("done"), obeyed.child("failed"), {why: refused.child(why) for why in Refusal})
