"""A price as a form says it: all of a model's price from a moment on. Pure."""

from __future__ import annotations

from forebay.wire.v1 import prices_pb2
from forebay_admin.web.fleet.model_forms import model_name
from forebay_admin.web.forms import Form, WrongField

US = 1_000_000
_MICROS = ("prompt", "completion", "request", "image", "audio_second")
_HARDWARE_MICROS = ("gpu_hour", "kwh")
_HARDWARE_NUMBERS = {"gpus": 10_000, "shared_by": 100_000, "gpu_watts": 100_000}


def read_price(form: Form) -> prices_pb2.SetPriceRequest:
    """Raises WrongField."""
    said = {name: form.micro(name) for name in (*_MICROS, *_HARDWARE_MICROS) if form.get(name)}
    tiers = [_tier(line) for line in form.get("tiers").split("\n") if line.strip()]
    if not said and not tiers:
        raise WrongField("prompt", "Say what it costs; that it costs nothing any more is said below.")
    numbers = {name: form.whole(name, least=1, most=most) for name, most in _HARDWARE_NUMBERS.items() if form.get(name)}
    has_hardware = bool(numbers) or any(name in said for name in _HARDWARE_MICROS)
    hardware = prices_pb2.HardwarePrice(
        **numbers, **{f"{name}_micros": said[name] for name in _HARDWARE_MICROS if name in said}
    )
    terms = prices_pb2.PriceTerms(
        **{f"{name}_micros": said[name] for name in _MICROS if name in said},
        cached_prompt_micros=form.micro("cached") if form.get("cached") else None,
        tiers=tiers,
        hardware=hardware if has_hardware else None,
    )
    return prices_pb2.SetPriceRequest(model=model_name(form), terms=terms, starts_at_us=_starts(form))


def read_end(form: Form) -> prices_pb2.SetPriceRequest:
    """It has no price of its own any more. Raises WrongField."""
    return prices_pb2.SetPriceRequest(model=model_name(form), starts_at_us=_starts(form))


def _starts(form: Form) -> int | None:
    """None: now, by the clock of who keeps prices."""
    moment = form.moment("begins")
    return round(moment.timestamp() * US) if moment is not None else None


def _tier(line: str) -> prices_pb2.PriceTier:
    """TOKENS PROMPT CACHED COMPLETION, with colons between them."""
    parts = [part.strip() for part in line.split(":")]
    if len(parts) != 4:
        raise WrongField("tiers", f"{line.strip()[:60]!r} is no tier: write 200000:0.30:0.15:0.90, a line each.")
    read = Form(list(zip(("tokens", "prompt", "cached", "completion"), parts, strict=True)))
    try:
        return prices_pb2.PriceTier(
            from_prompt_tokens=read.whole("tokens", least=1),
            prompt_micros=read.micro("prompt"),
            cached_prompt_micros=read.micro("cached"),
            completion_micros=read.micro("completion"),
        )
    except WrongField as error:
        raise WrongField("tiers", f"{line.strip()[:60]!r}: {error.message}") from error
