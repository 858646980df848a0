"""Forms with files, spoilt in every way that a form can be: refused clearly, or on to the engine as they came."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.compatibility.accepting_engine import AcceptingEngine, demand_rest, open_accepting_house
from tests.compatibility.addresses import (
    IMAGE_EDIT,
    TAKES_FORMS,
    TRANSCRIPTION,
    Address,
    Told,
    demand_refusal,
    demand_rows,
    told_for,
)
from tests.gateway.house import MODEL, House

# aiohttp warns of a part whose name it cannot read, and goes on as if it had none.
pytestmark = pytest.mark.filterwarnings(
    "ignore::aiohttp.BadContentDispositionHeader", "ignore:.*:RuntimeWarning:aiohttp"
)

BOUNDARY = "frontier"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"
_END = f"--{BOUNDARY}--\r\n".encode()


def part(content: bytes, *headers: str | bytes) -> bytes:
    head = b"".join((header if isinstance(header, bytes) else header.encode()) + b"\r\n" for header in headers)
    return f"--{BOUNDARY}\r\n".encode() + head + b"\r\n" + content + b"\r\n"


def text(name: str, value: bytes | str) -> bytes:
    told = value if isinstance(value, bytes) else value.encode()
    return part(told, f'content-disposition: form-data; name="{name}"')


def file(
    name: str, filename: str | bytes = "a.wav", content: bytes = b"sound", kind: str | bytes = "audio/wav"
) -> bytes:
    called = filename if isinstance(filename, bytes) else filename.encode()
    told = kind if isinstance(kind, bytes) else kind.encode()
    disposition = f'content-disposition: form-data; name="{name}"; filename="'.encode() + called + b'"'
    return part(content, disposition, b"content-type: " + told)


def files_of(address: Address) -> str:
    return "image" if address is IMAGE_EDIT else "file"


Spoil = Callable[[Address], tuple[str, bytes]]
"""(content type, body)."""


def form(*parts: Callable[[Address], bytes], content_type: str = TYPE, end: bytes = _END) -> Spoil:
    return lambda address: (content_type, b"".join(make(address) for make in parts) + end)


def model(_: Address) -> bytes:
    return text("model", MODEL)


def sound(address: Address) -> bytes:
    return file(files_of(address))


def always(raw: bytes) -> Callable[[Address], bytes]:
    return lambda _: raw


SPOILT: dict[str, tuple[Spoil, int]] = {
    "nothing at all": (form(end=b""), 400),
    "only an end": (form(), 400),
    "no boundary": (form(model, sound, content_type="multipart/form-data"), 400),
    "another boundary": (form(model, sound, content_type="multipart/form-data; boundary=other"), 400),
    "a boundary that is too long": (form(model, sound, content_type=f"multipart/form-data; boundary={'x' * 71}"), 400),
    "an empty boundary": (form(model, sound, content_type="multipart/form-data; boundary="), 400),
    "json": (lambda address: ("application/json", address.body()), 400),
    "json that is called a form": (lambda address: (TYPE, address.body()), 400),
    "an url-encoded form": (lambda _: ("application/x-www-form-urlencoded", b"model=fake-model"), 400),
    "no content type": (lambda _: ("", b"model=fake-model"), 400),
    "another multipart": (form(model, sound, content_type=f"multipart/mixed; boundary={BOUNDARY}"), 400),
    "no end": (form(model, sound, end=b""), 400),
    "cut in a header": (form(model, always(f"--{BOUNDARY}\r\ncontent-dispo".encode()), end=b""), 400),
    "cut after the headers": (
        form(model, always(f"--{BOUNDARY}\r\ncontent-disposition: x\r\n\r\n".encode()), end=b""),
        400,
    ),
    "cut in a file": (lambda address: (TYPE, model(address) + sound(address)[:-9]), 400),
    "a part without headers": (form(model, sound, always(part(b"x"))), 400),
    "a part without a name": (form(model, sound, always(part(b"x", "content-disposition: form-data"))), 400),
    "an empty name": (form(model, sound, always(text("", "x"))), 400),
    "a header that is none": (form(model, sound, always(part(b"x", "what is this"))), 400),
    "a header of nonsense": (form(model, sound, always(part(b"x", b"\xff\xfe: \0"))), 400),
    "a disposition of nonsense": (form(model, sound, always(part(b"x", 'content-disposition: ;;=";'))), 400),
    "a header that is too long": (form(model, sound, always(part(b"x", f"x: {'y' * 20_000}"))), 400),
    "too many headers": (form(model, sound, always(part(b"x", *(f"x-{n}: y" for n in range(200))))), 400),
    "a form in a form": (
        form(model, sound, always(part(b"--b\r\n\r\nx\r\n--b--", "content-type: multipart/mixed; boundary=b"))),
        400,
    ),
    "a form in a form without a boundary": (
        form(model, sound, always(part(b"x", "content-type: multipart/mixed"))),
        400,
    ),
    "a charset that is too long": (form(always(text("_charset_", "x" * 40)), model, sound), 400),
    "a charset that is no text": (form(always(text("_charset_", b"\xff")), model, sound), 400),
    "a thousand parts": (form(model, sound, *(always(text("x", "y")) for _ in range(1000))), 400),
    "a thousand files": (form(model, *(sound for _ in range(1000))), 400),
    "a text of two megabytes": (form(model, sound, always(text("prompt", "x" * (2 << 20)))), 413),
    "a text that is no text": (form(model, sound, always(text("prompt", b"caf\xe9"))), 400),
    "a model that is no text": (form(always(text("model", b"\xff")), sound), 400),
    "no file": (form(model), 400),
    "a file that is a text": (lambda address: (TYPE, model(address) + text(files_of(address), "x") + _END), 400),
    "no model": (form(sound), 400),
    "an empty model": (form(always(text("model", "")), sound), 400),
    "a model that is a file": (form(always(file("model")), sound), 400),
    "a model with a line end": (form(always(text("model", "fake-model\r\nx")), sound), 400),
    "a long model": (form(always(text("model", "x" * 10_000)), sound), 400),
    "an unknown model": (form(always(text("model", "nothing")), sound), 404),
    "a first model that there is not": (form(always(text("model", "nothing")), model, sound), 404),
    "a file name of bytes": (lambda address: (TYPE, model(address) + file(files_of(address), b"\xff.wav") + _END), 400),
    "a file name that ends its header": (
        lambda address: (
            TYPE,
            model(address)
            + part(
                b"x",
                f"content-disposition: form-data; name={files_of(address)}; filename*=UTF-8''a%0d%0ax-evil:%201%0d%0ab",
            )
            + _END,
        ),
        400,
    ),
    "a field name that ends its header": (
        form(model, sound, always(part(b"x", "content-disposition: form-data; name*=UTF-8''a%0d%0ax-evil:%201"))),
        400,
    ),
    "a content type of bytes": (lambda a: (TYPE, model(a) + file(files_of(a), kind=b"audio/\xff") + _END), 400),
    "a content type with a tab": (
        lambda a: (TYPE, model(a) + file(files_of(a), kind=b"audio/wav;\tx=\x01") + _END),
        400,
    ),
}


async def test_a_form_that_is_spoilt_is_refused_and_nothing_of_it_reaches_an_engine(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        seen = []
        for address in TAKES_FORMS:
            for name, (spoil, status) in SPOILT.items():
                content_type, body = spoil(address)
                told = await told_for(house, address, body, {"content-type": content_type})
                assert told.status == status, f"{address}, {name}: {told}"
                demand_refusal(told, address, house)
                seen.append(told)
        assert engine.bodies == []
        await demand_rest(house, engine)
        await demand_rows(house, seen)


COUNTS = ("0", "11", "-1", "1.5", "x", "", "0001", "00019", "²", "1" * 5000, "0001" + "9" * 5000)


async def test_what_counts_no_pictures_or_too_many_is_refused(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        seen = []
        for count in COUNTS:
            body = text("model", MODEL) + text("n", count) + file("image") + _END
            told = await told_for(house, IMAGE_EDIT, body, {"content-type": TYPE})
            assert told.status == 400, f"{count[:20]}: {told}"
            assert len(demand_refusal(told, IMAGE_EDIT, house)) < 200
            seen.append(told)
        assert engine.bodies == []
        await demand_rest(house, engine)
        await demand_rows(house, seen)


ODD_NAMES = (
    "a.wav",
    "two words.wav",
    "río 東京 💧.wav",
    "Screenshot 2024-01-01 at 1.00.00\u202fPM.png",
    "100%.wav",
    "a%20b.wav",
    "a;b=c.wav",
    "a'b.wav",
    "../../etc/passwd",
    "..",
    "",
    " ",
    "a" * 5000,
    "--frontier",
    "a:b|c?.wav",
)


async def test_odd_file_names_reach_the_engine_as_they_are(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        for name in ODD_NAMES:
            body = text("model", MODEL) + file("file", name) + text("prompt", "naïve --frontier") + _END
            await demand_passed(house, engine, body, name)
        quoted = b'content-disposition: form-data; name="file"; filename="say \\"hi\\" \\\\ there.wav"'
        await demand_passed(
            house, engine, text("model", MODEL) + part(b"sound", quoted) + _END, 'say "hi" \\ there.wav'
        )
        await demand_rest(house, engine)
        await house.rows(len(ODD_NAMES) + 1)


async def demand_passed(house: House, engine: AcceptingEngine, body: bytes, name: str) -> None:
    told = await told_for(house, TRANSCRIPTION, body, {"content-type": TYPE})
    assert told.status == 200, f"{name!r}: {told}"
    parts = engine.bodies.pop()
    assert ("file", name, b"sound") in parts, f"{name!r} became {parts}"
    assert ("model", None, MODEL.encode()) in parts


async def test_odd_but_whole_forms_pass_part_for_part(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        texts = text("model", MODEL) + text('odd [name] \\"', "x") + text("x", "") + text("x", b"\0\r\n--")
        files = file("file", content=b"\r\n--frontie\r\n--", kind="nonsense") + file("file", "b", b"", "")
        body = b"a word before\r\n" + texts + files + _END + b"a word after"
        told = await told_for(house, TRANSCRIPTION, body, {"content-type": TYPE})
        assert told.status == 200, told
        assert sorted(engine.bodies.pop(), key=repr) == sorted(
            [
                ("model", None, MODEL.encode()),
                ('odd [name] "', None, b"x"),
                ("x", None, b""),
                ("x", None, b"\0\r\n--"),
                ("file", "a.wav", b"\r\n--frontie\r\n--"),
                ("file", "b", b""),
            ],
            key=repr,
        )
        await demand_rest(house, engine)


async def test_a_form_that_is_larger_than_allowed_is_refused_whether_it_says_so_or_not(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path, max_upload_bytes=10_000) as (house, engine):
        body = text("model", MODEL) + file("file", content=b"x" * 200_000) + _END

        async def pieces() -> Any:
            for start in range(0, len(body), 1000):
                yield body[start : start + 1000]

        seen: list[Told] = []
        for data in (body, pieces()):
            told = await told_for(house, TRANSCRIPTION, data, {"content-type": TYPE})
            assert told.status == 413, told
            demand_refusal(told, TRANSCRIPTION, house)
            seen.append(told)
        assert engine.bodies == []
        await demand_rest(house, engine)
        await demand_rows(house, seen)


async def test_a_client_with_a_recording_that_asks_first_is_told_to_go_on(tmp_path: Path) -> None:
    async with open_accepting_house(tmp_path) as (house, engine):
        data = aiohttp.FormData({"model": MODEL})
        data.add_field("file", b"sound", filename="a.wav")
        async with house.client.post(
            f"{house.url}{TRANSCRIPTION.path}",
            data=data,
            headers=house.headers,
            expect100=True,
            timeout=aiohttp.ClientTimeout(total=5),
        ) as answer:
            assert answer.status == 200
            assert json.loads(await answer.read())["text"] == "yes"
        await demand_rest(house, engine)
