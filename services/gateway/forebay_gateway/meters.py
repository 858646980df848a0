"""The gateway's metrics: plain numbers that the code adds to and a scrape reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from forebay.metrics import MOST_CHILDREN, Counter, Distribution, Histogram, Metrics, Number
from forebay_gateway.accounting import Entry, Outcome

_DURATION_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class _Ran(NamedTuple):
    queue_s: Distribution
    prompt: Number
    completion: Number


class _Ended(NamedTuple):
    requests: Number
    duration_s: Distribution
    ran: _Ran | None
    """None: it was never granted a slot."""


@dataclass(frozen=True, slots=True)
class Meters:
    requests: Counter
    tokens: Counter
    queue_s: Histogram
    ttft_s: Histogram
    duration_s: Histogram
    attempts_failed: Counter
    past_fence: Counter
    own_starts: Counter
    records_dropped: Counter
    other_models: Counter
    structured: Counter
    credential_faults: Counter
    _ended: dict[tuple[str, Outcome | None, str, str | None], _Ended] = field(default_factory=dict, init=False)
    """(route, outcome, reason, model if it ran) → what counts such a request, looked up once."""
    _first_token_s: Distribution = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_first_token_s", self.ttft_s.child())

    def note_credential(self, backend_id: str, label: str, fault: str) -> None:
        self.credential_faults.child(backend_id, label, fault).value += 1

    def note(self, entry: Entry) -> None:
        """One request that is over."""
        how = (entry.route, entry.outcome, entry.reason, entry.model if entry.attempts else None)
        ended = self._ended.get(how)
        if ended is None:
            ended = self._find(*how)
            if len(self._ended) < MOST_CHILDREN:
                self._ended[how] = ended
        ended.requests.value += 1
        ended.duration_s.observe(entry.duration_ms / 1000)
        if ended.ran is not None:
            queue_s, prompt, completion = ended.ran
            queue_s.observe(entry.queue_ms / 1000)
            prompt.value += entry.usage.prompt
            completion.value += entry.usage.completion
        if entry.ttft_ms is not None:
            self._first_token_s.observe(entry.ttft_ms / 1000)

    def _find(self, route: str, outcome: Outcome | None, reason: str, model: str | None) -> _Ended:
        word = str(outcome)
        ran = None
        if model is not None:
            tokens = self.tokens
            ran = _Ran(self.queue_s.child(), tokens.child(model, "prompt"), tokens.child(model, "completion"))
        return _Ended(self.requests.child(route, word, reason), self.duration_s.child(word), ran)


def make_meters(metrics: Metrics) -> Meters:
    return Meters(
        requests=metrics.counter("forebay_gateway_requests", "Requests that are over.", ("route", "outcome", "reason")),
        tokens=metrics.counter("forebay_gateway_tokens", "Tokens of requests that ran.", ("model", "kind")),
        queue_s=metrics.histogram("forebay_gateway_queue_seconds", "From arrival to the grant of a slot."),
        ttft_s=metrics.histogram(
            "forebay_gateway_time_to_first_token_seconds", "From arrival to the first byte of the answer."
        ),
        duration_s=metrics.histogram(
            "forebay_gateway_duration_seconds", "From arrival to the end.", ("outcome",), bounds=_DURATION_BUCKETS_S
        ),
        attempts_failed=metrics.counter(
            "forebay_gateway_attempts_failed", "Attempts that another backend had to take over.", ("blame",)
        ),
        past_fence=metrics.counter(
            "forebay_gateway_starts_past_fence", "Work started although the scheduler's leader may have changed."
        ),
        own_starts=metrics.counter(
            "forebay_gateway_starts_unasked",
            "Requests begun without asking: on a credit, or locally while no scheduler led.",
            ("by",),
        ),
        other_models=metrics.counter(
            "forebay_gateway_other_models", "Requests for which another model was asked, by why.", ("why",)
        ),
        records_dropped=metrics.counter(
            "forebay_gateway_records_dropped", "Records of refused requests for which the journal had no room."
        ),
        structured=metrics.counter(
            "forebay_gateway_structured_answers",
            "Answers that were held to the form asked for: kept, broken, asked_again, or unjudged where that took too long.",
            ("result",),
        ),
        credential_faults=metrics.counter(
            "forebay_gateway_credential_faults",
            "Rests that a credential was sent to by what its provider said.",
            ("backend", "label", "fault"),
        ),
    )
