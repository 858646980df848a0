"""The pages of the fleet over HTTP: what each role sees, and what it cannot do however it asks."""

from __future__ import annotations

import re

import pytest
import pytest_asyncio

from forebay_admin.people.people import Role
from tests.admin.web.conftest import House, page
from tests.admin.web.fleet_house import fill

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGES = (
    "/console",
    "/console/alerts",
    "/console/alerts?closed=1",
    "/console/nodes",
    "/console/nodes/box",
    "/console/nodes/old?span=week",
    "/console/backends",
    "/console/backends?pool=night&sort=held&desc=1&q=cloud",
    "/console/backends/vllm",
    "/console/backends/ollama-1",
    "/console/found-backends",
    "/console/models",
    "/console/models?tab=rules",
    "/console/models?tab=prices&all=1",
    "/console/models/llama3.1",
    "/console/models/org/qwen3%3A8b",
)
FORMS = ("/console/add-backend", "/console/invite-node")
"""Pages of forms, for those who may send them."""


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def fleet(house: House) -> None:
    fill(house)


@pytest.mark.parametrize("path", PAGES)
async def test_whoever_runs_or_reviews_the_fleet_sees_it_and_a_member_does_not(house: House, path: str) -> None:
    for role in (Role.ADMIN, Role.OPERATOR, Role.AUDITOR):
        assert "<h1>" in await page(await house.of(role), path)
    assert "may not see" in await page(await house.of(Role.MEMBER), path, status=403)


@pytest.mark.parametrize("path", FORMS)
async def test_a_form_is_for_those_who_may_send_it(house: House, path: str) -> None:
    await page(await house.of(Role.OPERATOR), path)
    await page(await house.of(Role.AUDITOR), path, status=403)


@pytest.mark.parametrize("path", PAGES)
async def test_a_reviewer_is_offered_no_form_at_all(house: House, path: str) -> None:
    text = await page(await house.of(Role.AUDITOR), path)
    posts = re.findall(r'<form[^>]*method="post" action="([^"]+)"', text)
    assert posts == ["/sign-out"]
