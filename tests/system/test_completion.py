"""A real model answers through the whole system, streamed and not, to curl and to the official SDK."""

from __future__ import annotations

import json
import subprocess

import aiohttp
import openai
import pytest

from tests.system.installation import Installation, ask, stream

CAPITAL = "What is the capital of France?"


def test_the_curl_line_that_up_prints_works_when_pasted(installation: Installation) -> None:
    told = installation.output
    command = told[told.index("\ncurl ") :].strip().split("\n\n")[0]
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout, done.stdout


async def test_a_streamed_answer_arrives_chunk_by_chunk(
    installation: Installation, client: aiohttp.ClientSession
) -> None:
    body = ask("Tell me a story about a river.", max_tokens=48, stop=["no such words"], ignore_eos=True)
    streamed = await stream(client, installation.gateway, installation.key, body, "story")
    assert streamed.is_done
    assert streamed.error is None
    assert len(streamed.arrivals) >= 20
    early = [at for at in streamed.arrivals if at < streamed.ended_s - 0.02]
    assert len(early) / len(streamed.arrivals) >= 0.9
    spread_s = streamed.arrivals[-1] - streamed.arrivals[0]
    assert spread_s > 0.2, "all of it came at once"


def test_the_openai_sdk_streams_and_gets_true_usage(installation: Installation) -> None:
    with openai.OpenAI(base_url=f"{installation.gateway}/v1", api_key=installation.key) as sdk:
        plain = sdk.chat.completions.create(
            model="gemma-3-270m", messages=[{"role": "user", "content": CAPITAL}], temperature=0, max_tokens=32
        )
        assert "Paris" in (plain.choices[0].message.content or "")
        assert plain.usage is not None
        assert plain.usage.prompt_tokens > 10
        assert 4 <= plain.usage.completion_tokens <= 32
        assert plain.usage.total_tokens == plain.usage.prompt_tokens + plain.usage.completion_tokens

        text, usage = "", None
        for chunk in sdk.chat.completions.create(
            model="gemma-3-270m",
            messages=[{"role": "user", "content": CAPITAL}],
            temperature=0,
            max_tokens=32,
            stream=True,
            stream_options={"include_usage": True},
        ):
            usage = chunk.usage or usage
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
        assert "Paris" in text
        assert usage is not None
        assert usage.completion_tokens == plain.usage.completion_tokens
        assert usage.prompt_tokens == plain.usage.prompt_tokens


def test_the_openai_sdk_goes_on_with_texts_streamed_and_not(installation: Installation) -> None:
    with openai.OpenAI(base_url=f"{installation.gateway}/v1", api_key=installation.key) as sdk:
        plain = sdk.completions.create(
            model="gemma-3-270m", prompt=["One, two, three,", "The capital of France is"], temperature=0, max_tokens=8
        )
        assert plain.object == "text_completion"
        assert [choice.index for choice in plain.choices] == [0, 1]
        assert all(choice.text for choice in plain.choices)
        assert "four" in plain.choices[0].text
        assert plain.usage is not None
        assert plain.usage.completion_tokens == 16
        assert plain.usage.prompt_tokens >= 10

        text = ""
        for chunk in sdk.completions.create(
            model="gemma-3-270m", prompt="One, two, three,", temperature=0, max_tokens=8, stream=True
        ):
            text += "".join(choice.text for choice in chunk.choices)
        assert text == plain.choices[0].text


def test_a_usage_chunk_that_nobody_asked_for_is_not_sent(installation: Installation) -> None:
    with openai.OpenAI(base_url=f"{installation.gateway}/v1", api_key=installation.key) as sdk:
        chunks = list(
            sdk.chat.completions.create(
                model="gemma-3-270m", messages=[{"role": "user", "content": CAPITAL}], max_tokens=8, stream=True
            )
        )
    assert all(chunk.choices for chunk in chunks)


def test_models_are_listed_with_their_context_length(installation: Installation) -> None:
    with openai.OpenAI(base_url=f"{installation.gateway}/v1", api_key=installation.key) as sdk:
        listed = {model.id: model for model in sdk.models.list()}
        assert "gemma-3-270m" in listed
        assert (listed["gemma-3-270m"].model_extra or {})["context_length"] >= 1024
        assert sdk.models.retrieve("gemma-3-270m").id == "gemma-3-270m"


def test_every_answer_has_a_request_id_and_errors_have_the_codes_sdks_switch_on(installation: Installation) -> None:
    url = f"{installation.gateway}/v1"
    with openai.OpenAI(base_url=url, api_key="fb-000000000000-wrong", max_retries=0) as wrong:
        with pytest.raises(openai.AuthenticationError) as refused:
            wrong.models.list()
        assert refused.value.code == "invalid_api_key"
        assert refused.value.request_id
    with openai.OpenAI(base_url=url, api_key=installation.key, max_retries=0) as sdk:
        with pytest.raises(openai.NotFoundError) as unknown:
            sdk.chat.completions.create(model="no-such-model", messages=[{"role": "user", "content": "x"}])
        assert unknown.value.code == "model_not_found"
        assert unknown.value.request_id
        with pytest.raises(openai.BadRequestError) as too_long:
            sdk.chat.completions.create(model="gemma-3-270m", messages=[{"role": "user", "content": "word " * 9000}])
        assert too_long.value.code == "context_length_exceeded"


async def test_usage_reaches_the_ledger(installation: Installation, client: aiohttp.ClientSession) -> None:
    import asyncio

    streamed = await stream(
        client, installation.gateway, installation.key, ask(CAPITAL, max_tokens=12), "for-the-ledger"
    )
    assert streamed.is_done
    for _ in range(100):
        rows = [row for row in installation.ledger_rows() if row["request_id"] == "for-the-ledger"]
        if rows:
            break
        await asyncio.sleep(0.1)
    assert len(rows) == 1, json.dumps(rows)
    assert rows[0]["outcome"] == "finished"
    assert rows[0]["usage_source"] == "engine"
    assert rows[0]["completion_tokens"] >= 4
    assert rows[0]["prompt_tokens"] > 10
