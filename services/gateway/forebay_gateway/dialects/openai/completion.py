"""OpenAI's completion request: a text, or several, to be gone on with."""

from __future__ import annotations

from forebay_gateway.asked import Asked
from forebay_gateway.canonical.fields import (
    MOST_CHOICES,
    count_in,
    flag_in,
    include_usage_in,
    models_in,
    parse_object,
    texts_in,
)
from forebay_gateway.canonical.forms import COMPLETION
from forebay_gateway.refused import BadField


def parse_completion(raw: bytes) -> Asked:
    """Raises BadField."""
    body = parse_object(raw, "`model` and `prompt`")
    has_list = "models" in body
    (model, instead), stream = models_in(body), flag_in(body, "stream")
    prompts = texts_in(body, "prompt", "send the text to go on with, or a list of texts")
    samples = count_in(body, "n", most=MOST_CHOICES) or 1
    tried = count_in(body, "best_of", most=MOST_CHOICES) or samples
    if tried < samples:
        raise BadField(
            f"`best_of` is {tried} and `n` is {samples}: the best {samples} of {tried} cannot be told.",
            param="best_of",
            code="invalid_value",
        )
    if prompts * tried > MOST_CHOICES:
        raise BadField(
            f"{prompts} prompts with {tried} answers each are more than the {MOST_CHOICES} that one request may ask for.",
            param="prompt",
            code="invalid_value",
        )
    # With 0 the prompt comes back alone, if `echo` asks for it.
    max_output_tokens = count_in(body, "max_tokens", least=0) or 0
    include_usage = include_usage_in(body)
    return Asked(
        COMPLETION,
        model,
        stream,
        prompts * tried,
        prompts * samples,
        samples,
        max_output_tokens,
        include_usage,
        body,
        b"" if has_list else raw,
        instead=instead,
    )
