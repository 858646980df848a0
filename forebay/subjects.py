"""Every NATS subject, stream and bucket, and which message travels on it. Payloads are protobuf and stay under 512 kB."""

from __future__ import annotations

from dataclasses import dataclass

MAX_PAYLOAD_BYTES = 512 * 1024


def telemetry(node: str) -> str:
    """TelemetrySample, at most once."""
    return f"forebay.telemetry.{node}"


def usage(publisher: str) -> str:
    """UsageBatch, kept in USAGE_STREAM until admin has committed it. Publisher: a gateway's name, or `scheduler`."""
    return f"forebay.usage.{publisher}"


def command(node: str) -> str:
    """SignedCommand, to a node's agent; at most once."""
    return f"forebay.command.{node}"


def answer(node: str) -> str:
    """NodeCommandAnswer, of a node's agent to a command; at most once."""
    return f"forebay.answer.{node}"


def health(backend_id: str) -> str:
    """HealthChange, from the registry; at most once."""
    return f"forebay.events.health.{backend_id}"


def alerts(rule: str) -> str:
    """AlertEvent, from the registry; at most once."""
    return f"forebay.events.alerts.{rule}"


def attempts(gateway: str) -> str:
    """AttemptsReport, at most once."""
    return f"forebay.events.attempts.{gateway}"


def notice(kind: str) -> str:
    """Event, from admin; at most once each time it is told, again when nobody knows whether it was. The kind holds a
    dot: `budget.threshold`."""
    return f"forebay.events.notices.{kind}"


def security(kind: str) -> str:
    """SecurityEvent, from admin once it is kept; at most once."""
    return f"forebay.events.security.{kind}"


def recordings(gateway: str) -> str:
    """RecordingBatch, kept in RECORDINGS_STREAM until admin has it."""
    return f"forebay.audit.{gateway}"


TELEMETRY_OF_ALL = "forebay.telemetry.*"
ATTEMPTS_OF_ALL = "forebay.events.attempts.*"
SECURITY_OF_ALL = "forebay.events.security.*"
DRAINING = "forebay.events.draining.scheduler"
"""DrainingReport, from the scheduler that leads; at most once."""
ANSWERS_OF_ALL = "forebay.answer.*"


@dataclass(frozen=True, slots=True)
class Stream:
    """A JetStream stream on file storage that refuses (`discard=new`) rather than forgets when it is full."""

    name: str
    subjects: tuple[str, ...]
    max_bytes: int


USAGE_STREAM = Stream("FOREBAY_USAGE", ("forebay.usage.*",), max_bytes=1 << 30)
LEDGER_CONSUMER = "ledger"
RECORDINGS_STREAM = Stream("FOREBAY_AUDIT", ("forebay.audit.*",), max_bytes=1 << 30)
RECORDINGS_CONSUMER = "recordings"

LEADER_BUCKET = "forebay-leader"
"""Key `leader`: JSON with the address of the scheduler that leads. Its entries live for two seconds."""
SCHEDULER_BUCKET = "forebay-scheduler"
"""What a leader keeps for its successor, each written by compare and set."""
STATE_KEY = "state"
"""StateManifest, which names the parts of the last whole SchedulerState."""


def ceilings_key(shard: int) -> str:
    """CeilingShard."""
    return f"ceilings.{shard}"


def state_part_key(number: int, part: int) -> str:
    """Bytes. A state shares no key with the one before it, which stays whole until this one is."""
    return f"{STATE_KEY}.{number % 2}.{part}"
