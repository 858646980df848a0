"""What model rules do, in words, and the values that people write for their fields. Pure."""

from __future__ import annotations

import json

from forebay.wire.v1 import admin_pb2
from forebay_admin.json_form import plain

THINKING = {
    "off": admin_pb2.MODEL_THINKING_OFF,
    "usual": admin_pb2.MODEL_THINKING_USUAL,
    "none": admin_pb2.MODEL_THINKING_UNSPECIFIED,
}
STRUCTURED = {
    "trust": admin_pb2.STRUCTURED_OUTPUT_TRUST,
    "check": admin_pb2.STRUCTURED_OUTPUT_CHECK,
    "ask_again": admin_pb2.STRUCTURED_OUTPUT_ASK_AGAIN,
    "none": admin_pb2.STRUCTURED_OUTPUT_UNSPECIFIED,
}
_CAPS = (
    ("max_output_tokens", "at most {} output tokens"),
    ("num_ctx", "num_ctx at most {}"),
    ("keep_alive_s", "keep_alive at most {} s"),
    ("max_context_tokens", "at most {} tokens in a prompt"),
)


def effects(told: admin_pb2.ModelRule) -> list[str]:
    effects = [f"default {name}={text}" for name, text in sorted(told.defaults.items())]
    effects += [f"pinned {name}={text}" for name, text in sorted(told.pinned.items())]
    effects += [words.format(f"{getattr(told, name):,}") for name, words in _CAPS if told.HasField(name)]  # type: ignore[arg-type]
    told_plainly = plain(told)
    words = (("thinking", told_plainly["thinking"]), ("structured output:", told_plainly["structured"]))
    return effects + [f"{what} {word.replace('_', ' ')}" for what, word in words if word]


def whose(scope: admin_pb2.ModelRuleScope) -> str:
    field = scope.WhichOneof("of")
    return (
        "everybody" if field is None or field == "everyone" else f"{field.removesuffix('_id')} {getattr(scope, field)}"
    )


def as_json_text(text: str) -> str:
    """What is no JSON is plain text."""
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    return text


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")
