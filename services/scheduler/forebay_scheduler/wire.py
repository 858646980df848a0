"""Between the scheduler's frames and the core's words. Ages on the wire become moments on the scheduler's own clock."""

from __future__ import annotations

from forebay.backend_states import STOPPED, Condition, condition_named
from forebay.clock import Clock
from forebay.errors import BadInput
from forebay.wire.v1 import registry_pb2, scheduler_pb2, types_pb2, usage_pb2
from forebay_scheduler import events as ev
from forebay_scheduler.backend import Backend, Drain, ModelFacts
from forebay_scheduler.decisions import AllotmentLent, CeilingTold, CreditLent, Grant, Orphan, RateStanding, Reject
from forebay_scheduler.fencing import read_epoch
from forebay_scheduler.request import (
    BackendId,
    Band,
    Claim,
    GatewayName,
    GroupId,
    KeyId,
    Lease,
    LedgerId,
    PoolName,
    Request,
    SessionId,
    Used,
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
_ENDS = {
    types_pb2.OUTCOME_FINISHED: "finished",
    types_pb2.OUTCOME_CANCELLED: "cancelled",
    types_pb2.OUTCOME_REFUSED: "refused",
    types_pb2.OUTCOME_GATEWAY_LOST: "gateway_lost",
}
_CONDITIONS = {number: condition_named(name) for name, number in registry_pb2.BackendHealth.items()}
_NOTHING: frozenset[BackendId] = frozenset()
_MOST_HASHES = 64
_LONGEST_RETRY_MS = 120_000  # clients do not wait for longer than this, whatever they are told
_LONGEST_WAIT_S = 30 * 86400.0
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
        tuple((BackendId(ceiling.backend_id), ceiling.slots) for ceiling in hello.ceilings),
        tuple(_read_settle(settle, session, now) for settle in hello.unconfirmed),
    )


def read_frame(frame: scheduler_pb2.GatewayFrame, session: SessionId, now: float) -> list[ev.Event]:
    """Ends before beginnings, so that what a frame frees serves what it asks for. Raises BadInput."""
    events: list[ev.Event] = [ev.Heard(session)]
    events += [_read_settle(settle, session, now) for settle in frame.settles]
    events += [ev.Cancel(session, _ledger_id(cancel.ledger_id)) for cancel in frame.cancels]
    events += [
        ev.CreditStarted(
            session, start.credit_id, start.lease, _read_submit(start.request, now), BackendId(start.backend_id)
        )
        for start in frame.credit_starts
    ]
    events += [
        ev.FirstToken(session, _ledger_id(first.ledger_id), first.ttft_ms / 1000) for first in frame.first_tokens
    ]
    events += [
        ev.Progress(session, _ledger_id(progress.ledger_id), progress.completion_tokens) for progress in frame.progress
    ]
    events += [_read_nack(nack, session) for nack in frame.nacks]
    events += [ev.CeilingAcked(session, BackendId(ack.backend_id), ack.version, ack.held) for ack in frame.ceiling_acks]
    events += [ev.CreditReturned(session, returned.id) for returned in frame.credit_returns]
    events += [ev.AllotmentReturned(session, returned.id) for returned in frame.allotment_returns]
    events += [ev.Submit(session, _read_submit(submit, now)) for submit in frame.submits]
    if frame.heartbeat:
        events.append(ev.Beat(session, frame.seq))
    if frame.bye:
        events.append(ev.GatewayLeft(session))
    return events


def _read_nack(nack: scheduler_pb2.Nack, session: SessionId) -> ev.Nack:
    cause = _CAUSES.get(nack.nack_class, ev.NackCause.FAILED)
    return ev.Nack(session, _ledger_id(nack.ledger_id), nack.lease, cause, nack.retry_after_ms / 1000)


