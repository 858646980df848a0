"""What a run says: fairness, latency, throughput and cache hits, as numbers that can be compared between disciplines."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from operator import sub

from forebay_scheduler.simulator.jobs import Job, Workload
from forebay_scheduler.simulator.running import Run
from forebay_scheduler.simulator.service_record import ServiceRecord

NOT_MEASURED = float("nan")
_JAIN_WINDOW_S = 60.0
_SHARE_WINDOW_S = 60.0
_TTFT_GOAL_S = 2.0
_TPOT_GOAL_S = 0.1


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run. Seconds, tokens, shares from 0 to 1; nan where a workload has nothing to measure."""

    gap: float = NOT_MEASURED
    """The largest |ΔW_f/w_f − ΔW_g/w_g| over pairs of users and over intervals in which both have a backlog."""
    gap_of_bound: float = NOT_MEASURED
    """As a share of 2·max(w_p·L, w_q·M), which VTC proves for two users with a backlog."""
    share_gap_max: float = NOT_MEASURED
    """How far users lie behind the best served one, as far as their own demand explains it, summed over users, a second, in
    windows of 60 s (as VTC's authors count it): the largest."""
    share_gap_mean: float = NOT_MEASURED
    jain: float = NOT_MEASURED
    """Mean of Jain's index over windows of 60 s, among those with a backlog throughout."""
    jain_least: float = NOT_MEASURED
    ttft_mean: float = NOT_MEASURED
    ttft_p50: float = NOT_MEASURED
    ttft_p90: float = NOT_MEASURED
    ttft_p99: float = NOT_MEASURED
    light_ttft_p50: float = NOT_MEASURED
    """Of users who ask for less than half the mean."""
    light_ttft_p99: float = NOT_MEASURED
    tokens_per_s: float = NOT_MEASURED
    """Prompt and output."""
    goodput: float = NOT_MEASURED
    """The share of requests with their first token within 2 s and each further one within 0.1 s, on average."""
    hit_rate: float = NOT_MEASURED
    """Cached prompt tokens of all prompt tokens."""
    engine_wait_p50: float = NOT_MEASURED
    """Between being sent to an engine and its beginning."""
    engine_wait_p99: float = NOT_MEASURED
    idle_while_waiting_s: float = 0.0
    """Engine-seconds idle while something waited: work that was not conserved."""
    most_over_capacity: int = 0
    """Jobs in an engine's batch beyond what it takes at once."""
    failed: int = 0

    def as_dict(self) -> dict[str, float]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def measure(run: Run) -> Figures:
    jobs = [job for job in run.jobs if job.ended_at < float("inf")]
    if not jobs:
        return Figures()
    served = [job for job in jobs if not job.is_failed]
    ttft = sorted(job.ttft_s for job in served)
    waits = sorted(job.started_at - job.granted_at for job in served)
    figures: dict[str, float] = {
        "ttft_mean": statistics.fmean(ttft),
        "ttft_p50": quantile(ttft, 0.5),
        "ttft_p90": quantile(ttft, 0.9),
        "ttft_p99": quantile(ttft, 0.99),
        "tokens_per_s": sum(job.prompt_tokens + job.output_tokens for job in served)
        / (max(job.ended_at for job in jobs) - jobs[0].arrives_at),
        "goodput": sum(_is_good(job) for job in served) / len(jobs),
        "hit_rate": sum(job.cached_tokens for job in served) / max(1, sum(job.prompt_tokens for job in served)),
        "engine_wait_p50": quantile(waits, 0.5),
        "engine_wait_p99": quantile(waits, 0.99),
        "idle_while_waiting_s": run.idle_while_waiting_s,
    }
    if run.record is not None:
        figures |= _fairness(run, run.record, served)
    over = max((engine.most_at_once - engine.model.max_sequences for engine in run.engines), default=0)
    return Figures(**figures, most_over_capacity=max(0, over), failed=len(jobs) - len(served))


def quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else NOT_MEASURED


def _is_good(job: Job) -> bool:
    written = max(1, job.output_tokens - 1)
    return job.ttft_s <= _TTFT_GOAL_S and (job.ended_at - job.first_token_at) / written <= _TPOT_GOAL_S


def light_users(workload: Workload) -> set[int]:
    asked = [0.0] * workload.users
    for job in workload.jobs:
        asked[job.user] += workload.cost.of(job)
    asking = [amount for amount in asked if amount]
    limit = statistics.fmean(asking) / 2
    return {user for user, amount in enumerate(asked) if 0 < amount < limit}


