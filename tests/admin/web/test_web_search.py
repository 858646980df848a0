"""The chat's web search: what is asked of the search server, what is believed of its answers, and how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from forebay.clock import ManualClock
from forebay.errors import BadInput, CannotStart
from forebay_admin.chat import web_search
from forebay_admin.chat.found_sources import (
    MOST_FOUND,
    MOST_QUERY,
    Source,
    demand_query,
    is_public,
    kept_sources,
    sources_of,
)
from forebay_admin.chat.opening import make_chat
from forebay_admin.chat.web_search import MOST_ANSWER_BYTES, SearchFailed, WebSearch
from forebay_admin.config import AdminSettings
from forebay_admin.sign_in.pace import TooOften
from tests.admin.sign_in.browser import Browser
from tests.admin.web.conftest import House, page
from tests.admin.web.test_chat import ask, begun
from tests.fakes.search_server import SearchServer, open_search_server

RIVER = {"title": "Rivers", "url": "https://example.org/rivers", "content": "A river flows.", "engine": "x"}
asynchronous = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def server() -> Iterator[SearchServer]:
    with open_search_server(results=[RIVER]) as found:
        yield found


def search_at(server: SearchServer, key: str = "") -> WebSearch:
    return WebSearch(server.url, key, ManualClock())


def answer(*results: Any) -> bytes:
    return orjson.dumps({"results": results})


# --- what is believed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "ftp://example.org/",
        "https:///x",
        "/rivers",
        "http://localhost/",
        "http://printer/",
        "http://printer.local./",
        "http://127.0.0.1/",
        "http://10.1.2.3:8080/x",
        "http://169.254.169.254/latest",
        "http://[::1]/",
        "http://[fd00::1]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://user:pass@example.org/",
        "http://example.org:99999999/",
        "http://[/",
    ],
)
def test_what_is_no_public_page_is_no_source(url: str) -> None:
    assert not is_public(url)
    assert sources_of(answer({**RIVER, "url": url})) == ()


def test_public_pages_are_sources() -> None:
    for url in ("https://example.org/a?b=c#d", "http://198.41.0.4/", "https://münchen.example/", "HTTPS://Example.ORG"):
        assert is_public(url), url


def test_results_are_read_each_once_and_not_too_many() -> None:
    many = [{**RIVER, "url": f"https://example.org/{number}"} for number in range(2 * MOST_FOUND)]
    assert [one.url for one in sources_of(answer(many[0], *many))] == [one["url"] for one in many[:MOST_FOUND]]


def test_what_is_told_of_a_page_is_plain_and_bounded() -> None:
    hidden = "Fine \u202e\u200b\x00\n\n words " + "x" * 5000
    (source,) = sources_of(answer({"title": hidden, "url": "https://example.org/", "content": hidden}))
    assert source.title.startswith("Fine words x")
    assert (len(source.title), len(source.text)) == (200, 1000)
    (nameless,) = sources_of(answer({"url": "https://example.org/a", "title": None, "content": 5}))
    assert nameless == Source("example.org", "https://example.org/a", "")


@pytest.mark.parametrize("url", ["https://example.org/<b>", 'https://example.org/"', "https://e.org/ x", 7, None])
def test_what_is_no_address_is_left_out(url: Any) -> None:
    assert sources_of(answer({**RIVER, "url": url}, "nonsense", RIVER)) == (
        Source("Rivers", RIVER["url"], RIVER["content"]),
    )


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"results": {}}'])
def test_what_is_no_answer_is_told(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        sources_of(body)


def test_what_a_page_keeps_is_read_as_carefully() -> None:
    kept = {"title": "Rivers", "url": RIVER["url"], "text": "A river flows."}
    assert kept_sources({"sources": [kept, {**kept, "url": "javascript:alert(1)"}, 3]}) == (Source(**kept),)
    for told in ({}, {"sources": "x"}, {"sources": None}):
        assert kept_sources(told) == ()


def test_a_question_is_one_line_and_cut() -> None:
    assert demand_query(" What\nis \x00a   forebay? ") == "What is a forebay?"
    assert len(demand_query("why " * 1000)) <= MOST_QUERY
    for wrong in ("", " \n", None, 5, ["a"]):
        with pytest.raises(BadInput):
            demand_query(wrong)


# --- what is asked ----------------------------------------------------------------------------------------------------


@asynchronous
async def test_the_search_server_is_asked_for_json_with_its_key(server: SearchServer) -> None:
    server.url += "?categories=general"
    assert await search_at(server, "s3cret").find("u", "What is a river?") == (
        Source("Rivers", RIVER["url"], "A river flows."),
    )
    assert server.asked == [{"categories": "general", "q": "What is a river?", "format": "json"}]
    assert server.keys == ["Bearer s3cret"]
    await search_at(server).find("u", "a&b=c")
    assert (server.asked[1]["q"], server.keys[1]) == ("a&b=c", "")


@asynchronous
@pytest.mark.parametrize("status", [302, 403, 500])
async def test_another_status_is_no_answer_and_no_redirect_is_followed(server: SearchServer, status: int) -> None:
    server.status = status
    with pytest.raises(SearchFailed):
        await search_at(server).find("u", "river")
    assert len(server.asked) == 1


@asynchronous
async def test_an_answer_without_end_is_left(server: SearchServer) -> None:
    server.body = b'{"results": ["' + b"x" * MOST_ANSWER_BYTES + b'"]}'
    with pytest.raises(SearchFailed) as caught:
        await search_at(server).find("u", "river")
    assert "more than" in str(caught.value.__cause__)


@asynchronous
async def test_one_that_does_not_answer_is_waited_for_a_while(
    server: SearchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.stalls = True
    monkeypatch.setattr(web_search, "LONGEST_S", 0.3)
    with pytest.raises(SearchFailed) as caught:
        await search_at(server).find("u", "river")
    assert isinstance(caught.value.__cause__, TimeoutError)


@asynchronous
async def test_one_user_searches_only_so_often(server: SearchServer) -> None:
    search = search_at(server)
    for _ in range(6):
        await search.find("u", "river")
    with pytest.raises(TooOften):
        await search.find("u", "river")
    assert len(server.asked) == 6
    assert await search.find("another", "river")


# --- of the pages -----------------------------------------------------------------------------------------------------


@asynchronous
async def test_without_a_search_server_there_is_no_switch_and_no_search(house: House) -> None:
    alice = await house.signed_in("alice")
    assert 'id="chat-web"' not in await page(alice, "/chat")
    status, told = await ask(alice, "POST", "/search", {"query": "river"})
    assert (status, "web_search_url" in str(told)) == (404, True)


@asynchronous
async def test_with_one_there_is_a_switch_and_it_finds(house: House, server: SearchServer) -> None:
    async with house.another(web_search_url=server.url) as there:
        browser = Browser(f"http://{there.http_address}", (await house.signed_in("alice")).session)
        assert "looked up at 127.0.0.1 first" in await page(browser, "/chat")
        status, told = await ask(browser, "POST", "/search", {"query": "river"})
        source = {"title": "Rivers", "url": RIVER["url"], "text": "A river flows."}
        assert (status, told) == (200, {"sources": [source]})
        assert (await ask(browser, "POST", "/search", {"query": ""}))[0] == 400
        server.status = 500
        assert (await ask(browser, "POST", "/search", {"query": "river"}))[0] == 503


@asynchronous
async def test_what_was_found_is_shown_with_what_was_answered(house: House) -> None:
    alice = await house.signed_in("alice")
    id = await begun(alice, title="Rivers")
    source = {"title": "<b>Rivers</b>", "url": RIVER["url"], "text": "x"}
    evil = {"title": "Evil", "url": "javascript:alert(1)", "text": "x"}
    said = {
        "role": "assistant",
        "parent_id": None,
        "content": {"parts": [{"type": "text", "text": "They flow [1]."}]},
        "told": {"sources": [source, evil]},
    }
    assert (await ask(alice, "PUT", f"/conversations/{id}/messages/answer-one", said))[0] == 200
    _, shared = await ask(alice, "POST", f"/conversations/{id}/share")
    text = await page(alice, f"/share/{shared['share_id']}")
    assert f'<a href="{RIVER["url"]}" rel="noopener noreferrer nofollow"' in text
    assert "&lt;b&gt;Rivers&lt;/b&gt;</a>" in text
    assert "javascript:" not in text
    _, markdown, _ = await alice.get(f"/chat/{id}/export?as=markdown")
    assert f"1. <b>Rivers</b>: <{RIVER['url']}>" in markdown


# --- how it is configured ---------------------------------------------------------------------------------------------

FILES: dict[str, Any] = {name: Path(name) for name in ("token_file", "callers_file", "pepper_file", "seal_key_file")}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"web_search_url": "search.example.org"}, "not the address of a search server"),
        ({"web_search_url": "file:///etc/passwd"}, "not the address of a search server"),
        ({"web_search_key_file": Path("key")}, "without web_search_url"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_told(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        AdminSettings(**FILES, **settings)


def test_a_key_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    settings = AdminSettings(
        **FILES, web_search_url="https://search.example.org/search", web_search_key_file=tmp_path / "none"
    )
    nothing: Any = None
    with pytest.raises(CannotStart, match="cannot be read"):
        make_chat(settings, nothing, nothing, nothing, nothing, b"pepper", ManualClock())
