"""How much of its rate limits a key has left, in the headers that clients of OpenAI's and of Anthropic's read. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil


@dataclass(frozen=True, slots=True)
class RateStanding:
    """The tightest rate limits of a key, a minute, after the request that asked. None: not limited."""

    limit_requests: int | None = None
    remaining_requests: int = 0
    reset_requests_s: float = 0.0
    """Until all of it is there again."""
    limit_tokens: int | None = None
    remaining_tokens: int = 0
    reset_tokens_s: float = 0.0


def rate_headers(standing: RateStanding, now: float = 0.0) -> dict[str, str]:
    """OpenAI's. What is not limited has no headers. `now`: whenever it is."""
    headers = {}
    for what, limit, remaining, reset_s in _limits(standing):
        headers[f"x-ratelimit-limit-{what}"] = str(limit)
        headers[f"x-ratelimit-remaining-{what}"] = str(remaining)
        headers[f"x-ratelimit-reset-{what}"] = duration(reset_s)
    return headers


def anthropic_rate_headers(standing: RateStanding, now: float) -> dict[str, str]:
    """The same in Anthropic's words, in which a limit is whole again at a moment. `now`: seconds since the epoch."""
    headers = {}
    for what, limit, remaining, reset_s in _limits(standing):
        whole_at = datetime.fromtimestamp(ceil(now + reset_s), UTC)
        headers[f"anthropic-ratelimit-{what}-limit"] = str(limit)
        headers[f"anthropic-ratelimit-{what}-remaining"] = str(remaining)
        headers[f"anthropic-ratelimit-{what}-reset"] = whole_at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return headers


def _limits(standing: RateStanding) -> Iterator[tuple[str, int, int, float]]:
    """(of what, limit, what remains, seconds until it is whole again)."""
    if standing.limit_requests is not None:
        yield "requests", standing.limit_requests, standing.remaining_requests, standing.reset_requests_s
    if standing.limit_tokens is not None:
        yield "tokens", standing.limit_tokens, standing.remaining_tokens, standing.reset_tokens_s


def duration(seconds: float) -> str:
    """As OpenAI writes it, in the way of Go: `120ms`, `8.64s`, `6m0s`, `1h0m0s`."""
    ms = max(0, round(seconds * 1000))
    if ms < 1000:
        return f"{ms}ms"
    hours, ms = divmod(ms, 3_600_000)
    minutes, ms = divmod(ms, 60_000)
    text = f"{ms / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
