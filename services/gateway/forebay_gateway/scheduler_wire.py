"""Between the gateway's words for asking and the scheduler's frames."""

from __future__ import annotations

from dataclasses import dataclass, field

from forebay.clock import micros
from forebay.wire.v1 import scheduler_pb2, types_pb2
from forebay_gateway.accounting import Outcome, Usage
from forebay_gateway.asking import Ask, Epoch, Grant
from forebay_gateway.engine_errors import Blame
from forebay_gateway.principals import Band
from forebay_gateway.usage_record import OUTCOMES, usage_to_wire

_BANDS = {
    Band.SYSTEM: types_pb2.BAND_SYSTEM,
    Band.INTERACTIVE: types_pb2.BAND_INTERACTIVE,
    Band.STANDARD: types_pb2.BAND_STANDARD,
    Band.BATCH: types_pb2.BAND_BATCH,
}
_BLAMES = {
    Blame.UNREACHABLE: scheduler_pb2.NACK_CLASS_UNREACHABLE,
    Blame.FAILED: scheduler_pb2.NACK_CLASS_FAILED,
    Blame.BUSY: scheduler_pb2.NACK_CLASS_BUSY,
    Blame.UNKNOWN_BACKEND: scheduler_pb2.NACK_CLASS_UNKNOWN_BACKEND,
}


def submit_to_wire(ask: Ask, now: float, excluded: list[str], attempts: int) -> scheduler_pb2.Submit:
    """`now` on the monotonic clock."""
    return scheduler_pb2.Submit(
        ledger_id=ask.ledger_id,
        pool=ask.pool,
        model=ask.model,
        key_id=ask.key_id,
        user_id=ask.user_id,
        group_id=ask.group_id,
        band=_BANDS[ask.band],
        width=ask.width,
        prompt_tokens=ask.prompt_tokens,
        max_output_tokens=ask.max_output_tokens,
        deadline_ms=ask.deadline_ms,
        age_ms=max(0, round((now - ask.arrived) * 1000)),
        session_key=ask.session_key,
        excluded_backends=excluded,
        attempts=attempts,
        started_at_us=micros(ask.started_at),
        request_id=ask.request_id,
    )


def held_to_wire(ask: Ask, grant: Grant, now: float, excluded: list[str], completion_tokens: int) -> scheduler_pb2.Held:
    return scheduler_pb2.Held(
        request=submit_to_wire(ask, now, excluded, grant.attempt),
        backend_id=grant.backend_id,
        lease=grant.lease,
        epoch=epoch_to_wire(grant.epoch),
        attempt=grant.attempt,
        completion_tokens=completion_tokens,
    )


def settle_to_wire(grant: Grant, outcome: Outcome, usage: Usage) -> scheduler_pb2.Settle:
    return scheduler_pb2.Settle(
        ledger_id=grant.ledger_id,
        lease=grant.lease,
        epoch=epoch_to_wire(grant.epoch),
        backend_id=grant.backend_id,
        outcome=OUTCOMES[outcome],
        usage=usage_to_wire(usage),
    )


def nack_to_wire(grant: Grant, blame: Blame, retry_after_s: float | None) -> scheduler_pb2.Nack:
    return scheduler_pb2.Nack(
        ledger_id=grant.ledger_id,
        lease=grant.lease,
        backend_id=grant.backend_id,
        nack_class=_BLAMES[blame],
        retry_after_ms=min(round((retry_after_s or 0.0) * 1000), (1 << 32) - 1),
    )


def grant_from_wire(grant: scheduler_pb2.Grant, epoch: Epoch) -> Grant:
    return Grant(
        ledger_id=grant.ledger_id,
        backend_id=grant.backend_id,
        lease=grant.lease,
        epoch=epoch,
        attempt=grant.attempt,
        queue_ms=grant.queue_ms,
    )


def epoch_to_wire(epoch: Epoch) -> scheduler_pb2.Epoch:
    return scheduler_pb2.Epoch(term_us=epoch.term_us, revision=epoch.revision)


def epoch_from_wire(epoch: scheduler_pb2.Epoch) -> Epoch:
    return Epoch(epoch.term_us, epoch.revision)


@dataclass(slots=True)
class Outbox:
    """What is to be said with the next frame."""

    submits: dict[bytes, scheduler_pb2.Submit] = field(default_factory=dict)
    cancels: dict[bytes, None] = field(default_factory=dict)
    first_tokens: list[scheduler_pb2.FirstToken] = field(default_factory=list)
    progress: dict[bytes, int] = field(default_factory=dict)
    settles: list[scheduler_pb2.Settle] = field(default_factory=list)
    nacks: list[scheduler_pb2.Nack] = field(default_factory=list)
    ceiling_acks: list[scheduler_pb2.CeilingAck] = field(default_factory=list)

    def to_frame(self) -> scheduler_pb2.GatewayFrame:
        frame = scheduler_pb2.GatewayFrame(
            submits=self.submits.values(),
            cancels=[scheduler_pb2.Cancel(ledger_id=ledger_id) for ledger_id in self.cancels],
            first_tokens=self.first_tokens,
            progress=[
                scheduler_pb2.Progress(ledger_id=ledger_id, completion_tokens=tokens)
                for ledger_id, tokens in self.progress.items()
            ],
            settles=self.settles,
            nacks=self.nacks,
            ceiling_acks=self.ceiling_acks,
        )
        frame.heartbeat = not frame.ByteSize()
        return frame
