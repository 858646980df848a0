"""What Anthropic's API refuses, by its documentation (https://platform.claude.com/docs/en/api/messages). Pure."""

from __future__ import annotations

import re
from typing import Any

from tests.fakes.provider import Json, Refused, fields_in

SIGNATURE = "EqQBCgIYAhIM"
VERSION = "2023-06-01"
WITHOUT_SAMPLING = "2026-10-21"
"""The version after that. The official clients speak it from their latest majors on, with the key as a bearer token."""
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_SAMPLING = "temperature top_p top_k"
_MCP_BETAS = ("mcp-client-2025-04-04", "mcp-client-2025-11-20")
_OWN_TOOLS = {
    "bash_20250124": ("bash", "input_examples"),
    "text_editor_20250728": ("str_replace_based_edit_tool", "input_examples max_characters"),
    "web_search_20250305": ("web_search", "allowed_domains blocked_domains max_uses user_location"),
    "code_execution_20250825": ("code_execution", ""),
}
"""Type → the name that it must have, and what else it can have; of tools that have no schema of their client's."""
_BETA_TOOLS = {"computer_20250124": "computer-use-2025-01-24"}
_RESULTS = {"web_search_tool_result", "code_execution_tool_result", "bash_code_execution_tool_result"}
_SOURCES = {
    "image": {"base64": "media_type data", "url": "url", "file": "file_id"},
    "document": {
        "base64": "media_type data",
        "text": "media_type data",
        "content": "content",
        "url": "url",
        "file": "file_id",
    },
}
"""Block → its kinds of sources → what they must have."""
_MEDIA_TYPES = {
    ("image", "base64"): ("image/jpeg", "image/png", "image/gif", "image/webp"),
    ("document", "base64"): ("application/pdf",),
    ("document", "text"): ("text/plain",),
}


def check_request(body: Any, beta: str = "", version: str = VERSION) -> None:
    """Raises Refused."""
    sampling = _SAMPLING if version == VERSION else ""
    allowed = "context_management" if beta else ""
    if any(known in beta for known in _MCP_BETAS):
        allowed += " mcp_servers"
    fields_in(
        body,
        "",
        "model max_tokens messages",
        f"system metadata stop_sequences stream tools tool_choice thinking output_config cache_control service_tier "
        f"container {sampling} {allowed}",
    )
    if not isinstance(body["max_tokens"], int) or body["max_tokens"] < 1:
        raise _bad("max_tokens: Input should be greater than or equal to 1")
    for stop in body.get("stop_sequences") or ():
        if not stop.strip():
            raise _bad("stop_sequences: each stop sequence must contain non-whitespace")
    if "metadata" in body:
        fields_in(body["metadata"], "metadata.", "", "user_id")
    if isinstance(body.get("system"), list):
        for block in body["system"]:
            _check_text(fields_in(block, "system.", "type text", "cache_control"))
    elif "system" in body and not body["system"].strip():
        raise _bad("system: text must be non-empty")
    if not 0 <= (body.get("temperature") or 0) <= 1:
        raise _bad("temperature: range: 0..1")
    _check_tools(body, beta)
    for server in body.get("mcp_servers") or ():
        fields_in(server, "mcp_servers.", "type url name", "authorization_token tool_configuration")
    _check_thinking(body)
    _check_output(body)
    _check_messages(body)


def _check_tools(body: Json, beta: str) -> None:
    for tool in body.get("tools") or ():
        if tool.get("type", "custom") != "custom":
            _check_own_tool(tool, beta)
            continue
        fields_in(tool, "tools.", "name input_schema", "type description cache_control strict")
        if not _NAME.fullmatch(tool["name"]):
            raise _bad("tools.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'")
        if tool["input_schema"].get("type") != "object":
            raise _bad("tools.input_schema.type: Field required")
    choice = body.get("tool_choice")
    if choice is None:
        return
    if not body.get("tools"):
        raise _bad("tool_choice may only be specified while providing tools")
    match choice.get("type"):
        case "auto" | "any":
            fields_in(choice, "tool_choice.", "type", "disable_parallel_tool_use")
        case "tool":
            fields_in(choice, "tool_choice.", "type name", "disable_parallel_tool_use")
            if choice["name"] not in [tool["name"] for tool in body["tools"]]:
                raise _bad(f"Tool '{choice['name']}' not found in provided tools")
        case "none":
            fields_in(choice, "tool_choice.", "type")
        case other:
            raise _bad(f"tool_choice: Input tag '{other}' does not match any of the expected tags")


def _check_own_tool(tool: Json, beta: str) -> None:
    kind = tool["type"]
    if kind in _BETA_TOOLS and _BETA_TOOLS[kind] in beta:
        fields_in(tool, "tools.", "type name display_width_px display_height_px", "display_number cache_control")
        return
    if kind not in _OWN_TOOLS:
        raise _bad(f"tools: Input tag '{kind}' found using 'type' does not match any of the expected tags")
    name, more = _OWN_TOOLS[kind]
    if fields_in(tool, "tools.", "type name", f"cache_control strict {more}")["name"] != name:
        raise _bad(f"tools.name: Input should be '{name}'")


