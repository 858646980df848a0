"""One pair of gateways for all tests of a file, on the loop that gateways run on; clients that go, on every loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from forebay.launch import loop_factory
from tests.gateway.conformance.pair import Pair, open_pair


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    own, fastest = asyncio.new_event_loop, loop_factory()
    if fastest is None:
        return {"asyncio": own}
    # What a loop makes of an end and of a client that does not read is its own affair.
    return {"asyncio": own, "uvloop": fastest} if item.path.stem == "test_leaving" else {"uvloop": fastest}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateways(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with open_pair(tmp_path_factory.mktemp("pair"), max_body_bytes=16 << 20) as pair:
        yield pair


@pytest.fixture
def pair(gateways: Pair) -> Pair:
    gateways.forget()
    return gateways
