"""The scheduler's targets that come from the simulator: each function runs its workloads and returns what was measured.

`python benchmarks/scheduler_simulated.py [--short]` prints them. The whole of it takes some minutes on two cores; the short
form, for a quick look and for CI, draws fewer seeds and shorter workloads. A real trace is used where FOREBAY_TRACES names a
folder with `mooncake_conversation.jsonl`; without it the generator that was fitted to it, and the text says so."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.targets import Target, tell
from forebay_scheduler.simulator.comparing import Question, ask_all
from forebay_scheduler.simulator.measures import Figures

SEEDS = 16
SHORT_SEEDS = 4
_VTC = "VTC charges whole prompts, as its authors' code does; one that knew what is cached had a smaller gap than ours"
_PROCESSES = max(1, min(4, os.cpu_count() or 1))


def simulated(*, short: bool = False) -> list[Target]:
    """All of them."""
    return [
        *arena(short=short),
        *shares_by_weight(short=short),
        *short_and_long(short=short),
        *overload(short=short),
        *locality(short=short),
        *conversation(short=short),
        *unknown_limit(short=short),
        *newcomer(short=short),
    ]


# --- whose turn it is ---------------------------------------------------------------------------------------------------


def arena(*, short: bool = False) -> list[Target]:
    """27 users, more than one engine can serve (W1)."""
    seeds = SHORT_SEEDS if short else SEEDS
    by_policy = _figures("arena", ("forebay", "vtc", "wdrr", "fcfs"), seeds)
    ours = by_policy["forebay"]
    gap, vtc, wdrr = (_mean(by_policy[policy], "gap") for policy in ("forebay", "vtc", "wdrr"))
    how = f"27-user arena workload, mean of {seeds} seeds: {gap:,.0f}"
    throughput = _mean(ours, "tokens_per_s") / _mean(by_policy["fcfs"], "tokens_per_s")
    return [
        Target("arena_gap_of_vtc", gap / vtc, 0.65, "at most", "", f"{how} against VTC's {vtc:,.0f}"),
        Target("arena_gap_of_wdrr", gap / wdrr, 0.25, "at most", "", f"{how} against the deficit rule's {wdrr:,.0f}"),
        Target(
            "arena_share_gap_of_vtc",
            _mean(ours, "share_gap_max") / _mean(by_policy["vtc"], "share_gap_max"),
            0.9,
            "at most",
            "",
            "the largest difference as VTC's authors count it",
        ),
        Target(
            "arena_jain", _mean(ours, "jain"), 0.99, "at least", "", "over 60 s, among users with a backlog throughout"
        ),
        Target(
            "arena_light_ttft_p50_s", _mean(ours, "light_ttft_p50"), 0.25, "at most", "s", "users below half the mean"
        ),
        Target("arena_throughput_of_fcfs", throughput, 0.995, "at least", "", "prompt and output tokens a second"),
        *_sound(ours, "arena"),
    ]


def shares_by_weight(*, short: bool = False) -> list[Target]:
    """Weights 1:2:3:4 (W3)."""
    ours = _figures("weighted", ("forebay",), SHORT_SEEDS if short else SEEDS)["forebay"]
    return [
        Target("weighted_jain", _mean(ours, "jain"), 0.998, "at least", "", "four users with weights 1:2:3:4"),
        Target("weighted_gap", _mean(ours, "gap"), 2000, "at most", "tokens", "by weight"),
    ]


def short_and_long(*, short: bool = False) -> list[Target]:
    """Many short requests against fewer long ones (W2)."""
    ours = _figures("short_long", ("forebay",), 2 if short else SEEDS // 2)["forebay"]
    return [
        Target("short_long_gap", _mean(ours, "gap"), 3500, "at most", "tokens", "64/64 at 8/s against 256/256 at 1.5/s")
    ]


def overload(*, short: bool = False) -> list[Target]:
    """Two users, and eight, who ask for far more than there is."""
    seeds = 2 if short else SEEDS // 2
    two = _figures("overload_two", ("forebay",), seeds)["forebay"]
    eight = _figures("overload_eight", ("forebay",), seeds)["forebay"]
    return [
        Target("overload_two_gap", _mean(two, "gap"), 3000, "at most", "tokens", "two users, 256/256"),
        Target("overload_eight_gap", _mean(eight, "gap"), 2000, "at most", "tokens", "eight users, 256/256"),
    ]


def newcomer(*, short: bool = False) -> list[Target]:
    """A light user comes while a heavy one fills the engine (W4)."""
    ours = _figures("newcomer", ("forebay",), 2 if short else SEEDS // 2)["forebay"]
    how = "first token of a light user who comes while another fills the engine"
    return [Target("newcomer_ttft_p50_s", _mean(ours, "light_ttft_p50"), 0.5, "at most", "s", how)]


def locality(*, short: bool = False) -> list[Target]:
    """32 users with own system prompts on four engines (W7)."""
    seeds = 1 if short else 4
    by_policy = _figures("locality", ("forebay", "vtc", "prefix_only"), seeds)
    ours, vtc, greedy = (by_policy[policy] for policy in ("forebay", "vtc", "prefix_only"))
    gap = _mean(ours, "gap") / _mean(vtc, "gap")
    return [
        Target("locality_hit_rate", _mean(ours, "hit_rate"), 0.80, "at least", "", "32 users' 3k-token system prompts"),
        Target("locality_gap_of_vtc", gap, 0.8, "at most", "", f"{_mean(ours, 'gap'):,.0f} tokens; {_VTC}"),
        Target(
            "locality_hit_of_longest_prefix",
            _mean(ours, "hit_rate") / _mean(greedy, "hit_rate"),
            0.98,
            "at least",
            "",
            "against always taking the longest cached prefix",
        ),
        Target(
            "locality_throughput_of_vtc",
            _mean(ours, "tokens_per_s") / _mean(vtc, "tokens_per_s"),
            1.01,
            "at least",
            "",
            "prompt and output tokens a second",
        ),
    ]


# --- where it goes ------------------------------------------------------------------------------------------------------


def conversation(*, short: bool = False) -> list[Target]:
    """Mooncake's conversations at 1.25 times their rate on eight engines, and with two slow ones (W6)."""
    traces = os.environ.get("FOREBAY_TRACES", "")
    file = Path(traces) / "mooncake_conversation.jsonl"
    if traces and file.exists():
        even, how = str(file), "the Mooncake conversation trace"
    else:
        even, how = "conversation", "generated: fitted to Mooncake's conversation trace"
    rivals = ("llm_d", "dynamo") if short else ("llm_d", "dynamo", "least_loaded", "round_robin")
    seeds = 1 if short else 3  # of a trace too: rules draw lots between equals
    by_policy = _figures(even, ("forebay", *rivals), seeds, rate=1.25)
    ours = by_policy["forebay"]
    best = {figure: min(_mean(by_policy[rival], figure) for rival in rivals) for figure in ("ttft_mean", "ttft_p99")}
    mean, p99 = _mean(ours, "ttft_mean"), _mean(ours, "ttft_p99")
    others = ", ".join(f"{rival} {_mean(by_policy[rival], 'ttft_mean'):.2f}" for rival in rivals)
    targets = [
        Target("conversation_ttft_mean_s", mean, 2.6, "at most", "s", f"{how} × 1.25; {others}"),
        Target("conversation_ttft_p99_s", p99, 23, "at most", "s", f"{how}; the best other {best['ttft_p99']:.1f}"),
        Target(
            "conversation_mean_of_best_other", mean / best["ttft_mean"], 1.0, "at most", "", "ahead of every other rule"
        ),
        Target(
            "conversation_p99_of_best_other", p99 / best["ttft_p99"], 1.0, "at most", "", "ahead of every other rule"
        ),
    ]
    if not short:
        slow = _figures(even, ("forebay",), seeds, rate=1.0, is_uneven=True)["forebay"]
        how = f"{how}, two of eight engines 2.5 times slower"
        targets.append(Target("uneven_ttft_mean_s", _mean(slow, "ttft_mean"), 2.6, "at most", "s", how))
    return targets


