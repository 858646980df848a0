"""What a client asks an engine for, whatever the route: the facts that the gateway goes by, and the body that travels on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from forebay_gateway.dialects.dialect import Translation
from forebay_gateway.fleet import EngineKind
from forebay_gateway.forms import Form
from forebay_gateway.speech import OpenAISpeech, Speech
from forebay_gateway.upload import Upload


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
    native: Mapping[EngineKind, Speech] = field(default_factory=dict)
    """For engines that speak the client's own dialect."""
    model_at_engines: str = ""
    """As the fleet calls it."""

    def __post_init__(self) -> None:
        self.model_at_engines = self.model_at_engines or self.model

    def speech(self, kind: EngineKind) -> Speech:
        native = self.native.get(kind)
        return OpenAISpeech(self) if native is None else native

    def forget_body(self) -> None:
        """It is not sent again, since an engine has begun to answer. It may be megabytes, and the answer may take long."""
        self.fields, self.raw = {}, b""
        for speech in self.native.values():
            speech.forget_body()
