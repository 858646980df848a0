"""Between the scheduler's frames and the core's words. Ages on the wire become moments on the scheduler's own clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from forebay.clock import Clock, micros
from forebay.errors import BadInput
from forebay.wire.v1 import registry_pb2, scheduler_pb2, types_pb2, usage_pb2
from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend
from forebay_scheduler.decisions import Grant, Orphan, Reject
from forebay_scheduler.request import (
    BackendId,
    Band,
    Claim,
    Epoch,
    GatewayName,
    Holding,
    Lease,
    LedgerId,
    PoolName,
    Request,
    SessionId,
    UserId,
)

_BANDS = {
    types_pb2.BAND_SYSTEM: Band.SYSTEM,
    types_pb2.BAND_INTERACTIVE: Band.INTERACTIVE,
    types_pb2.BAND_STANDARD: Band.STANDARD,
    types_pb2.BAND_BATCH: Band.BATCH,
}
_CAUSES = {
    scheduler_pb2.NACK_CLASS_UNREACHABLE: ev.NackCause.UNREACHABLE,
    scheduler_pb2.NACK_CLASS_FAILED: ev.NackCause.FAILED,
    scheduler_pb2.NACK_CLASS_BUSY: ev.NackCause.BUSY,
    scheduler_pb2.NACK_CLASS_UNKNOWN_BACKEND: ev.NackCause.UNKNOWN_BACKEND,
}
_LONGEST_RETRY_MS = 120_000  # clients do not wait for longer than this, whatever they are told
_ID_BYTES = 16


# --- what gateways say --------------------------------------------------------------------------------------------------


def read_hello(hello: scheduler_pb2.Hello, session: SessionId, now: float) -> ev.SessionOpened:
    """Raises BadInput."""
    if not hello.gateway:
        raise BadInput("A session's first frame has to name its gateway.")
    return ev.SessionOpened(
        session,
        GatewayName(hello.gateway),
        hello.generation,
        tuple(_read_claim(held, now) for held in hello.held),
        tuple(_read_submit(submit, now) for submit in hello.queued),
    )


def read_frame(frame: scheduler_pb2.GatewayFrame, session: SessionId, now: float) -> Iterator[ev.Event]:
    """Ends before beginnings, so that what a frame frees serves what it asks for. Raises BadInput."""
    yield ev.Heard(session)
    for settle in frame.settles:
        yield _read_settle(settle, session)
    for cancel in frame.cancels:
        yield ev.Cancel(session, _ledger_id(cancel.ledger_id))
    for first in frame.first_tokens:
        yield ev.FirstToken(session, _ledger_id(first.ledger_id))
    for progress in frame.progress:
        yield ev.Progress(session, _ledger_id(progress.ledger_id), progress.completion_tokens)
    for nack in frame.nacks:
        cause = _CAUSES.get(nack.nack_class, ev.NackCause.FAILED)
        yield ev.Nack(session, _ledger_id(nack.ledger_id), nack.lease, cause, nack.retry_after_ms / 1000)
    for submit in frame.submits:
        yield ev.Submit(session, _read_submit(submit, now))
    if frame.bye:
        yield ev.GatewayLeft(session)


def read_unconfirmed(hello: scheduler_pb2.Hello, session: SessionId) -> Iterator[ev.Event]:
    """The settles that came with a Hello. Raises BadInput."""
    for settle in hello.unconfirmed:
        yield _read_settle(settle, session)


def _read_settle(settle: scheduler_pb2.Settle, session: SessionId) -> ev.Settle:
    lease = Lease(read_epoch(settle.epoch), settle.lease) if settle.lease else None
    return ev.Settle(
        session,
        _ledger_id(settle.ledger_id),
        lease,
        is_success=settle.outcome == types_pb2.OUTCOME_FINISHED,
    )


def _read_claim(held: scheduler_pb2.Held, now: float) -> Claim:
    return Claim(
        _read_submit(held.request, now),
        BackendId(held.backend_id),
        Lease(read_epoch(held.epoch), held.lease),
        held.attempt,
        held.completion_tokens,
    )


def _read_submit(submit: scheduler_pb2.Submit, now: float) -> Request:
    return Request(
        ledger_id=_ledger_id(submit.ledger_id),
        user=UserId(submit.user_id),
        model=submit.model,
        arrived_at=now - submit.age_ms / 1000,
        pool=PoolName(submit.pool or "default"),
        band=_BANDS.get(submit.band, Band.STANDARD),
        width=max(1, submit.width),
        deadline_s=submit.deadline_ms / 1000 if submit.deadline_ms else None,
        excluded=frozenset(BackendId(backend) for backend in submit.excluded_backends),
        attempts=submit.attempts,
        key=submit.key_id,
        group=submit.group_id,
        prompt_tokens=submit.prompt_tokens,
        started_at_us=submit.started_at_us,
        request_id=submit.request_id,
    )


def _ledger_id(raw: bytes) -> LedgerId:
    if len(raw) != _ID_BYTES:
        raise BadInput(f"A ledger id has {_ID_BYTES} bytes, not {len(raw)}.")
    return LedgerId(raw)


# --- what the scheduler says --------------------------------------------------------------------------------------------


def grant_to_wire(grant: Grant) -> scheduler_pb2.Grant:
    return scheduler_pb2.Grant(
        ledger_id=grant.ledger_id,
        backend_id=grant.backend,
        lease=grant.lease.seq,
        attempt=grant.attempt,
        width=grant.width,
        queue_ms=max(0, round(grant.queued_s * 1000)),
    )


def reject_to_wire(reject: Reject) -> scheduler_pb2.Reject:
    after_ms = 0 if reject.retry_after_s is None else min(_LONGEST_RETRY_MS, max(1, round(reject.retry_after_s * 1000)))
    return scheduler_pb2.Reject(
        ledger_id=reject.ledger_id, reason=reject.reason, retry_after_ms=after_ms, message=reject.message
    )


def read_epoch(epoch: scheduler_pb2.Epoch) -> Epoch:
    return Epoch(epoch.term_us, epoch.revision)


def epoch_to_wire(epoch: Epoch) -> scheduler_pb2.Epoch:
    return scheduler_pb2.Epoch(term_us=epoch.term_us, revision=epoch.revision)


# --- the fleet ----------------------------------------------------------------------------------------------------------


def read_backend(backend: registry_pb2.Backend, clock: Clock) -> Backend:
    load = backend.load if backend.HasField("load") else None
    counted = load is not None and load.HasField("running")
    return Backend(
        id=BackendId(backend.id),
        pool=PoolName(backend.pool or "default"),
        models=frozenset(model.name for model in backend.models),
        slots=backend.slots,
        healthy=backend.health == registry_pb2.BACKEND_HEALTH_HEALTHY,
        enabled=backend.enabled,
        running=load.running if load is not None and counted else None,
        measured_at=_on_our_clock(load.measured_at_us, clock) if load is not None and counted else float("-inf"),
    )


def _on_our_clock(at_us: int, clock: Clock) -> float:
    """A moment of another host's wall clock. One that claims to lie ahead is now."""
    return clock.monotonic() - max(0.0, clock.now() - at_us / 1_000_000)


