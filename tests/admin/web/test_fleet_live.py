"""What stays true on an open page of the fleet: each topic's piece, what it says when a source is away, and its rights."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from forebay.wire.v1 import library_pb2, registry_pb2
from forebay_admin.people.people import Role
from tests.admin.sign_in.browser import Browser
from tests.admin.web.conftest import House, page
from tests.admin.web.fleet_house import fill

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def fleet(house: House) -> None:
    fill(house)
    house.admin.site.library.jobs["mj-1"] = library_pb2.ModelJob(
        id="mj-1",
        action=library_pb2.MODEL_ACTION_PULL,
        model="gemma3",
        state=library_pb2.MODEL_JOB_STATE_RUNNING,
        targets=[library_pb2.ModelJobTarget(backend="ollama-1", total_bytes=10, completed_bytes=4)],
    )


async def first_piece(browser: Browser, topic: str) -> str:
    """The HTML of the first event of that topic."""
    async with asyncio.timeout(60), browser.session.get(f"{browser.url}/live", params={"topics": topic}) as answer:
        assert answer.status == 200, await answer.text()
        found: list[str] = []
        is_ours = False
        async for raw in answer.content:
            line = raw.decode().rstrip("\n")
            if line == f"event: {topic}":
                is_ours = True
            elif is_ours and line.startswith("data: "):
                found.append(line.removeprefix("data: "))
            elif is_ours and not line:
                return "\n".join(found)
    raise AssertionError(topic)


TOPICS = {
    "overview": "Parts of Forebay",
    "nodes": "RTX 6000",
    "node:box": "Processes on GPU 0",
    "backends": "ollama-1",
    "backends:pool=night": "cloud",
    "backend:ollama-1": "firewall",
    "models": "org/qwen3:8b",
    "jobs": "gemma3",
    "job:mj-1": "gemma3",
}


async def test_every_topic_sends_its_piece_with_no_form_in_it(house: House) -> None:
    auditor = await house.of(Role.AUDITOR)
    for topic, said in TOPICS.items():
        piece = await first_piece(auditor, topic)
        assert said in piece, topic
        assert "<form" not in piece, topic
        assert "csrf" not in piece, topic


async def test_a_filter_goes_with_its_topic(house: House) -> None:
    piece = await first_piece(await house.of(Role.AUDITOR), "backends:pool=night")
    assert "cloud" in piece
    assert "ollama-1" not in piece
    text = await page(await house.of(Role.AUDITOR), "/console/backends?pool=night")
    assert 'data-live="backends:pool=night"' in text


async def test_what_was_searched_for_goes_with_the_map_of_models_whatever_is_in_it(house: House) -> None:
    auditor = await house.of(Role.AUDITOR)
    text = await page(auditor, "/console/models?q=qwen3:8b,+or+so")
    assert 'data-live="models:qwen3%3A8b%2C%20or%20so"' in text
    assert "No model fits" in await first_piece(auditor, "models:qwen3%3A8b%2C%20or%20so")
    assert "llama3.1" not in await first_piece(auditor, "models:qwen3%3A8b")


async def test_a_member_hears_nothing_of_the_fleet(house: House) -> None:
    member = await house.of(Role.MEMBER)
    for topic in (*TOPICS, "active-users"):
        status, _, _ = await member.get(f"/live?topics={topic}")
        assert status == 403, topic


async def test_a_node_that_falls_silent_looks_so_on_an_open_page(house: House) -> None:
    house.admin.site.registry.enrolled["box"].heard_at_us -= 600_000_000
    piece = await first_piece(await house.of(Role.AUDITOR), "node:box")
    assert "It is silent" in piece
    assert "is-stale" in piece


async def test_a_page_whose_queue_cannot_be_asked_says_so_and_shows_the_rest(house: House) -> None:
    for scheduler in house.admin.site.schedulers:
        scheduler.leads = False
    try:
        for path in ("/console", "/console/backends", "/console/backends/vllm"):
            text = await page(await house.of(Role.OPERATOR), path)
            assert "vllm" in text
        assert "Not known at the moment" in await page(await house.of(Role.OPERATOR), "/console")
    finally:
        for scheduler in house.admin.site.schedulers:
            scheduler.leads = True


async def test_what_an_engine_says_cannot_become_markup(house: House) -> None:
    evil = "<img src=x onerror=alert(1)>"
    backend = house.admin.site.registry.known["vllm"]
    backend.health_reason = evil
    backend.models.append(registry_pb2.BackendModel(name=evil, loaded=True))
    for path in ("/console/backends", "/console/backends/vllm", "/console/models", "/console/nodes/box"):
        text = await page(await house.of(Role.AUDITOR), path)
        assert evil not in text
        assert "&lt;img" in text
