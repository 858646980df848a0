"""Between the gateway's words for asking and the scheduler's frames."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from forebay.clock import micros
from forebay.wire.v1 import scheduler_pb2, types_pb2
from forebay_gateway.accounting import Outcome, Usage
from forebay_gateway.callers.principals import Band
from forebay_gateway.engines.errors import Blame
from forebay_gateway.ledger.usage_record import OUTCOMES, fill_usage
from forebay_gateway.rate_standing import RateStanding
from forebay_gateway.slots.allotments import Allotment
from forebay_gateway.slots.asking import Ask, Epoch, Grant
from forebay_gateway.slots.ceilings import Ceiling
from forebay_gateway.slots.credits import Lent

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
    Blame.MODEL_GONE: scheduler_pb2.NACK_CLASS_UNKNOWN_BACKEND,  # nothing is wrong with it, and it is no use for this one
}


def submit_to_wire(ask: Ask, now: float, excluded: Sequence[str] = (), attempts: int = 0) -> scheduler_pb2.Submit:
    """`now` on the monotonic clock."""
    submit = scheduler_pb2.Submit()
    _fill(submit, ask, now)
    submit.excluded_backends.extend(excluded)
    submit.attempts = attempts
    return submit


def credit_start_to_wire(ask: Ask, now: float, credit: Lent, lease: int) -> scheduler_pb2.CreditStart:
    start = scheduler_pb2.CreditStart()
    start.credit_id, start.lease, start.backend_id = credit.id, lease, credit.backend_id
    _fill(start.request, ask, now)
    return start


def _fill(submit: scheduler_pb2.Submit, ask: Ask, now: float) -> None:
    """Field by field, which costs half of what the message's constructor does, after what is the same again and again."""
    submit.MergeFromString(_usual(ask.pool, ask.model, ask.key_id, ask.user_id, ask.group_id, ask.band, ask.is_plain))
    submit.ledger_id = ask.ledger_id
    submit.width = ask.width
    submit.prompt_tokens = ask.prompt_tokens
    submit.max_output_tokens = ask.max_output_tokens
    if ask.prefix_hashes:
        submit.prefix_hashes.extend(ask.prefix_hashes)
    if ask.deadline_ms:
        submit.deadline_ms = ask.deadline_ms
    if now > ask.arrived:
        submit.age_ms = round((now - ask.arrived) * 1000)
    if ask.session_key:
        submit.session_key = ask.session_key
    submit.started_at_us = micros(ask.started_at)
    submit.request_id = ask.request_id
    if ask.traced:
        submit.traced = ask.traced


@lru_cache(1024)
def _usual(pool: str, model: str, key_id: str, user_id: str, group_id: str, band: Band, plain: bool) -> bytes:
    """The part of a Submit that the many asks of one caller for one model have in common, as it is written."""
    return scheduler_pb2.Submit(
        pool=pool,
        model=model,
        key_id=key_id,
        user_id=user_id,
        group_id=group_id,
        band=_BANDS[band],
        plain=plain,
    ).SerializeToString()


def held_to_wire(
    ask: Ask, grant: Grant, now: float, excluded: Sequence[str], completion_tokens: int
) -> scheduler_pb2.Held:
    return scheduler_pb2.Held(
        request=submit_to_wire(ask, now, excluded, grant.attempt),
        backend_id=grant.backend_id,
        lease=grant.lease,
        epoch=epoch_to_wire(grant.epoch),
        attempt=grant.attempt,
        completion_tokens=completion_tokens,
    )


def settle_to_wire(grant: Grant, outcome: Outcome, usage: Usage) -> scheduler_pb2.Settle:
    settle = scheduler_pb2.Settle()
    settle.ledger_id = grant.ledger_id
    settle.lease = grant.lease
    settle.epoch.term_us, settle.epoch.revision = grant.epoch.term_us, grant.epoch.revision
    settle.backend_id = grant.backend_id
    settle.outcome = OUTCOMES[outcome]
    fill_usage(settle.usage, usage)
    return settle


def nack_to_wire(grant: Grant, blame: Blame, retry_after_s: float | None, traced: bytes = b"") -> scheduler_pb2.Nack:
    return scheduler_pb2.Nack(
        ledger_id=grant.ledger_id,
        lease=grant.lease,
        backend_id=grant.backend_id,
        nack_class=_BLAMES[blame],
        retry_after_ms=min(round((retry_after_s or 0.0) * 1000), (1 << 32) - 1),
        traced=traced,
    )


def grant_from_wire(grant: scheduler_pb2.Grant, epoch: Epoch) -> Grant:
    is_limited = grant.HasField("standing")
    return Grant(
        ledger_id=grant.ledger_id,
        backend_id=grant.backend_id,
        lease=grant.lease,
        epoch=epoch,
        attempt=grant.attempt,
        queue_ms=grant.queue_ms,
        standing=standing_from_wire(grant.standing) if is_limited else None,
        is_limited=is_limited,
    )


def standing_from_wire(told: scheduler_pb2.RateStanding) -> RateStanding:
    return RateStanding(
        limit_requests=told.limit_requests if told.HasField("limit_requests") else None,
        remaining_requests=told.remaining_requests,
        reset_requests_s=told.reset_requests_ms / 1000,
        limit_tokens=told.limit_tokens if told.HasField("limit_tokens") else None,
        remaining_tokens=told.remaining_tokens,
        reset_tokens_s=told.reset_tokens_ms / 1000,
    )


