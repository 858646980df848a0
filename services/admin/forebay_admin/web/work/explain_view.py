"""The decision behind a request, told as a story: what happened when, which backends were considered and what each
would have cost, and what the ledger keeps of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from forebay.wire.v1 import admin_pb2, prices_pb2, scheduler_pb2, usage_pb2
from forebay_admin.json_form import word
from forebay_admin.web import words
from forebay_admin.web.work.refusals import Advice, advice

TERMS = (
    ("wait_s", "Wait", "Until it has room there."),
    ("load_model_s", "Load", "Until the model is in memory."),
    ("prefill_s", "Prefill", "Reading the prompt, less what is in the cache."),
    ("slow_decode_s", "Slowdown", "How full it is: answers that would come slower than they should."),
    ("failure_s", "Failures", "What is feared of a backend that failed lately."),
    ("guard_s", "Guard", "Reading that delays those who come next, and use by others than Forebay."),
)
"""What a backend's score is made of: field, title, meaning."""
_COUNTED = {"engine": "the engine", "counted": "the pieces that went through", "estimated": "an estimate"}
_TONES = {
    "waiting": "info",
    "running": "info",
    "ended": "good",
    "finished": "good",
    "refused": "bad",
    "failed": "bad",
    "gateway_lost": "bad",
    "cancelled": "warn",
}


@dataclass(frozen=True, slots=True)
class Step:
    after_s: float | None
    """Since it arrived; None: not known, or not worth telling."""
    title: str
    text: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    backend: str
    is_chosen: bool
    total_s: float
    terms_s: tuple[float, ...]
    """By TERMS."""
    cached_tokens: int
    free_slots: int


