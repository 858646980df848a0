"""The official `openai` library at three addresses: chat completions, completions and responses."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai

from tests.compatibility.wants import ANY, NONE, Broke, Called, Embedded, Json, NotInDialect, Refused, Said, Want

_STREAMED: Json = {"stream": True, "stream_options": {"include_usage": True}}
_CHOICES: Json = {ANY: "required", NONE: "none"}
_FINISHES = {"stop": "stop", "length": "length", "tool_calls": "tools"}


class _OpenAIClient:
    def __init__(self, url: str, key: str, model: str) -> None:
        self._client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
        self._model = model

    async def embed(self, texts: Embedded, *, dimensions: int | None = None) -> list[list[float]]:
        size = openai.omit if dimensions is None else dimensions
        with _errors():
            told = await self._client.embeddings.create(model=self._model, input=texts, dimensions=size)
        return [vector.embedding for vector in told.data]

    async def embed_by_older_address(self, text: str) -> list[float]:
        raise NotInDialect

    async def close(self) -> None:
        await self._client.close()


class OpenAIChat(_OpenAIClient):
    name = "openai: chat.completions"

    async def ask(self, want: Want, *, stream: bool) -> Said:
        with _errors():
            if stream:
                return await self._streamed(want)
            told = await self._client.chat.completions.create(**self._request(want))
        choice = told.choices[0]
        said = Said(choice.message.content or "", finish=_FINISHES[choice.finish_reason], pieces=1)
        said.texts = [each.message.content or "" for each in told.choices]
        said.reasoning = _reasoning(choice.message)
        for call in choice.message.tool_calls or ():
            assert call.type == "function"
            said.calls.append(Called(call.function.name, json.loads(call.function.arguments), call.id))
        if choice.logprobs:
            said.logprobs = len(choice.logprobs.content or ())
        _note_usage(said, told.usage)
        return said

    async def _streamed(self, want: Want) -> Said:
        said = Said(texts=[""] * want.n)
        calls: dict[int, Json] = {}
        request = self._request(want) | _STREAMED
        chunks: Any = await self._client.chat.completions.create(**request)
        async for chunk in chunks:
            if chunk.usage is not None:
                _note_usage(said, chunk.usage)
            for choice in chunk.choices:
                said.text += choice.delta.content or ""
                said.texts[choice.index] += choice.delta.content or ""
                said.pieces += bool(choice.delta.content)
                said.reasoning += _reasoning(choice.delta)
                said.finish = _FINISHES[choice.finish_reason] if choice.finish_reason else said.finish
                said.logprobs += len((choice.logprobs and choice.logprobs.content) or ())
                for piece in choice.delta.tool_calls or ():
                    call = calls.setdefault(piece.index, {"name": "", "arguments": "", "id": ""})
                    call["id"] = piece.id or call["id"]
                    if piece.function is not None:
                        call["name"] += piece.function.name or ""
                        call["arguments"] += piece.function.arguments or ""
        said.calls = [Called(c["name"], json.loads(c["arguments"]), c["id"]) for _, c in sorted(calls.items())]
        return said

    def _request(self, want: Want) -> Json:
        if want.goes_on:
            raise NotInDialect
        content: Any = want.text
        if want.image:
            url = f"data:image/png;base64,{base64.b64encode(want.image).decode()}"
            content = [{"type": "text", "text": want.text}, {"type": "image_url", "image_url": {"url": url}}]
        messages: list[Json] = [{"role": "system", "content": want.system}] if want.system else []
        messages.append({"role": "user", "content": content})
        if want.result:
            call, result = want.result
            function = {"name": call.name, "arguments": json.dumps(call.arguments)}
            messages += [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": result},
            ]
        request: Json = {
            "model": want.model or self._model,
            "messages": messages,
            "max_tokens": want.max_tokens,
            "temperature": 0,
        }
        if want.n > 1:
            request |= {"n": want.n, "temperature": 1}  # at 0 they would all be the same, and vLLM refuses
        if want.tools:
            request["tools"] = [
                {"type": "function", "function": {"name": tool.name, "parameters": tool.parameters}}
                for tool in want.tools
            ]
        if want.forced:
            named = {"type": "function", "function": {"name": want.forced}}
            request["tool_choice"] = _CHOICES.get(want.forced, named)
        if want.schema is not None:
            request["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": want.schema}}
        if want.json_mode:
            request["response_format"] = {"type": "json_object"}
        if want.thinks:
            request["reasoning_effort"] = "high"
        if want.logprobs:
            request |= {"logprobs": True, "top_logprobs": want.logprobs}
        if want.seed is not None:
            request["seed"] = want.seed
        if want.stop:
            request["stop"] = [want.stop]
        return request


class OpenAICompletions(_OpenAIClient):
    name = "openai: completions"

    async def ask(self, want: Want, *, stream: bool) -> Said:
        if want.system or want.tools or want.result or want.image or want.thinks is not None:
            raise NotInDialect
        if want.schema is not None or want.json_mode:
            raise NotInDialect
        request: Json = {
            "model": want.model or self._model,
            "prompt": list(want.prompts) or list(want.tokens) or want.text,
            "max_tokens": want.max_tokens,
            "temperature": 0,
        }
        if want.n > 1:
            request |= {"n": want.n, "temperature": 1}
        if want.echo:
            request["echo"] = True
        if want.logprobs:
            request["logprobs"] = want.logprobs
        if want.seed is not None:
            request["seed"] = want.seed
        if want.stop:
            request["stop"] = [want.stop]
        said = Said(texts=[""] * want.n * max(1, len(want.prompts)))
        with _errors():
            if not stream:
                told = await self._client.completions.create(**request)
                for choice in told.choices:
                    _add_text(said, choice)
                _note_usage(said, told.usage)
                return said
            chunks: Any = await self._client.completions.create(**request, **_STREAMED)
            async for chunk in chunks:
                if chunk.usage is not None:
                    _note_usage(said, chunk.usage)
                for choice in chunk.choices:
                    _add_text(said, choice)
        return said


def _add_text(said: Said, choice: Any) -> None:
    """Of one of a completion's answers, or a piece of it."""
    said.text += choice.text
    said.texts[choice.index] += choice.text
    said.pieces += bool(choice.text)
    said.finish = _FINISHES[choice.finish_reason] if choice.finish_reason else said.finish
    if choice.logprobs:
        tokens = choice.logprobs.tokens
        assert len(tokens) == len(choice.logprobs.token_logprobs) == len(choice.logprobs.top_logprobs)
        assert choice.logprobs.text_offset == sorted(choice.logprobs.text_offset)
        said.logprobs += len(tokens)


