"""A fake of Google's Gemini API (v1beta): generateContent, streamGenerateContent, batchEmbedContents and the list of models.
Requests are checked as strictly as Google's documentation says (https://ai.google.dev/api/generate-content), so that what a
translation leaves in or forgets is a 400 here too.

Events end in CR LF, as Google's do. Calls are signed, and for models newer than 2.5 calls in the history must be, too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from tests.fakes.engine_composing import CallArguments, CallOpening, Speech, Thought
from tests.fakes.engine_measuring import embed
from tests.fakes.provider import API_KEY, FakeProvider, Json, Planned, Refused

SIGNATURE = "CtUBAVSoXO4="
_UNSIGNED = "skip_thought_signature_validator"
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}")
_CONFIG = (
    "stopSequences responseMimeType responseJsonSchema candidateCount maxOutputTokens temperature topP topK seed "
    "presencePenalty frequencyPenalty thinkingConfig"
)
_CHOICES = {"AUTO": "auto", "NONE": "none", "ANY": "required"}
_WORDS = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}


class FakeGemini(FakeProvider):
    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v1beta/models/{call}", self._call), web.get("/v1beta/models", self._models)]

    def check_headers(self, request: web.Request) -> None:
        if "key" in request.query:
            raise _bad("a key in an address ends up in logs; this fake takes none")
        if request.headers.get("x-goog-api-key") != API_KEY:
            raise _bad("API key not valid. Please pass a valid API key.")
        if "authorization" in request.headers:
            raise Refused(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")

    def error_body(self, error: Refused) -> Json:
        word = _WORDS.get(error.status, "UNAVAILABLE" if error.status == 503 else "INTERNAL")
        told: Json = {"code": error.status, "message": str(error), "status": word}
        if error.status == 429:
            told["details"] = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}]
        return {"error": told}

    async def _call(self, request: web.Request) -> web.StreamResponse:
        model, _, method = request.match_info["call"].rpartition(":")
        if model not in self.models:
            raise Refused(404, "NOT_FOUND", f"models/{model} is not found for API version v1beta. Call ListModels.")
        body = self.asked[-1].body
        match method:
            case "batchEmbedContents":
                return web.json_response(_embeddings(body, model))
            case "countTokens":
                whole = _known(body, "", "generateContentRequest")["generateContentRequest"]
                if whole.pop("model") != f"models/{model}":
                    raise _bad("generateContentRequest.model is not that of the address")
                check_request(whole, model)
                return web.json_response({"totalTokens": self.plan(as_chat(whole, model)).prompt_tokens})
            case "generateContent":
                return web.json_response(_whole(model, self._planned(body, model)))
            case "streamGenerateContent" if request.query.get("alt") == "sse":
                pieces, end = _events(model, self._planned(body, model))
                overloaded = Refused(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")
                error = self.error_body(self.error_in_stream or overloaded)
                return await self.send_stream(request, [], pieces, end, _event(error))
        raise Refused(404, "NOT_FOUND", f"no such method, or not as server-sent events: {method}")

    def _planned(self, body: Any, model: str) -> Planned:
        check_request(body, model)
        return self.plan(as_chat(body, model))

    async def _models(self, request: web.Request) -> web.StreamResponse:
        """Two to a page, so that there are pages. The last model only counts tokens."""
        start = int(request.query.get("pageToken") or 0)
        listed = [
            {
                "name": f"models/{name}",
                "displayName": name.title(),
                "inputTokenLimit": 1_048_576,
                "outputTokenLimit": 65_536,
                "supportedGenerationMethods": ["generateContent", "countTokens"],
                "thinking": True,
            }
            for name in self.models
        ]
        listed.append(
            {"name": "models/fake-embedding", "inputTokenLimit": 2048, "supportedGenerationMethods": ["embedContent"]}
        )
        listed.append(
            {"name": "models/fake-aqa", "inputTokenLimit": 7168, "supportedGenerationMethods": ["generateAnswer"]}
        )
        told: Json = {"models": listed[start : start + 2]}
        if start + 2 < len(listed):
            told["nextPageToken"] = str(start + 2)
        return web.json_response(told)


def check_request(body: Any, model: str) -> None:
    """Raises Refused."""
    _known(body, "", "contents systemInstruction tools toolConfig generationConfig safetySettings cachedContent")
    names = [each["name"] for each in _declared(body)]
    config = body.get("generationConfig", {})
    _known(config, "generation_config", _CONFIG)
    if not 0 <= config.get("temperature", 0) <= 2:
        raise _bad("temperature must be in the range [0.0, 2.0]")
    if not 1 <= config.get("candidateCount", 1) <= 8 or config.get("maxOutputTokens", 1) < 1:
        raise _bad("candidateCount or maxOutputTokens is out of range")
    if len(config.get("stopSequences", [])) > 5:
        raise _bad("the number of stop_sequences must be 5 at most")
    if "responseJsonSchema" in config and config.get("responseMimeType") != "application/json":
        raise _bad("responseJsonSchema needs responseMimeType application/json")
    _check_thinking(config.get("thinkingConfig", {}), model)
    if "systemInstruction" in body:
        _check_parts(_known(body["systemInstruction"], "system_instruction", "parts role"), "text")
    calling = _known(body.get("toolConfig", {}), "tool_config", "functionCallingConfig").get(
        "functionCallingConfig", {}
    )
    _known(calling, "function_calling_config", "mode allowedFunctionNames")
    if calling.get("mode", "AUTO") not in _CHOICES:
        raise _bad("Invalid value at 'tool_config.function_calling_config.mode'")
    if calling and not names:
        raise _bad("Function calling config is set without function_declarations.")
    allowed = calling.get("allowedFunctionNames", [])
    if allowed and (calling.get("mode") != "ANY" or not set(allowed) <= set(names)):
        raise _bad("allowed_function_names need mode ANY, and to be declared")
    _check_contents(body.get("contents"), signs=not model.startswith(("gemini-1.", "gemini-2.")))


def _declared(body: Json) -> list[Json]:
    declared: list[Json] = []
    for tool in body.get("tools", []):
        declared += _known(tool, "tools", "functionDeclarations").get("functionDeclarations", [])
    for declaration in declared:
        _known(declaration, "function_declarations", "name description parametersJsonSchema")
        if not _NAME.fullmatch(declaration.get("name", "")):
            raise _bad("Invalid function name.")
    return declared


def _check_thinking(thinking: Json, model: str) -> None:
    _known(thinking, "thinking_config", "includeThoughts thinkingBudget thinkingLevel")
    if "thinkingBudget" in thinking and "thinkingLevel" in thinking:
        raise _bad("You can only set only one of thinking budget and thinking level.")
    if thinking.get("thinkingLevel", "low") not in ("minimal", "low", "medium", "high"):
        raise _bad("Invalid value at 'thinking_config.thinking_level'")
    if model.startswith("gemini-2.") and "thinkingLevel" in thinking:
        raise _bad("Thinking level is not supported for this model.")


def _check_contents(contents: Any, *, signs: bool) -> None:
    if not contents:
        raise _bad("contents is not specified")
    calls = 0
    for number, content in enumerate(contents):
        _known(content, "contents", "role parts")
        role, parts = content.get("role"), content.get("parts")
        if role not in ("user", "model"):
            raise _bad("Please use a valid role: user, model.")
        if not parts:
            raise _bad("contents.parts must not be empty.")
        if number == 0 and role != "user":
            raise _bad("Please ensure that multiturn requests begin with a user turn.")
        _check_parts(content, "text inlineData functionResponse" if role == "user" else "text functionCall")
        results = sum("functionResponse" in part for part in parts)
        if results != calls:
            raise _bad(
                "Please ensure that the number of function response parts is equal to the number of function call parts "
                "of the function call turn."
            )
        called = [part for part in parts if "functionCall" in part]
        calls = len(called)
        if calls and signs and called[0].get("thoughtSignature") not in (SIGNATURE, _UNSIGNED):
            raise _bad("Function call is missing a thought_signature in functionCall parts.")


def _check_parts(content: Json, kinds: str) -> None:
    for part in content["parts"]:
        _known(part, "parts", f"{kinds} thoughtSignature")
        if sum(kind in part for kind in kinds.split()) != 1:
            raise _bad("contents.parts must have one initialized field.")
        if part.get("text") == "":
            raise _bad("Unable to submit request because it must have a text parameter.")
        if "inlineData" in part:
            _known(part["inlineData"], "inline_data", "mimeType data")
        if "functionCall" in part:
            call = _known(part["functionCall"], "function_call", "id name args")
            if not isinstance(call.get("args", {}), dict):
                raise _bad("Invalid value at 'function_call.args'")
        if "functionResponse" in part:
            response = _known(part["functionResponse"], "function_response", "id name response")
            if not response.get("name") or not isinstance(response.get("response"), dict):
                raise _bad("GenerateContentRequest.contents.parts.function_response.name: Name cannot be empty.")


def _known(value: Any, where: str, names: str) -> Json:
    if not isinstance(value, dict):
        raise _bad(f"Invalid value at '{where}'")
    for name in value:
        if name not in names.split():
            raise _bad(f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': Cannot find field.")
    return value


def _bad(message: str) -> Refused:
    return Refused(400, "INVALID_ARGUMENT", message)


def as_chat(body: Json, model: str) -> Json:
    """In OpenAI's words, as far as the wishes go."""
    system = "\n".join(part["text"] for part in body.get("systemInstruction", {"parts": []})["parts"])
    messages: list[Json] = [{"role": "system", "content": system}] if system else []
    for content in body["contents"]:
        messages += _chat_messages(content)
    config = body.get("generationConfig", {})
    chat: Json = {"model": model, "messages": messages, "n": config.get("candidateCount", 1)}
    chat |= {"stop": config.get("stopSequences"), "max_tokens": config.get("maxOutputTokens")}
    if declared := _declared(body):
        functions = [{"name": d["name"], "parameters": d.get("parametersJsonSchema", {})} for d in declared]
        chat["tools"] = [{"type": "function", "function": function} for function in functions]
        calling = body.get("toolConfig", {}).get("functionCallingConfig", {"mode": "AUTO"})
        chat["tool_choice"] = _CHOICES[calling["mode"]]
        if allowed := calling.get("allowedFunctionNames"):
            chat["tool_choice"] = {"type": "function", "function": {"name": allowed[0]}}
    if "responseJsonSchema" in config:
        chat["response_format"] = {"type": "json_schema", "json_schema": {"schema": config["responseJsonSchema"]}}
    elif config.get("responseMimeType") == "application/json":
        chat["response_format"] = {"type": "json_object"}
    if config.get("thinkingConfig", {}).get("includeThoughts"):
        chat["reasoning_effort"] = "high"
    return chat


