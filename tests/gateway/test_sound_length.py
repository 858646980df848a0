"""How long a sound is, told by its own bytes, by a transcript, and in the row of who asked."""

from __future__ import annotations

import io
import struct
import wave
from pathlib import Path

import aiohttp
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_gateway.canonical.sound_length import SoundLength
from forebay_gateway.ledger.sound import length_of_file, length_told
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.gateway.house import MODEL, House, open_house

RATE = 8000


def wav(seconds: float, *, told: int | None = None, after: bytes = b"") -> bytes:
    """16 bits in two channels. `told`: the size that the data is said to have."""
    written = io.BytesIO()
    with wave.open(written, "wb") as sound:
        sound.setnchannels(2)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(bytes(4 * int(RATE * seconds)))
    whole = bytearray(written.getvalue())
    if told is not None:
        struct.pack_into("<I", whole, 40, told)
    return bytes(whole) + after


def flac(samples: int, rate: int = 44_100) -> bytes:
    packed = rate << 44 | 1 << 41 | 15 << 36 | samples
    return b"fLaC\x80\x00\x00\x22" + bytes(10) + packed.to_bytes(8, "big") + bytes(16) + b"\xff\xf8" * 500


def page(granule: int, body: bytes, *, serial: int = 7, begins: bool = False) -> bytes:
    sizes = [255] * (len(body) // 255) + [len(body) % 255]
    head = b"OggS\0" + bytes([2 * begins]) + struct.pack("<qIII", granule, serial, 0, 0)
    return head + bytes([len(sizes)]) + bytes(sizes) + body


def opus(seconds: float, serial: int = 7, first: int = 48_000) -> bytes:
    head = b"OpusHead\1\1" + struct.pack("<HIH", 312, 16_000, 0) + b"\0"
    end = int(48_000 * seconds) + 312
    pages = [page(0, head, serial=serial, begins=True), page(0, b"OpusTags", serial=serial)]
    return b"".join(
        [*pages, page(first, bytes(700), serial=serial), page(-1, b"", serial=serial), page(end, bytes(300))]
    )


def vorbis(seconds: int) -> bytes:
    head = b"\1vorbis" + struct.pack("<IBI", 0, 1, 22_050) + bytes(15)
    return page(0, head, begins=True) + page(22_050 * seconds, bytes(4000))


def mp3(frames: int, *, header: bytes = b"\xff\xfb\x90\x00", size: int = 417, tagged: bool = False) -> bytes:
    """Of layer III at 128 kbit/s and 44.1 kHz: 1152 samples in 417 bytes."""
    told = header + bytes(32) + b"Xing" + bytes(size - 40)
    tag = b"ID3\4\0\0" + bytes([0, 0, 2, 0]) + bytes(256)
    body = (header + bytes(size - 4)) * frames
    return tag + told + body + b"TAG" + bytes(125) if tagged else body


FRAMES_MS = 100 * 1152 * 1000 // 44_100
SOUNDS = {
    "wav": (wav(1.5), 1500),
    "a wav that is written as it is made": (wav(1.5, told=0xFFFFFFFF), 1500),
    "a wav that does not know": (wav(1.5, told=0), 1500),
    "a wav with something after its sound": (wav(1.5, after=b"LIST\x04\0\0\0abcd"), 1500),
    "a wav that breaks off": (wav(1.5)[: 44 + 4 * RATE], 1000),
    "flac": (flac(44_100 * 3), 3000),
    "opus": (opus(2.5), 2500),
    "two of them, one after the other": (opus(2.5) + opus(1.5), 4000),
    "vorbis": (vorbis(4), 4000),
    "mp3": (mp3(100), FRAMES_MS),
    "mp3 with tags and a word about the rest": (mp3(100, tagged=True), FRAMES_MS),
    "mp3 of half the rate": (mp3(100, header=b"\xff\xf3\x80\x00", size=208), 100 * 576 * 1000 // 22_050),
}
UNKNOWN = {
    "nothing": b"",
    "half a word": b"RIFF",
    "zeros": bytes(1000),
    "a wav without a form": b"RIFF\0\0\0\0WAVEdata\4\0\0\0abcd",
    "a wav of no channels": wav(1.0)[:22] + b"\0\0" + wav(1.0)[24:],
    "a wav in a form of its own": wav(1.0)[:20] + b"\x11\0" + wav(1.0)[22:],
    "flac that does not say": flac(0),
    "flac of a thousand years": flac(2**36 - 1, rate=1),
    "ogg that was cut out of something longer": opus(9000.0, first=48_000 * 8999),
    "ogg with something else in it": page(0, b"\x80theora" + bytes(40), begins=True),
    "mp3 with a hole in it": mp3(10) + b"\0" * 50 + mp3(10),
    "aac": b"\xff\xf1\x50\x80" + bytes(400),
    "mp4": b"\0\0\0\x18ftypmp42" + bytes(400),
    "a text": b"\xff\xfeh\0e\0l\0l\0o\0 \0t\0h\0e\0r\0e\0",
}


def length(sound: bytes, step: int) -> int | None:
    heard = SoundLength()
    for at in range(0, len(sound), step):
        heard.feed(sound[at : at + step])
    return heard.ms


@pytest.mark.parametrize("name", SOUNDS)
def test_a_sound_is_as_long_as_it_says_however_it_is_cut(name: str) -> None:
    sound, ms = SOUNDS[name]
    assert {step: length(sound, step) for step in (1 << 20, 4096, 997, 61)} == dict.fromkeys(
        (1 << 20, 4096, 997, 61), ms
    )


@pytest.mark.parametrize("name", UNKNOWN)
def test_of_what_does_not_say_it_is_not_known(name: str) -> None:
    assert [length(UNKNOWN[name], step) for step in (1 << 20, 7)] == [None, None]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(SOUNDS)), st.binary(max_size=40), st.integers(0, 2000), st.integers(1, 3000))
