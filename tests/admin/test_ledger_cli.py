"""The command line about usage: sums by whatever is asked, the ledger as a file, what could not be a row."""

from __future__ import annotations

import csv
import json
from datetime import timedelta
from pathlib import Path

import duckdb

from forebay.wire.v1 import types_pb2
from forebay_admin.ledger.usage_rows import Poison
from tests.admin.replica import Running
from tests.admin.test_cli import Invoke, forebay, told
from tests.admin.test_usage_queries import NOW, enter, opened, record, us

__all__ = ["forebay"]


async def test_usage_is_added_up_exported_and_looked_after(forebay: Invoke, admin: Running, tmp_path: Path) -> None:
    alice = told(await forebay("user", "add", "alice", "--json"))
    hers = [record(NOW - timedelta(hours=hours), user_id=alice["id"]) for hours in range(3)]
    formula = record(NOW, request_id="=1+1", model="large", ttft_ms=None, outcome=types_pb2.OUTCOME_FAILED)
    late = record(NOW - timedelta(hours=5), request_id="late")
    async with opened(admin.site) as database:
        await enter(
            database,
            [*hers, formula],
            [Poison("a", late.SerializeToString(), "too early"), Poison("b", b"\xff", "not a UsageBatch: nonsense")],
        )

    shown = (await forebay("usage", "--by", "user", "--by", "model", "--since", "2d", "--compare")).output
    assert [line.split()[:3] for line in shown.splitlines() if "alice" in line] == [["alice", "small", "3"]]
    top = told(await forebay("usage", "--by", "model", "--top", "1", "--since", "2d", "--json"))
    assert [(line["model"], line["rest"], line["sums"]["requests"]) for line in top["lines"]] == [
        ("small", False, 3),
        ("", True, 1),
    ]
    since = (NOW - timedelta(hours=2)).isoformat()
    hours = told(await forebay("usage", "--bucket", "hour", "--since", since, "--outcome", "finished", "--json"))
    assert [line["sums"]["requests"] for line in hours["lines"]] == [1, 1, 1]

    for form in ("csv", "json", "parquet"):
        await forebay("ledger", "export", "--last", "2d", "--format", form, "-o", str(tmp_path / form))
    rows = list(csv.DictReader((tmp_path / "csv").read_text().splitlines()))
    assert [row["prompt_tokens"] for row in rows] == ["10"] * 4
    failed = next(row for row in rows if row["outcome"] == "failed")
    assert (failed["request_id"], failed["ttft_ms"], failed["model"]) == ("'=1+1", "", "large")
    told_in_json = json.loads((tmp_path / "json").read_text())
    assert {row["started_at"] for row in told_in_json} == {row["started_at"] for row in rows}
    table = f"read_parquet('{tmp_path / 'parquet'}')"
    with duckdb.connect() as database:
        read = database.execute(
            f"SELECT count(*), sum(prompt_tokens), epoch_us(min(started_at)) FROM {table}"
        ).fetchall()
    assert read == [(4, 40, us(NOW - timedelta(hours=2)))]

    letters = told(await forebay("ledger", "dead-letters", "list", "--json"))
    assert letters["total"] == 2
    assert "too early" in (await forebay("ledger", "dead-letters", "list")).output
    mine = next(one for one in letters["letters"] if one["why"] == "too early")
    one = told(await forebay("ledger", "dead-letters", "show", mine["id"][:10], "--json"))
    assert "too early" in (await forebay("ledger", "dead-letters", "show", mine["id"])).output
    assert one["records"][0]["request_id"] == "late"
    assert (await forebay("ledger", "dead-letters", "retry")).exit_code == 2
    assert "1 read, 1 new rows; 1 stay." in (await forebay("ledger", "dead-letters", "retry", "--all")).output
    assert told(await forebay("ledger", "dead-letters", "list", "--json"))["total"] == 1
