"""OpenAI's requests for pictures: a prompt in, or a picture to change; one or several out, each of which takes a slot."""

from __future__ import annotations

from forebay_gateway.asked import Asked
from forebay_gateway.canonical.fields import count_in, flag_in, model_if_said, parse_object, wrong_type
from forebay_gateway.canonical.forms import IMAGE, IMAGE_EDIT
from forebay_gateway.canonical.upload import Upload
from forebay_gateway.refused import BadField

MOST_PICTURES = 10
_NEARLY_NONE = 1  # tokens that it makes: pictures are not counted in them


def parse_image(raw: bytes) -> Asked:
    """Raises BadField."""
    body = parse_object(raw, "`prompt`")
    model = model_if_said(body)
    prompt = body.get("prompt")
    if not isinstance(prompt, str):
        raise wrong_type("prompt", "a string", prompt)
    if not prompt:
        raise BadField("`prompt` is empty: say what to draw.", param="prompt", code="invalid_value")
    if flag_in(body, "stream"):
        raise BadField(
            "Pictures are not streamed here: leave `stream` out and wait for the whole one.",
            param="stream",
            code="unsupported_value",
        )
    pictures = count_in(body, "n", most=MOST_PICTURES) or 1
    return Asked(IMAGE, model, False, pictures, pictures, 1, _NEARLY_NONE, False, body, raw)


def parse_image_edit(upload: Upload) -> Asked:
    """Raises BadField."""
    model = model_if_said({"model": upload.text("model")})
    if not upload.has_file("image", "image[]"):
        raise BadField(
            "`image` is missing: send the picture to change as a file in a multipart form.",
            param="image",
            code="missing_required_parameter",
        )
    pictures = _pictures(upload.text("n"))
    return Asked(IMAGE_EDIT, model, False, pictures, pictures, 1, _NEARLY_NONE, False, {}, b"", upload=upload)


def _pictures(told: str | None) -> int:
    if told is None:
        return 1
    if not (told.isascii() and told.isdigit() and len(told) < 4 and 1 <= int(told) <= MOST_PICTURES):
        raise BadField(f"`n` is {told[:20]!r}; it must be from 1 to {MOST_PICTURES}.", param="n", code="invalid_value")
    return int(told)
