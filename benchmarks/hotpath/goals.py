"""The targets of the hot path, from what was measured. Pure. One that could not be measured is not met, and says why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.hotpath.scenarios import BARE, DIRECT, LITELLM, OURS, WORKERS
from benchmarks.hotpath.summary import Middle, Summary
from benchmarks.targets import Target

_TRANSLATED = ("anthropic-to-openai", "ollama-to-openai", "openai-to-anthropic")


@dataclass(frozen=True, slots=True)
class Outage:
    """What clients saw while no scheduler was there."""

    seconds: float
    answers: int
    errors: int
    longest_silence_ms: float


@dataclass(frozen=True, slots=True)
class Grown:
    """What a request costs where there are so many."""

    what: str
    """Keys, backends, queued."""
    size: int
    us_per_answer: float
    of_smallest: float
    """Times the cost at the smallest size, measured in turns with it."""
    rss_mb: float


@dataclass(frozen=True, slots=True)
class RecordCost:
    """Microseconds of one request's record."""

    writing_us: float
    """Written and journalled when it opens and when it closes."""
    publishing_us: float
    """Taken from the journal, sent in batches, acknowledged."""


GROWN_AT_MOST = 1.5
"""Times the cost at the smallest size, with room for a noisy machine. A cost of which a thousandth grew with the number
would be ten times that."""


def targets(
    summary: Summary, *, outage: Outage | None, records: RecordCost | None, growth: Sequence[Grown] = ()
) -> list[Target]:
    return [
        *_requests(summary),
        *_streams(summary),
        *_bodies(summary),
        _outage(outage),
        _records(records),
        *_growth(summary, growth),
    ]


def _requests(summary: Summary) -> Iterator[Target]:
    plain = "plain64"
    for peer, limit in (("sglang-router", 1.0), (LITELLM, 110.0)):
        ratio, bare = (_ratio(_cost(summary, plain, peer), _cost(summary, plain, name)) for name in (OURS, BARE))
        how = "requests a core, 64 connections" + (f"; a key without limits: {bare:.3g} x" if bare else "")
        yield _target(
            f"plain_vs_{_word(peer)}",
            ratio,
            limit,
            "at least",
            "x",
            how,
            summary,
            (plain, peer),
        )
    added, nginx = _added(summary, "plain1", OURS), _added(summary, "plain1", "nginx")
    yield _target(
        "added_p50_vs_nginx",
        _ratio(added, nginx),
        2,
        "at most",
        "x",
        "of what nginx adds, one connection",
        summary,
        ("plain1", "nginx"),
    )
    yield _target(
        "added_p50_ms",
        _in_ms(added),
        0.2,
        "at most",
        "ms",
        "over no gateway, one connection",
        summary,
        ("plain1", DIRECT),
    )


def _streams(summary: Summary) -> Iterator[Target]:
    paced = "paced200"
    cost = _token_cost(summary, paced, OURS)
    for peer in ("sglang-router", "envoy"):
        ratio = _ratio(cost, _token_cost(summary, paced, peer))
        yield _target(
            f"token_cpu_vs_{_word(peer)}",
            ratio,
            1,
            "at most",
            "x",
            "200 streams, a token each 20 ms",
            summary,
            (paced, peer),
        )
    yield _target("token_cpu_us", cost, 30, "at most", "us", "the same, on this machine", summary, (paced, OURS))
    first = _minus(_of(summary, paced, OURS).first_p50_us, _of(summary, paced, DIRECT).first_p50_us)
    yield _target(
        "added_ttft_p50_ms",
        _in_ms(first),
        0.35,
        "at most",
        "ms",
        "over no gateway, 200 streams",
        summary,
        (paced, DIRECT),
    )
    memory = _of(summary, "memory1000", OURS).rss_mb
    yield _target(
        "rss_1000_streams_mb",
        memory,
        80,
        "at most",
        "MB",
        "a gateway just started",
        summary,
        ("memory1000", OURS),
    )
    yield from _many(summary)
    translated = [_ratio(_token_cost(summary, name, OURS), cost) for name in _TRANSLATED]
    worst = max((one for one in translated if one is not None), default=None)
    how = f"the dearest of {', '.join(_TRANSLATED)}, over bytes that pass"
    yield _target(
        "translated_vs_passed",
        worst if None not in translated else None,
        2,
        "at most",
        "x",
        how,
        summary,
        *((n, OURS) for n in _TRANSLATED),
    )


