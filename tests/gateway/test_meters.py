"""What is counted of requests that are over."""

from __future__ import annotations

from forebay.metrics import Metrics
from forebay_gateway.accounting import Entry, Outcome, Usage
from forebay_gateway.meters import make_meters


def ended(outcome: Outcome, reason: str = "", model: str = "llama3", attempts: int = 1) -> Entry:
    entry = Entry(bytes(16), "req-1", "/v1/chat/completions", 0.0, 0.0, model=model, attempts=attempts)
    entry.outcome, entry.reason, entry.duration_ms, entry.queue_ms = outcome, reason, 2000, 100
    entry.usage = Usage(10, 0, 5)
    entry.ttft_ms = 300 if outcome is Outcome.FINISHED else None
    return entry


def test_every_end_is_counted_by_what_it_was() -> None:
    metrics = Metrics()
    meters = make_meters(metrics)
    for _ in range(2):
        meters.note(ended(Outcome.FINISHED))
    meters.note(ended(Outcome.FINISHED, model="other"))
    meters.note(ended(Outcome.REFUSED, "not_allowed", model="made up", attempts=0))
    told = metrics.exposition().decode().splitlines()
    for line in (
        'forebay_gateway_requests_total{outcome="finished",reason="",route="/v1/chat/completions"} 3.0',
        'forebay_gateway_requests_total{outcome="refused",reason="not_allowed",route="/v1/chat/completions"} 1.0',
        'forebay_gateway_tokens_total{kind="prompt",model="llama3"} 20.0',
        'forebay_gateway_tokens_total{kind="completion",model="other"} 5.0',
        'forebay_gateway_duration_seconds_count{outcome="finished"} 3.0',
        'forebay_gateway_duration_seconds_sum{outcome="refused"} 2.0',
        "forebay_gateway_queue_seconds_count 3.0",
        "forebay_gateway_time_to_first_token_seconds_count 3.0",
    ):
        assert line in told
    assert not [line for line in told if "made up" in line], "names that clients make up are no series"
