"""Conversations: kept for whoever holds them and for nobody else, within limits, shared when they say so."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import pytest

from tests.admin.sign_in.browser import Browser
from tests.admin.web.conftest import HTML, House, page, send

pytestmark = pytest.mark.asyncio(loop_scope="module")

API = "/chat/api"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)


_TOKENS: dict[int, str] = {}


async def token(browser: Browser) -> str:
    """Of the pages of whoever is signed in there."""
    if id(browser) not in _TOKENS:
        _TOKENS[id(browser)] = await browser.csrf()
    return _TOKENS[id(browser)]


async def ask(browser: Browser, verb: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """As the page's script does it."""
    told = {"x-forebay-csrf": await token(browser), **headers}
    data = None
    if body is not None:
        told["content-type"] = "application/json"
        data = io.BytesIO(json.dumps(body).encode())
    async with browser.session.request(verb, f"{browser.url}{API}{path}", data=data, headers=told) as answer:
        return answer.status, await answer.json() if answer.status != 204 else None


async def begun(browser: Browser, **told: Any) -> str:
    status, made = await ask(browser, "POST", "/conversations", told)
    assert status == 201, made
    id: str = made["id"]
    return id


def words(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "user", "parent_id": None, "content": {"parts": [{"type": "text", "text": text}]}, **more}


async def put_file(browser: Browser, id: str, body: bytes, kind: str) -> tuple[int, Any]:
    headers = {"x-forebay-csrf": await token(browser), "content-type": kind}
    url = f"{browser.url}{API}/conversations/{id}/files"
    async with browser.session.post(url, data=io.BytesIO(body), headers=headers) as answer:
        return answer.status, await answer.json()


async def test_a_conversation_is_kept_and_called_by_its_first_words(house: House) -> None:
    alice = await house.signed_in("alice")
    id = await begun(alice, settings={"model": "tiny", "temperature": 0.2})
    text = "What is a forebay, and why is water kept in front of a power plant's turbines at all?"
    assert (await ask(alice, "PUT", f"/conversations/{id}/messages/question1", words(text)))[0] == 200
    answer = {
        "role": "assistant",
        "parent_id": "question1",
        "model": "tiny",
        "content": {"parts": [{"type": "text", "text": "A pool."}], "reasoning": "Hm."},
        "told": {"ttft_ms": 120, "tokens_per_s": 41.5, "completion_tokens": 3, "finish_reason": "stop"},
    }
    assert (await ask(alice, "PUT", f"/conversations/{id}/messages/answer-1", answer))[0] == 200
    status, told = await ask(alice, "GET", f"/conversations/{id}")
    assert status == 200
    assert told["title"] == "What is a forebay, and why is water kept in front of a…"
    assert [(m["id"], m["parent_id"], m["role"]) for m in told["messages"]] == [
        ("question1", None, "user"),
        ("answer-1", "question1", "assistant"),
    ]
    assert told["messages"][1]["told"]["ttft_ms"] == 120
    assert told["settings"] == {"model": "tiny", "temperature": 0.2}
    status, told = await ask(alice, "PATCH", f"/conversations/{id}", {"title": "  Water \n works "})
    assert (status, told["title"]) == (200, "Water works")
    text = await page(alice, f"/chat/{id}")
    assert "Water works" in text
    assert "A pool." in text
    assert "41.5 tokens/s" in text


async def test_an_answer_is_kept_again_when_there_is_more_of_it_and_stays_where_it_is(house: House) -> None:
    alice = await house.signed_in("alice")
    id = await begun(alice)
    await ask(alice, "PUT", f"/conversations/{id}/messages/question1", words("Hello"))
    await ask(alice, "PUT", f"/conversations/{id}/messages/question1", words("Hello again"))
    _, told = await ask(alice, "GET", f"/conversations/{id}")
    assert [m["content"]["parts"][0]["text"] for m in told["messages"]] == ["Hello again"]
    assert told["bytes"] == len('{"parts":[{"type":"text","text":"Hello again"}]}') + len("{}")
    moved = words("Hello", parent_id="question2")
    assert (await ask(alice, "PUT", f"/conversations/{id}/messages/question1", moved))[0] == 400
    lost = words("Hello", parent_id="nobody-said")
    assert (await ask(alice, "PUT", f"/conversations/{id}/messages/question3", lost))[0] == 400
    ring = words("Hello", parent_id="question4")
    assert (await ask(alice, "PUT", f"/conversations/{id}/messages/question4", ring))[0] == 400


