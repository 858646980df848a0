"""Anthropic's conversation as the messages of OpenAI's chat. Pure.

One message may become several: results of tools are messages of their own there, and cannot hold images and documents."""

from __future__ import annotations

import orjson

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.typed import bad_value
from forebay_gateway.dialects.anthropic.blocks import Placed, blocks_at, parts_of, texts_at
from forebay_gateway.dialects.anthropic.checked import at, flag_at, object_at, objects_at, text_at, unknown
from forebay_gateway.dialects.anthropic.untranslated import Untranslated
from forebay_gateway.refused import BadField

_BILLING_LINE = "x-anthropic-billing-header:"


def chat_messages(body: Json, untranslated: Untranslated) -> list[Json]:
    """What the system is told comes first, as one message, wherever the client said it: many chat templates accept a system
    message nowhere else and not twice. Raises BadField."""
    told = texts_at(body, "system", untranslated) if body.get("system") is not None else []
    messages: list[Json] = []
    for where, message in _messages_in(body):
        match text_at(message, "role", where):
            case "user":
                messages += _user_messages(blocks_at(message, "content", where), untranslated)
            case "assistant":
                messages.append(_assistant_message(blocks_at(message, "content", where), untranslated))
            case "system":
                told += texts_at(message, "content", untranslated, where)
            case role:
                place = at(where, "role")
                raise bad_value(place, f"`{place}` is `{role[:64]}`; it can be user, assistant or system.")
    system = "\n\n".join(filter(None, map(_without_billing_line, told)))
    return [{"role": "system", "content": system}, *messages] if system else messages


def _messages_in(body: Json) -> list[Placed]:
    messages = objects_at(body, "messages")
    if not messages:
        raise BadField(
            "`messages` is missing or empty: send the conversation as a list of {role, content} objects.",
            param="messages",
            code="missing_required_parameter",
        )
    return messages


def _without_billing_line(text: str) -> str:
    """A line for Anthropic's accounts that coding agents put first. It differs with every request, so that engines could
    never reuse what they have cached of the prompt (vllm-project/vllm#36829)."""
    return text.partition("\n")[2] if text.startswith(_BILLING_LINE) else text


def _user_messages(blocks: list[Placed], untranslated: Untranslated) -> list[Json]:
    results, shown_by_tools, parts = [], [], []
    for where, block in blocks:
        if block["type"] == "tool_result":
            text, shown = _result_of(block, where, untranslated)
            results.append({"role": "tool", "tool_call_id": text_at(block, "tool_use_id", where), "content": text})
            shown_by_tools += shown
        else:
            parts += _parts_of([(where, block)], untranslated)
    parts = shown_by_tools + parts
    return [*results, {"role": "user", "content": _content(parts)}] if parts or not results else results


def _parts_of(blocks: list[Placed], untranslated: Untranslated) -> list[Json]:
    parts: list[Json] = []
    for where, block in blocks:
        with untranslated.noted():
            parts += parts_of(block, where)
    return parts


def _result_of(block: Json, where: str, untranslated: Untranslated) -> tuple[str, list[Json]]:
    """What a tool said, and its images and documents."""
    content = blocks_at(block, "content", where) if block.get("content") is not None else []
    parts = _parts_of(content, untranslated)
    said = "\n".join(part["text"] for part in parts if part["type"] == "text")
    if flag_at(block, "is_error", where):
        said = f"Error: {said}"
    return said, [part for part in parts if part["type"] != "text"]


def _content(parts: list[Json]) -> str | list[Json]:
    """A string where that says it all, since every engine takes one."""
    if len(parts) <= 1 and all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _assistant_message(blocks: list[Placed], untranslated: Untranslated) -> Json:
    texts, thoughts, calls = [], [], []
    for where, block in blocks:
        match block["type"]:
            case "text":
                texts.append(text_at(block, "text", where))
            case "thinking":
                thoughts.append(text_at(block, "thinking", where))
            case "tool_use":
                calls.append(_tool_call(block, where))
            case "redacted_thinking":
                pass  # only Anthropic can read it
            case kind:
                with untranslated.noted():
                    raise unknown(at(where, "type"), kind, "text, thinking or tool_use")
    message: Json = {"role": "assistant", "content": "".join(texts) or (None if calls else "")}
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _tool_call(block: Json, where: str) -> Json:
    arguments = object_at(block, "input", where) if block.get("input") is not None else {}
    try:
        written = orjson.dumps(arguments).decode()
    except orjson.JSONEncodeError as error:  # it reads deeper than it writes
        raise BadField(f"`{where}.input` is nested too deeply.", param=f"{where}.input") from error
    function = {"name": text_at(block, "name", where), "arguments": written}
    return {"id": text_at(block, "id", where), "type": "function", "function": function}
