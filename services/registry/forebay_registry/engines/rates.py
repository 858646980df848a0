"""What an engine did between two looks at its counters. Pure."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from forebay_registry.backend import Rates


@dataclass(frozen=True, slots=True)
class Counters:
    """Since the engine started; None is what it does not count."""

    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    looked_up_tokens: float | None = None
    """Of prompts, in the cache of their beginnings."""
    found_tokens: float | None = None
    preemptions: float | None = None
    ttft_sum_s: float | None = None
    ttft_count: float | None = None
    queue_sum_s: float | None = None
    queue_count: float | None = None


def has_restarted(before: Counters, now: Counters) -> bool:
    """A counter that went back began anew."""
    pairs = zip(astuple(before), astuple(now), strict=True)
    return any(old is not None and new is not None and new < old for old, new in pairs)


def rates_of(before: Counters, now: Counters, window_s: float) -> Rates | None:
    """None when nothing can be said: it started anew, no time has passed, or it counts nothing."""
    if window_s <= 0 or has_restarted(before, now):
        return None

    def per_s(old: float | None, new: float | None) -> float | None:
        return None if old is None or new is None else (new - old) / window_s

    def mean(old: float | None, new: float | None, old_count: float | None, new_count: float | None) -> float | None:
        if old is None or new is None or old_count is None or new_count is None or new_count <= old_count:
            return None
        return (new - old) / (new_count - old_count)

    hit = mean(before.found_tokens, now.found_tokens, before.looked_up_tokens, now.looked_up_tokens)
    rates = Rates(
        window_s=window_s,
        prompt_tokens_per_s=per_s(before.prompt_tokens, now.prompt_tokens),
        completion_tokens_per_s=per_s(before.completion_tokens, now.completion_tokens),
        prefix_hit_fraction=hit if hit is None else min(1.0, hit),
        preemptions_per_s=per_s(before.preemptions, now.preemptions),
        ttft_s=mean(before.ttft_sum_s, now.ttft_sum_s, before.ttft_count, now.ttft_count),
        queue_s=mean(before.queue_sum_s, now.queue_sum_s, before.queue_count, now.queue_count),
    )
    return rates if rates != Rates(window_s) else None