@dataclass(frozen=True, slots=True)
class Choice:
    """One attempt's candidates."""

    number: int
    backend: str
    policy: str
    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class Story:
    request_id: str
    ledger_id: str
    state: str
    tone: str
    reason: str
    advice: Advice | None
    user: str
    user_is_known: bool
    key_id: str
    groups: tuple[str, ...]
    model: str
    pool: str
    band: str
    width: int
    prompt_tokens: int
    arrived_at: float
    """Unix seconds; 0: not known."""
    due: float | None
    """While it waits."""
    ahead: int
    waits_for: tuple[str, ...]
    steps: tuple[Step, ...]
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the ledger."""

    ledger_id: str
    request_id: str
    outcome: str
    tone: str
    reason: str
    advice: Advice | None
    cost_micros: int | None
    unbilled: str
    why_unbilled: str
    price: str
    facts: tuple[tuple[str, str], ...]
    started_at: float


def stories_of(told: admin_pb2.ViewExplanationResponse) -> list[Story]:
    """The newest first: clients may use a request id twice."""
    return [_story(one, told.names) for one in told.explanations]


def entries_of(told: prices_pb2.ShowCostResponse, names: admin_pb2.Names) -> list[Entry]:
    return [_entry(cost, names) for cost in told.costs]


def tone_of(state: str) -> str:
    return _TONES.get(state, "")


def _story(one: scheduler_pb2.Explanation, names: admin_pb2.Names) -> Story:
    is_waiting = one.state == "waiting"
    return Story(
        request_id=one.request_id,
        ledger_id=words.id_of(one.ledger_id),
        state=one.state,
        tone=tone_of(one.state),
        reason=one.reason,
        advice=advice(one.reason),
        user=names.users.get(one.user_id, one.user_id) or "nobody",
        user_is_known=one.user_id in names.users,
        key_id=one.key_id,
        groups=tuple(names.groups.get(group, group) for group in one.groups),
        model=one.model,
        pool=one.pool or "default",
        band=word(one, "band") or "standard",
        width=one.width,
        prompt_tokens=one.prompt_tokens,
        arrived_at=one.arrived_at_us / 1_000_000,
        due=one.due if is_waiting else None,
        ahead=one.ahead if is_waiting else 0,
        waits_for=tuple(one.blocked_by) if is_waiting else (),
        steps=tuple(_steps(one, names)),
        choices=tuple(_choices(one, names)),
    )


def _steps(one: scheduler_pb2.Explanation, names: admin_pb2.Names) -> Iterator[Step]:
    foreseen = ""
    if one.predicted_wait_ms:
        foreseen = f"It was expected to wait {_ms(one.predicted_wait_ms)}"
        foreseen += f", and never longer than {_ms(one.wait_bound_ms)}." if one.wait_bound_ms else "."
    yield Step(0.0, f"It came to {one.gateway or 'a gateway'}", foreseen)
    for attempt in one.attempts:
        yield from _attempt_steps(attempt, names)
    if one.state == "waiting":
        text = f"{words.plural(one.ahead, 'request')} of the same key first." if one.ahead else ""
        yield Step(one.waited_ms / 1000, "It waits", text, "info")
    elif not one.attempts:
        after_s = one.waited_ms / 1000 if one.waited_ms else None
        yield Step(after_s, f"It was {one.state}, without having been placed", one.reason, tone_of(one.state))
    elif one.state not in ("running", "ended"):
        yield Step(None, f"It is {one.state}", one.reason, tone_of(one.state))


def _attempt_steps(attempt: scheduler_pb2.Attempt, names: admin_pb2.Names) -> Iterator[Step]:
    backend = names.backends.get(attempt.backend_id, attempt.backend_id)
    queued_s = attempt.queued_ms / 1000
    cached = (
        f"{attempt.cached_tokens:,} tokens of its prompt were believed to be cached there."
        if attempt.cached_tokens
        else ""
    )
    if attempt.on_credit:
        yield Step(
            queued_s,
            f"Attempt {attempt.number}: its gateway began it on {backend}",
            "On a slot that was lent to it ahead.",
        )
    elif attempt.policy:
        yield Step(queued_s, f"Attempt {attempt.number}: placed on {backend} by {attempt.policy}", cached)
    else:
        text = "By a leader before this one, or by its gateway while none led."
        yield Step(None, f"Attempt {attempt.number}: it was on {backend} already", text)
    if attempt.passed_over_tokens > 0:
        ahead = f"It was {round(attempt.passed_over_tokens):,} tokens ahead of the least served."
        yield Step(None, "It went before its turn, for its cached prefix", ahead)
    if attempt.HasField("ttft_ms"):
        text, tone = _against(attempt)
        yield Step(queued_s + attempt.ttft_ms / 1000, f"Its first token came {_ms(attempt.ttft_ms)} later", text, tone)
    elif attempt.predicted_ttft_ms and not attempt.end:
        yield Step(None, f"Its first token is expected {_ms(attempt.predicted_ttft_ms)} after that", "", "info")
    if attempt.end or attempt.HasField("settled_milli"):
        # Whatever is none of these words is why it was placed again.
        tone = tone_of(attempt.end) or ("warn" if attempt.end else "good")
        yield Step(None, f"The attempt ended: {attempt.end or 'ended'}", _cost(attempt), tone)


def _against(attempt: scheduler_pb2.Attempt) -> tuple[str, str]:
    if not attempt.predicted_ttft_ms:
        return "", "good"
    late_ms = attempt.ttft_ms - attempt.predicted_ttft_ms
    if not late_ms:
        return "As expected.", "good"
    how = "later" if late_ms > 0 else "sooner"
    # Twice what was foreseen is worth a look; a few milliseconds are not.
    tone = "warn" if late_ms > max(attempt.predicted_ttft_ms, 500) else "good"
    return f"{_ms(abs(late_ms))} {how} than the {_ms(attempt.predicted_ttft_ms)} that were expected.", tone


def _cost(attempt: scheduler_pb2.Attempt) -> str:
    reserved = f"{round(attempt.reserved_milli / 1000):,} weighted tokens were reserved"
    if attempt.HasField("settled_milli"):
        return f"{reserved}, {round(attempt.settled_milli / 1000):,} charged."
    return f"{reserved}." if attempt.reserved_milli else ""


def _choices(one: scheduler_pb2.Explanation, names: admin_pb2.Names) -> Iterator[Choice]:
    for attempt in one.attempts:
        if not attempt.candidates:
            continue
        scores = tuple(
            Score(
                backend=names.backends.get(candidate.backend_id, candidate.backend_id),
                is_chosen=candidate.backend_id == attempt.backend_id,
                total_s=candidate.total_s,
                terms_s=tuple(getattr(candidate, field) for field, _, _ in TERMS),
                cached_tokens=candidate.cached_tokens,
                free_slots=candidate.free_slots,
            )
            for candidate in sorted(attempt.candidates, key=lambda c: c.total_s)
        )
        backend = names.backends.get(attempt.backend_id, attempt.backend_id)
        yield Choice(attempt.number, backend, attempt.policy or "its gateway", scores)


def _entry(cost: prices_pb2.RequestCost, names: admin_pb2.Names) -> Entry:
    record = cost.record
    outcome = word(record, "outcome") or "unknown"
    return Entry(
        ledger_id=words.id_of(record.ledger_id),
        request_id=record.request_id,
        outcome=outcome,
        tone=tone_of(outcome),
        reason=record.reason,
        advice=advice(record.reason),
        cost_micros=record.cost_micros if record.HasField("cost_micros") else None,
        unbilled=record.unbilled,
        why_unbilled=cost.why,
        price=f"{cost.price.model}, version {cost.price.id}" if cost.HasField("price") else "",
        facts=tuple(_facts(record, names)),
        started_at=record.started_at_us / 1_000_000,
    )


def _facts(record: usage_pb2.UsageRecord, names: admin_pb2.Names) -> Iterator[tuple[str, str]]:
    usage = record.usage
    yield "User", names.users.get(record.user_id, record.user_id) or "nobody"
    yield "Key", record.key_id
    asked = record.model_requested
    yield "Model", record.model if asked in ("", record.model) else f"{record.model or 'none'} (asked for: {asked})"
    yield "Pool", record.pool
    yield "Backend", names.backends.get(record.backend_id, record.backend_id)
    yield "Gateway", record.gateway
    yield "Address", f"{record.route}{', streamed' if record.stream else ''}" if record.route else ""
    yield "Status", str(record.http_status) if record.http_status else "the client saw none"
    yield "Waited", _ms(record.queue_ms)
    yield "First token", _ms(record.ttft_ms) if record.HasField("ttft_ms") else ""
    yield "Took", _ms(record.duration_ms)
    yield "Attempts", str(record.attempts)
    cached = f", {usage.cached_prompt_tokens:,} of them cached" if usage.cached_prompt_tokens else ""
    yield "Prompt", f"{usage.prompt_tokens:,} tokens{cached}"
    yield "Answer", f"{usage.completion_tokens:,} tokens"
    if source := word(usage, "source"):
        yield (
            "Counted by",
            _COUNTED.get(source, source),
        )


def _ms(ms: float) -> str:
    return words.span(ms / 1000)
