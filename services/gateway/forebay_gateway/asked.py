"""What a client asks an engine for, whatever the route: the facts that the gateway goes by, and the body that travels on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from forebay.errors import ForebayError
from forebay_gateway.canonical.dialect import Json, Translation
from forebay_gateway.canonical.forms import Form
from forebay_gateway.canonical.speech import OpenAISpeech, Speech
from forebay_gateway.canonical.upload import Upload
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.engines.forced_tool import ForcedToolSpeech, tools_to_force
from forebay_gateway.engines.llamacpp_speech import LlamaCppSpeech, unspoken_by_llamacpp
from forebay_gateway.engines.local_speech import OllamaSpeech, TemplateSpeech
from forebay_gateway.engines.local_words import NOT_OLLAMAS, unspoken_by_ollama
from forebay_gateway.engines.provider_speech import providers_speech
from forebay_gateway.engines.unspoken import Unspoken
from forebay_gateway.fleet import Backend, Fleet
from forebay_gateway.refused import BadField
from forebay_gateway.rules.model_rules import Rule, Structured
from forebay_gateway.rules.ruled_fields import output_limit, ruled_fields

_CUT_SHORT = frozenset({EngineKind.LLAMACPP, EngineKind.OLLAMA})
"""Kinds of engines that leave some parts of requests out, and do not say so."""


class Keeping(Protocol):
    """Keeps an answer for its user, however it ends; one of these is called, and only the first call counts."""

    async def ended(self, last: bytes) -> bytes:
        """`last`: what is still to be sent of the answer, or all of it. Gives that as it is to be sent now: an answer says
        whether it was kept. Takes two seconds at most and never fails."""
        ...

    async def broken(self, message: str) -> None:
        """It failed before its end. The same holds."""
        ...

    def left(self) -> None:
        """The client went before its end."""
        ...


class Background(Protocol):
    """Lets an answer go on without its client."""

    async def begin(self) -> None:
        """In the task that is going to do the work. Raises Refused when too many are under way, and what a store raises."""
        ...

    def grew(self) -> None:
        """There is more of the answer."""
        ...

    def refuse(self, error: ForebayError) -> None:
        """There will be none, or no more of it."""
        ...

    @property
    def is_told(self) -> bool:
        """The client was told that it goes on; until then it hears of a refusal itself."""
        ...


class NativeSpeech(Speech, Protocol):
    """The client's own words."""

    said: Json
    """The body. Nothing while it is put away, and when it is forgotten."""

    def obey(self, rule: Rule) -> None:
        """Does to them what a rule says. Raises BadField."""
        ...


