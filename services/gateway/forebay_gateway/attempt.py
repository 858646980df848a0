"""One attempt at a request: the granted backend is asked, and what it answers goes to the client, as fast as both go
along. Whoever makes it decides what comes of a failure, and closes the record when it is told to."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from forebay.errors import Refusal
from forebay_gateway.accounting import Outcome, Usage, UsageSource
from forebay_gateway.asked import Asked
from forebay_gateway.callers.call import Call
from forebay_gateway.canonical.speech import NoAnswer, Speech, Stream
from forebay_gateway.canonical.structured import Answer
from forebay_gateway.engine_answer import EngineAnswer, TroubledEngine
from forebay_gateway.engines.errors import Blame, EngineTrouble
from forebay_gateway.fleet import Backend
from forebay_gateway.held_answer import HeldAnswer, hold
from forebay_gateway.held_body import HeldBody
from forebay_gateway.http_out.connection import Connection
from forebay_gateway.ledger.account import Account
from forebay_gateway.ledger.sound import sound_of
from forebay_gateway.refused import ContextTooLong, EngineRefused, Refused
from forebay_gateway.relayed import Relayed, before_answer
from forebay_gateway.reply import Reply
from forebay_gateway.serving import Means
from forebay_gateway.slots.asking import Grant
from forebay_gateway.traced import TracedAttempt

_PROGRESS_S, _PROGRESS_TOKENS = 0.25, 64
_ENGINE_END_S = 0.1


class Attempt:
    def __init__(
        self,
        means: Means,
        call: Call,
        asked: Asked,
        grant: Grant,
        backend: Backend | None,
        *,
        account: Account,
        reply: Reply,
        body: HeldBody,
        asked_at: float,
        finish: Callable[[Outcome, str], None],
        traced: TracedAttempt | None = None,
    ) -> None:
        """`backend`: the one that was granted; None: it is not known here. `asked_at`: when a slot was asked for, on the
        monotonic clock. `finish` closes the record with a reason, and is called before the last byte goes out."""
        self._means, self._call, self._asked, self.grant, self._backend = means, call, asked, grant, backend
        self._account, self._reply, self._body = account, reply, body
        self._asked_at, self._finish, self._traced = asked_at, finish, traced
        self.has_begun = False
        """The first byte of an answer went to the client, or is about to."""
        self.silent_since = math.inf
        """When the engine last said anything, on the monotonic clock; infinite while nobody waits for it."""
        self.connection: Connection | None = None
        """That was written to last."""
        self._held: HeldAnswer | None = None
        """To the form that was asked for."""
        self._granted_at = self._told_at = means.clock.monotonic()
        self._told_tokens = 0
        self._cutoff: Refusal | None = None

    def cut_off(self, why: Refusal) -> None:
        """The answer ends with what there is of it."""
        self._cutoff = why

    def run(self) -> Awaitable[object]:
        """To be awaited at once. Raises TroubledEngine, or the ForebayError that the client gets."""
        asked, backend = self._asked, self._backend
        if backend is None:
            raise TroubledEngine(EngineTrouble(Blame.UNKNOWN_BACKEND, "This gateway does not know that backend yet."))
        if (asked.document_at or asked.untranslated is not None) and not asked.suits(backend.kind):
            what = asked.document_at or (asked.untranslated and asked.untranslated.param) or "something in it"
            raise TroubledEngine(EngineTrouble(Blame.UNKNOWN_BACKEND, f"Engines of its kind cannot read `{what}`."))
        if self._means.settings.isolation == "refuse":
            self._check_fence()  # and once more in `_start`; a connection that is made to be refused would stay open unused
        asked.model_at_engines = backend.its_name_of(self._account.entry.model)
        speech = asked.speech(backend.kind)
        streamed = asked.stream or (
            speech.comes_in_pieces
            and (not backend.kind.cancels_plain_requests or (self.grant.is_limited and self._must_be_counted()))
        )
        self._held = None
        if "response_format" in asked.fields and asked.form.generates:
            self._held = hold(asked.fields, asked.structured, backend, self._means.meters, streams=asked.stream)
            if self._held is not None:
                return self._say_until_good(self._held, backend, asked, speech, streamed=streamed)
        return self._say(backend, asked, speech, streamed=streamed)

    async def _say_until_good(
        self, held: HeldAnswer, backend: Backend, asked: Asked, speech: Speech, *, streamed: bool
    ) -> None:
        held.prepare(speech)
        again: Speech | None = speech
        while again is not None:
            speech = again
            try:
                again = await self._say(backend, asked, speech, streamed=streamed)
            except (ContextTooLong, EngineRefused) as refused:
                again = held.in_words(speech, refused)
                if again is None:
                    raise

    async def _say(self, backend: Backend, asked: Asked, speech: Speech, *, streamed: bool) -> Speech | None:
        """What is to be said then, if the answer was not good enough."""
        self.silent_since = self._means.clock.monotonic()
        answer = await self._means.upstream.send(
            backend,
            speech.streamed_path if streamed else speech.path,
            partial(speech.body, streamed=streamed),
            model=asked.model_at_engines,
            request_id=self._call.request_id,
            traceparent=self._call.traceparent if self._traced is None else self._traced.place.traceparent,
            before_write=self._start,
            said=self._call.said,
            tracestate=self._call.tracestate,
        )
        try:
            if speech.passes_bytes:
                await self._relay_bytes(answer)
            elif asked.stream:
                await self._relay_stream(answer, speech)
            elif answer.is_stream:
                return await self._relay_folded(answer, speech)
            else:
                return await self._relay_plain(answer, asked, speech)
        finally:
            answer.close()
        return None

    async def _relay_stream(self, answer: EngineAnswer, speech: Speech) -> None:
        stream = self._account.stream = speech.stream(folds=False, estimated_prompt=self._account.estimated_prompt)
        if self._held is not None:
            self._held.watch(stream)
        relayed = Relayed(self, self._reply, answer, stream, is_bounded=self._asked.keeping is not None)
        while not stream.is_done:
            if self.has_begun and self._reply.takes_now:
                await self._pour(answer, relayed.pass_now)
                await self._let_drain(answer)
            else:
                await self._pass_one(answer, relayed)
        out = relayed.out
        reason = await self._end_engine(answer, stream)
        if self._traced is not None:
            self._traced.note_ends(stream.ended_by.values())
        if self._held is not None and stream.gathers is not None and not stream.is_cut:
            if out:
                await self._reply.write(out)  # an error may follow it, instead of the end
            out = b""
            await self._held.demand(stream.gathers.answers())
        self._finish(Outcome.FINISHED, reason)
        await self._reply.end_stream(out + await self._kept(stream.tail(self._account.estimated_prompt)))

    async def _relay_folded(self, answer: EngineAnswer, speech: Speech) -> Speech | None:
        """The engine streams although the client does not, so that it stops when the client goes."""
        stream = self._account.stream = speech.stream(folds=True, estimated_prompt=self._account.estimated_prompt)
        if self._held is not None:
            self._held.watch(stream)
        await self._pour(answer, Relayed(self, self._reply, answer, stream, is_bounded=True).gather)
        reason, body = await self._end_engine(answer, stream), stream.fold(self._account.estimated_prompt)
        if self._traced is not None:
            self._traced.note_ends(stream.ended_by.values())
        if stream.gathers is not None and not stream.is_cut:
            again = await self._judge(speech, stream.gathers.answers(), body)
            if again is not None:
                return again
        await self._send_whole(body, reason)
        return None

    async def _relay_plain(self, answer: EngineAnswer, asked: Asked, speech: Speech) -> Speech | None:
        raw = await answer.read_all(self._means.settings.max_answer_bytes)
        self.silent_since = math.inf
        try:
            whole = speech.whole(raw)
        except NoAnswer as none:
            raise before_answer(none.error, answer) from none
        self._account.reported = whole.usage or self._account.estimate_answer(
            self._account.entry.model, whole.text_bytes
        )
        if self._traced is not None and asked.form.generates:
            self._traced.note_whole(raw)
        if self._held is not None:
            again = await self._judge(speech, whole.answers, whole.body)
            if again is not None:
                return again
        await self._send_whole(whole.body)
        return None

    async def _judge(self, speech: Speech, answers: Sequence[Answer], body: bytes) -> Speech | None:
        """What is to be asked again. None: the answer is good. Raises OutputInvalid."""
        held, account = self._held, self._account
        if held is None:
            return None
        again = await held.again(speech, answers, body, account.used, may_ask=self._cutoff is None)
        if again is not None:
            account.ask_again()
        return again

    async def _relay_bytes(self, answer: EngineAnswer) -> None:
        """As they come. The last piece is held back until the record is closed."""
        sound = self._account.sound = sound_of(self._asked.form, self._asked.upload)
        last = await self._listen(answer)
        self._account.reported = Usage(self._account.estimated_prompt, source=UsageSource.ESTIMATED)
        self._note_first_byte()
        await self._reply.begin_bytes(answer.content_type)
        while piece := await self._listen(answer):
            if sound is not None:
                sound.feed(last)
            await self._reply.write(last)
            last = piece
        if sound is not None:
            sound.feed(last)
            await sound.end()
        self._finish(Outcome.FINISHED, "")
        await self._reply.end_stream(last)

    async def _end_engine(self, answer: EngineAnswer, stream: Stream) -> str:
        """The answer is whole, or is cut here. Gives the word for why it was cut."""
        if stream.is_cut and self._cutoff is not None:
            answer.close()
            return self._cutoff
        await answer.wait_end(_ENGINE_END_S)
        return ""

    async def _send_whole(self, body: bytes, reason: str = "") -> None:
        if not self.has_begun:
            self._note_first_byte()
        self._account.entry.http_status = 200
        if reason:
            self._reply.headers["x-forebay-reason"] = reason
        self._finish(Outcome.FINISHED, reason)
        await self._reply.send(200, body if self._asked.keeping is None else await self._kept(body))

    async def _kept(self, last: bytes) -> bytes:
        return last if self._asked.keeping is None else await self._asked.keeping.ended(last)

    def hear_of_piece(self, counted: int) -> bool:
        """`counted`: the tokens so far. True when the answer should be cut here."""
        self.silent_since = now = self._means.clock.monotonic()
        tokens = counted + self._account.spent_tokens
        more = tokens - self._told_tokens
        if more >= _PROGRESS_TOKENS or (more > 0 and now - self._told_at >= _PROGRESS_S):
            self._told_tokens, self._told_at = tokens, now
            self._means.slots.progress(self.grant.ledger_id, tokens)
        return self._cutoff is not None

    def demand_bounded(self, size: int) -> None:
        """`size`: what came of a stream that is gathered, in bytes. Raises TroubledEngine."""
        if size > 8 * self._means.settings.max_answer_bytes:  # each token comes in some hundred bytes of JSON
            raise TroubledEngine(EngineTrouble(Blame.FAILED, "Its answer is longer than this gateway takes."))

    @property
    def estimated_prompt(self) -> int:
        """Tokens."""
        return self._account.estimated_prompt

    async def _pass_one(self, answer: EngineAnswer, relayed: Relayed) -> None:
        """The next piece, with what goes out before the first."""
        relayed.hear(await self._listen(answer))
        if not self.has_begun and relayed.stream.has_begun:
            self._note_first_byte()
            await self._reply.begin_stream()
        if relayed.stream.is_done:
            return
        if relayed.out:
            await self._reply.write(relayed.out)
        relayed.go_on()
        self.silent_since = math.inf

    async def _let_drain(self, answer: EngineAnswer) -> None:
        """A slow client slows its engine."""
        drained = self._reply.drained()
        if drained is not None:
            answer.pause()
            await drained
            answer.resume()

    async def _pour(self, answer: EngineAnswer, take: Callable[[bytes], bool]) -> None:
        self.silent_since = self._means.clock.monotonic()
        await answer.pour(take)
        self.silent_since = math.inf

    async def _listen(self, answer: EngineAnswer) -> bytes:
        self.silent_since = self._means.clock.monotonic()
        piece = await answer.read()
        self.silent_since = math.inf  # while a slow client holds us up, the engine is not to blame
        return piece

    def _note_first_byte(self) -> None:
        self.has_begun = True
        self._body.release()
        self._asked.forget_body()
        now = self._means.clock.monotonic()
        self._account.entry.ttft_ms = round((now - self._account.entry.arrived) * 1000)
        if self._traced is not None:
            self._traced.first_byte_at = now
        if self._account.entry.stream:
            self._means.first_tokens.note(
                self._account.entry.pool, self._account.entry.model, now - self._asked_at, now
            )
        self._means.slots.first_token(self.grant.ledger_id, round((now - self._granted_at) * 1000))

    def _must_be_counted(self) -> bool:
        """A limited key's answer is counted as it grows, and may have to end before its engine would end it: not one that
        ends before it would be told of for the first time."""
        longest = self._asked.max_output_tokens * self._asked.choices
        return not 0 < longest <= _PROGRESS_TOKENS

    def _start(self, connection: Connection) -> None:
        """In the loop turn in which the request is written to the engine."""
        self.connection = connection
        if self._means.slots.is_past_fence:
            if self._means.settings.isolation == "refuse":
                self._check_fence()
            self._means.meters.past_fence.child().value += 1
        self._account.is_running = True
        self.silent_since = self._means.clock.monotonic()  # whatever connecting took, the engine hears of it only now
        if self._traced is not None:
            self._traced.sent_at = self.silent_since

    def _check_fence(self) -> None:
        if self._means.slots.is_past_fence:
            raise Refused(
                Refusal.NO_SCHEDULER,
                "The scheduler has not been heard of for too long to start new work safely. Try again in a moment.",
                retry_after_s=1.0,
            )
