"""The official `anthropic` library."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic

from tests.compatibility.wants import ANY, NONE, Broke, Called, Embedded, Json, NotInDialect, Refused, Said, Want

_CHOICES: Json = {ANY: {"type": "any"}, NONE: {"type": "none"}}
_FINISHES = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tools"}


class AnthropicMessages:
    name = "anthropic: messages"

    def __init__(self, url: str, key: str, model: str) -> None:
        self._client = anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0)
        self._model = model

    async def ask(self, want: Want, *, stream: bool) -> Said:
        said = Said(pieces=1)
        with _errors():
            if stream:
                said.pieces = 0
                async with self._client.messages.stream(**self._request(want)) as events:
                    async for event in events:
                        said.pieces += event.type == "text"
                    message: Any = await events.get_final_message()
            else:
                message = await self._client.messages.create(**self._request(want))
        for block in message.content:
            match block.type:
                case "text":
                    said.text += block.text
                case "thinking":
                    said.reasoning += block.thinking
                case "tool_use":
                    said.calls.append(Called(block.name, block.input, block.id))
        said.finish = _FINISHES[message.stop_reason]
        said.cached_tokens = message.usage.cache_read_input_tokens or 0
        said.prompt_tokens = message.usage.input_tokens + said.cached_tokens
        said.completion_tokens = message.usage.output_tokens
        return said

    async def embed(self, texts: Embedded, *, dimensions: int | None = None) -> list[list[float]]:
        raise NotInDialect

    async def embed_by_older_address(self, text: str) -> list[float]:
        raise NotInDialect

    async def close(self) -> None:
        await self._client.close()

    def _request(self, want: Want) -> Json:
        if want.logprobs or want.seed is not None or want.json_mode or want.goes_on or want.n > 1:
            raise NotInDialect
        content: list[Json] = [{"type": "text", "text": want.text}]
        if want.image:
            source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(want.image).decode()}
            content.append({"type": "image", "source": source})
        messages: list[Json] = [{"role": "user", "content": content}]
        if want.result:
            call, result = want.result
            use = {"type": "tool_use", "id": "toolu_1", "name": call.name, "input": call.arguments}
            messages += [
                {"role": "assistant", "content": [use]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": result}]},
            ]
        request: Json = {"model": want.model or self._model, "messages": messages, "max_tokens": want.max_tokens}
        if want.system:
            request["system"] = want.system
        if want.tools:
            request["tools"] = [{"name": tool.name, "input_schema": tool.parameters} for tool in want.tools]
        if want.forced:
            request["tool_choice"] = _CHOICES.get(want.forced, {"type": "tool", "name": want.forced})
        if want.schema is not None:
            request["output_config"] = {"format": {"type": "json_schema", "schema": want.schema}}
        if want.thinks:
            request["thinking"] = {"type": "enabled", "budget_tokens": 1024}
            request["max_tokens"] = max(want.max_tokens, 2048)
        if want.stop:
            request["stop_sequences"] = [want.stop]
        return request


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except anthropic.APIStatusError as error:
        if error.response.status_code == 200:  # the library's way of raising an error event
            raise Broke(str(error)) from error
        raise Refused(error.status_code, str(error)) from error
    except anthropic.APIError as error:
        raise Broke(str(error)) from error
