"""What Ollama's requests say of how to generate, in the words of the engines that speak OpenAI's dialect. Pure.

What is not said stays unsaid, so that an engine's own defaults hold. What only Ollama knows (`num_ctx`, `num_gpu` and other
settings of its runner, `mirostat`) is left out."""

from __future__ import annotations

from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import count_in, flag_in, wrong_type
from forebay_gateway.refused import BadField

_NUMBERS = ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty")
_WHOLE_NUMBERS = ("top_k", "seed")
_MOST_EXACT = 1 << 53
_MOST_LOGPROBS = 20
_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "max": "high"}


def translate_options(body: Json) -> Json:
    """Of its `options`. Raises BadField."""
    options = body.get("options")
    if options is None or options == "":
        return {}
    if not isinstance(options, dict):
        raise wrong_type("options", "an object", options)
    fields = {name: value for name in _NUMBERS if (value := _number_in(options, name)) is not None}
    fields |= {name: value for name in _WHOLE_NUMBERS if (value := _whole_number_in(options, name)) is not None}
    limit = _whole_number_in(options, "num_predict")
    if limit is not None and limit > 0:  # Ollama takes 0 and less for no limit
        count_in({"options.num_predict": limit}, "options.num_predict")
        fields["max_tokens"] = limit
    penalty = _number_in(options, "repeat_penalty")
    if penalty is not None:
        # vLLM and SGLang call it by the first name, llama.cpp by the second; each ignores the other.
        fields |= {"repetition_penalty": penalty, "repeat_penalty": penalty}
    stops = _stops_in(options)
    return {**fields, "stop": stops} if stops else fields


def translate_format(body: Json) -> Json:
    """Raises BadField."""
    wanted = body.get("format")
    if wanted is None or wanted == "":
        return {}
    if wanted == "json":
        return {"response_format": {"type": "json_object"}}
    if isinstance(wanted, dict):
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted}}}
    raise BadField('invalid format: it can be "json" or a JSON schema', param="format", code="invalid_value")


def translate_thinking(body: Json) -> Json:
    """Raises BadField."""
    wanted = body.get("think")
    if wanted is None or wanted == "":
        return {}
    if isinstance(wanted, bool):
        return {"chat_template_kwargs": {"enable_thinking": wanted}}
    effort = _EFFORTS.get(wanted) if isinstance(wanted, str) else None
    if effort is None:
        raise BadField(
            'invalid think value: it can be "high", "medium", "low", "max", true or false',
            param="think",
            code="invalid_value",
        )
    return {"reasoning_effort": effort, "chat_template_kwargs": {"enable_thinking": True}}


def translate_logprobs(body: Json) -> Json:
    """For a chat; `top_logprobs` always with it. Raises BadField."""
    is_wanted, most = flag_in(body, "logprobs"), _whole_number_in(body, "top_logprobs") or 0
    if not 0 <= most <= _MOST_LOGPROBS:
        raise BadField("top_logprobs must be between 0 and 20", param="top_logprobs", code="invalid_value")
    return {"logprobs": True, "top_logprobs": most} if is_wanted else {}


def _number_in(options: Json, name: str) -> float | None:
    value = options.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(name, "a number", value)
    return value


def _whole_number_in(options: Json, name: str) -> int | None:
    """Also one with a fraction of zero, as some languages write each number."""
    value: Any = _number_in(options, name)
    if isinstance(value, float):
        if not value.is_integer() or abs(value) > _MOST_EXACT:
            raise BadField(f"`{name}` is {value}; it must be a whole number.", param=name, code="invalid_value")
        return int(value)
    return value if value is None else int(value)


def _stops_in(options: Json) -> list[str]:
    value = options.get("stop")
    if value is None:
        return []
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise wrong_type("stop", "a string or a list of strings", value)
    return [text for text in texts if text]
