"""OpenAI's requests in the words that engines of one's own understand, which all say they speak that dialect. Pure.

Fields are given back as the very object that they were when there is nothing to change, so that a request may pass byte by
byte."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.forms import CHAT, COMPLETION, MODERATION, RERANK, SCORE, SPEECH, TRANSLATION, Form
from forebay_gateway.engines.unspoken import beyond
from forebay_gateway.refused import BadField

NOT_OLLAMAS = (MODERATION, RERANK, SCORE, SPEECH, TRANSLATION)
"""For which Ollama has no address."""
_EFFORTS = {"minimal": "low", "xhigh": "high"}
"""Words that Ollama did not know from the beginning, in those that it did."""
_SWITCHES = ("enable_thinking", "thinking")
"""What templates call it."""


def in_templates_words(
    fields: Mapping[str, Any], form: Form, *, continues: bool, reads_prefill: bool
) -> Mapping[str, Any]:
    """For engines that hand everything to a chat template (vLLM, SGLang, llama.cpp). `continues`: the client wants the
    model's last message gone on with. `reads_prefill`: such an engine does so by itself."""
    if form is not CHAT:
        return fields
    changes = _known_roles(fields)
    if fields.get("reasoning_effort") == "none" and not _says_whether_to_think(fields):
        changes |= _thoughtless(fields)  # most templates know the switch and no efforts
    if continues and _ends_with_text_of_model(fields):
        if not reads_prefill:
            changes |= {"continue_final_message": True, "add_generation_prompt": False}
        elif not _says_whether_to_think(fields) and not fields.get("reasoning_effort"):
            changes |= _thoughtless(fields)  # llama.cpp refuses to go on with what a thinking model has said
    return {**fields, **changes} if changes else fields


def in_ollamas_words(fields: Mapping[str, Any], form: Form) -> Mapping[str, Any]:
    """For its /v1, which leaves out what it does not know.
    https://github.com/ollama/ollama/blob/main/openai/openai.go"""
    changes: Json = {}
    left_out: set[str] = set()
    if form in (CHAT, COMPLETION) and fields.get("max_completion_tokens") is not None:
        changes["max_tokens"] = fields["max_completion_tokens"]
        left_out.add("max_completion_tokens")
    if form is COMPLETION and isinstance(prompt := fields.get("prompt"), list) and len(prompt) == 1:
        changes["prompt"] = prompt[0]
    if form is CHAT:
        effort = fields.get("reasoning_effort")
        if _is_thoughtless(fields):
            changes["reasoning_effort"] = "none"
            left_out.add("reasoning")  # which would count for more
        elif isinstance(effort, str) and effort in _EFFORTS:
            changes["reasoning_effort"] = _EFFORTS[effort]
        changes |= _known_roles(fields, thoughts_as="reasoning")
    if not changes:
        return fields
    return {name: value for name, value in {**fields, **changes}.items() if name not in left_out}


def unspoken_by_ollama(fields: Mapping[str, Any], form: Form) -> BadField | None:
    """For what its /v1 would leave out or refuse, and answer something else than what was asked."""
    if form in NOT_OLLAMAS:
        return BadField(f"Ollama has nothing like {form.path}.", param="model", code="unsupported_model")
    if form in (CHAT, COMPLETION) and (fields.get("n") or 1) > 1:
        return beyond("Ollama", "n", "gives one answer to a request")
    if form is not COMPLETION:
        return None
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and not (len(prompt) == 1 and isinstance(prompt[0], str)):
        return beyond("Ollama", "prompt", "takes one text as a prompt, no list and no tokens")
    if (fields.get("best_of") or 1) > 1:
        return beyond("Ollama", "best_of", "gives one answer to a request")
    if fields.get("echo"):
        return beyond("Ollama", "echo", "does not repeat the prompt")
    if fields.get("logprobs") is not None and fields.get("logprobs") is not False:  # 0 tells the chosen tokens' own
        return beyond("Ollama", "logprobs", "tells no probabilities of completions (those of a chat it does)")
    if fields.get("max_completion_tokens", fields.get("max_tokens")) == 0:
        return beyond("Ollama", "max_tokens", "takes 0 for no limit")
    return None


def _known_roles(fields: Mapping[str, Any], thoughts_as: str = "reasoning_content") -> Json:
    """`developer` is `system` to the templates of open models; many raise an error for what they do not know."""
    messages = fields.get("messages") or ()
    renames = thoughts_as != "reasoning_content"
    for message in messages:
        if message.get("role") == "developer" or (renames and "reasoning_content" in message):
            break
    else:
        return {}
    told = []
    for message in messages:
        if message.get("role") == "developer":
            message = {**message, "role": "system"}
        if renames and "reasoning_content" in message:
            thoughts = message["reasoning_content"]
            message = {thoughts_as: thoughts, **message}
            del message["reasoning_content"]
        told.append(message)
    return {"messages": told}


def _template_of(fields: Mapping[str, Any]) -> Json:
    template = fields.get("chat_template_kwargs")
    return template if isinstance(template, dict) else {}


def _says_whether_to_think(fields: Mapping[str, Any]) -> bool:
    template = fields.get("chat_template_kwargs")
    if template is not None and not isinstance(template, dict):
        return True  # nonsense, which is for the engine to judge
    return any(_template_of(fields).get(name) is not None for name in _SWITCHES)


def _is_thoughtless(fields: Mapping[str, Any]) -> bool:
    return any(_template_of(fields).get(name) is False for name in _SWITCHES)


def _thoughtless(fields: Mapping[str, Any]) -> Json:
    return {"chat_template_kwargs": {**_template_of(fields), "enable_thinking": False}}


def _ends_with_text_of_model(fields: Mapping[str, Any]) -> bool:
    messages = fields.get("messages")
    last: Json = messages[-1] if messages else {}
    return last.get("role") == "assistant" and bool(last.get("content")) and not last.get("tool_calls")
