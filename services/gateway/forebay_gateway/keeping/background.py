"""Responses that this gateway answers in the background: begun, grown, followed, ended, and put down where they are kept.

The work itself is an exchange like any other, in a task that no client's going ends. What was told of a response is in
memory until it is put down; from then on it is told from there, here and in every other gateway."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from forebay.clock import Clock
from forebay.errors import ForebayError, Refusal
from forebay_gateway.dialects.responses.answer import ResponseTranslation
from forebay_gateway.keeping.afterwork import Afterwork
from forebay_gateway.keeping.contents import ContentStore
from forebay_gateway.keeping.response_record import ResponseRecord
from forebay_gateway.keeping.signs import Note, Signs
from forebay_gateway.refused import Refused, StateUnavailable

log = logging.getLogger(__name__)

Json = dict[str, Any]

_LOOK_S = 1.0
"""How often it is looked for notes."""
_WITHIN_S = 2.0
"""The end is told after so long, kept or not."""
_AGAIN_S = 1.0
_PATIENCE_S = 600.0
"""For being kept, while nobody is there who keeps it."""
_DRAINING_PATIENCE_S = 5.0
_CANCEL_S = 5.0
_MOST_PROGRESS = 1 << 20
"""Characters of an answer up to which its progress is shown to other gateways."""
_PIECE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class BackgroundLimits:
    most: int
    most_per_user: int
    silent_s: float
    """After so long without a sign a gateway is taken for dead."""


class BackgroundResponses:
    """All that run here."""

    def __init__(
        self,
        contents: ContentStore,
        afterwork: Afterwork,
        clock: Clock,
        is_draining: asyncio.Event,
        limits: BackgroundLimits,
    ) -> None:
        self.contents, self.afterwork, self.clock = contents, afterwork, clock
        self.is_draining, self.limits = is_draining, limits
        self._here: dict[tuple[str, str], BackgroundResponse] = {}

    @property
    def under_way(self) -> int:
        return sum(self._under_way().values())

    def find(self, user_id: str, response_id: str) -> BackgroundResponse | None:
        return self._here.get((user_id, response_id))

    def admit(self, response: BackgroundResponse) -> None:
        """Raises Refused when there are too many."""
        running, limits = self._under_way(), self.limits
        if running[response.user_id] >= limits.most_per_user:
            raise _too_many(f"You have {limits.most_per_user} responses in the background on this gateway, the most")
        if sum(running.values()) >= limits.most:
            raise _too_many(f"This gateway has {limits.most} responses in the background, the most")
        self._here[response.user_id, response.id] = response

    def forget(self, response: BackgroundResponse) -> None:
        self._here.pop((response.user_id, response.id), None)

    def _under_way(self) -> Counter[str]:
        return Counter(user_id for (user_id, _), response in self._here.items() if not response.is_over)


class BackgroundResponse:
    """One of them (asked.Background, asked.Keeping)."""

    def __init__(
        self, all_here: BackgroundResponses, translation: ResponseTranslation, record: ResponseRecord, *, streams: bool
    ) -> None:
        """`streams`: the client that asked for it wants its events."""
        self._all, self._translation, self._record = all_here, translation, record
        self.id, self.user_id, self.streams = translation.id, record.user_id, streams
        self.queued: Json = {}
        """The response as its client gets it at first."""
        self.is_told = False
        """Its client has got it, or is about to."""
        self.is_over = False
        self.refusal: ForebayError | None = None
        self._signs = Signs(all_here.contents, all_here.clock, self.user_id, self.id)
        self._work: asyncio.Task[Any] | None = None
        self._pulse: asyncio.Task[None] | None = None
        self._more = asyncio.Event()
        """There is something new to tell. Each event wakes those who wait for it once."""
        self._has_ended = asyncio.Event()
        """The end was told."""
        self._is_put_down = asyncio.Event()
        self._is_stopped = self._is_deleted = False

    @property
    def response(self) -> Json:
        """As it stands."""
        telling = self._translation.telling
        if telling.final is not None:
            return telling.final
        return {**self.queued, "status": self._status}

    @property
    def _status(self) -> str:
        return "in_progress" if self._translation.telling.has_begun else "queued"

    # --- the work ---------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        self._all.admit(self)
        self._work = asyncio.current_task()
        self.queued = self._translation.queue(self._all.clock.now())
        try:
            await self._signs.show("queued", self._all.limits.silent_s)
            await self._record.store(self.queued, self._translation.telling.cuts())
        except (ForebayError, asyncio.CancelledError):
            self.is_over = True
            self._all.afterwork.start(self._withdraw(), "withdraw-response")
            raise
        self._pulse = self._all.afterwork.start(self._beat(), "pulse-of-response")

    def grew(self) -> None:
        more, self._more = self._more, asyncio.Event()
        more.set()

    def refuse(self, error: ForebayError) -> None:
        self.refusal = error

    async def ended(self, last: bytes) -> bytes:
        assert self._translation.response is not None, "it has just been told"
        self._end(self._translation.response, appends=True)
        return last

    async def broken(self, message: str) -> None:
        if self.is_told:
            self._end(self._translation.broken("failed", {"code": "server_error", "message": message}))
        else:
            self._end(None)  # its client is told at once, and gets no response

    def left(self) -> None:
        self._end(self._translation.broken("cancelled", None) if self.is_told else None)

    def _end(self, response: Json | None, *, appends: bool = False) -> None:
        """Once. `response`: None when nothing is to be left of it."""
        if self.is_over or not self.queued:
            return
        self.is_over = True
        ending = self._withdraw() if response is None else self._put_down(response, appends=appends)
        self._all.afterwork.start(ending, "end-response")

    # --- its end ----------------------------------------------------------------------------------------------------

    async def _put_down(self, response: Json, *, appends: bool) -> None:
        keeping = asyncio.ensure_future(self._keep(response, appends=appends))
        await asyncio.wait({keeping}, timeout=_WITHIN_S)
        self._translation.telling.final = response
        self.grew()
        self._has_ended.set()
        try:
            await keeping
        finally:  # else its pulse would beat on, and its user would have one fewer
            await self._clear_away()

    async def _keep(self, response: Json, *, appends: bool) -> None:
        if appends and not self._is_deleted:
            try:
                await self._record.add_to_conversation(response)
            except ForebayError as error:
                response["conversation"] = None
                self._log_not_kept(error)
        clock = self._all.clock
        began = clock.monotonic()
        while not self._is_deleted:
            try:
                await self._store(response)
                break
            except StateUnavailable as error:
                patience_s = _DRAINING_PATIENCE_S if self._all.is_draining.is_set() else _PATIENCE_S
                if clock.monotonic() - began > patience_s:
                    self._log_not_kept(error)
                    break
                await asyncio.sleep(_AGAIN_S)

    async def _store(self, response: Json) -> None:
        """As much of it as may be kept. Raises StateUnavailable."""
        cuts = self._translation.telling.cuts()
        try:
            return await self._record.store(response, cuts)
        except StateUnavailable:
            raise
        except ForebayError as error:
            self._log_not_kept(error)
            message = f"The answer could not be kept. {error.message}"
        response |= {"status": "failed", "error": {"code": "server_error", "message": message}, "output": []}
        try:
            await self._record.store(response, {**cuts, "items": [], "is_open": False})
        except StateUnavailable:
            raise
        except ForebayError as error:
            self._log_not_kept(error)

    async def _withdraw(self) -> None:
        self._is_deleted = True
        self._has_ended.set()
        await self._clear_away()

    async def _clear_away(self) -> None:
        """Those who ask find it where it is kept from now on. The notes are read once more when it lies there: whoever
        deletes leaves a note first, so that it does not come back."""
        self._is_put_down.set()
        if self._pulse is not None:
            await asyncio.wait({self._pulse})
        try:
            notes = await self._signs.notes()
            if self._is_deleted or Note.DELETE in notes:
                await self._record.remove(self.id)
            await self._signs.clear(notes)
        except ForebayError as error:
            log.info(
                "signs of a response left to expire",
                extra={"action": "signs_left", "response": self.id, "why": str(error.reason)},
            )
        finally:
            self._all.forget(self)

    def _log_not_kept(self, error: ForebayError) -> None:
        log.warning("response not kept", extra={"action": "not_kept", "response": self.id, "why": str(error.reason)})

    # --- what others want of it -------------------------------------------------------------------------------------

    async def follow(self, after: int, idle_s: float) -> AsyncGenerator[bytes, None]:
        """Its events with greater numbers, as they come, to the end; nothing each time that none came for `idle_s`."""
        while True:
            more, has_ended = self._more, self._has_ended.is_set()
            pieces, size = [], 0
            for number, event in self._translation.telling.events(after):
                pieces.append(event)
                after = number
                size += len(event)
                if size > _PIECE_BYTES:
                    break
            if pieces:
                yield b"".join(pieces)
            elif has_ended:
                return
            else:
                try:
                    async with asyncio.timeout(idle_s):
                        await more.wait()
                except TimeoutError:
                    yield b""

    async def cancel(self) -> Json:
        """Gives it as it ended, or as it stands should its end take long."""
        self._stop_work()
        try:
            async with asyncio.timeout(_CANCEL_S):
                await self._has_ended.wait()
        except TimeoutError:
            log.warning("response slow to be cancelled", extra={"action": "slow_cancel", "response": self.id})
        return self.response

    async def delete(self) -> None:
        self._is_deleted = True
        await self.cancel()

    def _stop_work(self) -> None:
        if not self.is_over and not self._is_stopped and self._work is not None:
            self._is_stopped = True
            self._work.cancel()

    async def _beat(self) -> None:
        """Shows that its gateway lives, and does what notes say."""
        silent_s, clock = self._all.limits.silent_s, self._all.clock
        shown_at = clock.monotonic()
        while not await self._rests(min(_LOOK_S, silent_s / 4)):
            try:
                notes = await self._signs.notes()
                if Note.DELETE in notes:
                    self._is_deleted = True
                if notes & {Note.CANCEL, Note.DELETE}:
                    self._stop_work()
                if Note.FOLLOW in notes or clock.monotonic() - shown_at > silent_s / 4:
                    shown_at = clock.monotonic()
                    await self._signs.show(self._status, silent_s, self._progress() if Note.FOLLOW in notes else None)
            except ForebayError as error:
                log.info(
                    "no sign of a response given",
                    extra={"action": "sign_failed", "response": self.id, "why": str(error.reason)},
                )

    async def _rests(self, seconds: float) -> bool:
        """False when the time is over and it runs on."""
        try:
            async with asyncio.timeout(seconds):
                await self._is_put_down.wait()
        except TimeoutError:
            return False
        return True

    def _progress(self) -> tuple[Json, Json] | None:
        telling = self._translation.telling
        if sum(map(len, (said for one in telling.items for said in one.deltas))) > _MOST_PROGRESS:
            return None
        return telling.so_far(self.queued), telling.cuts()


def _too_many(what: str) -> Refused:
    return Refused(
        Refusal.CONCURRENCY_LIMITED,
        f"{what} that may be under way at once. Wait until one has ended, or cancel one.",
        retry_after_s=5.0,
    )
