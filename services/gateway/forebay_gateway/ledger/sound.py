"""How many milliseconds of sound one request heard or spoke, for its row: what the engine says of a recording, else what the
recording itself says; of what is spoken, what passes. Where neither tells, the row has none."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any, Protocol

import orjson

from forebay_gateway.canonical.forms import SPEECH, TRANSCRIPTION, TRANSLATION, Form
from forebay_gateway.canonical.sound_length import LONGEST_MS, SoundLength
from forebay_gateway.canonical.upload import Upload

MOST_TOLD = 1 << 20
"""Bytes of a transcript that are looked into; of a longer one the recording tells."""
_PIECE = 256 << 10


class Sound(Protocol):
    @property
    def ms(self) -> int | None:
        """So far. None: it is not known."""
        ...

    def feed(self, piece: bytes) -> None:
        """The answer, as it passes."""
        ...

    async def end(self) -> None:
        """Of the answer; before the record is closed."""
        ...


def sound_of(form: Form, upload: Upload | None) -> Sound | None:
    """None: the request is not about sound."""
    if form is SPEECH:
        return Spoken()
    if form in (TRANSCRIPTION, TRANSLATION) and upload is not None:
        recording = next((file.path for file in upload.files if file.field == "file"), None)
        return Heard(recording) if recording is not None else None
    return None


class Spoken:
    def __init__(self) -> None:
        self._length = SoundLength()

    @property
    def ms(self) -> int | None:
        return self._length.ms

    def feed(self, piece: bytes) -> None:
        self._length.feed(piece)

    async def end(self) -> None:
        """It told while it passed."""


class Heard:
    def __init__(self, recording: Path) -> None:
        self._recording = recording
        self._told: list[bytes] = []
        self._size = 0
        self.ms: int | None = None

    def feed(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= MOST_TOLD:
            self._told.append(piece)
        else:
            self._told.clear()

    async def end(self) -> None:
        self.ms = length_told(b"".join(self._told))
        if self.ms is None:
            self.ms = await asyncio.to_thread(length_of_file, self._recording)


def length_told(answer: bytes) -> int | None:
    """Milliseconds that a transcript says it is of: `duration` is exact, `usage` says whole seconds. None: it does not say.

    https://platform.openai.com/docs/api-reference/audio/verbose-json-object; vLLM's `duration` is a text."""
    try:
        told: Any = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(told, dict):
        return None
    usage = told.get("usage")
    by_usage = usage.get("seconds") if isinstance(usage, dict) and usage.get("type") == "duration" else None
    for seconds in (told.get("duration"), by_usage):
        ms = _ms(seconds)
        if ms is not None:
            return ms
    return None


def length_of_file(path: Path) -> int | None:
    length = SoundLength()
    try:
        with path.open("rb") as file:
            while length.wants_more and (piece := file.read(_PIECE)):
                length.feed(piece)
    except OSError:
        return None
    return length.ms


def _ms(seconds: Any) -> int | None:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float, str)):
        return None
    try:
        ms = float(seconds) * 1000
    except (ValueError, OverflowError):
        return None
    return round(ms) if math.isfinite(ms) and 0 < ms <= LONGEST_MS else None
