"""An answer that is held to the form that was asked for: judged when it is whole, and asked for again where that is allowed.

What a form is and where an answer breaks it: `canonical/structured`. Whom to believe: `rules/structured_way`. Asking is
relay's business. Judging costs some tens of microseconds; where it may cost more it is done beside the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import orjson

from forebay.errors import ForebayError
from forebay_gateway.accounting import Usage
from forebay_gateway.canonical.json_schema import (
    FEW_BYTES,
    MOST_WORK,
    USUAL_WORK,
    BadSchema,
    SchemaFault,
    TooMuchWork,
)
from forebay_gateway.canonical.speech import Speech, Stream
from forebay_gateway.canonical.structured import (
    MOST_TEXT,
    Answer,
    AskedBefore,
    Gathered,
    Mending,
    WantedForm,
    unfenced,
    wanted_form,
)
from forebay_gateway.fleet import Backend
from forebay_gateway.meters import Meters
from forebay_gateway.refused import EngineRefused, OutputInvalid
from forebay_gateway.rules.model_rules import Structured
from forebay_gateway.rules.structured_way import way_with

T = TypeVar("T")

MOST_TRIES = 3
"""Of one choice."""
_LONG = 32 << 10
"""Characters of an answer that is not judged on the loop."""
_FIELDS = {
    "openai": "response_format.json_schema.schema",
    "responses": "text.format.schema",
    "anthropic": "output_config.format.schema",
    "ollama": "format",
}
"""Where a schema is, by dialect."""
_WORDS_OF_REFUSALS = ("response_format", "json_schema", "json_object", "structured output", "guided", "grammar")

_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="schemas")
"""One for all: each thread that computes holds up the loop a little."""


async def _beside(step: Callable[..., T], *args: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(_THREAD, partial(step, *args))


async def demand_judgeable(
    fields: Mapping[str, Any], told: Structured | None, backends: Iterable[Backend], dialect: str
) -> None:
    """Before a request waits for its turn. `told`: by a rule. Raises BadField for a schema that nobody can judge by, if
    there is a backend whose answer would be judged."""
    wanted = wanted_form(fields)
    if wanted is None or not wanted.schema:
        return
    if all(way_with(told, backend, wanted) is Structured.TRUST for backend in backends):
        return
    where = _FIELDS[dialect]
    if len(wanted.schema) > FEW_BYTES:
        await _beside(wanted.demand_readable, where)
    else:
        wanted.demand_readable(where)


def hold(
    fields: Mapping[str, Any], told: Structured | None, backend: Backend, meters: Meters, *, streams: bool
) -> HeldAnswer | None:
    """`streams`: the client gets it in pieces. None: nothing was asked, or the engine is trusted."""
    wanted = wanted_form(fields)
    way = Structured.TRUST if wanted is None else way_with(told, backend, wanted)
    return None if wanted is None or way is Structured.TRUST else HeldAnswer(wanted, way, meters, streams=streams)


class HeldAnswer:
    """Of one attempt. A stream cannot be taken back, so it is only judged."""

    def __init__(self, wanted: WantedForm, way: Structured, meters: Meters, *, streams: bool) -> None:
        self._wanted, self._meters = wanted, meters
        self._may_say_in_words = way is Structured.ASK_AGAIN
        self._asks_again = way is Structured.ASK_AGAIN and not streams
        self._answers: list[Answer] = []
        """The last one of each choice."""
        self._place: int | None = None
        """Of the choice that is asked for again."""
        self._tries: dict[int, int] = {}

    def prepare(self, speech: Speech) -> None:
        """Before anything is asked in it."""
        speech.mending = Mending(unfences=self._asks_again)

    def watch(self, stream: Stream) -> None:
        """Before its first piece."""
        stream.gathers = Gathered()

    def in_words(self, speech: Speech, refused: ForebayError) -> Speech | None:
        """For an engine that does not know such forms. None: that is not why it refused, or nothing can be done. Raises
        OutputInvalid when it had answered before."""
        if self._place is not None:
            raise OutputInvalid(
                f"{self._story(self._place, None)} It could not be asked again: {refused.message}"
            ) from refused
        message = refused.message.lower()
        if not self._may_say_in_words or not isinstance(refused, EngineRefused):
            return None
        if refused.param != "response_format" and not any(word in message for word in _WORDS_OF_REFUSALS):
            return None
        self._may_say_in_words = False
        return speech.in_words(self._wanted)

    async def demand(self, answers: Sequence[Answer]) -> None:
        """Of a stream. Raises OutputInvalid."""
        for place, answer in enumerate(answers):
            fault = await self._fault_in(answer)
            if fault is not None:
                self._note("broken")
                raise OutputInvalid(self._story(place, fault))

    async def again(
        self, speech: Speech, answers: Sequence[Answer], body: bytes, spent: Usage, *, may_ask: bool
    ) -> Speech | None:
        """What to ask now. None: `body`, the answer as the client would get it, is what was wanted. `spent`: on all times
        that it was asked for. Raises OutputInvalid."""
        if self._place is None:
            self._answers = list(answers)
        else:
            self._answers[self._place : self._place + 1] = answers[:1]
        for place in range(self._place or 0, len(self._answers)):
            fault = await self._fault_in(self._answers[place])
            if fault is None:
                continue
            tries = self._tries[place] = self._tries.get(place, 0) + 1
            asking = None
            if self._asks_again and may_ask and tries < MOST_TRIES:
                choices = orjson.loads(body)["choices"] if len(self._answers) > 1 else ()
                remark = f"This answer cannot be used: {fault}. {self._wanted.in_words}."
                asking = speech.again(self._answers[place].text, remark, AskedBefore(spent, place, choices))
            if asking is None:
                self._note("broken")
                raise OutputInvalid(self._story(place, fault))
            self._note("asked_again")
            self._place = place
            return asking
        return None

    async def _fault_in(self, answer: Answer) -> SchemaFault | None:
        if not answer.is_whole:
            return None
        text = unfenced(answer.text) if self._asks_again else answer.text
        if len(text) > MOST_TEXT:
            self._note("unjudged")
            return None
        fault: SchemaFault | None = None
        try:
            try:
                if len(text) > _LONG or len(self._wanted.schema) > FEW_BYTES:
                    raise TooMuchWork
                fault = self._wanted.fault_in(text, USUAL_WORK)
            except TooMuchWork:
                fault = await _beside(self._wanted.fault_in, text, MOST_WORK)
        except (TooMuchWork, BadSchema):
            self._note("unjudged")
            return None
        if fault is None:
            self._note("kept")
        return fault

    def _story(self, place: int, fault: SchemaFault | None) -> str:
        which = f"Answer {place + 1}" if len(self._answers) > 1 else "The model's answer"
        form = "the JSON schema that was asked for" if self._wanted.schema else "the JSON that was asked for"
        tries = self._tries.get(place, 1)
        asked = f", in {tries} tries" if tries > 1 else ""
        return (
            f"{which} is not {form}{asked}{f': {fault}' if fault is not None else ''}. "
            "Ask again, for something simpler, or ask another model."
        )

    def _note(self, result: str) -> None:
        self._meters.structured.child(result).value += 1
