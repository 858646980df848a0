"""A fast fake engine for the fake's own tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import Pace
from tests.fakes.engine_process import EngineControl


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    """Two slots, ten tokens an answer, 200 a second."""
    async with FakeEngine(slots=2, pace=Pace(tokens_per_s=200, ttft_s=0.01, answer_tokens=10)) as engine:
        yield engine


@pytest.fixture
def control(engine: FakeEngine, session: aiohttp.ClientSession) -> EngineControl:
    return EngineControl(engine.url, session)
