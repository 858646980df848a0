"""What starting a request on a backend would cost, in seconds: the expected time to its first token, and what goes with it.

One unit, so that no term outvotes another by its scale. GPU utilisation is not among them: it says nothing about when the
next token comes. To add a term, add it here and to `Candidate`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from forebay_scheduler.placing.choices import Scored
from forebay_scheduler.placing.station import Station


@dataclass(frozen=True, slots=True)
class ScoreRules:
    tpot_slo_s: float = 0.1
    """Slower decoding than this, a token, counts against a backend."""
    slow_decode_weight: float = 0.05
    """Seconds of first token that a second of slow decoding is worth."""
    retry_s: float = 5.0
    """Lost when a backend fails a request."""
    foreign_s: float = 0.3
    """Others use that engine directly, or requests wait inside it."""
    others_weight: float = 1.0
    """Seconds of first token that a second of reading is worth to those who come after: what is cached spares them too."""
    fill_s: float = 0.02
    """A full backend against an empty one: decides between equals."""


def score(
    candidates: Iterable[tuple[Station, int]],
    model: str,
    now: float,
    prompt_tokens: int,
    output_tokens: int,
    rules: ScoreRules,
    load_s: float = 0.0,
) -> list[Scored]:
    """Of each with the tokens of the prompt that its cache is believed to hold. One loop: a call for each costs more."""
    scored: list[Scored] = []
    retry_s = rules.retry_s
    others_weight = rules.others_weight
    fill_s = rules.fill_s
    for station, cached in candidates:
        if cached >= prompt_tokens:
            # The last token is always read: it makes the first of the answer.
            cached = prompt_tokens - 1 if prompt_tokens else 0
        place = station.places[model]
        fit = place.fit
        uncached = prompt_tokens - cached
        prefill = fit.c + uncached * (fit.a + fit.b * (cached + 0.5 * uncached))
        wait = station.wait_s(now) if station.reading else 0.0
        used = station.used
        slots = station.slots
        slow = fill_s * used / slots
        tpot = place.tpot_s
        if tpot > rules.tpot_slo_s:
            slow += rules.slow_decode_weight * (tpot - rules.tpot_slo_s) * output_tokens
        failure = station.failure * retry_s
        guard = others_weight * prefill
        if station.has_foreign:
            guard += _foreign(station, rules)
        if not fit.observations and place.ttft_s is not None:
            # Nothing is known of how it reads: what it took so far, by how full it is.
            wait += place.ttft_s * used / slots
        scored.append(
            (
                station,
                wait + load_s + prefill + slow + failure + guard,
                wait,
                load_s,
                prefill,
                slow,
                failure,
                guard,
                cached,
                slots - used - station.aside,
            )
        )
    return scored


def _foreign(station: Station, rules: ScoreRules) -> float:
    facts = station.facts
    if facts.waiting:
        return rules.foreign_s
    if facts.running is not None and facts.running > station.used:
        return rules.foreign_s * min(1.0, (facts.running - station.used) / station.slots)
    return 0.0
