"""What was measured, as the tables of docs/performance.md. Pure but for `write`; the words around them are not ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.hotpath.goals import Grown
from benchmarks.hotpath.scenarios import plan
from benchmarks.hotpath.summary import Middle, Summary
from benchmarks.targets import Target

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

Column = tuple[str, Callable[[Middle], float | None], int]
"""Its head, what it shows, and how many digits behind the point."""


def _ms(read: Callable[[Middle], float | None]) -> Callable[[Middle], float | None]:
    def in_ms(middle: Middle) -> float | None:
        value = read(middle)
        return None if value is None else value / 1000

    return in_ms


_REQUESTS: tuple[Column, ...] = (
    ("CPU µs a request", lambda m: m.us_per_answer, 1),
    ("requests a core", lambda m: m.per_core, 0),
    ("seen a second", lambda m: m.answers_per_s, 0),
    ("p50 ms", _ms(lambda m: m.latency_p50_us), 3),
    ("p99 ms", _ms(lambda m: m.latency_p99_us), 2),
)
_STREAMS: tuple[Column, ...] = (
    ("CPU µs a token", lambda m: m.us_per_token, 1),
    ("tokens a second", lambda m: m.tokens_per_s, 0),
    ("first token p50 ms", _ms(lambda m: m.first_p50_us), 3),
    ("way p50 ms", _ms(lambda m: m.transit_p50_us), 3),
    ("way p99 ms", _ms(lambda m: m.transit_p99_us), 2),
    ("RSS MB", lambda m: m.rss_mb, 0),
)


def measured(
    summary: Summary,
    targets: Sequence[Target],
    *,
    notes: Sequence[str],
    machine: str,
    versions: Mapping[str, str],
    short: bool,
    growth: Sequence[Grown] = (),
) -> str:
    told = ", ".join(f"{name} {version}" for name, version in versions.items()) or "no other gateway"
    parts = [f"On: {machine}. Beside: {told}."]
    if short:
        parts.append("**From a short run: one repetition, fewer streams.**")
    parts += ["### Targets", _target_table(targets), "### Side by side"]
    for scenario in plan(short=short):
        there = {name: summary[scenario.name, name] for name in scenario.systems if (scenario.name, name) in summary}
        if there:
            parts += [
                f"**{scenario.name}**: {scenario.about}.",
                _table(there, _STREAMS if scenario.load.tokens else _REQUESTS),
            ]
    if growth:
        parts += ["### Growth", _growth_table(growth)]
    if notes:
        parts += ["### Not measured", "\n".join(f"- {' '.join(note.split())[:300]}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def between_markers(document: str, text: str) -> str:
    """Raises ValueError when the markers are not there, once each and in order."""
    before, found, rest = document.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not found or not found_end or BEGIN in after or END in after:
        raise ValueError(f"the page has no place for what is measured: {BEGIN} and {END}, once each")
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}"


def write(file: Path, text: str) -> None:
    file.write_text(between_markers(file.read_text(), text))


def _target_table(targets: Sequence[Target]) -> str:
    lines = ["| metric | measured | target | met | how |", "|---|---|---|---|---|"]
    for one in targets:
        value = "–" if one.value is None else f"{one.value:.4g} {one.unit}"
        met = "yes" if one.ok else "**no**"
        lines.append(f"| {one.metric} | {value} | {one.sense} {one.limit:g} {one.unit} | {met} | {one.how} |")
    return "\n".join(lines)


def _growth_table(growth: Sequence[Grown]) -> str:
    lines = [
        "| there are | CPU µs a request | times that of the smallest, in turns with it | RSS MB |",
        "|---|---|---|---|",
    ]
    for one in growth:
        lines.append(
            f"| {one.size:,} {one.what} | {one.us_per_answer:.1f} | {one.of_smallest:.2f} | {one.rss_mb:.0f} |"
        )
    return "\n".join(lines)


def _table(middles: Mapping[str, Middle], columns: Sequence[Column]) -> str:
    lines = [
        "| system | " + " | ".join(head for head, _, _ in columns) + " | runs |",
        "|---|" + "---|" * (len(columns) + 1),
    ]
    for name, middle in middles.items():
        if not middle.is_valid:
            nothing = " | ".join("–" for _ in columns)
            lines.append(f"| {name} | {nothing} | none of {middle.runs} counts: {middle.errors} errors |")
            continue
        cells = " | ".join(_cell(read(middle), digits) for _, read, digits in columns)
        runs = f"{middle.runs - middle.invalid} of {middle.runs}" if middle.invalid else str(middle.runs)
        lines.append(f"| {name} | {cells} | {runs} |")
    return "\n".join(lines)


def _cell(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
