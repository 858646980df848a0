"""What was measured, as tables for people and as plain values for programs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from forebay_scheduler.simulator.measures import Figures

_FAIRNESS = (
    ("gap", "gap", "{:,.0f}"),
    ("gap_of_bound", "of VTC's bound", "{:.3f}"),
    ("share_gap_max", "share gap max", "{:,.0f}"),
    ("share_gap_mean", "mean", "{:,.0f}"),
    ("jain", "Jain", "{:.4f}"),
    ("jain_least", "least", "{:.3f}"),
    ("light_ttft_p50", "light p50 s", "{:.2f}"),
    ("light_ttft_p99", "p99 s", "{:.1f}"),
    ("ttft_p50", "TTFT p50 s", "{:.2f}"),
    ("tokens_per_s", "tokens/s", "{:,.0f}"),
)
_PLACEMENT = (
    ("ttft_mean", "TTFT mean s", "{:.2f}"),
    ("ttft_p50", "p50", "{:.2f}"),
    ("ttft_p90", "p90", "{:.2f}"),
    ("ttft_p99", "p99", "{:.1f}"),
    ("hit_rate", "hit rate", "{:.3f}"),
    ("goodput", "goodput", "{:.3f}"),
    ("engine_wait_p50", "engine wait p50 s", "{:.2f}"),
    ("engine_wait_p99", "p99 s", "{:.2f}"),
    ("tokens_per_s", "tokens/s", "{:,.0f}"),
)
_CORRECTNESS = (
    ("idle_while_waiting_s", "idle while waiting s", "{:.2f}"),
    ("most_over_capacity", "over capacity", "{:.0f}"),
    ("failed", "failed", "{:.0f}"),
)


def tables(title: str, figures: Mapping[str, Sequence[Figures]], *, is_about_fairness: bool) -> list[Table]:
    """One row for each discipline; of several seeds the mean, and ± the standard deviation."""
    seeds = max(len(some) for some in figures.values())
    suffix = f" ({seeds} seeds: mean ± deviation)" if seeds > 1 else ""
    made = []
    if is_about_fairness:
        made.append(_table(f"{title}: fairness{suffix}", _FAIRNESS, figures))
    made.append(_table(f"{title}: latency and cache{suffix}", _PLACEMENT, figures))
    made.append(_table(f"{title}: correctness{suffix}", _CORRECTNESS, figures))
    return made


def _table(title: str, columns: Sequence[tuple[str, str, str]], figures: Mapping[str, Sequence[Figures]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("policy")
    for _, heading, _ in columns:
        table.add_column(heading, justify="right")
    for name, some in figures.items():
        table.add_row(name, *(_cell([getattr(one, field) for one in some], style) for field, _, style in columns))
    return table


def _cell(values: Sequence[float], style: str) -> str:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "–"
    text = style.format(statistics.fmean(known))
    if len(known) > 1 and (deviation := statistics.stdev(known)):
        text += f" ±{style.format(deviation)}"
    return text


def summary(figures: Mapping[str, Sequence[Figures]]) -> list[dict[str, Any]]:
    """By policy and seed, without what was not measured."""
    return [
        {"policy": name, "seed": seed}
        | {field: value for field, value in one.as_dict().items() if not math.isnan(value)}
        for name, some in figures.items()
        for seed, one in enumerate(some)
    ]
