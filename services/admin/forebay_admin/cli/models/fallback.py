"""`forebay model fallback`: which models are asked instead of one that does not answer."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

import click
from rich.markup import escape

from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2
from forebay_admin.cli.amounts import money
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain, word

_ORDERS = {
    "listed": admin_pb2.FALLBACK_ORDER_LISTED,
    "cheapest": admin_pb2.FALLBACK_ORDER_CHEAPEST,
    "soonest": admin_pb2.FALLBACK_ORDER_SOONEST,
}


@click.group()
def fallback() -> None:
    """Fallbacks: the models that are asked when one has no backend, a full queue, or fails before it says anything.

    \b
    forebay model fallback set qwen3-32b qwen3-8b llama3.1
    forebay model fallback set qwen3-32b claude-haiku --after 10
    forebay model fallback list
    forebay model fallback remove qwen3-32b
    """


@fallback.command("set")
@click.argument("model")
@click.argument("others", nargs=-1, required=True, metavar="OTHER...")
@click.option("--pool", metavar="NAME", default="", help="In this pool only. Default: in every pool.")
@click.option(
    "--order",
    type=click.Choice(tuple(_ORDERS)),
    default="listed",
    show_default=True,
    help="Which OTHER goes first: as listed, the one that costs least, or the one that has lately begun to answer soonest.",
)
@click.option("--after", metavar="SECONDS", help="Ask another also when MODEL has had no slot for so long.")
@json_option
def set_fallback(model: str, others: tuple[str, ...], pool: str, order: str, after: str | None, as_json: bool) -> None:
    """Ask OTHER when MODEL does not answer: when no backend of it is well, its queue is full or too long for the request's
    deadline, every attempt failed before the first byte, or the prompt is too long for it (then only an OTHER that is known
    to take more). It takes the place of what was set before.

    Names are those of the fleet, or aliases. Each OTHER is asked once; those that the pool lacks, or that are known to lack
    what the request needs (pictures, tools), are passed over. A key that may use MODEL gets what is asked instead of it.
    Clients see which model answered in `model` and in the header `x-forebay-model`, and can forbid it for a request with
    `x-forebay-fallback: off`.

    \b
    forebay model fallback set qwen3-32b qwen3-8b llama3.1
    forebay model fallback set qwen3-32b gpt-4o-mini claude-haiku --order cheapest --after 10
    forebay model fallback set qwen3-32b qwen3-8b --pool night --after 0.5

    With --json: {"model", "pool", "others", "order", "after_ms"}, pool being "" for every pool
    """
    wanted = admin_pb2.ModelFallback(
        model=model, pool=pool, others=others, order=_ORDERS[order], after_ms=_milliseconds(after)
    )

    async def work(calls: Calls) -> admin_pb2.SetModelFallbackResponse:
        return await calls(calls.stub.SetModelFallback, admin_pb2.SetModelFallbackRequest(fallback=wanted))

    told = ask(work).fallback
    if as_json:
        print_json(plain(told))
        return
    which = {"listed": "", "cheapest": ", the cheapest first", "soonest": ", the soonest first"}[order]
    waits = f" It waits {_seconds(told.after_ms)} s for a slot before that." if told.HasField("after_ms") else ""
    click.echo(f"Instead of {told.model} {_within(told.pool)}: {', '.join(told.others)}{which}.{waits}")


@fallback.command("list")
@json_option
def list_fallbacks(as_json: bool) -> None:
    """List fallbacks, with what each model costs.

    How soon a model answers each gateway measures for itself, of the requests of the last minutes: see
    `forebay_gateway_first_token_seconds` on its port for metrics (8095).

    With --json: a list of {"model", "pool", "others", "order", "after_ms", "prices": {NAME: {"prompt_micros",
    "cached_prompt_micros", "completion_micros", …}}}
    """

    async def work(calls: Calls) -> tuple[list[admin_pb2.ModelFallback], dict[str, admin_pb2.ModelPolicy]]:
        rules = await calls(calls.stub.ListModelRules, admin_pb2.ListModelRulesRequest())
        terms = await calls(calls.stub.ListModelTerms, admin_pb2.ListModelTermsRequest())
        return list(rules.fallbacks), {one.model: one for one in terms.terms}

    fallbacks, prices = ask(work)
    if as_json:
        print_json(
            [
                {**plain(one), "prices": {name: plain(prices[name]) for name in one.others if name in prices}}
                for one in fallbacks
            ]
        )
        return
    print_table(
        ("Model", "Pool", "Order", "#After", "Instead, with the price of a million tokens"),
        (
            (
                escape(one.model),
                escape(one.pool or "every pool"),
                word(one, "order") or "listed",
                f"{_seconds(one.after_ms)} s" if one.HasField("after_ms") else "",
                escape("\n".join(_priced(name, prices) for name in one.others)),
            )
            for one in fallbacks
        ),
        nothing="Nothing is asked instead of any model. Say so with: forebay model fallback set MODEL OTHER…",
    )


@fallback.command("remove")
@click.argument("model")
@click.option("--pool", metavar="NAME", default="", help="What was set for this pool only.")
@json_option
def remove_fallback(model: str, pool: str, as_json: bool) -> None:
    """Ask nothing instead of MODEL any more.

    \b
    forebay model fallback remove qwen3-32b
    forebay model fallback remove qwen3-32b --pool night

    With --json: the fallback, as it was
    """
    request = admin_pb2.RemoveModelFallbackRequest(model=model, pool=pool)

    async def work(calls: Calls) -> admin_pb2.RemoveModelFallbackResponse:
        return await calls(calls.stub.RemoveModelFallback, request)

    before = ask(work).fallback
    if as_json:
        print_json(plain(before))
        return
    click.echo(f"Nothing is asked instead of {before.model} {_within(before.pool)} any more.")


def _milliseconds(seconds: str | None) -> int | None:
    """Raises BadInput."""
    if seconds is None:
        return None
    try:
        number = Decimal(seconds)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or not 0 < number <= 86_400:
        raise BadInput(f"{seconds!r} is not a number of seconds from 0.001 to 86400.")
    return max(1, int(number * 1000))


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".")


def _priced(name: str, prices: Mapping[str, admin_pb2.ModelPolicy]) -> str:
    price = prices.get(name)
    if price is None or not (price.prompt_micros or price.completion_micros):
        return f"{name} (no price)"
    return f"{name} ({money(price.prompt_micros)} in, {money(price.completion_micros)} out)"


def _within(pool: str) -> str:
    return f"in the pool {pool}" if pool else "in every pool"
