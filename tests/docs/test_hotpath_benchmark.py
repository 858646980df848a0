"""The hot path's benchmark tells the truth: what cannot be measured is not met, what has errors does not count."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.hotpath.engines import open_engine
from benchmarks.hotpath.goals import Grown, Outage, RecordCost, targets
from benchmarks.hotpath.loads import Load, Reading, measure
from benchmarks.hotpath.machine import Cores
from benchmarks.hotpath.page import BEGIN, END, between_markers, measured
from benchmarks.hotpath.peers import PEERS, refuse_compromised
from benchmarks.hotpath.programs import build
from benchmarks.hotpath.scenarios import BARE, DIRECT, LITELLM, OURS, WORKERS, plan
from benchmarks.hotpath.summary import Sample, Summary, summed_up

ROOT = Path(__file__).parents[2]


def _reading(**fields: float) -> Reading:
    told = {
        "seconds": 1.0,
        "answers": 1000,
        "errors": 0,
        "incomplete": 0,
        "tokens": 0,
        "connects": 1,
        "cpu_s": 0.05,
        "rss_mb": 60.0,
        "pss_mb": 50.0,
        "own_cpu_s": 0.1,
        "longest_silence_ms": 3.0,
        "latency_p50_us": 200.0,
    }
    return Reading.of({**told, **fields})


def _summary(*runs: tuple[str, str, Reading]) -> Summary:
    return summed_up(Sample(scenario, system, 0, reading) for scenario, system, reading in runs)


def test_the_middle_of_the_good_runs_counts() -> None:
    runs = [_reading(cpu_s=cost) for cost in (0.04, 0.05, 0.09)]
    runs += [_reading(cpu_s=0.001, errors=1), _reading(cpu_s=0.001, behind_s=2.0), _reading(cpu_s=0.001, incomplete=1)]
    middle = _summary(*(("plain64", OURS, run) for run in runs))["plain64", OURS]
    assert (middle.runs, middle.invalid, middle.us_per_answer, middle.errors) == (6, 3, 50.0, 2)


def test_a_target_whose_peer_is_not_there_is_not_met_and_says_so() -> None:
    summary = _summary(("plain64", OURS, _reading()), ("plain64", "sglang-router", _reading(cpu_s=0.06)))
    told = {one.metric: one for one in targets(summary, outage=None, records=None)}
    assert told["plain_vs_sglang_router"].value == pytest.approx(1.2)
    assert told["plain_vs_sglang_router"].ok
    absent = told["plain_vs_litellm"]
    assert (absent.value, absent.ok) == (None, False)
    assert absent.how == f"not measured: {LITELLM} in plain64"
    assert not any(one.ok for name, one in told.items() if name != "plain_vs_sglang_router")


def test_all_targets_are_told_once_and_can_be_met() -> None:
    short = plan(short=True)
    cheap = _reading(tokens=1000, cpu_s=0.01, first_p50_us=10.0, transit_p99_us=100.0)
    runs = [(one.name, name, cheap) for one in short for name in one.systems]
    dear = _reading(tokens=1000, cpu_s=2.0, first_p50_us=9.0, transit_p99_us=100.0, latency_p50_us=300.0)
    summary = {
        **_summary(*runs),
        **_summary(*((one.name, name, dear) for one in short for name in one.systems if name in PEERS)),
        **_summary(("plain1", DIRECT, _reading(cpu_s=0.0, latency_p50_us=190.0))),
        **_summary(("body100000", BARE, _reading(cpu_s=0.02)), ("body10000000", BARE, _reading(cpu_s=1.01))),
    }
    growth = [Grown(what, n, 50.0, 1.0, 90.0) for what in ("keys", "backends", "queued") for n in (10, 10_000)]
    told = targets(summary, outage=Outage(60, 100, 0, 20.0), records=RecordCost(9.0, 4.0), growth=growth)
    assert [one.metric for one in told if not one.ok] == []
    assert len({one.metric for one in told}) == len(told)
    assert all(name in dict.fromkeys(system for _, system in summary) for name in (OURS, WORKERS, DIRECT))
    notes = ["x is\nnot there"]
    page = measured(summary, told, notes=notes, machine="a machine", versions={"nginx": "1"}, short=True, growth=growth)
    assert all(one.metric in page for one in told)
    assert "- x is not there" in page
    assert "| 10,000 queued | 50.0 | 1.00 | 90 |" in page


def test_a_cost_that_grows_with_the_number_misses_its_target_and_one_that_was_not_measured_too() -> None:
    growth = [
        Grown("keys", 10, 50.0, 1.0, 90.0),
        Grown("keys", 1_000, 80.0, 1.6, 91.0),
        Grown("queued", 0, 50.0, 1.0, 90.0),
    ]
    told = {one.metric: one for one in targets({}, outage=None, records=None, growth=growth)}
    assert (told["growth_keys"].value, told["growth_keys"].ok) == (1.6, False)
    assert (told["growth_queued"].value, told["growth_queued"].ok) == (None, False), "nothing to compare with"
    assert not told["growth_backends"].ok
    assert not told["growth_streams"].ok


def test_the_page_is_changed_between_its_markers_alone() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    changed = between_markers(page, "a table")
    assert changed.partition(BEGIN)[0] == page.partition(BEGIN)[0]
    assert changed.partition(END)[2] == page.partition(END)[2]
    assert between_markers(changed, "a table") == changed
    with pytest.raises(ValueError, match="no place"):
        between_markers("a page without them", "a table")


def test_compromised_releases_are_refused_by_name() -> None:
    with pytest.raises(SystemExit, match=r"litellm==1\.107\.0"):
        refuse_compromised("anyio==4.0\nlitellm==1.107.0 \\\n    --hash=sha256:00\n")
    locks = [peer.lock for peer in PEERS.values() if peer.name != "nginx"]
    assert len(locks) == 4
    for lock in locks:
        refuse_compromised(lock.read_text())
        pins = [line for line in lock.read_text().splitlines() if "==" in line and not line.startswith("#")]
        assert pins
        assert "--hash=sha256:" in lock.read_text()


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
async def test_the_generator_counts_what_the_engine_sends() -> None:
    """Every dialect, plain and streamed; a stream without its end is told as such, and so is a refusal."""
    programs = await asyncio.to_thread(build)
    core = min(os.sched_getaffinity(0))
    cores = Cores(core, core, (core,))
    few = Load(connections=2, seconds=60, warm_s=0, answers=20)
    async with open_engine(cores, programs) as engine:
        for path, ends in (
            ("/v1/chat/completions", "[DONE]"),
            ("/v1/messages", "message_stop"),
            ("/api/chat", '"done":true'),
        ):
            streams = await measure(engine, replace(few, tokens=5, gap_ms=1, path=path, ends=ends), cores, programs)
            assert streams.is_valid, (path, streams)
            assert streams.tokens >= 5 * streams.answers >= 100
            plain = await measure(engine, replace(few, path=path), cores, programs)
            assert (plain.errors, plain.tokens) == (0, 0), (path, plain)
        endless = await measure(engine, replace(few, tokens=5, ends="never"), cores, programs)
        assert endless.incomplete == endless.answers >= 20
        assert "5 tokens of 5, without an end" in endless.said
        timed = await measure(engine, replace(few, rate=200), cores, programs)
        assert timed.errors == 0
        assert timed.answers >= 20