def test_no_bytes_break_it_and_pieces_do_not_matter(name: str, other: bytes, at: int, step: int) -> None:
    sound = bytearray(SOUNDS[name][0])
    sound[at : at + len(other)] = other
    assert length(bytes(sound), step) == length(bytes(sound), 1 << 20)


@pytest.mark.parametrize(
    ("told", "ms"),
    [
        ({"text": "a", "duration": 8.47}, 8470),
        ({"text": "a", "duration": "8.4700"}, 8470),
        ({"text": "a", "usage": {"type": "duration", "seconds": 9}}, 9000),
        ({"text": "a", "duration": 8.47, "usage": {"type": "duration", "seconds": 9}}, 8470),
        ({"text": "a", "usage": {"type": "tokens", "input_tokens": 9, "seconds": 9}}, None),
        ({"text": "a"}, None),
        ({"duration": -1}, None),
        ({"duration": 0}, None),
        ({"duration": True}, None),
        ({"duration": "inf"}, None),
        ({"duration": 1e300}, None),
        ({"duration": [1]}, None),
        ([1], None),
    ],
)
def test_a_transcript_says_how_long_it_is(told: object, ms: int | None) -> None:
    assert length_told(orjson.dumps(told)) == ms


def test_a_text_says_nothing_and_neither_does_a_file_that_is_gone(tmp_path: Path) -> None:
    assert length_told(b"1\n00:00:00,000 --> 00:00:01,000\nhello\n") is None
    assert length_of_file(tmp_path / "gone") is None


async def listen(house: House, path: str, sound: bytes, **fields: str) -> None:
    form = aiohttp.FormData({"model": MODEL, **fields})
    form.add_field("file", sound, filename="x", content_type="application/octet-stream")
    async with house.client.post(f"{house.url}{path}", data=form, headers=house.headers) as answer:
        assert answer.status == 200, await answer.text()
        await answer.read()


async def test_rows_say_how_long_was_heard_and_spoken(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(flavour=Flavour.VLLM)) as house:
        await listen(house, "/v1/audio/transcriptions", wav(2.5))
        await listen(house, "/v1/audio/translations", mp3(100), response_format="srt")
        await listen(house, "/v1/audio/transcriptions", wav(2.5), response_format="verbose_json")
        await listen(house, "/v1/audio/transcriptions", bytes(500))
        body = {"model": MODEL, "input": "Hello.", "voice": "alloy"}
        async with house.client.post(f"{house.url}/v1/audio/speech", json=body, headers=house.headers) as answer:
            await answer.read()
        chat = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
        async with house.client.post(f"{house.url}/v1/chat/completions", json=chat, headers=house.headers) as answer:
            await answer.read()
        rows = await house.rows(6)
        told = [row.audio_ms if row.HasField("audio_ms") else None for row in rows]
        # The fake's `duration` is a second of whatever it hears, and it speaks for a tenth of one.
        assert told == [2500, FRAMES_MS, 1000, None, 100, None]