async def test_nobody_reads_or_changes_what_is_anothers(house: House) -> None:
    alice, bob = await house.signed_in("alice"), await house.signed_in("bob")
    id = await begun(alice, title="Alice's own")
    await ask(alice, "PUT", f"/conversations/{id}/messages/question1", words("A secret of Alice's"))
    _, made = await put_file(alice, id, PNG, "image/png")
    for verb, path, body in (
        ("GET", f"/conversations/{id}", None),
        ("PATCH", f"/conversations/{id}", {"title": "Bob's now"}),
        ("DELETE", f"/conversations/{id}", None),
        ("PUT", f"/conversations/{id}/messages/question2", words("Hello")),
        ("GET", f"/conversations/{id}/files/{made['digest']}", None),
        ("POST", f"/conversations/{id}/share", None),
        ("DELETE", f"/conversations/{id}/share", None),
    ):
        status, told = await ask(bob, verb, path, body)
        assert (verb, path, status) == (verb, path, 404)
        assert "secret" not in str(told)
    assert (await put_file(bob, id, PNG, "image/png"))[0] == 404
    for path in (f"/chat/{id}", f"/chat/{id}/export?as=markdown"):
        assert "secret" not in await page(bob, path, status=404)
    assert (await send(bob, f"/chat/{id}/delete"))[0] == 404
    _, listed = await ask(bob, "GET", "/conversations?q=secret")
    assert listed["conversations"] == []
    assert (await ask(alice, "GET", f"/conversations/{id}"))[1]["title"] == "Alice's own"


async def test_who_is_not_signed_in_is_told_so_and_a_page_of_another_site_changes_nothing(house: House) -> None:
    nobody, alice = await house.nobody(), await house.signed_in("alice")
    status, told = await nobody.call("GET", f"{API}/conversations")
    assert (status, told["error"]["code"]) == (401, "not_authenticated")
    assert (await nobody.get("/chat", headers=HTML))[0] == 303
    assert (await nobody.get("/share/abcdefghijkl", headers=HTML))[0] == 303
    assert (await alice.call("POST", f"{API}/conversations", {}))[0] == 403
    assert (await alice.call("POST", f"{API}/key", {"model": "tiny"}))[0] == 403
    foreign = {"origin": "https://elsewhere.example"}
    assert (await ask(alice, "POST", "/conversations", {}, **foreign))[0] == 403
    assert (await ask(alice, "POST", "/conversations", {}, **{"sec-fetch-site": "cross-site"}))[0] == 403


async def test_what_is_shared_is_read_by_all_who_are_signed_in_until_it_is_no_longer(house: House) -> None:
    alice, bob, nobody = await house.signed_in("alice"), await house.signed_in("bob"), await house.nobody()
    id = await begun(alice)
    _, made = await put_file(alice, id, PNG, "image/png")
    picture = {"type": "image", "digest": made["digest"], "name": "plan.png"}
    asked = {
        "role": "user",
        "parent_id": None,
        "content": {"parts": [picture, {"type": "text", "text": "<b>Look</b>"}]},
    }
    assert (await ask(alice, "PUT", f"/conversations/{id}/messages/question1", asked))[0] == 200
    _, shared = await ask(alice, "POST", f"/conversations/{id}/share")
    assert shared["url"].endswith(f"/share/{shared['share_id']}")
    assert (await ask(alice, "POST", f"/conversations/{id}/share"))[1] == shared
    text = await page(bob, f"/share/{shared['share_id']}")
    assert "&lt;b&gt;Look&lt;/b&gt;" in text
    assert "alice" in text
    file = f"/share/{shared['share_id']}/files/{made['digest']}"
    async with bob.session.get(f"{bob.url}{file}") as answer:
        assert (answer.status, await answer.read(), answer.content_type) == (200, PNG, "image/png")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert (await nobody.get(f"/share/{shared['share_id']}", headers=HTML))[0] == 303
    assert (await ask(bob, "DELETE", f"/conversations/{id}/share"))[0] == 404
    assert (await ask(alice, "DELETE", f"/conversations/{id}/share"))[0] == 204
    await page(bob, f"/share/{shared['share_id']}", status=404)
    assert (await bob.get(file, headers=HTML))[0] == 404
    _, again = await ask(alice, "POST", f"/conversations/{id}/share")
    assert again["share_id"] != shared["share_id"]