def _chat_messages(content: Json) -> Iterator[Json]:
    shown: list[Json] = []
    for part in content["parts"]:
        if "functionResponse" in part:
            yield {"role": "tool", "content": part["functionResponse"]["response"].get("output", "")}
        elif "inlineData" in part:
            url = f"data:{part['inlineData']['mimeType']};base64,{part['inlineData']['data']}"
            shown.append({"type": "image_url", "image_url": {"url": url}})
        elif "text" in part:
            shown.append({"type": "text", "text": part["text"]})
    if shown:
        yield {"role": "assistant" if content["role"] == "model" else "user", "content": shown}


def _embeddings(body: Any, model: str) -> Json:
    requests = _known(body, "", "requests").get("requests")
    if not requests or len(requests) > 100:
        raise _bad("BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch")
    vectors = []
    for request in requests:
        _known(request, "requests", "model content outputDimensionality taskType title")
        if request.get("model") != f"models/{model}":
            raise _bad("EmbedContentRequest.model: does not match the model of the batch")
        _check_parts(_known(request["content"], "content", "parts role"), "text")
        told = embed({"input": request["content"]["parts"][0]["text"]})
        vectors.append(told["data"][0]["embedding"][: request.get("outputDimensionality")])
    return {"embeddings": [{"values": vector} for vector in vectors]}


