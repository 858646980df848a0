"""GET /v1/models: what a key may ask for, in Anthropic's shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.typed import bad_value
from forebay_gateway.fleet import OfferedModel
from forebay_gateway.refused import BadField

_MOST = 1000
"""On one page. Anthropic gives 20 to those who name no limit; many a client looks at the first page alone."""


def list_models(offered: Sequence[OfferedModel], created: int, query: Mapping[str, str]) -> Json:
    """A page: `limit` models after the one that is `after_id`, or before `before_id`. `created`: seconds since the epoch;
    Anthropic's shape wants a moment, and engines do not tell. Raises BadField."""
    limit, names = _limit(query), [model.name for model in offered]
    after, before = _place(query, "after_id", names), _place(query, "before_id", names)
    if after is not None and before is not None:
        raise BadField("`after_id` and `before_id` exclude each other: name one.", param="before_id")
    if before is not None:
        start, end = max(0, before - limit), before
        has_more = start > 0
    else:
        start = 0 if after is None else after + 1
        end = start + limit
        has_more = end < len(offered)
    models = [show_model(model, created) for model in offered[start:end]]
    return {
        "data": models,
        "has_more": has_more,
        "first_id": models[0]["id"] if models else None,
        "last_id": models[-1]["id"] if models else None,
    }


def _limit(query: Mapping[str, str]) -> int:
    given = query.get("limit", str(_MOST))
    if not (given.isascii() and given.isdecimal() and len(given) < 6 and 1 <= int(given) <= _MOST):
        raise bad_value("limit", f"`limit` is {given[:40]!r}; it must be a whole number from 1 to {_MOST}.")
    return int(given)


def _place(query: Mapping[str, str], name: str, names: Sequence[str]) -> int | None:
    given = query.get(name)
    if not given:
        return None
    if given not in names:
        raise bad_value(name, f"`{name}` is {given[:256]!r}, and there is no such model for this API key.")
    return names.index(given)


def show_model(model: OfferedModel, created: int) -> Json:
    moment = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    shape: Json = {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": moment,
        "lifecycle": "active",
    }
    if model.context_length is not None:
        shape["max_input_tokens"] = model.context_length
    return shape
