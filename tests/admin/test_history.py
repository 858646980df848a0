"""`forebay history` and `forebay energy`, against a real admin and the registry's own tables: what people read, what scripts
parse, and the files that are written."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import duckdb
import pytest
from click.testing import CliRunner, Result
from yarl import URL

from forebay.clock import SystemClock
from forebay.database import open_database
from forebay.errors import BadInput, NotFound
from forebay.launch import cli
from forebay.ledger_id import new_ledger_id
from forebay.wire.v1 import history_pb2, types_pb2, usage_pb2
from forebay_admin.cli.history.files import open_writer
from forebay_admin.cli.history.points import amount, sparkline, with_gaps
from forebay_admin.cli.spans import parse_span
from forebay_admin.fleet.history_files import FORMATS
from forebay_admin.fleet.history_rows import Point
from forebay_admin.ledger.ledger_store import LedgerStore
from forebay_admin.ledger.usage_rows import parse_batch
from forebay_admin.rest.file_forms import TYPES, asked_form
from forebay_registry.history.calls import HistoryCalls
from forebay_registry.history.grid import Kept
from forebay_registry.history.reading import HistoryReader
from forebay_registry.history.rollup import Energy, Minute
from forebay_registry.history.series import METRICS, Kind, Series
from forebay_registry.history.store import HistoryStore
from forebay_registry.keeping.store import MIGRATIONS
from tests.admin.replica import Running

Invoke = Callable[..., Awaitable[Result]]

HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
GPUS = [Series(Kind.GPU, f"no-1/{i}") for i in range(2)]
NODE, BACKEND = Series(Kind.NODE, "no-1"), Series(Kind.BACKEND, "be-1")
EVIL = Series(Kind.MODEL, "=cmd|' /C calc'!A0")
NAMES = {GPUS[0]: "box/0", GPUS[1]: "box/1", NODE: "box", BACKEND: "vllm", EVIL: EVIL.ref}


def minute(series: Series, offset: int, value: float | None, energy: Energy | None = None) -> Minute:
    rest: list[float | None] = [None] * (len(METRICS[series.kind]) - 1)
    told, samples = [value, *rest], [0 if value is None else 30, *[0] * len(rest)]
    at = round((HOUR + timedelta(minutes=offset)).timestamp())
    return Minute(series, at, samples, told, told, told, told, energy or Energy())


def minutes() -> list[Minute]:
    """Two GPUs that take 60 Wh each in an hour, of which a backend runs on the first; a gap of five minutes."""
    there = [offset for offset in range(60) if not 20 <= offset < 25]
    found = []
    for offset in there:
        found += [minute(gpu, offset, offset, Energy(gpu_wh=60 / 55, measured_s=60.0)) for gpu in GPUS]
        found.append(minute(NODE, offset, 50.0, Energy(gpu_wh=120 / 55, server_wh=240 / 55, measured_s=60.0)))
        busy = Energy(gpu_wh=60 / 55, server_wh=120 / 55, idle_wh=0.0 if offset >= 11 else 60 / 55, measured_s=60.0)
        found.append(minute(BACKEND, offset, 1.0, busy))
    return [*found, minute(EVIL, 0, 1.0)]


def usage(model: str, group_id: str, tokens: int) -> usage_pb2.UsageRecord:
    at = (HOUR + timedelta(minutes=30)).timestamp()
    return usage_pb2.UsageRecord(
        ledger_id=new_ledger_id(at),
        gateway="gateway-1",
        model=model,
        backend_id="be-1",
        group_id=group_id,
        outcome=types_pb2.OUTCOME_FINISHED,
        started_at_us=round(at * 1_000_000),
        usage=types_pb2.TokenUsage(completion_tokens=tokens, source=types_pb2.USAGE_SOURCE_ENGINE),
    )


@pytest.fixture
async def forebay(admin: Running) -> AsyncIterator[Invoke]:
    """`await forebay("history", "list", "gpu")`, as the first admin."""
    async with open_database(admin.site.database_url, "registry") as database:
        await database.prepare(MIGRATIONS)
        store, clock = HistoryStore(database), SystemClock()
        await store.begin(0.0)
        await store.write(uuid4(), minutes(), NAMES.__getitem__)
        kept = Kept(14 * 86_400.0, 400 * 86_400.0)
        admin.site.registry.history = HistoryCalls(HistoryReader(database, clock, kept))

        async def invoke(*words: str) -> Result:
            environment = {"FOREBAY_ADMIN": admin.grpc_address, "FOREBAY_TOKEN": admin.site.first_key}
            return await asyncio.to_thread(CliRunner().invoke, cli, words, None, environment)

        yield invoke


def _query(sql: str) -> list[Any]:
    """By another reader of Parquet than the one that wrote it."""
    found = duckdb.sql(sql)
    assert found is not None
    return found.fetchall()


def told(result: Result) -> Any:
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def span() -> tuple[str, ...]:
    return "--from", HOUR.isoformat(), "--to", (HOUR + timedelta(hours=1)).isoformat()


def _address_of(admin: Running, query: str) -> URL:
    asked = URL(f"http://{admin.http_address}/api/v1/history?kind=gpu&{query}")
    return asked.update_query({"from": HOUR.isoformat(), "to": (HOUR + timedelta(hours=1)).isoformat()})


async def downloaded(admin: Running, query: str, accept: str = "*/*") -> tuple[int, str, bytes]:
    """Status, type and body of the REST API's history of GPUs in that hour."""
    headers = {"authorization": f"Bearer {admin.site.first_key}", "accept": accept}
    async with aiohttp.ClientSession() as session, session.get(_address_of(admin, query), headers=headers) as answer:
        return answer.status, answer.content_type, await answer.read()


