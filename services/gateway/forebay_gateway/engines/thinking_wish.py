"""How much a model should think, as OpenAI's clients say it and as chat templates are told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from forebay_gateway.refused import BadField


class Effort(StrEnum):
    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


def wished_effort(fields: Mapping[str, Any]) -> Effort | None:
    """None: as the model is used to. Raises BadField."""
    template = fields.get("chat_template_kwargs")
    thinks = template.get("enable_thinking") if isinstance(template, dict) else None
    if thinks is False:
        return Effort.NONE
    told = fields.get("reasoning_effort")
    if told is None:
        return Effort.MEDIUM if thinks is True else None
    if not isinstance(told, str) or told not in set(Effort):
        raise BadField(
            f"`reasoning_effort` can be {', '.join(Effort)}.", param="reasoning_effort", code="invalid_value"
        )
    return Effort(told)