async def test_a_file_is_kept_once_and_only_as_what_it_is(house: House) -> None:
    alice = await house.signed_in("alice")
    id = await begun(alice)
    status, made = await put_file(alice, id, PNG, "image/png")
    assert (status, made["digest"], made["kind"]) == (201, hashlib.sha256(PNG).hexdigest(), "image/png")
    assert (await put_file(alice, id, PNG, "image/png"))[1] == made
    _, told = await ask(alice, "GET", f"/conversations/{id}")
    assert told["bytes"] == len(PNG)
    status, text = await put_file(alice, id, "<script>alert(1)</script> é".encode(), "text/html")
    assert (status, text["kind"]) == (201, "text/plain")
    async with alice.session.get(f"{alice.url}{API}/conversations/{id}/files/{text['digest']}") as answer:
        assert answer.content_type == "text/plain"
        assert answer.headers["content-disposition"] == "attachment"
    for body, kind in (
        (b"GIF no", "image/png"),
        (b"", "text/plain"),
        (b"\xff\xfe\x00", "application/zip"),
        (b"a\0", ""),
    ):
        status, told = await put_file(alice, id, body, kind or "text/plain")
        assert status == 400, told
    status, told = await put_file(alice, id, bytes(11 * 1024 * 1024), "image/png")
    assert (status, "10 MiB" in told["error"]["message"]) == (400, True)
    # There is no content_dir here: what does not fit a row is refused with the reason.
    status, told = await put_file(alice, id, b"a" * (1024 * 1024 + 1), "text/plain")
    assert (status, "content_dir" in told["error"]["message"]) == (409, True)
    unknown = {"type": "file", "digest": "0" * 64, "name": "x.txt"}
    asked = {"role": "user", "parent_id": None, "content": {"parts": [unknown]}}
    assert (await ask(alice, "PUT", f"/conversations/{id}/messages/question1", asked))[0] == 400


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"role": "system", "parent_id": None, "content": {"parts": []}},
        {"role": "user", "content": {"parts": "hello"}},
        {"role": "user", "content": {"parts": [{"type": "html", "text": "x"}]}},
        {"role": "user", "content": {"parts": [{"type": "text", "text": 1}]}},
        {"role": "user", "content": {"parts": [{"type": "text", "text": "a\0b"}]}},
        {"role": "user", "content": {"parts": [{"type": "image", "digest": "../x", "name": "x"}]}},
        {"role": "user", "content": {"parts": []}, "parent_id": "x"},
        {"role": "user", "content": {"parts": []}, "other": 1},
        {"role": "user", "content": {"parts": [], "reasoning": 1}},
        {"role": "assistant", "content": {"parts": []}, "model": "a\nb"},
        {"role": "assistant", "content": {"parts": []}, "told": []},
        {"role": "user", "content": {"parts": [{"type": "text", "text": "x"}] * 41}},
        {"role": "user", "content": {"parts": [{"type": "text", "text": "x" * (2 * 1024 * 1024)}]}},
    ],
)
async def test_a_message_that_cannot_be_meant_is_refused_in_words(house: House, told: dict[str, Any]) -> None:
    alice = await house.signed_in("alice")
    status, answer = await ask(alice, "PUT", f"/conversations/{await begun(alice)}/messages/question1", told)
    assert status == 400
    assert answer["error"]["message"]


async def test_what_is_no_message_at_all_is_refused_too(house: House) -> None:
    alice = await house.signed_in("alice")
    id = await begun(alice)
    for body in (b"[]", b"{", b'"x"', b"", b'{"a": "\\ud800"}'):
        headers = {"x-forebay-csrf": await token(alice), "content-type": "application/json"}
        url = f"{alice.url}{API}/conversations/{id}/messages/question1"
        async with alice.session.put(url, data=body, headers=headers) as answer:
            assert answer.status == 400, body
    assert (await ask(alice, "PUT", f"/conversations/{id}/messages/no%20id", words("x")))[0] == 400
    assert (await ask(alice, "PATCH", f"/conversations/{id}", {"title": ""}))[0] == 400
    assert (await ask(alice, "PATCH", f"/conversations/{id}", {"settings": {"system": "x" * 140_000}}))[0] == 400
    assert (await ask(alice, "GET", "/conversations/none-such"))[0] == 404
    assert (await ask(alice, "GET", f"/conversations?q={'x' * 300}"))[0] == 400


