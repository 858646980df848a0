"""`forebay usage --request`: what one request cost, or why it was not charged."""

from __future__ import annotations

import click

from forebay.wire.v1 import prices_pb2
from forebay_admin.cli.amounts import money
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.money.price import since
from forebay_admin.cli.output import print_json, visible
from forebay_admin.cli.plain import Plain, plain, usage_row, word
from forebay_admin.cli.words import count


def show_cost(request_id: str, since_us: int, as_json: bool) -> None:
    """`since_us`: how far back requests are looked for by their label."""

    async def work(calls: Calls) -> prices_pb2.ShowCostResponse:
        return await calls(calls.stub.ShowCost, prices_pb2.ShowCostRequest(request_id=request_id, since_us=since_us))

    costs = ask(work).costs
    if as_json:
        print_json([_plain(one) for one in costs])
        return
    for one in costs:
        click.echo(visible(_story(one)))
    if not costs:
        click.echo(
            f"The ledger has no request {visible(request_id)}; it may be older, still running, or somebody else's."
        )


def _plain(one: prices_pb2.RequestCost) -> Plain:
    return {**usage_row(one.record), **{name: value for name, value in plain(one).items() if name != "record"}}


def _story(one: prices_pb2.RequestCost) -> str:
    record, usage = one.record, one.record.usage
    told = (
        f"{record.request_id} at {since(record.started_at_us)}: {record.model or record.model_requested}, "
        f"{word(record, 'outcome')}, {count(usage.prompt_tokens)} prompt tokens ({count(usage.cached_prompt_tokens)} "
        f"cached), {count(usage.completion_tokens)} completion tokens"
    )
    if not record.HasField("cost_micros"):
        return f"{told}. Not charged: {one.why}"
    paid = f", from the balance {one.balance_id}" if one.balance_id else ""
    return f"{told}. Cost {money(record.cost_micros)} by price {record.price_version}{paid}."
