"""A fake of Cohere's API (v2): /v2/chat, streamed and whole, /v2/embed, /v2/rerank and the list of models. Requests are
checked as strictly as Cohere's documentation says (https://docs.cohere.com/reference/chat), so that what a translation
leaves in or forgets is a 400 here too.

Numbers of tokens come with a point, as Cohere's do, and a model that calls tools tells its plan first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from tests.fakes.engine_composing import CallArguments, CallOpening, Speech, Thought
from tests.fakes.engine_measuring import embed
from tests.fakes.provider import API_KEY, FakeProvider, Json, Planned, Refused, fields_in

PLAN = "I will use what I have."
_CHAT = (
    "stream tools strict_tools documents citation_options response_format safety_mode max_tokens stop_sequences "
    "temperature seed frequency_penalty presence_penalty k p logprobs tool_choice thinking priority"
)
_CHOICES = {"REQUIRED": "required", "NONE": "none"}
_INPUT_TYPES = ("search_document", "search_query", "classification", "clustering", "image")
_MOST_TEXTS = 96


class FakeCohere(FakeProvider):
    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v2/chat", self._chat),
            web.post("/v2/embed", self._embed),
            web.post("/v2/rerank", self._rerank),
            web.get("/v1/models", self._models),
        ]

    def check_headers(self, request: web.Request) -> None:
        if request.headers.get("authorization") != f"Bearer {API_KEY}":
            raise Refused(401, "", "invalid api token")

    def error_body(self, error: Refused) -> Json:
        return {"id": "fake", "message": str(error)}

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = self.asked[-1].body
        check_chat(body)
        self._demand_model(body)
        planned = self.plan(as_chat(body))
        if body.get("stream") is not True:
            return web.json_response(_message(planned))
        begin, pieces, end = _events(planned)
        failed = {"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "it broke down"}}
        return await self.send_stream(request, begin, pieces, end, _event(failed))

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        body = fields_in(
            self.asked[-1].body,
            "",
            "model input_type",
            "texts images inputs embedding_types output_dimension truncate max_tokens",
        )
        self._demand_model(body)
        if body["input_type"] not in _INPUT_TYPES:
            raise _bad(f"invalid input_type: {body['input_type']}")
        texts = body.get("texts") or []
        if not 0 < len(texts) <= _MOST_TEXTS:
            raise _bad(f"texts must have 1 to {_MOST_TEXTS} elements")
        if body.get("embedding_types") != ["float"]:
            raise _bad("this fake makes floats")
        made = embed({"input": texts})["data"]
        return web.json_response(
            {
                "id": "fake",
                "embeddings": {"float": [each["embedding"][: body.get("output_dimension")] for each in made]},
                "texts": texts,
                "meta": {
                    "api_version": {"version": "2"},
                    "billed_units": {"input_tokens": float(sum(len(text.split()) for text in texts))},
                },
            }
        )

    async def _rerank(self, request: web.Request) -> web.StreamResponse:
        body = fields_in(
            self.asked[-1].body, "", "model query documents", "top_n max_tokens_per_doc priority return_documents"
        )
        self._demand_model(body)
        asked = set(body["query"].split())
        scores = [len(asked & set(text.split())) / (len(asked) or 1) for text in body["documents"]]
        ranked = sorted(range(len(scores)), key=lambda index: -scores[index])[: body.get("top_n")]
        results = [{"index": index, "relevance_score": scores[index]} for index in ranked]
        meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1.0}}
        return web.json_response({"id": "fake", "results": results, "meta": meta})

    async def _models(self, request: web.Request) -> web.StreamResponse:
        """Two to a page, so that there are pages. The last one only classifies."""
        start = int(request.query.get("page_token") or 0)
        listed: list[Json] = [
            {
                "name": name,
                "endpoints": ["generate", "chat"],
                "finetuned": False,
                "context_length": 256_000.0,
                "features": ["json_schema", "strict_tools", "tools", "vision"],
                "is_deprecated": False,
            }
            for name in self.models
        ]
        listed.append({"name": "fake-embed", "endpoints": ["embed"], "context_length": 512, "features": None})
        listed.append({"name": "fake-rerank", "endpoints": ["rerank"], "context_length": 4096})
        listed.append({"name": "fake-old", "endpoints": ["chat"], "is_deprecated": True})
        listed.append({"name": "fake-classify", "endpoints": ["classify"]})
        told: Json = {"models": listed[start : start + 2]}
        if start + 2 < len(listed):
            told["next_page_token"] = str(start + 2)
        return web.json_response(told)

    def _demand_model(self, body: Json) -> None:
        if body["model"] not in self.models:
            raise Refused(404, "", f"model '{body['model']}' not found, make sure the correct model ID was used")


def check_chat(body: Any) -> None:
    """Raises Refused."""
    fields_in(body, "", "model messages", _CHAT)
    if not body["messages"]:
        raise _bad("messages must not be empty")
    if not 0.01 <= body.get("p", 0.75) <= 0.99 or not 0 <= body.get("k", 0) <= 500:
        raise _bad("p must be between 0.01 and 0.99, and k between 0 and 500")
    for name in ("frequency_penalty", "presence_penalty"):
        if not 0 <= body.get(name, 0) <= 1:
            raise _bad(f"{name} must be between 0 and 1 inclusive")
    if len(body.get("stop_sequences") or ()) > 5:
        raise _bad("stop_sequences must have 5 elements at most")
    if body.get("max_tokens", 1) < 1 or body.get("temperature", 0) < 0:
        raise _bad("max_tokens or temperature is out of range")
    _check_tools(body)
    _check_format(body)
    if "thinking" in body:
        thinking = fields_in(body["thinking"], "thinking.", "type", "token_budget")
        if thinking["type"] not in ("enabled", "disabled"):
            raise _bad("thinking.type must be enabled or disabled")
    called: list[str] = []
    for message in body["messages"]:
        called = _check_message(message, called)


def _check_tools(body: Json) -> None:
    for tool in body.get("tools") or ():
        fields_in(tool, "tools.", "type function")
        function = fields_in(tool["function"], "tools.function.", "name parameters", "description")
        if function["parameters"].get("type") != "object":
            raise _bad("invalid tool: parameters must be of type object")
    if "tool_choice" in body and (body["tool_choice"] not in _CHOICES or not body.get("tools")):
        raise _bad("tool_choice must be REQUIRED or NONE, and needs tools")


def _check_format(body: Json) -> None:
    wanted = body.get("response_format")
    if wanted is None:
        return
    fields_in(wanted, "response_format.", "type", "json_schema" if wanted.get("type") == "json_object" else "")
    if wanted["type"] not in ("text", "json_object"):
        raise _bad("response_format.type must be text or json_object")
    if body.get("tools"):
        raise _bad("response_format is not supported with tools")


def _check_message(message: Json, called: list[str]) -> list[str]:
    """The calls that are to be answered after it."""
    match message.get("role"):
        case "system":
            fields_in(message, "messages.", "role content")
            _check_content(message["content"], "text")
        case "user":
            fields_in(message, "messages.", "role content")
            _check_content(message["content"], "text", "image_url")
        case "assistant":
            fields_in(message, "messages.", "role", "content tool_calls tool_plan citations")
            calls = message.get("tool_calls") or []
            for call in calls:
                fields_in(call, "tool_calls.", "id type function")
                function = fields_in(call["function"], "tool_calls.function.", "name arguments")
                if not isinstance(json.loads(function["arguments"]), dict):
                    raise _bad("tool call arguments must be a JSON object")
            if not calls:
                _check_content(message.get("content"), "text", "thinking")
            return [call["id"] for call in calls]
        case "tool":
            fields_in(message, "messages.", "role tool_call_id content")
            if message["tool_call_id"] not in called:
                raise _bad(f"tool call id not found in previous tool calls: {message['tool_call_id']}")
            return called
        case role:
            raise _bad(f"invalid role: {role}")
    return []


def _check_content(content: Any, *kinds: str) -> None:
    if not content:
        raise _bad("all elements in messages must have content")
    for block in content if isinstance(content, list) else ():
        kind = block.get("type")
        if kind not in kinds:
            raise _bad(f"invalid content type: {kind}")
        fields_in(block, "content.", f"type {kind}")


def as_chat(body: Json) -> Json:
    """In OpenAI's words, as far as the wishes go."""
    chat: Json = {"model": body["model"], "messages": body["messages"], "stop": body.get("stop_sequences")}
    chat |= {name: body[name] for name in ("max_tokens", "stream", "tools") if name in body}
    if "tool_choice" in body:
        chat["tool_choice"] = _CHOICES[body["tool_choice"]]
    wanted = body.get("response_format") or {}
    if wanted.get("json_schema"):
        chat["response_format"] = {"type": "json_schema", "json_schema": {"schema": wanted["json_schema"]}}
    elif wanted.get("type") == "json_object":
        chat["response_format"] = {"type": "json_object"}
    if body.get("thinking", {}).get("type") == "enabled":
        chat["reasoning_effort"] = "high"
    return chat


