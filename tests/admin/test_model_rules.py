"""Aliases and rules of models: what operators say, what gateways hear of it, and what is refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from forebay.errors import BadInput, NotFound, NotPossible
from forebay.wire.v1 import admin_pb2
from forebay_admin.models.model_rules import (
    Alias,
    Rule,
    Scope,
    ScopeKind,
    demand_alias,
    demand_fields,
    in_order,
)
from forebay_admin.people.people import Role
from tests.admin.replica import Running, Start
from tests.admin.test_cli import Invoke, forebay, told
from tests.admin.test_operator import query, refused, somebody

__all__ = ["forebay"]  # the fixture

OFF = admin_pb2.MODEL_THINKING_OFF
EVERYONE = {"everyone": True}


async def next_of(stream: Any, within_s: float = 60.0) -> Any:
    return await asyncio.wait_for(stream.read(), within_s)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"stream": "true"}, "is for the client to say"),
        ({"Model": '"x"'}, "is for the client to say"),
        ({"two words": "1"}, "is not the name of a field"),
        ({"temperature": '"warm"'}, "temperature must be a number"),
        ({"temperature": "NaN"}, "is not JSON"),
        ({"temperature": "null"}, "says nothing"),
        ({"Temperature": "1"}, "write temperature"),
        ({"seed": "1.5"}, "seed must be a whole number"),
        ({"seed": "true"}, "seed must be a whole number"),
        ({"max_tokens": "0"}, "max_tokens must be a whole number of at least 1"),
        ({"stop": "[1]"}, "stop must be a text or a list of texts"),
        ({"options": "[]"}, "options must be a JSON object"),
        ({"keep_alive": '"soon"'}, "keep_alive must be a number of seconds"),
        ({"guided": "{"}, "is not JSON"),
        ({"guided": '"\\u0000"'}, "null character"),
        ({"guided": '"' + "x" * 20_000 + '"'}, "is longer than"),
        ({"guided": "[" * 500 + "]" * 500}, "is not JSON"),
    ],
)
def test_a_field_that_would_break_requests_is_refused(fields: dict[str, str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        demand_fields(fields)


def test_values_are_kept_as_json_without_spaces() -> None:
    fields = {"temperature": " 0.70", "stop": '"a"', "guided": '{"b": 1,  "a": [ 1.0 ]}', "keep_alive": '"1h30m"'}
    kept = {"temperature": "0.7", "stop": '"a"', "guided": '{"b":1,"a":[1.0]}', "keep_alive": '"1h30m"'}
    assert demand_fields(fields) == kept


@pytest.mark.parametrize(
    ("wanted", "is_possible"),
    [
        (Alias("b", "c"), False),  # a is an alias of b
        (Alias("x", "a"), False),
        (Alias("x", "a", "day"), False),
        (Alias("x", "night-a"), False),
        (Alias("x", "night-a", "night"), False),
        (Alias("x", "night-a", "day"), True),  # where night-a is a model of the fleet
        (Alias("a", "c"), True),  # in place of the one there is
        (Alias("x", "b"), True),
    ],
)
def test_an_alias_of_an_alias_is_refused_in_pools_where_both_are(wanted: Alias, is_possible: bool) -> None:
    known = [Alias("a", "b"), Alias("night-a", "b", "night")]
    if is_possible:
        assert demand_alias(wanted, known) == wanted
    else:
        with pytest.raises(NotPossible):
            demand_alias(wanted, known)


def test_rules_apply_from_everybodys_to_a_keys_and_from_patterns_to_names() -> None:
    scopes = [
        Scope(ScopeKind.KEY, "k"),
        Scope(ScopeKind.MODEL, "qwen3-8b"),
        Scope(ScopeKind.MODEL, "qwen3*"),
        Scope(ScopeKind.MODEL, "*"),
        Scope(ScopeKind.POOL, "night"),
        Scope(),
    ]
    told = [str(rule.scope) for rule in in_order([Rule(scope) for scope in scopes])]
    assert told == ["everyone", "pool night", "model *", "model qwen3*", "model qwen3-8b", "key k"]


async def test_each_change_reaches_a_gateway_whole_and_other_changes_bring_nothing(start: Start) -> None:
    async with start() as here, start() as there:
        operator = await here.operator()
        watcher = await there.watcher("gateway")
        stream = watcher.WatchModelRules()
        first = await next_of(stream)
        assert (first.snapshot, list(first.aliases), list(first.rules)) == (True, [], [])

        await operator.SetModelAlias(alias={"alias": "gpt-4o", "model": "tiny"})
        assert [(a.alias, a.model, a.pool) for a in (await next_of(stream)).aliases] == [("gpt-4o", "tiny", "")]
        key = (await operator.CreateKey()).key
        quiet = await next_of(stream)
        assert quiet == admin_pb2.ModelRulesUpdate(version=quiet.version), "nothing of it is about models"

        set_rule = await operator.SetModelRule(
            scope={"key_id": key.id},
            defaults={"temperature": "0.7"},
            pinned={"seed": "1"},
            max_output_tokens={"most": 64},
            thinking=OFF,
            structured=admin_pb2.STRUCTURED_OUTPUT_CHECK,
        )
        update = await next_of(stream)
        assert (update.version, update.snapshot, len(update.aliases)) == (set_rule.version, True, 1)
        (rule,) = update.rules
        assert (rule.scope.key_id, dict(rule.defaults), dict(rule.pinned)) == (
            *(key.id, {"temperature": "0.7"}, {"seed": "1"}),
        )
        assert (rule.max_output_tokens, rule.HasField("num_ctx"), rule.thinking) == (64, False, OFF)

        assert rule.structured == admin_pb2.STRUCTURED_OUTPUT_CHECK

        stream.cancel()
        known = update.version
        await operator.RemoveModelAlias(alias="gpt-4o")
        again = watcher.WatchModelRules(known)
        missed = await next_of(again)
        assert (missed.snapshot, list(missed.aliases), len(missed.rules)) == (True, [], 1), "a removal is not missed"
        again.cancel()
        up_to_date = watcher.WatchModelRules(missed.version)
        assert await next_of(up_to_date) == admin_pb2.ModelRulesUpdate(version=missed.version)
        up_to_date.cancel()


WRONG: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("SetModelAlias", {}, "INVALID_ARGUMENT: '' is not the name of a model."),
    ("SetModelAlias", {"alias": {"alias": "a", "model": "a"}}, "INVALID_ARGUMENT: a would stand for itself."),
    ("SetModelAlias", {"alias": {"alias": "a", "model": "b", "pool": "x y"}}, "INVALID_ARGUMENT: A pool's name is"),
    ("RemoveModelAlias", {"alias": "a"}, "NOT_FOUND: There is no alias a of every pool."),
    ("RemoveModelAlias", {"alias": "a", "pool": "p"}, "NOT_FOUND: There is no alias a in the pool p."),
    ("SetModelRule", {"scope": EVERYONE}, "INVALID_ARGUMENT: Say what the rule is to do"),
    ("SetModelRule", {"scope": {"pool": ""}, "thinking": OFF}, "INVALID_ARGUMENT: Say which pool"),
    ("SetModelRule", {"scope": {"key_id": "0" * 12}, "thinking": OFF}, "NOT_FOUND: There is no key 000000000000."),
    ("SetModelRule", {"scope": {"model": " "}, "thinking": OFF}, "INVALID_ARGUMENT: ' ' is not the name of a model."),
    ("SetModelRule", {"scope": {}, "thinking": OFF}, "INVALID_ARGUMENT: Say for whom the rule is"),
    ("SetModelRule", {"scope": EVERYONE, "thinking": 9}, "INVALID_ARGUMENT: There is no way of thinking 9"),
    (
        "SetModelRule",
        {"scope": EVERYONE, "structured": 9},
        "INVALID_ARGUMENT: There is no such way with structured output",
    ),
    ("SetModelRule", {"scope": EVERYONE, "structured": 0}, "INVALID_ARGUMENT: Nothing would be left of the rule"),
    (
        "SetModelRule",
        {"scope": EVERYONE, "max_output_tokens": {"most": 0}},
        "INVALID_ARGUMENT: max_output_tokens is from 1 to",
    ),
    ("SetModelRule", {"scope": EVERYONE, "num_ctx": {"most": 2**40}}, "INVALID_ARGUMENT: num_ctx is from 1 to"),
    ("SetModelRule", {"scope": EVERYONE, "keep_alive_s": {}}, "INVALID_ARGUMENT: Nothing would be left of the rule"),
    ("SetModelRule", {"scope": EVERYONE, "removed_pins": ["seed"]}, "INVALID_ARGUMENT: The rule sets no seed."),
    (
        "SetModelRule",
        {"scope": EVERYONE, "pinned": {f"f{n}": "1" for n in range(65)}},
        "INVALID_ARGUMENT: A rule sets at most 64",
    ),
    ("RemoveModelRule", {"scope": {"model": "m"}}, "NOT_FOUND: There is no rule for model m."),
)


async def test_what_is_wrong_is_said_and_nothing_of_it_is_kept(admin: Running) -> None:
    operator = await admin.operator()
    before = (await query(admin, "SELECT value FROM admin.version"))[0]["value"]
    for call, fields, words in WRONG:
        said = await refused(getattr(operator, call)(**fields))
        assert said.startswith(words), (call, fields, said)
    assert (await query(admin, "SELECT value FROM admin.version"))[0]["value"] == before


async def test_changes_are_audited_with_who_and_how_it_was_before(admin: Running) -> None:
    await admin.operator()
    olga = await somebody(admin, "olga", Role.OPERATOR)
    await olga.SetModelAlias(alias={"alias": "gpt-4o", "model": "tiny", "pool": "night"})
    await olga.SetModelAlias(alias={"alias": "gpt-4o", "model": "big", "pool": "night"})
    await olga.SetModelRule(scope={"pool": "night"}, defaults={"temperature": "0.7"}, num_ctx={"most": 8192})
    await olga.RemoveModelRule(scope={"pool": "night"})
    rows = await query(
        admin,
        "SELECT actor, action, subject, before, after FROM admin.audit_log WHERE action LIKE 'model%' ORDER BY id",
    )
    facts: list[Any] = [
        {name: json.loads(row[name]) if row[name] else None for name in ("before", "after")} for row in rows
    ]
    assert [(row["actor"], row["action"], row["subject"]) for row in rows] == [
        ("olga", "model.alias", "gpt-4o"),
        ("olga", "model.alias", "gpt-4o"),
        ("olga", "model.rule", "pool night"),
        ("olga", "model.rule", "pool night"),
    ]
    assert facts[1] == {
        "before": {"model": "tiny", "pool": "night"},
        "after": {"model": "big", "pool": "night"},
    }
    assert facts[2]["before"] is None
    assert facts[2]["after"]["defaults"] == ["temperature=0.7"]
    assert (facts[3]["before"]["num_ctx"], facts[3]["after"]) == (8192, None)


async def test_aliases_by_the_command_line(forebay: Invoke) -> None:
    assert (await forebay("model", "alias")).output.startswith("No model has another name.")
    assert (await forebay("model", "alias", "gpt-4o", "tiny")).output == "gpt-4o stands for tiny in every pool.\n"
    made = await forebay("model", "alias", "gpt-4o", "big", "--pool", "night")
    assert made.output == "gpt-4o stands for big in the pool night.\n"
    assert told(await forebay("model", "alias", "--json")) == [
        {"alias": "gpt-4o", "model": "tiny", "pool": ""},
        {"alias": "gpt-4o", "model": "big", "pool": "night"},
    ]
    shown = (await forebay("model", "alias", "gpt-4o")).output
    assert [" ".join(line.split()) for line in shown.splitlines() if "gpt-4o" in line] == [
        "gpt-4o tiny every pool",
        "gpt-4o big night",
    ]
    gone = await forebay("model", "alias", "--remove", "gpt-4o", "--pool", "night")
    assert gone.output == "gpt-4o stands for no model any more in the pool night.\n"
    assert isinstance((await forebay("model", "alias", "gpt-5")).exception, NotFound)
    chained = await forebay("model", "alias", "best", "gpt-4o")
    assert "gpt-4o is itself an alias, of tiny" in str(chained.exception)


async def test_rules_by_the_command_line(forebay: Invoke) -> None:
    assert (await forebay("model", "rule", "list")).output.startswith("There are no rules")
    made = await forebay(
        *("model", "rule", "set", "--default", "temperature=0.7", "--pin", "seed=1", "--pin", "user=team a"),
        *("--max-output-tokens", "4096", "--num-ctx", "8192", "--keep-alive", "300", "--thinking", "off"),
        *("--structured", "ask-again"),
    )
    assert made.output == (
        'For everybody: default temperature=0.7; pinned seed=1; pinned user="team a"; at most 4,096 output tokens; '
        "num_ctx at most 8,192; keep_alive at most 300 s; thinking off; structured output: ask again.\n"
    )
    changed = told(
        await forebay(
            *("model", "rule", "set", "--no-default", "temperature", "--no-pin", "user", "--num-ctx", "none"),
            *("--thinking", "none", "--default", 'chat_template_kwargs={"a": 1}', "--json"),
        )
    )
    assert changed == {
        "scope": {"pool": None, "model": None, "key_id": None, "everyone": True},
        "defaults": {"chat_template_kwargs": {"a": 1}},
        "pinned": {"seed": 1},
        "max_output_tokens": 4096,
        "num_ctx": None,
        "keep_alive_s": 300,
        "thinking": None,
        "max_context_tokens": None,
        "structured": "ask_again",
    }
    untold = told(await forebay("model", "rule", "set", "--structured", "none", "--json"))
    assert untold["structured"] is None
    key = told(await forebay("key", "create", "--json"))
    await forebay("model", "rule", "set", "--key", key["secret"], "--thinking", "usual")
    await forebay("model", "rule", "set", "--model", "qwen3*", "--max-output-tokens", "64")
    scopes = [rule["scope"] for rule in told(await forebay("model", "rule", "list", "--json"))]
    assert [next(((k, v) for k, v in scope.items() if v), None) for scope in scopes] == [
        ("everyone", True),
        ("model", "qwen3*"),
        ("key_id", key["key"]["id"]),
    ]
    shown = (await forebay("model", "rule", "list")).output
    for words in ("everybody", "model qwen3*", f"key {key['key']['id']}", "thinking usual"):
        assert words in shown
    gone = await forebay("model", "rule", "remove", "--model", "qwen3*")
    assert gone.output == "There is no rule for model qwen3* any more.\n"
    assert isinstance((await forebay("model", "rule", "remove", "--pool", "night")).exception, NotFound)


WRONG_WORDS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("alias", "--remove"), "Name the alias to be removed"),
    (("alias", "a", "b", "--remove"), "Name the alias to be removed"),
    (("rule", "set"), "Say what the rule is to do"),
    (("rule", "set", "--pool", "a", "--key", "b", "--thinking", "off"), "one of --pool, --model and --key"),
    (("rule", "set", "--pool", "", "--thinking", "off"), "the name is empty"),
    (("rule", "set", "--default", "temperature"), "is not FIELD=VALUE: write --default temperature=0.7"),
    (("rule", "set", "--pin", "temperature=hot"), 'temperature must be a number, and not "hot".'),
    (("rule", "set", "--pin", "temperature=Infinity"), "temperature must be a number"),
    (("rule", "set", "--pin", "model=x"), "is for the client to say"),
    (("rule", "set", "--num-ctx", "many"), "'many' is not a whole number"),
    (("rule", "set", "--keep-alive", "-1"), "'-1' is not a whole number"),
)


async def test_what_is_wrong_is_one_sentence(forebay: Invoke) -> None:
    for words, said in WRONG_WORDS:
        done = await forebay("model", *words)
        assert isinstance(done.exception, BadInput), (words, done.output, done.exception)
        assert said in str(done.exception)
