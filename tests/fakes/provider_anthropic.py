"""A fake of Anthropic's API: /v1/messages, streamed and whole, and /v1/models. Requests are checked as strictly as
Anthropic's documentation says (https://platform.claude.com/docs/en/api/messages), so that what a translation leaves in or
forgets is a 400 here too.

Thoughts are signed, and a signature of anybody else's is refused. A system text that asks for JSON alone is followed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from tests.fakes.engine_composing import CallArguments, CallOpening, Speech, Thought
from tests.fakes.provider import API_KEY, FakeProvider, Json, Planned, Refused, fields_in
from tests.fakes.provider_anthropic_checks import SIGNATURE, VERSION, WITHOUT_SAMPLING, blocks_in, check_request

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
        fields_in(
            self.asked[-1].body,
            "",
            "model messages",
            "system tools tool_choice thinking output_config cache_control mcp_servers context_management",
        )
        check_request(body, request.headers.get("anthropic-beta", ""))
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


def as_chat(body: Json) -> Json:
    """In OpenAI's words, as far as the wishes go."""
    system = "\n".join(block["text"] for block in blocks_in(body.get("system") or []))
    messages = [{"role": "system", "content": system}] if system else []
    for message in body["messages"]:
        messages += _chat_messages(message)
    chat: Json = {"model": body["model"], "messages": messages, "max_tokens": body["max_tokens"]}
    chat |= {"stream": body.get("stream", False), "stop": body.get("stop_sequences")}
    own = [tool for tool in body.get("tools") or () if "input_schema" in tool]
    if own:
        functions = [{"name": tool["name"], "parameters": tool["input_schema"]} for tool in own]
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
    for block in blocks_in(message["content"]):
        match block["type"]:
            case "tool_result":
                text = "\n".join(inner["text"] for inner in blocks_in(block.get("content") or []) if "text" in inner)
                yield {"role": "tool", "content": text}
            case "text":
                parts.append({"type": "text", "text": block["text"]})
            case "image" if block["source"]["type"] != "base64":
                parts.append({"type": "text", "text": "a picture"})
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