# --- what is stored -----------------------------------------------------------------------------------------------------


def snapshot_to_wire(epoch: Epoch, holdings: Iterable[Holding], now: float) -> scheduler_pb2.SchedulerSnapshot:
    return scheduler_pb2.SchedulerSnapshot(
        epoch=epoch_to_wire(epoch),
        stored_at_us=micros(now),
        gateways=[
            scheduler_pb2.GatewayHoldings(
                gateway=holding.gateway,
                generation=holding.generation,
                slots={backend: slots for backend, slots in holding.slots.items() if slots},
                silent_ms=max(0, round(holding.silent_s * 1000)),
                dead=holding.is_dead,
            )
            for holding in holdings
        ],
    )


def read_snapshot(snapshot: scheduler_pb2.SchedulerSnapshot, now: float) -> list[Holding]:
    """`now` in seconds since the epoch: silence went on since it was stored."""
    since_s = max(0.0, now - snapshot.stored_at_us / 1_000_000)
    return [
        Holding(
            GatewayName(one.gateway),
            one.generation,
            {BackendId(backend): slots for backend, slots in one.slots.items()},
            silent_s=one.silent_ms / 1000 + since_s,
            is_dead=one.dead,
        )
        for one in snapshot.gateways
    ]


def orphan_to_wire(orphan: Orphan) -> usage_pb2.UsageRecord:
    """The ledger row of a request whose gateway did not live to write it."""
    request = orphan.request
    return usage_pb2.UsageRecord(
        ledger_id=request.ledger_id,
        request_id=request.request_id,
        gateway=orphan.gateway,
        generation=orphan.generation,
        key_id=request.key,
        user_id=request.user,
        group_id=request.group,
        pool=request.pool,
        model_requested=request.model,
        model=request.model,
        backend_id=orphan.backend or "",
        width=request.width,
        outcome=types_pb2.OUTCOME_GATEWAY_LOST,
        started_at_us=request.started_at_us,
        queue_ms=max(0, round(orphan.queued_s * 1000)),
        ttft_ms=None if orphan.ttft_s is None else max(0, round(orphan.ttft_s * 1000)),
        duration_ms=max(0, round(orphan.lived_s * 1000)),
        usage=types_pb2.TokenUsage(
            prompt_tokens=request.prompt_tokens if orphan.ttft_s is not None else 0,
            completion_tokens=orphan.completion_tokens,
            source=types_pb2.USAGE_SOURCE_ESTIMATED,
        ),
        attempts=request.attempts,
    )
