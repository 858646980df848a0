"""`forebay model`: what can be asked for."""

from __future__ import annotations

import click
from rich.markup import escape

from forebay.errors import BadInput, NotFound
from forebay.wire.v1 import admin_pb2
from forebay_admin.cli.amounts import money, parse_money, parse_weight, weight
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.models.fallback import fallback
from forebay_admin.cli.models.jobs import cancel, job, jobs
from forebay_admin.cli.models.library import copy, delete, pin, pins, preload, pull, show, unload, unpin
from forebay_admin.cli.models.rules import alias, rule
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain
from forebay_admin.cli.words import count, gigabytes


@click.group()
def model() -> None:
    """Models: what the backends have, fetching and loading them, what each costs, other names for them, rules for those who
    ask, and which are asked instead of one that does not answer.

    \b
    forebay model list
    forebay model pull llama3.1:8b --pool default
    forebay model price big-model --prompt 0.15 --cached 0.075 --completion 0.60
    forebay model alias gpt-4o big-model
    forebay model rule set --model big-model --max-output-tokens 4096
    forebay model fallback set big-model small-model
    """


model.add_command(alias)
model.add_command(rule)
model.add_command(fallback)
for command in (pull, delete, copy, show, preload, unload, pin, unpin, pins, jobs, job, cancel):
    model.add_command(command)


@model.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List models by name, with the backends that have them. What is said of a model in a fleet file goes before what
    engines say of it.

    With --json: a list of {"name", "pools", "backends", "healthy_backends", "context_length", "capabilities",
    "quantization", "size_bytes", "description", "declared"}, the last being the names of what an operator said
    """

    async def work(calls: Calls) -> admin_pb2.ShowModelsResponse:
        return await calls(calls.stub.ShowModels, admin_pb2.ShowModelsRequest())

    models = ask(work).models
    if as_json:
        print_json([plain(m) for m in models])
        return
    print_table(
        ("Name", "#Healthy", "Backends", "Pools", "#Context", "Can", "Quantization", "#Size", "About"),
        (
            (
                escape(m.name),
                _healthy(m.healthy_backends, len(m.backends)),
                escape(", ".join(m.backends)),
                escape(", ".join(m.pools)),
                count(m.context_length) if m.HasField("context_length") else "",
                escape(", ".join(m.capabilities)),
                escape(m.quantization),
                gigabytes(m.size_bytes) if m.HasField("size_bytes") else "",
                escape(m.description.partition("\n")[0]),
            )
            for m in models
        ),
        nothing="No models: no backend has told of one yet. See: forebay backend list",
    )


@model.command(short_help="Say or show what models cost.")
@click.argument("name", required=False)
@click.option("--prompt", metavar="AMOUNT", help="Money for a million prompt tokens, such as 0.15.")
@click.option("--cached", metavar="AMOUNT", help="For a million that were in the engine's cache. Default: as --prompt.")
@click.option("--completion", metavar="AMOUNT", help="For a million completion tokens.")
@click.option("--weight", "share", metavar="N", help="What its tokens weigh against other models' in fair shares.")
@click.option("--remove", is_flag=True, help="It costs nothing and weighs 1 again.")
@json_option
def price(
    name: str | None,
    prompt: str | None,
    cached: str | None,
    completion: str | None,
    share: str | None,
    remove: bool,
    as_json: bool,
) -> None:
    """Say what the tokens of the model NAME cost, in budgets of money and in fair shares; without options, show it; without
    NAME, show all. What is not named stays as it is, and so does what was charged already. More about prices, and prices
    that begin later: forebay price.

    \b
    forebay model price
    forebay model price big-model --prompt 0.15 --cached 0.075 --completion 0.60
    forebay model price big-model --weight 2

    With --json: {"model", "prompt_micros", "cached_prompt_micros", "completion_micros", "weight_milli"}, micros being
    millionths of money for a million tokens; without NAME a list of them
    """
    named = [one for one in (prompt, cached, completion, share) if one is not None]
    if remove and named:
        raise BadInput("Give prices or --remove, not both.")
    if not name and (named or remove):
        raise BadInput("Say which model.")
    request = admin_pb2.SetModelTermsRequest(
        model=name or "",
        prompt_micros=_price(prompt),
        cached_prompt_micros=_price(cached),
        completion_micros=_price(completion),
        weight_milli=parse_weight(share) if share is not None else None,
    )

    async def work(calls: Calls) -> list[admin_pb2.ModelPolicy]:
        if remove:
            removal = admin_pb2.RemoveModelTermsRequest(model=name or "")
            return [(await calls(calls.stub.RemoveModelTerms, removal)).terms]
        if named:
            return [(await calls(calls.stub.SetModelTerms, request)).terms]
        known = (await calls(calls.stub.ListModelTerms, admin_pb2.ListModelTermsRequest())).terms
        return [terms for terms in known if not name or terms.model == name]

    found = ask(work)
    if name and not found:
        raise NotFound(f"The model {name} has no price and no weight of its own.")
    if as_json:
        print_json(plain(found[0]) if name else [plain(terms) for terms in found])
        return
    if remove:
        click.echo(f"The model {name} costs nothing and weighs 1.")
        return
    print_table(
        ("Name", "#Prompt", "#Cached", "#Completion", "#Weight"),
        (
            (
                escape(terms.model),
                money(terms.prompt_micros),
                money(terms.cached_prompt_micros),
                money(terms.completion_micros),
                weight(terms.weight_milli),
            )
            for terms in found
        ),
        nothing="No model has a price or a weight. Set one with: forebay model price NAME --prompt AMOUNT …",
    )


def _price(text: str | None) -> int | None:
    return parse_money(text) if text is not None else None


def _healthy(healthy: int, all_of_them: int) -> str:
    colour = "green" if healthy == all_of_them else "yellow" if healthy else "red"
    return f"[{colour}]{healthy} of {all_of_them}[/{colour}]"
