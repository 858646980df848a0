"""Settings: terms of pools and models, presets of groups, and how admin was started, without any secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.wire.v1 import admin_pb2
from forebay_admin.config import AdminSettings
from forebay_admin.people.people import Role
from forebay_admin.web.work.settings_view import models_of, pools_of, presets_of, told_settings
from tests.admin.web.conftest import House, page, send

asynchronous = pytest.mark.asyncio(loop_scope="module")
SECRETS = Path("/secret/place")


def test_what_admin_was_started_with_is_told_without_secrets_and_places() -> None:
    settings = AdminSettings(
        token_file=SECRETS / "token",
        callers_file=SECRETS / "callers",
        pepper_file=SECRETS / "pepper",
        seal_key_file=SECRETS / "seal",
        database_url="postgresql://forebay:hunter2@db/forebay",
        nats_url="nats://admin:hunter2@bus:4222",
        tls_cert=SECRETS / "cert",
        smtp_password_file=SECRETS / "smtp",
        trusted_proxies=("10.0.0.7", "10.1.0.0/24"),
    )
    told = {one.name: one.value for one in told_settings(settings)}
    assert "hunter2" not in str(told)
    assert "secret" not in str(told)
    assert not any(name.endswith("_file") for name in told)
    assert told["nats_url"] == "nats://bus:4222"
    assert (told["public_status"], told["ledger_days"], told["content_max_blob_bytes"]) == ("yes", "400", "536,870,912")
    assert told["trusted_proxies"] == "10.0.0.7, 10.1.0.0/24"
    assert (told["smtp_host"], told["smtp_user"]) == ("not set", "empty")


def test_what_nobody_set_is_as_usual_and_no_window_is_not_a_window_of_nothing() -> None:
    usual = admin_pb2.Pool(terms=admin_pb2.PoolPolicy(pool="a"), is_default=True)
    never = admin_pb2.Pool(terms=admin_pb2.PoolPolicy(pool="b", locality_window=0, sticky=True), backends=0)
    one, other = pools_of(admin_pb2.ListPoolsResponse(pools=[usual, never]))
    assert (one.placement, one.locality_window, one.backends) == ("expected_ttft", None, None)
    assert (other.locality_window, other.backends, other.sticky) == (0, 0, True)
    (model,) = models_of(admin_pb2.ListModelTermsResponse(terms=[admin_pb2.ModelPolicy(model="m")]))
    assert model.weight == 1.0


def test_a_preset_says_which_of_its_groups_there_are() -> None:
    (preset,) = presets_of(["staff", "others"], {"small": {"staff": 2000, "student": 500}})
    assert (preset.groups, preset.missing) == ((("staff", 2.0), ("student", 0.5)), ("student",))


@asynchronous
async def test_terms_of_a_pool_are_set_shown_and_taken_away(house: House) -> None:
    operator, auditor = await house.of(Role.OPERATOR), await house.of(Role.AUDITOR)
    fields = {"pool": "lab", "placement": "least_loaded", "sticky": "yes", "locality_window": "5,000"}
    status, _, to = await send(operator, "/console/settings/pool", **fields)
    assert (status, to) == (303, "/console/settings")
    text = await page(auditor, "/console/settings")
    for told in ("least_loaded", "on one backend", "5,000 tokens", "How admin was started", "ledger_days"):
        assert told in text
    assert "/console/settings/pool?pool=lab" not in text, "an auditor is offered nothing that they may not do"
    form = await page(operator, "/console/settings/pool?pool=lab")
    assert 'value="5000"' in form
    assert 'value="least_loaded" selected' in form
    status, text, _ = await send(operator, "/console/settings/pool/remove", pool="lab")
    assert status == 400
    assert "Tick that you mean it" in text
    assert (await send(operator, "/console/settings/pool/remove", pool="lab", sure="yes"))[0] == 303
    assert "least_loaded" not in await page(auditor, "/console/settings")


@pytest.mark.parametrize(
    "wrong",
    [
        {"pool": ""},
        {"pool": "no spaces in names"},
        {"placement": "by_colour"},
        {"placement": ""},
        {"locality_window": "many"},
        {"locality_window": "-1"},
        {"locality_window": "999999999999"},
    ],
)
@asynchronous
async def test_terms_of_a_pool_that_cannot_be_are_refused_and_the_form_keeps_them(
    house: House, wrong: dict[str, str]
) -> None:
    operator = await house.of(Role.OPERATOR)
    status, text, _ = await send(operator, "/console/settings/pool", **{"pool": "kept", "placement": "random", **wrong})
    assert status == 400
    assert "That was not accepted" in text
    assert 'value="kept"' in text or "pool" in wrong


@asynchronous
async def test_terms_of_a_model_are_set_by_an_admin_and_looked_at_by_others(house: House) -> None:
    admin, operator = await house.of(Role.ADMIN), await house.of(Role.OPERATOR)
    fields = {"model": "org/llama", "weight": "2.5", "prompt": "0.25", "completion": "1"}
    assert (await send(admin, "/console/settings/model", **fields))[0] == 303
    text = await page(operator, "/console/settings")
    assert "org/llama" in text
    assert "0.25" in text
    assert "2.5" in text
    form = await page(admin, "/console/settings/model?model=org%2Fllama")
    assert 'name="prompt" type="text" value="0.25"' in form
    assert (await send(admin, "/console/settings/model", model="org/llama", weight="3"))[0] == 303
    (terms,) = (await house.root.ListModelTerms()).terms
    assert (terms.weight_milli, terms.prompt_micros, terms.completion_micros) == (3000, 250_000, 1_000_000)
    await page(operator, "/console/settings/model", status=403)
    assert (await send(operator, "/console/settings/model", **fields))[0] == 403
    assert (await send(admin, "/console/settings/model/remove", model="org/llama"))[0] == 400
    assert (await send(admin, "/console/settings/model/remove", model="org/llama", sure="yes"))[0] == 303
    assert not (await house.root.ListModelTerms()).terms


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": ""},
        {"model": "x" * 300},
        {"weight": ""},
        {"weight": "heavy"},
        {"weight": "0"},
        {"weight": "-2"},
        {"weight": "NaN"},
        {"weight": "Infinity"},
        {"weight": "1.23456"},
        {"weight": "1001"},
        {"prompt": "cheap"},
        {"prompt": "-1"},
        {"completion": "0.0000001"},
        {"cached_prompt": "1e30"},
    ],
)
@asynchronous
async def test_terms_of_a_model_that_cannot_be_are_refused_and_the_form_keeps_them(
    house: House, wrong: dict[str, str]
) -> None:
    admin = await house.of(Role.ADMIN)
    status, text, _ = await send(admin, "/console/settings/model", **{"model": "kept", "weight": "1", **wrong})
    assert status == 400
    assert "That was not accepted" in text
    assert 'value="kept"' in text or "model" in wrong
    assert not (await house.root.ListModelTerms()).terms


@asynchronous
async def test_a_preset_is_used_when_it_was_meant(house: House) -> None:
    admin, operator = await house.of(Role.ADMIN), await house.of(Role.OPERATOR)
    assert (await send(admin, "/console/settings/preset", preset="university"))[0] == 400
    assert (await send(admin, "/console/settings/preset", preset="none-such", sure="yes"))[0] == 400
    assert (await send(operator, "/console/settings/preset", preset="university", sure="yes"))[0] == 403
    assert (await send(admin, "/console/settings/preset", preset="university", sure="yes"))[0] == 303
    groups = {group.name: group.weight_milli for group in (await house.root.ListGroups()).groups}
    assert groups["faculty"] == 3000
    await page(await house.of(Role.MEMBER), "/console/settings", status=403)
