"""What each word that says why a request was not served means for people, and what they can do about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from forebay.errors import Refusal


@dataclass(frozen=True, slots=True)
class Advice:
    means: str
    do: str


ADVICE: Mapping[Refusal, Advice] = {
    Refusal.INVALID_KEY: Advice(
        "No key that Forebay knows came with it.",
        "Check that the whole key is sent, as `authorization: Bearer fb-…`.",
    ),
    Refusal.KEY_REVOKED: Advice("Its key was revoked.", "Use another key, or create a new one."),
    Refusal.KEY_EXPIRED: Advice("Its key had expired.", "Renew the key, or create a new one."),
    Refusal.KEY_BLOCKED: Advice(
        "Its key was blocked.", "Ask whoever blocked it; the key's page says why and until when."
    ),
    Refusal.ADDRESS_DENIED: Advice(
        "It came from an address that may not use this key, or Forebay at all.",
        "Call from an allowed network, or have the rules for addresses changed.",
    ),
    Refusal.ADDRESS_BANNED: Advice(
        "It came from an address that is banned.", "Wait until the ban ends, or have it lifted on the security page."
    ),
    Refusal.NOT_ALLOWED: Advice(
        "Its key may not do this.", "Look at the key's models, pools and calls, or use a key that may."
    ),
    Refusal.NOT_FOUND: Advice("What it asked for does not exist.", "Check the address and the names in the request."),
    Refusal.BAD_REQUEST: Advice(
        "It could not be understood.", "The answer named what was wrong; correct that and send it again."
    ),
    Refusal.BODY_TOO_LARGE: Advice("Its body was larger than what is taken.", "Send less, or smaller files."),
    Refusal.CONTEXT_TOO_LONG: Advice(
        "Its prompt is longer than the model, or a rule, allows.",
        "Shorten the prompt, or use a model with a longer context.",
    ),
    Refusal.WIDTH_TOO_LARGE: Advice(
        "It asked for more answers at once than any backend has slots.", "Ask for fewer (`n`, or prompts at once)."
    ),
    Refusal.MODEL_UNKNOWN: Advice(
        "No backend has a model of that name.",
        "Choose one from the list of models, or have an alias made for the name.",
    ),
    Refusal.NO_BACKEND: Advice(
        "No healthy backend served its model.",
        "Look at the backends that have the model: they are unwell, drained or disabled.",
    ),
    Refusal.QUEUE_FULL: Advice(
        "Its user had as many requests waiting as one user may have.", "Send fewer at once, or have the limit raised."
    ),
    Refusal.QUEUE_TIMEOUT: Advice(
        "It waited as long as it may, and its turn did not come.",
        "The pool is busier than it can serve: send it later or in another band, or add backends.",
    ),
    Refusal.QUOTA_SPENT: Advice(
        "A budget or a balance that it counts against is spent.",
        "Wait until the budget's period ends, ask for more quota, or top the balance up.",
    ),
    Refusal.RATE_LIMITED: Advice(
        "More came in a minute than a limit allows.",
        "Send slower, after the time that the answer named, or have the limit raised.",
    ),
    Refusal.CONCURRENCY_LIMITED: Advice(
        "More were under way at once than a limit allows.", "Wait for some to end, or have the limit raised."
    ),
    Refusal.ENGINE_FAILED: Advice(
        "The engines that it was given to failed.",
        "Send it again; if it keeps failing, look at these backends' health and logs.",
    ),
    Refusal.ENGINE_REFUSED: Advice(
        "The engine did not accept it.", "The answer has the engine's own words; correct the request."
    ),
    Refusal.OUTPUT_INVALID: Advice(
        "The answer was not the JSON that was asked for.", "Send it again, loosen the schema, or use a larger model."
    ),
    Refusal.JOURNAL_FULL: Advice(
        "The gateway could not write down what it serves: its disk is full or the bus is away for long.",
        "Make room on the gateway's disk, and look whether the bus answers.",
    ),
    Refusal.NO_SCHEDULER: Advice(
        "No scheduler led, and the gateway had no slots lent to it.",
        "Send it again in a few seconds; if it stays so, look at the schedulers.",
    ),
    Refusal.STATE_UNAVAILABLE: Advice(
        "What is kept for clients (conversations, files) could not be read or written.",
        "Look whether admin and its database answer.",
    ),
    Refusal.STARTING: Advice("A part of Forebay was starting, or away.", "Send it again in a few seconds."),
    Refusal.DRAINING: Advice(
        "Its backend or gateway was being emptied, and the time for that was over.",
        "Send it again: it goes to another one.",
    ),
    Refusal.INTERNAL: Advice(
        "Something went wrong inside Forebay.", "Look for the request's id in the gateway's log, and report it."
    ),
}


def advice(reason: str) -> Advice | None:
    """None for a word that is none of ours, such as an engine's."""
    try:
        return ADVICE[Refusal(reason)]
    except ValueError:
        return None
