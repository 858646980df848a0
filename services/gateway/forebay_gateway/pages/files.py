"""OpenAI's files: sent, listed, read and deleted by their user. What requests and batches make of them is not told here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

from forebay.errors import ForebayError, NotFound
from forebay_gateway.authentication import principal_of
from forebay_gateway.body import reading_upload
from forebay_gateway.callers.call import Call
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.media_types import type_by_name
from forebay_gateway.dialects.openai.file import as_attachment, parse_file, tell_file
from forebay_gateway.keeping.contents import StoredContent
from forebay_gateway.keeping.files import Files, no_such_file
from forebay_gateway.pages.listed_items import as_page, page_wish
from forebay_gateway.pages.models_and_tokens import answer_page
from forebay_gateway.pages.path_patterns import Addresses
from forebay_gateway.refused import NotServedHere, StateUnavailable
from forebay_gateway.serving import Means

log = logging.getLogger(__name__)

FILES_PATH = "/v1/files"
_MOST_LISTED = 10_000


class FilePages:
    def __init__(self, means: Means, files: Files) -> None:
        self._means = means
        self._files = files

    @property
    def addresses(self) -> Addresses:
        return {
            FILES_PATH: {"GET": self.list_files, "POST": self.create},
            f"{FILES_PATH}/{{file_id}}": {"GET": self.show, "DELETE": self.delete},
            f"{FILES_PATH}/{{file_id}}/content": {"GET": self.content},
        }

    async def create(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        user_id, settings = self._user_of(call), self._means.settings
        if self._means.contents.is_away:  # before hundreds of megabytes are taken for nothing
            raise StateUnavailable
        reading = reading_upload(
            request,
            most_bytes=settings.max_upload_bytes,
            idle_s=settings.body_idle_s,
            directory=settings.spool_dir,
        )
        async with reading as upload:
            file = await self._files.create(user_id, parse_file(upload))
        return answer_page(_told(file), call)

    async def list_files(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        user_id = self._user_of(call)
        wish = page_wish(request.query, usual=_MOST_LISTED, most=_MOST_LISTED)
        try:
            page = await self._files.page(
                user_id,
                limit=wish.limit,
                after=wish.after,
                descending=wish.is_descending,
                purpose=request.query.get("purpose") or None,
            )
        except NotFound as error:
            raise no_such_file(wish.after, "after") from error
        return answer_page(as_page([_told(file) for file in page.contents], has_more=page.has_more), call)

    async def show(self, request: web.BaseRequest, call: Call, file_id: str) -> web.StreamResponse:
        return answer_page(_told(await self._files.find(self._user_of(call), file_id)), call)

    async def delete(self, request: web.BaseRequest, call: Call, file_id: str) -> web.StreamResponse:
        await self._files.delete(self._user_of(call), file_id)
        return answer_page({"id": file_id, "object": "file", "deleted": True}, call)

    async def content(self, request: web.BaseRequest, call: Call, file_id: str) -> web.StreamResponse:
        file = await self._files.find(self._user_of(call), file_id)
        filename = file.body["filename"]
        response = web.StreamResponse(
            headers={
                "x-request-id": call.request_id,
                "content-type": type_by_name(filename),
                "content-length": str(file.blob_bytes),
                "content-disposition": as_attachment(filename),
                "x-content-type-options": "nosniff",
            }
        )
        if request.method == "HEAD":
            return response
        async with aclosing(self._files.read(file)) as pieces:
            try:
                first = await anext(pieces, b"")
            except NotFound as error:
                raise no_such_file(file_id) from error
            await response.prepare(request)
            await self._send(request, response, first, pieces)
        return response

    async def _send(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        first: bytes,
        rest: AsyncGenerator[bytes, None],
    ) -> None:
        """As fast as the client takes it. One that breaks off is cut off: a whole one has as many bytes as its head says."""
        idle_s = self._means.settings.stream_gap_s
        try:
            async with asyncio.timeout(idle_s) as idle:
                await response.write(first)
                async for piece in rest:
                    await response.write(piece)
                    idle.reschedule(asyncio.get_running_loop().time() + idle_s)
            await response.write_eof()
        except (ForebayError, TimeoutError) as error:
            log.warning("file cut off", extra={"action": "file_cut", "error": repr(error)})
            if request.transport is not None:
                request.transport.abort()

    def _user_of(self, call: Call) -> str:
        user_id = principal_of(self._means, call).user_id
        if call.is_anthropic:
            raise NotServedHere(
                "Forebay keeps files for OpenAI's clients and not in Anthropic's form. Send what a file says in the "
                "message itself: a document as text, a picture as base64."
            )
        return user_id


def _told(file: StoredContent) -> Json:
    return tell_file(
        file.id,
        file.body,
        size_bytes=file.blob_bytes,
        created_at=file.created_at_us // 1_000_000,
        expires_at=file.expires_at_us // 1_000_000 if file.expires_at_us is not None else None,
    )
