"""History in a real Postgres: written once, merged, summed up, read in pieces, and dropped."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text

from forebay.clock import ManualClock
from forebay.database import Database
from forebay.errors import BadInput, NotFound
from forebay_registry.history import reading as reading_module
from forebay_registry.history.grid import Kept
from forebay_registry.history.reading import HistoryReader, Page, Question
from forebay_registry.history.rollup import Energy, Minute
from forebay_registry.history.series import METRICS, Kind, Series
from forebay_registry.history.store import HistoryStore, NotWritten, Superseded

NOON = datetime(2027, 3, 10, 12, tzinfo=UTC)
KEPT = Kept(14 * 86_400.0, 400 * 86_400.0)
ONE, TWO = Series(Kind.GPU, "no-1/0"), Series(Kind.GPU, "no-1/1")
NAMES = {ONE: "gpu-1/0", TWO: "gpu-1/1", Series(Kind.BACKEND, "be-1"): "big"}


def at(hours: float = 0, minutes: float = 0) -> int:
    return round((NOON + timedelta(hours=hours, minutes=minutes)).timestamp())


def minute(when: int, used: float, series: Series = ONE, samples: int = 30, wh: float | None = 1.0) -> Minute:
    """The first metric only; the rest was not told."""
    untold: list[float | None] = [None] * (len(METRICS[series.kind]) - 1)
    energy = Energy(gpu_wh=wh, measured_s=60.0 if wh is not None else 0.0)
    told = [samples, *[0] * len(untold)]
    return Minute(
        series, when, told, [used - 1, *untold], [used, *untold], [used + 1, *untold], [used, *untold], energy
    )


class House:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = HistoryStore(database)
        self.clock = ManualClock(at(hours=6))
        self.reader = HistoryReader(database, self.clock, KEPT)

    async def write(self, *minutes: Minute) -> None:
        await self.store.write(uuid4(), minutes, NAMES.__getitem__)

    async def read(self, since: int, until: int, resolution_s: int = 60, **more: object) -> Page:
        asked = {"kind": Kind.GPU, "names": ["gpu-1/0"], **more}
        return await self.reader.read(Question(since=since, until=until, resolution_s=resolution_s, **asked))  # type: ignore[arg-type]


@pytest.fixture
async def house(database: Database) -> House:
    house = House(database)
    await house.store.begin(0.0)
    return house


def means(page: Page, series: int = 0) -> dict[int, float | None]:
    found = page.series[series]
    return {place: point.values["utilization_percent"].mean for place, point in found.points.items() if point.values}


async def test_minutes_come_back_as_they_were_and_what_is_missing_is_a_gap(house: House) -> None:
    await house.write(minute(at(), 10), minute(at(minutes=2), 30))
    page = await house.read(at(), at(minutes=5))
    assert means(page) == {0: 10.0, 2: 30.0}
    point = page.series[0].points[2]
    told = point.values["utilization_percent"]
    assert (told.samples, told.least, told.most, told.last) == (30, 29.0, 31.0, 30.0)
    assert set(point.values) == {"utilization_percent"}, "what was not told is not there"
    assert point.energy == Energy(gpu_wh=1.0, measured_s=60.0)


async def test_a_batch_whose_answer_was_lost_counts_once(house: House) -> None:
    flush = uuid4()
    for _ in range(2):
        await house.store.write(flush, [minute(at(), 10)], NAMES.__getitem__)
    (point,) = (await house.read(at(), at(minutes=1))).series[0].points.values()
    assert point.values["utilization_percent"].samples == 30
    assert point.energy == Energy(gpu_wh=1.0, measured_s=60.0)


async def test_a_registry_that_was_restarted_goes_on_with_the_minute_it_was_in(house: House) -> None:
    await house.write(minute(at(), 10, samples=10), minute(at(), 5, TWO))
    again = HistoryStore(house.database)
    await again.begin(0.0)
    await again.write(uuid4(), [minute(at(), 40, samples=20), minute(at(minutes=1), 7)], NAMES.__getitem__)
    page = await house.read(at(), at(minutes=2), names=[])
    told = page.series[0].points[0].values["utilization_percent"]
    assert (told.samples, told.least, told.mean, told.most, told.last) == (30, 9.0, 30.0, 41.0, 40.0)
    assert page.series[0].points[0].energy == Energy(gpu_wh=2.0, measured_s=120.0)
    assert means(page, 1) == {0: 5.0}, "and the others are as they were"


async def test_one_that_was_cut_off_while_another_wrote_adds_nothing(house: House) -> None:
    await house.write(minute(at(), 10))
    other = HistoryStore(house.database)
    await other.begin(0.0)
    await other.write(uuid4(), [minute(at(minutes=1), 10)], NAMES.__getitem__)
    with pytest.raises(Superseded):
        await house.write(minute(at(minutes=1), 99))
    assert means(await house.read(at(), at(minutes=2))) == {0: 10.0, 1: 10.0}
    await house.store.begin(0.0)
    await house.write(minute(at(minutes=2), 20))


async def test_hours_are_summed_up_once_they_are_over_and_again_when_a_minute_comes_late(house: House) -> None:
    busy = [minute(at(minutes=m), 90, samples=30) for m in range(10)]
    idle = [minute(at(minutes=m), 10, samples=6) for m in range(10, 50)]
    await house.write(*busy, *idle, minute(at(hours=1), 50))
    before = means(await house.read(at(), at(hours=2), 3600))
    assert await house.store.sum_up(at(hours=1, minutes=1)) == 0, "its last minute may still come"
    assert await house.store.sum_up(at(hours=1, minutes=2)) == 1
    after = means(await house.read(at(), at(hours=2), 3600))
    assert before == after == {0: pytest.approx(26.0), 1: 50.0}, "each minute counts the same, told often or not"
    await house.write(minute(at(minutes=55), 10), minute(at(minutes=5), 90))
    late = await house.read(at(), at(hours=1), 3600)
    assert await house.store.sum_up(at(hours=1, minutes=3)) == 1
    summed = await house.read(at(), at(hours=1), 3600)
    for page in (late, summed):
        point = page.series[0].points[0]
        assert point.values["utilization_percent"].samples == 10 * 30 + 40 * 6 + 60
        assert point.values["utilization_percent"].least == 9.0
        assert point.values["utilization_percent"].last == 10.0
        assert point.energy is not None
        assert point.energy.gpu_wh == 52.0


async def test_an_hour_of_which_only_the_energy_is_known_is_told_without_numbers(house: House) -> None:
    bare = Minute(ONE, at(), [], [], [], [], [], Energy(gpu_wh=3.0, measured_s=60.0))
    await house.write(bare)
    await house.store.sum_up(at(hours=2))
    (point,) = (await house.read(at(), at(hours=1), 3600)).series[0].points.values()
    assert (point.values, point.energy) == ({}, Energy(gpu_wh=3.0, measured_s=60.0))


async def test_days_of_a_zone_are_made_of_its_hours_those_that_are_not_summed_up_among_them(house: House) -> None:
    house.clock.advance(20 * 3600)
    await house.write(*(minute(at(hours=h), h) for h in range(8, 15)))
    await house.store.sum_up(at(hours=12))
    page = await house.read(at(hours=8), at(hours=15), 86_400, zone="Asia/Kolkata")  # its day begins at 18:30 UTC
    assert [point.energy.gpu_wh for point in page.series[0].points.values() if point.energy] == [7.0]
    assert page.grid.edges[0] == datetime(2027, 3, 10, 18, 30, tzinfo=UTC)


async def test_long_answers_come_in_pages_and_together_they_are_the_whole(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.write(*(minute(at(minutes=m), m, series) for m in range(20) for series in (ONE, TWO)))
    whole = await house.read(at(), at(minutes=20), names=[])
    assert whole.next == ""
    for most in (7, 20, 33):
        monkeypatch.setattr(reading_module, "PAGE", most * len(METRICS[Kind.GPU]))
        told: dict[str, dict[int, float | None]] = {}
        page = ""
        while True:
            part = await house.read(at(), at(minutes=20), names=[], page=page)
            assert sum(f.last - f.first for f in part.series) <= most
            for index, found in enumerate(part.series):
                told.setdefault(found.name, {}).update(means(part, index))
            if not (page := part.next):
                break
        assert told == {"gpu-1/0": means(whole, 0), "gpu-1/1": means(whole, 1)}


async def test_what_there_is_not_is_said_and_what_is_near_is_named(house: House) -> None:
    await house.write(minute(at(), 1))
    with pytest.raises(NotFound, match=r"no history of a gpu 'gpu-1/9'. There are: gpu-1/0"):
        await house.read(at(), at(minutes=1), names=["gpu-1/9"])
    with pytest.raises(BadInput, match="has no 'speed'; there are utilization_percent"):
        await house.read(at(), at(minutes=1), metrics=["speed"])
    for page in ("x", "99999:0", "1:77"):
        with pytest.raises(BadInput):
            await house.read(at(), at(minutes=1), page=page)
    assert await house.reader.names(Kind.GPU) == ["gpu-1/0"]
    assert (await house.read(at(), at(minutes=1), kind=Kind.MODEL, names=[])).series == ()


async def test_values_that_no_column_takes_are_refused_and_the_next_batch_is_written(house: House) -> None:
    with pytest.raises(NotWritten, match="PostgreSQL refuses"):
        await house.store.write(uuid4(), [minute(at(), 1)], lambda series: "a\0b")
    with pytest.raises(NotWritten, match="PostgreSQL refuses"):
        await house.write(minute(at(), 1, samples=99_999))
    await house.write(minute(at(), 1))
    assert means(await house.read(at(), at(minutes=1))) == {0: 1.0}


async def test_old_partitions_go_and_what_is_left_can_still_be_read(house: House) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    today, old = round(now.timestamp()), round((now - timedelta(days=20)).timestamp())
    house.clock.advance(today + 60 - house.clock.now())
    await house.write(minute(old, 1), minute(today, 2))
    await house.store.prepare(today)
    async with house.database.writing() as connection:
        foreign = "CREATE TABLE registry.history_minutes_elsewhere PARTITION OF registry.history_minutes "
        await connection.execute(text(foreign + "FOR VALUES FROM ('2001-01-01') TO ('2002-01-01')"))
    assert await house.store.drop_old(today, KEPT.minutes_s, KEPT.hours_s) == 1
    async with house.database.reading() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM registry.history_minutes")) == 1
        names = set(
            await connection.scalars(text("SELECT relname FROM pg_class WHERE relname LIKE 'history_minutes_%'"))
        )
    made = {f"history_minutes_{now + timedelta(days=d):%Y%m%d}" for d in (-1, 3)}
    assert made | {"history_minutes_elsewhere"} <= names, "what was not made here is left alone"
    assert means(await house.read(today, today + 60)) == {0: 2.0}
    await house.write(minute(old, 3))  # one that comes late has its partition made again


async def test_a_clock_that_is_ahead_throws_nothing_away(house: House) -> None:
    lately = round(time.time()) // 60 * 60  # PostgreSQL's own clock is looked at
    await house.write(minute(lately, 1))
    assert await house.store.drop_old(at(hours=24 * 365 * 30), KEPT.minutes_s, KEPT.hours_s) == 0


async def test_an_hour_that_cannot_be_summed_up_stays_as_minutes_and_holds_up_no_other(house: House) -> None:
    too_small = 1.5e-45  # the mean of this and nothing fits in no REAL
    tiny = replace(minute(at(), 1), means=[too_small, *[None] * 13])
    zero = replace(minute(at(minutes=1), 1), means=[0.0, *[None] * 13])
    await house.write(tiny, zero, minute(at(hours=1), 7))
    assert await house.store.sum_up(at(hours=3)) == 1
    assert await house.store.sum_up(at(hours=3)) == 0
    assert means(await house.read(at(), at(hours=2), 3600)) == {0: pytest.approx(0.0), 1: 7.0}


async def test_energy_that_is_told_late_is_idle_where_its_minute_was(house: House) -> None:
    backend = Series(Kind.BACKEND, "be-1")
    for offset, running in ((0, 0.0), (1, 3.0)):
        idle, told = 0.5 if not running else 0.0, [1.0, running, 0.0, *[None] * 7]
        there = Energy(gpu_wh=0.5, idle_wh=idle, measured_s=50.0)
        await house.write(Minute(backend, at(minutes=offset), [30] * 3 + [0] * 7, told, told, told, told, there))
        late = Energy(gpu_wh=0.25, measured_s=10.0)
        await house.write(Minute(backend, at(minutes=offset), [], [], [], [], [], late))
    page = await house.read(at(), at(minutes=2), kind=Kind.BACKEND, names=["big"])
    energies = [page.series[0].points[place].energy for place in (0, 1)]
    assert [(e.gpu_wh, e.idle_wh) for e in energies if e] == [(0.75, 0.75), (0.75, 0.0)]


async def test_a_read_of_one_series_touches_its_days_only_and_goes_by_the_index(house: House) -> None:
    await house.write(minute(at(), 1), minute(at(hours=-48), 1))
    async with house.database.reading() as connection:
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join(
            await connection.scalars(
                text(
                    "EXPLAIN SELECT * FROM registry.history_minutes WHERE series_id = ANY(CAST('{1}' AS int[])) "
                    f"AND at >= '{NOON.isoformat()}' AND at < '{(NOON + timedelta(hours=1)).isoformat()}'"
                )
            )
        )
    assert "history_minutes_20270310_pkey" in plan
    assert "20270308" not in plan
