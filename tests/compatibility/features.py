"""What is tried with each client library in front of each engine: a function for each. Returning means that it works."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Awaitable, Callable

import pytest

from tests.compatibility.wants import ANY, NONE, Broke, Called, Client, Refused, Said, Tool, Want

TEXT = "Grüße, 世界 🎉: ein Satz, der durch alle Schichten geht."
_WEATHER = Tool(
    "weather",
    {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]},
)
_CLOCK = Tool("clock", {"type": "object", "properties": {"zone": {"type": "string", "enum": ["UTC", "CET"]}}})
_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
_PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

Feature = Callable[[Client, bool], Awaitable[None]]


async def text(client: Client, stream: bool) -> None:
    said = await client.ask(Want(f"repeat: {TEXT}"), stream=stream)
    assert said.text == TEXT
    assert said.finish == "stop"
    assert (said.pieces > 1) is stream


async def system_prompt(client: Client, stream: bool) -> None:
    said = await client.ask(Want("repeat: yes", system="You repeat."), stream=stream)
    assert said.text == "yes"


async def usage(client: Client, stream: bool) -> None:
    short = await client.ask(Want("repeat: a"), stream=stream)
    long = await client.ask(Want("repeat: a b c d e f g h"), stream=stream)
    assert 0 < short.prompt_tokens < long.prompt_tokens
    assert 0 < short.completion_tokens < long.completion_tokens


async def cached_tokens(client: Client, stream: bool) -> None:
    want = Want("repeat: a b c d e f g h fake_cached_tokens=3", asks_for_cached=True)
    said = await client.ask(want, stream=stream)
    assert said.cached_tokens == 3
    assert said.prompt_tokens > 3


async def length(client: Client, stream: bool) -> None:
    said = await client.ask(Want("repeat: a b c d e f g h i j k", max_tokens=3), stream=stream)
    assert said.finish == "length"
    assert said.completion_tokens == 3


async def stop(client: Client, stream: bool) -> None:
    said = await client.ask(Want("repeat: before STOP after", stop="STOP"), stream=stream)
    assert said.text.strip() == "before"
    assert said.finish == "stop"


async def seed(client: Client, stream: bool) -> None:
    said = await client.ask(Want("repeat: seeded", seed=7), stream=stream)
    assert said.text == "seeded"


async def tool(client: Client, stream: bool) -> None:
    said = await client.ask(Want("Use the tool.", tools=(_WEATHER,)), stream=stream)
    _assert_calls(said, Called("weather", {"city": "text", "days": 1}))


async def forced_tool(client: Client, stream: bool) -> None:
    said = await client.ask(Want("Hello.", tools=(_WEATHER, _CLOCK), forced="clock"), stream=stream)
    _assert_calls(said, Called("clock", {"zone": "UTC"}))


async def required_tool(client: Client, stream: bool) -> None:
    said = await client.ask(Want("Hello.", tools=(_CLOCK, _WEATHER), forced=ANY), stream=stream)
    assert said.finish == "tools"
    assert said.calls[0].name in ("clock", "weather")
    assert isinstance(said.calls[0].arguments, dict)


async def no_tool(client: Client, stream: bool) -> None:
    said = await client.ask(Want("Use the tool.", tools=(_WEATHER,), forced=NONE), stream=stream)
    assert said.finish == "stop"
    assert said.calls == []
    assert said.text


async def parallel_tools(client: Client, stream: bool) -> None:
    said = await client.ask(Want("Use all the tools.", tools=(_WEATHER, _CLOCK)), stream=stream)
    _assert_calls(said, Called("weather", {"city": "text", "days": 1}), Called("clock", {"zone": "UTC"}))


async def tool_result(client: Client, stream: bool) -> None:
    asked = Want(
        "Use the tool.", tools=(_WEATHER,), result=(Called("weather", {"city": "Rome"}), "sunny and 21 degrees")
    )
    said = await client.ask(asked, stream=stream)
    assert "sunny and 21 degrees" in said.text
    assert said.finish == "stop"


async def json_schema(client: Client, stream: bool) -> None:
    said = await client.ask(Want("Describe a person.", schema=_SCHEMA), stream=stream)
    told = json.loads(said.text)
    assert set(told) == {"name", "age"}
    assert isinstance(told["age"], int)


async def json_mode(client: Client, stream: bool) -> None:
    said = await client.ask(Want("Answer in JSON.", json_mode=True), stream=stream)
    assert isinstance(json.loads(said.text), dict)


async def reasoning(client: Client, stream: bool) -> None:
    said = await client.ask(Want("repeat: thought through", thinks=True), stream=stream)
    assert said.reasoning
    assert said.text == "thought through"


async def reasoning_then_tool(client: Client, stream: bool) -> None:
    said = await client.ask(Want("Use the tool.", tools=(_WEATHER,), thinks=True), stream=stream)
    assert said.reasoning
    _assert_calls(said, Called("weather", {"city": "text", "days": 1}))


async def vision(client: Client, stream: bool) -> None:
    said = await client.ask(Want("What is this?", image=_PICTURE), stream=stream)
    assert "I see 1 image" in said.text


async def logprobs(client: Client, stream: bool) -> None:
    said = await client.ask(Want("repeat: a b c", logprobs=2), stream=stream)
    assert said.logprobs == said.completion_tokens


async def several_answers(client: Client, stream: bool) -> None:
    said = await client.ask(Want("repeat: a b", n=2), stream=stream)
    assert said.texts == ["a b", "a b"]
    assert said.completion_tokens == 2


async def several_prompts(client: Client, stream: bool) -> None:
    said = await client.ask(Want("", prompts=("repeat: first", "repeat: the second")), stream=stream)
    assert said.texts == ["first", "the second"]
    assert said.prompt_tokens == 5


async def prompt_in_tokens(client: Client, stream: bool) -> None:
    said = await client.ask(Want("", tokens=(11, 22, 33), max_tokens=4), stream=stream)
    assert said.text
    assert said.prompt_tokens == 3


async def echo(client: Client, stream: bool) -> None:
    said = await client.ask(Want("repeat: a b c", echo=True), stream=stream)
    assert said.text == "repeat: a b ca b c"


async def prompts_logprobs(client: Client, stream: bool) -> None:
    said = await client.ask(Want("repeat: a b c", echo=True, logprobs=2), stream=stream)
    assert said.logprobs == said.prompt_tokens + said.completion_tokens


async def embeddings(client: Client, stream: bool) -> None:
    first, second = await client.embed(["a cat", "a dog"])
    assert len(first) == len(second) > 0
    assert first != second


async def embeddings_of_tokens(client: Client, stream: bool) -> None:
    first, second = await client.embed([[5, 6, 7], [5, 8]])
    assert len(first) == len(second) > 0
    assert first != second


async def shorter_embeddings(client: Client, stream: bool) -> None:
    first, second = await client.embed(["a cat", "a dog"], dimensions=5)
    assert len(first) == len(second) == 5  # of which length they are is the provider's affair


async def older_embeddings(client: Client, stream: bool) -> None:
    whole = await client.embed_by_older_address("a cat")
    (scaled,) = await client.embed(["a cat"])
    assert [x / math.hypot(*whole) for x in whole] == pytest.approx(scaled, abs=1e-5)


async def unknown_model(client: Client, stream: bool) -> None:
    with pytest.raises(Refused) as refused:
        await client.ask(Want("Hello.", model="no-such-model"), stream=stream)
    assert refused.value.status == 404
    assert "no-such-model" in refused.value.message


COME_WHOLE = ("embeddings", "embeddings of tokens", "shorter embeddings", "older embeddings")
FEATURES: dict[str, Feature] = {
    "text": text,
    "system prompt": system_prompt,
    "usage": usage,
    "cached tokens": cached_tokens,
    "length": length,
    "stop": stop,
    "seed": seed,
    "tool": tool,
    "forced tool": forced_tool,
    "some tool required": required_tool,
    "tools forbidden": no_tool,
    "parallel tools": parallel_tools,
    "tool result": tool_result,
    "json schema": json_schema,
    "json mode": json_mode,
    "reasoning": reasoning,
    "reasoning, then tool": reasoning_then_tool,
    "vision": vision,
    "logprobs": logprobs,
    "several answers": several_answers,
    "several prompts": several_prompts,
    "prompt in tokens": prompt_in_tokens,
    "echo": echo,
    "logprobs of the prompt": prompts_logprobs,
    "embeddings": embeddings,
    "embeddings of tokens": embeddings_of_tokens,
    "shorter embeddings": shorter_embeddings,
    "older embeddings": older_embeddings,
    "unknown model": unknown_model,
}


async def broken_stream(client: Client) -> None:
    """With an engine that dies after some tokens."""
    with pytest.raises(Broke):
        await client.ask(Want("repeat: a b c d e f g h"), stream=True)


async def broken_whole(client: Client) -> None:
    """The same without a stream: nothing has reached the client, so it hears a status."""
    with pytest.raises(Refused) as refused:
        await client.ask(Want("repeat: a b c d e f g h"), stream=False)
    assert refused.value.status in (500, 502, 503)


async def wrong_key(client: Client) -> None:
    with pytest.raises(Refused) as refused:
        await client.ask(Want("Hello."), stream=False)
    assert refused.value.status in (401, 403)


def _assert_calls(said: Said, *wanted: Called) -> None:
    assert said.finish == "tools"
    assert [(call.name, call.arguments) for call in said.calls] == [(call.name, call.arguments) for call in wanted]
    ids = [call.id for call in said.calls if call.id]
    assert len(ids) == len(set(ids))
