"""What a request says about keeping, and what its items are when they are kept. Pure: where they lie is `contents`'
business."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.fields import wrong_type
from forebay_gateway.canonical.typed import demand_string, string_in, switch_in
from forebay_gateway.dialects.responses.items import NewId, new_id
from forebay_gateway.dialects.responses.thoughts import Thoughts
from forebay_gateway.refused import BadField

_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
}
_CUT_OFF = ("function_call", "custom_tool_call")


@dataclass(frozen=True, slots=True)
class Wish:
    store: bool | None
    """None: the client does not say."""
    previous_response_id: str | None
    conversation_id: str | None
    background: bool = False

    @property
    def builds_on_kept(self) -> bool:
        return self.previous_response_id is not None or self.conversation_id is not None


@dataclass(frozen=True, slots=True)
class Ground:
    """What a response builds on."""

    items: list[Json] = field(default_factory=list)
    """They go in front of its input."""
    echo: Json = field(default_factory=dict)
    """What it says of that."""
    thoughts: Thoughts | None = None
    """Of its user; None: nothing is concealed or revealed."""


def wish_in(body: Json) -> Wish:
    """Raises BadField."""
    wish = Wish(
        switch_in(body, "store"),
        string_in(body, "previous_response_id"),
        _conversation_in(body),
        bool(switch_in(body, "background")),
    )
    if wish.background and wish.store is False:
        raise BadField(
            "`background` is true, and a response in the background has to be stored: leave `store` out, or set it to true.",
            param="background",
            code="invalid_value",
        )
    if wish.previous_response_id is not None and wish.conversation_id is not None:
        raise BadField(
            "`previous_response_id` and `conversation` exclude each other: name what the response goes on from once.",
            param="conversation",
            code="mutually_exclusive_parameters",
        )
    return wish


def input_items(body: Json, named: NewId = new_id) -> list[Json]:
    """The input of a request that was checked, as items to keep."""
    told = body.get("input")
    if told is None:
        return []
    return kept_items([{"role": "user", "content": told}] if isinstance(told, str) else told, named)


def kept_items(items: Iterable[Json], named: NewId = new_id) -> list[Json]:
    """Each under a new name, since the one that it came with may be that of another item."""
    return [_kept(item, named) for item in items]


def reference_in(item: Any) -> str | None:
    """The id of the item that an entry of the input stands for; None when it is an item itself. Clients may leave the type
    out."""
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        return None
    kind = item.get("type")
    is_reference = kind == "item_reference" or (kind is None and not item.keys() - {"id", "type"})
    return item["id"] if is_reference else None


def tellable(items: Iterable[Json]) -> list[Json]:
    """Those of kept items that a model can go on from. A call that was cut off in its arguments was never made."""
    return [item for item in items if not (item.get("type") in _CUT_OFF and item.get("status") == "incomplete")]


def _conversation_in(body: Json) -> str | None:
    match body.get("conversation"):
        case None:
            return None
        case str(name):
            return name
        case dict(conversation):
            return demand_string(conversation, "id", "conversation.", "say which conversation")
        case other:
            raise wrong_type("conversation", "a string or an object", other)


def _kept(item: Json, named: NewId) -> Json:
    kind = item.get("type") or "message"
    kept = {**item, "id": named(_PREFIXES.get(kind, "item")), "type": kind}
    if kind == "local_shell_call_output" and "call_id" not in item and "id" in item:
        kept["call_id"] = item["id"]  # its id is that of the call
    kept["status"] = item.get("status") or "completed"
    if kind == "message":
        kept["content"] = _content(item["content"], item.get("role"))
    return kept


def _content(content: Any, role: Any) -> Any:
    if not isinstance(content, str):
        return content
    if role == "assistant":
        return [{"type": "output_text", "text": content, "annotations": [], "logprobs": []}]
    return [{"type": "input_text", "text": content}]