def _read_settle(settle: scheduler_pb2.Settle, session: SessionId, now: float) -> ev.Settle:
    usage = settle.usage
    return ev.Settle(
        session,
        _ledger_id(settle.ledger_id),
        Lease(read_epoch(settle.epoch), settle.lease) if settle.lease else None,
        settle.outcome == types_pb2.OUTCOME_FINISHED,
        Used(usage.prompt_tokens, usage.cached_prompt_tokens, usage.completion_tokens),
        _ENDS.get(settle.outcome, "failed"),
        _read_submit(settle.request, now) if settle.HasField("request") else None,
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
    # By position, and nothing asked of the message twice: this is done for every request.
    hashes = submit.prefix_hashes
    deadline_ms = submit.deadline_ms
    return Request(
        _ledger_id(submit.ledger_id),
        UserId(submit.user_id),
        submit.model,
        now - submit.age_ms / 1000,
        PoolName(submit.pool or "default"),
        _BANDS.get(submit.band, Band.STANDARD),
        submit.width or 1,
        deadline_ms / 1000 if deadline_ms else None,
        frozenset(map(BackendId, submit.excluded_backends)) if submit.excluded_backends else _NOTHING,
        submit.attempts,
        KeyId(submit.key_id),
        GroupId(submit.group_id),
        submit.prompt_tokens,
        submit.max_output_tokens,
        tuple(hashes[:_MOST_HASHES]) if hashes else (),
        submit.session_key,
        submit.started_at_us,
        submit.request_id,
        not submit.plain,
    )


def _ledger_id(raw: bytes) -> LedgerId:
    if len(raw) != _ID_BYTES:
        raise BadInput(f"A ledger id has {_ID_BYTES} bytes, not {len(raw)}.")
    return LedgerId(raw)


# --- what the scheduler says --------------------------------------------------------------------------------------------


def add_grant(frame: scheduler_pb2.SchedulerFrame, grant: Grant) -> None:
    told = frame.grants.add(
        ledger_id=grant.ledger_id,
        backend_id=grant.backend,
        lease=grant.lease.seq,
        attempt=grant.attempt,
        width=grant.width,
        queue_ms=round(grant.queued_s * 1000),
    )
    if grant.standing is not None:
        _standing_to_wire(told.standing, grant.standing)


def wait_ms(seconds: float | None) -> int:
    """Of a wait: 0 when nothing is known, or when it has no end that could be told, as while somebody is paused."""
    if seconds is None or not 0.0 < seconds < _LONGEST_WAIT_S:
        return 0
    return max(1, round(seconds * 1000))


def add_reject(frame: scheduler_pb2.SchedulerFrame, reject: Reject) -> None:
    after_s = reject.retry_after_s
    after_ms = 0 if after_s is None else max(1, round(min(_LONGEST_RETRY_MS, after_s * 1000)))
    told = frame.rejects.add(
        ledger_id=reject.ledger_id, reason=reject.reason, retry_after_ms=after_ms, message=reject.message
    )
    if reject.standing is not None:
        _standing_to_wire(told.standing, reject.standing)


def _standing_to_wire(told: scheduler_pb2.RateStanding, standing: RateStanding) -> None:
    told.SetInParent()  # present even when it has nothing to say: the key is limited, though not by rates
    if standing.limit_requests is not None:
        told.limit_requests = standing.limit_requests
        told.remaining_requests = max(0, standing.remaining_requests)
        told.reset_requests_ms = max(0, round(standing.reset_requests_s * 1000))
    if standing.limit_tokens is not None:
        told.limit_tokens = standing.limit_tokens
        told.remaining_tokens = max(0, standing.remaining_tokens)
        told.reset_tokens_ms = max(0, round(standing.reset_tokens_s * 1000))


def add_ceiling(frame: scheduler_pb2.SchedulerFrame, told: CeilingTold) -> None:
    frame.ceilings.add(backend_id=told.backend, pool=told.pool, slots=told.slots, version=told.version)


def add_credit(frame: scheduler_pb2.SchedulerFrame, lent: CreditLent) -> None:
    frame.credits.add(
        id=lent.id,
        backend_id=lent.backend,
        pool=lent.pool,
        model=lent.model,
        slots=lent.slots,
        valid_ms=round(lent.valid_s * 1000),
        heartbeat_seq=lent.beat_seq,
        recall=lent.is_recall,
        first_lease=lent.first_lease,
        leases=lent.leases,
    )


def add_allotment(frame: scheduler_pb2.SchedulerFrame, lent: AllotmentLent) -> None:
    frame.allotments.add(
        id=lent.id,
        key_id=lent.key,
        requests=lent.requests,
        tokens=lent.tokens,
        money_micros=lent.money_micros,
        valid_ms=round(lent.valid_s * 1000),
        heartbeat_seq=lent.beat_seq,
        recall=lent.is_recall,
    )


# --- the fleet ----------------------------------------------------------------------------------------------------------


def read_backend(backend: registry_pb2.Backend, clock: Clock) -> Backend:
    load = backend.load if backend.HasField("load") else None
    counted = load is not None and load.HasField("running")
    condition = _CONDITIONS.get(backend.health, Condition.UNKNOWN)
    return Backend(
        id=BackendId(backend.id),
        pool=PoolName(backend.pool or "default"),
        models=frozenset(model.name for model in backend.models),
        slots=backend.slots,
        healthy=condition.takes_new or condition.is_emptied,
        enabled=backend.enabled,
        drain=_read_drain(backend, clock) if backend.draining or condition.is_emptied else None,
        running=load.running if load is not None and counted else None,
        measured_at=_on_our_clock(load.measured_at_us, clock) if load is not None and counted else float("-inf"),
        waiting=load.waiting if load is not None and load.HasField("waiting") else None,
        slots_assumed=backend.slots_assumed,
        kv_tokens=backend.kv_tokens if backend.HasField("kv_tokens") else None,
        requests_per_minute=backend.requests_per_minute if backend.HasField("requests_per_minute") else None,
        models_at_once=backend.models_at_once if backend.HasField("models_at_once") else None,
        weight=backend.weight_milli / 1000 if backend.weight_milli else None,
        facts={model.name: _read_model(model) for model in backend.models},
    )


def _read_drain(backend: registry_pb2.Backend, clock: Clock) -> Drain:
    is_lasting = backend.HasField("maintenance_until_us") or backend.health_cause == STOPPED
    if not backend.HasField("drain_deadline_us"):
        return Drain(is_lasting=is_lasting)
    left_s = backend.drain_deadline_us / 1_000_000 - clock.now()
    return Drain(clock.monotonic() + left_s, backend.drain_forced, is_lasting)


def _read_model(model: registry_pb2.BackendModel) -> ModelFacts:
    return ModelFacts(
        slots=model.slots if model.HasField("slots") else None,
        is_loaded=model.loaded if model.HasField("loaded") else None,
        size_bytes=model.size_bytes if model.HasField("size_bytes") else None,
    )


def _on_our_clock(at_us: int, clock: Clock) -> float:
    """A moment of another host's wall clock. One that claims to lie ahead is now."""
    return clock.monotonic() - max(0.0, clock.now() - at_us / 1_000_000)


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
