"""Two pictures: how far apart the users were served over time, and how long first tokens took. PNG, through matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forebay.errors import CannotStart
from forebay_scheduler.simulator.measures import gap_over_time, light_users
from forebay_scheduler.simulator.running import Run

# Okabe and Ito's colours can be told apart by colour-blind eyes; the dashes help in print.
_LOOKS = (
    ("#0072B2", "-", 2.4),
    ("#D55E00", "-", 1.6),
    ("#009E73", "--", 1.6),
    ("#CC79A7", "-.", 1.6),
    ("#E69F00", "-", 1.6),
    ("#56B4E9", "--", 1.6),
    ("#000000", ":", 1.6),
    ("#999999", "-.", 1.6),
    ("#8C6D31", "--", 1.6),
)
_OURS = "forebay"


def load_pyplot() -> Any:
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise CannotStart("Plots need matplotlib: pip install 'forebay[simulate]'.") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw(runs: Mapping[str, Run], directory: Path, title: str) -> list[Path]:
    """One run of each discipline, all of the same jobs. Returns the files."""
    pyplot = load_pyplot()
    directory.mkdir(parents=True, exist_ok=True)
    ordered = sorted(runs, key=lambda name: name != _OURS)
    files = []
    if all(run.record is not None for run in runs.values()):
        files.append(directory / f"{title}-service-gap.png")
        _draw_gap(pyplot, runs, ordered, files[-1], title)
    files.append(directory / f"{title}-ttft-cdf.png")
    _draw_ttft(pyplot, runs, ordered, files[-1], title)
    return files


def _draw_gap(pyplot: Any, runs: Mapping[str, Run], ordered: Sequence[str], file: Path, title: str) -> None:
    figure, axes = _canvas(pyplot)
    for name, (colour, dashes, width) in zip(ordered, _LOOKS, strict=False):
        times, gaps = gap_over_time(runs[name])
        axes.plot(
            times, _envelope(gaps), dashes, color=colour, linewidth=width, label=name, zorder=3 if name == _OURS else 2
        )
    axes.set_yscale("log")
    axes.set_ylim(bottom=300)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds since the start")
    axes.set_ylabel("largest service gap between two users\nwho both wait (cost in tokens, by weight)")
    axes.set_title(f"Service gap over time: {title}")
    _finish(pyplot, figure, axes, file)


def _envelope(gaps: Sequence[float], width: int = 4) -> list[float]:
    """The largest of the few points around each: gaps close for a moment whenever somebody has nothing waiting."""
    return [max(1.0, *gaps[max(0, at - width) : at + width + 1]) for at in range(len(gaps))]


def _draw_ttft(pyplot: Any, runs: Mapping[str, Run], ordered: Sequence[str], file: Path, title: str) -> None:
    workload = next(iter(runs.values())).workload
    groups = [("all requests", set(range(workload.users)))]
    if workload.is_about_fairness and (light := light_users(workload)):
        groups.append(("users who ask for less than half the mean", light))
    figure, panels = pyplot.subplots(
        1, len(groups), figsize=(6.2 * len(groups) + 1.2, 5.0), dpi=130, sharey=True, squeeze=False
    )
    for axes, (who, users) in zip(panels[0], groups, strict=True):
        for name, (colour, dashes, width) in zip(ordered, _LOOKS, strict=False):
            jobs = [job for job in runs[name].jobs if job.user in users and job.first_token_at < float("inf")]
            ttft = sorted(max(0.01, job.ttft_s) for job in jobs)
            shares = [(at + 1) / len(ttft) for at in range(len(ttft))]
            axes.plot(ttft, shares, dashes, color=colour, linewidth=width, label=name, zorder=3 if name == _OURS else 2)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_ylim(0, 1.005)
        axes.set_xlabel("time to first token (s)")
        axes.set_title(f"{title}: {who}")
        _plain(axes)
    panels[0][0].set_ylabel("share of requests that had it by then")
    _finish(pyplot, figure, panels[0][-1], file)


def _canvas(pyplot: Any) -> tuple[Any, Any]:
    figure, axes = pyplot.subplots(figsize=(8.5, 5.0), dpi=130)
    _plain(axes)
    return figure, axes


def _plain(axes: Any) -> None:
    axes.grid(visible=True, which="major", color="#d9d9d9", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _finish(pyplot: Any, figure: Any, axes: Any, file: Path) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, handlelength=3)
    figure.tight_layout()
    figure.savefig(file)
    pyplot.close(figure)
