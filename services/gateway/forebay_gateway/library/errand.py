"""One request to one Ollama backend about its models. It takes no slot and leaves no row in the ledger, and it ends when its
key, its backend, this gateway or its client goes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson

from forebay.errors import ForebayError, Refusal
from forebay.ledger_id import new_ledger_id
from forebay_gateway.dialects.ollama.progress import BadProgress, Line, ProgressLines
from forebay_gateway.engine_answer import EngineAnswer, TroubledEngine
from forebay_gateway.engines.errors import MOST_BYTES
from forebay_gateway.fleet import Backend
from forebay_gateway.interrupt import Interruptible
from forebay_gateway.refused import EngineFailed, EngineRefused
from forebay_gateway.serving import Means

_ABOUT_US = (401, 403, 407, 408)
"""Of Forebay's credential or Forebay's way of asking, never of what the client asked for."""
_AT_ONCE_S = 30.0
"""For what an engine does without a word of progress: it deletes a file or two, on a disk that may be slow."""
_ENGINE_END_S = 0.1


class Errand:
    arrived = math.inf
    """So that it never takes too long: gigabytes take their time."""
    asking_since = math.inf
    is_queued = False
    has_begun = False
    """So that its silence never counts as long: an engine that checks or converts gigabytes says nothing for minutes."""

    def __init__(self, means: Means, key_id: str, backend: Backend, request_id: str) -> None:
        self._means, self._request_id = means, request_id
        self.backend = backend
        self.key_id = key_id
        self.ledger_id = new_ledger_id(means.clock.now())
        """For `Running`, which knows its requests by it; no row has it."""
        self._interruptible = Interruptible()
        self._silent_since = math.inf

    # --- what others see (running.Serving) --------------------------------------------------------------------------

    @property
    def backend_id(self) -> str:
        return self.backend.id

    @property
    def silent_since(self) -> float:
        return self._silent_since

    @property
    def awaits_engine(self) -> bool:
        """As long as it takes: a pull may say nothing for minutes, and no engine tells of its errands."""
        return False

    def interrupt(self, error: ForebayError) -> None:
        self._interruptible.interrupt(error)

    def cut_off(self, why: Refusal) -> None:
        """It uses nobody's budget."""

    def lose_engine(self, why: str) -> None:
        self.interrupt(EngineFailed(why))

    def place_elsewhere(self) -> None:
        """A drained backend takes no new work, but its models may change."""

    # ----------------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def asking(
        self, method: str, path: str, body: bytes | AsyncIterator[bytes] = b""
    ) -> AsyncIterator[EngineAnswer]:
        """Gives the answer, whatever its status. Raises EngineFailed, or why it was ended."""
        running = self._means.running
        running.add(self)
        try:
            with self._interruptible:
                self.expect_engine()
                async with self._means.upstream.pass_on(
                    self.backend, method, path, body, request_id=self._request_id
                ) as answer:
                    self.expect_others()
                    yield answer
        except TroubledEngine as troubled:
            raise EngineFailed(troubled.trouble.message) from troubled
        finally:
            running.remove(self.ledger_id)

    async def do_at_once(self, method: str, path: str, body: bytes = b"") -> None:
        """Raises EngineRefused with the engine's words, EngineFailed, or why it was ended."""
        try:
            async with asyncio.timeout(_AT_ONCE_S), self.asking(method, path, body) as answer:
                if answer.status != 200:
                    raise await refused(answer)
                await answer.wait_end(_ENGINE_END_S)
        except TimeoutError as error:
            raise EngineFailed(f"It did not answer within {_AT_ONCE_S:g} s.") from error

    async def progress(self, answer: EngineAnswer) -> AsyncIterator[Line]:
        """Until `success`. Raises EngineRefused with what the engine says went wrong, and EngineFailed when it ends without
        either."""
        lines = ProgressLines()
        try:
            while True:
                self.expect_engine()
                piece = await answer.read()
                self.expect_others()
                for line in lines.feed(piece) if piece else lines.end():
                    if line.error:
                        raise in_its_words(500, line.error)
                    yield line
                    if line.is_success:
                        await answer.wait_end(_ENGINE_END_S)
                        return
                if not piece:
                    raise EngineFailed("It ended in the middle, without saying why.")
        except BadProgress as bad:
            raise EngineFailed(str(bad)) from bad

    def expect_engine(self) -> None:
        """From now on it is the engine that is waited for."""
        self._silent_since = self._means.clock.monotonic()

    def expect_others(self) -> None:
        """While the client, or another backend, holds us up, this engine is not to blame."""
        self._silent_since = math.inf


async def refused(answer: EngineAnswer) -> ForebayError:
    """What an answer that is no success comes to: the engine's own words and status."""
    raw = await answer.read_all(MOST_BYTES)
    words = _error_in(raw)
    if answer.status in _ABOUT_US or answer.status < 400:
        return EngineFailed(f"It answered {answer.status}: {words}")
    return in_its_words(answer.status, words)


def in_its_words(status: int, words: str) -> EngineRefused:
    """An error in Ollama's own words, by which its clients know what happened."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return EngineRefused(words, status=status, type=kind, param=None, code=None)


def _error_in(raw: bytes) -> str:
    try:
        body: Any = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, str) and error:
        return error
    return raw[:500].decode(errors="replace").strip() or "no reason given"
