"""OpenAI's request for a response, as the chat request that an engine gets.

Only what a chat engine understands travels on. What the answer has to repeat is kept in its translation. What a request
builds on was looked up by whoever calls; where nobody did, such a request is refused."""

from __future__ import annotations

import orjson

from forebay_gateway.asked import Asked
from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import count_in, flag_in, model_in, wrong_type
from forebay_gateway.canonical.forms import CHAT
from forebay_gateway.canonical.typed import (
    bad_value,
    demand_string,
    metadata_in,
    missing,
    number_in,
    object_in,
    string_in,
    switch_in,
)
from forebay_gateway.dialects.responses.answer import ResponseTranslation
from forebay_gateway.dialects.responses.conversation import messages_in
from forebay_gateway.dialects.responses.echo import echo_of
from forebay_gateway.dialects.responses.keeping import Ground
from forebay_gateway.dialects.responses.thoughts import Thoughts
from forebay_gateway.dialects.responses.tools import tool_fields, tools_in
from forebay_gateway.dialects.responses.truncation import shortened

_MOST_LOGPROBS = 20
NEEDED_FIELDS = "`model` and `input`"


def ask_for_response(body: Json, ground: Ground) -> Asked:
    """`ground`: what it builds on. Raises BadField."""
    model, stream = model_in(body), flag_in(body, "stream")
    if body.get("prompt") is not None:
        raise bad_value(
            "prompt", "`prompt` builds on something stored that is not to be had here: send the whole input."
        )
    _check_the_rest(body)
    tools = tools_in(body)
    max_output_tokens = count_in(body, "max_output_tokens")
    fields: Json = {
        "model": model,
        "messages": messages_in(body, ground.items, ground.thoughts),
        **tool_fields(body, tools),
    }
    fields |= _sampling(body) | _logprobs(body) | _reasoning(body) | _format(body) | _user(body)
    if max_output_tokens is not None:
        fields["max_tokens"] = max_output_tokens  # the newer name is not known to every engine
    echo = {**echo_of(body, tools), **ground.echo}
    _demand_shallow(echo)
    return Asked(
        form=CHAT,
        model=model,
        stream=stream,
        width=1,
        choices=1,
        samples=1,
        max_output_tokens=max_output_tokens or 0,
        include_usage=True,
        fields=fields,
        raw=b"",
        translation=ResponseTranslation(model, echo, thoughts=_concealing(body, ground)),
        shortened=shortened if body.get("truncation") == "auto" else None,
    )


def _concealing(body: Json, ground: Ground) -> Thoughts | None:
    if "reasoning.encrypted_content" not in _include(body):
        return None
    return ground.thoughts


def _check_the_rest(body: Json) -> None:
    """What the engine never sees."""
    flag_in(body, "store")
    object_in(body, "stream_options")
    metadata_in(body)
    string_in(body, "prompt_cache_key")
    string_in(body, "service_tier")
    if string_in(body, "truncation") not in (None, "auto", "disabled"):
        raise bad_value("truncation", "`truncation` can be auto or disabled.")


def _sampling(body: Json) -> Json:
    given = {
        "temperature": number_in(body, "temperature"),
        "top_p": number_in(body, "top_p"),
        "seed": _seed(body),
    }
    return {name: value for name, value in given.items() if value is not None}


def _seed(body: Json) -> int | None:
    """Any whole number, negative ones too."""
    seed = body.get("seed")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise wrong_type("seed", "a whole number", seed)
    return seed


def _logprobs(body: Json) -> Json:
    most = count_in(body, "top_logprobs", least=0, most=_MOST_LOGPROBS)
    if not most and "message.output_text.logprobs" not in _include(body):
        return {}
    return {"logprobs": True, **({} if most is None else {"top_logprobs": most})}


def _include(body: Json) -> list[str]:
    """What else the answer should have. Of things that there are not here, such as a search's sources, it has none."""
    names = body.get("include")
    if names is None:
        return []
    if not isinstance(names, list):
        raise wrong_type("include", "a list of strings", names)
    for place, name in enumerate(names):
        if not isinstance(name, str):
            raise wrong_type(f"include[{place}]", "a string", name)
    return names


def _reasoning(body: Json) -> Json:
    effort = string_in(object_in(body, "reasoning") or {}, "effort", "reasoning.")
    if effort == "none":  # an effort that engines do not know; most models' templates have this switch
        return {"chat_template_kwargs": {"enable_thinking": False}}
    return {} if effort is None else {"reasoning_effort": effort}


def _format(body: Json) -> Json:
    text = object_in(body, "text") or {}
    string_in(text, "verbosity", "text.")
    wanted = object_in(text, "format", "text.")
    if wanted is None:
        return {}
    match demand_string(wanted, "type", "text.format.", "it can be text, json_object or json_schema"):
        case "text":
            return {}
        case "json_object":
            return {"response_format": {"type": "json_object"}}
        case "json_schema":
            return {"response_format": {"type": "json_schema", "json_schema": _json_schema(wanted, "text.format.")}}
        case kind:
            raise bad_value(
                "text.format.type", f'`text.format.type` is "{kind[:40]}"; it can be text, json_object or json_schema.'
            )


def _json_schema(wanted: Json, at: str) -> Json:
    schema = object_in(wanted, "schema", at)
    if schema is None:
        raise missing(f"{at}schema", "send the JSON schema that the answer must match")
    description, strict = string_in(wanted, "description", at), switch_in(wanted, "strict", at)
    return {
        "name": demand_string(wanted, "name", at, "give the schema a name"),
        "schema": schema,
        **({} if description is None else {"description": description}),
        **({} if strict is None else {"strict": strict}),
    }


def _user(body: Json) -> Json:
    newer, older = string_in(body, "safety_identifier"), string_in(body, "user")
    user = older if older is not None else newer
    return {} if user is None else {"user": user}


def _demand_shallow(echo: Json) -> None:
    """JSON can be read deeper than it can be written; schemas are the only part that a client can make so deep."""
    try:
        orjson.dumps([[echo]])
    except orjson.JSONEncodeError as error:
        raise bad_value(
            "tools", "The request is nested too deeply; look at the schemas in `tools` and `text`."
        ) from error
