"""The official `ollama` library at two addresses: chat and generate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import ollama

from tests.compatibility.wants import Broke, Called, Embedded, Json, NotInDialect, Refused, Said, Want


class _OllamaClient:
    def __init__(self, url: str, key: str, model: str) -> None:
        self._client = ollama.AsyncClient(host=f"{url}/k/{key}")
        self._model = model

    async def embed(self, texts: Embedded, *, dimensions: int | None = None) -> list[list[float]]:
        if not isinstance(texts[0], str):
            raise NotInDialect
        with _errors(began=False):
            told = await self._client.embed(self._model, [str(text) for text in texts], dimensions=dimensions)
        return [list(vector) for vector in told.embeddings]

    async def embed_by_older_address(self, text: str) -> list[float]:
        with _errors(began=False):
            told = await self._client.embeddings(self._model, text)
        return list(told.embedding)

    async def close(self) -> None:
        await self._client._client.aclose()

    def _common(self, want: Want) -> Json:
        if want.forced or want.asks_for_cached or want.goes_on or want.n > 1:
            raise NotInDialect
        options: Json = {"num_predict": want.max_tokens, "temperature": 0}
        if want.seed is not None:
            options["seed"] = want.seed
        if want.stop:
            options["stop"] = [want.stop]
        request: Json = {"model": want.model or self._model, "options": options}
        if want.schema is not None:
            request["format"] = want.schema
        if want.json_mode:
            request["format"] = "json"
        if want.thinks is not None:
            request["think"] = want.thinks
        if want.logprobs:
            request |= {"logprobs": True, "top_logprobs": want.logprobs}
        return request


class OllamaChat(_OllamaClient):
    name = "ollama: chat"

    async def ask(self, want: Want, *, stream: bool) -> Said:
        request = self._common(want)
        messages: list[Json] = [{"role": "system", "content": want.system}] if want.system else []
        message: Json = {"role": "user", "content": want.text}
        if want.image:
            message["images"] = [want.image]
        messages.append(message)
        if want.result:
            call, result = want.result
            function = {"name": call.name, "arguments": call.arguments}
            messages += [
                {"role": "assistant", "content": "", "tool_calls": [{"function": function}]},
                {"role": "tool", "content": result, "tool_name": call.name},
            ]
        request["messages"] = messages
        if want.tools:
            request["tools"] = [
                {"type": "function", "function": {"name": tool.name, "parameters": tool.parameters}}
                for tool in want.tools
            ]
        said = Said()
        with _errors(began=False):
            if not stream:
                _add_chat(said, await self._client.chat(**request))
                return said
            parts = await self._client.chat(**request, stream=True)
        first = True
        while True:
            with _errors(began=not first):
                try:
                    part = await anext(parts)
                except StopAsyncIteration:
                    break
            first = False
            _add_chat(said, part)
        _demand_end(said)
        return said


class OllamaGenerate(_OllamaClient):
    name = "ollama: generate"

    async def ask(self, want: Want, *, stream: bool) -> Said:
        if want.tools or want.result:
            raise NotInDialect
        request = self._common(want) | {"prompt": want.text}
        if want.system:
            request["system"] = want.system
        if want.image:
            request["images"] = [want.image]
        said = Said()
        with _errors(began=False):
            if not stream:
                _add(said, told := await self._client.generate(**request), told.response or "", told.thinking)
                return said
            parts = await self._client.generate(**request, stream=True)
        first = True
        while True:
            with _errors(began=not first):
                try:
                    part = await anext(parts)
                except StopAsyncIteration:
                    break
            first = False
            _add(said, part, part.response or "", part.thinking)
        _demand_end(said)
        return said


def _add_chat(said: Said, part: Any) -> None:
    message = part.message
    _add(said, part, message.content or "", message.thinking)
    for call in message.tool_calls or ():
        assert isinstance(call.function.arguments, Mapping)
        said.calls.append(Called(call.function.name, dict(call.function.arguments)))
    if said.calls and part.done:
        said.finish = "tools"


def _add(said: Said, part: Any, text: str, thinking: str | None) -> None:
    said.text += text
    said.pieces += bool(text)
    said.reasoning += thinking or ""
    said.logprobs += len(part.logprobs or ())
    if part.done:
        said.finish = part.done_reason
        said.prompt_tokens, said.completion_tokens = part.prompt_eval_count or 0, part.eval_count or 0


def _demand_end(said: Said) -> None:
    if not said.finish:
        raise Broke("the stream ended without its last object")


@contextmanager
def _errors(*, began: bool) -> Iterator[None]:
    try:
        yield
    except ollama.ResponseError as error:
        if began or error.status_code in (-1, 200):
            raise Broke(error.error) from error
        raise Refused(error.status_code, error.error) from error
    except httpx.HTTPError as error:
        raise Broke(str(error)) from error
