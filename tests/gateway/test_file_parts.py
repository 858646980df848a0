"""What a model is shown of a file, by the file's bytes."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_gateway.canonical.file_parts import File, FilePart, PlacedPart, file_parts, fold_texts, has_files, shown
from forebay_gateway.canonical.media_types import type_by_content, type_by_name
from forebay_gateway.refused import BadField

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
PDF = b"%PDF-1.7\n\xff\xfe"
AT = "messages[0].content[0].file."
NAMED = FilePart({}, {}, AT)
PICTURE = FilePart({}, {"detail": "low"}, AT, is_picture=True)


def show(content: bytes, *, name: str = "a.bin", kind: str = "application/octet-stream") -> dict[str, Any]:
    return shown(File(name, content, kind), NAMED, f"{AT}file_id").part


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0rest", "image/jpeg"),
        (b"GIF89a....", "image/gif"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "image/webp"),
    ],
)
def test_a_picture_is_shown_as_one_whatever_it_is_called(content: bytes, kind: str) -> None:
    url = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    assert show(content, name="a.txt", kind="text/plain") == {"type": "image_url", "image_url": {"url": url}}
    exact = shown(File("a", content, ""), PICTURE, "p").part
    assert exact == {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def test_a_text_is_shown_with_its_name_which_ends_nothing() -> None:
    told = shown(File('a">.md', "\ufeff# Grüße 🎉".encode(), "image/png"), NAMED, "p")
    assert told.part == {"type": "text", "text": '<file name="a&quot;&gt;.md">\n# Grüße 🎉\n</file>'}
    assert told.text_bytes == len(told.part["text"].encode())


def test_a_pdf_stays_what_it_is() -> None:
    told = shown(File("a.pdf", PDF, "text/plain"), NAMED, "p")
    url = f"data:application/pdf;base64,{base64.b64encode(PDF).decode()}"
    assert (told.part, told.is_document) == ({"type": "file", "file": {"filename": "a.pdf", "file_data": url}}, True)
    as_it_came = "data:application/pdf;name=a.pdf;base64,JVBERi0xLjcK//4="
    assert shown(File("a", PDF, "", url=as_it_came), NAMED, "p").part["file"]["file_data"] == as_it_came


@pytest.mark.parametrize("content", [b"\xff\x00\xfe", b"text with a \x00", b"PK\x03\x04\xff"])
def test_what_no_model_reads_is_refused_with_its_field(content: bytes) -> None:
    with pytest.raises(BadField) as refused:
        show(content, name="a.docx")
    assert refused.value.param == f"{AT}file_id"


@pytest.mark.parametrize("content", [b"a text", PDF, b"\xff\x00"])
def test_where_a_picture_is_meant_nothing_else_will_do(content: bytes) -> None:
    with pytest.raises(BadField, match="no picture"):
        shown(File("a.txt", content, type_by_name("a.txt")), PICTURE, "p")


def test_a_picture_of_a_rarer_kind_is_told_by_its_name() -> None:
    assert (
        show(b"II*\x00\xff", name="a.tiff", kind=type_by_name("a.tiff"))["image_url"]["url"][:16] == "data:image/tiff;"
    )


@given(st.binary(), st.text())
def test_any_file_is_shown_whole_or_refused(content: bytes, name: str) -> None:
    try:
        told = shown(File(name, content, type_by_name(name)), NAMED, "p")
    except BadField:
        assert type_by_content(content) is None
        return
    if told.part["type"] == "text":
        assert told.part["text"].removesuffix("\n</file>").encode().endswith(content.removeprefix(b"\xef\xbb\xbf"))
    else:
        url = told.part.get("image_url", {}).get("url") or told.part["file"]["file_data"]
        assert base64.b64decode(url.partition(",")[2]) == content


@pytest.mark.parametrize(
    ("told", "param"),
    [
        ({}, "file_id"),
        ({"filename": "a"}, "file_id"),
        ({"file_id": 3}, "file_id"),
        ({"file_data": ["x"]}, "file_data"),
        ({"file_id": "file-1", "file_data": "eA=="}, "file_data"),
    ],
)
def test_a_file_is_named_once(told: dict[str, Any], param: str) -> None:
    with pytest.raises(BadField) as refused:
        FilePart({}, told, AT).source()
    assert refused.value.param == f"{AT}{param}"


def test_files_are_found_where_chats_have_them_and_by_the_clients_own_places() -> None:
    file, picture = {"type": "file", "file": {"file_id": "f"}}, {"type": "image_url", "image_url": {"file_id": "p"}}
    placed = PlacedPart({"type": "file", "file": {"file_id": "r"}}, "input[3].content[1].")
    other: list[Any] = ["x", None, {"type": "image_url", "image_url": {"url": "data:"}}, {"type": "text", "text": "x"}]
    fields = {"messages": [{"content": "text"}, {"content": [*other, file, picture, placed]}, {"role": "user"}]}
    found = list(file_parts(fields))
    assert [(part.at, part.is_picture) for part in found] == [
        ("messages[1].content[4].file.", False),
        ("messages[1].content[5].image_url.", True),
        ("input[3].content[1].", False),
    ]
    assert [part.part for part in found] == [file, picture, placed]
    assert has_files(fields)
    assert not has_files({"messages": [{"content": other}]})
    assert not has_files({"messages": "x"})


def test_a_message_of_texts_alone_becomes_one_text() -> None:
    marked = {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}
    texts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    fields: dict[str, Any] = {
        "messages": [{"content": texts}, {"content": [texts[0], marked]}, {"content": "x"}, {"content": None}]
    }
    fold_texts(fields)
    assert [message["content"] for message in fields["messages"]] == ["a\nb", [texts[0], marked], "x", None]
