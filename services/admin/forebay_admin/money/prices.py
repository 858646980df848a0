"""What a model costs from a moment on. A price is never changed: a new version begins now or later, and what was charged
stays as it was. Pure; keeping them is price_store's job, and what a request costs by them that of `costs`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta

from forebay.errors import BadInput

MOST_MICROS = 10**12
"""A million of money for a million tokens, or for one of whatever else is charged."""
MOST_TIERS = 16
MOST_GPUS, MOST_SHARED, MOST_WATTS = 1024, 100_000, 100_000
MOST_TOKENS = 10**12
FURTHEST = timedelta(days=3 * 366)
"""So far ahead a price may be told: what is further is a mistake in the year."""
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Tier:
    """Prices of tokens for requests with a long prompt, of all their tokens."""

    from_prompt_tokens: int
    prompt_micros: int
    cached_prompt_micros: int
    completion_micros: int


@dataclass(frozen=True, slots=True)
class Hardware:
    """What one's own hardware costs. A request keeps its slots' share of the GPUs busy from its grant to its end."""

    gpus: int = 1
    """That serve the model together."""
    shared_by: int = 1
    """Slots at once among which those GPUs are divided."""
    gpu_watts: int = 0
    """That one of them draws under load."""
    gpu_hour_micros: int = 0
    kwh_micros: int = 0


@dataclass(frozen=True, slots=True)
class Prices:
    """Integer micro-units of money. What is 0 is not charged."""

    prompt_micros: int = 0
    """For a million tokens, as the next two."""
    cached_prompt_micros: int = 0
    completion_micros: int = 0
    request_micros: int = 0
    """For each request that was served."""
    image_micros: int = 0
    """For each image that was made."""
    audio_second_micros: int = 0
    """For each second of sound that was heard or spoken."""
    tiers: tuple[Tier, ...] = ()
    """By `from_prompt_tokens`, upwards; the last that a prompt reaches goes before the three prices above."""
    hardware: Hardware | None = None


@dataclass(frozen=True, slots=True)
class PriceVersion:
    id: int
    """0: not kept yet."""
    model: str
    """A name in the fleet, or a pattern in which * stands for anything."""
    starts_at: datetime
    prices: Prices | None
    """None: the name has no price from then on, and a wider pattern may have one."""
    created_by: str
    created_at: datetime


def is_pattern(model: str) -> bool:
    return "*" in model


def demand_prices(prices: Prices) -> Prices:
    """Raises BadInput."""
    for name in (
        "prompt_micros",
        "cached_prompt_micros",
        "completion_micros",
        "request_micros",
        "image_micros",
        "audio_second_micros",
    ):
        _demand(name, getattr(prices, name), 0, MOST_MICROS)
    if len(prices.tiers) > MOST_TIERS:
        raise BadInput(f"A price has at most {MOST_TIERS} tiers.")
    before = 0
    for tier in prices.tiers:
        _demand("from_prompt_tokens", tier.from_prompt_tokens, 1, MOST_TOKENS)
        if tier.from_prompt_tokens <= before:
            raise BadInput("Tiers go upwards: each begins at more prompt tokens than the one before.")
        before = tier.from_prompt_tokens
        for name in ("prompt_micros", "cached_prompt_micros", "completion_micros"):
            _demand(name, getattr(tier, name), 0, MOST_MICROS)
    if prices.hardware is not None:
        _demand_hardware(prices.hardware)
    if prices.audio_second_micros and _has_more_than_sound(prices):
        # Of a request without a length nobody could tell whether it had none: its seconds would be left out in silence.
        raise BadInput(
            "A price for each second of sound stands alone: not every engine tells how long a recording was, and with "
            "another price beside it such a request would be charged without its seconds."
        )
    return prices


def _has_more_than_sound(prices: Prices) -> bool:
    return replace(prices, audio_second_micros=0, image_micros=0) != Prices()


def _demand_hardware(hardware: Hardware) -> None:
    most = {
        "gpus": MOST_GPUS,
        "shared_by": MOST_SHARED,
        "gpu_watts": MOST_WATTS,
        "gpu_hour_micros": MOST_MICROS,
        "kwh_micros": MOST_MICROS,
    }
    for field in fields(hardware):
        least = 1 if field.name in ("gpus", "shared_by") else 0
        _demand(field.name, getattr(hardware, field.name), least, most[field.name])
    if hardware.kwh_micros and not hardware.gpu_watts:
        raise BadInput("A price of energy needs to know what a GPU draws: give its watts.")
    if hardware.gpu_watts and not hardware.kwh_micros:
        raise BadInput("Watts cost nothing without a price for a kWh.")


def _demand(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise BadInput(f"{name} is {value}; it can be from {least} to {most}.")


def start_of(asked: datetime | None, begun: datetime | None, now: datetime) -> datetime:
    """When a new version begins: as asked, or now. `begun`: when the one in force began; a clock that was set back does
    not put a new price before it. Raises BadInput for what is past, and for what is too far ahead."""
    if asked is not None and asked < now:
        raise BadInput(
            f"A price begins now or later, and {asked:%Y-%m-%d %H:%M:%S} UTC is past: what was charged stays as it was."
        )
    if asked is not None and asked > now + FURTHEST:
        raise BadInput(f"{asked:%Y-%m-%d} is more than three years ahead.")
    starts_at = asked or now
    return max(starts_at, begun + _TICK) if begun is not None else starts_at
