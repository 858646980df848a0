"""OpenAI's files with its SDK and with forms of all sorts: sent, listed, read and deleted, and whose they are."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay_gateway.dialects.openai.file import as_attachment
from tests.gateway.house import House, open_house
from tests.gateway.test_stored_responses import SOMEBODY_ELSE, open_sdk

BOUNDARY = "b0undary"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def form(*parts: tuple[str, str | None, bytes]) -> bytes:
    """(name, file name, content) of each."""
    body = b""
    for name, filename, content in parts:
        called = f'; filename="{filename}"' if filename is not None else ""
        body += f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"{called}\r\n\r\n'.encode()
        body += content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


GOOD = form(("purpose", None, b"user_data"), ("file", "a.txt", b"hello\n" * 40))


async def send(house: House, body: bytes, **headers: str) -> tuple[int, Any]:
    address = f"{house.url}/v1/files"
    async with house.client.post(address, data=body, headers={**house.headers, **FORM, **headers}) as answer:
        return answer.status, await answer.json()


def kept(house: House) -> list[str]:
    return [thing.id for thing in house.admin.contents.kept("file")]


async def test_a_file_is_sent_told_listed_read_and_deleted(tmp_path: Path) -> None:
    content = bytes(range(256)) * 3000
    async with open_house(tmp_path) as house, open_sdk(house) as sdk:
        file = await sdk.files.create(file=("naïve 🎉.jsonl", io.BytesIO(content)), purpose="user_data")
        assert file.id.startswith("file-")
        assert len(file.id) == 5 + 24
        told = (file.object, file.bytes, file.filename, file.purpose, file.status, file.expires_at)
        assert told == ("file", len(content), "naïve 🎉.jsonl", "user_data", "processed", None)
        assert await sdk.files.retrieve(file.id) == file
        assert await sdk.files.wait_for_processing(file.id) == file
        assert [one async for one in await sdk.files.list()] == [file]
        (thing,) = house.admin.contents.kept("file")
        assert json.loads(thing.body) == {"filename": "naïve 🎉.jsonl", "purpose": "user_data"}
        assert (await sdk.files.content(file.id)).read() == content
        gone = await sdk.files.delete(file.id)
        assert (gone.id, gone.object, gone.deleted) == (file.id, "file", True)
        for asked in (sdk.files.retrieve(file.id), sdk.files.delete(file.id), sdk.files.content(file.id)):
            with pytest.raises(openai.NotFoundError, match=f"No such File object: {file.id}") as error:
                await asked
            assert error.value.param == "id"
        await house.rows(0, wait_s=0.1)


async def test_the_bytes_come_with_their_type_and_a_name_that_ends_no_header(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for name, kind in (
            ("a.json", "application/json"),
            ("a.JSONL", "application/jsonl"),
            ("notes.md", "text/markdown"),
            ("a.pdf", "application/pdf"),
            ("noname", "application/octet-stream"),
            ("data:text/html,x", "application/octet-stream"),
        ):
            _, file = await send(house, form(("file", name, b"x"), ("purpose", None, b"evals")))
            address = f"{house.url}/v1/files/{file['id']}/content"
            async with house.client.get(address, headers=house.headers) as answer:
                assert answer.headers["content-type"] == kind
                assert answer.headers["content-length"] == "1"
                assert answer.headers["content-disposition"].startswith("attachment; ")
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert answer.content_disposition is not None
                assert answer.content_disposition.filename == name
            async with house.client.head(address, headers=house.headers) as answer:
                assert (answer.status, answer.headers["content-length"], await answer.read()) == (200, "1", b"")


@given(st.text(st.characters(exclude_categories=())))
def test_no_name_can_end_the_header_that_it_is_told_in(name: str) -> None:
    header = as_attachment(name)
    assert header.isascii()
    assert header.isprintable()
    plain = header.removeprefix('attachment; filename="').partition('"; filename*=')[0]
    assert '"' not in plain
    assert "\\" not in plain


async def test_files_come_in_pages_by_time_and_by_purpose(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, open_sdk(house) as sdk:
        for number in range(5):
            purpose: Any = "vision" if number % 2 else "evals"
            await sdk.files.create(file=(f"{number}.txt", b"x"), purpose=purpose)

        async def names(**wish: Any) -> list[str]:
            return [file.filename[0] async for file in await sdk.files.list(**wish)]

        assert await names() == ["4", "3", "2", "1", "0"]
        assert await names(order="asc", limit=2) == ["0", "1", "2", "3", "4"]
        assert await names(purpose="vision") == ["3", "1"]
        assert await names(purpose="batch") == []
        page = await sdk.files.list(limit=2, purpose="evals")
        raw: Any = page.to_dict()
        assert (page.has_more, raw["object"], len(page.data)) == (True, "list", 2)
        assert (raw["first_id"], raw["last_id"]) == (page.data[0].id, page.data[1].id)
        assert await names(limit=10_000, after=page.data[1].id) == ["1", "0"]
        for wish, param in (({"limit": 0}, "limit"), ({"limit": 10_001}, "limit"), ({"order": "up"}, "order")):
            with pytest.raises(openai.BadRequestError) as bad:
                await names(**wish)
            assert bad.value.param == param
        for unknown_id in ("file-unknown", "\x00"):
            with pytest.raises(openai.NotFoundError) as unknown:
                await names(after=unknown_id)
            assert unknown.value.param == "after"


async def test_a_long_list_is_read_to_its_end(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, open_sdk(house) as sdk:
        file = await sdk.files.create(file=("0.txt", b"x"), purpose="evals")
        things = house.admin.contents.things
        for number in range(1, 250):
            copied = type(things["file", file.id])()
            copied.CopyFrom(things["file", file.id])
            copied.id = f"file-{number:024}"
            copied.created_at_us += number
            things["file", copied.id] = copied
        page = await sdk.files.list(order="asc")
        assert [one.id for one in page.data[1:]] == [f"file-{number:024}" for number in range(1, 250)]
        assert not page.has_more
        page = await sdk.files.list(limit=200)
        assert (len(page.data), page.has_more) == (200, True)


async def test_a_file_goes_when_its_time_is_over_and_a_batch_after_thirty_days(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, open_sdk(house) as sdk:
        hour: Any = {"anchor": "created_at", "seconds": 3600}
        file = await sdk.files.create(file=("a.txt", b"x"), purpose="evals", expires_after=hour)
        assert file.expires_at == file.created_at + 3600
        batch = await sdk.files.create(file=("a.jsonl", b"{}"), purpose="batch")
        assert batch.expires_at == batch.created_at + 30 * 86400
        for seconds in (3599, 2_592_001, -1):
            wrong: Any = {**hour, "seconds": seconds}
            with pytest.raises(openai.BadRequestError) as bad:
                await sdk.files.create(file=("a.txt", b"x"), purpose="evals", expires_after=wrong)
            assert bad.value.param == "expires_after.seconds"
        as_json = json.dumps(hour).encode()
        status, told = await send(
            house, form(("expires_after", None, as_json), ("file", "a", b"x"), ("purpose", None, b"evals"))
        )
        assert (status, told["expires_at"] - told["created_at"]) == (200, 3600)


async def test_another_users_file_is_not_there(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, open_sdk(house) as alice:
        file = await alice.files.create(file=("a.txt", b"secret"), purpose="user_data")
        bobs = house.admin.add_key(**SOMEBODY_ELSE)
        await asyncio.sleep(0.1)
        async with open_sdk(house, bobs) as bob:
            for asked in (bob.files.retrieve(file.id), bob.files.delete(file.id), bob.files.content(file.id)):
                with pytest.raises(openai.NotFoundError, match="No such File object"):
                    await asked
            assert (await bob.files.list()).data == []
        assert (await alice.files.content(file.id)).read() == b"secret"
        async with house.client.get(f"{house.url}/v1/files/{file.id}") as answer:
            assert answer.status == 401


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (form(("purpose", None, b"user_data")), "file"),
        (form(("purpose", None, b"user_data"), ("file", None, b"a text")), "file"),
        (form(("purpose", None, b"user_data"), ("data", "a.txt", b"x")), "file"),
        (form(("purpose", None, b"user_data"), ("file", "a", b"x"), ("file", "b", b"x")), "file"),
        (form(("purpose", None, b"user_data"), ("file", "a.txt", b"")), "file"),
        (form(("purpose", None, b"user_data"), ("file", "n" * 600, b"x")), "file"),
        (form(("file", "a.txt", b"x")), "purpose"),
        (form(("purpose", None, b"fun"), ("file", "a.txt", b"x")), "purpose"),
        (form(("purpose", None, b"batch_output"), ("file", "a.txt", b"x")), "purpose"),
        (
            form(("purpose", None, b"evals"), ("file", "a", b"x"), ("expires_after[seconds]", None, b"3600")),
            "expires_after.anchor",
        ),
        (
            form(("purpose", None, b"evals"), ("file", "a", b"x"), ("expires_after", None, b"3600")),
            "expires_after",
        ),
        (b"", None),
        (b"{}", None),
    ],
)
async def test_a_form_that_makes_no_sense_is_refused_and_nothing_is_kept(
    tmp_path: Path, body: bytes, param: str | None
) -> None:
    async with open_house(tmp_path) as house:
        status, told = await send(house, body)
        assert (status, told["error"]["param"], told["error"]["type"]) == (400, param, "invalid_request_error")
        assert kept(house) == []


async def test_a_file_that_is_too_large_is_refused_by_the_gateway_and_by_admin(tmp_path: Path) -> None:
    async with open_house(tmp_path, max_upload_bytes=3000) as house:
        large = form(("purpose", None, b"evals"), ("file", "a", bytes(4000)))
        status, told = await send(house, large)
        assert (status, told["error"]["code"]) == (413, "request_too_large")
        house.admin.contents.most_blob_bytes = 1000
        status, told = await send(house, form(("purpose", None, b"evals"), ("file", "a", bytes(1001))))
        assert (status, told["error"]["code"]) == (413, "request_too_large")
        assert "1000 bytes" in told["error"]["message"]
        assert kept(house) == []


async def test_nothing_is_kept_of_an_upload_that_is_cut_anywhere(tmp_path: Path) -> None:
    """The head promises all of it, and the connection ends before."""
    async with open_house(tmp_path) as house:
        host, _, port = house.url.removeprefix("http://").partition(":")
        head = (
            f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {house.key}\r\n"
            f"content-type: {FORM['content-type']}\r\ncontent-length: {len(GOOD)}\r\n\r\n"
        ).encode()
        loop = asyncio.get_running_loop()

        async def cut(at: int) -> None:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(head + GOOD[:at])
            writer.write_eof()
            await asyncio.wait_for(reader.read(), 30)  # until the gateway is done with it
            writer.close()

        async def try_all(places: list[int]) -> None:
            await asyncio.gather(*map(cut, places))
            status, told = await send(house, GOOD)  # the gateway is as well as before
            assert status == 200
            assert kept(house) == [told["id"]]
            house.admin.contents.things.clear()

        @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(st.integers(0, len(GOOD) - 1), min_size=1, max_size=20))
        def check(places: list[int]) -> None:
            asyncio.run_coroutine_threadsafe(try_all(places), loop).result(30)

        await asyncio.to_thread(check)
        assert kept(house) == []


async def test_while_admin_is_away_files_are_out_of_reach_and_say_so(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, open_sdk(house) as sdk:
        file = await sdk.files.create(file=("a.txt", b"x"), purpose="evals")
        for _ in range(2):
            for asked in (
                sdk.files.create(file=("b.txt", b"x"), purpose="evals"),
                sdk.files.retrieve(file.id),
                sdk.files.list(),
                sdk.files.content(file.id),
                sdk.files.delete(file.id),
            ):
                if not house.admin.contents.is_broken:
                    house.admin.contents.is_broken = True
                with pytest.raises(openai.InternalServerError) as away:
                    await asked
                assert (away.value.status_code, away.value.code) == (503, "state_unavailable")
            if "AdminDouble" in house.servers:
                await house.stop_server(house.admin)
        assert kept(house) == [file.id]


async def test_a_file_that_breaks_off_is_cut_off(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, open_sdk(house) as sdk:
        file = await sdk.files.create(file=("a.bin", bytes(900_000)), purpose="evals")
        address = f"{house.url}/v1/files/{file.id}/content"
        house.admin.contents.cut_after = 600_000
        async with house.client.get(address, headers=house.headers) as answer:
            assert answer.status == 200
            with pytest.raises(aiohttp.ClientError):
                await answer.read()
        house.admin.contents.cut_after = 0
        async with house.client.get(address, headers=house.headers) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (503, "state_unavailable")


async def test_uploads_in_parts_and_anthropics_files_are_refused_in_their_dialects(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, open_sdk(house) as sdk:
        with pytest.raises(openai.InternalServerError, match="POST /v1/files") as refused:
            await sdk.uploads.create(bytes=3, filename="a.txt", mime_type="text/plain", purpose="user_data")
        assert (refused.value.status_code, refused.value.code) == (501, "not_implemented")
        status, told = await send(house, GOOD, **{"anthropic-version": "2023-06-01"})
        assert (status, told["type"], told["error"]["type"]) == (501, "error", "api_error")
        assert "Anthropic's form" in told["error"]["message"]
        assert kept(house) == []
