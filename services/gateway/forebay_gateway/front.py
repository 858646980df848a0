"""The HTTP front: which address answers what and in which dialect; an id on every answer, a fitting body for every error."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import orjson
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import ContentEncodingError
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from forebay.errors import BadInput, ForebayError
from forebay.timely_heads import TimelyConnection
from forebay_gateway.callers.call import Call, new_request_id, read_call
from forebay_gateway.callers.client_address import client_address
from forebay_gateway.callers.virtual_endpoints import VirtualEndpoints
from forebay_gateway.canonical.dialect import Dialect
from forebay_gateway.canonical.forms import (
    CHAT,
    COMPLETION,
    EMBEDDING,
    IMAGE,
    IMAGE_EDIT,
    MODERATION,
    RERANK,
    SCORE,
    SPEECH,
    TRANSCRIPTION,
    TRANSLATION,
)
from forebay_gateway.cors import Origins, is_preflight, preflight
from forebay_gateway.dialects.anthropic.errors import ANTHROPIC
from forebay_gateway.dialects.anthropic.request import parse_messages
from forebay_gateway.dialects.ollama.embedding_request import (
    EMBED_PATH,
    LEGACY_PATH,
    parse_embed,
    parse_legacy_embeddings,
)
from forebay_gateway.dialects.ollama.errors import OLLAMA
from forebay_gateway.dialects.ollama.request import parse_generate, parse_ollama_chat
from forebay_gateway.dialects.openai.audio import parse_speech, parse_transcription, parse_translation
from forebay_gateway.dialects.openai.chat import parse_chat
from forebay_gateway.dialects.openai.completion import parse_completion
from forebay_gateway.dialects.openai.embedding import parse_embedding
from forebay_gateway.dialects.openai.errors import OPENAI
from forebay_gateway.dialects.openai.image import parse_image, parse_image_edit
from forebay_gateway.dialects.openai.moderation import parse_moderation
from forebay_gateway.dialects.openai.ranking import parse_cohere_rerank, parse_rerank, parse_score
from forebay_gateway.dialects.responses.errors import RESPONSES
from forebay_gateway.hot_routes import HotRoutes
from forebay_gateway.http_in.connection import HEAD_S, LINGER_S
from forebay_gateway.http_in.framer import LONGEST_LINE
from forebay_gateway.http_in.heads import SERVER
from forebay_gateway.http_in.over_aiohttp import AnswerOverAiohttp, RequestOverAiohttp
from forebay_gateway.keeping.background import BackgroundLimits, BackgroundResponses
from forebay_gateway.keeping.conversations import Conversations
from forebay_gateway.keeping.files import Files
from forebay_gateway.keeping.kept_responses import KeptResponses
from forebay_gateway.library.blobs import BLOBS_PATH
from forebay_gateway.library.management import ModelManagement
from forebay_gateway.pages.administration import VERBS, AdministrationPages, is_administration, refusal
from forebay_gateway.pages.background import serve_apart
from forebay_gateway.pages.batches import BatchPages
from forebay_gateway.pages.conversations import ConversationPages
from forebay_gateway.pages.ephemeral_keys import EphemeralKeyPages
from forebay_gateway.pages.files import FilePages
from forebay_gateway.pages.models_and_tokens import MODELS_PATH, Pages
from forebay_gateway.pages.ollama import OllamaPages
from forebay_gateway.pages.path_patterns import PathPatterns
from forebay_gateway.pages.responses import StoredPages
from forebay_gateway.refused import BadField, NotServedHere, UnknownPath, WrongMethod
from forebay_gateway.relay import Exchange
from forebay_gateway.route import Route
from forebay_gateway.serving import Means
from forebay_gateway.turned_away import answer_to, dialect_of, mistake

log = logging.getLogger(__name__)

Handler = Callable[[web.BaseRequest, Call], Awaitable[web.StreamResponse]]

_MESSAGES_PATH = "/v1/messages"
_RESPONSES_PATH = "/v1/responses"
_REQUEST_LINE = re.compile(rb"[A-Z]{3,8} (/[^ ?\r\n]{0,2048})")


class Front:
    def __init__(self, means: Means) -> None:
        self._means = means
        self._origins = Origins(means.settings.origins)
        self._proxies = means.settings.proxies
        pages, ollama, management = Pages(means), OllamaPages(means), ModelManagement(means)
        conversations = Conversations(means.contents, means.clock)
        self.background = BackgroundResponses(
            means.contents,
            means.afterwork,
            means.clock,
            means.is_draining,
            BackgroundLimits(
                means.settings.most_background,
                means.settings.most_background_per_user,
                means.settings.background_silent_s,
            ),
        )
        kept = KeptResponses(
            means.contents,
            conversations,
            self.background,
            means.afterwork,
            means.clock,
            means.thoughts,
            means.settings.max_body_bytes,
        )
        relayed = (
            Route(CHAT.path, OPENAI, parse_chat),
            Route(COMPLETION.path, OPENAI, parse_completion, prompt="prompt"),
            Route(EMBEDDING.path, OPENAI, parse_embedding, prompt="input"),
            Route(RERANK.path, OPENAI, parse_rerank, prompt="documents"),
            Route("/v2/rerank", OPENAI, parse_cohere_rerank, prompt="documents"),
            Route(SCORE.path, OPENAI, parse_score, prompt="text_2"),
            Route(MODERATION.path, OPENAI, parse_moderation, prompt="input"),
            Route(IMAGE.path, OPENAI, parse_image),
            Route(IMAGE_EDIT.path, OPENAI, parse_upload=parse_image_edit),
            Route(SPEECH.path, OPENAI, parse_speech),
            Route(TRANSCRIPTION.path, OPENAI, parse_upload=parse_transcription),
            Route(TRANSLATION.path, OPENAI, parse_upload=parse_translation),
            Route(_MESSAGES_PATH, ANTHROPIC, parse_messages),
            Route("/api/chat", OLLAMA, partial(parse_ollama_chat, now=means.clock.now)),
            Route("/api/generate", OLLAMA, partial(parse_generate, now=means.clock.now)),
            Route(EMBED_PATH, OLLAMA, partial(parse_embed, now=means.clock.now)),
            Route(LEGACY_PATH, OLLAMA, parse_legacy_embeddings),
        )
        self.hot = HotRoutes(means, self._origins, relayed)
        responses = Route(_RESPONSES_PATH, RESPONSES, prepare=kept.prepare, prompt="input")
        self._routes: dict[str, dict[str, Handler]] = {
            **{route.path: {"POST": self._relay(route)} for route in relayed},
            _RESPONSES_PATH: {"POST": self._relay_apart(responses)},
            MODELS_PATH: {"GET": pages.list_models},
            f"{_MESSAGES_PATH}/count_tokens": {"POST": pages.count_message_tokens},
            "/v1/tokenize": {"POST": pages.tokenize},
            "/api/tags": {"GET": ollama.tags},
            "/api/ps": {"GET": ollama.running},
            "/api/show": {"POST": ollama.show},
            "/api/version": {"GET": ollama.version},
            "/api/pull": {"POST": management.pull},
            "/api/push": {"POST": management.push},
            "/api/create": {"POST": management.create},
            "/api/copy": {"POST": management.copy},
            "/api/delete": {"DELETE": management.delete},
            "/": {"GET": self._welcome},
        }
        self._show_model: dict[str, Handler] = {"GET": pages.show_model}
        self._blob: dict[str, Handler] = {"HEAD": management.find_blob, "POST": management.take_blob}
        self._administration: dict[str, Handler] = dict.fromkeys(VERBS, AdministrationPages(means).pass_on)
        self._patterns = PathPatterns(
            {
                **StoredPages(means, kept, self.background, pages.count).addresses,
                **ConversationPages(means, conversations).addresses,
                **FilePages(means, Files(means.contents, means.clock)).addresses,
                **BatchPages(means, means.batches).addresses,
                **EphemeralKeyPages(means).addresses,
            }
        )

    def make_server(self) -> web.Server:
        return _Server(
            self._answer_and_hear_out,
            endpoints=self._means.endpoints,
            request_factory=partial(_make_request, self._origins),
            handler_cancellation=True,
            access_log=None,  # a key may stand in the path
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
        )

    async def _answer_and_hear_out(self, request: web.BaseRequest) -> web.StreamResponse:
        response = await self._answer(request)
        if _is_packed_and_unread(request):
            # aiohttp would unpack the rest to throw it away, without a pause: a gibibyte of it for each megabyte that came.
            await response.prepare(request)
            await response.write_eof()
            connection = request.protocol
            assert isinstance(connection, _Connection)
            await connection.hear_out()
        return response

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        query = request.rel_url.raw_query_string
        endpoints, address = self._means.endpoints, client_address(request, self._proxies)
        call = read_call(request.method, request.path, request.headers, query, endpoints, address)
        try:
            self._means.guard.demand(call)
            if is_preflight(call.method, request.headers):
                allowed = preflight(self._origins, request.headers)
                return web.Response(status=204, headers={"x-request-id": call.request_id, **allowed})
            handler = self._find(call)
            return await handler(request, call)
        except ForebayError as error:
            self._means.guard.note(call, error)
            if is_administration(call.path):
                return refusal(call, error)
            return _response(dialect_of(call), error, call.request_id)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception(
                "request failed inside the gateway",
                extra={"action": "internal", "request_id": call.request_id, "route": call.path},
            )
            return _response(dialect_of(call), mistake(call.request_id), call.request_id)

    def _find(self, call: Call) -> Handler:
        path = call.path.rstrip("/") or "/"
        methods = self._routes.get(path)
        if methods is None and path.startswith(f"{MODELS_PATH}/"):
            methods = self._show_model
        if methods is None and path.startswith(f"{BLOBS_PATH}/"):
            methods = self._blob
        if methods is None:
            methods = self._patterns.find(path)
        if methods is None and is_administration(path):
            methods = self._administration
        if path == "/v1/realtime":
            raise NotServedHere(
                "Forebay has no realtime sessions. Use POST /v1/audio/speech and /v1/audio/transcriptions."
            )
        if path == "/v1/uploads" or path.startswith("/v1/uploads/"):
            raise NotServedHere("Forebay takes no uploads in parts. Send the whole file to POST /v1/files.")
        if path == "/v1/responses/compact":
            raise NotServedHere("Forebay makes no conversation shorter. Send what is to be read to POST /v1/responses.")
        if methods is None:
            raise UnknownPath(
                f"There is no {call.method} {path[:200]} here. Chat completions are at POST {CHAT.path}, completions at "
                f"{COMPLETION.path}, embeddings at {EMBEDDING.path}, models at GET {MODELS_PATH}; SDKs take the base URL "
                "that ends in /v1."
            )
        handler = methods.get(call.method)
        if handler is None and call.method == "HEAD":
            handler = methods.get("GET")  # the server leaves the body out
        if handler is None:
            allowed = ", ".join(methods)
            raise WrongMethod(f"{path[:200]} takes {allowed}, not {call.method}.", allowed)
        return handler

    def _relay(self, route: Route) -> Handler:
        async def relay(request: web.BaseRequest, call: Call) -> web.StreamResponse:
            client = AnswerOverAiohttp(request)
            await Exchange(self._means, RequestOverAiohttp(request), client, call, route).serve()
            return client.response

        return relay

    def _relay_apart(self, route: Route) -> Handler:
        """Of what may go on without its client."""

        async def relay(request: web.BaseRequest, call: Call) -> web.StreamResponse:
            client = AnswerOverAiohttp(request)
            exchange = Exchange(self._means, RequestOverAiohttp(request), client, call, route)
            await serve_apart(exchange, self._means.settings.waiting_s)
            return client.response

        return relay

    async def _welcome(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        if "json" not in request.headers.get("accept", "").lower():
            # Its command line and many chat pages look for these words to tell whether anybody is there.
            return web.Response(text="Ollama is running", headers={"x-request-id": call.request_id})
        told = {"service": "forebay", "addresses": sorted([*self._routes, *self._patterns.addresses])}
        return web.Response(
            body=orjson.dumps(told), headers={"x-request-id": call.request_id, "content-type": "application/json"}
        )


def _response(dialect: Dialect, error: ForebayError, request_id: str) -> web.Response:
    status, headers, body = answer_to(dialect, error, request_id)
    return web.Response(status=status, body=body, headers=headers)


def _is_packed_and_unread(request: web.BaseRequest) -> bool:
    """Some of its body has not been looked at, and would have to be unpacked for that."""
    return "content-encoding" in request.headers and not request.content.is_eof()


class _Connection(TimelyConnection):
    """aiohttp's own answers to what is not HTTP at all, in our shape too; and no head may take longer than a hot one's."""

    head_s = HEAD_S
    endpoints = VirtualEndpoints()
    _path = "/"
    """Of the last request, as far as it came in one piece: of one that the parser refuses nothing else is left."""
    _hears_out = False

    async def hear_out(self) -> None:
        """Says that nothing more comes, then reads on and looks at nothing of it, until the client has gone or for a while:
        closed at once, the connection would be reset, and the client might lose its answer."""
        self._hears_out = True
        self._lingering_time = 0.0
        if self.transport is not None:
            if self.transport.can_write_eof():  # not over TLS
                self.transport.write_eof()
            self.transport.resume_reading()
            await asyncio.sleep(LINGER_S)  # cancelled when the client goes

    def data_received(self, data: bytes) -> None:
        if self._hears_out:
            return
        if data[:1].isupper() and (line := _REQUEST_LINE.match(data)) is not None:
            self._path = line[1].decode("latin-1")
        super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        # Neither logged nor repeated: what the parser complains about may hold a key.
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way; another cannot be sent")
        if isinstance(exc, ContentEncodingError):
            error: ForebayError = BadField(
                "The request's body is not encoded as its header content-encoding says, or in a way that this gateway does "
                "not read, such as br or zstd. Send it as it is, or with gzip or deflate.",
                code="unsupported_content_encoding",
            )
        elif status < 500:
            error = BadInput(
                f"This is not a well-formed HTTP/1.1 request: no line of its head can have more than {LONGEST_LINE} "
                "bytes, and its body must be encoded as the head says, which can be with gzip or deflate."
            )
        else:
            error = ForebayError()
        request_id = new_request_id()
        call = read_call("", self._path, {}, endpoints=self.endpoints)
        dialect = dialect_of(call) if isinstance(exc, ContentEncodingError) else OPENAI
        response = _response(dialect, error, request_id)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **fields: Any) -> None:
        # A broken body was told to its client. aiohttp trips over it once more when it clears away what was not read.
        if not isinstance(fields.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **fields)


class _Request(web.BaseRequest):
    origins: Origins

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers["server"] = SERVER
        if _is_packed_and_unread(self):
            response.force_close()
            response.headers["connection"] = "close"
        response.headers.update(self.origins.headers(self.headers.get("origin"), response.headers))


def _make_request(
    origins: Origins,
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> _Request:
    request = _Request(message, payload, protocol, writer, task, asyncio.get_running_loop())
    request.origins = origins
    return request


class _Server(web.Server):
    def __init__(self, handler: Callable[..., Any], *, endpoints: VirtualEndpoints, **options: Any) -> None:
        super().__init__(handler, **options)
        self._endpoints = endpoints

    def __call__(self) -> RequestHandler:
        connection = _Connection(self, loop=self._loop, **self._kwargs)
        connection.endpoints = self._endpoints
        return connection
