"""Fakes of the providers that speak OpenAI's chat with manners of their own: Azure (its v1 API) and OpenRouter.

Azure shows what its filters found, before an answer, in it and beside it, and lists deployments; OpenRouter sends comments
while it looks for somebody who answers, tells what it cost, and says an error in the middle of a stream beside a finish."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from tests.fakes.engine_composing import CallArguments, CallOpening, Speech
from tests.fakes.provider import API_KEY, HIT, FakeProvider, Json, Planned, Refused, fields_in

_FIELDS = (
    "stream stream_options max_tokens max_completion_tokens temperature top_p stop seed n user tools tool_choice "
    "response_format reasoning_effort parallel_tool_calls frequency_penalty presence_penalty"
)
_SAFE = {"hate": {"filtered": False, "severity": "safe"}}
FLAGGED = {"reasons": ["violence"], "flagged_input": "…", "provider_name": "fake", "model_slug": "fake"}


class FakeOpenAIWire(FakeProvider):
    """Subclasses say what is theirs."""

    fields = _FIELDS
    filters_late = False

    def error_body(self, error: Refused) -> Json:
        return {"error": {"message": str(error), "code": error.kind or str(error.status)}}

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = fields_in(self.asked[-1].body, "", "model messages", self.fields)
        if body["model"] not in self.models:
            raise Refused(404, "DeploymentNotFound", "The API deployment for this resource does not exist.")
        planned = self.plan(body)
        if body.get("stream") is not True:
            return web.json_response(self.whole(body, planned))
        begin, pieces = self.preface(), [self.piece(body["model"], piece) for piece in planned.answer.pieces]
        end = [self.chunk(body["model"], {"index": 0, "delta": {}, "finish_reason": self.finish(planned)})]
        if (body.get("stream_options") or {}).get("include_usage"):
            end.append(_event({**_head(body["model"]), "choices": [], "usage": self.usage(planned)}))
        return await self.send_stream(request, begin, pieces, [*end, b"data: [DONE]\n\n"], self.broken(body["model"]))

    def preface(self) -> list[bytes]:
        return []

    def broken(self, model: str) -> bytes:
        return _event({"error": {"message": "it broke down", "code": 502}})

    def finish(self, planned: Planned) -> str:
        return "tool_calls" if planned.answer.calls else planned.answer.finish

    def usage(self, planned: Planned) -> Json:
        prompt, made = planned.prompt_tokens, planned.answer.tokens
        return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}

    def piece(self, model: str, piece: Any) -> bytes:
        delta = _delta(piece)
        return self.chunk(model, {"index": 0, "delta": delta, "finish_reason": None}) if delta is not None else b""

    def chunk(self, model: str, choice: Json) -> bytes:
        return _event({**_head(model), "choices": [choice]})

    def whole(self, body: Json, planned: Planned) -> Json:
        message: Json = {"role": "assistant", "content": planned.answer.text or None}
        if planned.answer.calls:
            message["tool_calls"] = [
                {"id": f"call_{n}", "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                for n, c in enumerate(planned.answer.calls)
            ]
        choice = {"index": 0, "message": message, "finish_reason": self.finish(planned)}
        told = {"id": "fake", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
        return {**told, "usage": self.usage(planned)}


class FakeAzure(FakeOpenAIWire):
    beginning = "/openai"
    lists_deployments = True
    filters_late = True
    """What the asynchronous filter found comes apart, without a delta, which not every client of OpenAI's bears."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/openai/v1/chat/completions", self._chat),
            web.get("/openai/v1/models", self._models),
            web.get("/openai/deployments", self._deployments),
        ]

    def check_headers(self, request: web.Request) -> None:
        if request.headers.get("api-key") != API_KEY or "authorization" in request.headers:
            raise Refused(401, "401", "Access denied due to invalid subscription key or wrong API endpoint.")

    def preface(self) -> list[bytes]:
        found = [{"prompt_index": 0, "content_filter_results": _SAFE}]
        return [
            _event({"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": found})
        ]

    def chunk(self, model: str, choice: Json) -> bytes:
        if not self.filters_late:
            return super().chunk(model, {**choice, "content_filter_results": _SAFE})
        found = {"index": 0, "finish_reason": None, "content_filter_results": _SAFE, "content_filter_offsets": {}}
        return super().chunk(model, choice) + super().chunk(model, found)

    def whole(self, body: Json, planned: Planned) -> Json:
        told = super().whole(body, planned)
        told["choices"][0]["content_filter_results"] = _SAFE
        return {**told, "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": _SAFE}]}

    async def _models(self, request: web.Request) -> web.StreamResponse:
        """What could be deployed, whether it is or not."""
        data = [{"id": name, "object": "model"} for name in (*self.models, "gpt-never-deployed")]
        return web.json_response({"object": "list", "data": data})

    async def _deployments(self, request: web.Request) -> web.StreamResponse:
        if not self.lists_deployments:
            raise Refused(404, "404", "Resource not found")
        if "api-version" not in request.query:
            raise Refused(400, "400", "api-version is missing")
        data = [{"id": name, "model": "gpt-x", "status": "succeeded", "object": "deployment"} for name in self.models]
        data.append({"id": "half-made", "model": "gpt-x", "status": "running", "object": "deployment"})
        return web.json_response({"object": "list", "data": data})


class FakeOpenRouter(FakeOpenAIWire):
    beginning = "/api"
    fields = f"{_FIELDS} usage provider reasoning transforms models route plugins"

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/v1/chat/completions", self._chat),
            web.get("/api/v1/models", self._models),
            web.get("/api/v1/key", self._key),
        ]

    def check_headers(self, request: web.Request) -> None:
        if request.path != "/api/v1/models" and request.headers.get("authorization") != f"Bearer {API_KEY}":
            raise Refused(401, "", "No auth credentials found")

    def error_body(self, error: Refused) -> Json:
        metadata = FLAGGED if error.kind == "flagged" else {}
        return {"error": {"message": str(error), "code": error.status, "metadata": metadata}}

    def preface(self) -> list[bytes]:
        return [b": OPENROUTER PROCESSING\n\n"] * 3

    def broken(self, model: str) -> bytes:
        choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
        error = {"code": "server_error", "message": "Provider disconnected unexpectedly"}
        return _event({**_head(model), "provider": "fake", "error": error, "choices": [choice]})

    def usage(self, planned: Planned) -> Json:
        return {**super().usage(planned), "cost": 0.0042}

    async def _models(self, request: web.Request) -> web.StreamResponse:
        data = [
            {
                "id": name,
                "context_length": 131_072,
                "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
                "supported_parameters": ["tools", "reasoning", "temperature"],
            }
            for name in self.models
        ]
        return web.json_response({"data": data})

    async def _key(self, request: web.Request) -> web.StreamResponse:
        assert HIT in request
        return web.json_response({"data": {"label": "fake", "limit": None, "usage": 1.5}})


def _head(model: str) -> Json:
    return {"id": "fake", "object": "chat.completion.chunk", "created": 1, "model": model}


def _delta(piece: Any) -> Json | None:
    match piece:
        case Speech():
            return {"role": "assistant", "content": piece.text}
        case CallOpening():
            function = {"name": piece.name, "arguments": ""}
            return {"tool_calls": [{"index": piece.index, "id": "call_0", "type": "function", "function": function}]}
        case CallArguments():
            return {"tool_calls": [{"index": piece.index, "function": {"arguments": piece.text}}]}
    return None


def _event(told: Json) -> bytes:
    return f"data: {json.dumps(told, ensure_ascii=False)}\n\n".encode()