class OpenAIResponses(_OpenAIClient):
    name = "openai: responses"

    async def ask(self, want: Want, *, stream: bool) -> Said:
        said = Said(pieces=1)
        with _errors():
            if stream:
                said.pieces = 0
                response = None
                async for event in await self._client.responses.create(**self._request(want), stream=True):
                    said.pieces += event.type == "response.output_text.delta"
                    if event.type in ("response.completed", "response.incomplete"):
                        response = event.response
                if response is None:
                    raise Broke("the stream ended without its last event")
            else:
                response = await self._client.responses.create(**self._request(want))
        said.text = response.output_text
        for item in response.output:
            if item.type == "function_call":
                said.calls.append(Called(item.name, json.loads(item.arguments), item.call_id))
            elif item.type == "reasoning":
                said.reasoning += "".join(part.text for part in item.content or ())
            elif item.type == "message":
                for part in item.content:
                    if part.type == "output_text":
                        said.logprobs += len(part.logprobs or ())
        said.finish = "tools" if said.calls else "length" if response.status == "incomplete" else "stop"
        if response.usage is not None:
            said.prompt_tokens, said.completion_tokens = response.usage.input_tokens, response.usage.output_tokens
            said.cached_tokens = response.usage.input_tokens_details.cached_tokens
        return said

    def _request(self, want: Want) -> Json:
        if want.seed is not None or want.stop or want.goes_on or want.n > 1:
            raise NotInDialect
        content: list[Json] = [{"type": "input_text", "text": want.text}]
        if want.image:
            url = f"data:image/png;base64,{base64.b64encode(want.image).decode()}"
            content.append({"type": "input_image", "image_url": url, "detail": "auto"})
        items: list[Json] = [{"role": "user", "content": content}]
        if want.result:
            call, result = want.result
            items += [
                {
                    "type": "function_call",
                    "call_id": "call_1",
                    "name": call.name,
                    "arguments": json.dumps(call.arguments),
                },
                {"type": "function_call_output", "call_id": "call_1", "output": result},
            ]
        request: Json = {
            "model": want.model or self._model,
            "input": items,
            "max_output_tokens": want.max_tokens,
            "temperature": 0,
            "store": False,
        }
        if want.system:
            request["instructions"] = want.system
        if want.tools:
            request["tools"] = [
                {"type": "function", "name": tool.name, "parameters": tool.parameters, "strict": False}
                for tool in want.tools
            ]
        if want.forced:
            request["tool_choice"] = _CHOICES.get(want.forced, {"type": "function", "name": want.forced})
        if want.schema is not None:
            request["text"] = {"format": {"type": "json_schema", "name": "x", "schema": want.schema}}
        if want.json_mode:
            request["text"] = {"format": {"type": "json_object"}}
        if want.thinks:
            request["reasoning"] = {"effort": "high"}
        if want.logprobs:
            request |= {"top_logprobs": want.logprobs, "include": ["message.output_text.logprobs"]}
        return request


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except openai.APIStatusError as error:
        raise Refused(error.status_code, str(error)) from error
    except openai.APIError as error:  # what the library makes of an error event
        raise Broke(str(error)) from error


def _reasoning(part: Any) -> str:
    more = part.model_extra or {}
    return more.get("reasoning_content") or more.get("reasoning") or ""


def _note_usage(said: Said, usage: Any) -> None:
    said.prompt_tokens, said.completion_tokens = usage.prompt_tokens, usage.completion_tokens
    if usage.prompt_tokens_details is not None:
        said.cached_tokens = usage.prompt_tokens_details.cached_tokens or 0
