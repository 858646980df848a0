"""The requests that are being served, so that others can end them: a revoked key, a lost backend, a drain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from forebay.errors import ForebayError, Refusal
from forebay_gateway.refused import BackendEmptied, EngineFailed, TookTooLong

LATE_S = 1.0
"""More than a deadline, so that the scheduler, who knows why it was missed, refuses first."""


class Serving(Protocol):
    ledger_id: bytes

    @property
    def key_id(self) -> str: ...
    @property
    def arrived(self) -> float:
        """On the monotonic clock."""
        ...

    @property
    def asking_since(self) -> float:
        """Since when it waits for a slot, on the monotonic clock; infinite while it does not."""
        ...

    @property
    def is_queued(self) -> bool:
        """It waits for a slot, or for the rest of its own body, and nothing was sent to an engine for it."""
        ...

    @property
    def backend_id(self) -> str:
        """Where it runs; empty while it waits."""
        ...

    @property
    def silent_since(self) -> float:
        """When its engine last said anything, on the monotonic clock."""
        ...

    @property
    def has_begun(self) -> bool:
        """Its client has a part of the answer."""
        ...

    @property
    def awaits_engine(self) -> bool:
        """Its engine has all of it, as far as can be known, and no part of an answer went to its client."""
        ...

    def interrupt(self, error: ForebayError) -> None: ...
    def cut_off(self, why: Refusal) -> None:
        """Its answer ends with what there is of it, as if it had reached its length."""
        ...

    def lose_engine(self, why: str) -> None:
        """Its engine will probably not answer any more."""
        ...

    def place_elsewhere(self) -> None:
        """Its backend is drained; what has begun to answer may finish there."""
        ...


class Running:
    def __init__(self) -> None:
        self._all: dict[bytes, Serving] = {}
        self._emptied: asyncio.Event | None = None
        """There once somebody waits for it."""

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Serving]:
        return iter(list(self._all.values()))

    def add(self, one: Serving) -> None:
        self._all[one.ledger_id] = one

    def remove(self, ledger_id: bytes) -> None:
        self._all.pop(ledger_id, None)
        if self._emptied is not None and not self._all:
            self._emptied.set()

    def interrupt(self, ledger_id: bytes, error: ForebayError) -> None:
        one = self._all.get(ledger_id)
        if one is not None:
            one.interrupt(error)

    def cut_off(self, ledger_id: bytes, why: Refusal) -> None:
        one = self._all.get(ledger_id)
        if one is not None:
            one.cut_off(why)

    def place_elsewhere(self, ledger_id: bytes) -> None:
        one = self._all.get(ledger_id)
        if one is not None:
            one.place_elsewhere()

    def leave_backend(self, ledger_id: bytes) -> None:
        """Its backend is emptied by force: what has begun to answer ends, the rest goes elsewhere."""
        one = self._all.get(ledger_id)
        if one is None:
            return
        if one.has_begun:
            one.interrupt(BackendEmptied())
        else:
            one.place_elsewhere()

    def interrupt_queued(self, key_ids: Iterable[str], why: Callable[[str], ForebayError]) -> None:
        ended = set(key_ids)
        for one in list(self._all.values()):
            if one.key_id in ended and one.is_queued:
                one.interrupt(why(one.key_id))

    def interrupt_of(self, key_ids: Iterable[str], why: Callable[[str], ForebayError]) -> None:
        """All requests of these keys, whatever they are doing."""
        cut = set(key_ids)
        for one in list(self._all.values()):
            if one.key_id in cut:
                one.interrupt(why(one.key_id))

    def interrupt_all(self, error: ForebayError) -> None:
        for one in list(self._all.values()):
            one.interrupt(error)

    def leave_silent(self, is_lost: Callable[[str], bool], now: float, *, lost_idle_s: float, gap_s: float) -> None:
        """Tells those whose engine is lost and has been silent for `lost_idle_s`, and those whose engine fell silent for
        `gap_s` in the middle of an answer. Before it begins, a healthy engine may take as long as it likes."""
        for one in list(self._all.values()):
            silent_s = now - one.silent_since
            if not one.backend_id or silent_s < min(lost_idle_s, gap_s):
                continue
            if one.has_begun and silent_s >= gap_s:
                one.lose_engine(f"It has said nothing for {gap_s:g} s in the middle of its answer.")
            elif silent_s >= lost_idle_s and is_lost(one.backend_id):
                one.lose_engine("It stopped answering, and the registry's probes of it fail.")

    def leave_overdue(self, now: float, *, longest_s: float, queue_s: float) -> None:
        """Tells those that take longer than any request may, and those that wait for a slot longer than that may take."""
        for one in list(self._all.values()):
            if now - one.arrived >= longest_s:
                one.interrupt(
                    EngineFailed(
                        f"The answer was not finished within {longest_s:g} s, the most that this gateway allows."
                    )
                )
            elif now - one.asking_since >= queue_s + LATE_S:
                one.interrupt(TookTooLong())

    async def wait_empty(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                emptied = self._emptied = self._emptied or asyncio.Event()
                while self._all:
                    emptied.clear()
                    await emptied.wait()
        except TimeoutError:
            return False
        return True