def ceiling_from_wire(told: scheduler_pb2.Ceiling) -> Ceiling:
    return Ceiling(told.backend_id, told.pool, told.slots, told.version)


def ceiling_to_wire(ceiling: Ceiling) -> scheduler_pb2.Ceiling:
    return scheduler_pb2.Ceiling(
        backend_id=ceiling.backend_id, pool=ceiling.pool, slots=ceiling.slots, version=ceiling.version
    )


def credit_from_wire(told: scheduler_pb2.Credit, heartbeat_at: float) -> Lent:
    """`heartbeat_at`: when the heartbeat was sent that it answers, on the monotonic clock."""
    return Lent(
        id=told.id,
        backend_id=told.backend_id,
        pool=told.pool or "default",
        model=told.model,
        slots=told.slots,
        expires_at=heartbeat_at + told.valid_ms / 1000,
        first_lease=told.first_lease,
        leases=told.leases,
    )


def allotment_from_wire(told: scheduler_pb2.Allotment, heartbeat_at: float) -> Allotment:
    return Allotment(
        id=told.id,
        key_id=told.key_id,
        requests=told.requests,
        tokens=told.tokens,
        expires_at=heartbeat_at + told.valid_ms / 1000,
    )


def epoch_to_wire(epoch: Epoch) -> scheduler_pb2.Epoch:
    return scheduler_pb2.Epoch(term_us=epoch.term_us, revision=epoch.revision)


def epoch_from_wire(epoch: scheduler_pb2.Epoch) -> Epoch:
    return Epoch(epoch.term_us, epoch.revision)


@dataclass(slots=True)
class Outbox:
    """What is to be said with the next frame."""

    submits: dict[bytes, scheduler_pb2.Submit] = field(default_factory=dict)
    cancels: list[bytes] = field(default_factory=list)
    withdrawn: dict[bytes, asyncio.Future[None]] = field(default_factory=dict)
    """Those of the cancelled for whom somebody waits until they are acted upon."""
    first_tokens: dict[bytes, int] = field(default_factory=dict)
    progress: dict[bytes, int] = field(default_factory=dict)
    settles: list[scheduler_pb2.Settle] = field(default_factory=list)
    nacks: list[scheduler_pb2.Nack] = field(default_factory=list)
    ceiling_acks: list[scheduler_pb2.CeilingAck] = field(default_factory=list)
    credit_starts: dict[bytes, scheduler_pb2.CreditStart] = field(default_factory=dict)
    passed: dict[int, int] = field(default_factory=dict)
    """Credit → slots on which something was over before others began, and of which that is read after those begin: the ends
    of what begins in here too, and nacks."""
    credit_returns: list[int] = field(default_factory=list)
    allotment_returns: list[int] = field(default_factory=list)

    def to_frame(self) -> scheduler_pb2.GatewayFrame:
        frame = scheduler_pb2.GatewayFrame(
            submits=self.submits.values(),
            cancels=[scheduler_pb2.Cancel(ledger_id=ledger_id) for ledger_id in self.cancels],
            settles=self.settles,
            nacks=self.nacks,
            ceiling_acks=self.ceiling_acks,
            credit_starts=self.credit_starts.values(),
            credit_returns=[scheduler_pb2.CreditReturn(id=number) for number in self.credit_returns],
            allotment_returns=[scheduler_pb2.AllotmentReturn(id=number) for number in self.allotment_returns],
        )
        for ledger_id, ms in self.first_tokens.items():  # many, which cost half like this
            first = frame.first_tokens.add()
            first.ledger_id, first.ttft_ms = ledger_id, ms
        for ledger_id, tokens in self.progress.items():
            progress = frame.progress.add()
            progress.ledger_id, progress.completion_tokens = ledger_id, tokens
        return frame

    def split_off_later(self) -> Outbox:
        """A frame's endings are read before its beginnings. What begins and ends in here therefore ends in the frame after
        this one, and what is asked for goes there too, for which that end may make room. Gives what that one has to say."""
        later = Outbox()
        if self.credit_starts:
            later.settles = [s for s in self.settles if s.ledger_id in self.credit_starts]
            later.nacks = [n for n in self.nacks if n.ledger_id in self.credit_starts]
            later.cancels = [c for c in self.cancels if c in self.credit_starts]
            later.withdrawn = {c: self.withdrawn.pop(c) for c in later.cancels if c in self.withdrawn}
            if later.settles:
                self.settles = [s for s in self.settles if s.ledger_id not in self.credit_starts]
            if later.nacks:
                later.passed = dict(self.passed)
                self.nacks = [n for n in self.nacks if n.ledger_id not in self.credit_starts]
            if later.cancels:
                self.cancels = [c for c in self.cancels if c not in self.credit_starts]
            if not later.is_empty:
                later.submits, self.submits = self.submits, {}
        return later

    @property
    def is_pressing(self) -> bool:
        """Somebody waits for what comes of it."""
        return bool(self.submits or self.cancels or self.nacks)

    def acted_upon(self) -> None:
        """The scheduler has read it, or never will: then its next Hello says how things are."""
        for waiting in self.withdrawn.values():
            if not waiting.done():
                waiting.set_result(None)
        self.withdrawn.clear()

    @property
    def is_empty(self) -> bool:
        return not (
            self.submits
            or self.cancels
            or self.first_tokens
            or self.progress
            or self.settles
            or self.nacks
            or self.ceiling_acks
            or self.credit_starts
            or self.credit_returns
            or self.allotment_returns
        )
