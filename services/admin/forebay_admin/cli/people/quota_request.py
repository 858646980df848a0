"""`forebay quota request`, `requests`, `approve` and `deny`: more is asked for, and somebody decides."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click
from rich.markup import escape

from forebay.errors import BadInput
from forebay.wire.v1 import key_terms_pb2
from forebay_admin.cli.amounts import parse_cap, parse_money
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.people.key_options import terms_change
from forebay_admin.cli.plain import plain, word
from forebay_admin.cli.words import age, coloured
from forebay_admin.keys.key_words import BANDS


@click.command(short_help="Ask for more.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; whoever decides reads it.")
@click.option("--requests-per-minute", "requests", metavar="N", help="Requests begun in a minute.")
@click.option("--tokens-per-minute", "tokens", metavar="N", help="Tokens in a minute, of prompts and answers.")
@click.option("--concurrency", metavar="N", help="Requests at once.")
@click.option("--budget", metavar="ID", help="A budget of yours that is to be another size, as `quota show` lists it.")
@click.option("--amount", metavar="N", help="Its tokens.")
@click.option("--money", metavar="AMOUNT", help="Its money.")
@click.option("--key", "key_id", default="", metavar="ID", help="For this key of yours.")
@click.option(
    "--model", "models", multiple=True, metavar="PATTERN", help="Models that the key is to allow (repeatable)."
)
@click.option("--pool", "pools", multiple=True, metavar="NAME", help="Pools that the key is to go to (repeatable).")
@click.option("--from", "addresses", multiple=True, metavar="NETWORK", help="Networks that it is to work from.")
@click.option("--call", "calls", multiple=True, metavar="WORD", help="What it is to be for: chat, embedding, …")
@click.option("--max-output", metavar="N", help="Tokens that an answer may have.")
@click.option("--max-context", metavar="N", help="Tokens that a prompt may have.")
@click.option("--band", type=click.Choice(list(BANDS)), help="The most urgent band that it may ask for.")
@json_option
def request(
    reason: str,
    requests: str | None,
    tokens: str | None,
    concurrency: str | None,
    budget: str | None,
    amount: str | None,
    money: str | None,
    key_id: str,
    as_json: bool,
    **terms: Any,
) -> None:
    """Ask for other limits, for a budget of another size, or for a key of yours to be allowed more. One of these at a time.

    \b
    forebay quota request --requests-per-minute 120 --reason 'a demo on Friday'
    forebay quota request --budget budget_5f0c2d9a41be --amount 5000000 --reason 'the evaluation'
    forebay quota request --key 5f0c2d9a41be --model 'llama*' --model qwen3 --reason 'to compare them'

    With --json: {"id", "user_name", "wish": {…}, "reason", "state", "created_at", …}
    """
    wish = _wish(requests, tokens, concurrency, budget, amount, money, key_id, terms)

    async def work(calls: Calls) -> key_terms_pb2.RequestQuotaResponse:
        return await calls(calls.stub.RequestQuota, key_terms_pb2.RequestQuotaRequest(wish=wish, reason=reason))

    made = ask(work).request
    if as_json:
        print_json(plain(made))
        return
    click.echo(f"Asked for as {made.id}. What becomes of it: forebay quota requests --all")


@click.command("requests")
@click.option("--user", default="", metavar="NAME", help="Only this user's.")
@click.option("--all", "include_decided", is_flag=True, help="Those that are decided too.")
@json_option
def list_requests(user: str, include_decided: bool, as_json: bool) -> None:
    """List what is asked for, the newest first: yours, or everybody's if you may see it.

    With --json: a list of {"id", "user_name", "wish", "reason", "state", "created_at", "decided_by", "answer", …}
    """
    wanted = key_terms_pb2.ListQuotaRequestsRequest(user=user, include_decided=include_decided)

    async def work(calls: Calls) -> key_terms_pb2.ListQuotaRequestsResponse:
        return await calls(calls.stub.ListQuotaRequests, wanted)

    found = ask(work).requests
    if as_json:
        print_json([plain(one) for one in found])
        return
    now = time.time()
    print_table(
        ("Id", "User", "Asks for", "Because", "State", "Made", "Answer"),
        (
            (
                one.id,
                escape(one.user_name),
                escape(_asked(one.wish)),
                escape(one.reason),
                coloured(word(one, "state") or "unknown"),
                age(one.created_at_us, now),
                escape(one.answer),
            )
            for one in found
        ),
        nothing="Nobody asks for more.",
    )


@click.command(short_help="Grant what somebody asks for.")
@click.argument("request_id", metavar="ID")
@click.option("--answer", default="", metavar="TEXT", help="A word to whoever asked.")
@json_option
def approve(request_id: str, answer: str, as_json: bool) -> None:
    """Do what the request ID asks for, and say so.

    With --json: {"request": {…}, "version": N}
    """
    _decide(request_id, answer, as_json, approve=True)


@click.command(short_help="Deny what somebody asks for.")
@click.argument("request_id", metavar="ID")
@click.option("--answer", required=True, metavar="TEXT", help="Why; whoever asked reads it.")
@json_option
def deny(request_id: str, answer: str, as_json: bool) -> None:
    """Leave things as they are, and say why.

    With --json: {"request": {…}, "version": N}
    """
    _decide(request_id, answer, as_json, approve=False)


def _decide(request_id: str, answer: str, as_json: bool, *, approve: bool) -> None:
    wanted = key_terms_pb2.DecideQuotaRequestRequest(id=request_id, approve=approve, answer=answer)

    async def work(calls: Calls) -> key_terms_pb2.DecideQuotaRequestResponse:
        return await calls(calls.stub.DecideQuotaRequest, wanted)

    decided = ask(work)
    if as_json:
        print_json({"request": plain(decided.request), "version": decided.version})
        return
    what = _asked(decided.request.wish)
    done = "is granted" if approve else "is denied"
    click.echo(f"What {decided.request.user_name} asked for {done}: {what}.")


def _wish(
    requests: str | None,
    tokens: str | None,
    concurrency: str | None,
    budget: str | None,
    amount: str | None,
    money: str | None,
    key_id: str,
    terms: dict[str, Any],
) -> key_terms_pb2.QuotaWish:
    limits = any(one is not None for one in (requests, tokens, concurrency))
    if limits + (budget is not None) + any(terms.values()) != 1:
        raise BadInput("Ask for one thing: limits, a budget's size, or what a key may.")
    if limits:
        return key_terms_pb2.QuotaWish(
            limits=key_terms_pb2.LimitsWish(
                key_id=key_id,
                requests_per_minute=_number(requests),
                tokens_per_minute=_number(tokens),
                concurrency=_number(concurrency),
            )
        )
    if budget is not None:
        if (amount is None) == (money is None):
            raise BadInput("Say how much the budget is to be: one of --amount N, --money AMOUNT.")
        size = parse_money(money) if money is not None else _number(amount)
        return key_terms_pb2.QuotaWish(budget=key_terms_pb2.BudgetWish(id=budget, amount=size or 0))
    if not key_id:
        raise BadInput("Say which key: --key ID.")
    return key_terms_pb2.QuotaWish(key_terms=terms_change(key_id, denied=(), audit=None, **terms))


def _number(text: str | None) -> int | None:
    return parse_cap(text) if text is not None else None


def _asked(wish: key_terms_pb2.QuotaWish) -> str:
    of = wish.WhichOneof("of")
    if of is None:
        return "something that this version does not know"
    told: Sequence[str] = [f"{name}={_plainly(value)}" for name, value in plain(getattr(wish, of)).items() if value]
    return f"{of.replace('_', ' ')}: {', '.join(told)}"


def _plainly(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(_plainly(one) for one in value.values()) or "none"
    return "|".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
