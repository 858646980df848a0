"""The answer to one client: when its headers go out, comment lines while it waits, an error in whichever form still fits.

What the answer says is relaying's business. Writing waits for a slow client, and so slows the engine."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web

from forebay.errors import ForebayError
from forebay_gateway.asked import Background
from forebay_gateway.canonical.dialect import Dialect, Translation
from forebay_gateway.recordings.tape import Recording

log = logging.getLogger(__name__)

_STREAM_HEADERS = {
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
_COMMENT = b": waiting\n\n"


class Reply:
    def __init__(self, request: web.BaseRequest, request_id: str, dialect: Dialect) -> None:
        self._request, self._request_id, self._dialect = request, request_id, dialect
        self.headers = dialect.id_headers(request_id)
        """Those of the answer, as far as known; what comes after they went out is not told."""
        self.response: web.StreamResponse | None = None
        """None until anything went out."""
        self.recording: Recording | None = None
        """None: what goes out is not taken down."""
        self._takes_events = True
        """A stream that has begun may end with an error."""
        self._writing = asyncio.Lock()
        self._alarm: asyncio.TimerHandle | None = None
        self._commenting: asyncio.Task[None] | None = None

    @property
    def status(self) -> int:
        """What the client saw; 0 when it saw nothing yet."""
        return self.response.status if self.response is not None else 0

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

    async def begin_stream(self) -> None:
        """Status and headers, unless a comment took them out already. No comment is written after this."""
        await self._end_comments()
        if self.response is None:
            await self._open_stream(self._dialect.stream_type)

    async def begin_bytes(self, content_type: str) -> None:
        """Status and headers of an answer that no error can be put into: one that breaks is cut off."""
        self._takes_events = False
        await self._open_stream(content_type)

    async def write(self, piece: bytes) -> None:
        """Raises ConnectionError when the client has gone."""
        assert self.response is not None
        if self.recording is not None:
            self.recording.answer.add(piece)
        await self.response.write(piece)

    async def end_stream(self, piece: bytes) -> None:
        assert self.response is not None
        if self.recording is not None:
            self.recording.answer.add(piece)
        await self.response.write_eof(piece)

    # --- whole ------------------------------------------------------------------------------------------------------

    async def send(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        if self.recording is not None:
            self.recording.answer.add(body)
        response = web.Response(status=status, body=body, headers={**self.headers, "content-type": content_type})
        self.response = response
        await response.prepare(self._request)
        await response.write_eof()

    async def refuse(self, error: ForebayError, translation: Translation | None = None) -> None:
        """As status and body, or as the last events of a stream whose headers went out. `translation`: of the answer that
        it told."""
        await self._end_comments()
        rendered = self._dialect.render(error, self._request_id)
        if self.response is None:
            self.headers.update(rendered.headers)
            await self.send(rendered.status, rendered.body, rendered.headers["content-type"])
            return
        if self._takes_events:
            await self.response.write_eof(self._dialect.failing(rendered, translation))
        else:
            self.abort()

    def status_of(self, error: ForebayError) -> int:
        return self._dialect.render(error, self._request_id).status

    def abort(self) -> None:
        """Drops the connection, unsent bytes and all."""
        if self._request.transport is not None:
            self._request.transport.abort()

    def unheard(self, background: Background) -> Unheard:
        """For the answer, which goes on without the client, while this one is for what the client is told of that."""
        unheard = Unheard(self._request, self._request_id, self._dialect, self.headers, background)
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
        self.response = web.StreamResponse(headers={**self.headers, **_STREAM_HEADERS, "content-type": content_type})
        if self._request.version >= (1, 1):
            self.response.enable_chunked_encoding()
        else:
            self.response.force_close()  # such a client knows the end by the closing alone, even if it asked to keep alive
        await self.response.prepare(self._request)

    async def _comment(self, every_s: float) -> None:
        while True:
            try:
                async with self._writing:
                    if self.response is None:
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
            async with self._writing:  # not in the middle of one
                self._commenting.cancel()
            self._commenting = None


class Unheard(Reply):
    """Goes nowhere: whoever wants the answer finds it in the background."""

    def __init__(
        self,
        request: web.BaseRequest,
        request_id: str,
        dialect: Dialect,
        headers: dict[str, str],
        background: Background,
    ) -> None:
        super().__init__(request, request_id, dialect)
        self.headers = headers
        self.response = web.StreamResponse()
        self._background = background
        self._has_begun = False

    @property
    def status(self) -> int:
        return 200 if self._has_begun or self._background.is_told else 0

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
