"""Two small pictures for docs/performance.md: what a request and what a token costs, system by system."""

from __future__ import annotations

from pathlib import Path

from benchmarks.hotpath.scenarios import FAMILY
from benchmarks.hotpath.summary import Summary

_OURS, _OTHERS = "#1f6f8b", "#b8b8b8"


def draw(summary: Summary, folder: Path) -> None:
    """hotpath-requests.svg and hotpath-tokens.svg; one that has nothing to show is left as it is."""
    requests = {system: m.us_per_answer for (name, system), m in summary.items() if name == "plain64"}
    tokens = {system: m.us_per_token for (name, system), m in summary.items() if name == "paced200"}
    _bars(requests, "CPU µs a request, 64 connections (logarithmic)", folder / "hotpath-requests.svg", is_log=True)
    _bars(tokens, "CPU µs a token, 200 streams, a token each 20 ms", folder / "hotpath-tokens.svg", is_log=False)


def _bars(costs: dict[str, float | None], title: str, file: Path, *, is_log: bool) -> None:
    shown = sorted(((value, name) for name, value in costs.items() if value), reverse=True)
    if not shown:
        return
    import matplotlib as mpl

    mpl.use("svg")
    # Text stays text, and the same numbers give the same picture.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "forebay"})
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 0.4 + 0.36 * len(shown)))
    names = [name for _, name in shown]
    bars = axes.barh(
        names, [value for value, _ in shown], color=[_OURS if name in FAMILY else _OTHERS for name in names]
    )
    axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if is_log:
        axes.set_xscale("log")
    axes.margins(x=0.12)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
