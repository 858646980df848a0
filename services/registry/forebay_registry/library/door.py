"""Orders to one engine over HTTP, with its credential: pages as a whole, or line by line; what goes wrong is EngineTrouble.

Redirects are not followed, since a credential is for the address that was registered; and nothing is read without end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from forebay_registry.engines.answers import BadAnswer, object_in, read_error
from forebay_registry.engines.probe import Target
from forebay_registry.library.progress import MAX_LINE_BYTES
from forebay_registry.library.trouble import LONGEST_WORDS, EngineTrouble, said

Json = Mapping[str, Any]

MAX_PAGE_BYTES = 8 * 1024 * 1024
CONNECT_S = 5.0
_NO_PAGE = ("", "not found", "method not allowed", "not implemented")
_NO_CREDENTIAL = frozenset({401, 403})


class Door:
    def __init__(self, session: aiohttp.ClientSession, target: Target, backend: str) -> None:
        """`backend` is its name, for whoever reads what went wrong."""
        self._session = session
        self._target = target
        self.backend = backend
        self._place = urlsplit(target.url).netloc

    async def ask(self, method: str, path: str, body: Json | None = None, *, within_s: float) -> dict[str, Any]:
        """The JSON object it answers; empty where the answer is. Raises EngineTrouble."""
        with self._telling(f"did not answer {path} within {within_s:g} s"):
            async with asyncio.timeout(within_s), self._asking(method, path, body) as response:
                page = await self._page(response)
        try:
            return object_in(page) if page.strip() else {}
        except BadAnswer as error:
            if page.lstrip().startswith(b"<"):
                words = f"{self.backend} answers {path} with a page for people; is a proxy or a login in between?"
                raise EngineTrouble(words, is_final=False) from error
            return {"text": page[:LONGEST_WORDS].decode(errors="replace")}  # vLLM confirms in plain words

    async def lines(self, path: str, body: Json, *, first_s: float) -> AsyncGenerator[bytes, None]:
        """Of an answer that goes on for as long as it takes; how long to wait for the next line is the reader's to say, who
        may stop at any time: the connection is closed then, and the engine ends what it does. Raises EngineTrouble."""
        with self._telling(f"did not answer {path} within {first_s:g} s"):
            async with self._asking("POST", path, body, headers_s=first_s) as response:
                buffered = bytearray()
                async for piece in response.content.iter_any():
                    buffered += piece
                    while (end := buffered.find(b"\n")) >= 0:
                        line = bytes(buffered[:end]).strip()
                        del buffered[: end + 1]
                        if line:
                            yield line
                    if len(buffered) > MAX_LINE_BYTES:
                        raise EngineTrouble(f"{self.backend} sends lines without end.", is_final=False)
                if rest := bytes(buffered).strip():
                    yield rest

    @asynccontextmanager
    async def _asking(
        self, method: str, path: str, body: Json | None, *, headers_s: float | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A 200. Of several credentials, one that is refused leaves the turn to the next."""
        bearers = (self._target.bearer, *self._target.others)
        for number, bearer in enumerate(bearers):
            response = await self._open(method, path, body, bearer, headers_s)
            if response.status in _NO_CREDENTIAL and number + 1 < len(bearers):
                response.close()
                continue
            try:
                if response.status != 200:
                    raise await self._refused(response, has_credential=bearer is not None)
                yield response
            finally:
                response.close()
            return

    async def _open(
        self, method: str, path: str, body: Json | None, bearer: str | None, headers_s: float | None
    ) -> aiohttp.ClientResponse:
        headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
        if body is not None:
            headers["content-type"] = "application/json"
        async with asyncio.timeout(headers_s):
            return await self._session.request(
                method,
                self._target.url + path,
                data=orjson.dumps(body) if body is not None else None,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            )

    async def _refused(self, response: aiohttp.ClientResponse, *, has_credential: bool) -> EngineTrouble:
        async with asyncio.timeout(CONNECT_S):
            page = await self._page(response)
        if response.status in _NO_CREDENTIAL:
            if not has_credential:  # right after a start, admin may not have told it yet
                return EngineTrouble(f"{self.backend} wants a credential, and none is known here.", is_final=False)
            words = f"{self.backend} does not accept the credential it was given ({response.status})."
            return EngineTrouble(words, is_final=True)
        if 300 <= response.status < 400:
            where = response.headers.get("location", "elsewhere")[:200]
            return EngineTrouble(f"{self.backend} sends to {where}; register that address instead.", is_final=True)
        words = _whole_error(page)
        if response.status in (404, 405, 501) and words.lower().rstrip(".") in _NO_PAGE:
            return EngineTrouble(f"{self.backend} has no {response.url.path}.", is_final=True)
        return said(self.backend, words, status=response.status)

    async def _page(self, response: aiohttp.ClientResponse) -> bytes:
        page = bytearray()
        async for piece in response.content.iter_any():
            page += piece
            if len(page) > MAX_PAGE_BYTES:
                raise EngineTrouble(f"{self.backend} answers more than {MAX_PAGE_BYTES >> 20} MiB.", is_final=True)
        return bytes(page)

    @contextmanager
    def _telling(self, late: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise EngineTrouble(f"{self.backend} {late}.", is_final=False) from error
        except aiohttp.ClientConnectorError as error:
            raise EngineTrouble(
                f"Nothing answers at {self._place}, where {self.backend} is.", is_final=False
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            words = " ".join(str(error).split()) or type(error).__name__
            raise EngineTrouble(f"The connection to {self.backend} broke: {words}", is_final=False) from error


def _whole_error(page: bytes) -> str:
    """The engine's message in full, where `read_error` keeps a line for a table."""
    try:
        told = object_in(page)
    except BadAnswer:
        return ""
    error = told.get("error", told.get("error_message"))  # the latter is SGLang's
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) else read_error(page)