def _check_thinking(body: Json) -> None:
    thinking = body.get("thinking")
    if thinking is None:
        return
    match thinking.get("type"):
        case "enabled":
            fields_in(thinking, "thinking.", "type budget_tokens", "display")
            if not 1024 <= thinking["budget_tokens"] < body["max_tokens"]:
                raise _bad("`max_tokens` must be greater than `thinking.budget_tokens`, which is at least 1024")
        case "adaptive":
            fields_in(thinking, "thinking.", "type", "display")
        case "disabled":
            fields_in(thinking, "thinking.", "type")
            return
        case other:
            raise _bad(f"thinking: Input tag '{other}' does not match any of the expected tags")
    if body.get("temperature") not in (None, 1) or "top_k" in body:
        raise _bad("`temperature` may only be set to 1 when thinking is enabled")
    if body.get("tool_choice", {}).get("type") in ("any", "tool"):
        raise _bad("Thinking may not be enabled when tool_choice forces tool use.")


def _check_output(body: Json) -> None:
    config = fields_in(body.get("output_config") or {}, "output_config.", "", "effort format")
    if config.get("effort") not in (None, "low", "medium", "high", "xhigh", "max"):
        raise _bad("output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'")
    wanted = config.get("format")
    if wanted is not None:
        fields_in(wanted, "output_config.format.", "type schema")
        _check_closed(wanted["schema"])


def _check_closed(schema: Any) -> None:
    if isinstance(schema, list):
        for inner in schema:
            _check_closed(inner)
    elif isinstance(schema, dict):
        if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
            raise _bad(
                "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly false"
            )
        for inner in schema.values():
            _check_closed(inner)


def _check_messages(body: Json) -> None:
    messages = body["messages"]
    if not messages:
        raise _bad("messages: at least one message is required")
    if messages[0].get("role") != "user":
        raise _bad('messages: first message must use the "user" role')
    called: list[str] = []
    for number, message in enumerate(messages):
        where = f"messages.{number}."
        fields_in(message, where, "role content")
        if message["role"] not in ("user", "assistant"):
            raise _bad(f"{where}role: Input should be 'user' or 'assistant'")
        if number and message["role"] == messages[number - 1]["role"]:
            raise _bad(f'{where}role: roles must alternate between "user" and "assistant"')
        blocks = blocks_in(message["content"])
        if not blocks:
            raise _bad(f"{where}content: must be non-empty")
        for block in blocks:
            _check_block(block, message["role"], where)
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if [block["type"] for block in blocks[: len(results)]] != ["tool_result"] * len(results):
            raise _bad(f"{where}content: tool_result blocks must come first")
        if sorted(results) != sorted(called):
            raise _bad(f"{where}content: each tool_use block must have a corresponding tool_result in the next message")
        called = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if called and not body.get("tools"):
            raise _bad("Requests which include `tool_use` or `tool_result` blocks must define tools")
    last = blocks_in(messages[-1]["content"])[-1]
    if messages[-1]["role"] == "assistant" and last["type"] == "text" and last["text"] != last["text"].rstrip():
        raise _bad("messages: final assistant content cannot end with trailing whitespace")


def _check_block(block: Json, role: str, where: str) -> None:
    match block.get("type"), role:
        case "text", _:
            _check_text(fields_in(block, where, "type text", "cache_control citations"))
        case "image", "user":
            _check_source(fields_in(block, where, "type source", "cache_control"), where)
        case "document", "user":
            _check_source(fields_in(block, where, "type source", "cache_control title context citations"), where)
        case "search_result", "user":
            fields_in(block, where, "type source title content", "cache_control citations")
            for inner in block["content"]:
                _check_text(fields_in(inner, where, "type text", "cache_control citations"))
        case "server_tool_use", "assistant":
            fields_in(block, where, "type id name input", "cache_control")
            if not block["id"].startswith("srvtoolu_"):
                raise _bad(f"{where}server_tool_use.id: String should match pattern '^srvtoolu_[a-zA-Z0-9_]+$'")
        case kind, "assistant" if kind in _RESULTS:
            fields_in(block, where, "type tool_use_id content", "cache_control")
        case "tool_result", "user":
            fields_in(block, where, "type tool_use_id", "content is_error cache_control")
            for inner in blocks_in(block.get("content") or []):
                _check_block(inner, role, where)
        case "tool_use", "assistant":
            fields_in(block, where, "type id name input", "cache_control")
            if not _NAME.fullmatch(block["id"]) or not isinstance(block["input"], dict):
                raise _bad(f"{where}tool_use: id or input is not valid")
        case "thinking", "assistant":
            if fields_in(block, where, "type thinking signature")["signature"] != SIGNATURE:
                raise _bad(f"{where}content: Invalid `signature` in `thinking` block")
        case kind, _:
            raise _bad(f"{where}content: Input tag '{kind}' is not one of the expected tags")


def _check_source(block: Json, where: str) -> None:
    kinds, source = _SOURCES[block["type"]], block["source"]
    kind = source.get("type")
    if kind not in kinds:
        raise _bad(f"{where}source: Input tag '{kind}' does not match any of the expected tags")
    fields_in(source, f"{where}source.", f"type {kinds[kind]}")
    if source.get("media_type") not in _MEDIA_TYPES.get((block["type"], kind), (None,)):
        raise _bad(f"{where}source.media_type: Input should be one of the known types")


def _check_text(block: Json) -> None:
    if not block["text"].strip():
        raise _bad("text content blocks must contain non-whitespace text")


def blocks_in(content: Any) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return list(content)


def _bad(message: str) -> Refused:
    return Refused(400, "invalid_request_error", message)
