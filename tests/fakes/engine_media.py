"""What the fake engine makes of pictures and sound: a real picture of one pixel, a real sound of a tenth of a second, and a
transcript that says how much it heard. From a body (a form as `engine_forms` tells it) to JSON, a text or bytes."""

from __future__ import annotations

import base64
import io
import struct
import time
import wave
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.engine_orders import BadOrder

SOUND_HZ = 8000
SOUND_S = 0.1
HEARD_S = 1.0
"""What a transcript says of the length of any sound."""

Body = Mapping[str, Any]
Json = dict[str, Any]


def draw(body: Body) -> Json:
    n = body.get("n")
    picture = base64.b64encode(one_pixel_png()).decode()
    _required(body, "prompt")
    return {"created": int(time.time()), "data": [{"b64_json": picture} for _ in range(1 if n is None else int(n))]}


def redraw(body: Body) -> Json:
    if not any(isinstance(body.get(field), (dict, list)) for field in ("image", "image[]")):
        raise BadOrder("'image' must be a file")
    return draw(body)


def speak(body: Body) -> bytes:
    """A WAV file, whatever `response_format` says."""
    _required(body, "input")
    return short_wav()


def transcribe(body: Body) -> Json | str:
    return _transcript(body, "transcribe")


def translate(body: Body) -> Json | str:
    return _transcript(body, "translate")


def _transcript(body: Body, task: str) -> Json | str:
    sound = body.get("file")
    if not isinstance(sound, dict):
        raise BadOrder("'file' must be a file")
    text = f"heard {sound['bytes']} bytes"
    told: Json = {"task": task, "language": body.get("language") or "en", "duration": HEARD_S, "text": text}
    shapes: dict[str, Callable[[], Json | str]] = {
        "json": lambda: {"text": text},
        "text": lambda: text,
        "verbose_json": lambda: told | {"segments": [{"id": 0, "start": 0.0, "end": HEARD_S, "text": text}]},
        "srt": lambda: f"1\n00:00:00,000 --> 00:00:01,000\n{text}\n\n",
        "vtt": lambda: f"WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n{text}\n\n",
    }
    wanted = body.get("response_format") or "json"
    if wanted not in shapes:
        raise BadOrder(f"'response_format' is one of: {', '.join(shapes)}")
    return shapes[wanted]()


def one_pixel_png() -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)  # 1×1, eight bits, red green blue
    pixel = zlib.compress(b"\x00\xff\x00\x00")  # no filter; red
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def short_wav() -> bytes:
    """Silence, in one channel of 16 bits."""
    written = io.BytesIO()
    with wave.open(written, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SOUND_HZ)
        sound.writeframes(bytes(2 * int(SOUND_HZ * SOUND_S)))
    return written.getvalue()


def _required(body: Body, field: str) -> None:
    if not isinstance(body.get(field), str) or not body[field]:
        raise BadOrder(f"'{field}' must be a text")
