"""OpenAI's embedding request: texts in, a vector for each out. An engine reads them as one batch, so it takes one slot."""

from __future__ import annotations

from forebay_gateway.asked import Asked
from forebay_gateway.canonical.fields import count_in, model_in, parse_object, texts_in, wrong_type
from forebay_gateway.canonical.forms import EMBEDDING
from forebay_gateway.dialects.openai.base64_vectors import Base64Vectors
from forebay_gateway.refused import BadField

MOST_INPUTS = 2048


def parse_embedding(raw: bytes) -> Asked:
    """Raises BadField."""
    body = parse_object(raw, "`model` and `input`")
    model = model_in(body)
    inputs = texts_in(body, "input", "send the text to embed, or a list of texts")
    if inputs > MOST_INPUTS:
        raise BadField(
            f"`input` has {inputs} texts; one request takes at most {MOST_INPUTS}.", param="input", code="invalid_value"
        )
    count_in(body, "dimensions")
    encoding = body.get("encoding_format")
    if encoding is not None and not isinstance(encoding, str):
        raise wrong_type("encoding_format", '"float" or "base64"', encoding)
    if encoding not in (None, "float", "base64"):
        raise BadField(
            f'`encoding_format` is "{encoding[:40]}"; it can be "float" or "base64".',
            param="encoding_format",
            code="invalid_value",
        )
    nearly_none = 1  # tokens that it makes: without a number the scheduler would expect an answer as long as usual
    translation = Base64Vectors() if encoding == "base64" else None
    return Asked(EMBEDDING, model, False, 1, inputs, 1, nearly_none, False, body, raw, translation=translation)
