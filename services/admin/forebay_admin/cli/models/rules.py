"""`forebay model alias` and `forebay model rule`: other names of models, and what gateways do to requests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import click
from rich.markup import escape

from forebay.errors import BadInput, NotFound
from forebay.wire.v1 import admin_pb2
from forebay_admin.cli.amounts import parse_cap
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import F, json_option, print_json, print_table
from forebay_admin.cli.plain import Plain, plain
from forebay_admin.models.rule_words import STRUCTURED, THINKING, as_json_text, effects, whose

_STRUCTURED = {name.replace("_", "-"): value for name, value in STRUCTURED.items()}


@click.command(short_help="Give a model another name, or show such names.")
@click.argument("name", required=False)
@click.argument("model", required=False)
@click.option("--pool", metavar="NAME", default="", help="In this pool only. Default: in every pool.")
@click.option("--remove", is_flag=True, help="NAME stands for no model any more.")
@json_option
def alias(name: str | None, model: str | None, pool: str, remove: bool, as_json: bool) -> None:
    """Let clients ask for MODEL by NAME too; without MODEL show what NAME stands for, without NAME show all.

    MODEL is a name in the fleet, which need not have it yet. A model of the fleet that is called NAME itself goes first. A
    pool's own alias goes before that of every pool. Whoever may use MODEL may use NAME, and a key that was made for NAME
    gets whatever it stands for.

    \b
    forebay model alias gpt-4o qwen3-32b
    forebay model alias gpt-4o qwen3-8b --pool night
    forebay model alias --remove gpt-4o --pool night
    forebay model alias

    With --json: {"alias", "model", "pool"}, pool being "" for every pool; without MODEL a list of them
    """
    if remove and (model or not name):
        raise BadInput("Name the alias to be removed, and nothing else.")

    async def work(calls: Calls) -> list[admin_pb2.ModelAlias]:
        if remove:
            removal = admin_pb2.RemoveModelAliasRequest(alias=name or "", pool=pool)
            return [(await calls(calls.stub.RemoveModelAlias, removal)).alias]
        if model:
            wanted = admin_pb2.ModelAlias(alias=name or "", model=model, pool=pool)
            return [(await calls(calls.stub.SetModelAlias, admin_pb2.SetModelAliasRequest(alias=wanted))).alias]
        known = (await calls(calls.stub.ListModelRules, admin_pb2.ListModelRulesRequest())).aliases
        return [one for one in known if (not name or one.alias == name) and (not pool or one.pool in ("", pool))]

    found = ask(work)
    if name and not found:
        raise NotFound(f"There is no alias {name}.")
    if as_json:
        print_json(plain(found[0]) if remove or model else [plain(one) for one in found])
        return
    if remove:
        click.echo(f"{found[0].alias} stands for no model any more {_within(found[0].pool)}.")
        return
    if model:
        click.echo(f"{found[0].alias} stands for {found[0].model} {_within(found[0].pool)}.")
        return
    print_table(
        ("Alias", "Model", "Pool"),
        ((escape(one.alias), escape(one.model), escape(one.pool or "every pool")) for one in found),
        nothing="No model has another name. Give one with: forebay model alias NAME MODEL",
    )


@click.group()
def rule() -> None:
    """Rules: what gateways put into requests, and how much they let clients ask for.

    A rule is for everybody, a pool, a model or a key; where several apply, each goes over those before it in that order.
    A request's own fields go over a rule's defaults, and its pins over both; caps come last.

    \b
    forebay model rule set --max-output-tokens 8192 --thinking off
    forebay model rule set --model 'qwen3*' --default temperature=0.7 --default top_p=0.8
    forebay model rule set --key 5f0c2d9a41be --pin seed=1
    forebay model rule list
    forebay model rule remove --model 'qwen3*'
    """


def _scope_options(command: F) -> F:
    for option in (
        click.option("--key", metavar="ID", help="For requests of this key."),
        click.option("--model", metavar="NAME", help="For requests of this model of the fleet, or of all like qwen3*."),
        click.option(
            "--pool", metavar="NAME", help="For requests of this pool. Without any of these: for all requests."
        ),
    ):
        command = option(command)
    return command


@rule.command("set")
@_scope_options
@click.option("--default", "defaults", metavar="FIELD=VALUE", multiple=True, help="For clients who say nothing of it.")
@click.option("--no-default", "no_defaults", metavar="FIELD", multiple=True, help="Takes such a default away.")
@click.option("--pin", "pins", metavar="FIELD=VALUE", multiple=True, help="Whatever the client says.")
@click.option("--no-pin", "no_pins", metavar="FIELD", multiple=True, help="Takes such a pin away.")
@click.option("--max-output-tokens", metavar="N|none", help="Of one answer; also for clients who set no limit.")
@click.option("--num-ctx", metavar="N|none", help="The most that Ollama's clients may ask for.")
@click.option("--keep-alive", metavar="SECONDS|none", help="The longest that Ollama's clients may ask for.")
@click.option("--max-context-tokens", metavar="N|none", help="The most that a prompt may hold.")
@click.option(
    "--thinking", type=click.Choice(tuple(THINKING)), help="off: only for those who ask; usual: as the model does."
)
@click.option(
    "--structured", type=click.Choice(tuple(_STRUCTURED)), help="What is done about answers that must be JSON."
)
@json_option
def set_rule(
    pool: str | None,
    model: str | None,
    key: str | None,
    defaults: tuple[str, ...],
    no_defaults: tuple[str, ...],
    pins: tuple[str, ...],
    no_pins: tuple[str, ...],
    max_output_tokens: str | None,
    num_ctx: str | None,
    keep_alive: str | None,
    max_context_tokens: str | None,
    thinking: str | None,
    structured: str | None,
    as_json: bool,
) -> None:
    """Make a rule, or change it. What is not named stays as it is; `none` takes a limit away.

    Fields are those of OpenAI's chat, for clients and engines of every dialect; `options` and `keep_alive` are Ollama's own.
    A VALUE is JSON, or else plain text. What is inside an object is looked at field by field. Embeddings and the like are
    touched by rules for a model only. A prompt of more than `--max-context-tokens` is refused, as the engine counts it; of
    engines that cannot count, Ollama alone can be held to it.

    An answer that must be JSON, perhaps of a schema, is trusted where the engine is known to keep to it, and elsewhere
    checked: one that is not what was asked for becomes an error. `--structured` says so for all engines: trust, check, or
    ask-again, by which an answer that is not streamed is asked for up to twice more before.

    \b
    forebay model rule set --default temperature=0.7 --max-output-tokens 4096
    forebay model rule set --model qwen3-32b --pin 'chat_template_kwargs={"enable_thinking": false}'
    forebay model rule set --pool night --num-ctx 8192 --keep-alive 300
    forebay model rule set --model 'gpt-oss*' --thinking usual
    forebay model rule set --pool lab --structured ask-again
    forebay model rule set --no-default temperature --max-output-tokens none

    With --json: {"scope": {"pool", "model", "key_id", "everyone"}, "defaults": {…}, "pinned": {…}, "max_output_tokens",
    "num_ctx", "keep_alive_s", "max_context_tokens", "thinking", "structured"}
    """
    request = admin_pb2.SetModelRuleRequest(
        scope=_scope(pool, model, key),
        defaults=_fields(defaults, "--default"),
        pinned=_fields(pins, "--pin"),
        removed_defaults=no_defaults,
        removed_pins=no_pins,
        max_output_tokens=_cap(max_output_tokens),
        num_ctx=_cap(num_ctx),
        keep_alive_s=_cap(keep_alive),
        max_context_tokens=_cap(max_context_tokens),
        thinking=THINKING[thinking] if thinking is not None else None,
        structured=_STRUCTURED[structured] if structured is not None else None,
    )

    async def work(calls: Calls) -> admin_pb2.SetModelRuleResponse:
        return await calls(calls.stub.SetModelRule, request)

    after = ask(work).rule
    if as_json:
        print_json(_plain(after))
        return
    click.echo(f"For {whose(after.scope)}: {'; '.join(effects(after))}.")


@rule.command("list")
@json_option
def list_rules(as_json: bool) -> None:
    """List rules in the order in which they apply.

    With --json: a list of {"scope": {"pool", "model", "key_id", "everyone"}, "defaults": {…}, "pinned": {…},
    "max_output_tokens", "num_ctx", "keep_alive_s", "max_context_tokens", "thinking", "structured"}
    """

    async def work(calls: Calls) -> admin_pb2.ListModelRulesResponse:
        return await calls(calls.stub.ListModelRules, admin_pb2.ListModelRulesRequest())

    rules = ask(work).rules
    if as_json:
        print_json([_plain(one) for one in rules])
        return
    print_table(
        ("For", "What"),
        ((escape(whose(one.scope)), escape("\n".join(effects(one)))) for one in rules),
        nothing="There are no rules: requests pass as they come. Make one with: forebay model rule set …",
    )


@rule.command("remove")
@_scope_options
@json_option
def remove_rule(pool: str | None, model: str | None, key: str | None, as_json: bool) -> None:
    """Take the whole rule away.

    \b
    forebay model rule remove
    forebay model rule remove --model 'qwen3*'

    With --json: the rule, as it was
    """
    request = admin_pb2.RemoveModelRuleRequest(scope=_scope(pool, model, key))

    async def work(calls: Calls) -> admin_pb2.RemoveModelRuleResponse:
        return await calls(calls.stub.RemoveModelRule, request)

    before = ask(work).rule
    if as_json:
        print_json(_plain(before))
        return
    click.echo(f"There is no rule for {whose(before.scope)} any more.")


def _scope(pool: str | None, model: str | None, key: str | None) -> admin_pb2.ModelRuleScope:
    """Raises BadInput."""
    named = {"pool": pool, "model": model, "key_id": key}
    named = {field: name for field, name in named.items() if name is not None}
    if len(named) > 1:
        raise BadInput("A rule is for one of --pool, --model and --key, or for everybody.")
    scope = admin_pb2.ModelRuleScope(everyone=True)
    for field, name in named.items():
        if not name:
            raise BadInput("Say which pool, model or key; the name is empty.")
        setattr(scope, field, name)
    return scope


def _fields(told: Iterable[str], option: str) -> dict[str, str]:
    """Field → JSON. Raises BadInput."""
    fields: dict[str, str] = {}
    for text in told:
        name, sign, value = text.partition("=")
        if not sign or not name.strip():
            raise BadInput(f"{text!r} is not FIELD=VALUE: write {option} temperature=0.7.")
        fields[name.strip()] = as_json_text(value)
    return fields


def _cap(text: str | None) -> admin_pb2.Cap | None:
    return admin_pb2.Cap(most=parse_cap(text)) if text is not None else None


def _plain(told: admin_pb2.ModelRule) -> Plain:
    return {**plain(told), "defaults": _values(told.defaults), "pinned": _values(told.pinned)}


def _values(fields: Mapping[str, str]) -> dict[str, Any]:
    return {name: json.loads(fields[name]) for name in sorted(fields)}


def _within(pool: str) -> str:
    return f"in the pool {pool}" if pool else "in every pool"
