"""OpenAI's moderation request: texts in, a judgement of each out, where a backend serves it."""

from __future__ import annotations

from forebay_gateway.asked import Asked
from forebay_gateway.canonical.fields import model_if_said, parse_object, wrong_type
from forebay_gateway.canonical.forms import MODERATION
from forebay_gateway.refused import BadField


def parse_moderation(raw: bytes) -> Asked:
    """Raises BadField."""
    body = parse_object(raw, "`input`")
    model = model_if_said(body)
    given = body.get("input")
    if not isinstance(given, str | list):
        raise wrong_type("input", "a string, or a list of strings or parts", given)
    if not given:
        raise BadField(
            "`input` is empty: send the text to judge, or a list of texts.", param="input", code="invalid_value"
        )
    inputs = len(given) if isinstance(given, list) else 1
    nearly_none = 1  # tokens that it makes
    return Asked(MODERATION, model, False, 1, inputs, 1, nearly_none, False, body, raw)
