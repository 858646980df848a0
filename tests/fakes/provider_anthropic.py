"""A fake of Anthropic's API: /v1/messages, streamed and whole, and /v1/models. Requests are checked as strictly as
Anthropic's documentation says (https://platform.claude.com/docs/en/api/messages), so that what a translation leaves in or
forgets is a 400 here too.

Thoughts are signed, and a signature of anybody else's is refused. A system text that asks for JSON alone is followed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from tests.fakes.engine_composing import CallArguments, CallOpening, Speech, Thought
from tests.fakes.provider import API_KEY, FakeProvider, Json, Planned, Refused, fields_in

SIGNATURE = "EqQBCgIYAhIM"
VERSION = "2023-06-01"
WITHOUT_SAMPLING = "2026-10-21"
"""The version after that. The official clients speak it from their latest majors on, with the key as a bearer token."""
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_SAMPLING = "temperature top_p top_k"
_KINDS_OF_CHOICE = {"auto": "auto", "none": "none", "any": "required"}


class FakeAnthropic(FakeProvider):
    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/messages", self._messages),
            web.post("/v1/messages/count_tokens", self._count),
            web.get("/v1/models", self._models),
        ]

    def check_headers(self, request: web.Request) -> None:
        shown = [request.headers.get("x-api-key"), request.headers.get("authorization")]
        if shown not in ([API_KEY, None], [None, f"Bearer {API_KEY}"]):
            raise Refused(401, "authentication_error", "invalid x-api-key")
        if request.headers.get("anthropic-version") not in (VERSION, WITHOUT_SAMPLING):
            raise Refused(400, "invalid_request_error", "anthropic-version: header is required")

    def error_body(self, error: Refused) -> Json:
        told = {"type": error.kind, "message": str(error)}
        return {"type": "error", "error": told, "request_id": "req_fake"}

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        body = self.asked[-1].body
        check_request(body, request.headers.get("anthropic-beta", ""), request.headers["anthropic-version"])
        if body["model"] not in self.models:
            raise Refused(404, "not_found_error", f"model: {body['model']}")
        planned = self.plan(as_chat(body))
        if body.get("stream") is not True:
            return web.json_response(_message(body["model"], planned))
        begin, pieces, end = _events(body["model"], planned)
        overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        return await self.send_stream(request, begin, pieces, end, _event(overloaded))

    async def _count(self, request: web.Request) -> web.StreamResponse:
        body = {**self.asked[-1].body, "max_tokens": 1}
        check_request(body)
        return web.json_response({"input_tokens": self.plan(as_chat(body)).prompt_tokens})

    async def _models(self, request: web.Request) -> web.StreamResponse:
        """Two to a page, so that there are pages."""
        after = request.query.get("after_id")
        start = self.models.index(after) + 1 if after else 0
        names = self.models[start : start + 2]
        capabilities = {
            "image_input": {"supported": True},
            "thinking": {"supported": True},
            "batch": {"supported": True},
        }
        data = [
            {
                "type": "model",
                "id": name,
                "display_name": name.title(),
                "created_at": "2026-01-01T00:00:00Z",
                "lifecycle": "active",
                "max_input_tokens": 200_000,
                "max_tokens": 64_000,
                "capabilities": capabilities,
            }
            for name in names
        ]
        has_more = start + 2 < len(self.models)
        told = {"data": data, "has_more": has_more, "first_id": names[0], "last_id": names[-1]}
        return web.json_response(told)


def check_request(body: Any, beta: str = "", version: str = VERSION) -> None:
    """Raises Refused."""
    sampling = _SAMPLING if version == VERSION else ""
    allowed = "context_management" if beta else ""
    fields_in(
        body,
        "",
        "model max_tokens messages",
        f"system metadata stop_sequences stream tools tool_choice thinking output_config cache_control service_tier "
        f"container {sampling} {allowed}",
    )
    if not isinstance(body["max_tokens"], int) or body["max_tokens"] < 1:
        raise _bad("max_tokens: Input should be greater than or equal to 1")
    for stop in body.get("stop_sequences") or ():
        if not stop.strip():
            raise _bad("stop_sequences: each stop sequence must contain non-whitespace")
    if "metadata" in body:
        fields_in(body["metadata"], "metadata.", "", "user_id")
    if isinstance(body.get("system"), list):
        for block in body["system"]:
            _check_text(fields_in(block, "system.", "type text", "cache_control"))
    elif "system" in body and not body["system"].strip():
        raise _bad("system: text must be non-empty")
    if not 0 <= (body.get("temperature") or 0) <= 1:
        raise _bad("temperature: range: 0..1")
    _check_tools(body)
    _check_thinking(body)
    _check_output(body)
    _check_messages(body)


def _check_tools(body: Json) -> None:
    for tool in body.get("tools") or ():
        fields_in(tool, "tools.", "name input_schema", "type description cache_control strict")
        if not _NAME.fullmatch(tool["name"]):
            raise _bad("tools.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'")
        if tool["input_schema"].get("type") != "object":
            raise _bad("tools.input_schema.type: Field required")
    choice = body.get("tool_choice")
    if choice is None:
        return
    if not body.get("tools"):
        raise _bad("tool_choice may only be specified while providing tools")
    match choice.get("type"):
        case "auto" | "any":
            fields_in(choice, "tool_choice.", "type", "disable_parallel_tool_use")
        case "tool":
            fields_in(choice, "tool_choice.", "type name", "disable_parallel_tool_use")
            if choice["name"] not in [tool["name"] for tool in body["tools"]]:
                raise _bad(f"Tool '{choice['name']}' not found in provided tools")
        case "none":
            fields_in(choice, "tool_choice.", "type")
        case other:
            raise _bad(f"tool_choice: Input tag '{other}' does not match any of the expected tags")


def _check_thinking(body: Json) -> None:
    thinking = body.get("thinking")
    if thinking is None:
        return
    match thinking.get("type"):
        case "enabled":
            fields_in(thinking, "thinking.", "type budget_tokens", "display")
            if not 1024 <= thinking["budget_tokens"] < body["max_tokens"]:
                raise _bad("`max_tokens` must be greater than `thinking.budget_tokens`, which is at least 1024")
        case "adaptive":
            fields_in(thinking, "thinking.", "type", "display")
        case "disabled":
            fields_in(thinking, "thinking.", "type")
            return
        case other:
            raise _bad(f"thinking: Input tag '{other}' does not match any of the expected tags")
    if body.get("temperature") not in (None, 1) or "top_k" in body:
        raise _bad("`temperature` may only be set to 1 when thinking is enabled")
    if body.get("tool_choice", {}).get("type") in ("any", "tool"):
        raise _bad("Thinking may not be enabled when tool_choice forces tool use.")


def _check_output(body: Json) -> None:
    config = fields_in(body.get("output_config") or {}, "output_config.", "", "effort format")
    if config.get("effort") not in (None, "low", "medium", "high", "xhigh", "max"):
        raise _bad("output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'")
    wanted = config.get("format")
    if wanted is not None:
        fields_in(wanted, "output_config.format.", "type schema")
        _check_closed(wanted["schema"])


def _check_closed(schema: Any) -> None:
    if isinstance(schema, list):
        for inner in schema:
            _check_closed(inner)
    elif isinstance(schema, dict):
        if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
            raise _bad(
                "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly false"
            )
        for inner in schema.values():
            _check_closed(inner)


def _check_messages(body: Json) -> None:
    messages = body["messages"]
    if not messages:
        raise _bad("messages: at least one message is required")
    if messages[0].get("role") != "user":
        raise _bad('messages: first message must use the "user" role')
    called: list[str] = []
    for number, message in enumerate(messages):
        where = f"messages.{number}."
        fields_in(message, where, "role content")
        if message["role"] not in ("user", "assistant"):
            raise _bad(f"{where}role: Input should be 'user' or 'assistant'")
        if number and message["role"] == messages[number - 1]["role"]:
            raise _bad(f'{where}role: roles must alternate between "user" and "assistant"')
        blocks = _blocks(message["content"])
        if not blocks:
            raise _bad(f"{where}content: must be non-empty")
        for block in blocks:
            _check_block(block, message["role"], where)
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if [block["type"] for block in blocks[: len(results)]] != ["tool_result"] * len(results):
            raise _bad(f"{where}content: tool_result blocks must come first")
        if sorted(results) != sorted(called):
            raise _bad(f"{where}content: each tool_use block must have a corresponding tool_result in the next message")
        called = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if called and not body.get("tools"):
            raise _bad("Requests which include `tool_use` or `tool_result` blocks must define tools")
    last = _blocks(messages[-1]["content"])[-1]
    if messages[-1]["role"] == "assistant" and last["type"] == "text" and last["text"] != last["text"].rstrip():
        raise _bad("messages: final assistant content cannot end with trailing whitespace")


def _check_block(block: Json, role: str, where: str) -> None:
    match block.get("type"), role:
        case "text", _:
            _check_text(fields_in(block, where, "type text", "cache_control citations"))
        case ("image", "user") | ("document", "user"):
            fields_in(block, where, "type source", "cache_control title context citations")
            fields_in(block["source"], f"{where}source.", "type media_type data")
        case "tool_result", "user":
            fields_in(block, where, "type tool_use_id", "content is_error cache_control")
            for inner in _blocks(block.get("content") or []):
                _check_block(inner, role, where)
        case "tool_use", "assistant":
            fields_in(block, where, "type id name input", "cache_control")
            if not _NAME.fullmatch(block["id"]) or not isinstance(block["input"], dict):
                raise _bad(f"{where}tool_use: id or input is not valid")
        case "thinking", "assistant":
            if fields_in(block, where, "type thinking signature")["signature"] != SIGNATURE:
                raise _bad(f"{where}content: Invalid `signature` in `thinking` block")
        case kind, _:
            raise _bad(f"{where}content: Input tag '{kind}' is not one of the expected tags")


def _check_text(block: Json) -> None:
    if not block["text"].strip():
        raise _bad("text content blocks must contain non-whitespace text")


def _blocks(content: Any) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return list(content)


def _bad(message: str) -> Refused:
    return Refused(400, "invalid_request_error", message)


def as_chat(body: Json) -> Json:
    """In OpenAI's words, as far as the wishes go."""
    system = "\n".join(block["text"] for block in _blocks(body.get("system") or []))
    messages = [{"role": "system", "content": system}] if system else []
    for message in body["messages"]:
        messages += _chat_messages(message)
    chat: Json = {"model": body["model"], "messages": messages, "max_tokens": body["max_tokens"]}
    chat |= {"stream": body.get("stream", False), "stop": body.get("stop_sequences")}
    if body.get("tools"):
        functions = [{"name": tool["name"], "parameters": tool["input_schema"]} for tool in body["tools"]]
        chat["tools"] = [{"type": "function", "function": function} for function in functions]
        choice = body.get("tool_choice") or {"type": "auto"}
        named = {"type": "function", "function": {"name": choice.get("name")}}
        chat["tool_choice"] = _KINDS_OF_CHOICE.get(choice["type"], named)
        chat["parallel_tool_calls"] = not choice.get("disable_parallel_tool_use", False)
    wanted = (body.get("output_config") or {}).get("format")
    if wanted:
        chat["response_format"] = {"type": "json_schema", "json_schema": {"schema": wanted["schema"]}}
    elif "JSON object and nothing else" in system:
        chat["response_format"] = {"type": "json_object"}
    if (body.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        chat["reasoning_effort"] = "high"
    return chat


def _chat_messages(message: Json) -> Iterator[Json]:
    parts = []
    for block in _blocks(message["content"]):
        match block["type"]:
            case "tool_result":
                text = "\n".join(inner["text"] for inner in _blocks(block.get("content") or []) if "text" in inner)
                yield {"role": "tool", "content": text}
            case "text":
                parts.append({"type": "text", "text": block["text"]})
            case "image":
                url = f"data:{block['source']['media_type']};base64,{block['source']['data']}"
                parts.append({"type": "image_url", "image_url": {"url": url}})
    if parts:
        yield {"role": message["role"], "content": parts}


def _usage(planned: Planned) -> Json:
    cached = planned.order.cached_tokens or 0
    return {
        "input_tokens": planned.prompt_tokens - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": planned.answer.tokens,
        "service_tier": "standard",
    }


def _stopped(planned: Planned) -> Json:
    if planned.answer.stopped_by is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": planned.answer.stopped_by}
    if planned.answer.finish == "length":
        return {"stop_reason": "max_tokens", "stop_sequence": None}
    return {"stop_reason": "tool_use" if planned.answer.calls else "end_turn", "stop_sequence": None}


def _head(model: str, usage: Json) -> Json:
    empty: Json = {"content": [], "stop_reason": None, "stop_sequence": None}
    return {"id": "msg_fake", "type": "message", "role": "assistant", "model": model, **empty, "usage": usage}


def _message(model: str, planned: Planned) -> Json:
    content: list[Json] = []
    if planned.answer.thoughts:
        content.append({"type": "thinking", "thinking": planned.answer.thoughts, "signature": SIGNATURE})
    if planned.answer.text:
        content.append({"type": "text", "text": planned.answer.text})
    for number, call in enumerate(planned.answer.calls):
        content.append(
            {
                "type": "tool_use",
                "id": f"toolu_{number}",
                "name": call.name,
                "input": json.loads(call.arguments or "{}"),
            }
        )
    return {**_head(model, _usage(planned)), "content": content, **_stopped(planned)}


def _events(model: str, planned: Planned) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """What begins a stream, what each token brings, and what ends it."""
    begin = [_event({"type": "message_start", "message": _head(model, {**_usage(planned), "output_tokens": 1})})]
    begin.append(_event({"type": "ping"}))
    pieces: list[bytes] = []
    index, kind = -1, ""
    for piece in planned.answer.pieces:
        out = b""
        wanted = _kind_of(piece, kind)
        if wanted != kind or isinstance(piece, CallOpening):
            out += _closed(index, kind)
            index, kind = index + 1, wanted
            out += _event({"type": "content_block_start", "index": index, "content_block": _opened(piece, wanted)})
        delta = _delta(piece)
        if delta is not None:
            out += _event({"type": "content_block_delta", "index": index, "delta": delta})
        pieces.append(out)
    usage = {"output_tokens": planned.answer.tokens}
    end = [
        _closed(index, kind) + _event({"type": "message_delta", "delta": _stopped(planned), "usage": usage}),
        _event({"type": "message_stop"}),
    ]
    return begin, pieces, end


def _kind_of(piece: Any, kind: str) -> str:
    match piece:
        case Thought():
            return "thinking"
        case Speech():
            return "text"
        case CallOpening():
            return "tool_use"
    return kind


def _opened(piece: Any, kind: str) -> Json:
    match kind:
        case "thinking":
            return {"type": kind, "thinking": "", "signature": ""}
        case "text":
            return {"type": kind, "text": ""}
    return {"type": kind, "id": f"toolu_{piece.index}", "name": piece.name, "input": {}}


def _delta(piece: Any) -> Json | None:
    match piece:
        case Thought():
            return {"type": "thinking_delta", "thinking": piece.text}
        case Speech() if piece.text:
            return {"type": "text_delta", "text": piece.text}
        case CallArguments():
            return {"type": "input_json_delta", "partial_json": piece.text}
    return None


def _closed(index: int, kind: str) -> bytes:
    if index < 0:
        return b""
    delta = {"type": "signature_delta", "signature": SIGNATURE}
    signed = _event({"type": "content_block_delta", "index": index, "delta": delta}) if kind == "thinking" else b""
    return signed + _event({"type": "content_block_stop", "index": index})


def _event(told: Json) -> bytes:
    return f"event: {told['type']}\ndata: {json.dumps(told, ensure_ascii=False)}\n\n".encode()
