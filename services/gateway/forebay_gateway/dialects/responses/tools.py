"""The functions that a model may call, and whether it must.

Tools that are not functions run on the servers of their vendor, such as a web search. Agents name them by default and do
without them where there are none, so they are left out. A choice that insists on one of them cannot be kept."""

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
from forebay_gateway.refused import BadField

_TAKES_NOTHING: Json = {"type": "object", "properties": {}}


def functions_in(body: Json) -> list[Json]:
    """As they were sent, without the other tools. Raises BadField."""
    functions = []
    for place, tool in enumerate(objects_in(body, "tools")):
        at = f"tools[{place}]."
        if demand_string(tool, "type", at, "such as function") != "function":
            continue
        demand_string(tool, "name", at, "name the function")
        string_in(tool, "description", at)
        object_in(tool, "parameters", at)
        switch_in(tool, "strict", at)
        functions.append(tool)
    return functions


def tool_fields(body: Json, functions: list[Json]) -> Json:
    """`tools`, `tool_choice` and `parallel_tool_calls` of a chat request. Raises BadField."""
    parallel = switch_in(body, "parallel_tool_calls")
    choice, allowed = _choice_in(body, [function["name"] for function in functions])
    if allowed is not None:
        functions = [function for function in functions if function["name"] in allowed]
    if not functions:
        return {}  # engines take a choice for a mistake where there is nothing to choose from
    fields: Json = {"tools": [_nested(function) for function in functions]}
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


def _choice_in(body: Json, names: list[str]) -> tuple[str | Json | None, list[str] | None]:
    """Chat's `tool_choice`, and the names of the functions that are allowed; None: all."""
    match body.get("tool_choice"):
        case None:
            return None, None
        case str(mode):
            return _mode(mode, "tool_choice", ("auto", "none", "required"), names), None
        case dict(choice):
            pass
        case other:
            raise wrong_type("tool_choice", "a string or an object", other)
    match demand_string(choice, "type", "tool_choice.", "such as function or allowed_tools"):
        case "function":
            name = demand_string(choice, "name", "tool_choice.", "say which function")
            _demand_known(name, "tool_choice.name", names)
            return {"type": "function", "function": {"name": name}}, None
        case "allowed_tools":
            return _allowed_in(choice, names)
        case kind:
            raise _not_here("tool_choice.type", kind)


def _allowed_in(choice: Json, names: list[str]) -> tuple[str, list[str]]:
    """Engines do not know this choice: they get only the tools that are allowed."""
    if choice.get("tools") is None:
        raise missing("tool_choice.tools", "list the functions that may be called")
    allowed = []
    for place, tool in enumerate(objects_in(choice, "tools", "tool_choice.")):
        at = f"tool_choice.tools[{place}]."
        kind = demand_string(tool, "type", at, "such as function")
        if kind != "function":
            raise _not_here(f"{at}type", kind)
        name = demand_string(tool, "name", at, "say which function")
        _demand_known(name, f"{at}name", names)
        allowed.append(name)
    mode = demand_string(choice, "mode", "tool_choice.", "it can be auto or required")
    return _mode(mode, "tool_choice.mode", ("auto", "required"), allowed), allowed


def _mode(mode: str, param: str, modes: tuple[str, ...], names: list[str]) -> str:
    if mode not in modes:
        raise bad_value(param, f'`{param}` is "{mode[:40]}"; it can be one of {", ".join(modes)}.')
    if mode == "required" and not names:
        raise bad_value(param, f"`{param}` demands a call, and there is no function among the tools.")
    return mode


def _demand_known(name: str, param: str, names: list[str]) -> None:
    if name not in names:
        raise bad_value(param, f'`{param}` is "{name[:64]}", and there is no such function among the tools.')


def _not_here(param: str, kind: str) -> BadField:
    return bad_value(param, f'`{param}` is "{kind[:40]}", a tool that this gateway does not have: it can be function.')
