"""What a client asks an engine for, whatever the route: the facts that the gateway goes by, and the body that travels on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from forebay_gateway.forms import Form


@dataclass(slots=True)
class Asked:
    form: Form
    model: str
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
    fields: dict[str, Any]
    """The whole body, until it is forgotten."""
    raw: bytes
    """The same as it came."""

    def forget_body(self) -> None:
        """It is not sent again, since an engine has begun to answer. It may be megabytes, and the answer may take long."""
        self.fields, self.raw = {}, b""

    def for_engine(self, *, streamed: bool, ask_usage: bool = True) -> bytes:
        """The body that the engine gets. A plain request to an engine that is asked plainly passes byte by byte."""
        if not streamed:
            return self.raw
        body = {**self.fields, "stream": True}
        if ask_usage:
            # Of a client that streams nothing they mean nothing, and the engine must not be asked to judge them.
            options = (self.fields.get("stream_options") or {}) if self.stream else {}
            body["stream_options"] = {**options, "include_usage": True}
        elif not self.stream:
            body.pop("stream_options", None)
        return orjson.dumps(body)
