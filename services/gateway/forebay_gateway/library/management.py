"""Managing the models of a pool's Ollama backends through Ollama's own API, for operators' keys.

A pull and a deletion are meant for all of them; what is made of pieces that lie on one engine (blobs and what is created of
them), copied there or pushed from there, for one. Nothing here takes a slot or leaves a row in the ledger. That a model came
or went is seen by the registry's next probe of the backend, and nobody needs to be told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import orjson
from aiohttp import web

from forebay.errors import ForebayError, NotAllowed
from forebay_gateway.authentication import principal_of
from forebay_gateway.callers.call import Call
from forebay_gateway.callers.principals import Principal
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import parse_object
from forebay_gateway.canonical.speech import dumped
from forebay_gateway.dialects.ollama.errors import OLLAMA
from forebay_gateway.dialects.ollama.fields import parse_body, streams, text_of
from forebay_gateway.dialects.ollama.native import native_body
from forebay_gateway.dialects.ollama.progress import SUCCESS
from forebay_gateway.fleet import Backend
from forebay_gateway.http_in.over_aiohttp import AnswerOverAiohttp
from forebay_gateway.library.blobs import BLOBS_PATH, BlobBody, digest_in
from forebay_gateway.library.errand import Errand, in_its_words, refused
from forebay_gateway.library.hosts import BACKEND_HEADER, host, hosts, hosts_to_clear
from forebay_gateway.library.pull import Pull
from forebay_gateway.pages.models_and_tokens import read_page_body
from forebay_gateway.refused import BadField, Draining, EngineFailed, EngineRefused, word_of
from forebay_gateway.reply import Reply
from forebay_gateway.serving import Means

log = logging.getLogger(__name__)

_NO_BODY = "text/plain; charset=utf-8"


@dataclass(slots=True)
class Order:
    """One request, and what its line in the log will say of it."""

    action: str
    request: web.BaseRequest
    call: Call
    principal: Principal
    reply: Reply
    model: str = ""
    """Or the digest of a blob."""
    backends: list[Backend] = field(default_factory=list)

    @property
    def named_backend(self) -> str | None:
        return self.request.headers.get(BACKEND_HEADER)


class ModelManagement:
    def __init__(self, means: Means) -> None:
        self._means = means

    async def pull(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        return await self._carry_out("model_pull", self._pull, request, call)

    async def push(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        return await self._carry_out("model_push", self._push, request, call)

    async def create(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        return await self._carry_out("model_create", self._create, request, call)

    async def copy(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        return await self._carry_out("model_copy", self._copy, request, call)

    async def delete(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        return await self._carry_out("model_delete", self._delete, request, call)

    async def find_blob(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        return await self._carry_out("model_blob_find", self._find_blob, request, call)

    async def take_blob(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        return await self._carry_out("model_blob_take", self._take_blob, request, call)

    # --- what all of them have in common ----------------------------------------------------------------------------

    async def _carry_out(
        self, action: str, work: Callable[[Order], Awaitable[None]], request: web.BaseRequest, call: Call
    ) -> web.StreamResponse:
        """Raises NotAuthenticated; everything else is told to the client in the form that still fits."""
        principal = principal_of(self._means, call)
        client = AnswerOverAiohttp(request)
        order = Order(action, request, call, principal, Reply(client, call.request_id, OLLAMA))
        try:
            with _logged(order):
                self._admit(order)
                await work(order)
        except ForebayError as error:
            await order.reply.refuse(error)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception(
                "order failed inside the gateway",
                extra={"action": "internal", "request_id": call.request_id, "route": call.path},
            )
            mistake = ForebayError(f"Forebay made a mistake; its log has request {call.request_id}.")
            await order.reply.refuse(mistake)
        return client.response

    def _admit(self, order: Order) -> None:
        if not order.principal.may_manage_models:
            raise NotAllowed("This API key may not manage models; that takes an operator's.")
        if self._means.is_draining.is_set():
            raise Draining

    async def _read(self, order: Order) -> Json:
        """A body that names a model. Raises BadField, NotAllowed, and as `read_body` does."""
        body, order.model = parse_body(await read_page_body(self._means, order.request), "`model`")
        self._demand(order, order.model)
        return body

    def _demand(self, order: Order, *models: str) -> None:
        """Raises NotAllowed unless the key may use these."""
        for model in models:
            fleet, pool = self._means.fleet, order.principal.pool
            name = fleet.name_of(model, pool) or fleet.ollamas_name_of(model, pool) or model
            if not order.principal.may_use(name):
                raise NotAllowed(f"This API key does not allow the model {model}.")

    def _host(self, order: Order, having: str | None = None) -> Backend:
        backend = host(self._means.fleet, order.principal.pool, order.named_backend, having)
        order.backends = [backend]
        order.reply.headers[BACKEND_HEADER] = backend.name.encode("ascii", "replace").decode()
        return backend

    def _errand(self, order: Order, backend: Backend) -> Errand:
        return Errand(self._means, order.principal.key_id, backend, order.call.request_id)

    # --- on all backends --------------------------------------------------------------------------------------------

    async def _pull(self, order: Order) -> None:
        body = await self._read(order)
        is_streamed = streams(body)
        order.backends = hosts(self._means.fleet, order.principal.pool, order.named_backend)
        pull = Pull(order.reply, order.backends, is_streamed=is_streamed)
        sent = native_body(body, order.model, True)
        gone: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                for backend in order.backends:
                    tasks.create_task(pull.run(self._errand(order, backend), sent), name="pull")
        except* ConnectionError as errors:
            gone = errors
        if gone is not None:
            raise ConnectionResetError("The client has gone.") from gone
        if pull.failures:
            done = [backend.name for backend in order.backends if backend.name not in pull.failures]
            raise _joined(pull.failures, f"{order.model} has been pulled to", done)
        if is_streamed:
            await order.reply.end_stream(b"")
        else:
            await order.reply.send(200, orjson.dumps({"status": SUCCESS}))

    async def _delete(self, order: Order) -> None:
        body = await self._read(order)
        pool = order.principal.pool
        order.backends = hosts_to_clear(self._means.fleet, pool, order.named_backend, order.model)
        sent = native_body(body, order.model, None)
        ends = await asyncio.gather(*(self._delete_on(order, backend, sent) for backend in order.backends))
        by_name = {backend.name: end for backend, end in zip(order.backends, ends, strict=True)}
        failures = {name: end for name, end in by_name.items() if end is not None and not _is_missing(end)}
        done = [name for name, end in by_name.items() if end is None]
        if failures:
            raise _joined(failures, f"{order.model} has been deleted from", done)
        if not done:
            raise in_its_words(404, f"model '{order.model}' not found")
        await order.reply.send(200, b"", _NO_BODY)

    async def _delete_on(self, order: Order, backend: Backend, sent: bytes) -> ForebayError | None:
        try:
            await self._errand(order, backend).do_at_once("DELETE", "/api/delete", sent)
        except ForebayError as error:
            return error
        return None

    # --- on one backend ---------------------------------------------------------------------------------------------

    async def _push(self, order: Order) -> None:
        body = await self._read(order)
        await self._pass_progress(order, self._host(order, having=order.model), "/api/push", body)

    async def _create(self, order: Order) -> None:
        body = await self._read(order)
        source = text_of(body, "from")
        if source:
            self._demand(order, source)
        has_blobs = bool(body.get("files") or body.get("adapters"))  # which lie where `_take_blob` has put them
        backend = self._host(order, having=source if source and not has_blobs else None)
        await self._pass_progress(order, backend, "/api/create", body)

    async def _pass_progress(self, order: Order, backend: Backend, path: str, body: Json) -> None:
        """Line by line, as it comes; what the engine answers in one piece, in one piece."""
        is_streamed, reply = streams(body), order.reply
        errand = self._errand(order, backend)
        with _naming(backend):
            async with errand.asking("POST", path, native_body(body, order.model, is_streamed)) as answer:
                if answer.status != 200:
                    raise await refused(answer)
                last = b""
                async for line in errand.progress(answer):
                    last = line.raw
                    if is_streamed:
                        await reply.begin_stream()
                        await reply.write(last + b"\n")
        if is_streamed:
            await reply.end_stream(b"")
        else:
            await reply.send(200, last)

    async def _copy(self, order: Order) -> None:
        body = parse_object(await read_page_body(self._means, order.request), "`source` and `destination`")
        source, destination = (text_of(body, name) for name in ("source", "destination"))
        for name, value in (("source", source), ("destination", destination)):
            if not value:
                raise BadField(f"`{name}` is missing: it names a model.", param=name, code="missing_required_parameter")
        order.model = destination
        self._demand(order, source, destination)
        backend = self._host(order, having=source)
        with _naming(backend):
            await self._errand(order, backend).do_at_once("POST", "/api/copy", dumped(body))
        await order.reply.send(200, b"", _NO_BODY)

    # --- blobs ------------------------------------------------------------------------------------------------------

    async def _find_blob(self, order: Order) -> None:
        order.model = digest_in(order.call.path)
        is_there = await self._has_blob(order, self._host(order), order.model)
        await order.reply.send(200 if is_there else 404, b"", _NO_BODY)

    async def _take_blob(self, order: Order) -> None:
        order.model = digest = digest_in(order.call.path)
        backend = self._host(order)
        # An engine that has the blob answers before it has read it and then drops the connection, so that its answer may be
        # lost while we still write; asked first, it spares everyone the gigabytes too.
        if await self._has_blob(order, backend, digest):
            await order.reply.send(200, b"", _NO_BODY)
            return
        errand = self._errand(order, backend)
        body = BlobBody(order.request, errand, self._means.settings.body_idle_s)
        with _naming(backend):
            try:
                async with errand.asking("POST", f"{BLOBS_PATH}/{digest}", body.pieces()) as answer:
                    try:
                        if answer.status not in (200, 201):
                            raise await refused(answer)
                        status = answer.status
                    finally:
                        answer.close()  # some of the blob may be unsent
            except EngineFailed as error:
                if body.error is not None:
                    raise body.error from error
                raise
        await order.reply.send(status, b"", _NO_BODY)

    async def _has_blob(self, order: Order, backend: Backend, digest: str) -> bool:
        with _naming(backend):
            try:
                await self._errand(order, backend).do_at_once("HEAD", f"{BLOBS_PATH}/{digest}")
            except EngineRefused as error:
                if error.status == 404:
                    return False
                raise
        return True


@contextmanager
def _logged(order: Order) -> Iterator[None]:
    """One line for each order, however it ends."""
    outcome = "internal"
    try:
        yield
        outcome = "done"
    except ForebayError as error:
        outcome = word_of(error)
        raise
    except (ConnectionError, asyncio.CancelledError):
        outcome = "cancelled"
        raise
    finally:
        log.info(
            "models managed",
            extra={
                "action": order.action,
                "key_id": order.principal.key_id,
                "model": order.model,
                "backends": [backend.name for backend in order.backends],
                "outcome": outcome,
            },
        )


@contextmanager
def _naming(backend: Backend) -> Iterator[None]:
    """An engine's refusal stays in its own words; trouble with an engine says with which."""
    try:
        yield
    except EngineFailed as error:
        raise EngineFailed(f"{backend.name}: {error.message}") from error


def _joined(failures: dict[str, ForebayError], what_was_done: str, done: list[str]) -> ForebayError:
    """One error for those of several backends."""
    first, *others = failures.values()
    is_askers = not isinstance(first, EngineFailed) and OLLAMA.render(first, "").status < 500
    if is_askers and not done and all(other.message == first.message for other in others):
        return first  # such as a name that no engine takes, or a key that was revoked
    words = "; ".join(f"{name}: {error.message}" for name, error in failures.items())
    return in_its_words(500, f"{words} ({what_was_done} {', '.join(done)})" if done else words)


def _is_missing(error: ForebayError) -> bool:
    return isinstance(error, EngineRefused) and error.status == 404
