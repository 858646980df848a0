"""What tools other than functions did, as calls of functions and their outputs, which is what chat has for it. Pure.

Clients carry such items in their histories whether or not the model that goes on knows the tools. What a vendor's server
did is told as far as the item has words for it; where it has none, it is left out: a call without an output is more than
many templates take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.typed import bad_value, demand_string, missing, object_in, objects_in, string_in
from forebay_gateway.dialects.responses.input_text import as_arguments

_WITHOUT_WORDS = (
    "additional_tools",
    "compaction",
    "compaction_trigger",
    "context_compaction",
    "ghost_snapshot",
    "image_generation_call",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_list_tools",
    "program",
    "program_output",
    "web_search_call",
)


def as_functions(item: Json, at: str) -> list[Json] | None:
    """None: it is something else. Raises BadField."""
    kind = item.get("type")
    if kind in _WITHOUT_WORDS:
        return []
    tell = _TOLD.get(kind) if isinstance(kind, str) else None
    return None if tell is None else tell(item, at)


def _custom_call(item: Json, at: str) -> list[Json]:
    text = demand_string(item, "input", at, "it is what the tool was given")
    return [{**item, "type": "function_call", "arguments": as_arguments(text)}]


def _custom_output(item: Json, at: str) -> list[Json]:
    return [{**item, "type": "function_call_output"}]


def _call_with(name: str, *fields: str) -> Callable[[Json, str], list[Json]]:
    """`fields`: the first that is there has the arguments."""

    def tell(item: Json, at: str) -> list[Json]:
        given: Any = next((item[field] for field in fields if item.get(field) is not None), {})
        return [_call(_call_id(item, at), name, given, at)]

    return tell


def _output_by(read: Callable[[Json, str], Any]) -> Callable[[Json, str], list[Json]]:
    return lambda item, at: [_output(_call_id(item, at), read(item, at))]


def _text_or_status(item: Json, at: str) -> str:
    return string_in(item, "output", at) or string_in(item, "status", at) or ""


def _shell_output(item: Json, at: str) -> str:
    told = []
    for place, ran in enumerate(objects_in(item, "output", at)):
        there = f"{at}output[{place}]."
        outcome = object_in(ran, "outcome", there) or {}
        said = [string_in(ran, "stdout", there), string_in(ran, "stderr", there)]
        code = outcome.get("exit_code")
        ended = f"exit code {code}" if isinstance(code, int) else string_in(outcome, "type", f"{there}outcome.")
        told.append("\n".join(text for text in (*said, ended) if text))
    return "\n".join(told)


def _screenshot(item: Json, at: str) -> list[Json]:
    shown = object_in(item, "output", at)
    if shown is None:
        raise missing(f"{at}output", "send the screenshot")
    return [{**shown, "type": "input_image"}]


def _found_tools(item: Json, at: str) -> str:
    return _dumped(item.get("tools") or [], f"{at}tools")


def _file_search(item: Json, at: str) -> list[Json]:
    found = [
        "\n".join(text for name in ("filename", "text") if (text := string_in(result, name, f"{at}results[{place}].")))
        for place, result in enumerate(objects_in(item, "results", at))
    ]
    return _pair(item, "file_search", {"queries": item.get("queries")}, "\n\n".join(found), at)


def _interpreted(item: Json, at: str) -> list[Json]:
    logs = [string_in(output, "logs", f"{at}outputs[{n}].") for n, output in enumerate(objects_in(item, "outputs", at))]
    return _pair(item, "code_interpreter", {"code": item.get("code")}, "\n".join(log for log in logs if log), at)


def _mcp_call(item: Json, at: str) -> list[Json]:
    name = demand_string(item, "name", at, "say which tool was called")
    output, error = string_in(item, "output", at), item.get("error")
    if output is None and error is not None:
        output = error if isinstance(error, str) else _dumped(error, f"{at}error")
    return _pair(item, name, string_in(item, "arguments", at) or "{}", output or "", at)


_TOLD: dict[str, Callable[[Json, str], list[Json]]] = {
    "custom_tool_call": _custom_call,
    "custom_tool_call_output": _custom_output,
    "local_shell_call": _call_with("local_shell", "action"),
    "local_shell_call_output": _output_by(_text_or_status),
    "shell_call": _call_with("shell", "action"),
    "shell_call_output": _output_by(_shell_output),
    "apply_patch_call": _call_with("apply_patch", "operation"),
    "apply_patch_call_output": _output_by(_text_or_status),
    "computer_call": _call_with("computer", "action", "actions"),
    "computer_call_output": _output_by(_screenshot),
    "tool_search_call": _call_with("tool_search", "arguments"),
    "tool_search_output": _output_by(_found_tools),
    "file_search_call": _file_search,
    "code_interpreter_call": _interpreted,
    "mcp_call": _mcp_call,
}
KINDS = (*_TOLD, *_WITHOUT_WORDS)


def _pair(item: Json, name: str, given: Any, output: str, at: str) -> list[Json]:
    """Of a call that was made elsewhere."""
    if not output:
        return []
    id = _call_id(item, at)
    return [_call(id, name, given, at), _output(id, output)]


def _call_id(item: Json, at: str) -> str:
    """Some call it the item's own."""
    return string_in(item, "call_id", at) or demand_string(item, "id", at, "say which call it is")


def _call(id: str, name: str, given: Any, at: str) -> Json:
    arguments = (
        given if isinstance(given, str) else _dumped(given if isinstance(given, dict) else {"actions": given}, at)
    )
    return {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}


def _output(id: str, output: Any) -> Json:
    return {"type": "function_call_output", "call_id": id, "output": output}


def _dumped(value: Any, at: str) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:
        raise bad_value(at.rstrip("."), f"`{at.rstrip('.')}` is nested too deeply.") from error
