"""The catalogue of models: what each can, where it serves, what it costs, and which of them are looked for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from forebay.wire.v1 import registry_pb2
from forebay_admin.money.prices import Prices
from forebay_admin.web.words import count, money

PriceOf = Callable[[str], Prices | None]


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    href: str
    is_served: bool
    description: str
    capabilities: tuple[str, ...]
    context_length: int | None
    quantization: str
    size_bytes: int | None
    pools: tuple[str, ...]
    backends: tuple[str, ...]
    """Names; empty for who may not know them."""
    serving: int
    """How many of them are well."""
    requests: int | None
    """Of the last week; None: nobody knows."""
    price: tuple[tuple[str, str], ...]
    """What of, and how much; empty: nothing is charged, or they are not to see it."""


@dataclass(frozen=True, slots=True)
class ModelsView:
    models: tuple[Model, ...]
    in_all: int
    capabilities: tuple[str, ...]
    """All that there are, to choose from."""
    text: str
    can: str
    sort: str


SORTS = (("asked", "Most asked"), ("name", "Name"), ("context", "Longest context"))


def models_view(
    models: Sequence[registry_pb2.FleetModel],
    *,
    asked: Mapping[str, int] | None,
    price_of: PriceOf | None,
    with_backends: bool,
    text: str = "",
    can: str = "",
    sort: str = "",
) -> ModelsView:
    """`asked`: requests of a week, by model. `price_of`: None for who is not to see prices. `with_backends`: whether they
    may know the backends' names."""
    found = [_model(model, asked, price_of, with_backends=with_backends) for model in models]
    words = text.lower().split()
    shown = [
        model
        for model in found
        if (not can or can in model.capabilities)
        and all(word in f"{model.name} {model.description} {' '.join(model.capabilities)}".lower() for word in words)
    ]
    order = sort if sort in dict(SORTS) else SORTS[0][0]
    shown.sort(key=lambda model: (not model.is_served, *_ORDERS[order](model), model.name))
    return ModelsView(
        tuple(shown),
        len(found),
        tuple(sorted({word for model in found for word in model.capabilities})),
        text,
        can,
        order,
    )


def model_view(
    models: Sequence[registry_pb2.FleetModel],
    name: str,
    *,
    asked: Mapping[str, int] | None,
    price_of: PriceOf | None,
    with_backends: bool,
) -> Model | None:
    """None: there is none of that name."""
    found = next((model for model in models if model.name == name), None)
    return _model(found, asked, price_of, with_backends=with_backends) if found is not None else None


def price_words(price: Prices | None) -> tuple[tuple[str, str], ...]:
    if price is None:
        return ()
    million = "a million tokens"
    told = [
        ("Prompt", price.prompt_micros, million),
        (
            "Cached prompt",
            price.cached_prompt_micros if price.cached_prompt_micros != price.prompt_micros else 0,
            million,
        ),
        ("Answer", price.completion_micros, million),
        ("Request", price.request_micros, "each"),
        ("Image", price.image_micros, "each"),
        ("Sound", price.audio_second_micros, "a second"),
    ]
    words = [
        (what, f"{money(micros)} for {per}" if per == million else f"{money(micros)} {per}")
        for what, micros, per in told
        if micros
    ]
    words += [
        (
            f"From {count(tier.from_prompt_tokens)} prompt tokens",
            f"{money(tier.prompt_micros)} and {money(tier.completion_micros)} for {million}",
        )
        for tier in price.tiers
    ]
    if price.hardware is not None:
        words.append(("Hardware", "by the time that a request keeps the GPUs busy"))
    return tuple(words)


def _model(
    model: registry_pb2.FleetModel, asked: Mapping[str, int] | None, price_of: PriceOf | None, *, with_backends: bool
) -> Model:
    return Model(
        model.name,
        f"/models/{quote(model.name, safe='/:@')}",
        model.healthy_backends > 0,
        model.description,
        tuple(model.capabilities),
        model.context_length if model.HasField("context_length") else None,
        model.quantization,
        model.size_bytes if model.HasField("size_bytes") else None,
        tuple(model.pools),
        tuple(model.backends) if with_backends else (),
        model.healthy_backends,
        asked.get(model.name, 0) if asked is not None else None,
        price_words(price_of(model.name)) if price_of is not None else (),
    )


_ORDERS: Mapping[str, Callable[[Model], tuple[int, ...]]] = {
    "asked": lambda model: (-(model.requests or 0),),
    "name": lambda model: (),
    "context": lambda model: (-(model.context_length or 0),),
}
