"""Pages in browsers: which may call, and that they can read every answer, refusals and streams included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forebay.errors import NotAllowed
from forebay_gateway.config import GatewaySettings
from forebay_gateway.cors import Origins, is_preflight, preflight
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import Pace
from tests.gateway.house import ask, open_house

QUICK = Pace(tokens_per_s=1000, answer_tokens=4)
USUAL: Any = GatewaySettings.__dataclass_fields__["cors_origins"].default
HERE = "http://localhost:3000"
ELSEWHERE = "https://evil.example"
ASKED = "authorization,x-api-key,anthropic-version,x-stainless-lang,openai-beta,x-forebay-priority"


@pytest.mark.parametrize(
    ("allowed", "origin", "is_allowed"),
    [
        (USUAL, "http://localhost", True),
        (USUAL, "https://127.0.0.1:8080", True),
        (USUAL, "http://0.0.0.0:1", True),
        (USUAL, "app://obsidian.md", True),
        (USUAL, "tauri://localhost", True),
        (USUAL, "vscode-webview://0f3a", True),
        (USUAL, "http://localhost.evil.example", False),
        (USUAL, "http://localhost:1.evil.example", False),
        (USUAL, "http://evil.example", False),
        (USUAL, "null", False),
        (USUAL, "", False),
        (USUAL, None, False),
        ((), "http://localhost", False),
        (("*",), "https://any.example", True),
        (("https://chat.example.org/",), "https://Chat.example.org", True),
        (("https://*.example.org",), "https://a.b.example.org", True),
        (("https://*.example.org",), "https://example.org", False),
        (("https://*.example.org",), "https://evil/x.example.org", False),
        (("https://*.example.org",), "http://a.example.org", False),
    ],
)
def test_origins_are_allowed_by_name_port_and_pattern(
    allowed: tuple[str, ...], origin: str | None, is_allowed: bool
) -> None:
    assert Origins(allowed).allow(origin) is is_allowed


def test_an_answer_says_who_may_read_it_and_which_headers() -> None:
    told = ("content-type", "X-Request-Id", "x-forebay-model", "retry-after", "server")
    assert Origins((HERE,)).headers(HERE, told) == {
        "vary": "origin",
        "access-control-allow-origin": HERE,
        "access-control-expose-headers": "retry-after, x-forebay-model, x-request-id",
    }
    assert Origins((HERE,)).headers(ELSEWHERE, told) == {"vary": "origin"}
    assert Origins(("*",)).headers(ELSEWHERE, ())["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("names", ["", "a b", "x\ty", "a,,b", "x" * 5000])
def test_headers_that_are_no_names_are_not_repeated(names: str) -> None:
    asked = {"origin": HERE, "access-control-request-method": "POST", "access-control-request-headers": names}
    assert is_preflight("OPTIONS", asked)
    assert "authorization" in preflight(Origins(USUAL), asked)["access-control-allow-headers"]


def test_pages_from_elsewhere_hear_which_setting_allows_them() -> None:
    with pytest.raises(NotAllowed, match="cors_origins"):
        preflight(Origins(USUAL), {"origin": ELSEWHERE})


async def test_a_page_on_this_machine_asks_first_and_reads_every_answer(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        asks = {"origin": HERE, "access-control-request-method": "POST", "access-control-request-headers": ASKED}
        for path in ("/v1/chat/completions", "/v1/messages", "/api/chat", "/v1/models/a/b", "/nowhere"):
            async with house.client.options(f"{house.url}{path}", headers=asks) as answer:
                assert answer.status == 204
                assert answer.headers["access-control-allow-origin"] == HERE
                assert "POST" in answer.headers["access-control-allow-methods"]
                assert answer.headers["access-control-allow-headers"] == ASKED
                assert answer.headers["access-control-max-age"] == "7200"
                assert "access-control-allow-credentials" not in answer.headers
        for streamed in (True, False):
            async with house.post(ask(stream=streamed), headers={**house.headers, "origin": HERE}) as answer:
                assert answer.status == 200
                assert answer.headers["access-control-allow-origin"] == HERE
                assert answer.headers["vary"] == "origin"
                exposed = answer.headers["access-control-expose-headers"].split(", ")
                assert {"x-request-id", "x-forebay-model", "x-forebay-queue-ms"} <= set(exposed)
        async with house.post(ask(), headers={"origin": HERE}) as answer:
            assert (answer.status, answer.headers["access-control-allow-origin"]) == (401, HERE)
        async with house.client.get(f"{house.url}/nowhere", headers={"origin": HERE}) as answer:
            assert (answer.status, answer.headers["access-control-allow-origin"]) == (404, HERE)


async def test_a_page_from_elsewhere_is_told_nothing_and_others_are_served_as_before(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        asks = {"origin": ELSEWHERE, "access-control-request-method": "POST"}
        async with house.client.options(f"{house.url}/v1/messages", headers=asks) as answer:
            assert (answer.status, (await answer.json())["error"]["type"]) == (403, "permission_error")
            assert "access-control-allow-origin" not in answer.headers
        for headers in ({"origin": ELSEWHERE}, {}):
            async with house.post(ask(), headers={**house.headers, **headers}) as answer:
                assert answer.status == 200
                assert "access-control-allow-origin" not in answer.headers
        async with house.client.options(f"{house.url}/v1/models") as answer:
            assert answer.status == 405


async def test_a_setting_allows_all_pages(tmp_path: Path) -> None:
    async with (
        open_house(tmp_path, FakeEngine(pace=QUICK), cors_origins=("*",)) as house,
        house.post(ask(), headers={**house.headers, "origin": ELSEWHERE}) as answer,
    ):
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "*")


async def test_forebays_own_pages_may_call_whoever_else_may(tmp_path: Path) -> None:
    pages = {"cors_origins": (), "pages_url": f"{ELSEWHERE}/forebay/"}
    async with open_house(tmp_path, FakeEngine(pace=QUICK), **pages) as house:
        asks = {"origin": ELSEWHERE, "access-control-request-method": "POST"}
        async with house.client.options(f"{house.url}/v1/chat/completions", headers=asks) as answer:
            assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, ELSEWHERE)
        asks["origin"] = "https://another.example"
        async with house.client.options(f"{house.url}/v1/chat/completions", headers=asks) as answer:
            assert answer.status == 403


@pytest.mark.parametrize("address", ["forebay.example.org", "https://*", "https://a.example?b", ""])
def test_the_address_of_the_pages_is_one(address: str) -> None:
    files: Any = dict.fromkeys(
        ("token_file", "pepper_file", "snapshot_dir", "snapshot_key_file", "journal_dir"), Path()
    )
    with pytest.raises(ValueError, match="pages_url"):
        GatewaySettings(pages_url=address, **files)
