"""What is told when all is ready."""

from __future__ import annotations

import asyncio
import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from forebay.local.announcement import Announcement
from forebay.local.data_directory import DataDirectory
from forebay.local.front import Certificate, Front
from forebay.local.layout import Layout

KEY = "fb-0123456789ab-secret"


@pytest.fixture
def announcement(place: Path) -> Announcement:
    data = DataDirectory(place / "with a 'quote")
    data.root.mkdir()
    data.admin_key_file.write_text(KEY + "\n")
    return Announcement(Layout(8090), Front("127.0.0.1", "127.0.0.1", None, None), data, ("it's a model",), KEY, True)


def test_programs_find_addresses_and_key_in_a_file_of_the_owners(announcement: Announcement) -> None:
    announcement.write_connection()
    file = announcement.data.connection_file
    assert json.loads(file.read_text()) == {
        "gateway": "http://127.0.0.1:8090",
        "admin_http": "http://127.0.0.1:8091",
        "admin_grpc": "127.0.0.1:8092",
        "admin_key": KEY,
    }
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_key_is_shown_once(announcement: Announcement) -> None:
    assert KEY in announcement.text()
    assert KEY not in replace(announcement, is_first_start=False).text()


def test_the_dashboard_and_the_link_for_its_first_password_are_told_at_the_first_start(
    announcement: Announcement,
) -> None:
    link = "http://127.0.0.1:8091/sign-in/password?token=fbpwd-x"
    shown = replace(announcement, password_url=link)
    assert "dashboard   http://127.0.0.1:8091" in shown.text()
    assert link in shown.text()
    assert link not in replace(shown, is_first_start=False).text()
    assert "password" not in announcement.text()


def test_without_a_model_it_says_how_to_get_one_and_offers_no_curl(announcement: Announcement) -> None:
    text = replace(announcement, models=()).text()
    assert "forebay backend add" in text
    assert "curl" not in text


def test_with_a_local_authority_the_curl_line_trusts_it(announcement: Announcement, place: Path) -> None:
    certificate = Certificate(place / "c.pem", place / "c.key", place / "ca.pem", "sha256//x")
    shown = replace(announcement, front=Front("10.0.0.1", "10.0.0.1", certificate, None))
    assert f"--cacert {place}/ca.pem https://10.0.0.1:8090/" in shown.curl()


async def test_the_curl_line_works_when_pasted(announcement: Announcement, free_port: Any) -> None:
    asked: list[tuple[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.headers["authorization"], await request.json()))
        return web.Response(text="data: [DONE]\n\n")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    line = replace(announcement, layout=Layout(port)).curl()
    shell = await asyncio.create_subprocess_exec("/bin/sh", "-c", line, stdout=asyncio.subprocess.PIPE)
    out, _ = await shell.communicate()
    await runner.cleanup()
    assert out == b"data: [DONE]\n\n"
    ((key, body),) = asked
    assert key == f"Bearer {KEY}"
    assert body["model"] == "it's a model"
    assert body["stream"] is True


def test_with_certificates_between_parts_commands_are_told_another_port_and_its_authority(
    announcement: Announcement,
) -> None:
    told = replace(announcement, admin_ca=Path("/data/ca.crt"))
    told.write_connection()
    held = json.loads(told.data.connection_file.read_text())
    assert (held["admin_grpc"], held["admin_ca"]) == ("127.0.0.1:8109", "/data/ca.crt")
    assert "127.0.0.1:8109" in told.text()
