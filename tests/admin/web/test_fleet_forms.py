"""The forms of the fleet's pages: what each does, what each says of bad input, and that nobody else's are taken."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from forebay.wire.v1 import commands_pb2, library_pb2, lifecycle_pb2
from forebay_admin.people.people import Role
from tests.admin.fake_alerts import HOT
from tests.admin.web.conftest import House, page, send
from tests.admin.web.fleet_house import fill

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOX, VLLM = "/console/nodes/box", "/console/backends/vllm"


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def fleet(house: House) -> None:
    fill(house)
    house.admin.site.registry.alerts.open.append(type(HOT).FromString(HOT.SerializeToString()))


# --- bad input: the page comes again, with what was typed, and says what is wrong -------------------------------------

BAD = [
    (f"{BOX}/drain", {"deadline": "soon", "reason": "new driver"}, "is not a length of time", "new driver"),
    (f"{BOX}/drain", {"force": "yes", "reason": "x"}, "at a deadline only", 'name="reason"'),
    (f"{BOX}/drain", {"reason": "r" * 201}, "200 characters at most", "rrr"),
    (f"{BOX}/maintenance", {"begins": "yesterday", "lasts": "1h"}, "has to be a moment", "yesterday"),
    (f"{BOX}/maintenance", {"lasts": "0s"}, "has to be between", "0s"),
    (f"{BOX}/maintenance", {"begins": "2020-01-01T00:00", "lasts": "1h"}, "over already", "2020-01-01T00:00"),
    (f"{BOX}/maintenance", {"lasts": ""}, "is not a length of time", "Plan maintenance"),
    (f"{BOX}/discovery", {"policy": "magic"}, "one of suggest, auto, off", "Discovery"),
    (f"{BOX}/command", {"order": "format"}, "probe or sample", "Its agent"),
    (f"{BOX}/change", {"labels": "rack", "was-labels": ""}, "is not NAME=VALUE", "rack"),
    (f"{BOX}/change", {}, "Nothing was changed", "Labels and note"),
    ("/console/invite-node", {"name": ""}, "is missing", "Invite a node"),
    ("/console/invite-node", {"name": "no spaces please"}, "letters, digits", "no spaces please"),
    ("/console/invite-node", {"name": "ok", "valid": "9999d"}, "has to be between", "9999d"),
    ("/console/add-backend", {"name": "", "url": "http://x:1"}, "A name is missing", "http://x:1"),
    ("/console/add-backend", {"name": "b", "url": "ftp://x"}, "is not the URL of an engine", "ftp://x"),
    ("/console/add-backend", {"name": "b", "url": "http://x:1", "kind": "abacus"}, "There are openai", "http://x:1"),
    ("/console/add-backend", {"name": "b", "url": "http://x:1", "slots": "-3"}, "has to be between", "-3"),
    ("/console/add-backend", {"name": "b", "url": "http://x:1", "gpus": "zero"}, "GPUs are numbers", "zero"),
    ("/console/add-backend", {"name": "b", "url": "http://x:1", "models": "a="}, "NAME=ITS_NAME", "a="),
    ("/console/add-backend", {"name": "b", "url": "http://u:p@x:1"}, "shown to everybody", "u:p@x"),
    ("/console/add-backend", {"name": "vllm", "url": "http://x:1"}, "already", "http://x:1"),
    (f"{VLLM}/drain", {"deadline": "-1s"}, "is not a length of time", "-1s"),
    (f"{VLLM}/change", {}, "Nothing was changed", "Change it"),
    (f"{VLLM}/change", {"url": "", "was-url": "http://x"}, "address is missing", "Change it"),
    (f"{VLLM}/change", {"weight": "heavy"}, "has to be a number", "heavy"),
    (f"{VLLM}/change", {"weight": "0"}, "more than 0", "Change it"),
    (f"{VLLM}/change", {"weight": "nan"}, "has to be between", "nan"),
    (f"{VLLM}/change", {"slots": "many"}, "whole number", "many"),
    (f"{VLLM}/change", {"pool": "no such/pool"}, "pool", "no such/pool"),
    (f"{VLLM}/change", {"labels": "rack"}, "is not NAME=VALUE", "rack"),
    (f"{VLLM}/models", {"model": ""}, "is missing", "Name a model"),
    (f"{VLLM}/models/forget", {"model": ""}, "is missing", "Name a model"),
    (f"{VLLM}/keys", {"bearer": ""}, "The key is missing", "Give it a key"),
    (f"{VLLM}/keys", {"bearer": "s", "replace": "yes"}, "in the place of", "Give it a key"),
    (f"{VLLM}/remove", {"confirm": "vlm"}, "Type vllm to remove it", "vlm"),
    ("/console/found-backends/adopt", {"name": ""}, "is missing", "Found engines"),
    ("/console/found-backends/adopt", {"name": "gpu-1-vllm-8000", "slots": "x"}, "whole number", "gpu-1-vllm-8000"),
    ("/console/alerts/silence", {"subject": "", "for": "1h"}, "is missing", "Silence something"),
    ("/console/alerts/silence", {"subject": "node/box", "for": "ever"}, "is not a length of time", "node/box"),
    ("/console/alerts/unsilence", {"subject": ""}, "is missing", "Silences"),
    ("/console/alerts/al-1f2e/ack", {"note": "two\nlines"}, "one line", "Say that you know"),
    ("/console/alerts/al-1f2e/silence", {"subject": "gpu/box/0", "for": "soon"}, "is not a length of time", "soon"),
    (
        "/console/model-jobs",
        {"action": "eat", "model": "m", "where": "all"},
        "An order is one of",
        "Order about a model",
    ),
    ("/console/model-jobs", {"action": "pull", "model": "", "where": "all"}, "is missing", "Order about a model"),
    ("/console/model-jobs", {"action": "pull", "model": "m"}, "Say where", "Order about a model"),
    ("/console/model-jobs", {"action": "pull", "model": "m", "where": "moon:1"}, "There are backends", "Where"),
    ("/console/model-jobs", {"action": "copy", "model": "m", "where": "all"}, "name of the copy is missing", "Where"),
    ("/console/model-jobs", {"action": "delete", "model": "m", "where": "all"}, "Type m to delete it", "Where"),
    ("/console/model-pins", {"model": "", "where": "all"}, "is missing", "Keep a model loaded"),
    ("/console/model-pins/remove", {"model": "m"}, "Say where", "Kept loaded"),
    ("/console/model-aliases", {"alias": "gpt", "model": ""}, "is missing", "gpt"),
    ("/console/model-aliases/remove", {"alias": ""}, "is missing", "Other names"),
    ("/console/model-rules", {"scope": "everyone"}, "says nothing yet", "A rule"),
    ("/console/model-rules", {"scope": "world", "defaults": "a=1"}, "A rule is for", "a=1"),
    ("/console/model-rules", {"scope": "pool", "defaults": "a=1"}, "Say which pool", "a=1"),
    ("/console/model-rules", {"defaults": "temperature"}, "is not FIELD=VALUE", "temperature"),
    ("/console/model-rules", {"max_output_tokens": "lots"}, "whole number", "lots"),
    ("/console/model-rules", {"thinking": "hard"}, "one of off", "A rule"),
    ("/console/model-rules/remove", {"scope": "key"}, "Say which key", "Rules"),
    ("/console/model-fallbacks", {"model": "m", "others": ""}, "at least one model", "A fallback"),
    ("/console/model-fallbacks", {"model": "m", "others": "n", "order": "best"}, "one of listed", "n"),
    ("/console/model-fallbacks", {"model": "m", "others": "n", "after": "-1"}, "has to be between", "n"),
    ("/console/model-fallbacks/remove", {"model": ""}, "is missing", "Fallbacks"),
    ("/console/required-models", {"pool": "", "required": "m"}, "is missing", "What a pool requires"),
    ("/console/required-models", {"pool": "default", "required": "m", "pull": "x"}, "is pulled", "default"),
    ("/console/prices", {"model": "m"}, "Say what it costs", "A price"),
    ("/console/prices", {"model": "", "prompt": "1"}, "is missing", "A price"),
    ("/console/prices", {"model": "m", "prompt": "a lot"}, "has to be an amount", "a lot"),
    ("/console/prices", {"model": "m", "prompt": "-1"}, "less than nothing", "-1"),
    ("/console/prices", {"model": "m", "prompt": "0.0000001"}, "six places", "0.0000001"),
    ("/console/prices", {"model": "m", "tiers": "1:2"}, "is no tier", "1:2"),
    ("/console/prices", {"model": "m", "tiers": "1:2:3:x"}, "has to be an amount", "1:2:3:x"),
    ("/console/prices", {"model": "m", "prompt": "1", "begins": "soon"}, "has to be a moment", "soon"),
    ("/console/prices/end", {"model": ""}, "is missing", "No price"),
    ("/console/model-weights", {"model": "m", "weight": "x"}, "This has to be a weight", "A weight"),
    ("/console/model-weights", {"model": "m", "weight": "0"}, "more than 0", "A weight"),
    ("/console/model-weights", {"model": "m", "weight": "1.0001"}, "three decimals", "1.0001"),
    ("/console/model-weights/remove", {"model": ""}, "is missing", "Weights"),
]


@pytest.mark.parametrize(("path", "fields", "why", "kept"), BAD)
async def test_bad_input_gives_the_page_again_and_says_what_is_wrong(
    house: House, path: str, fields: dict[str, str], why: str, kept: str
) -> None:
    status, text, _ = await send(await house.of(Role.ADMIN), path, **fields)
    assert status in (400, 409), text[:2000]
    assert why in text
    assert kept in text
    assert "That was not accepted" in text


async def test_a_key_that_was_typed_is_not_sent_back_with_what_was_wrong(house: House) -> None:
    fields = {"name": "b", "url": "nowhere", "bearer": "sk-very-secret"}
    status, text, _ = await send(await house.of(Role.ADMIN), "/console/add-backend", **fields)
    assert status == 400
    assert "sk-very-secret" not in text


@pytest.mark.parametrize(
    "path",
    [
        "/console?span=century",
        "/console/nodes/box?span=",
        "/console/nodes/box?kwh=dear",
        "/console/nodes/nobody",
        "/console/backends/nobody",
        "/console/backends?sort=evil&desc=x",
        "/console/models/nothing",
        "/console/model-jobs/none",
        "/console/alerts/none",
        "/console/nodes/%3Cscript%3E",
    ],
)
async def test_an_address_that_makes_no_sense_is_answered_and_breaks_nothing(house: House, path: str) -> None:
    status, text, _ = await (await house.of(Role.ADMIN)).get(path, headers={"accept": "text/html"})
    assert status in (200, 400, 404), text[:500]
    assert "<script>" not in text


# --- rights -----------------------------------------------------------------------------------------------------------

POSTS = sorted(
    {path for path, _, _, _ in BAD} | {f"{VLLM}/enable", f"{VLLM}/probe", f"{VLLM}/undrain", f"{BOX}/undrain"}
)


@pytest.mark.parametrize("path", POSTS)
async def test_nobody_does_what_their_role_does_not_allow_however_they_ask(house: House, path: str) -> None:
    for role in (Role.MEMBER, Role.AUDITOR):
        status, _, _ = await send(await house.of(role), path, name="vllm", model="llama3.1", confirm="vllm")
        assert status == 403
    status, _, _ = await (await house.of(Role.ADMIN)).submit(path, name="vllm")
    assert status == 403, "without a token of ours"
    registry = house.admin.site.registry
    assert set(registry.known) == {"vllm", "ollama-1", "cloud"}
    assert not registry.lifecycle.drains


async def test_prices_are_an_admins_business_and_an_operator_is_offered_none_of_it(house: House) -> None:
    operator = await house.of(Role.OPERATOR)
    text = await page(operator, "/console/models?tab=prices")
    assert "/console/prices" not in text
    assert (await send(operator, "/console/prices", model="m", prompt="1"))[0] == 403
    assert (await send(operator, "/console/model-weights", model="m", weight="2"))[0] == 403


# --- good input -------------------------------------------------------------------------------------------------------


async def test_a_node_is_drained_and_gets_requests_again(house: House) -> None:
    operator, drains = await house.of(Role.OPERATOR), house.admin.site.registry.lifecycle.drains
    status, _, where = await send(operator, f"{BOX}/drain", deadline="10m", force="yes", reason="new driver")
    assert (status, where) == (303, BOX)
    (order,) = drains.values()
    assert (order.name, order.force, order.reason, order.by) == ("box", True, "new driver", "some-operator")
    assert "Nothing new is sent to box" in await page(operator, BOX)
    assert (await send(operator, f"{BOX}/undrain"))[0] == 303
    assert not drains


async def test_a_backend_is_drained_by_its_name_and_the_page_offers_to_undo_it(house: House) -> None:
    operator = await house.of(Role.OPERATOR)
    assert (await send(operator, f"{VLLM}/drain", reason="swap disks"))[0] == 303
    text = await page(operator, VLLM)
    assert f'action="{VLLM}/undrain"' in text
    assert "swap disks" in text
    assert (await send(operator, f"{VLLM}/undrain"))[0] == 303


async def test_a_backend_is_looked_at_now_by_whoever_runs_it(house: House) -> None:
    operator, lifecycle = await house.of(Role.OPERATOR), house.admin.site.registry.lifecycle
    lifecycle.looks.clear()
    assert f'action="{VLLM}/probe"' in await page(operator, VLLM)
    assert (await send(operator, f"{VLLM}/probe"))[0] == 303
    assert lifecycle.looks == [("vllm", "some-operator")]
    assert "vllm was looked at: it is healthy." in await page(operator, VLLM)
    lifecycle.looks_end = False
    try:
        assert (await send(operator, f"{VLLM}/probe"))[0] == 303
    finally:
        lifecycle.looks_end = True
    assert "has not answered yet" in await page(operator, VLLM)


async def test_maintenance_is_planned_shown_and_cancelled(house: House) -> None:
    operator, windows = await house.of(Role.OPERATOR), house.admin.site.registry.lifecycle.windows
    fields = {"begins": "2035-01-01T10:00", "lasts": "90m", "drain_before": "10m", "reason": "new rack"}
    assert (await send(operator, f"{BOX}/maintenance", **fields))[0] == 303
    (window,) = windows.values()
    assert window.scope == lifecycle_pb2.LIFECYCLE_SCOPE_NODE
    assert (window.ends_at_us - window.begins_at_us, window.drain_before_s) == (90 * 60_000_000, 600)
    assert "new rack" in await page(operator, BOX)
    assert (await send(operator, f"{BOX}/maintenance/{window.id}/cancel"))[0] == 303
    assert not windows


async def test_an_invitation_is_shown_once_on_the_answer_and_nowhere_after(house: House) -> None:
    operator = await house.of(Role.OPERATOR)
    status, text, _ = await send(operator, "/console/invite-node", name="gpu-9", valid="10m")
    assert status == 200
    found = re.search(r"curl [^<]+", text)
    assert found is not None
    assert found[0] not in await page(operator, "/console/nodes")
    assert found[0] not in await page(operator, "/console/invite-node")


async def test_an_agent_is_told_to_look_anew_and_what_it_says_is_shown(house: House) -> None:
    operator, nodes = await house.of(Role.OPERATOR), house.admin.site.registry.nodes
    nodes.commands.clear()
    assert (await send(operator, f"{BOX}/command", order="probe"))[0] == 303
    assert nodes.commands[0].WhichOneof("order") == "probe"
    kept, nodes.answers = (
        nodes.answers,
        [commands_pb2.NodeCommandAnswer(state=commands_pb2.COMMAND_STATE_REFUSED, message="It may not.")],
    )
    try:
        status, text, _ = await send(operator, f"{BOX}/command", order="sample")
    finally:
        nodes.answers = kept
    assert status == 400
    assert "It may not." in text


async def test_what_is_done_with_found_engines_is_changed(house: House) -> None:
    operator, nodes = await house.of(Role.OPERATOR), house.admin.site.registry.nodes
    fields = {"policy": "auto", "pool": "lab", "addresses": "10.0.0.9\nbox.example"}
    assert (await send(operator, f"{BOX}/discovery", **fields))[0] == 303
    assert (nodes.site.pool, list(nodes.site.addresses)) == ("lab", ["10.0.0.9", "box.example"])


async def test_a_backend_is_added_with_its_key_which_is_never_shown(house: House) -> None:
    operator = await house.of(Role.OPERATOR)
    fields = {"name": "new-one", "url": "http://new.example:8000", "slots": "4", "bearer": "sk-secret", "kind": "vllm"}
    status, _, where = await send(operator, "/console/add-backend", **fields)
    assert (status, where) == (303, "/console/backends/new-one")
    text = await page(operator, where)
    assert "it is called with one" in text
    assert "default" in text
    assert "sk-secret" not in text


async def test_only_what_was_changed_on_the_page_is_sent(house: House) -> None:
    operator, registry = await house.of(Role.OPERATOR), house.admin.site.registry
    await send(operator, "/console/add-backend", name="fast", url="http://fast.example:8000", slots="4")
    fields = {"slots": "16", "was-slots": "4", "pool": "default", "was-pool": "default", "url": "x", "was-url": "x"}
    fields |= {"labels": "rack=b", "was-labels": "row=2", "weight": "", "was-weight": ""}
    status, text, _ = await send(operator, "/console/backends/fast/change", **fields)
    assert status == 303, text
    changed = registry.known["fast"]
    assert (changed.slots, dict(changed.labels), changed.url) == (16, {"rack": "b"}, "http://fast.example:8000")


async def test_a_backend_is_switched_off_and_on(house: House) -> None:
    operator, registry = await house.of(Role.OPERATOR), house.admin.site.registry
    cloud = "/console/backends/cloud"
    assert (await send(operator, f"{cloud}/disable"))[0] == 303
    assert not registry.known["cloud"].enabled
    text = await page(operator, cloud)
    assert "switched it off" in text
    assert f'action="{cloud}/enable"' in text
    assert (await send(operator, f"{cloud}/enable"))[0] == 303
    assert registry.known["cloud"].enabled


async def test_keys_are_added_and_forgotten_by_their_labels(house: House) -> None:
    operator = await house.of(Role.OPERATOR)
    keys = "/console/backends/cloud/keys"
    assert (await send(operator, keys, label="team-b", bearer="sk-b"))[0] == 303
    text = await page(operator, "/console/backends/cloud")
    assert "team-b" in text
    assert "sk-b" not in text
    assert (await send(operator, f"{keys}/forget", label="team-b", confirm="other"))[0] == 400
    assert (await send(operator, f"{keys}/forget", label="team-b", confirm="team-b"))[0] == 303
    assert "Forget the key team-b" not in await page(operator, "/console/backends/cloud")


async def test_a_backend_is_removed_by_whoever_types_its_name(house: House) -> None:
    operator = await house.of(Role.OPERATOR)
    status, _, where = await send(operator, "/console/backends/cloud/remove", confirm="cloud")
    assert (status, where) == (303, "/console/backends")
    await page(operator, "/console/backends/cloud", status=404)


async def test_what_was_found_is_adopted(house: House) -> None:
    operator, nodes = await house.of(Role.OPERATOR), house.admin.site.registry.nodes
    assert "gpu-1-vllm-8000" in await page(operator, "/console/found-backends?adopt=gpu-1-vllm-8000")
    nodes.actors.clear()
    assert (await send(operator, "/console/found-backends/adopt", name="gpu-1-vllm-8000", slots="8"))[0] == 303
    assert nodes.actors == ["some-operator"]


async def test_an_alert_is_acknowledged_silenced_and_told_again(house: House) -> None:
    operator, alerts = await house.of(Role.OPERATOR), house.admin.site.registry.alerts
    one = "/console/alerts/al-1f2e"
    assert (await send(operator, f"{one}/ack", note="fan is ordered"))[0] == 303
    assert "fan is ordered" in await page(operator, one)
    assert (await send(operator, f"{one}/silence", subject="gpu/box/0", rule="gpu_hot", **{"for": "2h"}))[0] == 303
    assert ("gpu/box/0", "gpu_hot") in alerts.silences
    assert "gpu/box/0" in await page(operator, "/console/alerts")
    assert (await send(operator, "/console/alerts/unsilence", subject="gpu/box/0", rule="gpu_hot"))[0] == 303
    assert not alerts.silences
    assert (await send(operator, "/console/alerts/test"))[0] == 303


async def test_a_pull_is_ordered_followed_and_cancelled(house: House) -> None:
    operator, library = await house.of(Role.OPERATOR), house.admin.site.library
    fields = {"action": "pull", "model": "gemma3", "where": "backend:ollama-1", "force": "yes"}
    status, _, where = await send(operator, "/console/model-jobs", **fields)
    assert (status, where) == (303, "/console/model-jobs/mj-1")
    assert (library.orders[-1].action, library.orders[-1].force) == (library_pb2.MODEL_ACTION_PULL, True)
    text = await page(operator, where)
    assert "<progress" in text
    assert "gemma3" in await page(operator, "/console/models")
    assert (await send(operator, f"{where}/cancel"))[0] == 303
    assert library.jobs["mj-1"].state == library_pb2.MODEL_JOB_STATE_CANCELLED
    assert f"{where}/cancel" not in await page(operator, where)


async def test_a_model_is_kept_loaded_and_let_go(house: House) -> None:
    operator, library = await house.of(Role.OPERATOR), house.admin.site.library
    assert (await send(operator, "/console/model-pins", model="org/qwen3:8b", where="backend:ollama-1"))[0] == 303
    assert ("org/qwen3:8b", "ollama-1") in library.pins
    assert "Unpin org/qwen3:8b" in await page(operator, "/console/models")
    fields = {"model": "org/qwen3:8b", "where": "backend:ollama-1"}
    assert (await send(operator, "/console/model-pins/remove", **fields))[0] == 303
    assert not library.pins


async def test_names_rules_and_fallbacks_are_set_and_removed(house: House) -> None:
    operator = await house.of(Role.OPERATOR)
    rules = "/console/models?tab=rules"
    assert (await send(operator, "/console/model-aliases", alias="gpt-4o", model="llama3.1"))[0] == 303
    fields = {"scope": "model", "of": "qwen3*", "defaults": "temperature=0.7", "max_output_tokens": "4096"}
    assert (await send(operator, "/console/model-rules", **fields))[0] == 303
    fallback = {"model": "llama3.1", "others": "org/qwen3:8b\ntiny", "order": "cheapest", "after": "0.5"}
    assert (await send(operator, "/console/model-fallbacks", **fallback))[0] == 303
    text = await page(operator, rules)
    for said in ("gpt-4o", "qwen3*", "default temperature=0.7", "at most 4,096 output tokens", "org/qwen3:8b, tiny"):
        assert said in text
    assert "gpt-4o" in await page(operator, "/console/models?q=gpt")
    assert (await send(operator, "/console/model-aliases/remove", alias="gpt-4o", pool=""))[0] == 303
    assert (await send(operator, "/console/model-rules/remove", scope="model", of="qwen3*"))[0] == 303
    assert (await send(operator, "/console/model-fallbacks/remove", model="llama3.1", pool=""))[0] == 303
    assert "qwen3*</th>" not in await page(operator, rules)


async def test_a_pool_requires_models(house: House) -> None:
    operator = await house.of(Role.OPERATOR)
    fields = {"pool": "default", "required": "llama3.1\ntiny", "pull": "never"}
    assert (await send(operator, "/console/required-models", **fields))[0] == 303
    assert "is only told" in await page(operator, "/console/models")
    assert (await send(operator, "/console/required-models", pool="default", required=""))[0] == 303


async def test_a_price_is_set_stands_in_the_models_history_and_a_later_one_is_cancelled(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    now = {"model": "llama3.1", "prompt": "0.15", "completion": "0.60", "tiers": "200000:0.30:0.15:0.90"}
    assert (await send(admin, "/console/prices", **now))[0] == 303
    in_a_year = (datetime.now(UTC) + timedelta(days=365)).strftime("%Y-%m-%dT%H:%M")
    later = {"model": "llama3.1", "prompt": "9.99", "begins": in_a_year, "gpu_hour": "1.80", "gpus": "2"}
    assert (await send(admin, "/console/prices", **later))[0] == 303
    text = await page(admin, "/console/models/llama3.1")
    assert "in force" in text
    assert "9.99" in text
    found = re.search(r"/console/prices/([^/\"]+)/cancel", await page(admin, "/console/models?tab=prices"))
    assert found is not None
    assert (await send(admin, f"/console/prices/{found[1]}/cancel"))[0] == 303
    assert "9.99" not in await page(admin, "/console/models?tab=prices&all=1")
    assert (await send(admin, "/console/prices/end", model="llama3.1"))[0] == 303


async def test_a_model_is_given_a_weight_and_loses_it(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    assert (await send(admin, "/console/model-weights", model="llama3.1", weight="2.5"))[0] == 303
    assert "2.5" in await page(admin, "/console/models?tab=prices")
    assert (await send(admin, "/console/model-weights/remove", model="llama3.1"))[0] == 303
