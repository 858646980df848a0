"""One request from its arrival to its last byte: authenticate, read, journal, ask, relay, settle, in that order.

Whatever happens on the way, exactly one record is closed, and before the last byte is sent. Until the first byte of an
answer has reached the client another backend may take over; after it, an error is an event in the stream."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from functools import partial

import orjson

from forebay.ephemeral_keys import EphemeralKey
from forebay.errors import ForebayError, NotAllowed, Refusal, Unavailable
from forebay.ledger_id import new_ledger_id
from forebay.traces.spans import current
from forebay_gateway.accounting import Entry, Outcome
from forebay_gateway.asked import Asked, Background, Keeping
from forebay_gateway.attempt import Attempt
from forebay_gateway.attempt_news import How
from forebay_gateway.authentication import principal_of
from forebay_gateway.callers.call import Call, wants_fallback, wished_band, wished_deadline_ms
from forebay_gateway.callers.principals import Principal
from forebay_gateway.canonical.file_parts import has_files, has_parts
from forebay_gateway.canonical.forms import CHAT
from forebay_gateway.dialects.ollama.loading import Loading
from forebay_gateway.dialects.ollama.parts import as_timestamp
from forebay_gateway.dialects.ollama.rights import within_rights
from forebay_gateway.engine_answer import TroubledEngine
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.engines.errors import Blame, EngineTrouble, as_sentence
from forebay_gateway.held_answer import demand_judgeable
from forebay_gateway.held_body import HeldBody
from forebay_gateway.http_in.incoming import Incoming
from forebay_gateway.http_in.outgoing import Outgoing
from forebay_gateway.interrupt import Interruptible
from forebay_gateway.keeping.named_files import Reader
from forebay_gateway.ledger.account import Account
from forebay_gateway.other_models import HasWaited, OtherModels, Turn, only_turn
from forebay_gateway.pages.ollama import load_or_unload
from forebay_gateway.pages.prompt_room import demand_room
from forebay_gateway.pictures import names_pictures
from forebay_gateway.recordings.tape import Recording
from forebay_gateway.refused import (
    ContextTooLong,
    Draining,
    EngineFailed,
    EngineRefused,
    ModelUnknown,
    Refused,
    TookTooLong,
    word_of,
)
from forebay_gateway.reply import Reply
from forebay_gateway.route import Prepare, Route
from forebay_gateway.rules.catalogue import find_model, may_ask, usual_model
from forebay_gateway.rules.fallbacks import Why
from forebay_gateway.rules.key_rules import demand_call, rule_for
from forebay_gateway.running import LATE_S
from forebay_gateway.serving import Means
from forebay_gateway.slot_wait import SlotWait
from forebay_gateway.slots.asking import Ask, Grant
from forebay_gateway.traced import begin_traced

log = logging.getLogger(__name__)

_TELL_S = 5.0  # for a refusal to leave, should the client have stopped reading


class Exchange:
    """One request and its answer."""

    def __init__(self, means: Means, request: Incoming, client: Outgoing, call: Call, route: Route) -> None:
        self._means = means
        self._route = route
        self._request = request
        self._call = call
        now = means.clock.now()
        self._delegation = means.delegates.take(call.delegation, now) if call.delegation is not None else None
        """None also for one that is refused when it comes to whose request this is."""
        self._ephemeral: EphemeralKey | None = None
        self.ledger_id = self._delegation.ledger_id if self._delegation is not None else new_ledger_id(now)
        self._entry = Entry(self.ledger_id, call.request_id, route.path, now, means.clock.monotonic())
        self._account = Account(
            self._entry,
            clock=means.clock,
            journal=means.journal,
            form=means.form,
            ratios=means.ratios,
            meters=means.meters,
        )
        self._reply = Reply(client, call.request_id, route.dialect)
        self._body = HeldBody(means.bodies)
        self.on_left: Callable[[Background, Reply], None] | None = None
        """Hears that the answer goes on without its client; with a reply for what the client is told of that."""
        self._interruptible = Interruptible()
        self._attempting = Interruptible()
        self._attempting.outer = self._interruptible
        self._principal: Principal | None = None
        self._recording: Recording | None = None
        self._asked: Asked | None = None
        self._attempt: Attempt | None = None
        self._slot = SlotWait(means, self._entry, self._body)
        self._others: OtherModels | None = None
        """None: nobody has said of any."""
        self._turn: Turn | None = None
        """The model that is asked for now."""
        self._attempts_before = 0
        """With other models."""
        self._deadline: asyncio.TimerHandle | None = None
        """That the client named itself."""
        self._is_silent = False
        """This attempt was given up since its engine said nothing."""
        self._traced = None if means.traces is None else begin_traced(means.traces, call, self.ledger_id)

    # --- what others see (running.Serving) --------------------------------------------------------------------------

    @property
    def key_id(self) -> str:
        return self._entry.key_id

    @property
    def arrived(self) -> float:
        return self._entry.arrived

    @property
    def asking_since(self) -> float:
        return self._slot.asking_since

    @property
    def is_queued(self) -> bool:
        return self._slot.is_asking or not self._slot.has_asked

    @property
    def backend_id(self) -> str:
        return self._attempt.grant.backend_id if self._attempt is not None else ""

    @property
    def silent_since(self) -> float:
        return self._attempt.silent_since if self._attempt is not None else math.inf

    def interrupt(self, error: ForebayError) -> None:
        self._interruptible.interrupt(error)

    def cut_off(self, why: Refusal) -> None:
        if self._attempt is not None:
            self._attempt.cut_off(why)

    @property
    def has_begun(self) -> bool:
        return self._attempt is not None and self._attempt.has_begun

    @property
    def awaits_engine(self) -> bool:
        # A form may be on its way to the engine for longer than an engine is silent with a good reason.
        sent = self._account.is_running and self._asked is not None and self._asked.upload is None
        return sent and not self.has_begun

    def lose_engine(self, why: str) -> None:
        self._is_silent = True
        self._attempting.interrupt(TroubledEngine(EngineTrouble(Blame.UNREACHABLE, why)))

    def place_elsewhere(self) -> None:
        if not self.has_begun:
            trouble = EngineTrouble(Blame.UNKNOWN_BACKEND, "It is drained.")
            self._attempting.interrupt(TroubledEngine(trouble))

    # --- from first to last -----------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Raises CancelledError or ConnectionError when the client has gone, and nothing else."""
        self._means.running.add(self)
        here = None if self._traced is None else current.set(self._traced.place)
        try:
            failure = await self._try()
            if failure is not None:
                await self._refuse(failure)
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
            if self._reply.has_comments:
                self._reply.close()
            self._attempt = None  # which knows us too: a circle would be left to the collector
            if self._others is not None:
                self._others.forget()
            self._body.release()
            self._means.running.remove(self.ledger_id)
            if self._recording is not None:
                self._means.recorder.end(self._recording, self._entry)
            if self._traced is not None:
                self._traced.tell(self._entry, self._means.clock.monotonic())
            if here is not None:
                current.reset(here)

    async def _try(self) -> ForebayError | None:
        """What the client is to be told instead of an answer, or at its end."""
        try:
            with self._interruptible:
                await self._run()
        except ForebayError as error:
            return error
        except (asyncio.CancelledError, ConnectionError):
            self._finish(Outcome.CANCELLED, "")
            if self._keeping is not None:
                self._keeping.left()
            raise
        except Exception:
            log.exception(
                "request failed inside the gateway",
                extra={"action": "internal", "request_id": self._call.request_id, "route": self._call.path},
            )
            return ForebayError(f"Forebay made a mistake; its log has request {self._call.request_id}.")
        return None

    async def _run(self) -> None:
        self._authenticate()
        if self._ephemeral is not None:
            await self._means.spending.spend(self._ephemeral)
        settings, route = self._means.settings, self._route
        if route.parse is not None:
            raw = self._request.read_now(self._body, most_bytes=settings.max_body_bytes)
            if raw is None:
                raw = await self._read_raw()
            elif self._recording is not None:
                self._recording.request.add(raw)
            asked, size = route.parse(raw), len(raw)
            del raw  # which nobody else keeps
            if isinstance(asked, Loading):
                await self._load(asked)
            else:
                await self._answer(asked, size)
        elif route.prepare is not None:
            await self._answer(*await self._prepare(route.prepare))
        elif route.parse_upload is not None:
            reading = self._request.reading_upload(
                most_bytes=settings.max_upload_bytes,
                idle_s=settings.body_idle_s,
                directory=settings.spool_dir,
            )
            async with reading as upload:
                if self._recording is not None:  # its fields, and not its files
                    self._recording.request.add(orjson.dumps(dict(upload.texts)))
                    self._recording.body_bytes = self._request.content_length or 0
                await self._answer(route.parse_upload(upload), upload.text_bytes)

    async def _prepare(self, prepare: Prepare) -> tuple[Asked, int]:
        assert self._principal is not None
        return await prepare(await self._read_raw(), self._principal, self._body.grow)

    async def _read_raw(self) -> bytes:
        settings = self._means.settings
        raw = await self._request.read(self._body, most_bytes=settings.max_body_bytes, idle_s=settings.body_idle_s)
        if self._recording is not None:
            self._recording.request.add(raw)
        return raw

    async def _load(self, loading: Loading) -> None:
        """Of Ollama's dialect: there is no answer to wait for."""
        means, principal = self._means, self._principal
        assert principal is not None
        self._entry.model_requested, self._entry.model = loading.model, self._model_of(loading.model, principal)
        await load_or_unload(means, principal, loading, self._entry.model, self._call.request_id)
        body = orjson.dumps(loading.answer(as_timestamp(means.clock.now())))
        self._entry.http_status = 200
        self._finish(Outcome.FINISHED, "")
        await self._reply.send(200, body)

    async def _answer(self, asked: Asked, prompt_bytes: int) -> None:
        principal = self._principal
        assert principal is not None
        if not asked.model:
            means = self._means
            asked.answer_as(usual_model(principal, asked.form, means.fleet, means.model_rules))
        if principal.terms is not None:
            demand_call(principal, asked.form)
        self._entry.model_requested = asked.model
        wants_any = self._call.fallback is None or wants_fallback(self._call)
        others = None
        if asked.instead or self._means.model_rules.has_fallbacks:
            others = self._others = OtherModels(self._means, principal, asked, prompt_bytes, wants_any=wants_any)
            turn = self._first_turn(asked, principal, others)
        else:
            turn = only_turn(asked.model, self._model_of(asked.model, principal))
        self._turn = turn
        if asked.untranslated is not None:
            asked.demand_suited(self._means.fleet.serving(turn.model, principal.pool))
        if asked.form is CHAT and has_parts(asked.fields) and (names_pictures(asked.fields) or has_files(asked.fields)):
            prompt_bytes += await self._fetch_named(asked)
        if others is not None:
            others.note_prompt(prompt_bytes)
        failure: ForebayError | None = None
        while True:
            try:
                await self._take_turn(asked, turn, prompt_bytes)
            except (ModelUnknown, ContextTooLong, Refused, HasWaited) as error:
                if self.has_begun:
                    raise
                if others is None:
                    self._name_model(turn.model)
                    raise
                failure, left = error, others
            else:
                return
            self._turn = turn = await self._next_turn(asked, left, failure)
            failure = None  # it knows this frame: a circle would be left to the collector

    def _first_turn(self, asked: Asked, principal: Principal, others: OtherModels) -> Turn:
        """Of the model that was asked for, or of another where no backend has it. Raises as `_model_of` does."""
        try:
            return others.first(self._model_of(asked.model, principal))
        except ModelUnknown as error:
            found = others.next(error)
            if found is None:
                raise
            return self._note_turn(asked, *found)

    async def _next_turn(self, asked: Asked, others: OtherModels, error: ForebayError) -> Turn:
        """Another model's. Raises what the client gets when there is none."""
        found = others.next(error)
        if found is None:
            self._name_model(others.original)
            told = others.told(error)
            if told is error:
                raise error
            raise told from error
        await self._slot.withdraw()
        self._account.forget_attempt()
        self._attempt = None
        self._attempts_before = self._entry.attempts
        return self._note_turn(asked, *found)

    def _note_turn(self, asked: Asked, turn: Turn, why: Why) -> Turn:
        asked.undo_rule()
        asked.answer_as(turn.name)
        self._means.meters.other_models.child(str(why)).value += 1
        log.info(
            "another model is asked",
            extra={
                "action": "other_model",
                "request_id": self._call.request_id,
                "asked": self._entry.model_requested,
                "model": turn.model,
                "why": str(why),
            },
        )
        return turn

    async def _take_turn(self, asked: Asked, turn: Turn, prompt_bytes: int) -> None:
        """With one model."""
        if "response_format" in asked.fields and asked.form.generates:
            await self._demand_judgeable(asked, turn.model)
        assert self._principal is not None
        if self._means.model_rules.are_there or self._principal.terms is not None:
            await self._demand_room(asked, self._principal, turn.model, prompt_bytes)
        if asked.background is not None and not self._slot.has_asked:
            await self._leave_client(asked, asked.background)
        ask = self._admit(asked, turn.model, prompt_bytes)
        if not self._slot.has_asked:
            self._account.open()
            if asked.stream:
                self._reply.comment_while_waiting(self._means.settings.waiting_s)
        grant = self._slot.begin(ask)
        on_credit = grant is not None
        if grant is None:
            grant = await self._slot.ask(ask, asked, self._others, turn.after_s)
        attempt = self._take(grant, asked, on_credit=on_credit)
        while True:
            try:
                with self._attempting:
                    await attempt.run()
            except TroubledEngine as troubled:
                trouble = troubled.trouble
            except ContextTooLong:
                if self.has_begun or not self._make_shorter(asked):
                    raise
                self._account.forget_attempt()
                continue
            else:
                self._means.attempt_news.note(attempt.grant.backend_id, How.SERVED)
                if self._traced is not None:
                    self._traced.end_attempt(self._means.clock.monotonic())
                return
            self._tell_failed(attempt, trouble)
            if self._traced is not None:
                self._traced.end_attempt(self._means.clock.monotonic(), str(trouble.blame))
            attempt = await self._fail_over(attempt.grant, asked, trouble)

    def _tell_failed(self, attempt: Attempt, trouble: EngineTrouble) -> None:
        """To the registry, what speaks against the engine."""
        is_silent, self._is_silent = self._is_silent, False
        match trouble.blame:
            case Blame.UNREACHABLE if is_silent:
                how = How.SILENT
            case Blame.UNREACHABLE:
                how = How.BROKEN if self._account.is_running else How.REFUSED
            case Blame.FAILED:
                how = How.FAILED
            case _:
                return
        self._means.attempt_news.note(attempt.grant.backend_id, how)

    async def _demand_room(self, asked: Asked, principal: Principal, model: str, prompt_bytes: int) -> None:
        """By an operator's rule. Raises ContextTooLong."""
        while True:
            try:
                return await demand_room(self._means, principal, asked, model, prompt_bytes, self._call)
            except ContextTooLong:
                if not self._make_shorter(asked):
                    raise

    def _make_shorter(self, asked: Asked) -> bool:
        """What was too long, for a client that lets its oldest turns be left out; a model that takes all of it is better."""
        if self._others is not None and self._others.may_take_more():
            return False
        if not asked.make_shorter():
            return False
        log.info(
            "conversation shortened",
            extra={"action": "shortened", "request_id": self._call.request_id, "model": self._entry.model},
        )
        return True

    async def _leave_client(self, asked: Asked, background: Background) -> None:
        """From here on the answer is nobody's in particular: it is told to those who ask for it."""
        assert self._principal is not None
        self._asked = asked
        await background.begin()
        client, self._reply = self._reply, self._reply.unheard(background)
        if self.on_left is not None:
            self.on_left(background, client)

    async def _fetch_named(self, asked: Asked) -> int:
        """The files and pictures that it names, into the request. Gives the bytes by which the prompt becomes longer."""
        means, principal = self._means, self._principal
        assert principal is not None
        model = self._turn.model if self._turn is not None else ""
        has_others = self._others is not None and self._others.are_there
        serving = () if has_others else means.fleet.serving(model, principal.pool)
        if asked.untranslated is not None or (serving and asked.leaves_fetching(serving)):
            return 0
        reads_documents = means.fleet.reads_documents(model, principal.pool)
        fetches = means.public_web.fetches_for(principal.user_id, self._body.into_memory)
        hold = self._body.grow
        reader = Reader(principal.user_id, means.settings.max_body_bytes, reads_documents, hold, fetches)
        put = await means.named_files.put_into(asked.fields, reader)
        await means.pictures.put_into(asked.fields, fetches, hold)
        asked.raw, asked.document_at = b"", put.document_at
        return put.prompt_bytes

    async def _demand_judgeable(self, asked: Asked, model: str) -> None:
        principal = self._principal
        assert principal is not None
        rule = rule_for(self._means.model_rules, model, principal, generates=True)
        serving = self._means.fleet.serving(model, principal.pool)
        told = rule.structured if rule is not None else None
        await demand_judgeable(asked.fields, told, serving, self._route.dialect.name)

    def _authenticate(self) -> None:
        means = self._means
        if self._call.has_ephemeral_key:
            self._ephemeral = means.ephemerals.read(self._call.key or "", means.clock.now())
        principal = principal_of(means, self._call, self._delegation, self._ephemeral)
        self._principal = principal
        entry = self._entry
        entry.key_id, entry.user_id, entry.group_id = principal.key_id, principal.user_id, principal.group_id
        entry.pool = principal.pool
        if principal.terms is not None:
            self._recording = means.recorder.begin(principal, self.ledger_id, self._call.address)
            self._reply.recording = self._recording
        if means.is_draining.is_set():
            raise Draining

    def _admit(self, asked: Asked, model: str, prompt_bytes: int) -> Ask:
        """No await here, nor from here to the asking."""
        entry, principal = self._entry, self._principal
        assert principal is not None
        self._asked = asked
        entry.stream, entry.width = asked.stream, asked.width
        call = self._call
        says_none = call.priority is None and call.delegation is None
        band = principal.usual_band if says_none else wished_band(call, principal)
        deadline_ms = wished_deadline_ms(call) if call.deadline_ms is not None else 0
        asked.arrived_at = int(entry.started_at)
        asked.model_at_engines = model
        self._name_model(model)
        rule = None
        if self._means.model_rules.are_there or principal.terms is not None:
            rule = rule_for(self._means.model_rules, model, principal, generates=asked.form.generates)
        own = asked.native.get(EngineKind.OLLAMA) if asked.native else None
        if own is not None and not principal.may_manage_models:
            own.said = within_rights(own.said, is_limited=rule is not None and rule.keep_alive_s is not None)
        if rule is not None:
            if self._others is not None and self._others.are_there:
                asked.keep_as_it_came()
            asked.obey(rule)
        if deadline_ms and not self._slot.has_asked:
            # The scheduler, who knows why, refuses first.
            self._deadline = asyncio.get_running_loop().call_later(deadline_ms / 1000 + LATE_S, self._end_wait)
        if self._traced is not None:
            self._traced.note_form(asked.form)
            self._traced.wait(self._means.clock.monotonic())
        return Ask(
            ledger_id=self.ledger_id,
            request_id=self._call.request_id,
            pool=principal.pool,
            model=model,
            key_id=principal.key_id,
            user_id=principal.user_id,
            group_id=principal.group_id,
            band=band,
            width=asked.width,
            prompt_tokens=self._account.estimate(model, prompt_bytes),
            max_output_tokens=asked.max_output_tokens,
            deadline_ms=deadline_ms,
            session_key=self._call.session_key,
            started_at=entry.started_at,
            arrived=entry.arrived,
            prefix_hashes=asked.form.prefix_hashes(model, principal.user_id, asked.fields),
            is_plain=not asked.stream,
            excluded=asked.excludes(self._means.fleet, model, principal.pool),
            traced=b"" if self._traced is None else self._traced.place.packed,
        )

    def _name_model(self, model: str) -> None:
        self._entry.model = model
        self._reply.headers["x-forebay-model"] = model if model.isascii() else model.encode("ascii", "replace").decode()

    def _model_of(self, asked: str, principal: Principal) -> str:
        """Its name in the fleet. Raises NotAllowed, Unavailable, ModelUnknown."""
        fleet = self._means.fleet
        is_there = fleet.served(asked, principal.pool) is not None
        model = asked if is_there else find_model(asked, principal.pool, fleet, self._means.model_rules) or asked
        if not principal.may_use_all and not may_ask(principal, asked, model):
            raise NotAllowed(f"This API key does not allow the model {asked}. `GET /v1/models` lists what it allows.")
        if not fleet.is_known:
            raise Unavailable("This gateway has just started and knows no backends yet. Try again in a moment.")
        if not is_there and not fleet.has(model, principal.pool):
            raise ModelUnknown(f"No backend has the model {asked}. `GET /v1/models` lists those there are.")
        return model

    # --- slots ------------------------------------------------------------------------------------------------------

    async def _fail_over(self, grant: Grant, asked: Asked, trouble: EngineTrouble) -> Attempt:
        log.info(
            "attempt failed",
            extra={
                "action": "attempt_failed",
                "request_id": self._call.request_id,
                "backend": grant.backend_id,
                "blame": str(trouble.blame),
                "why": trouble.message,
            },
        )
        self._means.meters.attempts_failed.child(str(trouble.blame)).value += 1
        if self.has_begun:
            raise EngineFailed(
                f"The engine failed in the middle of its answer. {as_sentence(trouble.message)} Send the request again."
            )
        self._account.forget_attempt()
        if trouble.blame is Blame.MODEL_GONE:
            self._slot.note_model_gone(grant.backend_id)
        self._attempt = None
        if self._traced is not None:
            self._traced.wait(self._means.clock.monotonic())
        return self._take(await self._slot.ask_again(grant, asked, trouble), asked)

    def _take(self, grant: Grant, asked: Asked, *, on_credit: bool = False) -> Attempt:
        entry = self._entry
        attempts = self._attempts_before + grant.attempt
        entry.backend_id, entry.queue_ms, entry.attempts = grant.backend_id, grant.queue_ms, attempts
        headers = self._reply.headers
        headers["x-forebay-queue-ms"], headers["x-forebay-attempts"] = str(grant.queue_ms), str(attempts)
        backend = self._means.fleet.get(grant.backend_id)
        if grant.standing is not None:
            headers.update(self._route.dialect.rate_headers(grant.standing, self._means.clock.now()))
        if backend is not None and self._principal is not None and self._principal.sees_backends:
            headers["x-forebay-backend"] = backend.name.encode("ascii", "replace").decode()
        traced = None
        if self._traced is not None:
            traced = self._traced.grant(grant, backend, self._means.clock.monotonic(), on_credit=on_credit)
        self._attempt = Attempt(
            self._means,
            self._call,
            asked,
            grant,
            backend,
            account=self._account,
            reply=self._reply,
            body=self._body,
            asked_at=self._slot.asked_at,
            finish=self._finish,
            traced=traced,
        )
        return self._attempt

    # --- the end ----------------------------------------------------------------------------------------------------

    @property
    def _keeping(self) -> Keeping | None:
        return self._asked.keeping if self._asked is not None else None

    async def _refuse(self, error: ForebayError) -> None:
        if self._account.is_closed:
            self._reply.abort()  # its last bytes are on their way to a client that does not take them
            return
        self._means.guard.note(self._call, error, self._principal)
        outcome = Outcome.FAILED if self._entry.attempts else Outcome.REFUSED
        if isinstance(error, ContextTooLong | EngineRefused):
            self._account.forget_attempt()
        if isinstance(error, ContextTooLong):
            error.param = self._route.prompt
        if not self._entry.http_status:
            self._entry.http_status = self._reply.status or self._reply.status_of(error)
        self._finish(outcome, word_of(error))
        if isinstance(error, Refused) and error.standing is not None:
            told = self._route.dialect.rate_headers(error.standing, self._means.clock.now())
            self._reply.headers.update(told)
        try:
            async with asyncio.timeout(_TELL_S):
                if self._keeping is not None:
                    await self._keeping.broken(error.message)
                await self._reply.refuse(error, self._asked.translation if self._asked is not None else None)
        except TimeoutError:
            self._reply.abort()

    def _finish(self, outcome: Outcome, reason: str) -> None:
        """Closes the record and gives the slots back, once; those of an engine that may be at it still, when it has heard of
        the end. No await: a cancellation cannot come in between."""
        began = 0.0 if self._traced is None else self._means.clock.monotonic()
        if self._account.close(outcome, reason, self._entry.http_status or self._reply.status) and self._slot.has_asked:
            connection = self._attempt.connection if self._attempt is not None else None
            if connection is None or not connection.is_left:
                self._means.slots.end(self.ledger_id, outcome, self._entry.usage)
            else:
                connection.when_over(partial(self._means.slots.end, self.ledger_id, outcome, self._entry.usage))
            if self._traced is not None:
                self._traced.settle(began, self._means.clock.monotonic())

    def _end_wait(self) -> None:
        if self._slot.is_asking:
            self.interrupt(TookTooLong())