async def test_a_gpus_hour_is_shown_with_its_gap_and_exported_in_every_form(
    forebay: Invoke, admin: Running, tmp_path: Path
) -> None:
    shown = (await forebay("history", "gpu", "box/0", *span())).stdout
    (line,) = (line.strip() for line in shown.splitlines() if "utilization_percent" in line)
    assert line.split()[-8:] == ["0", "%", "30", "%", "59", "%", "59", "%"]
    picture = line.removeprefix("utilization_percent").lstrip(" ")[:60]
    assert (picture[0], picture[-1]) == ("▁", "█")
    assert picture[20:25] == "     ", "what is not known is blank"
    assert "Energy: GPU 60.0 Wh, the host does not tell the server's." in shown
    (series,) = told(await forebay("history", "gpu", "box/0", *span(), "--json"))
    assert (series["resolution_s"], len(series["points"])) == (60, 60)
    assert [p["at"] for p in series["points"] if p["utilization_percent"] is None] == [
        f"{HOUR + timedelta(minutes=m):%Y-%m-%dT%H:%M}:00.000Z" for m in range(20, 25)
    ]
    assert series["points"][3]["utilization_percent"] == {"min": 3, "mean": 3, "max": 3, "last": 3, "samples": 30}
    assert series["points"][22]["energy"] is None
    one = (await forebay("history", "gpu", "box/0", *span(), "--metric", "utilization_percent")).stdout
    assert sum(line.strip().endswith("30") for line in one.splitlines()) == 55
    assert sum(line.strip().endswith("–") for line in one.splitlines()) == 5

    written = await forebay("history", "export", "--kind", "gpu", *span())
    rows = list(csv.DictReader(io.StringIO(written.stdout)))
    assert len(rows) == 110
    assert (rows[0]["at"], rows[0]["name"]) == (f"{HOUR:%Y-%m-%dT%H:%M}:00.000Z", "box/0")
    assert (rows[7]["utilization_percent_mean"], rows[7]["temperature_c_mean"]) == ("7.0", "")
    as_json = told(await forebay("history", "export", "--kind", "gpu", *span(), "--format", "json"))
    assert [(r["name"], r["utilization_percent_mean"], r["temperature_c_mean"]) for r in as_json] == [
        (r["name"], float(r["utilization_percent_mean"]), None) for r in rows
    ]
    file = tmp_path / "gpus.parquet"
    done = await forebay("history", "export", "--kind", "gpu", *span(), "--format", "parquet", "-o", str(file))
    assert done.stdout == f"110 rows in {file}.\n"
    found = _query(
        'SELECT count(*), min(epoch_us("at")), max(utilization_percent_max), count(temperature_c_mean), sum(energy_gpu_wh), '
        f"list(DISTINCT name ORDER BY name), sum(utilization_percent_samples) FROM read_parquet('{file}')"
    )
    since_us = round(HOUR.timestamp() * 1_000_000)
    assert found == [(110, since_us, 59.0, 0, pytest.approx(120.0), ["box/0", "box/1"], 3300)]
    assert list(tmp_path.glob("*gpus*")) == [file], "nothing half written is left"

    csv_file = (200, "text/csv", written.stdout_bytes)
    assert await downloaded(admin, "format=csv") == csv_file
    assert await downloaded(admin, "", "text/html, text/csv;q=0.9") == csv_file
    assert json.loads((await downloaded(admin, "format=json"))[2]) == as_json
    status, kind, content = await downloaded(admin, "", "application/vnd.apache.parquet")
    assert (status, kind) == (200, "application/vnd.apache.parquet")
    file.write_bytes(content)
    assert _query(f"SELECT count(*), sum(energy_gpu_wh) FROM read_parquet('{file}')") == [(110, pytest.approx(120.0))]
    assert "series" in json.loads((await downloaded(admin, ""))[2]), "the usual answer"
    for query in ("format=xml", "format=csv&page=x", "format=csv&names=none"):
        status, kind, _ = await downloaded(admin, query)
        assert (status // 100, kind) == (4, "application/json"), query


class _TornHistory(HistoryCalls):
    """Its first page names another one, which never comes."""

    def __init__(self, whole: HistoryCalls, failure: Exception) -> None:
        self._whole, self._failure = whole, failure

    async def read(self, request: history_pb2.ReadHistoryRequest) -> history_pb2.ReadHistoryResponse:
        if request.page:
            raise self._failure
        answer = await self._whole.read(request)
        answer.next_page = "1:0"
        return answer

    async def list_series(self, request: history_pb2.ListSeriesRequest) -> history_pb2.ListSeriesResponse:
        return await self._whole.list_series(request)


@pytest.mark.parametrize("failure", [NotFound("The rest is gone."), RuntimeError("a mistake of ours")])
async def test_half_a_file_is_never_taken_for_a_whole_one(forebay: Invoke, admin: Running, failure: Exception) -> None:
    whole = admin.site.registry.history
    assert whole is not None
    admin.site.registry.history = _TornHistory(whole, failure)
    with pytest.raises(aiohttp.ClientPayloadError):
        await downloaded(admin, "format=csv")
    # In HTTP/1.0, as proxies ask, each end of the connection that is no reset is the end of the file.
    with pytest.raises(ConnectionResetError):
        await _downloaded_in_http_1_0(admin)
    admin.site.registry.history = whole
    assert (await _downloaded_in_http_1_0(admin)).count(b"box/") == 110


async def _downloaded_in_http_1_0(admin: Running) -> bytes:
    reader, writer = await asyncio.open_connection(*admin.http_address.rsplit(":", 1))
    try:
        writer.write(
            f"GET {_address_of(admin, 'format=csv').raw_path_qs} HTTP/1.0\r\n"
            f"authorization: Bearer {admin.site.first_key}\r\n\r\n".encode()
        )
        return await reader.read()
    finally:
        writer.close()


async def test_energy_is_told_by_node_gpu_backend_model_and_group(forebay: Invoke, admin: Running) -> None:
    operator = await admin.operator()
    group = (await operator.AddGroup(name="physics")).group
    async with open_database(admin.site.database_url, "admin") as database:
        records = [usage("llama", group.id, 300), usage("qwen", "gone", 100)]
        payload = usage_pb2.UsageBatch(records=records).SerializeToString()
        rows = parse_batch("forebay.usage.gateway-1", payload, datetime.now(UTC)).rows
        await LedgerStore(database).write(rows, ())

    async def sums(by: str) -> dict[str, tuple[float, float | None]]:
        answer = told(await forebay("energy", "--by", by, *span(), "--json"))
        assert answer["from"] == f"{HOUR:%Y-%m-%dT%H:%M}:00.000Z"
        return {
            s["rest"] or s["name"]: (
                round(s["gpu_wh"], 3),
                s["server_wh"] if s["server_wh"] is None else round(s["server_wh"], 3),
            )
            for s in answer["sums"]
        }

    assert await sums("node") == {"box": (120.0, 240.0)}
    assert await sums("gpu") == {"box/0": (60.0, None), "box/1": (60.0, None)}
    assert await sums("backend") == {"vllm": (60.0, 120.0), "no_backend": (60.0, 120.0)}
    assert await sums("model") == {
        "no_backend": (60.0, 120.0),
        "llama": (36.0, 72.0),
        "idle": (12.0, 24.0),
        "qwen": (12.0, 24.0),
    }
    assert (await sums("group"))["physics"] == (36.0, 72.0)
    assert (await sums("group"))["gone"] == (12.0, 24.0)
    shown = (await forebay("energy", "--by", "model", *span())).stdout
    assert "(without a backend)" in shown
    assert "(backends that ran nothing)" in shown
    assert "GPU only" in (await forebay("energy", "--by", "gpu", *span())).stdout


REFUSED = {
    ("history", "gpu", "box/9"): "no history of a gpu 'box/9'",
    ("history", "gpu", "box/0", "--metric", "speed"): "has no 'speed'",
    ("history", "gpu", "box/0", "--last", "1000d"): "kept for 400 days",
    ("history", "gpu", "box/0", "--last", "20d", "--resolution", "1m"): "Minutes are kept for 14 days",
    ("history", "gpu", "box/0", "--time-zone", "Mars/Olympus"): "not a time zone",
    ("history", "gpu", "box/0", "--from", "2026-02-30"): "is not a time",
    ("energy", "--by", "model", "--last", "90d"): "at most 31 days",
}


async def test_what_cannot_be_answered_is_refused_in_a_sentence_and_what_a_spreadsheet_would_run_is_told_as_text(
    forebay: Invoke, tmp_path: Path
) -> None:
    written = await forebay("history", "export", "--kind", "model", *span())
    assert [row["name"] for row in csv.DictReader(io.StringIO(written.stdout))] == [f"'{EVIL.ref}"]
    names = told(await forebay("history", "list", "gpu", "--json"))
    assert names == {"names": ["box/0", "box/1"], "metrics": list(METRICS[Kind.GPU])}
    refused = await forebay(
        "history", "export", "--kind", "gpu", "--name", "no", *span(), "-o", str(tmp_path / "a.csv")
    )
    assert "no history of a gpu 'no'" in str(refused.exception)
    nowhere = await forebay("history", "export", "--kind", "gpu", *span(), "-o", str(tmp_path / "none" / "a.csv"))
    assert "cannot be written" in str(nowhere.exception)
    assert list(tmp_path.glob("*.csv*")) == []
    for words, why in REFUSED.items():
        result = await forebay(*words)
        assert result.exit_code != 0
        assert why in str(result.exception)


def test_the_rest_api_has_the_same_forms() -> None:
    assert tuple(TYPES) == FORMATS
    assert asked_form({"format": "csv"}, "application/vnd.apache.parquet") == "csv"
    assert asked_form({}, "application/json, */*") is None


def test_an_export_without_rows_is_whole_too(tmp_path: Path) -> None:
    for kind in FORMATS:
        with open_writer(kind, str(tmp_path / kind), ["running"]):
            pass
    assert json.loads((tmp_path / "json").read_text()) == []
    assert (tmp_path / "csv").read_text().startswith("at,kind,name,id,running_min,")
    assert _query(f"SELECT count(*) FROM read_parquet('{tmp_path / 'parquet'}')") == [(0,)]
    with pytest.raises(BadInput, match="name a file"), open_writer("parquet", "-", []):
        pass


def test_without_pyarrow_the_parquet_export_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(BadInput, match=r"forebay\[parquet\]"), open_writer("parquet", str(tmp_path / "a"), []):
        pass
    assert list(tmp_path.iterdir()) == []


def test_small_pictures_show_gaps_as_blanks_and_long_ones_are_drawn_together() -> None:
    assert sparkline([0.0, None, 7.0], 60) == "▁ █"
    assert sparkline([5.0, 5.0], 60) == "▁▁"
    assert sparkline([None, None], 60) == "  "
    assert sparkline([0.0, 2.0, None, None, 7.0, 7.0], 3) == "▁ █"
    assert len(sparkline([float(i) for i in range(1000)], 60)) == 60


def test_amounts_have_the_unit_that_their_name_says() -> None:
    told = {
        "utilization_percent": (12.4, "12 %"),
        "memory_used_bytes": (80e9, "80.0 GB"),
        "power_w": (701.6, "702 W"),
        "nvlink_tx_bytes_per_s": (2.5e6, "2.5 MB/s"),
        "completion_tokens_per_s": (1234.5, "1,234.5"),
        "kv_used_fraction": (0.5, "50 %"),
        "running": (3.0, "3"),
        "load_1m": (0.25, "0.25"),
    }
    assert {metric: amount(metric, number) for metric, (number, _) in told.items()} == {
        metric: text for metric, (_, text) in told.items()
    }
    assert amount("running", None) == ""


def test_days_of_a_zone_are_filled_by_its_calendar() -> None:
    berlin = [datetime(2027, 3, day, 23 if day < 28 else 22, tzinfo=UTC) for day in (26, 27, 28, 29)]
    first, last = (round(at.timestamp() * 1_000_000) for at in (berlin[0], berlin[-1]))
    found = with_gaps([Point(first)], first, last, 86_400, "Europe/Berlin")
    assert [datetime.fromtimestamp(p.at_us / 1e6, UTC) for p in found] == berlin[:3]


def test_spans_are_read_as_people_write_them() -> None:
    now = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
    assert parse_span("1h", None, None, now, "6h").from_us == round((now - 3600) * 1e6)
    assert parse_span(None, "2026-11-30", "2026-11-30T08:00+01:00", now, "6h").to_us == round((now - 5 * 3600) * 1e6)
    for last, since, until in (("1h", "2026-11-30", None), (None, "2026-11-30", "2026-11-29"), (None, None, "today")):
        with pytest.raises(BadInput):
            parse_span(last, since, until, now, "6h")
