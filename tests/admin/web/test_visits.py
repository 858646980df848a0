"""What all pages have in common: who is let in, what a form has to bring along, and what a browser is told."""

from __future__ import annotations

import pytest

from forebay_admin.people.people import Role
from tests.admin.web.conftest import HTML, House, page

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_front_page_is_a_page_for_browsers_and_json_for_programs(house: House) -> None:
    nobody = await house.nobody()
    status, told = await nobody.call("GET", "/")
    assert (status, told["service"]) == (200, "forebay admin")
    text = await page(nobody, "/")
    assert "<!doctype html>" in text
    assert "Sign in" in text


async def test_a_page_runs_no_script_of_others_and_is_framed_by_nobody(house: House) -> None:
    browser = await house.of(Role.ADMIN)
    async with browser.session.get(f"{browser.url}/", headers=HTML) as answer:
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"


async def test_what_is_not_there_is_a_page_that_says_so(house: House) -> None:
    text = await page(await house.nobody(), "/nowhere", status=404)
    assert "no such page" in text.lower()


async def test_an_asset_is_kept_for_a_year_and_another_address_is_none(house: House) -> None:
    nobody = await house.nobody()
    text = await page(nobody, "/")
    address = text.partition('rel="stylesheet" href="')[2].partition('"')[0]
    async with nobody.session.get(f"{nobody.url}{address}") as answer:
        assert answer.status == 200
        assert "immutable" in answer.headers["cache-control"]
        assert answer.content_type == "text/css"
    assert (await nobody.get("/assets/000000000000/forebay.css"))[0] == 404
    assert (await nobody.get("/assets/../../config.py"))[0] == 404