def _many(summary: Summary) -> Iterator[Target]:
    found = next((name for name, system in summary if system == WORKERS), "many")
    middle, count = _of(summary, found, WORKERS), found.removeprefix("many")
    how = f"{count} streams, a token each 750 ms, two processes on one core"
    key = (found, WORKERS)
    yield _target(
        "many_streams_broken", float(middle.errors) if middle.runs else None, 0, "at most", "", how, summary, key
    )
    yield _target("many_streams_transit_p99_ms", _in_ms(middle.transit_p99_us), 10, "at most", "ms", how, summary, key)
    yield _target("many_streams_rss_mb", middle.rss_mb, 250, "at most", "MB", how, summary, key)


def _bodies(summary: Summary) -> Iterator[Target]:
    ratio = _ratio(_cost(summary, "kb8", BARE), _cost(summary, "plain64", BARE))
    yield _target(
        "body_8kb_vs_300b",
        ratio,
        1.15,
        "at most",
        "x",
        "CPU a request, 64 connections, no limits",
        summary,
        ("kb8", BARE),
    )
    base, middling, large = (_cost(summary, f"body{size}", BARE) for size in (10, 100_000, 10_000_000))
    by_byte = _ratio(_minus(large, base), _minus(middling, base))
    linear = by_byte and by_byte / 100
    yield _target(
        "body_10mb_linear",
        linear,
        1.5,
        "at most",
        "x",
        "CPU for a byte of 10 MB over a byte of 100 kB, no limits",
        summary,
        ("body10000000", BARE),
    )


def _outage(outage: Outage | None) -> Target:
    if outage is None:
        return Target("without_scheduler_errors", None, 0, "at most", "", "not measured")
    how = (
        f"{outage.seconds:.0f} s without one, {outage.answers} answers, longest silence {outage.longest_silence_ms:.0f} ms,"
        " a key without limits"
    )
    return Target("without_scheduler_errors", float(outage.errors) if outage.answers else None, 0, "at most", "", how)


def _records(cost: RecordCost | None) -> Target:
    if cost is None:
        return Target("record_publishing_us", None, 5, "at most", "us", "not measured")
    how = f"in batches, acknowledged; writing and journalling it twice costs {cost.writing_us:.1f} us more"
    return Target("record_publishing_us", cost.publishing_us, 5, "at most", "us", how)


def _growth(summary: Summary, growth: Sequence[Grown]) -> Iterator[Target]:
    for what in ("keys", "backends", "queued"):
        steps = [step for step in growth if step.what == what]
        metric = f"growth_{what}"
        if len(steps) < 2:
            yield Target(metric, None, GROWN_AT_MOST, "at most", "x", "not measured")
            continue
        worst = max(steps[1:], key=lambda step: step.of_smallest)
        how = f"CPU a request with {worst.size:,}, the dearest of up to {steps[-1].size:,}, over {steps[0].size:,}"
        yield Target(metric, worst.of_smallest, GROWN_AT_MOST, "at most", "x", how)
    # Few streams cost more a token, since the gateway wakes for each: that is no growth.
    few, many = "streams100", "streams1000"
    ratio = _ratio(_token_cost(summary, many, OURS), _token_cost(summary, few, OURS))
    how = "CPU a token with 1,000 streams over 100"
    yield _target("growth_streams", ratio, GROWN_AT_MOST, "at most", "x", how, summary, (many, OURS), (few, OURS))


def _target(
    metric: str,
    value: float | None,
    limit: float,
    sense: Literal["at most", "at least"],
    unit: str,
    how: str,
    summary: Summary,
    *needed: tuple[str, str],
) -> Target:
    """With the reason in it where there is no value."""
    if value is not None:
        return Target(metric, value, limit, sense, unit, how)
    for key in (*needed, *((scenario, OURS) for scenario, _ in needed)):
        middle = summary.get(key)
        if middle is None:
            return Target(metric, None, limit, sense, unit, f"not measured: {key[1]} in {key[0]}")
        if not middle.is_valid:
            return Target(
                metric, None, limit, sense, unit, f"no good run of {key[1]} in {key[0]}: {middle.errors} errors"
            )
    return Target(metric, None, limit, sense, unit, "not measured")


def _of(summary: Summary, scenario: str, system: str) -> Middle:
    """One that has nothing to tell where nothing was measured."""
    return summary.get((scenario, system), Middle(0, 0))


def _cost(summary: Summary, scenario: str, system: str) -> float | None:
    return _of(summary, scenario, system).us_per_answer


def _token_cost(summary: Summary, scenario: str, system: str) -> float | None:
    return _of(summary, scenario, system).us_per_token


def _added(summary: Summary, scenario: str, system: str) -> float | None:
    return _minus(_of(summary, scenario, system).latency_p50_us, _of(summary, scenario, DIRECT).latency_p50_us)


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other


def _in_ms(us: float | None) -> float | None:
    return None if us is None else us / 1000


def _word(peer: str) -> str:
    return peer.replace("-", "_")
