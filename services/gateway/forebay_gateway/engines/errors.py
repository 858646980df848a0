"""What an engine's error answer means: the client's fault, the engine's own, or a full house. Pure.

The wordings are those of vLLM, SGLang, llama.cpp's server, Ollama, Anthropic, Gemini, Cohere and OpenAI itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from forebay.errors import ForebayError
from forebay_gateway.credential import CredentialFault
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.engines.credential_faults import fault_of, is_too_large, without_account
from forebay_gateway.refused import ContextTooLong, EngineRefused

MOST_BYTES = 64 << 10
"""More of an error answer is not read."""

_CONTEXT_CODES = {"context_length_exceeded", "exceed_context_size_error"}
_CONTEXT_WORDS = re.compile(
    r"maximum context length"  # OpenAI, vLLM
    r"|longer than the (?:maximum )?model(?:'s)? (?:context )?length"  # vLLM's engine core, SGLang
    r"|exceeds? the (?:available |maximum |model's )?context (?:size|length|window)"  # llama.cpp, Ollama
    r"|exceeds? (?:the )?maximum (?:allowed |input |context )+(?:length|size)"  # TGI, Ollama
    r"|larger than the context (?:size|window)"
    r"|prompt is too long|exceed context limit"  # Anthropic
    r"|token count .{0,80}exceeds the maximum number of tokens",  # Gemini
    re.IGNORECASE,
)

_BATCH_WORDS = re.compile(r"input .{0,40}is too large to process", re.IGNORECASE)
"""llama.cpp's of a text to embed that is longer than its batch. It says so with status 500, as if the fault were its own."""
_GONE_CODES = {"model_not_found"}
_GONE_WORDS = re.compile(
    r"\bmodel (?:\S{1,300} )?(?:does not exist|(?:is )?not found|is not loaded)"  # vLLM, OpenAI; Ollama, llama.cpp's router
    r"|^model: \S{1,300}$"  # Anthropic
    r"|\bmodels/\S{1,300} is not found",  # Gemini
    re.IGNORECASE,
)
_NO_ADDRESS_WORDS = re.compile(
    r"(?:404:? )?(?:(?:page|file|resource) )?not found\.?|method not allowed\.?"  # FastAPI, Go, llama.cpp, aiohttp
    r"|<(?:!doctype )?html.*",  # a web server's own page
    re.IGNORECASE | re.DOTALL,
)
_STATUSES = {"overloaded_error": 529, "rate_limit_error": 429, "invalid_request_error": 400, "request_too_large": 413}
"""Of errors that name only their type, when they come in a stream."""
_RETRY_DELAY = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)s")


class Blame(StrEnum):
    """Why another backend may do better."""

    UNREACHABLE = "unreachable"
    """No connection, or it died."""
    FAILED = "failed"
    """It answered with an error of its own."""
    BUSY = "busy"
    UNKNOWN_BACKEND = "unknown_backend"
    """The gateway cannot use it: it is not in the fleet, or its credential has not come yet."""
    MODEL_GONE = "model_gone"
    """It is well, and does not have the model any more that the fleet says it has."""


@dataclass(frozen=True, slots=True)
class EngineTrouble:
    """The request may be served elsewhere."""

    blame: Blame
    message: str
    retry_after_s: float | None = None
    fault: CredentialFault | None = None
    """It is about the credential, and another one of this backend may do better."""


