"""OpenAI's requests in the words of engines of one's own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from forebay_gateway.asked import Asked
from forebay_gateway.canonical.forms import CHAT
from forebay_gateway.dialects.anthropic.request import parse_messages
from forebay_gateway.dialects.openai.chat import parse_chat
from forebay_gateway.dialects.openai.completion import parse_completion
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.engines.local_words import in_ollamas_words
from forebay_gateway.fleet import Backend
from forebay_gateway.refused import BadField
from forebay_gateway.rules.model_rules import Rule

USER = {"role": "user", "content": "Hello."}
TEMPLATED = [EngineKind.VLLM, EngineKind.SGLANG, EngineKind.LLAMACPP]
OFF = {"enable_thinking": False}


def chat(**fields: Any) -> Asked:
    return parse_chat(json.dumps({"model": "m", "messages": [USER], **fields}).encode())


def completion(**fields: Any) -> Asked:
    return parse_completion(json.dumps({"model": "m", "prompt": "Hello", **fields}).encode())


def message(*messages: dict[str, Any], **fields: Any) -> Asked:
    body = {"model": "m", "max_tokens": 9, "messages": list(messages) or [USER], **fields}
    return parse_messages(json.dumps(body).encode())


def said(asked: Asked, kind: EngineKind = EngineKind.OLLAMA, *, streamed: bool = False) -> Any:
    body = asked.speech(kind).body(streamed=streamed, ask_usage=True)
    assert isinstance(body, bytes)
    return json.loads(body)


@pytest.mark.parametrize("kind", EngineKind)
def test_what_is_the_same_in_their_words_passes_byte_by_byte(kind: EngineKind) -> None:
    asked = chat(max_tokens=5, reasoning_effort="low", temperature=0.1)
    if kind not in (EngineKind.ANTHROPIC, EngineKind.GEMINI, EngineKind.COHERE):
        assert asked.speech(kind).body(streamed=False, ask_usage=False) is asked.raw


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("make", [chat, completion])
def test_ollama_hears_a_limit_by_the_name_that_it_knows(make: Any, streamed: bool) -> None:
    told = said(make(max_completion_tokens=7, max_tokens=9), streamed=streamed)
    assert told["max_tokens"] == 7
    assert "max_completion_tokens" not in told


def test_a_rules_limit_is_kept_on_ollama_whatever_the_client_calls_its_own() -> None:
    for asked in (chat(max_completion_tokens=500), completion(max_completion_tokens=500), chat()):
        asked.obey(Rule(max_output_tokens=20))
        assert said(asked)["max_tokens"] == 20


@pytest.mark.parametrize("kind", TEMPLATED)
def test_a_rules_limit_on_completions_is_one_that_completions_know(kind: EngineKind) -> None:
    asked = completion(max_completion_tokens=500)
    asked.obey(Rule(max_output_tokens=20))
    assert said(asked, kind)["max_tokens"] == 20


@pytest.mark.parametrize(
    "asked",
    [
        chat(chat_template_kwargs=OFF),
        chat(chat_template_kwargs={"thinking": False}),
        chat(chat_template_kwargs=OFF, reasoning_effort="high", reasoning={"effort": "high"}),
        chat(reasoning_effort="none"),
        message(thinking={"type": "disabled"}),
    ],
    ids=["switch", "other switch", "against the effort", "effort", "anthropic"],
)
def test_ollama_hears_that_nobody_wants_thoughts(asked: Asked) -> None:
    told = said(asked)
    assert told["reasoning_effort"] == "none"
    assert "reasoning" not in told


def test_ollama_hears_of_a_rule_against_thoughts() -> None:
    asked = chat()
    asked.obey(Rule(thinks_unasked=False))
    assert said(asked)["reasoning_effort"] == "none"


@pytest.mark.parametrize(("effort", "heard"), [("minimal", "low"), ("low", "low"), ("high", "high"), ("xhigh", "high")])
def test_ollama_hears_efforts_in_its_own_words(effort: str, heard: str) -> None:
    assert said(chat(reasoning_effort=effort))["reasoning_effort"] == heard


def test_thoughts_that_are_wished_for_are_left_to_ollamas_own_default() -> None:
    assert "reasoning_effort" not in said(chat(chat_template_kwargs={"enable_thinking": True}))


@pytest.mark.parametrize("kind", TEMPLATED)
def test_a_template_that_knows_only_the_switch_hears_of_no_effort(kind: EngineKind) -> None:
    told = said(chat(reasoning_effort="none", chat_template_kwargs={"odd": 1}), kind)
    assert told["chat_template_kwargs"] == {"odd": 1, "enable_thinking": False}
    assert told["reasoning_effort"] == "none"


@pytest.mark.parametrize("kind", TEMPLATED)
def test_what_the_client_says_to_the_template_itself_stands(kind: EngineKind) -> None:
    for template in ({"enable_thinking": True}, {"thinking": True}, "nonsense"):
        asked = chat(reasoning_effort="none", chat_template_kwargs=template)
        assert said(asked, kind)["chat_template_kwargs"] == template
    assert "chat_template_kwargs" not in said(chat(reasoning_effort="low"), kind)


@pytest.mark.parametrize("kind", [*TEMPLATED, EngineKind.OLLAMA])
def test_developers_are_the_system_to_engines_of_ones_own(kind: EngineKind) -> None:
    asked = chat(messages=[{"role": "developer", "content": "Be brief.", "name": "d"}, USER])
    assert said(asked, kind)["messages"] == [{"role": "system", "content": "Be brief.", "name": "d"}, USER]
    assert asked.fields["messages"][0]["role"] == "developer"


@pytest.mark.parametrize("kind", [EngineKind.OPENAI, EngineKind.AZURE, EngineKind.OPENROUTER])
def test_others_hear_of_developers(kind: EngineKind) -> None:
    asked = chat(messages=[{"role": "developer", "content": "Be brief."}, USER])
    assert said(asked, kind)["messages"][0]["role"] == "developer"


def test_ollama_hears_thoughts_of_before_by_the_name_that_it_knows() -> None:
    before = {"role": "assistant", "content": "Hi.", "reasoning_content": "A greeting."}
    heard = {"role": "assistant", "content": "Hi.", "reasoning": "A greeting."}
    assert said(chat(messages=[USER, before, USER]))["messages"] == [USER, heard, USER]
    assert said(chat(messages=[USER, before, USER]), EngineKind.VLLM)["messages"][1] == before


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (chat(n=2), "n"),
        (completion(n=2), "n"),
        (completion(best_of=3), "best_of"),
        (completion(echo=True), "echo"),
        (completion(logprobs=0), "logprobs"),
        (completion(prompt=["a", "b"]), "prompt"),
        (completion(prompt=[1, 2]), "prompt"),
        (completion(prompt=[[1, 2]]), "prompt"),
        (completion(max_tokens=0), "max_tokens"),
    ],
)
def test_what_ollama_would_leave_out_is_refused_by_name(asked: Asked, param: str) -> None:
    with pytest.raises(BadField, match="Ollama") as refused:
        said(asked)
    assert (refused.value.param, refused.value.code) == (param, "unsupported_parameter")
    assert said(asked, EngineKind.VLLM)["model"] == "m"


def test_what_asks_for_nothing_more_than_ollama_can_passes() -> None:
    told = said(completion(prompt=["Hello"], n=1, best_of=1, echo=False, logprobs=None))
    assert told["prompt"] == "Hello"


def test_backends_that_would_leave_something_out_are_not_asked_unless_all_would() -> None:
    ollama, vllm = (
        Backend(id, id, "http://e", kind=kind) for id, kind in (("o", EngineKind.OLLAMA), ("v", EngineKind.VLLM))
    )
    assert chat(n=2).left_to_others([ollama, vllm]) == ("o",)
    assert chat(n=2).left_to_others([ollama]) == ()
    assert chat(n=1).left_to_others([ollama, vllm]) == ()


@pytest.mark.parametrize("kind", [EngineKind.VLLM, EngineKind.SGLANG])
def test_what_anthropics_clients_begin_for_the_model_is_gone_on_with(kind: EngineKind) -> None:
    asked = message(USER, {"role": "assistant", "content": "{"})
    told = said(asked, kind)
    assert (told["continue_final_message"], told["add_generation_prompt"]) == (True, False)
    assert "continue_final_message" not in said(message(USER), kind)


def test_llama_cpp_goes_on_by_itself_if_it_does_not_think() -> None:
    told = said(message(USER, {"role": "assistant", "content": "{"}), EngineKind.LLAMACPP)
    assert told["chat_template_kwargs"] == OFF
    assert "continue_final_message" not in told
    thinking = message(USER, {"role": "assistant", "content": "{"}, thinking={"type": "adaptive"})
    assert said(thinking, EngineKind.LLAMACPP)["chat_template_kwargs"] == {"enable_thinking": True}


@pytest.mark.parametrize("kind", [*TEMPLATED, EngineKind.OLLAMA])
def test_openais_clients_get_a_turn_of_the_models_own(kind: EngineKind) -> None:
    asked = chat(messages=[USER, {"role": "assistant", "content": "{"}])
    assert not {"continue_final_message", "chat_template_kwargs"} & set(said(asked, kind))


def test_a_call_is_nothing_to_go_on_with() -> None:
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]}
    assert "continue_final_message" not in said(message(USER, call), EngineKind.VLLM)


def test_fields_that_stay_are_the_very_object() -> None:
    fields = {"model": "m", "messages": [USER], "max_tokens": 3}
    assert in_ollamas_words(fields, CHAT) is fields
