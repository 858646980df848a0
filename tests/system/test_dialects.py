"""The other dialects through the whole system: a real model behind two gateways, what is kept in a real PostgreSQL."""

from __future__ import annotations

import anthropic
import ollama
import openai
import pytest

from tests.system.installation import Installation

MODEL = "gemma-3-270m"
CAPITAL = "What is the capital of France?"


def test_the_anthropic_library_talks_to_the_model(installation: Installation) -> None:
    with anthropic.Anthropic(base_url=f"{installation.gateway}/anthropic", api_key=installation.key) as sdk:
        asked = [{"role": "user", "content": CAPITAL}]
        with sdk.messages.stream(model=MODEL, max_tokens=32, messages=asked) as stream:  # type: ignore[arg-type]
            text = "".join(stream.text_stream)
            message = stream.get_final_message()
        assert "Paris" in text
        assert message.usage.output_tokens > 3
        counted = sdk.messages.count_tokens(model=MODEL, messages=asked)  # type: ignore[arg-type]
        cached = message.usage.cache_read_input_tokens or 0
        assert counted.input_tokens == message.usage.input_tokens + cached
        assert MODEL in [model.id for model in sdk.models.list()]


def test_the_ollama_library_talks_to_the_model_with_the_key_in_the_path(installation: Installation) -> None:
    with ollama.Client(host=f"{installation.gateway}/k/{installation.key}") as client:
        _talk(client)


def _talk(client: ollama.Client) -> None:
    pieces = list(client.chat(MODEL, [{"role": "user", "content": CAPITAL}], stream=True, options={"num_predict": 32}))
    assert "Paris" in "".join(piece.message.content or "" for piece in pieces)
    assert pieces[-1].done
    assert (pieces[-1].eval_count or 0) > 3
    assert MODEL in [model.model for model in client.list().models]
    assert "completion" in (client.show(MODEL).capabilities or [])
    with pytest.raises(ollama.ResponseError, match="not found"):
        client.show("no-such-model")


def test_a_response_is_kept_and_gone_on_from_at_the_other_gateway(installation: Installation) -> None:
    with (
        openai.OpenAI(base_url=f"{installation.gateway_url(1)}/v1", api_key=installation.key) as one,
        openai.OpenAI(base_url=f"{installation.gateway_url(2)}/v1", api_key=installation.key) as other,
    ):
        first = one.responses.create(model=MODEL, input=CAPITAL, max_output_tokens=24, temperature=0)
        assert "Paris" in first.output_text
        assert first.store  # type: ignore[attr-defined]
        again = other.responses.retrieve(first.id)
        assert again.output_text == first.output_text
        second = other.responses.create(
            model=MODEL, previous_response_id=first.id, input="And of Italy?", max_output_tokens=8, temperature=0
        )
        items = other.responses.input_items.list(second.id)
        assert [item.type for item in items] == ["message"]
        assert second.usage is not None
        assert first.usage is not None
        assert second.usage.input_tokens > first.usage.input_tokens
        other.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            one.responses.retrieve(first.id)
