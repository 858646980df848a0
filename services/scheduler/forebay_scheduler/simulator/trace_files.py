"""Traces of one's own: CSV with a header (TIMESTAMP, ContextTokens, GeneratedTokens, as the Azure traces have it, and if one
likes User and Model), or JSON lines (timestamp in ms, input_length, output_length, hash_ids, as the Mooncake traces have it,
and if one likes user and model). Whoever has no user is part of one nameless crowd."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from forebay.errors import CannotStart
from forebay_scheduler.simulator.jobs import Job

BLOCK_TOKENS = 512


def read_trace(file: Path, rate: float = 1.0) -> list[Job]:
    """`rate`: 1.25 makes everything come in four fifths of the time."""
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            is_json = file.suffix.lower() in (".jsonl", ".ndjson", ".json")
            jobs = _from_json_lines(lines) if is_json else _from_csv(lines)
    except OSError as error:
        raise CannotStart(f"Cannot read {file}: {error.strerror}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise CannotStart(f"{file} is not a trace that can be read here: {error}. {__doc__}") from error
    if not jobs:
        raise CannotStart(f"{file} holds no requests.")
    jobs.sort(key=lambda job: job.arrives_at)
    first = jobs[0].arrives_at
    for number, job in enumerate(jobs):
        job.number = number
        job.arrives_at = (job.arrives_at - first) / rate
    return jobs


def _from_csv(lines: Iterable[str]) -> list[Job]:
    users: dict[str, int] = {}
    jobs = []
    for row in csv.DictReader(lines):
        at = _moment(row["TIMESTAMP"])
        user = users.setdefault(row.get("User") or "", len(users))
        prompt, output = int(row["ContextTokens"]), int(row["GeneratedTokens"])
        jobs.append(Job(0, at, user, max(1, prompt), max(1, output), model=row.get("Model") or "m"))
    return jobs


def _moment(told: str) -> float:
    """Seconds, or a date with up to seven digits after the point."""
    try:
        return float(told)
    except ValueError:
        whole, _, fraction = told.strip().partition(".")
        return datetime.fromisoformat(whole).timestamp() + float(f"0.{fraction or 0}")


def _from_json_lines(lines: Iterable[str]) -> list[Job]:
    users: dict[str, int] = {}
    jobs = []
    for line in lines:
        if not line.strip():
            continue
        row = json.loads(line)
        prompt, output = int(row["input_length"]), int(row["output_length"])
        blocks = tuple(row.get("hash_ids", ()))[: prompt // BLOCK_TOKENS]  # the last one may not be whole
        user = users.setdefault(str(row.get("user", "")), len(users))
        at = float(row["timestamp"]) / 1000
        jobs.append(Job(0, at, user, max(1, prompt), max(1, output), blocks, str(row.get("model", "m"))))
    return jobs
