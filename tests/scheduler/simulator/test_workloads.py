"""What is drawn looks like what it was fitted to, and files are read as they are."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from random import Random

import pytest

from forebay.errors import CannotStart
from forebay_scheduler.simulator import workloads
from forebay_scheduler.simulator.measures import measure
from forebay_scheduler.simulator.running import simulate
from forebay_scheduler.simulator.trace_files import read_trace
from forebay_scheduler.simulator.turn_rules import FirstCome


@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_each_workload_is_in_order_and_the_same_for_the_same_seed(name: str) -> None:
    one, other = (workloads.WORKLOADS[name](Random(7)) for _ in range(2))
    assert [job.arrives_at for job in one.jobs] == sorted(job.arrives_at for job in one.jobs)
    assert [job.number for job in one.jobs] == list(range(len(one.jobs)))
    assert [(job.arrives_at, job.user, job.prompt_tokens) for job in one.jobs] == [
        (job.arrives_at, job.user, job.prompt_tokens) for job in other.jobs
    ]
    assert max(job.user for job in one.jobs) < one.users
    assert all(job.prompt_tokens > 0 and job.output_tokens > 0 for job in one.jobs)
    assert all(len(job.blocks) <= job.prompt_tokens // one.block_tokens for job in one.jobs)


def test_the_arena_is_as_published() -> None:
    drawn = [workloads.arena(Random(seed)) for seed in range(6)]
    assert all(len(one.jobs) == 1500 for one in drawn)
    jobs = [job for one in drawn for job in one.jobs]
    assert statistics.fmean(job.prompt_tokens for job in jobs) == pytest.approx(136, rel=0.08)
    assert statistics.fmean(job.output_tokens for job in jobs) == pytest.approx(256, rel=0.05)
    assert statistics.median(job.output_tokens for job in jobs) == pytest.approx(211, rel=0.1)


def test_the_engine_is_calibrated_against_the_arena_first_come_first_served() -> None:
    figures = [measure(simulate(workloads.arena(Random(seed)), FirstCome())) for seed in range(3)]
    assert statistics.fmean(one.tokens_per_s for one in figures) == pytest.approx(775, rel=0.03)
    assert statistics.fmean(one.share_gap_max for one in figures) == pytest.approx(762, rel=0.15)
    assert statistics.fmean(one.gap for one in figures) == pytest.approx(154_000, rel=0.15)
    assert statistics.fmean(one.ttft_p99 for one in figures) == pytest.approx(138, rel=0.15)


def test_the_conversations_are_as_those_they_were_fitted_to() -> None:
    jobs = workloads.conversation(Random(1), rate=1.0).jobs
    prompts = sorted(job.prompt_tokens for job in jobs)
    seen: set[int] = set()
    hits = blocks = 0
    for job in jobs:
        hits += sum(block in seen for block in job.blocks)
        blocks += len(job.blocks)
        seen.update(job.blocks)
    assert len(jobs) == pytest.approx(12_031, rel=0.08)
    assert prompts[len(prompts) // 2] == pytest.approx(6909, rel=0.12)
    assert prompts[len(prompts) * 9 // 10] == pytest.approx(27_000, rel=0.12)
    assert hits / blocks == pytest.approx(0.366, abs=0.06)
    assert statistics.fmean(job.output_tokens for job in jobs) == pytest.approx(343, rel=0.1)


def test_a_csv_trace_is_read_with_its_dates_and_counts(tmp_path: Path) -> None:
    file = tmp_path / "azure.csv"
    file.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
        "2023-11-16 18:15:46.6805900,374,44\r\n"
        "2023-11-16 18:15:48.6805900,396,109\r\n"
    )
    jobs = read_trace(file, rate=2.0)
    assert [(job.arrives_at, job.prompt_tokens, job.output_tokens) for job in jobs] == [
        (0.0, 374, 44),
        (pytest.approx(1.0), 396, 109),
    ]


def test_a_csv_trace_may_name_users_and_models(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens,User,Model\n1.5,10,1,ann,a\n1.0,10,1,bob,b\n2.0,9,1,ann,b\n"
    )
    jobs = read_trace(file)
    assert [(job.arrives_at, job.user, job.model) for job in jobs] == [(0.0, 1, "b"), (0.5, 0, "a"), (1.0, 0, "b")]
    drawn = workloads.of_trace(jobs, "own", 2)
    assert drawn.is_about_fairness
    assert drawn.users == 2


def test_a_json_lines_trace_keeps_the_hashes_of_whole_blocks(tmp_path: Path) -> None:
    file = tmp_path / "conversation.jsonl"
    lines = [
        {"timestamp": 0, "input_length": 1100, "output_length": 5, "hash_ids": [1, 2, 3]},
        {"timestamp": 3000, "input_length": 1024, "output_length": 5, "hash_ids": [1, 2]},
    ]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    jobs = read_trace(file)
    assert [job.blocks for job in jobs] == [(1, 2), (1, 2)]
    assert jobs[1].arrives_at == 3.0
    assert not workloads.of_trace(jobs, "conversation", 2).is_about_fairness


@pytest.mark.parametrize(
    ("name", "text"),
    [("no.csv", "a,b\n1,2\n"), ("no.jsonl", '{"timestamp": 1}\n'), ("no.jsonl", "{"), ("empty.csv", "")],
)
def test_what_is_no_trace_is_refused_in_one_sentence(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CannotStart, match=name.split(".")[0]):
        read_trace(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"gone\.csv"):
        read_trace(tmp_path / "gone.csv")