def judge(
    status: int, body: bytes, retry_after: str | None, shown_to: EngineKind | None = None
) -> EngineTrouble | ForebayError:
    """An answer with a status other than 200: trouble of the engine, or the error that the client gets. `shown_to`: the kind
    of engine, if it was shown a credential."""
    told = _told(body)
    message = _message(told, body)
    fault = fault_of(status, told, message, shown_to)
    if is_too_large(status, message):
        return _too_long(message)
    if status in (429, 503, 529) and fault is not CredentialFault.REFUSED:
        # 529 is Anthropic's for too much work, of all its customers together.
        after_s = _seconds(retry_after) or _delay_in(told)
        return EngineTrouble(Blame.BUSY, f"It is busy ({status}): {message}", after_s, fault)
    if fault is not None:
        # It is about Forebay's credential for the engine, never about the client's key.
        return EngineTrouble(Blame.FAILED, f"It answered {status}: {message}", _seconds(retry_after), fault)
    if status == 500 and _BATCH_WORDS.search(message):
        return ContextTooLong(f"{as_sentence(message)} Shorten the input: that engine reads each text of it at once.")
    if _is_model_gone(status, told, message):
        return EngineTrouble(Blame.MODEL_GONE, f"It does not have the model any more: {message}")
    if status in (404, 405) and _NO_ADDRESS_WORDS.fullmatch(message.strip()):
        return EngineRefused(
            "The engine that has this model does not serve this kind of request: it has no such address. Ask for another "
            "model.",
            status=400,
            type="invalid_request_error",
            param="model",
            code="unsupported_model",
        )
    if status == 501:
        # It is well, and was not built or started for this. As a 501 client libraries would ask again.
        return refusal(400, told, message)
    if status == 403:
        return refusal(400, {**told, "code": "content_filter"}, message)
    if status >= 500 or status in (407, 408) or status < 400:
        return EngineTrouble(Blame.FAILED, f"It answered {status}: {message}")
    return refusal(status, told, message)


def refusal(status: int, told: dict[str, Any], message: str) -> ForebayError:
    """The engine's own refusal of a request, in our words. `told` is its error object."""
    kind, code = told.get("type"), told.get("code")
    if kind in _CONTEXT_CODES or code in _CONTEXT_CODES or (status < 500 and _CONTEXT_WORDS.search(message)):
        return _too_long(message)
    param = told.get("param")
    if not isinstance(code, str) and status == 404 and "model" in message.lower():
        param, code = "model", "model_not_found"
    return EngineRefused(
        f"The engine refused this request: {without_account(message)}",
        status=status,
        type=kind if isinstance(kind, str) and kind.endswith("_error") else "invalid_request_error",
        param=param if isinstance(param, str) else None,
        code=code if isinstance(code, str) else None,
    )


def in_stream(
    body: dict[str, Any] | None, message: str, shown_to: EngineKind | None = None
) -> EngineTrouble | ForebayError:
    """An error event before the first chunk: as if it had been the status."""
    told = body or {}
    code = told.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else _STATUSES.get(str(told.get("type")), 500)
    return judge(status, orjson.dumps({"error": body or {"message": message}}), None, shown_to)


def _too_long(message: str) -> ContextTooLong:
    said = as_sentence(without_account(message))
    return ContextTooLong(f"{said} Shorten the conversation, or ask for fewer tokens.")


def as_sentence(said: str) -> str:
    """What engines and operating systems say, so that another sentence may follow."""
    said = said.rstrip()
    return said if said.endswith((".", "!", "?", "…")) or not said else f"{said}."


def _is_model_gone(status: int, told: dict[str, Any], message: str) -> bool:
    """The client has no part in it: only what the fleet names is asked for. llama.cpp's router says so with status 400."""
    return status in (400, 404) and (told.get("code") in _GONE_CODES or bool(_GONE_WORDS.search(message)))


def _told(body: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(parsed, dict):
        return {}
    told = parsed.get("error", parsed)  # vLLM before 0.10 has no envelope
    if isinstance(told, str):  # Ollama
        return {"message": told}
    return told if isinstance(told, dict) else {}


def _message(told: dict[str, Any], body: bytes) -> str:
    message = told.get("message") or told.get("detail")  # `detail` is FastAPI's
    if isinstance(message, str) and message:
        return message[:2000]
    text = orjson.dumps(message).decode() if message else body[:500].decode(errors="replace").strip()
    return text or "no reason given"


def _seconds(retry_after: str | None) -> float | None:
    if retry_after is None or not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", retry_after.strip()):
        return None
    return float(retry_after)


def _delay_in(told: dict[str, Any]) -> float | None:
    """Gemini's `RetryInfo`, which is one of the error's details: {"retryDelay": "34s"}."""
    details = told.get("details")
    for detail in details if isinstance(details, list) else ():
        given = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(given, str) and (delay := _RETRY_DELAY.fullmatch(given)):
            return float(delay[1])
    return None


def mentions_stream_options(status: int, body: bytes) -> bool:
    """The engine is too old, or too strict, for being asked for usage in a stream."""
    return status in (400, 422) and (b"stream_options" in body or b"include_usage" in body)
