"""The tools that a model may call, and whether it must.

Functions are chat's own. A custom tool takes one text, which engines are told of as a function with one argument. All
others run on the servers of their vendor, such as a web search. Agents name them by default and do without them where there
are none, so they are left out. A choice that insists on one of them cannot be kept."""

from __future__ import annotations

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import wrong_type
from forebay_gateway.canonical.typed import (
    bad_value,
    demand_string,
    missing,
    object_in,
    objects_in,
    string_in,
    switch_in,
)
from forebay_gateway.dialects.responses.input_text import INPUT
from forebay_gateway.refused import BadField

_CALLED = ("function", "custom")
"""Tools that the client runs, whatever they are."""
_NOUNS = {"function": "function", "custom": "custom tool"}
_SYNTAXES = {"lark": "Lark grammar", "regex": "regular expression"}
_TAKES_NOTHING: Json = {"type": "object", "properties": {}}
_TAKES_A_TEXT: Json = {"type": "object", "properties": {INPUT: {"type": "string"}}, "required": [INPUT]}
_Tool = tuple[str, str]
"""Its type and name."""


def tools_in(body: Json) -> list[Json]:
    """Functions and custom tools as they were sent, without the others. Raises BadField."""
    tools = []
    for place, tool in enumerate(objects_in(body, "tools")):
        at = f"tools[{place}]."
        kind = demand_string(tool, "type", at, "such as function")
        if kind not in _CALLED:
            continue
        demand_string(tool, "name", at, "name the tool")
        string_in(tool, "description", at)
        if kind == "custom":
            _grammar_in(tool, at)
        else:
            object_in(tool, "parameters", at)
            switch_in(tool, "strict", at)
        tools.append(tool)
    return tools


def tool_fields(body: Json, tools: list[Json]) -> Json:
    """`tools`, `tool_choice` and `parallel_tool_calls` of a chat request. Raises BadField."""
    parallel = switch_in(body, "parallel_tool_calls")
    choice, allowed = _choice_in(body, [(tool["type"], tool["name"]) for tool in tools])
    if allowed is not None:
        tools = [tool for tool in tools if (tool["type"], tool["name"]) in allowed]
    if not tools:
        return {}  # engines take a choice for a mistake where there is nothing to choose from
    fields: Json = {"tools": [_of_one_text(tool) if tool["type"] == "custom" else _nested(tool) for tool in tools]}
    if choice is not None:
        fields["tool_choice"] = choice
    if parallel is not None:
        fields["parallel_tool_calls"] = parallel
    return fields


def _nested(function: Json) -> Json:
    nested = {
        "name": function["name"],
        "description": function.get("description") or "",  # a few of the engines' parsers want a text
        "parameters": function.get("parameters") or _TAKES_NOTHING,
    }
    if function.get("strict") is not None:
        nested["strict"] = function["strict"]
    return {"type": "function", "function": nested}


def _of_one_text(tool: Json) -> Json:
    """Engines do not hold a model to the grammar, so it is told of it."""
    said = [tool.get("description") or ""]
    if grammar := _grammar_in(tool, ""):
        syntax, definition = grammar
        said.append(f"`{INPUT}` must follow this {_SYNTAXES.get(syntax, syntax)}:\n{definition}")
    nested = {"name": tool["name"], "description": "\n\n".join(filter(None, said)), "parameters": _TAKES_A_TEXT}
    return {"type": "function", "function": nested}


def _grammar_in(tool: Json, at: str) -> tuple[str, str] | None:
    """Its syntax, and how it is defined. Raises BadField."""
    form, at = object_in(tool, "format", at) or {}, f"{at}format."
    if form.get("type") != "grammar":
        string_in(form, "type", at)
        return None
    syntax = demand_string(form, "syntax", at, "it can be lark or regex")
    return syntax, demand_string(form, "definition", at, "send the grammar")


def _choice_in(body: Json, known: list[_Tool]) -> tuple[str | Json | None, list[_Tool] | None]:
    """Chat's `tool_choice`, and the tools that are allowed; None: all."""
    match body.get("tool_choice"):
        case None:
            return None, None
        case str(mode):
            return _mode(mode, "tool_choice", ("auto", "none", "required"), known), None
        case dict(choice):
            pass
        case other:
            raise wrong_type("tool_choice", "a string or an object", other)
    match demand_string(choice, "type", "tool_choice.", "such as function or allowed_tools"):
        case "function" | "custom" as kind:
            name = demand_string(choice, "name", "tool_choice.", f"say which {_NOUNS[kind]}")
            _demand_known((kind, name), "tool_choice.name", known)
            return {"type": "function", "function": {"name": name}}, None
        case "allowed_tools":
            return _allowed_in(choice, known)
        case kind:
            raise _not_here("tool_choice.type", kind)


def _allowed_in(choice: Json, known: list[_Tool]) -> tuple[str, list[_Tool]]:
    """Engines do not know this choice: they get only the tools that are allowed."""
    if choice.get("tools") is None:
        raise missing("tool_choice.tools", "list the tools that may be called")
    allowed = []
    for place, tool in enumerate(objects_in(choice, "tools", "tool_choice.")):
        at = f"tool_choice.tools[{place}]."
        kind = demand_string(tool, "type", at, "such as function")
        if kind not in _CALLED:
            raise _not_here(f"{at}type", kind)
        name = demand_string(tool, "name", at, f"say which {_NOUNS[kind]}")
        _demand_known((kind, name), f"{at}name", known)
        allowed.append((kind, name))
    mode = demand_string(choice, "mode", "tool_choice.", "it can be auto or required")
    return _mode(mode, "tool_choice.mode", ("auto", "required"), allowed), allowed


def _mode(mode: str, param: str, modes: tuple[str, ...], known: list[_Tool]) -> str:
    if mode not in modes:
        raise bad_value(param, f'`{param}` is "{mode[:40]}"; it can be one of {", ".join(modes)}.')
    if mode == "required" and not known:
        raise bad_value(param, f"`{param}` demands a call, and there is nothing to call among the tools.")
    return mode


def _demand_known(tool: _Tool, param: str, known: list[_Tool]) -> None:
    if tool not in known:
        kind, name = tool
        raise bad_value(param, f'`{param}` is "{name[:64]}", and there is no such {_NOUNS[kind]} among the tools.')


def _not_here(param: str, kind: str) -> BadField:
    return bad_value(
        param, f'`{param}` is "{kind[:40]}", a tool that this gateway does not have: it can be function or custom.'
    )
