"""What is looked at and done to an Ollama engine's own answer whose form its client cares for. Pure."""

from __future__ import annotations

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.canonical.structured import Answer, Mending, unfenced
from forebay_gateway.dialects.ollama.parts import AnswerForm


def answer_in(told: Json, form: AnswerForm) -> Answer:
    """Of an answer, or of a piece of one."""
    heard = form.hear(told)
    return Answer(heard.text, told.get("done_reason") != "length" and not heard.tool_calls)


def mended_answer(told: Json, form: AnswerForm, mending: Mending) -> Json:
    """A whole one; its counts are those of all times that it was asked for."""
    mended = dict(told)
    heard = form.hear(told)
    if mending.unfences and (inside := unfenced(heard.text)) is not heard.text:
        said = {form.text: inside}
        mended |= {"message": {**told["message"], **said}} if form.in_message else said
    if mending.before is not None:
        used = mending.before.usage
        for name, more in (("prompt_eval_count", used.prompt), ("eval_count", used.completion)):
            count = told.get(name)
            mended[name] = more + (count if isinstance(count, int) else 0)
    return mended
