"""Writes rules/slo.yml: how much of each promise is broken, over seven windows, and who is told how soon.

`python deploy/observe/slos.py` writes the file, with `--check` it says whether it is as it would be written. The windows and
factors are those of the SRE Workbook, chapter 5 ("Alerting on SLOs"), for promises of 30 days."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

RULES = Path(__file__).parent / "rules" / "slo.yml"
RUNBOOKS = "docs/operations.md"

OURS = (
    "no_backend|queue_full|queue_timeout|engine_failed|output_invalid|journal_full|no_scheduler|state_unavailable|starting|"
    "draining|internal"
)
"""Reasons that are no fault of the client, of its key or of its limits."""

FEWEST = 20
"""Requests in an hour: of fewer, no share says anything."""


@dataclass(frozen=True, slots=True)
class Promise:
    name: str
    alert: str
    objective: float
    """The share that has to be good."""
    bad: str
    """The share that is not, with WINDOW for the window."""
    told: str
    """What users see, after "…: "."""


_BAD = f'(sum(rate(forebay_gateway_requests_total{{outcome=~"failed|refused",reason=~"{OURS}"}}[WINDOW])) or vector(0))'
_REFUSED = f'(sum(rate(forebay_gateway_requests_total{{outcome="refused",reason=~"{OURS}"}}[WINDOW])) or vector(0))'
_ADMITTED = '(sum(rate(forebay_gateway_requests_total{outcome=~"finished|cancelled|failed"}[WINDOW])) or vector(0))'


def _slower(histogram: str, bound: str) -> str:
    return f'1 - sum(rate({histogram}_bucket{{le="{bound}"}}[WINDOW])) / sum(rate({histogram}_count[WINDOW]))'


PROMISES = (
    Promise(
        "availability",
        "ForebayAvailability",
        0.999,
        f"{_BAD} / ({_ADMITTED} + {_REFUSED})",
        "requests fail or are refused through no fault of their clients",
    ),
    Promise(
        "ttft",
        "ForebayFirstToken",
        0.95,
        _slower("forebay_gateway_time_to_first_token_seconds", "10.0"),
        "answers take more than 10 s to begin",
    ),
    Promise(
        "queue_wait",
        "ForebayQueueWait",
        0.95,
        _slower("forebay_gateway_queue_seconds", "2.5"),
        "requests wait more than 2.5 s for a slot",
    ),
)
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


@dataclass(frozen=True, slots=True)
class Burn:
    suffix: str
    severity: str
    pairs: tuple[tuple[float, str, str], ...]
    """Times the rate that would just use up the month; the long window, and the short one that ends the alert soon after."""
    hold: str


BURNS = (
    Burn("BurnsFast", "critical", ((14.4, "1h", "5m"), (6, "6h", "30m")), "2m"),
    Burn("BurnsSlowly", "warning", ((3, "1d", "2h"), (1, "3d", "6h")), "15m"),
)


def text() -> str:
    lines = [
        "# Written by deploy/observe/slos.py, which says what is promised; `--check` compares.",
        "groups:",
        "  - name: forebay-slo-recordings",
        "    interval: 30s",
        "    rules:",
        "      - record: forebay:slo_requests:increase1h",
        "        expr: |-",
        "          sum(increase(forebay_gateway_requests_total[1h]))",
    ]
    for promise in PROMISES:
        for window in WINDOWS:
            lines += [
                f"      - record: forebay:slo_{promise.name}_bad:ratio_rate{window}",
                "        expr: |-",
                f"          {promise.bad.replace('WINDOW', window)}",
            ]
    lines += ["  - name: forebay-slo-alerts", "    rules:"]
    for promise in PROMISES:
        for burn in BURNS:
            lines += _alert(promise, burn)
    return "\n".join(lines) + "\n"


def _alert(promise: Promise, burn: Burn) -> list[str]:
    name = promise.alert + burn.suffix
    budget = round(1 - promise.objective, 6)
    terms = [
        f"(forebay:slo_{promise.name}_bad:ratio_rate{long} > {factor:g} * {budget:g}"
        f" and forebay:slo_{promise.name}_bad:ratio_rate{short} > {factor:g} * {budget:g})"
        for factor, long, short in burn.pairs
    ]
    speeds = " or ".join(f"{factor:g} times over {long}" for factor, long, _ in burn.pairs)
    return [
        f"      - alert: {name}",
        "        expr: |-",
        f"          ({terms[0]}",
        f"          or {terms[1]})",
        f"          and on() forebay:slo_requests:increase1h >= {FEWEST}",
        f"        for: {burn.hold}",
        "        labels:",
        f"          severity: {burn.severity}",
        f"          slo: {promise.name}",
        "        annotations:",
        f'          summary: "Too many {promise.told}."',
        f'          description: "Promised are {100 * promise.objective:g} % over 30 days; what may be bad is used up faster'
        f' than that allows: {speeds}."',
        f"          runbook_url: {RUNBOOKS}#{name.lower()}",
    ]


def main(arguments: list[str]) -> int:
    if "--check" not in arguments:
        RULES.write_text(text())
        return 0
    if RULES.read_text() == text():
        return 0
    print(f"{RULES} is not what {Path(__file__).name} writes: run it.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