def _fairness(run: Run, record: ServiceRecord, served: Sequence[Job]) -> dict[str, float]:
    workload = run.workload
    gap = max((high - low for _, _, low, high in _pair_ranges(workload, record)), default=0.0)
    indices = [_jain(shares) for shares in _windows(workload, record) if len(shares) > 1]
    light = light_users(workload)
    light_ttft = sorted(job.ttft_s for job in served if job.user in light)
    gaps = _share_gaps(run)
    pool = sum(engine.model.kv_tokens or 0 for engine in run.engines)
    bound = 2 * max(workload.cost.prompt * max(job.prompt_tokens for job in run.jobs), workload.cost.output * pool, 1.0)
    return {
        "gap": gap,
        "gap_of_bound": gap / bound,
        "share_gap_max": max(gaps, default=NOT_MEASURED),
        "share_gap_mean": statistics.fmean(gaps) if gaps else NOT_MEASURED,
        "jain": statistics.fmean(indices) if indices else NOT_MEASURED,
        "jain_least": min(indices, default=NOT_MEASURED),
        "light_ttft_p50": quantile(light_ttft, 0.5),
        "light_ttft_p99": quantile(light_ttft, 0.99),
    }


def _pair_ranges(workload: Workload, record: ServiceRecord) -> Iterator[tuple[int, int, float, float]]:
    """For each pair and each time in which both have a backlog: how far the difference of what they got, by weight, ranges.

    That is the largest difference over any interval within it."""
    columns = [
        list(column) if workload.weight(user) == 1 else [value / workload.weight(user) for value in column]
        for user, column in enumerate(zip(*record.rows, strict=True))
    ]
    for one, other in itertools.combinations(range(workload.users), 2):
        for first, last in _both(record.backlogs[one], record.backlogs[other]):
            end = last + 1
            difference = list(map(sub, columns[one][first:end], columns[other][first:end]))
            yield one, other, min(difference), max(difference)


def _both(one: Sequence[tuple[int, int]], other: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Where two ordered lists of intervals overlap in more than a point."""
    left = right = 0
    while left < len(one) and right < len(other):
        first, last = max(one[left][0], other[right][0]), min(one[left][1], other[right][1])
        if first < last:
            yield first, last
        if one[left][1] < other[right][1]:
            left += 1
        else:
            right += 1


def widest_pair(run: Run) -> tuple[int, int] | None:
    """The two users between whom the gap was largest."""
    if run.record is None:
        return None
    pairs = [(high - low, one, other) for one, other, low, high in _pair_ranges(run.workload, run.record)]
    return max(pairs)[1:] if pairs else None


def gap_over_time(run: Run, points: int = 300) -> tuple[list[float], list[float]]:
    """Times, and the largest difference of service by weight between any two who have a backlog, since both have had it."""
    record = run.record
    assert record is not None, "a workload without users has no gaps"
    scale = [1 / run.workload.weight(user) for user in range(run.workload.users)]
    rows, count = record.rows, len(record.rows)
    times = []
    gaps = []
    cursor = [0] * run.workload.users
    for row in range(0, count, max(1, count // points)):
        now = []
        for user, intervals in enumerate(record.backlogs):
            while cursor[user] < len(intervals) and intervals[cursor[user]][1] < row:
                cursor[user] += 1
            if cursor[user] < len(intervals) and intervals[cursor[user]][0] <= row:
                now.append((user, intervals[cursor[user]][0]))
        widest = 0.0
        for (one, since_one), (other, since_other) in itertools.combinations(now, 2):
            since = max(since_one, since_other)
            got = (rows[row][one] - rows[since][one]) * scale[one] - (rows[row][other] - rows[since][other]) * scale[
                other
            ]
            widest = max(widest, abs(got))
        times.append(record.times[row])
        gaps.append(widest)
    return times, gaps


def _windows(workload: Workload, record: ServiceRecord) -> Iterator[list[float]]:
    """For each window: what each user with a backlog throughout was served, by weight."""
    bounds = [0]
    for row, at in enumerate(record.times):
        if at >= len(bounds) * _JAIN_WINDOW_S:
            bounds.append(row)
    for first, last in itertools.pairwise(bounds):
        yield [
            (record.rows[last][user] - record.rows[first][user]) / workload.weight(user)
            for user in range(workload.users)
            if any(begin <= first and end >= last for begin, end in record.backlogs[user])
        ]


def _jain(shares: Sequence[float]) -> float:
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def _share_gaps(run: Run) -> list[float]:
    """At 99 points: the sum over users of min(best served − own, asked − own), a second, in the 60 s around them."""
    workload = run.workload
    end = max(job.arrives_at for job in run.jobs) // 10 * 10
    half = _SHARE_WINDOW_S / 2
    gaps = []
    for point in range(1, 100):
        low, high = end * point / 100 - half, end * point / 100 + half
        got = [0.0] * workload.users
        asked = [0.0] * workload.users
        for job in run.jobs:
            cost = workload.cost.prompt * job.prompt_tokens + workload.cost.output * job.output_tokens
            if low <= job.arrives_at <= high:
                asked[job.user] += cost
            spent = job.ended_at - job.first_token_at
            if spent > 0 and job.ended_at < float("inf"):
                got[job.user] += cost * max(0.0, min(high, job.ended_at) - max(low, job.first_token_at)) / spent
        best = max(got)
        lags = [min(best - own, abs(want - own)) for own, want in zip(got, asked, strict=True)]
        gaps.append(sum(lags) / _SHARE_WINDOW_S)
    return gaps
