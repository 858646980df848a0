"""A fake inference engine for tests: one aiohttp server that speaks OpenAI, Ollama, vLLM's metrics and llama.cpp's slots.

It paces tokens, has so many slots and no more, notices every client that goes, records what it saw, and breaks in the
ways it is told to. It passes the same contract tests as the real llama.cpp (`tests/contract/test_engine_contract.py`).

    async with FakeEngine(slots=2, pace=Pace(tokens_per_s=20)) as engine:
        engine.faults.add(Fault(FaultKind.STATUS, status=503, times=2))
        ...                                     # let the gateway talk to engine.url
        assert engine.slots.peak_width <= 2    # running + waiting: what was asked of it, not what it let through

As a process of its own: `python tests/fakes/engine.py --port 0 --slots 4 …`, whose first line on stdout is
`{"url": …, "port": …, "pid": …}`; `tests.fakes.engine_process` starts it so and drives it through the control URL:

    POST /control/faults   a fault or a list of them (`engine_faults.Fault`)
    POST /control/pace     fields of `engine_orders.Pace`, from now on
    POST /control/reset    forget faults, record and peaks; running generations go on
    GET  /control/seen     what it saw: `engine_record`, and slots, running, waiting, peak_running, peak_width

What is true of every engine here, as of the real one: a stream's headers go out when the request holds its slots, not
while it waits; the first chunk carries the role; the last one with a choice has the finish reason and an empty delta;
closing a running stream frees its slots at once; `n` choices take `n` slots at the same moment, and more
than there are is 400. Where engines differ is in `engine_flavours.Traits`. Simpler than any real engine: prompts cost
no time of their own beyond `ttft_s`, choices come in lockstep, nothing is ever cached, and tools, thoughts, images, JSON
schemas and log probabilities are answered by rule: which words of a request have which effect is in `engine_wishes`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

from aiohttp import web

from tests.fakes.engine_errands import Errands, errands_of
from tests.fakes.engine_faults import BadFault, Fault, FaultBox, FaultKind
from tests.fakes.engine_flavours import TRAITS, Flavour, Traits
from tests.fakes.engine_forms import FORM_TYPE, BadForm, read_form
from tests.fakes.engine_generation import GENERATION, Generator
from tests.fakes.engine_jobs import Jobs
from tests.fakes.engine_library import Library
from tests.fakes.engine_orders import BadOrder, Pace
from tests.fakes.engine_pages import Pages, UnknownModel
from tests.fakes.engine_record import Ending, Record, Seen
from tests.fakes.engine_refusals import Refused
from tests.fakes.engine_sending import HIT, SEEN, Broken, close_connection
from tests.fakes.engine_slots import Slots, SlotsFull

MAX_BODY_BYTES = 64 * 1024 * 1024
_RECORDED = frozenset((*GENERATION, *errands_of(Flavour.ANY, TRAITS[Flavour.ANY], 0)))
"""Whichever of them the flavour serves."""


class FakeEngine:
    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        models: Sequence[str] = ("fake-model",),
        slots: int = 4,
        context_tokens: int = 4096,
        pace: Pace | None = None,
        flavour: Flavour = Flavour.ANY,
        traits: Traits | None = None,
        refuses_beyond_slots: bool = False,
        api_key: str | None = None,
        library: Library | None = None,
    ) -> None:
        """With a `library`, it lists and generates with what is in there. `context_tokens` are those of one slot. `traits`
        replace the flavour's own. With `api_key`, every page but /health and the control URL demands it (bearer)."""
        self.host = host
        self.port = port
        """0 until `start` has chosen one."""
        self.traits = traits or TRAITS[flavour]
        self.slots = Slots(slots, refuses=refuses_beyond_slots, keeps_gone=not self.traits.cancels_waiting)
        self.record = Record()
        self.faults = FaultBox()
        self._api_key = api_key
        self._pages = Pages(flavour, tuple(models), context_tokens, self.slots, self.record, library)
        self.library = library or Library(tuple(models))
        self._jobs = Jobs(cancels=self.traits.cancels_plain)
        self._generator = Generator(pages=self._pages, traits=self.traits, jobs=self._jobs, pace=pace or Pace())
        self._errands = Errands(pages=self._pages, traits=self.traits, jobs=self._jobs, pace=pace or Pace())
        self._runner = web.AppRunner(
            self._app(),
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=self.traits.keepalive_s,
            shutdown_timeout=0.1,
        )
        self._site: web.TCPSite | None = None
        self._listening_again: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, without a slash or `/v1` at the end."""
        return f"http://{self.host}:{self.port}"

    @property
    def pace(self) -> Pace:
        return self._generator.pace

    @pace.setter
    def pace(self, pace: Pace) -> None:
        """From the next request on."""
        self._generator.pace = self._errands.pace = pace

    async def start(self) -> None:
        await self._runner.setup()
        await self._listen()

    async def stop(self) -> None:
        """Close every connection, whatever still runs on it."""
        if self._listening_again is not None:
            self._listening_again.cancel()
            await asyncio.gather(self._listening_again, return_exceptions=True)
        await self._jobs.stop()
        await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def refuse_connections(self, seconds: float) -> None:
        """Stop listening for so long; connections that are open stay so."""
        if self._site is None:
            return
        await self._site.stop()
        self._site = None
        self._listening_again = asyncio.create_task(self._listen_after(seconds))

    def reset(self) -> None:
        """Forget faults, record and peaks."""
        self.faults.clear()
        self.record.forget()
        self.slots.forget_peaks()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._attend], client_max_size=MAX_BODY_BYTES)
        ollama = self._pages.flavour in (Flavour.ANY, Flavour.OLLAMA)
        for path in GENERATION:
            if ollama or not path.startswith("/api/"):
                app.router.add_post(path, self._generator.generate)
        app.add_routes(self._errands.routes())
        app.add_routes(self._pages.routes())
        app.add_routes(self.library.routes() if self._pages.flavour is Flavour.OLLAMA else ())
        app.add_routes(
            [
                web.post("/control/faults", self._control_faults),
                web.post("/control/pace", self._control_pace),
                web.post("/control/reset", self._control_reset),
                web.get("/control/seen", self._control_seen),
            ]
        )
        return app

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, self.host, self.port, reuse_address=True)
        await self._site.start()
        self.port = self._site.port

    async def _listen_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._listen()

    # Every request passes here: it is written down, gets its faults, and its errors get their dialect's shape.

    @web.middleware
    async def _attend(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path.startswith("/control/"):
            return await handler(request)
        recorded = request.path in _RECORDED
        seen = self._write_down(request, await _body(request)) if recorded else None
        request[HIT] = self.faults.take(request.path, generates=recorded)
        try:
            self._check_key(request)
            await self._act_early(request)
            response = await handler(request)
        except asyncio.CancelledError:
            if request.transport is None:  # the client went; otherwise it is the engine that stops
                _note_disconnect(seen)
            raise
        except ConnectionResetError:  # a write met the closed connection before its loss was announced
            _note_disconnect(seen)
            return web.Response(status=499)  # never arrives, no more than the next one
        except Broken:
            if seen is not None:
                seen.ending = Ending.BROKEN
            return web.Response(status=500)
        except (BadOrder, SlotsFull, UnknownModel, Refused, web.HTTPException) as error:
            if seen is not None:
                seen.ending = Ending.REFUSED
            return self._error_answer(request, error)
        finally:
            if seen is not None:
                seen.ended_at = time.monotonic()
        return response

    def _write_down(self, request: web.Request, body: Any) -> Seen:
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen = self.record.arrive(request.path, headers, body)
        request[SEEN] = seen
        return seen

    def _check_key(self, request: web.Request) -> None:
        if self._api_key is None or request.path == "/health":
            return
        if request.headers.get("authorization") != f"Bearer {self._api_key}":
            raise Refused(401, "Invalid API Key", "authentication_error")

    async def _act_early(self, request: web.Request) -> None:
        """The faults that come before any answer; and a page that is no generation is counted."""
        hit = request[HIT]
        seen = request.get(SEEN)
        if seen is None:
            self.record.probes[request.path] += 1
        else:
            seen.faults = [fault.kind.value for fault in hit.faults]
        if slow := hit[FaultKind.SLOW_HEADERS]:
            await asyncio.sleep(slow.seconds)
        if close := hit[FaultKind.CLOSE_BEFORE_HEADERS]:
            close_connection(request, reset=close.reset)
            raise Broken
        if fault := hit[FaultKind.STATUS]:
            raise Refused(fault.status, fault.message, "injected_error", retry_after_s=fault.retry_after_s)
        if hit[FaultKind.UNHEALTHY]:
            raise Refused(503, "Loading model", "unavailable_error")

    def _error_answer(self, request: web.Request, error: Exception) -> web.Response:
        ollama = request.path.startswith("/api/")
        refused = _as_refusal(error, ollama=ollama)
        headers = {} if refused.retry_after_s is None else {"retry-after": f"{refused.retry_after_s:g}"}
        if self.traits.flat_errors and not ollama:
            flat = {"object": "error", "message": str(refused), "type": refused.kind, "param": None}
            return web.json_response(flat | {"code": refused.status}, status=refused.status, headers=headers)
        body: object = str(refused)
        if not ollama:
            body = {"message": str(refused), "type": refused.kind, "param": None, "code": refused.status} | refused.more
        return web.json_response({"error": body}, status=refused.status, headers=headers)

    # Control

    async def _control_faults(self, request: web.Request) -> web.Response:
        try:
            given = await request.json()
            faults = [Fault.from_json(order) for order in (given if isinstance(given, list) else [given])]
        except (ValueError, BadFault) as error:
            return web.json_response({"error": str(error)}, status=400)
        for fault in faults:
            if fault.kind is FaultKind.REFUSE_CONNECTION:
                await self.refuse_connections(fault.seconds)
            else:
                self.faults.add(fault)
        return web.json_response({"faults": len(faults)})

    async def _control_pace(self, request: web.Request) -> web.Response:
        try:
            self.pace = self.pace.changed(await request.json())
        except (ValueError, BadOrder) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({})

    async def _control_reset(self, request: web.Request) -> web.Response:
        self.reset()
        return web.json_response({})

    async def _control_seen(self, request: web.Request) -> web.Response:
        return web.json_response(
            self.record.to_json()
            | {
                "now": time.monotonic(),
                "slots": self.slots.total,
                "running": self.slots.running,
                "waiting": self.slots.waiting,
                "peak_running": self.slots.peak_running,
                "peak_width": self.slots.peak_width,
            }
        )


async def _body(request: web.Request) -> Any:
    """Of JSON or a form; text where it is neither."""
    if request.content_type == FORM_TYPE:
        try:
            return await read_form(request)
        except BadForm as error:
            return f"broken form: {error}"
    raw = await request.read()
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")


def _note_disconnect(seen: Seen | None) -> None:
    if seen is not None:
        seen.disconnected_at = time.monotonic()
        seen.ending = Ending.DISCONNECTED


def _as_refusal(error: Exception, *, ollama: bool) -> Refused:
    match error:
        case Refused():
            return error
        case SlotsFull():
            # Ollama's own words, two blanks included.
            return Refused(503, "server busy, please try again.  maximum pending requests exceeded", "overloaded_error")
        case UnknownModel() if ollama:
            return Refused(404, f"model '{error.model}' not found", "not_found_error")
        case UnknownModel():
            return Refused(404, f"The model `{error.model}` does not exist.", "NotFoundError")
        case web.HTTPException():
            return Refused(error.status, error.reason, "not_found_error")
        case _:
            return Refused(400, str(error), "invalid_request_error")


async def _serve(engine: FakeEngine) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with engine:
        sys.stdout.write(json.dumps({"url": engine.url, "port": engine.port, "pid": os.getpid()}) + "\n")
        sys.stdout.flush()
        await stopped.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    usual = Pace()
    parser = argparse.ArgumentParser(description="A fake inference engine for tests.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", action="append", dest="models", help="may be given several times")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--context-tokens", type=int, default=4096)
    parser.add_argument("--tokens-per-s", type=float, default=usual.tokens_per_s)
    parser.add_argument("--ttft-s", type=float, default=usual.ttft_s)
    parser.add_argument("--answer-tokens", type=int, default=usual.answer_tokens)
    parser.add_argument("--flavour", type=Flavour, choices=list(Flavour), default=Flavour.ANY)
    parser.add_argument("--refuses-beyond-slots", action="store_true", help="503 instead of waiting")
    parser.add_argument("--api-key", help="demand it as a bearer token")
    given = parser.parse_args(arguments)
    engine = FakeEngine(
        host=given.host,
        port=given.port,
        models=given.models or ("fake-model",),
        slots=given.slots,
        context_tokens=given.context_tokens,
        pace=Pace(given.tokens_per_s, given.ttft_s, given.answer_tokens),
        flavour=given.flavour,
        refuses_beyond_slots=given.refuses_beyond_slots,
        api_key=given.api_key,
    )
    asyncio.run(_serve(engine))


if __name__ == "__main__":
    main()