async def test_the_list_has_the_newest_first_in_pieces_and_finds_what_was_said(house: House) -> None:
    carol = await house.signed_in("carol")
    ids = [await begun(carol, title=f"Conversation {number}") for number in range(52)]
    _, first = await ask(carol, "GET", "/conversations")
    assert [one["id"] for one in first["conversations"]] == ids[:1:-1]
    assert first["has_more"]
    _, rest = await ask(carol, "GET", f"/conversations?after={first['conversations'][-1]['id']}")
    assert ([one["id"] for one in rest["conversations"]], rest["has_more"]) == (ids[1::-1], False)
    await ask(carol, "PUT", f"/conversations/{ids[3]}/messages/question1", words("Where do 100% of otters sleep?"))
    _, found = await ask(carol, "GET", "/conversations?q=100%25 of OTTERS")
    assert [one["id"] for one in found["conversations"]] == [ids[3]]
    assert "Older" in await page(carol, "/chat")
    assert "Conversation 3<" in await page(carol, "/chat?q=otters")


async def test_a_conversation_goes_with_all_that_was_said_in_it(house: House) -> None:
    alice = await house.signed_in("alice")
    id = await begun(alice)
    await ask(alice, "PUT", f"/conversations/{id}/messages/question1", words("Hello"))
    await put_file(alice, id, PNG, "image/png")
    assert (await ask(alice, "DELETE", f"/conversations/{id}"))[0] == 204
    assert (await ask(alice, "GET", f"/conversations/{id}"))[0] == 404
    assert (await ask(alice, "DELETE", f"/conversations/{id}"))[0] == 404
    id = await begun(alice)
    status, _, location = await send(alice, f"/chat/{id}/delete")
    assert (status, location) == (303, "/chat")
    assert (await ask(alice, "GET", f"/conversations/{id}"))[0] == 404


async def test_it_is_saved_as_markdown_and_as_json(house: House) -> None:
    alice = await house.signed_in("alice")
    id = await begun(alice, settings={"system": "Be brief."})
    await ask(alice, "PUT", f"/conversations/{id}/messages/question1", words("What is 1+1?"))
    call = {"function": {"name": "add", "arguments": '{"a": "```"}'}}
    answer = {
        "role": "assistant",
        "parent_id": "question1",
        "model": "tiny",
        "content": {"parts": [{"type": "text", "text": "**2**"}], "reasoning": "Easy.", "tool_calls": [call]},
    }
    await ask(alice, "PUT", f"/conversations/{id}/messages/answer-1", answer)
    async with alice.session.get(f"{alice.url}/chat/{id}/export?as=markdown") as told:
        assert told.headers["content-disposition"] == 'attachment; filename="What-is-1-1.md"'
        text = await told.text()
    for piece in (
        "# What is 1+1?",
        "> System: Be brief.",
        "## You",
        "## tiny",
        "**2**",
        "Easy.",
        '```\nadd({"a": "```"})',
    ):
        assert piece in text
    async with alice.session.get(f"{alice.url}/chat/{id}/export?as=json") as told:
        whole = await told.json()
    assert [m["id"] for m in whole["messages"]] == ["question1", "answer-1"]


async def test_the_page_may_call_the_gateway_and_nobody_else(house: House) -> None:
    alice = await house.signed_in("alice")
    for path in ("/chat", "/playground"):
        async with alice.session.get(f"{alice.url}{path}", headers=HTML) as answer:
            policy = answer.headers["content-security-policy"]
        assert "connect-src 'self' http://127.0.0.1:8090;" in policy
        assert "unsafe" not in policy
    assert (await alice.get("/chat?mode=playground", headers=HTML))[2] == "/playground"


async def test_models_are_told_with_what_they_can_to_whoever_may_use_them(house: House) -> None:
    alice = await house.signed_in("alice")
    await house.root.RegisterBackend(name="b1", url="http://127.0.0.1:9", kind=1)
    status, told = await ask(alice, "GET", "/models")
    assert status == 200
    assert [(one["name"], one["is_well"], one["talks"]) for one in told["models"]] == [("tiny", True, True)]
