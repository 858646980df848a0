"""How much of its rate limits a key has left, in the headers that OpenAI's SDKs read. Pure."""

from __future__ import annotations

from dataclasses import dataclass


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


def rate_headers(standing: RateStanding) -> dict[str, str]:
    """What is not limited has no headers."""
    headers = {}
    for what, limit, remaining, reset_s in (
        ("requests", standing.limit_requests, standing.remaining_requests, standing.reset_requests_s),
        ("tokens", standing.limit_tokens, standing.remaining_tokens, standing.reset_tokens_s),
    ):
        if limit is not None:
            headers[f"x-ratelimit-limit-{what}"] = str(limit)
            headers[f"x-ratelimit-remaining-{what}"] = str(remaining)
            headers[f"x-ratelimit-reset-{what}"] = duration(reset_s)
    return headers


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
