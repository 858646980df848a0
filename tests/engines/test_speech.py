"""Real speech through a gateway, by OpenAI's library: Piper speaks, Whisper listens."""

from __future__ import annotations

import asyncio
import io
import re
from typing import Any

import pytest
from openai import BadRequestError

from forebay.wire.v1 import types_pb2
from tests.engines.conftest import EAR, VOICE, openai_of
from tests.engines.program import told_at
from tests.gateway.house import OUTCOME, House, eventually

pytestmark = pytest.mark.engines_heavy

SPOKEN = "The quick brown fox jumps over the lazy dog. Rivers flow down to the sea."
SENTENCES = 40
LONG = " ".join(f"This is sentence number {number} of a story about rivers and lakes." for number in range(SENTENCES))


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def recording(sound: bytes) -> tuple[str, io.BytesIO, str]:
    return "spoken.wav", io.BytesIO(sound), "audio/wav"


def work_of(house: House) -> Any:
    return told_at(house.engine_url + "/work")


@pytest.fixture
def house(speaking_house: House, speech_server: str) -> House:
    speaking_house.engine_url = speech_server
    return speaking_house


async def test_what_is_spoken_is_heard_again_and_both_have_rows(house: House) -> None:
    async with openai_of(house) as client:
        sound = (await client.audio.speech.create(model=VOICE, voice=VOICE, input=SPOKEN, response_format="wav")).read()
        assert sound[:4] == b"RIFF"
        heard = await client.audio.transcriptions.create(model=EAR, file=recording(sound), language="en")
    assert words(heard.text) == words(SPOKEN)
    spoke, listened = await house.rows(2)
    assert (spoke.route, spoke.model) == ("/v1/audio/speech", VOICE)
    assert (listened.route, listened.model) == ("/v1/audio/transcriptions", EAR)
    for row in (spoke, listened):
        assert OUTCOME(row.outcome) == "OUTCOME_FINISHED"
        assert row.usage.source == types_pb2.USAGE_SOURCE_ESTIMATED  # neither engine counts tokens
        assert row.duration_ms > 0


async def test_a_transcript_comes_in_the_form_that_was_asked_for(house: House) -> None:
    async with openai_of(house) as client:
        sound = (await client.audio.speech.create(model=VOICE, voice=VOICE, input=SPOKEN, response_format="wav")).read()
        told = {
            form: str(await client.audio.transcriptions.create(model=EAR, file=recording(sound), response_format=form))
            for form in ("text", "srt")
        }
    assert words(told["text"]) == words(SPOKEN)
    number, moments, *lines = told["srt"].strip().splitlines()
    assert number == "1"
    assert re.fullmatch(r"00:00:00,000 --> 00:00:0\d,\d{3}", moments)
    assert words(" ".join(lines)) == words(SPOKEN)


async def test_sound_arrives_while_the_engine_still_speaks(house: House) -> None:
    text = " ".join(f"Sentence {number} of a short story." for number in range(12))
    before, pieces, spoken_at_first = work_of(house)["sentences"], 0, 0
    async with (
        openai_of(house) as client,
        client.audio.speech.with_streaming_response.create(
            model=VOICE, voice=VOICE, input=text, response_format="pcm"
        ) as answer,
    ):
        async for piece in answer.iter_bytes():
            assert piece
            pieces += 1
            spoken_at_first = spoken_at_first or (await asyncio.to_thread(work_of, house))["sentences"] - before
    assert 1 <= spoken_at_first < 12
    assert pieces >= 12
    assert work_of(house)["sentences"] - before == 12


async def test_who_goes_while_it_speaks_ends_the_engines_work(house: House) -> None:
    before = work_of(house)
    async with (
        openai_of(house) as client,
        client.audio.speech.with_streaming_response.create(
            model=VOICE, voice=VOICE, input=LONG, response_format="wav"
        ) as answer,
    ):
        async for _ in answer.iter_bytes():
            break
    await eventually(lambda: work_of(house)["running"] == 0, within_s=10.0)
    after = work_of(house)
    assert after["cancelled"] == before["cancelled"] + 1
    assert after["sentences"] - before["sentences"] < SENTENCES // 2
    (row,) = await house.rows(1)
    assert OUTCOME(row.outcome) == "OUTCOME_CANCELLED"
    assert not house.scheduler.held


async def test_an_engines_refusal_reaches_the_client_as_it_said_it(house: House) -> None:
    async with openai_of(house) as client:
        with pytest.raises(BadRequestError, match='"wav" or "pcm"'):
            await client.audio.speech.create(model=VOICE, voice=VOICE, input="Hello.", response_format="opus")
    (row,) = await house.rows(1)
    assert row.attempts == 1
