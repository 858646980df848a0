"""What is read of a TelemetrySample before its numbers are believed."""

from __future__ import annotations

import math

from forebay.wire.v1.telemetry_pb2 import TelemetrySample
from forebay_registry.nodes.agents import Said

_MOST_GPUS = 256
_LONGEST_INTERVAL_S = 3600.0
"""As long as an agent may be told to be silent."""
_LONGEST_NAME = 255
_MOST_PERCENT = 1000
"""A fan may turn faster than its full speed."""


def is_sound(told: TelemetrySample) -> bool:
    """Whether its numbers are numbers that can be: what is kept and added up must not be spoilt by one agent."""
    host = told.host
    shares = [host.cpu_percent, host.load_1m, host.load_5m, host.load_15m, *(t.celsius for t in host.temperatures)]
    percents = [p for g in told.gpus for p in (g.utilization_percent, g.memory_utilization_percent, g.fan_percent)]
    return (
        all(math.isfinite(share) for share in shares)
        and all(percent <= _MOST_PERCENT for percent in percents)
        and len(told.gpus) <= _MOST_GPUS
    )


def said(told: TelemetrySample) -> Said:
    return Said(
        min(told.interval_ms / 1000, _LONGEST_INTERVAL_S), _word(told.host.hostname), _word(told.host.machine_id)
    )


def _word(told: str) -> str:
    return "".join(letter for letter in told[:_LONGEST_NAME] if letter.isprintable())