def _usage(planned: Planned) -> Json:
    told = {"input_tokens": float(planned.prompt_tokens), "output_tokens": float(planned.answer.tokens)}
    cached = {"cached_tokens": float(planned.order.cached_tokens)} if planned.order.cached_tokens else {}
    return {"billed_units": told, "tokens": told, **cached}


def _finish(planned: Planned) -> str:
    if planned.answer.stopped_by is not None:
        return "STOP_SEQUENCE"
    if planned.answer.finish == "length":
        return "MAX_TOKENS"
    return "TOOL_CALL" if planned.answer.calls else "COMPLETE"


def _message(planned: Planned) -> Json:
    message: Json = {"role": "assistant"}
    content: list[Json] = []
    if planned.answer.thoughts:
        content.append({"type": "thinking", "thinking": planned.answer.thoughts})
    if planned.answer.text:
        content.append({"type": "text", "text": planned.answer.text})
    if content:
        message["content"] = content
    if planned.answer.calls:
        message["tool_plan"] = PLAN
        message["tool_calls"] = [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments or "{}"},
            }
            for number, call in enumerate(planned.answer.calls)
        ]
    return {"id": "fake", "message": message, "finish_reason": _finish(planned), "usage": _usage(planned)}


def _events(planned: Planned) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """What begins a stream, what each token brings, and what ends it."""
    empty = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    begin = [_event({"type": "message-start", "id": "fake", "delta": {"message": empty}})]
    if planned.answer.calls:
        begin += [
            _event({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": word}}})
            for word in PLAN.replace(" ", " \0").split("\0")
        ]
    pieces: list[bytes] = []
    index, kind = -1, ""
    for piece in planned.answer.pieces:
        out = b""
        wanted = _kind_of(piece, kind)
        if wanted != kind or isinstance(piece, CallOpening):
            out += _closed(index, kind)
            index, kind = index + 1, wanted
            out += _event({**_opened(piece, wanted), "index": index})
        pieces.append(out + b"".join(_event({**event, "index": index}) for event in _deltas(piece)))
    delta = {"finish_reason": _finish(planned), "usage": _usage(planned)}
    end = [_closed(index, kind), _event({"type": "message-end", "id": "fake", "delta": delta}) + b"data: [DONE]\n\n"]
    return begin, pieces, end


def _kind_of(piece: Any, kind: str) -> str:
    match piece:
        case Thought():
            return "thinking"
        case Speech():
            return "text"
        case CallOpening():
            return "call"
    return kind


def _opened(piece: Any, kind: str) -> Json:
    if kind != "call":
        return {"type": "content-start", "delta": {"message": {"content": {"type": kind, kind: ""}}}}
    function = {"name": piece.name, "arguments": ""}
    call = {"id": f"call_{piece.index}", "type": "function", "function": function}
    return {"type": "tool-call-start", "delta": {"message": {"tool_calls": call}}}


def _deltas(piece: Any) -> Iterator[Json]:
    match piece:
        case Thought():
            yield {"type": "content-delta", "delta": {"message": {"content": {"thinking": piece.text}}}}
        case Speech() if piece.text:
            yield {"type": "content-delta", "delta": {"message": {"content": {"text": piece.text}}}}
        case CallArguments():
            called = {"function": {"arguments": piece.text}}
            yield {"type": "tool-call-delta", "delta": {"message": {"tool_calls": called}}}


def _closed(index: int, kind: str) -> bytes:
    if index < 0:
        return b""
    return _event({"type": "tool-call-end" if kind == "call" else "content-end", "index": index})


def _bad(message: str) -> Refused:
    return Refused(400, "", message)


def _event(told: Json) -> bytes:
    return f"event: {told['type']}\ndata: {json.dumps(told, ensure_ascii=False)}\n\n".encode()
