"""Whose energy it was, by tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from math import nan
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.clock import ManualClock
from forebay.database import Database
from forebay.wire.v1 import history_pb2 as wire
from forebay_admin.fleet.energy import Hour, Rest, Spent, Sum, attribute
from forebay_admin.fleet.history_client import HistoryClient
from forebay_admin.fleet.history_desk import HistoryDesk

ONE: Hour = ("be-1", 3600)
TWO: Hour = ("be-2", 3600)


def spent(gpu_wh: float, server_wh: float | None = None, idle_wh: float | None = None) -> Spent:
    return Spent(gpu_wh, server_wh, idle_wh, is_estimated=False)


def test_a_backends_hour_is_divided_by_tokens_and_what_it_took_for_nothing_stands_apart() -> None:
    found = attribute([(ONE, spent(100.0, 150.0, idle_wh=20.0))], {ONE: {"llama": 300, "qwen": 100}})
    assert {whose: one.gpu_wh for whose, one in found.items()} == {Rest.IDLE: 20.0, "llama": 60.0, "qwen": 20.0}
    assert {whose: one.server_wh for whose, one in found.items()} == {Rest.IDLE: 30.0, "llama": 90.0, "qwen": 30.0}
    assert (found["llama"].tokens, found[Rest.IDLE].idle_wh, found["llama"].idle_wh) == (300, 20.0, 0.0)


def test_work_for_requests_that_no_ledger_knows_is_nobodys_of_the_ledger() -> None:
    found = attribute([(ONE, spent(10.0, idle_wh=4.0)), (TWO, spent(7.0))], {})
    assert {whose: one.gpu_wh for whose, one in found.items()} == {Rest.IDLE: 4.0, Rest.ELSEWHERE: 13.0}


def test_each_backend_is_divided_by_its_own_tokens_and_a_model_may_be_called_as_the_rest_is() -> None:
    found = attribute([(ONE, spent(10.0, 20.0)), (TWO, spent(6.0))], {ONE: {"idle": 1}, TWO: {"idle": 1, "b": 2}})
    assert {whose: one.gpu_wh for whose, one in found.items()} == {"idle": 12.0, "b": 4.0}
    assert (found["idle"].server_wh, found["idle"].gpu_only_wh) == (20.0, 2.0), "only one of the hosts tells"
    assert (found["b"].server_wh, found["b"].gpu_only_wh) == (None, 4.0)


def test_what_is_left_of_a_whole_is_never_less_than_nothing() -> None:
    assert Sum(10.0, 20.0, gpu_only_wh=1.0).without(Sum(4.0, None, gpu_only_wh=3.0)) == Sum(6.0, 20.0, gpu_only_wh=0.0)
    assert Sum(1.0).without(Sum(2.0)).gpu_wh == 0.0


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.floats(0, 1e4), st.none() | st.floats(0, 1e4), st.none() | st.floats(0, 1.2)), max_size=6),
    st.dictionaries(st.integers(0, 5), st.dictionaries(st.sampled_from("abc"), st.integers(0, 10**9))),
)
def test_nothing_is_lost_and_nothing_made_up(
    hours: list[tuple[float, float | None, float | None]], tokens: dict[int, dict[str, int]]
) -> None:
    all_spent = [
        (("be-1", at), spent(gpu, server, None if idle is None else idle * gpu))
        for at, (gpu, server, idle) in enumerate(hours)
    ]
    found = attribute(all_spent, {("be-1", at): whose for at, whose in tokens.items()})
    assert sum(one.gpu_wh for one in found.values()) == pytest.approx(sum(one.gpu_wh for _, one in all_spent))
    servers = sum(one.server_wh or 0.0 for _, one in all_spent if one.gpu_wh)
    assert sum(one.server_wh or 0.0 for one in found.values()) == pytest.approx(servers)


async def test_a_machine_without_gpus_has_its_energy_told_as_nobodys() -> None:
    class OneServer:
        async def energy(
            self, kind: wire.SeriesKind.ValueType, since: datetime, until: datetime, *, is_whole: bool
        ) -> AsyncIterator[wire.HistorySeries]:
            if kind == wire.SERIES_KIND_NODE:
                told: dict[str, Any] = {"gpu_wh": [nan], "server_wh": [25.0], "idle_wh": [nan], "estimated": [False]}
                yield wire.HistorySeries(name="box", at_us=[0], **told)

    desk = HistoryDesk(cast(Database, None), cast(HistoryClient, OneServer()), ManualClock())
    hour_us = 3600 * 1_000_000
    asked = wire.ShowEnergyRequest(by=wire.ENERGY_BY_BACKEND, from_us=hour_us, to_us=2 * hour_us)
    (rest,) = (await desk.show_energy(asked)).sums
    assert (rest.rest, rest.gpu_wh, rest.server_wh) == (wire.ENERGY_REST_NO_BACKEND, 0.0, 25.0)
