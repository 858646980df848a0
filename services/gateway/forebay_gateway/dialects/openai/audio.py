"""OpenAI's requests about speech: a text in and sound out, or a recording in and its words out.

Each takes one slot, and what comes back passes byte by byte, in whichever format the client asked for."""

from __future__ import annotations

from forebay_gateway.asked import Asked
from forebay_gateway.canonical.fields import model_in, model_of, parse_object, wrong_type
from forebay_gateway.canonical.forms import SPEECH, TRANSCRIPTION, TRANSLATION, Form
from forebay_gateway.canonical.upload import Upload
from forebay_gateway.refused import BadField

_NEARLY_NONE = 1  # tokens that it makes: sound is not counted in them


def parse_speech(raw: bytes) -> Asked:
    """Raises BadField."""
    body = parse_object(raw, "`model`, `input` and `voice`")
    model = model_in(body)
    text = body.get("input")
    if not isinstance(text, str):
        raise wrong_type("input", "a string", text)
    if not text:
        raise BadField("`input` is empty: send the text to speak.", param="input", code="invalid_value")
    return Asked(SPEECH, model, False, 1, 1, 1, _NEARLY_NONE, False, body, raw)


def parse_transcription(upload: Upload) -> Asked:
    """Raises BadField."""
    return _of_recording(TRANSCRIPTION, upload)


def parse_translation(upload: Upload) -> Asked:
    """Raises BadField."""
    return _of_recording(TRANSLATION, upload)


def _of_recording(form: Form, upload: Upload) -> Asked:
    model = model_of(upload.text("model"))
    if not upload.has_file("file"):
        raise BadField(
            "`file` is missing: send the recording as a file in a multipart form.",
            param="file",
            code="missing_required_parameter",
        )
    return Asked(form, model, False, 1, 1, 1, _NEARLY_NONE, False, {}, b"", upload=upload)
