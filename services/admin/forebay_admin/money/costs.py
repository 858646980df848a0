"""What one request costs by its prices: whole micro-units, rounded once a request, half up. Pure, and no number in it is a
float. Which prices were in force is the price book's business."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

from forebay_admin.money.prices import Hardware, Prices, Tier

MILLION = 1_000_000
MOST_COST = 10**18
"""A million million; a request that costs more was counted wrong."""
_MS_IN_HOUR = 3_600_000
_WATTS_IN_KILOWATT = 1000
_HARDWARE = _MS_IN_HOUR * _WATTS_IN_KILOWATT


class Unbilled(StrEnum):
    """Why a request was not charged."""

    NO_PRICE = "no_price"
    """Nothing had a price for its model when it started."""
    REFUSED = "refused"
    NO_OUTPUT = "no_output"
    """It failed or was cancelled before anything of an answer came."""
    USAGE_UNKNOWN = "usage_unknown"
    """It was served, and nobody knows what it used."""
    NOBODY = "nobody"
    """It was Forebay's own: no user's key was with it."""
    TOO_MUCH = "too_much"
    """What it is said to have used is more than anybody can pay."""


WHY: Mapping[Unbilled, str] = {
    Unbilled.NO_PRICE: "Nothing had a price for its model when it started; give it one with `forebay price set`.",
    Unbilled.REFUSED: "It was refused, and nothing was done for it.",
    Unbilled.NO_OUTPUT: "It failed or was cancelled before anything of an answer came.",
    Unbilled.USAGE_UNKNOWN: "It was served, but its engine told of no usage and none could be counted.",
    Unbilled.NOBODY: "No user's key was with it.",
    Unbilled.TOO_MUCH: "What it is said to have used would cost more than a million million; it was counted wrong.",
}

Meter = Callable[[int, int, int, int, int, int], int]
"""(prompt tokens, cached ones among them, completion tokens, images, milliseconds of sound, milliseconds that a slot was
busy, times slots) → micro-units."""


def meter_of(prices: Prices) -> Meter:
    """The function that a sink calls for each of many rows: what does not change between them is worked out here."""
    prompt, cached, completion = prices.prompt_micros, prices.cached_prompt_micros, prices.completion_micros
    per_request = prices.request_micros * MILLION
    if not (prices.tiers or prices.hardware or prices.image_micros or prices.audio_second_micros):

        def tokens_alone(p: int, c: int, o: int, images: int, audio_ms: int, busy_ms: int) -> int:
            if c > p:
                c = p
            return ((p - c) * prompt + c * cached + o * completion + per_request + MILLION // 2) // MILLION

        return tokens_alone
    return lambda p, c, o, images, audio_ms, busy_ms: cost_of(prices, p, c, o, images, audio_ms, busy_ms)


def cost_of(
    prices: Prices,
    prompt_tokens: int = 0,
    cached_prompt_tokens: int = 0,
    completion_tokens: int = 0,
    images: int = 0,
    audio_ms: int = 0,
    busy_ms: int = 0,
) -> int:
    """Micro-units. A tier's prices are those of all tokens of the request, as providers have it."""
    cached = min(cached_prompt_tokens, prompt_tokens)
    by = _tier(prices, prompt_tokens)
    parts = (
        (prompt_tokens - cached) * by.prompt_micros
        + cached * by.cached_prompt_micros
        + completion_tokens * by.completion_micros
        + (prices.request_micros + images * prices.image_micros) * MILLION
        + audio_ms * prices.audio_second_micros * (MILLION // 1000)
    )
    if prices.hardware is None:
        return (parts + MILLION // 2) // MILLION
    whole = MILLION * _HARDWARE * prices.hardware.shared_by
    exact = parts * _HARDWARE * prices.hardware.shared_by + _hardware(prices.hardware, busy_ms) * MILLION
    return (2 * exact + whole) // (2 * whole)


def _tier(prices: Prices, prompt_tokens: int) -> Prices | Tier:
    reached: Prices | Tier = prices
    for tier in prices.tiers:
        if prompt_tokens < tier.from_prompt_tokens:
            break
        reached = tier
    return reached


def _hardware(hardware: Hardware, busy_ms: int) -> int:
    """In parts of `_HARDWARE * shared_by`: GPU-milliseconds, times what an hour of one costs, its energy included."""
    hour = hardware.gpu_hour_micros * _WATTS_IN_KILOWATT + hardware.gpu_watts * hardware.kwh_micros
    return busy_ms * hardware.gpus * hour


def asks_for_usage(prices: Prices) -> bool:
    """Nothing of it is known without tokens, images or seconds."""
    return not prices.request_micros and prices.hardware is None
