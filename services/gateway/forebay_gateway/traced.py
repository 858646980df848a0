"""What a traced request tells of itself: marks on its way, and the spans that are made of them when it is over.

A request that is not traced has none of this. What was asked and answered, keys, and paths, in which a key may stand, are
in no span. Names are those of OpenTelemetry's conventions for generative AI and HTTP; `forebay.…` is what those lack."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import orjson

from forebay.traces.context import Place
from forebay.traces.spans import Event, Kind, Span, Traces, Value, new_span_id
from forebay_gateway.accounting import Entry, Outcome
from forebay_gateway.callers.call import Call
from forebay_gateway.canonical.forms import COMPLETION, EMBEDDING, Form
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.fleet import Backend
from forebay_gateway.slots.asking import BY_ITSELF, Grant

_OPERATIONS = {COMPLETION.path: "text_completion", EMBEDDING.path: "embeddings"}
"""Of forms that are no chat and whose name is not the end of their path."""
_PROVIDERS = {
    EngineKind.GEMINI: "gcp.gemini",
    EngineKind.AZURE: "azure.ai.openai",
}
"""Where the conventions have another name than ours."""
_LONGEST_NAME = 256  # of a model, which may be whatever a client made up
_LONGEST_REASON = 64
_MOST_REASONS = 16

Attributes = dict[str, Value]


class TracedAttempt:
    """Marks are on the monotonic clock."""

    def __init__(self, place: Place, grant: Grant, backend: Backend | None, began: float) -> None:
        self.place = place
        self.grant, self.backend = grant, backend
        self.began = began
        self.sent_at: float | None = None
        """When the request was written to the engine, the last time."""
        self.first_byte_at: float | None = None
        self.ended: float | None = None
        self.error = ""
        self.finish_reasons: list[str] = []

    def note_whole(self, raw: bytes) -> None:
        """An engine's answer in OpenAI's form that came in one piece."""
        try:
            choices = orjson.loads(raw)["choices"]
            self.note_ends(choice.get("finish_reason") for choice in choices)
        except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
            return  # whoever reads it for the client says what is wrong with it

    def note_ends(self, reasons: Iterable[Any]) -> None:
        told = [str(reason)[:_LONGEST_REASON] for reason in reasons if reason]
        self.finish_reasons = told[:_MOST_REASONS]


class _Wait:
    def __init__(self, began: float) -> None:
        self.began = began
        self.ended: float | None = None
        self.grant: Grant | None = None
        self.by = ""


class TracedRequest:
    def __init__(self, traces: Traces, place: Place, parent: bytes) -> None:
        self.place = place
        self._traces = traces
        self._parent = parent
        self._operation = "chat"
        self._waits: list[_Wait] = []
        self._attempts: list[TracedAttempt] = []
        self._settled: tuple[float, float] | None = None

    def note_form(self, form: Form) -> None:
        """It is understood now; in whichever dialect it came."""
        self._operation = _operation(form)

    def wait(self, now: float) -> None:
        """A slot is asked for."""
        self._waits.append(_Wait(now))

    def grant(self, grant: Grant, backend: Backend | None, now: float, *, on_credit: bool) -> TracedAttempt:
        """It was given one, and an attempt begins."""
        if self._waits:
            wait = self._waits[-1]
            wait.ended, wait.grant = now, grant
            wait.by = "credit" if on_credit else "local" if grant.epoch == BY_ITSELF else "scheduler"
        attempt = TracedAttempt(self.place._replace(span=new_span_id()), grant, backend, now)
        self._attempts.append(attempt)
        return attempt

    def end_attempt(self, now: float, error: str = "") -> None:
        attempt = self._attempts[-1]
        attempt.ended, attempt.error = now, error

    def settle(self, began: float, ended: float) -> None:
        self._settled = began, ended

    def tell(self, entry: Entry, ended: float) -> None:
        """It is over."""
        wall = entry.started_at - entry.arrived
        word = entry.reason or (str(entry.outcome) if entry.outcome is not Outcome.FINISHED else "")
        spans = [
            self._of_request(entry, wall, ended),
            *(self._of_wait(wait, entry, wall, ended, word) for wait in self._waits),
            *(self._of_attempt(attempt, entry, wall, ended, word) for attempt in self._attempts),
        ]
        if self._settled is not None:
            began, settled = self._settled
            spans.append(self._below("settle", wall + began, wall + settled, {"forebay.outcome": str(entry.outcome)}))
        self._traces.tell(*spans)

    def _of_request(self, entry: Entry, wall: float, ended: float) -> Span:
        attributes: Attributes = {
            "gen_ai.operation.name": self._operation,
            "http.request.method": "POST",
            "http.route": entry.route,
            "forebay.request_id": entry.request_id,
            "forebay.ledger_id": entry.ledger_id.hex(),
            "forebay.outcome": str(entry.outcome),
            "forebay.stream": entry.stream,
        }
        if entry.http_status:
            attributes["http.response.status_code"] = entry.http_status
        if entry.pool:
            attributes["forebay.pool"] = entry.pool
        if entry.model_requested:
            attributes["gen_ai.request.model"] = entry.model_requested[:_LONGEST_NAME]
        if entry.attempts:
            used = entry.usage
            attributes |= {
                "gen_ai.response.model": entry.model,
                "gen_ai.usage.input_tokens": used.prompt,
                "gen_ai.usage.output_tokens": used.completion,
                "forebay.usage_source": str(used.source),
                "forebay.backend": entry.backend_id,
                "forebay.queue_ms": entry.queue_ms,
                "forebay.attempts": entry.attempts,
            }
            if used.cached_prompt:
                attributes["gen_ai.usage.cache_read.input_tokens"] = used.cached_prompt
        if entry.ttft_ms is not None:
            attributes["forebay.ttft_ms"] = entry.ttft_ms
        if self._attempts:
            last = self._attempts[-1]
            if last.finish_reasons:
                attributes["gen_ai.response.finish_reasons"] = last.finish_reasons
            if last.backend is not None:
                attributes["gen_ai.provider.name"] = _provider(last.backend)
        error = ""
        if entry.outcome in (Outcome.FAILED, Outcome.REFUSED):
            # What a client did wrong is an error of the client's span and not of the server's, by the conventions of HTTP.
            if entry.outcome is Outcome.FAILED or entry.http_status >= 500:
                error = entry.reason
            attributes["error.type"] = entry.reason
        return Span(
            f"{self._operation} {entry.model_requested[:_LONGEST_NAME]}".rstrip(),
            Kind.SERVER,
            self.place,
            self._parent,
            entry.started_at,
            wall + ended,
            attributes,
            error,
            has_remote_parent=True,
        )

    def _of_wait(self, wait: _Wait, entry: Entry, wall: float, ended: float, word: str) -> Span:
        attributes: Attributes = {"forebay.pool": entry.pool, "gen_ai.request.model": entry.model}
        if wait.grant is not None:
            attributes |= {
                "forebay.granted_by": wait.by,
                "forebay.backend": wait.grant.backend_id,
                "forebay.queue_ms": wait.grant.queue_ms,
            }
        until = wall + (ended if wait.ended is None else wait.ended)
        return self._below("wait for a slot", wall + wait.began, until, attributes, "" if wait.grant else word)

    def _of_attempt(self, attempt: TracedAttempt, entry: Entry, wall: float, ended: float, word: str) -> Span:
        attributes: Attributes = {
            "gen_ai.operation.name": self._operation,
            "gen_ai.request.model": entry.model,
            "forebay.backend": attempt.grant.backend_id,
            "forebay.attempt": attempt.grant.attempt,
        }
        if attempt.backend is not None:
            attributes |= _of_engine(attempt.backend)
        if attempt.finish_reasons:
            attributes["gen_ai.response.finish_reasons"] = attempt.finish_reasons
        events = []
        if attempt.sent_at is not None:
            events.append(Event("sent", wall + attempt.sent_at))
        if attempt.first_byte_at is not None:
            events.append(Event("first_byte", wall + attempt.first_byte_at))
            since = attempt.began if attempt.sent_at is None else attempt.sent_at
            attributes["forebay.ttft_ms"] = round((attempt.first_byte_at - since) * 1000)
        return Span(
            f"{self._operation} {entry.model}",
            Kind.CLIENT,
            attempt.place,
            self.place.span,
            wall + attempt.began,
            wall + (ended if attempt.ended is None else attempt.ended),
            attributes,
            word if attempt.ended is None else attempt.error,
            events,
        )

    def _below(self, name: str, began: float, ended: float, attributes: Attributes, error: str = "") -> Span:
        place = self.place._replace(span=new_span_id())
        return Span(name, Kind.INTERNAL, place, self.place.span, began, ended, attributes, error)


def begin_traced(traces: Traces, call: Call, ledger_id: bytes) -> TracedRequest | None:
    """None: this request is not traced. One without a context of its client's is the trace that its ledger id names."""
    begun = traces.begin(ledger_id, call.traceparent, call.tracestate)
    return None if begun is None else TracedRequest(traces, begun.place, begun.parent)


def _operation(form: Form) -> str:
    if form.path.endswith("/chat/completions"):
        return "chat"
    return _OPERATIONS.get(form.path) or form.path.removeprefix("/v1/").replace("/", "_")


def _provider(backend: Backend) -> str:
    return _PROVIDERS.get(backend.kind, str(backend.kind))


def _of_engine(backend: Backend) -> Attributes:
    attributes: Attributes = {"gen_ai.provider.name": _provider(backend)}
    try:
        url = urlsplit(backend.url)
        port = url.port or (443 if url.scheme == "https" else 80)
    except ValueError:
        return attributes
    if url.hostname:
        attributes |= {"server.address": url.hostname, "server.port": port}
    return attributes
