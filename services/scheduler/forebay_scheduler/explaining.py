"""One request's story, for whoever asks: why it waited, why it went where it went, and how well that was foreseen."""

from __future__ import annotations

from forebay.wire.v1 import scheduler_pb2
from forebay_scheduler import wire
from forebay_scheduler.decision_log import Attempt, Story
from forebay_scheduler.inquiry import wait_bound_s, why_waiting
from forebay_scheduler.policy import Policy
from forebay_scheduler.request import LedgerId
from forebay_scheduler.standing import BANDS


def find(policy: Policy, request_id: str, ledger_id: bytes) -> list[Story]:
    """Newest first; a request id may also be a ledger id in hex."""
    log = policy.dispatch.log
    if ledger_id:
        story = log.get(LedgerId(ledger_id))
        return [] if story is None else [story]
    named = log.named(request_id)
    if not named:
        try:
            story = log.get(LedgerId(bytes.fromhex(request_id.replace("-", ""))))
        except ValueError:
            return []
        return [] if story is None else [story]
    return named


def explain(policy: Policy, story: Story, now: float) -> scheduler_pb2.Explanation:
    request, dispatch = story.request, policy.dispatch
    told = scheduler_pb2.Explanation(
        ledger_id=request.ledger_id,
        request_id=request.request_id,
        pool=request.pool,
        model=request.model,
        user_id=request.user,
        key_id=request.key,
        groups=dispatch.shares.groups_of(request),
        band=BANDS[request.band],
        width=request.width,
        prompt_tokens=request.prompt_tokens,
        state=story.state,
        reason=story.reason,
        arrived_at_us=request.started_at_us,
        gateway=story.gateway,
        predicted_wait_ms=wire.wait_ms(story.predicted_wait_s),
    )
    if story.attempts:
        told.waited_ms = max(0, round(story.attempts[0].queued_s * 1000))
    elif story.state == "waiting":
        told.waited_ms = max(0, round((now - request.arrived_at) * 1000))
    if story.state == "waiting":
        line = dispatch.queues.line(request.pool)
        told.due = line.queue.due(request)
        told.ahead = max(0, line.queue.standing(request).place - 1)
        told.wait_bound_ms = wire.wait_ms(wait_bound_s(dispatch, line, request))
        told.blocked_by.extend(why_waiting(dispatch, request))
    for attempt in story.attempts:
        _add_attempt(told, attempt)
    return told


def _add_attempt(told: scheduler_pb2.Explanation, attempt: Attempt) -> None:
    one = told.attempts.add(
        number=attempt.number,
        backend_id=attempt.backend,
        queued_ms=max(0, round(attempt.queued_s * 1000)),
        reserved_milli=max(0, attempt.reserved),
        end=attempt.end,
        on_credit=attempt.is_on_credit,
        passed_over_tokens=attempt.ahead,
    )
    if attempt.settled is not None:
        one.settled_milli = max(0, attempt.settled)
    if attempt.ttft_s is not None:
        one.ttft_ms = max(0, round(attempt.ttft_s * 1000))
    choice = attempt.choice
    if choice is None:
        return
    one.policy = choice.policy
    one.predicted_ttft_ms = max(0, round(choice.ttft_s * 1000))
    one.cached_tokens = choice.cached_tokens
    for candidate in sorted(choice.candidates, key=lambda candidate: candidate.total_s):
        one.candidates.add(
            backend_id=candidate.backend,
            total_s=candidate.total_s,
            wait_s=candidate.wait_s,
            load_model_s=candidate.load_model_s,
            prefill_s=candidate.prefill_s,
            slow_decode_s=candidate.slow_decode_s,
            failure_s=candidate.failure_s,
            guard_s=candidate.guard_s,
            cached_tokens=candidate.cached_tokens,
            free_slots=max(0, candidate.free_slots),
        )
