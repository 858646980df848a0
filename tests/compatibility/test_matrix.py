"""Every official client library against every kind of engine, feature by feature; and the page that tells of it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.compatibility.features import broken_stream, broken_whole, wrong_key
from tests.compatibility.matrix import CLIENTS, ENGINES, Cell, Engine, Outcome, Tried, cells, client_of, serving, tried
from tests.compatibility.openai_clients import OpenAICompletions
from tests.compatibility.page import PAGE, page_of
from tests.compatibility.wants import Client
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_flavours import Flavour

_WITHIN_S = 20.0


async def test_every_cell_works_or_is_refused_with_a_reason_and_the_page_tells_which(tmp_path: Path) -> None:
    told: dict[Cell, Tried] = {}
    for engine in ENGINES:
        async with serving(tmp_path / engine.kind_name, engine) as (house, _):
            for made in CLIENTS:
                async with client_of(made, house.url, str(house.key)) as client:
                    for cell in cells():
                        if (cell.client, cell.engine) == (made, engine):
                            told[cell] = await asyncio.wait_for(tried(cell, client), _WITHIN_S)
    assert [f"{cell}: {seen.why}" for cell, seen in told.items() if seen.outcome is Outcome.FAILS] == []
    page = page_of(told)
    if os.environ.get("FOREBAY_WRITE_DOCS"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page, "docs/compatibility.md is out of date: FOREBAY_WRITE_DOCS=1 writes it anew"


_ASKED = [
    pytest.param(made, engine, id=f"{engine.name}-{made.name}")
    for engine in ENGINES
    for made in CLIENTS
    if made is not OpenAICompletions or isinstance(engine.fake, Flavour)  # cloud providers know nothing but chats
]


@pytest.mark.parametrize(("made", "engine"), _ASKED)
async def test_an_engine_that_dies_is_an_error_in_every_library_and_never_a_clean_end(
    tmp_path: Path, made: type[Client], engine: Engine
) -> None:
    async with serving(tmp_path, engine) as (house, fake), client_of(made, house.url, str(house.key)) as client:
        fake.faults.add(Fault(FaultKind.CUT_AFTER, chunks=3))
        await broken_stream(client)
        fake.faults.add(Fault(FaultKind.CLOSE_BEFORE_HEADERS, times=99))
        await broken_whole(client)


@pytest.mark.parametrize("made", CLIENTS, ids=lambda made: made.name)
async def test_a_wrong_key_is_the_error_that_the_library_has_for_it(tmp_path: Path, made: type[Client]) -> None:
    async with serving(tmp_path, ENGINES[0]) as (house, _), client_of(made, house.url, "fb-nobody-nothing") as client:
        await wrong_key(client)
