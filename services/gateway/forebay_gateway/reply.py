"""The answer to one client: when its headers go out, comment lines while it waits, an error in whichever form still fits.

What the answer says is relaying's business. Writing waits for a slow client, and so slows the engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from forebay.errors import ForebayError
from forebay_gateway.asked import Background
from forebay_gateway.canonical.dialect import Dialect, Translation
from forebay_gateway.http_in.outgoing import Outgoing, Wire
from forebay_gateway.recordings.tape import Recording

log = logging.getLogger(__name__)

_STREAM_HEADERS = {
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
_COMMENT = b": waiting\n\n"


class Reply:
    def __init__(self, client: Outgoing, request_id: str, dialect: Dialect) -> None:
        self._client, self._request_id, self._dialect = client, request_id, dialect
        self.headers = dialect.id_headers(request_id)
        """Those of the answer, as far as known; what comes after they went out is not told."""
        self._status = 0
        self.recording: Recording | None = None
        """None: what goes out is not taken down."""
        self._takes_events = True
        """A stream that has begun may end with an error."""
        self._writing: asyncio.Lock | None = None
        """There once a comment is written."""
        self.has_comments = False
        """Or will have, unless it is closed."""
        self._alarm: asyncio.TimerHandle | None = None
        self._commenting: asyncio.Task[None] | None = None

    @property
    def status(self) -> int:
        """What the client saw; 0 when it saw nothing yet."""
        return self._status

    # --- streamed ---------------------------------------------------------------------------------------------------

    def comment_while_waiting(self, every_s: float) -> None:
        """Until the stream begins, if the dialect has comments. Proxies and clients give up on a connection that says
        nothing."""
        if not self._dialect.takes_comments:
            return
        loop = asyncio.get_running_loop()

        def start() -> None:
            self._commenting = loop.create_task(self._comment(every_s), name="comment")

        self._alarm = loop.call_later(every_s, start)
        self.has_comments = True

    async def begin_stream(self) -> None:
        """Status and headers, unless a comment took them out already. No comment is written after this."""
        if self.has_comments:
            await self._end_comments()
        if not self._status:
            await self._open_stream(self._dialect.stream_type)

    async def begin_bytes(self, content_type: str) -> None:
        """Status and headers of an answer that no error can be put into: one that breaks is cut off."""
        self._takes_events = False
        await self._open_stream(content_type)

    async def write(self, piece: bytes) -> None:
        """Raises ConnectionError when the client has gone."""
        if self.recording is not None:
            self.recording.answer.add(piece)
        await self._client.write(piece)

    async def end_stream(self, piece: bytes) -> None:
        if self.recording is not None:
            self.recording.answer.add(piece)
        await self._client.end(piece)

    # --- streamed, without waiting ----------------------------------------------------------------------------------

    @property
    def takes_now(self) -> bool:
        """Whether what is written can be, by `write_now`. Once it has begun."""
        return self._client.takes_now

    @property
    def write_now(self) -> Callable[[bytes], bool]:
        """Writes a piece. True when the client is slow: nothing more should be written before `drained`. Raises
        ConnectionError when it has gone."""
        return self._client.write_now if self.recording is None else self._take_down_and_write

    @property
    def wire(self) -> Wire | None:
        """For pieces that are framed already, in between `write_now`. None: there is none, or not now."""
        return self._client.wire if self.recording is None else None

    def _take_down_and_write(self, piece: bytes) -> bool:
        if self.recording is not None:
            self.recording.answer.add(piece)
        return self._client.write_now(piece)

    def drained(self) -> Awaitable[None] | None:
        """Waits until it is not full. Raises ConnectionError when the client has gone. None: it is not full."""
        return self._client.drained()

    # --- whole ------------------------------------------------------------------------------------------------------

    async def send(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        if self.recording is not None:
            self.recording.answer.add(body)
        self._status = status
        await self._client.send(status, {**self.headers, "content-type": content_type}, body)

    async def refuse(self, error: ForebayError, translation: Translation | None = None) -> None:
        """As status and body, or as the last events of a stream whose headers went out. `translation`: of the answer that
        it told."""
        await self._end_comments()
        rendered = self._dialect.render(error, self._request_id)
        if not self._status:
            self.headers.update(rendered.headers)
            await self.send(rendered.status, rendered.body, rendered.headers["content-type"])
            return
        if self._takes_events:
            await self._client.end(self._dialect.failing(rendered, translation))
        else:
            self.abort()

    def status_of(self, error: ForebayError) -> int:
        return self._dialect.render(error, self._request_id).status

    def abort(self) -> None:
        """Drops the connection, unsent bytes and all."""
        self._client.abort()

    def unheard(self, background: Background) -> Unheard:
        """For the answer, which goes on without the client, while this one is for what the client is told of that."""
        unheard = Unheard(self._client, self._request_id, self._dialect, self.headers, background)
        unheard.recording, self.recording = self.recording, None
        return unheard

    def close(self) -> None:
        """Nothing is written any more."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._commenting is not None:
            self._commenting.cancel()

    # ----------------------------------------------------------------------------------------------------------------

    async def _open_stream(self, content_type: str) -> None:
        self._status = 200
        await self._client.begin(200, {**self.headers, **_STREAM_HEADERS, "content-type": content_type})

    async def _comment(self, every_s: float) -> None:
        self._writing = asyncio.Lock()
        while True:
            try:
                async with self._writing:
                    if not self._status:
                        await self._open_stream(self._dialect.stream_type)
                    await self.write(_COMMENT)
            except ConnectionError as error:
                log.debug("client went while it waited", extra={"action": "client_gone", "error": repr(error)})
                return  # its request is being cancelled
            await asyncio.sleep(every_s)

    async def _end_comments(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        if self._commenting is not None:
            if self._writing is not None:
                async with self._writing:  # not in the middle of one
                    self._commenting.cancel()
            self._commenting.cancel()
            self._commenting = None


class Unheard(Reply):
    """Goes nowhere: whoever wants the answer finds it in the background."""

    def __init__(
        self,
        client: Outgoing,
        request_id: str,
        dialect: Dialect,
        headers: dict[str, str],
        background: Background,
    ) -> None:
        super().__init__(client, request_id, dialect)
        self.headers = headers
        self._background = background
        self._has_begun = False

    @property
    def status(self) -> int:
        return 200 if self._has_begun or self._background.is_told else 0

    @property
    def takes_now(self) -> bool:
        return False

    def comment_while_waiting(self, every_s: float) -> None:
        pass

    async def begin_stream(self) -> None:
        self._has_begun = True

    async def begin_bytes(self, content_type: str) -> None:
        self._has_begun = True

    async def write(self, piece: bytes) -> None:
        if self.recording is not None:
            self.recording.answer.add(piece)
        self._background.grew()

    async def end_stream(self, piece: bytes) -> None:
        await self.write(piece)

    async def send(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        await self.write(body)

    async def refuse(self, error: ForebayError, translation: Translation | None = None) -> None:
        self._background.refuse(error)

    def abort(self) -> None:
        pass