def unknown_limit(*, short: bool = False) -> list[Target]:
    """An engine that does not tell how much it takes at once: what we find by feeling against the best fixed limit."""
    seeds = 2 if short else 6
    fixed = (24, 48) if short else (8, 16, 24, 32, 48, 64, 96)
    found = _figures("unknown_limit", ("forebay",), seeds)["forebay"]
    best = max(
        _mean(_figures("unknown_limit", (f"fixed_{limit}",), seeds)[f"fixed_{limit}"], "tokens_per_s")
        for limit in fixed
    )
    share = _mean(found, "tokens_per_s") / best
    how = f"mean of {seeds} seeds; the best fixed limit gives {best:,.0f} tokens/s"
    return [
        Target("unknown_limit_throughput", share, 0.95, "at least", "", how),
        Target("unknown_limit_wait_p50_s", _mean(found, "engine_wait_p50"), 0.1, "at most", "s", "inside the engine"),
        Target("unknown_limit_wait_p99_s", _mean(found, "engine_wait_p99"), 7.0, "at most", "s", "inside the engine"),
    ]


# --- asking -------------------------------------------------------------------------------------------------------------


def _figures(
    workload: str,
    policies: Sequence[str],
    seeds: int,
    *,
    rate: float | None = None,
    is_uneven: bool = False,
) -> dict[str, list[Figures]]:
    questions = [
        Question(workload, policy, seed, rate, is_uneven=is_uneven) for policy in policies for seed in range(seeds)
    ]
    answers = dict(ask_all(questions, _PROCESSES))
    return {policy: [answers[one] for one in questions if one.policy == policy] for policy in policies}


def _mean(figures: Sequence[Figures], name: str) -> float:
    return statistics.fmean(getattr(one, name) for one in figures)


def _sound(figures: Sequence[Figures], name: str) -> list[Target]:
    idle = sum(one.idle_while_waiting_s for one in figures)
    over = max(one.most_over_capacity for one in figures)
    return [
        Target(
            f"{name}_idle_while_waiting_s", idle, 0.0, "at most", "s", "engines idle while something waited that fits"
        ),
        Target(f"{name}_over_capacity", over, 0.0, "at most", "", "in an engine's batch beyond what it takes"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer seeds")
    names: dict[str, Callable[..., list[Target]]] = {
        one.__name__: one
        for one in (arena, shares_by_weight, short_and_long, overload, newcomer, locality, conversation, unknown_limit)
    }
    parser.add_argument("only", nargs="*", choices=[*names, []], help="some of them")
    told = parser.parse_args()
    chosen = [names[name] for name in told.only] or list(names.values())
    tell("scheduler_simulated", [target for one in chosen for target in one(short=told.short)])


if __name__ == "__main__":
    main()
