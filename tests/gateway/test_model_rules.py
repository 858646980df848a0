"""Aliases and rules of models: which apply, what they do to a request in each dialect, and what clients see of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import ollama
import orjson
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from forebay.wire.v1 import admin_pb2, types_pb2
from forebay_gateway.callers.principals import Principal
from forebay_gateway.canonical.forms import CHAT, COMPLETION, EMBEDDING, Form
from forebay_gateway.dialects.anthropic.ruled import ruled_body as ruled_message
from forebay_gateway.dialects.ollama.ruled import ruled_body, seconds_of
from forebay_gateway.dialects.openai.chat import parse_chat
from forebay_gateway.fleet import Backend, Fleet, ModelOnBackend
from forebay_gateway.refused import BadField
from forebay_gateway.rules.catalogue import find_model, may_ask, offered_to
from forebay_gateway.rules.model_rules import Alias, ModelRules, Rule, ScopedRule, ScopeKind, Structured
from forebay_gateway.rules.ruled_fields import ruled_fields
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.house import MODEL, House, ask, eventually, open_house

QUICK = Pace(tokens_per_s=2000, answer_tokens=5)
OLLAMA = types_pb2.ENGINE_KIND_OLLAMA
EVERYONE, POOL, OF_MODEL, KEY = ScopeKind.EVERYONE, ScopeKind.POOL, ScopeKind.MODEL, ScopeKind.KEY
OFF = Rule(thinks_unasked=False)
NO_THOUGHTS = {"chat_template_kwargs": {"enable_thinking": False}}


# --- which apply ------------------------------------------------------------------------------------------------------


def rules_of(*scoped: tuple[ScopeKind, str, Rule], aliases: tuple[Alias, ...] = ()) -> ModelRules:
    rules = ModelRules()
    rules.replace_all(aliases, [ScopedRule(*one) for one in scoped], 1)
    return rules


def capped(tokens: int) -> Rule:
    return Rule(max_output_tokens=tokens)


SCOPES = rules_of(
    (KEY, "k", capped(1)),
    (OF_MODEL, "qwen3-8b", capped(2)),
    (OF_MODEL, "qwen3*", capped(3)),
    (OF_MODEL, "q*", capped(4)),
    (POOL, "night", capped(5)),
    (EVERYONE, "", capped(6)),
)


@pytest.mark.parametrize(
    ("model", "pool", "key_id", "tokens"),
    [
        ("qwen3-8b", "night", "k", 1),
        ("qwen3-8b", "night", "other", 2),
        ("qwen3-32b", "night", "other", 3),
        ("qwen2.5", "day", "other", 4),
        ("llama", "night", "other", 5),
        ("llama", "day", "other", 6),
        ("xqwen3-8b", "day", "other", 6),
    ],
)
def test_what_is_said_more_narrowly_goes_before_what_is_said_widely(
    model: str, pool: str, key_id: str, tokens: int
) -> None:
    for _ in range(2):  # the second time as it was remembered
        rule = SCOPES.of(model, pool, key_id, generates=True)
        assert rule is not None
        assert rule.max_output_tokens == tokens


def test_rules_add_up_field_by_field() -> None:
    rules = rules_of(
        (EVERYONE, "", Rule({"temperature": 0.5, "options": {"a": 1, "b": 1}}, {"seed": 1}, num_ctx=10)),
        (POOL, "p", Rule({"options": {"b": 2}}, {"user": "x"}, keep_alive_s=5)),
        (KEY, "k", Rule({"temperature": 0.9}, thinks_unasked=False, structured=Structured.CHECK)),
    )
    assert rules.of("m", "p", "k", generates=True) == Rule(
        {"temperature": 0.9, "options": {"a": 1, "b": 2}},
        {"seed": 1, "user": "x"},
        num_ctx=10,
        keep_alive_s=5,
        thinks_unasked=False,
        structured=Structured.CHECK,
    )


def test_embeddings_are_touched_by_what_is_said_of_their_model_and_by_ollamas_limits() -> None:
    rules = rules_of(
        (EVERYONE, "", Rule({"temperature": 1}, {"seed": 1}, num_ctx=10)),
        (OF_MODEL, "embed*", Rule({"dimensions": 8})),
    )
    found = rules.of("embedder", "p", "k", generates=False)
    assert found is not None
    assert (found.defaults, found.pinned, found.num_ctx) == ({"dimensions": 8}, {}, 10)


def test_without_rules_nothing_applies_and_names_that_clients_make_up_are_not_remembered() -> None:
    assert ModelRules().of("m", "p", "k", generates=True) is None
    rules = rules_of((POOL, "night", capped(5)), (KEY, "k", capped(1)))
    for key_id in ("a", "b", "c"):
        assert rules.of("m", "day", key_id, generates=True) is None
    assert len(rules._applying) == 1


# --- what they do to a request ----------------------------------------------------------------------------------------

LIMIT = capped(100)
SAID: list[tuple[Form, dict[str, Any], Rule, dict[str, Any]]] = [
    # defaults: only what the client does not say
    (CHAT, {}, Rule({"temperature": 0.7}), {"temperature": 0.7}),
    (CHAT, {"temperature": None}, Rule({"temperature": 0.7}), {"temperature": 0.7}),
    (CHAT, {"temperature": 0}, Rule({"temperature": 0.7}), {"temperature": 0}),
    (
        CHAT,
        {"chat_template_kwargs": {"a": 1}},
        Rule({"chat_template_kwargs": {"a": 2, "b": 2}}),
        {"chat_template_kwargs": {"a": 1, "b": 2}},
    ),
    (CHAT, {"max_completion_tokens": 9}, Rule({"max_tokens": 50}), {"max_completion_tokens": 9}),
    (CHAT, {}, Rule({"options": {"num_gpu": 1}, "keep_alive": "5m"}), {}),
    # pinned: whatever the client says
    (CHAT, {"seed": 7}, Rule({"seed": 8}, {"seed": 1}), {"seed": 1}),
    (CHAT, {"max_completion_tokens": 9, "n_predict": 9}, Rule(pinned={"max_tokens": 50}), {"max_tokens": 50}),
    (
        CHAT,
        {"chat_template_kwargs": {"a": 1, "b": 1}},
        Rule(pinned={"chat_template_kwargs": {"a": 2}}),
        {"chat_template_kwargs": {"a": 2, "b": 1}},
    ),
    # limits
    (CHAT, {}, LIMIT, {"max_tokens": 100}),
    (CHAT, {"max_tokens": None}, LIMIT, {"max_tokens": 100}),
    (CHAT, {"max_tokens": 500}, LIMIT, {"max_tokens": 100}),
    (CHAT, {"max_tokens": 50}, LIMIT, {"max_tokens": 50}),
    (CHAT, {"max_completion_tokens": 500}, LIMIT, {"max_completion_tokens": 100}),
    (
        CHAT,
        {"max_completion_tokens": 50, "max_tokens": 500},
        LIMIT,
        {"max_completion_tokens": 50, "max_tokens": 100},
    ),
    (CHAT, {"max_tokens": 50, "n_predict": -1}, LIMIT, {"max_tokens": 50, "n_predict": 100}),
    (CHAT, {}, Rule({"max_tokens": 500}, max_output_tokens=100), {"max_tokens": 100}),
    (CHAT, {}, Rule(pinned={"max_tokens": 500}, max_output_tokens=100), {"max_tokens": 100}),
    (COMPLETION, {"max_tokens": 0}, LIMIT, {"max_tokens": 0}),
    (EMBEDDING, {}, LIMIT, {}),
    # thinking
    (CHAT, {}, OFF, NO_THOUGHTS),
    (CHAT, {"reasoning_effort": "none"}, OFF, {"reasoning_effort": "none", **NO_THOUGHTS}),
    (CHAT, {"reasoning_effort": "low"}, OFF, {"reasoning_effort": "low"}),
    (
        CHAT,
        {"chat_template_kwargs": {"enable_thinking": True}},
        OFF,
        {"chat_template_kwargs": {"enable_thinking": True}},
    ),
    (CHAT, {}, Rule({"reasoning_effort": "low"}, thinks_unasked=False), {"reasoning_effort": "low"}),
    (CHAT, {}, Rule(thinks_unasked=True), {}),
    (COMPLETION, {}, OFF, {}),
    (COMPLETION, {}, Rule({"reasoning_effort": "low", "top_k": 1}), {"top_k": 1}),
]


@pytest.mark.parametrize(("form", "said", "rule", "sent"), SAID)
def test_a_rule_changes_a_request_of_openais(
    form: Form, said: dict[str, Any], rule: Rule, sent: dict[str, Any]
) -> None:
    body = {"model": "m", **said}
    before = orjson.dumps(body)
    ruled = ruled_fields(body, rule, form)
    assert ruled == {"model": "m", **sent}
    assert (ruled is body) == (said == sent), "what is not changed is the same object"
    assert orjson.dumps(body) == before, "the request itself stays as it was"


OLLAMAS: list[tuple[dict[str, Any], Rule, dict[str, Any]]] = [
    ({}, Rule({"temperature": 0.7, "stop": "x"}), {"options": {"temperature": 0.7, "stop": "x"}}),
    ({"options": {"temperature": 0}}, Rule({"temperature": 0.7}), {"options": {"temperature": 0}}),
    ({"options": ""}, Rule({"seed": 1}), {"options": {"seed": 1}}),
    ({"options": {"seed": 9, "top_k": 2}}, Rule(pinned={"seed": 1}), {"options": {"seed": 1, "top_k": 2}}),
    ({}, Rule(pinned={"repetition_penalty": 1.1}), {"options": {"repeat_penalty": 1.1}}),
    ({}, Rule({"options": {"num_gpu": 1}, "keep_alive": "5m"}), {"options": {"num_gpu": 1}, "keep_alive": "5m"}),
    ({}, Rule({"guided_json": {}}), {}),
    ({}, Rule(pinned={"response_format": {"type": "json_object"}}), {"format": "json"}),
    ({}, Rule({"reasoning_effort": "low"}), {"think": "low"}),
    ({"think": True}, Rule(pinned={"chat_template_kwargs": {"enable_thinking": False}}), {"think": False}),
    ({}, OFF, {"think": False}),
    ({"think": "high"}, OFF, {"think": "high"}),
    ({}, LIMIT, {"options": {"num_predict": 100}}),
    ({"options": {"num_predict": -1}}, LIMIT, {"options": {"num_predict": 100}}),
    ({"options": {"num_predict": 0}}, LIMIT, {"options": {"num_predict": 100}}),
    ({"options": {"num_predict": 7}}, LIMIT, {"options": {"num_predict": 7}}),
    ({"options": {"num_ctx": 9000}}, Rule(num_ctx=8192), {"options": {"num_ctx": 8192}}),
    ({"options": {"num_ctx": 100}}, Rule(num_ctx=8192), {"options": {"num_ctx": 100}}),
    ({}, Rule(num_ctx=8192), {}),
    ({"keep_alive": "1h"}, Rule(keep_alive_s=300), {"keep_alive": 300}),
    ({"keep_alive": -1}, Rule(keep_alive_s=300), {"keep_alive": 300}),
    ({"keep_alive": "-1s"}, Rule(keep_alive_s=300), {"keep_alive": 300}),
    ({"keep_alive": "5m"}, Rule(keep_alive_s=300), {"keep_alive": "5m"}),
    ({"keep_alive": 0}, Rule(keep_alive_s=300), {"keep_alive": 0}),
    ({}, Rule(keep_alive_s=300), {}),
]


@pytest.mark.parametrize(("said", "rule", "sent"), OLLAMAS)
def test_a_rule_changes_a_request_in_ollamas_own_words(said: dict[str, Any], rule: Rule, sent: dict[str, Any]) -> None:
    body = {"model": "m", **said}
    before = orjson.dumps(body)
    assert ruled_body(body, rule, generates=True) == {"model": "m", **sent}
    assert orjson.dumps(body) == before


def test_an_embedding_of_ollamas_has_no_length_and_no_thoughts() -> None:
    rule = Rule({"dimensions": 8}, max_output_tokens=5, num_ctx=100, thinks_unasked=False)
    told = ruled_body({"input": "x", "options": {"num_ctx": 200}}, rule, generates=False)
    assert told == {"input": "x", "options": {"num_ctx": 100}, "dimensions": 8}


@pytest.mark.parametrize(
    ("told", "seconds"),
    [(None, 0), ("", 0), (5, 5), (0.5, 0.5), (-1, math.inf), ("1h30m", 5400), ("-5m", math.inf), ("0", 0), ("-0s", 0)],
)
def test_how_long_ollama_is_to_keep_a_model(told: Any, seconds: float) -> None:
    assert seconds_of(told) == seconds


@pytest.mark.parametrize(
    ("said", "rule", "sent"),
    [
        ({"max_tokens": 500}, LIMIT, {"max_tokens": 100}),
        ({"max_tokens": 5}, Rule({"stop": "x", "seed": 1}), {"max_tokens": 5, "stop_sequences": ["x"]}),
        ({"max_tokens": 5, "temperature": 1}, Rule(pinned={"temperature": 0}), {"max_tokens": 5, "temperature": 0}),
        ({"max_tokens": 5}, OFF, {"max_tokens": 5}),
        (
            {"max_tokens": 5000, "thinking": {"type": "enabled", "budget_tokens": 4000}},
            capped(2000),
            {"max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1999}},
        ),
        (
            {"max_tokens": 5000, "thinking": {"type": "enabled", "budget_tokens": 4000}},
            capped(500),
            {"max_tokens": 500},
        ),
    ],
)
def test_a_rule_changes_a_request_in_anthropics_own_words(
    said: dict[str, Any], rule: Rule, sent: dict[str, Any]
) -> None:
    assert ruled_message(said, rule) == sent


def test_a_rule_is_not_got_around_by_a_name_in_other_letters() -> None:
    with pytest.raises(BadField, match="write `max_tokens`"):
        ruled_fields({"Max_Tokens": 10**6}, LIMIT, CHAT)
    with pytest.raises(BadField, match="write `seed`"):
        ruled_fields({"\u017feed": 2}, Rule(pinned={"seed": 1}), CHAT)  # a long s, which Go folds too
    with pytest.raises(BadField, match="write `options`"):
        ruled_body({"Options": {"num_ctx": 10**6}}, Rule(num_ctx=8), generates=True)


def test_a_request_that_its_rule_changes_nothing_about_passes_byte_by_byte() -> None:
    raw = b'{ "model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 10 }'
    asked = parse_chat(raw)
    asked.obey(LIMIT)
    assert (asked.raw, asked.max_output_tokens) == (raw, 10)
    asked.obey(capped(5))
    assert (asked.raw, asked.max_output_tokens, asked.fields["max_tokens"]) == (b"", 5, 5)


# --- names ------------------------------------------------------------------------------------------------------------


def fleet_of(*models: str) -> Fleet:
    fleet = Fleet()
    fleet.replace_all([Backend("b", "b", "http://b", models={name: ModelOnBackend(name, 4096) for name in models})])
    return fleet


ALIASES = (
    Alias("gpt-4o", "big"),
    Alias("gpt-4o", "small", "night"),
    Alias("small", "big"),
    Alias("gone", "nowhere"),
    Alias("tagged", "llama3"),
)


@pytest.mark.parametrize(
    ("asked", "model"),
    [
        ("gpt-4o", "big"),
        ("gpt-4o:latest", "big"),
        ("small", "small"),  # a model of the very name goes first
        ("small:latest", "small"),
        ("gone", "nowhere"),
        ("tagged", "llama3:latest"),
        ("GPT-4o", None),
    ],
)
def test_a_name_is_a_model_or_an_alias(asked: str, model: str | None) -> None:
    fleet = fleet_of("big", "small", "llama3:latest")
    assert find_model(asked, "default", fleet, rules_of(aliases=ALIASES)) == model


def test_a_pools_own_alias_goes_before_that_of_every_pool() -> None:
    rules = rules_of(aliases=ALIASES)
    assert (rules.resolve("gpt-4o", "night"), rules.resolve("gpt-4o", "day")) == ("small", "big")
    assert rules.aliases("night")["gpt-4o"] == "small"


@pytest.mark.parametrize(
    ("allowed", "names"),
    [
        ((), ["big", "gpt-4o", "llama3:latest", "small", "tagged"]),
        (("big",), ["big", "gpt-4o"]),
        (("gpt-4o",), ["gpt-4o"]),
        (("small",), ["small"]),
    ],
)
def test_an_alias_is_listed_for_keys_that_may_use_it_or_what_it_stands_for(
    allowed: tuple[str, ...], names: list[str]
) -> None:
    fleet, principal = fleet_of("big", "small", "llama3:latest"), Principal("k", "u", allowed_models=frozenset(allowed))
    offered = offered_to(principal, fleet, rules_of(aliases=ALIASES))
    assert [model.name for model in offered] == names
    assert {model.alias_of for model in offered if model.name == "gpt-4o"} <= {"big"}
    assert may_ask(principal, "gpt-4o:latest", "big") == ("gpt-4o" in names)


# --- through a gateway ------------------------------------------------------------------------------------------------


def wire(pool: str = "", model: str = "", key_id: str = "", **fields: Any) -> admin_pb2.ModelRule:
    scope = admin_pb2.ModelRuleScope(everyone=True)
    for name, value in (("pool", pool), ("model", model), ("key_id", key_id)):
        if value:
            setattr(scope, name, value)
    for name in ("defaults", "pinned"):
        if name in fields:
            fields[name] = {key: orjson.dumps(value).decode() for key, value in fields[name].items()}
    return admin_pb2.ModelRule(scope=scope, **fields)


def alias(name: str, model: str = MODEL) -> admin_pb2.ModelAlias:
    return admin_pb2.ModelAlias(alias=name, model=model)


async def ruled(house: House, *rules: admin_pb2.ModelRule, aliases: tuple[str, ...] = ()) -> None:
    """And the gateway has heard it."""
    sign = f"sign-{house.admin._version}"
    house.admin.rule(rules, [*map(alias, aliases), alias(sign)])
    while True:
        async with house.client.get(f"{house.url}/v1/models/{sign}", headers=house.headers) as answer:
            if answer.status == 200:
                return


@asynccontextmanager
async def open_ruled(
    directory: Path, *rules: admin_pb2.ModelRule, aliases: tuple[str, ...] = (), flavour: Flavour = Flavour.ANY
) -> AsyncIterator[tuple[House, FakeEngine]]:
    engine = FakeEngine(flavour=flavour, pace=QUICK)
    async with open_house(directory, engine) as house:
        if flavour is Flavour.OLLAMA:
            await house.put("b1", engine.url, kind=OLLAMA)
        await ruled(house, *rules, aliases=aliases)
        yield house, engine


def said_to(engine: FakeEngine) -> dict[str, Any]:
    body = engine.record.requests[-1].body
    assert isinstance(body, dict)
    return body


async def test_openais_client_asks_by_an_alias_and_is_answered_under_it(tmp_path: Path) -> None:
    rule = wire(defaults={"temperature": 0.25}, pinned={"seed": 1}, max_output_tokens=3)
    async with open_ruled(tmp_path, rule, aliases=("gpt-4o",)) as (house, engine):
        async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key=str(house.key), max_retries=0) as client:
            messages: Any = ask()["messages"]
            raw = await client.chat.completions.with_raw_response.create(model="gpt-4o", messages=messages, seed=7)
            assert raw.headers["x-forebay-model"] == MODEL
            assert raw.parse().model == "gpt-4o"
            sent = said_to(engine)
            assert (sent["model"], sent["seed"], sent["temperature"], sent["max_tokens"]) == (MODEL, 1, 0.25, 3)
            assert house.scheduler.submits[-1].max_output_tokens == 3
            stream = await client.chat.completions.create(model="gpt-4o", messages=messages, stream=True)
            assert {chunk.model async for chunk in stream} == {"gpt-4o"}
            listed = [model async for model in client.models.list()]
            assert {m.id: (m.model_extra or {}).get("alias_of") for m in listed if "sign" not in m.id} == {
                MODEL: None,
                "gpt-4o": MODEL,
            }
        rows = await house.rows(2)
        assert {(row.model_requested, row.model) for row in rows} == {("gpt-4o", MODEL)}


async def test_a_key_has_a_rule_of_its_own_and_may_be_for_an_alias_alone(tmp_path: Path) -> None:
    async with open_ruled(tmp_path, aliases=("gpt-4o",)) as (house, engine):
        key = house.admin.add_key(allowed_models=["gpt-4o"])
        await ruled(house, wire(key_id=key.public_id, pinned={"seed": 5}), aliases=("gpt-4o",))
        headers = {"authorization": f"Bearer {key}"}
        statuses = []
        for name in ("gpt-4o", MODEL):
            async with house.post(ask(model=name), headers=headers) as answer:
                statuses.append(answer.status)
        assert statuses == [200, 403]
        assert said_to(engine)["seed"] == 5
        async with house.post(ask()) as answer:
            assert answer.status == 200
        assert "seed" not in said_to(engine)


@pytest.mark.parametrize("flavour", [Flavour.OLLAMA, Flavour.VLLM])
async def test_ollamas_client_asks_by_an_alias_whatever_the_engine(tmp_path: Path, flavour: Flavour) -> None:
    rule = wire(
        pinned={"seed": 1}, max_output_tokens=3, num_ctx=64, keep_alive_s=60, thinking=admin_pb2.MODEL_THINKING_OFF
    )
    async with open_ruled(tmp_path, rule, aliases=("gpt-4o",), flavour=flavour) as (house, engine):
        client = ollama.AsyncClient(host=f"{house.url}/k/{house.key}")
        options = {"num_ctx": 9000, "seed": 4}
        told = await client.chat("gpt-4o", ask()["messages"], options=options, keep_alive=-1)
        assert told.model == "gpt-4o"
        sent = said_to(engine)
        assert sent["model"] == MODEL
        if flavour is Flavour.OLLAMA:
            assert sent["options"] == {"num_ctx": 64, "seed": 1, "num_predict": 3}
            assert (sent["keep_alive"], sent["think"]) == (60, False)
        else:
            assert (sent["seed"], sent["max_tokens"], sent["chat_template_kwargs"]) == (
                1,
                3,
                {"enable_thinking": False},
            )
        assert house.scheduler.submits[-1].max_output_tokens == 3
        tags = {model.model: model.digest for model in (await client.list()).models}
        assert {MODEL, "gpt-4o"} <= set(tags)
        shown = await client.show("gpt-4o")
        assert shown.capabilities
        loaded = [model.model for model in (await client.ps()).models]
        assert "gpt-4o" not in loaded, "each model is loaded once"
        await client._client.aclose()


async def test_anthropics_client_asks_by_an_alias(tmp_path: Path) -> None:
    rule = wire(model="fake*", max_output_tokens=3)
    async with (
        open_ruled(tmp_path, rule, aliases=("claude-opus",)) as (house, engine),
        AsyncAnthropic(base_url=house.url, api_key=str(house.key), max_retries=0) as client,
    ):
        messages: Any = ask()["messages"]
        told = await client.messages.create(model="claude-opus", messages=messages, max_tokens=500)
        assert (told.model, said_to(engine)["model"], said_to(engine)["max_tokens"]) == ("claude-opus", MODEL, 3)
        assert "claude-opus" in [model.id async for model in client.models.list()]
        counted = await client.messages.count_tokens(model="claude-opus", messages=messages)
        assert counted.input_tokens > 0


async def test_an_untouched_request_passes_byte_by_byte_and_rules_go_again(tmp_path: Path) -> None:
    body = b'{ "model": "fake-model",  "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2 }'
    headers = {"content-type": "application/json"}
    async with open_ruled(tmp_path, wire(pool="night", pinned={"seed": 1})) as (house, engine):
        for rules, untouched in (((), True), ((wire(pinned={"seed": 1}),), False), ((), True)):
            await ruled(house, *rules)
            async with house.post(data=body, headers=house.headers | headers) as answer:
                assert answer.status == 200
            length = int(engine.record.requests[-1].headers["content-length"])
            assert (length == len(body)) is untouched


async def test_a_rule_for_whom_this_version_does_not_know_is_left_aside(tmp_path: Path) -> None:
    unknown = admin_pb2.ModelRule(scope=admin_pb2.ModelRuleScope(), pinned={"seed": "1"})
    async with open_ruled(tmp_path, unknown) as (house, engine):
        async with house.post(ask()) as answer:
            assert answer.status == 200
        assert "seed" not in said_to(engine)


async def test_an_alias_of_a_model_that_nobody_has_is_unknown(tmp_path: Path) -> None:
    async with open_ruled(tmp_path) as (house, _):
        house.admin.rule((), [alias("gone", "nowhere"), alias("sign")])
        await asyncio.sleep(0.2)
        async with house.post(ask(model="gone")) as answer:
            assert answer.status == 404
            assert "gone" in (await answer.json())["error"]["message"]


async def test_rules_are_kept_over_a_restart_without_admin_and_are_not_waited_for(tmp_path: Path) -> None:
    async with open_ruled(tmp_path, wire(pinned={"seed": 3}), aliases=("gpt-4o",)) as (house, engine):
        await eventually(
            lambda: all(any(tmp_path.glob(f"snapshots/*{what}*")) for what in ("model_rules", "principals", "fleet"))
        )
        await house.stop_gateway()
        await house.stop_server(house.admin)
        await house.start_gateway()
        await house.wait_ready()
        async with house.post(ask(model="gpt-4o")) as answer:
            assert answer.status == 200
        assert said_to(engine)["seed"] == 3
        await house.stop_gateway()
        for snapshot in tmp_path.glob("snapshots/*model_rules*"):
            snapshot.unlink()
        await house.start_gateway()
        await house.wait_ready()
        async with house.post(ask()) as answer:
            assert answer.status == 200
        assert "seed" not in said_to(engine)
