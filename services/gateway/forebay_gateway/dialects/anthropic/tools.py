"""The tools that a client offers a model, from Anthropic's words to OpenAI's. Pure.

Tools that Anthropic runs itself, such as web_search, or that its models know by heart, reach nobody else. They are refused
there rather than left out: the client counts on them."""

from __future__ import annotations

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.dialects.anthropic.checked import at, flag_at, object_at, objects_at, text_at, unknown
from forebay_gateway.dialects.anthropic.untranslated import OnlyAnthropic, Untranslated
from forebay_gateway.refused import BadField


def tool_fields(body: Json, untranslated: Untranslated) -> Json:
    """`tools`, `tool_choice` and `parallel_tool_calls`; nothing when there are no tools. Raises BadField."""
    with untranslated.noted():
        if objects_at(body, "mcp_servers"):
            raise _no_server_tools("mcp_servers", "It asks for tools of other servers")
    offered, tools = objects_at(body, "tools"), []
    for where, tool in offered:
        with untranslated.noted():
            tools.append(_function(tool, where))
    wishes = untranslated.fields_of(_wishes, body)
    if tools:
        return {"tools": tools, **wishes}
    if not offered and wishes.get("tool_choice", "none") not in ("auto", "none"):
        raise BadField("`tool_choice` demands a tool, and `tools` has none.", param="tool_choice")
    return {}


def _function(tool: Json, where: str) -> Json:
    if tool.get("type") is not None and text_at(tool, "type", where) != "custom":
        raise _no_server_tools(f"{where}.type", f"It is `{tool['type'][:64]}`")
    function: Json = {"name": text_at(tool, "name", where)}
    if tool.get("description") is not None:
        function["description"] = text_at(tool, "description", where)
    function["parameters"] = object_at(tool, "input_schema", where)
    return {"type": "function", "function": function}


def _wishes(body: Json) -> Json:
    if body.get("tool_choice") is None:
        return {}
    where, choice = "tool_choice", object_at(body, "tool_choice")
    wishes: Json = {}
    match text_at(choice, "type", where):
        case "auto" | "none" as same:
            wishes["tool_choice"] = same
        case "any":
            wishes["tool_choice"] = "required"
        case "tool":
            wishes["tool_choice"] = {"type": "function", "function": {"name": text_at(choice, "name", where)}}
        case kind:
            raise unknown(at(where, "type"), kind, "auto, any, tool or none")
    if flag_at(choice, "disable_parallel_tool_use", where):
        wishes["parallel_tool_calls"] = False
    return wishes


def _no_server_tools(place: str, why: str) -> OnlyAnthropic:
    return OnlyAnthropic(
        f"`{place}`: {why}, which only Anthropic's models know, and this gateway runs no server tools. Send tools that your "
        "client runs: type `custom`, with `name` and `input_schema`.",
        param=place,
    )
