"""`forebay price`: what models cost, from when on."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import click
from rich.markup import escape

from forebay.errors import BadInput
from forebay.wire.v1 import prices_pb2
from forebay_admin.cli.amounts import money, parse_cap, parse_money
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.fleet.maintenance import parse_moment
from forebay_admin.cli.output import F, json_option, print_json, print_table
from forebay_admin.cli.plain import plain
from forebay_admin.cli.words import count

_MONEY = (
    ("--prompt", "prompt_micros", "For a million prompt tokens, such as 0.15."),
    ("--completion", "completion_micros", "For a million completion tokens."),
    ("--per-request", "request_micros", "For each request that was served."),
    ("--per-image", "image_micros", "For each image that was made."),
    ("--per-second", "audio_second_micros", "For each second of sound."),
    ("--gpu-hour", "gpu_hour_micros", "For an hour of one of its GPUs, on hardware of your own."),
    ("--kwh", "kwh_micros", "For a kWh that its GPUs draw; needs --watts."),
)
_HARDWARE = ("gpu_hour_micros", "kwh_micros")


@click.group()
def price() -> None:
    """Prices: what models cost, from when on.

    A price is never changed. A new one begins now or later, and what was charged stays as it was. A name with * in it is for
    all models that fit; the narrowest name counts.

    \b
    forebay price set big-model --prompt 0.15 --cached 0.075 --completion 0.60
    forebay price set big-model --prompt 0.20 --completion 0.80 --from 2027-01-01T00:00Z
    forebay price set 'llama*' --gpu-hour 1.80 --gpus 2 --shared-by 16 --kwh 0.30 --watts 350
    forebay price list --all
    forebay usage --request REQUEST_ID
    """


def _money_options(command: F) -> F:
    for flag, field, about in reversed(_MONEY):
        command = click.option(flag, field, metavar="AMOUNT", help=about)(command)
    return command


@price.command("set", short_help="Say what a model costs.")
@click.argument("model", metavar="MODEL")
@_money_options
@click.option("--cached", metavar="AMOUNT", help="For a million that were in the engine's cache. Default: as --prompt.")
@click.option(
    "--tier",
    "tiers",
    multiple=True,
    metavar="TOKENS:PROMPT:CACHED:COMPLETION",
    help="For prompts of so many tokens and more, these prices for all tokens. May be given several times.",
)
@click.option("--gpus", type=click.IntRange(1), help="How many GPUs serve it together.")
@click.option("--shared-by", type=click.IntRange(1), help="Requests at once among which those GPUs are divided.")
@click.option("--watts", type=click.IntRange(1), help="What one of its GPUs draws under load.")
@click.option("--from", "begins", metavar="TIME", help="When it begins: +7d, 2027-01-01T00:00Z. Default: now.")
@json_option
def set_price(
    model: str,
    cached: str | None,
    tiers: tuple[str, ...],
    gpus: int | None,
    shared_by: int | None,
    watts: int | None,
    begins: str | None,
    as_json: bool,
    **amounts: str | None,
) -> None:
    """Say what MODEL costs: all of its price, in place of what it cost before. What is not named costs nothing.

    On hardware of your own, a request costs the share of the GPUs that it kept busy: the time from its grant to its end,
    times its slots, times --gpus, divided by --shared-by; its energy is that time at --watts.

    \b
    forebay price set big-model --prompt 0.15 --completion 0.60 --tier 200000:0.30:0.15:0.90
    forebay price set whisper --per-second 0.0001
    forebay price set big-model --prompt 0.20 --completion 0.80 --from 2027-01-01T00:00Z

    With --json: {"id", "model", "starts_at", "terms": {"prompt_micros", "completion_micros", "request_micros", "tiers",
    "hardware", …}, "created_by", "created_at", "in_force"}; money is in millionths
    """
    said = {field: parse_money(text) for field, text in amounts.items() if text is not None}
    if not said and not tiers:
        raise BadInput("Say what it costs; to have it cost nothing any more: forebay price end MODEL")
    has_hardware = any((gpus, shared_by, watts)) or any(field in said for field in _HARDWARE)
    terms = prices_pb2.PriceTerms(
        **{field: micros for field, micros in said.items() if field not in _HARDWARE},
        cached_prompt_micros=parse_money(cached) if cached is not None else None,
        tiers=[_tier(text) for text in tiers],
        hardware=prices_pb2.HardwarePrice(
            gpus=gpus or 0,
            shared_by=shared_by or 0,
            gpu_watts=watts or 0,
            **{field: said[field] for field in _HARDWARE if field in said},
        )
        if has_hardware
        else None,
    )
    _tell(prices_pb2.SetPriceRequest(model=model, terms=terms, starts_at_us=_starts(begins)), as_json)


@price.command()
@click.argument("model", metavar="MODEL")
@click.option("--from", "begins", metavar="TIME", help="When it ends: +7d, 2027-01-01T00:00Z. Default: now.")
@json_option
def end(model: str, begins: str | None, as_json: bool) -> None:
    """Let MODEL have no price of its own any more. A wider name that fits it may have one.

    With --json: as `forebay price set`
    """
    _tell(prices_pb2.SetPriceRequest(model=model, starts_at_us=_starts(begins)), as_json)


@price.command()
@click.argument("price_id", metavar="ID")
@json_option
def cancel(price_id: str, as_json: bool) -> None:
    """Take a price back that has not begun.

    With --json: the price as it was, as `forebay price set`
    """

    async def work(calls: Calls) -> prices_pb2.CancelPriceResponse:
        return await calls(calls.stub.CancelPrice, prices_pb2.CancelPriceRequest(id=price_id))

    gone = ask(work).price
    if as_json:
        print_json(plain(gone))
        return
    click.echo(f"Price {gone.id} of {gone.model} will not begin.")


@price.command("list")
@click.argument("model", required=False, default="")
@click.option("--all", "every", is_flag=True, help="Those too that others have followed.")
@json_option
def list_prices(model: str, every: bool, as_json: bool) -> None:
    """List prices that are in force and those that will be; with MODEL, those by which it is charged.

    With --json: a list as of `forebay price set`
    """

    async def work(calls: Calls) -> prices_pb2.ListPricesResponse:
        return await calls(calls.stub.ListPrices, prices_pb2.ListPricesRequest(model=model, all=every))

    prices = ask(work).prices
    if as_json:
        print_json([plain(one) for one in prices])
        return
    print_table(
        ("Model", "#ID", "From", "#Prompt", "#Cached", "#Completion", "And", "", "By"),
        (
            (
                escape(one.model),
                one.id,
                since(one.starts_at_us),
                *_tokens(one),
                escape(", ".join(_and(one.terms))) if one.HasField("terms") else "no price",
                "in force" if one.in_force else "to come" if one.starts_at_us > time.time() * 1e6 else "over",
                escape(one.created_by),
            )
            for one in prices
        ),
        nothing="Nothing has a price. Set one with: forebay price set MODEL --prompt AMOUNT …",
    )


def since(at_us: int) -> str:
    return "always" if at_us <= 0 else f"{datetime.fromtimestamp(at_us / 1_000_000, UTC):%Y-%m-%d %H:%M} UTC"


def _tell(request: prices_pb2.SetPriceRequest, as_json: bool) -> None:
    async def work(calls: Calls) -> prices_pb2.SetPriceResponse:
        return await calls(calls.stub.SetPrice, request)

    made = ask(work).price
    if as_json:
        print_json(plain(made))
        return
    when = "now" if made.in_force else since(made.starts_at_us)
    if not made.HasField("terms"):
        click.echo(f"{made.model} has no price from {when} on ({made.id}).")
        return
    prompt, cached, completion = _tokens(made)
    parts = [f"prompt {prompt}", f"cached {cached}", f"completion {completion}", *_and(made.terms)]
    click.echo(f"{made.model} costs from {when} on ({made.id}): {', '.join(parts)}.")


def _tokens(one: prices_pb2.PriceVersion) -> tuple[str, str, str]:
    if not one.HasField("terms"):
        return "", "", ""
    terms = one.terms
    return money(terms.prompt_micros), money(terms.cached_prompt_micros), money(terms.completion_micros)


def _and(terms: prices_pb2.PriceTerms) -> list[str]:
    told = [
        f"{money(micros)} {what}"
        for micros, what in (
            (terms.request_micros, "a request"),
            (terms.image_micros, "an image"),
            (terms.audio_second_micros, "a second"),
        )
        if micros
    ]
    told += [
        f"from {count(tier.from_prompt_tokens)} {money(tier.prompt_micros)}/{money(tier.cached_prompt_micros)}"
        f"/{money(tier.completion_micros)}"
        for tier in terms.tiers
    ]
    if terms.HasField("hardware"):
        own = terms.hardware
        told.append(f"{money(own.gpu_hour_micros)} a GPU-hour ({own.gpus} shared by {own.shared_by})")
        if own.kwh_micros:
            told.append(f"{money(own.kwh_micros)} a kWh at {own.gpu_watts} W")
    return told


def _tier(text: str) -> prices_pb2.PriceTier:
    parts = text.split(":")
    start = parse_cap(parts[0]) if len(parts) == 4 else None
    if start is None:
        raise BadInput(f"{text!r} is not a tier: write TOKENS:PROMPT:CACHED:COMPLETION, such as 200000:0.30:0.15:0.90.")
    prompt, cached, completion = map(parse_money, parts[1:])
    return prices_pb2.PriceTier(
        from_prompt_tokens=start,
        prompt_micros=prompt,
        cached_prompt_micros=cached,
        completion_micros=completion,
    )


def _starts(text: str | None) -> int | None:
    """None: now. By the clock of admin, so that `now` is never past there."""
    if text is None or text.strip() == "now":
        return None
    return round(parse_moment(text, time.time()) * 1_000_000)
