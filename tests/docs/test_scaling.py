"""docs/scaling.md: its sizes follow from its costs, its costs are those that were measured, its trace is the same
everywhere."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from benchmarks import scaling

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "scaling.md").read_text()
STREAMS = (1_000, 10_000, 100_000)
TOKENS_A_SECOND, LASTS_S, PROGRESS_A_SECOND = 10, 20, 4


def _row(page: str, begins: str) -> list[str]:
    """The cells of the first row that begins so, without bold."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {begins}"))
    return [cell.strip().strip("*") for cell in line.split("|")[1:-1]]


def _first(cell: str, unit: str) -> float:
    found = re.search(rf"([\d.,]+) {re.escape(unit)}", cell)
    assert found is not None, f"no {unit} in {cell!r}"
    return float(found[1].replace(",", ""))


def _gateway() -> tuple[float, float]:
    """Seconds of a core for a request, and for a token."""
    cells = _row(PAGE, "gateway |")
    return _first(cells[1], "ms") / 1e3, _first(cells[2], "µs") / 1e6


def _scheduler() -> tuple[float, float]:
    """Seconds of a core for a request, compiled, at the most; and for a word of progress."""
    cells = _row(PAGE, "scheduler |")
    return float(cells[1].split(" µs")[0].split(" to ")[1]) / 1e6, _first(cells[2], "µs") / 1e6


def _streams_that_fill_a_core(progress_a_second: float) -> float:
    request, progress = _scheduler()
    return 1 / (request / LASTS_S + progress * progress_a_second)


def test_what_gateways_cost_is_what_the_benchmark_measured() -> None:
    measured = {
        name: text for name, text in re.findall(r"\*\*(\w+)\*\*: (.*?)(?=\n\*\*|\Z)", _performance(), re.DOTALL)
    }
    request, token = _gateway()
    assert request * 1e6 == pytest.approx(float(_row(measured["plain64"], "forebay |")[1].replace(",", "")), rel=0.05)
    few, many = (_row(measured[name], "forebay |") for name in ("streams10", "streams1000"))
    assert token * 1e6 == pytest.approx(float(many[1]), rel=0.05)
    one, first = _first(_row(PAGE, "gateway |")[3], "kB"), _first(_row(PAGE, "gateway |")[3], "MB")
    assert first == pytest.approx(float(few[6]), rel=0.05)
    assert one == pytest.approx((float(many[6]) - float(few[6])) / 990 * 1e3, abs=3)


def _performance() -> str:
    return (DOCS / "performance.md").read_text()


@pytest.mark.parametrize("at", range(3), ids=[f"{streams} streams" for streams in STREAMS])
def test_the_sizes_follow_from_the_costs(at: int) -> None:
    streams, requests = STREAMS[at], STREAMS[at] / LASTS_S

    def cell(begins: str) -> str:
        return _row(PAGE, begins)[at + 1]

    request, token = _gateway()
    one_gateway = 500 / LASTS_S * request + 500 * TOKENS_A_SECOND * token
    gateways, cores = re.fullmatch(r"([\d,]+) \(([\d.]+)\)", cell("gateways (")).groups()  # type: ignore[union-attr]
    assert float(gateways) == streams / 500
    assert float(cores) == pytest.approx(one_gateway * streams / 500, rel=0.05)
    per_request, per_progress = _scheduler()
    assert _first(cell("scheduler's leader"), "%") == pytest.approx(requests * per_request * 100, rel=0.12)
    assert _first(cell("… and progress"), "%") == pytest.approx(
        streams * PROGRESS_A_SECOND * per_progress * 100, rel=0.1
    )
    assert _first(cell("admin's ledger"), "%") == pytest.approx(requests * 40e-6 * 100, rel=0.05)
    assert _first(cell("rows a day"), "million") == pytest.approx(requests * 86_400 / 1e6, rel=0.01)


def test_the_walls_are_where_a_core_is_full() -> None:
    request, token = _gateway()
    ends = re.sub(r"\s+", " ", PAGE)
    assert 1 / (request / LASTS_S + TOKENS_A_SECOND * token) == pytest.approx(
        _some(ends, "streams of 10 tokens"), rel=0.05
    )
    assert _streams_that_fill_a_core(PROGRESS_A_SECOND) == pytest.approx(_some(ends, "of these streams"), rel=0.1)
    assert _streams_that_fill_a_core(1) == pytest.approx(_some(ends, "streams |"), rel=0.02)
    assert 1 / _scheduler()[0] == pytest.approx(_first(ends, "requests a second |"), rel=0.02)


def _some(page: str, what: str) -> float:
    found = re.search(rf"some ([\d,]+) {re.escape(what)}", page)
    assert found is not None, what
    return float(found[1].replace(",", ""))


def test_the_simulators_trace_is_the_same_on_every_machine() -> None:
    told = "\n".join(scaling.lines())
    assert len(told.splitlines()) == 2001
    assert hashlib.sha256(told.encode()).hexdigest().startswith("fe2f1f9a53fefbfe"), (
        "the figures on the page are of another trace"
    )