def _whole(model: str, planned: Planned) -> Json:
    parts: list[Json] = []
    if planned.answer.thoughts:
        parts.append({"text": planned.answer.thoughts, "thought": True})
    if planned.answer.text:
        parts.append({"text": planned.answer.text})
    parts += [_call(n, call.name, call.arguments) for n, call in enumerate(planned.answer.calls)]
    return _response(model, planned, parts, planned.answer.tokens, is_last=True)


def _events(model: str, planned: Planned) -> tuple[list[bytes], list[bytes]]:
    """What each token brings, and what ends the stream."""
    pieces: list[bytes] = []
    name, arguments = "", ""
    for made, piece in enumerate(planned.answer.pieces, 1):
        parts: list[Json] = []
        match piece:
            case Thought():
                parts = [{"text": piece.text, "thought": True}]
            case Speech() if piece.text:
                parts = [{"text": piece.text}]
            case CallOpening():
                name, arguments = piece.name, ""
            case CallArguments():
                arguments += piece.text
                parts = [_call(piece.index, name, arguments)] if piece.is_last else []
        pieces.append(_event(_response(model, planned, parts, made)) if parts else b"")
    end = _response(model, planned, [{"text": ""}], planned.answer.tokens, is_last=True)
    return pieces, [_event(end)]


def _call(number: int, name: str, arguments: str) -> Json:
    call: Json = {"functionCall": {"name": name, "args": json.loads(arguments or "{}")}}
    return call if number else {**call, "thoughtSignature": SIGNATURE}


def _response(model: str, planned: Planned, parts: list[Json], made: int, *, is_last: bool = False) -> Json:
    thoughts = sum(isinstance(piece, Thought) for piece in planned.answer.pieces[:made])
    width = planned.order.width
    usage: Json = {
        "promptTokenCount": planned.prompt_tokens,
        "candidatesTokenCount": (made - thoughts) * width,
        "totalTokenCount": planned.prompt_tokens + made * width,
    }
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts * width
    if planned.order.cached_tokens is not None:
        usage["cachedContentTokenCount"] = planned.order.cached_tokens
    finish = {"finishReason": "MAX_TOKENS" if planned.answer.finish == "length" else "STOP"} if is_last else {}
    candidates = [
        {"content": {"parts": parts, "role": "model"}, **finish, **({"index": index} if index else {})}
        for index in range(width)
    ]
    return {"candidates": candidates, "usageMetadata": usage, "modelVersion": model, "responseId": "fake-response"}


def _event(told: Json) -> bytes:
    return b"data: " + json.dumps(told, ensure_ascii=False).encode() + b"\r\n\r\n"