@dataclass(slots=True)
class Asked:
    form: Form
    model: str
    """As the client calls it."""
    stream: bool
    width: int
    """Slots that it needs at once."""
    choices: int
    """Answers that come back, of all its prompts together."""
    samples: int
    """Answers to each prompt."""
    max_output_tokens: int
    """Tokens of one answer; 0 when the client set no limit."""
    include_usage: bool
    """The client wants the usage chunk at the end of its stream."""
    fields: Mapping[str, Any]
    """The whole body, in OpenAI's dialect, until it is forgotten."""
    raw: bytes
    """The same as it came; nothing when it came in another dialect."""
    upload: Upload | None = None
    """The body, when it is a form."""
    translation: Translation | None = None
    """What the client gets instead of OpenAI's answer."""
    native: Mapping[EngineKind, NativeSpeech] = field(default_factory=dict)
    """For engines that speak the client's own dialect."""
    keeping: Keeping | None = None
    """None: nobody keeps the answer."""
    background: Background | None = None
    """None: the client waits for the answer."""
    model_at_engines: str = ""
    """As the fleet calls it, and once there is a backend, as that does."""
    instead: tuple[str, ...] = ()
    """Models that the client wants to be asked if that one does not answer."""
    structured: Structured | None = None
    """What a rule says is done about an answer that must be JSON."""
    arrived_at: int = 0
    """Seconds since the epoch; the date of an answer that its engine does not date."""
    shortened: Callable[[Sequence[Json], int], list[Json] | None] | None = None
    """(messages of a chat, how often they were made shorter) → fewer of them, or None when no more may go. None: its client
    wants nothing left out."""
    _times_shortened: int = 0
    _as_it_came: tuple[Mapping[str, Any], bytes, int, Mapping[EngineKind, Json]] | None = None
    """Before a rule changed it, when another model may be asked for."""
    continues: bool = False
    """If the last message is the model's, the client wants it gone on with."""
    document_at: str = ""
    """The first field that has a PDF, which not every engine reads; empty: there is none."""
    untranslated: BadField | None = None
    """What is refused where no engine speaks the client's own dialect; None: every engine can be told all of it."""

    def __post_init__(self) -> None:
        self.model_at_engines = self.model_at_engines or self.model

    def speech(self, kind: EngineKind) -> Speech:
        native = self.native.get(kind) if self.native else None
        if native is not None:
            return native
        if kind.has_templates:
            return LlamaCppSpeech(self) if kind is EngineKind.LLAMACPP else TemplateSpeech(self)
        if kind.has_own_wire:
            return providers_speech(kind, self)
        if not kind.takes_tool_choice and (forced := tools_to_force(self.fields)) is not None:
            return ForcedToolSpeech(self, forced)
        if kind is EngineKind.OLLAMA:
            return Unspoken(self.form.path, "Ollama") if self.form in NOT_OLLAMAS else OllamaSpeech(self)
        return OpenAISpeech(self)

    def suits(self, kind: EngineKind) -> bool:
        """Whether such an engine can be told all of it."""
        if self.untranslated is not None and kind not in self.native:
            return False
        return not self.document_at or kind.takes_documents

    def demand_suited(self, serving: Iterable[Backend]) -> None:
        """Raises BadField when none of these can be told all of it."""
        if self.untranslated is not None and not any(self.suits(backend.kind) for backend in serving):
            raise self.untranslated

    def excludes(self, fleet: Fleet, model: str, pool: str) -> tuple[str, ...]:
        """The ids of those that have the model and should not be asked."""
        unsuited = fleet.unsuited(model, pool, self.suits) if self.untranslated is not None or self.document_at else ()
        served = fleet.served(model, pool)
        if served is None or served.kinds.isdisjoint(_CUT_SHORT):
            return unsuited
        return *unsuited, *self.left_to_others(served.backends)

    def left_to_others(self, serving: Sequence[Backend]) -> tuple[str, ...]:
        """The ids of those that would leave a part of it out. None if all would: then one is asked, and says which."""
        if not any(map(self._is_cut_short_by, _CUT_SHORT)):
            return ()  # however many they are
        deaf = [backend.id for backend in serving if self._is_cut_short_by(backend.kind)]
        return tuple(deaf) if len(deaf) < len(serving) else ()

    def _is_cut_short_by(self, kind: EngineKind) -> bool:
        if kind in self.native:
            return False
        if kind is EngineKind.LLAMACPP:
            return unspoken_by_llamacpp(self.fields, self.form) is not None
        return kind is EngineKind.OLLAMA and unspoken_by_ollama(self.fields, self.form) is not None

    def leaves_fetching(self, serving: Iterable[Backend]) -> bool:
        """Whether all of these that can be asked speak the client's own dialect: what it names by an address is theirs to
        fetch, and from then on nobody else can be asked."""
        if self.untranslated is None and all(backend.kind in self.native for backend in serving):
            self.untranslated = BadField("It names what only engines of its own dialect fetch themselves.")
        return self.untranslated is not None

    @property
    def generates(self) -> bool:
        return self.form.generates

    def obey(self, rule: Rule) -> None:
        """Does to the request what an operator's rule says, in the words of every engine that it may go to; not to one that
        came as a form. Raises BadField."""
        self.structured = rule.structured
        if self.upload is not None:
            return
        fields = ruled_fields(self.fields, rule, self.form)
        if fields is not self.fields:
            self.fields, self.raw = fields, b""
        if self.generates:
            self.max_output_tokens = output_limit(fields)
        for speech in self.native.values():
            speech.obey(rule)

    def make_shorter(self) -> bool:
        """A prompt that was too long. False: it has to stay as it is."""
        if self.shortened is None:
            return False
        messages = self.shortened(self.fields["messages"], self._times_shortened)
        if messages is None:
            return False
        self._times_shortened += 1
        self.fields, self.raw = {**self.fields, "messages": messages}, b""
        return True

    def keep_as_it_came(self) -> None:
        """Before a rule of one model is obeyed, when another may be asked for yet."""
        native = {engine: own.said for engine, own in self.native.items()}
        self._as_it_came = self.fields, self.raw, self.max_output_tokens, native

    def undo_rule(self) -> None:
        """It is as it came, if that was kept."""
        self.structured = None
        self._times_shortened = 0
        if self._as_it_came is None:
            return
        self.fields, self.raw, self.max_output_tokens, native = self._as_it_came
        self._as_it_came = None
        for kind, said in native.items():
            self.native[kind].said = said

    def answer_as(self, model: str) -> None:
        """Another model answers, which the client gets to know by this name."""
        if model == self.model:
            return
        self.model, self.raw = model, b""
        if self.translation is not None:
            self.translation.rename(model)

    @property
    def can_rest(self) -> bool:
        """Whether nothing of its body is in memory once it is put away. What keeps an answer keeps the input too."""
        is_alone = self.keeping is None and self._as_it_came is None
        return self.upload is None and is_alone and bool(self.fields)

    def put_away(self) -> bytes | None:
        """The body, which it has no more until it is brought back. None: it cannot be written, and stays."""
        kept = self.raw
        if not kept:
            try:
                kept = orjson.dumps([self.fields, {kind.value: speech.said for kind, speech in self.native.items()}])
            except orjson.JSONEncodeError:
                return None
        self.forget_body()
        return kept

    def bring_back(self, kept: bytes) -> None:
        told = orjson.loads(kept)
        if isinstance(told, dict):
            self.fields, self.raw = told, kept
            return
        self.fields, native = told
        for kind, said in native.items():
            self.native[EngineKind(kind)].said = said

    def forget_body(self) -> None:
        """It is not sent again, since an engine has begun to answer. It may be megabytes, and the answer may take long."""
        self.fields, self.raw, self._as_it_came = {}, b"", None
        if self.native:
            for speech in self.native.values():
                speech.forget_body()
