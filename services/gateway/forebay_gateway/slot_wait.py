"""One request's wait for a slot: for the first one, patiently where another model could answer, and for another one after an
attempt has failed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable

from forebay.errors import Refusal
from forebay_gateway.accounting import Entry
from forebay_gateway.asked import Asked
from forebay_gateway.credential import CredentialFault
from forebay_gateway.engines.errors import Blame, EngineTrouble, as_sentence
from forebay_gateway.held_body import HeldBody
from forebay_gateway.other_models import HasWaited, OtherModels
from forebay_gateway.refused import ModelUnknown, Refused
from forebay_gateway.resting import at_rest
from forebay_gateway.serving import Means
from forebay_gateway.slots.asking import Ask, Grant


class SlotWait:
    asking_since = math.inf
    """On the monotonic clock; infinite while no slot is waited for."""
    has_asked = False
    asked_at = 0.0
    """On the monotonic clock."""

    def __init__(self, means: Means, entry: Entry, body: HeldBody) -> None:
        """`entry` says whose request it is, and for which model at the time."""
        self._means = means
        self._entry = entry
        self._body = body
        self._without: set[tuple[str, str]] = set()
        """(model, backend): those that turned out not to have it any more."""

    @property
    def is_asking(self) -> bool:
        return self.asking_since < math.inf

    def begin(self, ask: Ask) -> Grant | None:
        """Without waiting, where that can be. None: it has to be asked for."""
        self.has_asked, self.asked_at = True, self._means.clock.monotonic()
        return self._means.slots.begin(ask) if self._body.stays_in_memory else None

    async def ask(self, ask: Ask, asked: Asked, others: OtherModels | None, after_s: float | None) -> Grant:
        """Raises HasWaited when none is there in `after_s` and another model can be asked."""
        self.has_asked = True
        self.asked_at = self.asking_since = self._means.clock.monotonic()
        try:
            if self._body.stays_in_memory:
                return await self._ask(ask, others, after_s)
            return await at_rest(self._body, asked, lambda: self._ask(ask, others, after_s))
        finally:
            self.asking_since = math.inf

    def _ask(self, ask: Ask, others: OtherModels | None, after_s: float | None) -> Awaitable[Grant]:
        return self._means.slots.ask(ask) if after_s is None else self._ask_patiently(ask, others, after_s)

    async def _ask_patiently(self, ask: Ask, others: OtherModels | None, after_s: float) -> Grant:
        asking = asyncio.create_task(self._means.slots.ask(ask), name="ask")
        try:
            await asyncio.wait((asking,), timeout=after_s)
            if not asking.done() and others is not None and others.may_leave():
                # Before anything else is waited for: a grant that nobody expects any more would settle the id.
                await self._means.slots.withdraw(self._entry.ledger_id)
                raise HasWaited
            return await asking
        finally:
            asking.cancel()

    async def ask_again(self, grant: Grant, asked: Asked, trouble: EngineTrouble) -> Grant:
        """Somewhere else. Raises what the client gets when there is nowhere."""
        self.asking_since = self._means.clock.monotonic()
        try:
            slots = self._means.slots
            return await at_rest(
                self._body, asked, lambda: slots.ask_again(grant, trouble.blame, trouble.retry_after_s)
            )
        except Refused as refused:
            if trouble.blame is Blame.MODEL_GONE and refused.word is Refusal.ENGINE_FAILED:
                raise self._model_gone() from refused
            raise _nobody_left(refused, trouble) from refused
        finally:
            self.asking_since = math.inf

    async def withdraw(self) -> None:
        self.asking_since = self._means.clock.monotonic()
        try:
            await self._means.slots.withdraw(self._entry.ledger_id)
        finally:
            self.asking_since = math.inf

    def note_model_gone(self, backend_id: str) -> None:
        """Raises ModelUnknown when nobody is left who might have it."""
        model = self._entry.model
        self._without.add((model, backend_id))
        serving = self._means.fleet.serving(model, self._entry.pool)
        if self._without.issuperset((model, backend.id) for backend in serving):
            raise self._model_gone()

    def _model_gone(self) -> ModelUnknown:
        asked = self._entry.model_requested
        return ModelUnknown(
            f"The model {asked} has just vanished from where it was. `GET /v1/models` lists those there are, in a moment "
            "without it; or have it loaded again."
        )


def _nobody_left(refused: Refused, trouble: EngineTrouble) -> Refused:
    """A provider's limit is told as one, and engines that have too much to do as such, both with the moment at which the
    last one says to come back."""
    word, retry_after_s = refused.word, refused.retry_after_s
    if word is Refusal.ENGINE_FAILED and trouble.blame is Blame.BUSY:
        word = Refusal.RATE_LIMITED if trouble.fault is CredentialFault.LIMITED else Refusal.QUEUE_FULL
        retry_after_s = trouble.retry_after_s or retry_after_s
    message = f"{as_sentence(refused.message)} The last engine tried said: {as_sentence(trouble.message)}"
    return Refused(word, message, retry_after_s=retry_after_s, standing=refused.standing)
