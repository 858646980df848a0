"""Ollama's chat and generate requests: to Ollama's engines they pass in their own words, to all others as OpenAI's. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from forebay_gateway.asked import Asked, NativeSpeech
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import flag_in
from forebay_gateway.canonical.forms import CHAT, COMPLETION, Form
from forebay_gateway.dialects.ollama.answer import AnswerTranslation
from forebay_gateway.dialects.ollama.fields import list_of, parse_body, streams, text_of
from forebay_gateway.dialects.ollama.loading import Loading, ends_at_once, load_or_unload
from forebay_gateway.dialects.ollama.messages import content_of, translate_messages
from forebay_gateway.dialects.ollama.native import NothingToSay, OllamaSpeech
from forebay_gateway.dialects.ollama.options import (
    translate_format,
    translate_logprobs,
    translate_options,
    translate_thinking,
)
from forebay_gateway.dialects.ollama.parts import CHAT_ANSWER, GENERATED, AnswerForm
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.refused import BadField


def parse_ollama_chat(raw: bytes, now: Callable[[], float]) -> Asked | Loading:
    """`now`: seconds since the epoch. Raises BadField."""
    body, model = parse_body(raw, "`model` and `messages`")
    told, ways = list_of(body, "messages"), _ways(body)
    tools = list_of(body, "tools")
    if not told:
        return load_or_unload(model, CHAT_ANSWER, body)
    fields = {"messages": translate_messages(told), **ways, **translate_logprobs(body)}
    if tools:
        fields["tools"] = tools
    return _asked(model, body, CHAT_ANSWER, CHAT, fields, now, {})


def parse_generate(raw: bytes, now: Callable[[], float]) -> Asked | Loading:
    """`now`: seconds since the epoch. Raises BadField."""
    body, model = parse_body(raw, "`model` and `prompt`")
    prompt, system, images = text_of(body, "prompt"), text_of(body, "system"), list_of(body, "images")
    is_raw, ways, logprobs = flag_in(body, "raw"), _ways(body), translate_logprobs(body)
    if is_raw and (text_of(body, "template") or system or list_of(body, "context")):
        raise BadField("raw mode does not support template, system, or context", param="raw", code="invalid_value")
    if not prompt:
        return load_or_unload(model, GENERATED, body)
    if is_raw:
        fields = _completion(prompt, ways, logprobs)
        return _asked(model, body, GENERATED, COMPLETION, fields, now, _refusals(body, COMPLETION))
    messages: list[Json] = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": content_of(prompt, images)})
    fields = {"messages": messages, **ways, **logprobs}
    return _asked(model, body, GENERATED, CHAT, fields, now, _refusals(body, CHAT))


def _ways(body: Json) -> Json:
    """How to generate; the rest that every request may have is looked at too."""
    ends_at_once(body)
    return {**translate_options(body), **translate_format(body), **translate_thinking(body)}


def _completion(prompt: str, ways: Json, logprobs: Json) -> Json:
    """Without a template nothing can be told how to think. Where a chat has a flag and a number for log probabilities, a
    completion has the number alone."""
    told = {name: value for name, value in ways.items() if name not in ("chat_template_kwargs", "reasoning_effort")}
    top = {"logprobs": max(1, logprobs["top_logprobs"])} if logprobs else {}
    return {"prompt": prompt, **told, **top}


def _asked(
    model: str,
    body: Json,
    answer: AnswerForm,
    form: Form,
    fields: Json,
    now: Callable[[], float],
    refusals: Mapping[EngineKind, NativeSpeech],
) -> Asked:
    """`refusals`: for engines that cannot do it."""
    fields = {"model": model, **fields}
    asked = Asked(
        form,
        model,
        streams(body),
        width=1,
        choices=1,
        samples=1,
        max_output_tokens=fields.get("max_tokens", 0),
        include_usage=True,
        fields=fields,
        raw=b"",
        translation=AnswerTranslation(model, answer, now),
    )
    asked.native = {**refusals, EngineKind.OLLAMA: OllamaSpeech(asked, answer, body)}
    return asked


def _refusals(body: Json, form: Form) -> Mapping[EngineKind, NativeSpeech]:
    """For all engines but Ollama, when the request says what has no words in OpenAI's dialect."""
    if text_of(body, "suffix"):
        param, why = "suffix", "`suffix` is understood by Ollama's engines alone, and this model runs on another."
    elif form is COMPLETION and list_of(body, "images"):
        param, why = "images", "`images` with `raw` are understood by Ollama's engines alone; leave out `raw`."
    else:
        return {}
    return dict.fromkeys(EngineKind, NothingToSay(form.path, param, why))
