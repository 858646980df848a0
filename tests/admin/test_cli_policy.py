"""The commands about shares, quotas, prices, pools, the queue and drains: what people read and what scripts parse."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import pytest
from click.testing import CliRunner

from forebay.errors import BadInput, NotFound
from forebay.launch import cli
from forebay.ledger_id import new_ledger_id
from forebay.wire.v1 import scheduler_pb2, types_pb2
from tests.admin.replica import Running
from tests.admin.test_cli import Invoke, forebay, told

__all__ = ["forebay"]  # the fixture


def row_of(output: str, name: str) -> str:
    return " ".join(next(line for line in output.splitlines() if line.strip().startswith(name)).split())


async def test_groups_are_made_nested_weighed_paused_and_removed(forebay: Invoke) -> None:
    preset = await forebay("group", "preset", "university")
    assert preset.output.startswith("Groups: faculty 3, staff 2, student 1, admin 10.\n")
    made = await forebay("group", "create", "physics", "--parent", "faculty", "--weight", "0.5")
    assert made.output == "Group physics made within faculty, weight 0.5.\n"
    changed = await forebay("group", "set", "physics", "--weight", "1.5", "--pause")
    assert changed.output == (
        "Group physics within faculty has weight 1.5; it is paused, so what its members send waits.\n"
    )
    listed = (await forebay("group", "list")).output
    assert "  physics" in listed, "a group stands below the one that it is within, and a little to the right"
    assert row_of(listed, "physics") == "physics 1.5 0 paused"
    resumed = told(await forebay("group", "set", "physics", "--resume", "--no-parent", "--json"))
    assert (resumed["paused"], resumed["parent_name"], resumed["weight_milli"]) == (False, "", 1500)
    assert (await forebay("group", "remove", "physics")).output == "Group physics is removed.\n"
    names = [g["name"] for g in told(await forebay("group", "list", "--json"))]
    assert names == ["admin", "everyone", "faculty", "staff", "student"]


async def test_users_and_keys_are_weighed_moved_and_paused(forebay: Invoke) -> None:
    await forebay("group", "create", "research")
    changed = await forebay(
        "user", "set", "admin", "--group", "research", "--weight", "2", "--max-queued", "20", "--pause"
    )
    assert changed.output == ("User admin of research has weight 2; they are paused, so what they send waits.\n")
    row = row_of((await forebay("user", "list")).output, "admin")
    assert row.startswith("admin research admin 2 20 ")
    assert row.endswith("paused")
    back = told(await forebay("user", "set", "admin", "--max-queued", "default", "--resume", "--json"))
    assert (back["max_queued"], back["paused"], back["weight_milli"]) == (0, False, 2000)
    key = told(await forebay("key", "create", "--name", "ci", "--json"))["key"]
    assert (await forebay("key", "set", key["id"], "--weight", "0.25")).output == (
        f"Key {key['id']} (ci) of admin has weight 0.25.\n"
    )
    assert told(await forebay("key", "list", "--json"))[-1]["weight_milli"] == 250


async def test_quotas_are_set_listed_and_shown_with_what_is_left(forebay: Invoke) -> None:
    nothing = await forebay("quota", "list")
    assert nothing.output.startswith("Nobody has a limit or a budget.")
    assert (await forebay("quota", "show")).output == "Nothing limits user admin.\n"
    limited = await forebay(
        "quota", "set", "--user", "admin", "--requests-per-minute", "60", "--tokens-per-minute", "1,000,000"
    )
    assert limited.output == "user admin: 60 requests a minute, 1,000,000 tokens a minute.\n"
    await forebay("quota", "set", "--group", "everyone", "--concurrency", "8")
    made = await forebay(
        "quota", "budget", "add", "--user", "admin", "--money", "25.50", "--time-zone", "Europe/Berlin"
    )
    assert "25.50 money a month, by the calendar of Europe/Berlin." in made.output
    tokens = told(
        await forebay("quota", "budget", "add", "--group", "everyone", "--tokens", "5000", "--period", "ever", "--json")
    )
    assert (tokens["unit"], tokens["period"], tokens["spent"], tokens["left"], tokens["until"]) == (
        *("tokens", "ever", 0, 5000, None),
    )
    changed = await forebay("quota", "budget", "set", tokens["id"], "--tokens", "9000")
    assert changed.output == f"Budget {tokens['id']}: 9,000 tokens for ever, 0 of it spent.\n"
    shown = (await forebay("quota", "show", "--user", "admin")).output
    for words in ("60 requests a minute", "25.50 money a month", "8 at once", "9,000 tokens for ever", "never"):
        assert words in shown
    plain = told(await forebay("quota", "list", "--json"))
    assert [(q["kind"], q["name"], len(q["budgets"])) for q in plain] == [
        ("user", "admin", 1),
        ("group", "everyone", 1),
    ]
    assert plain[0]["budgets"][0]["left"] == 25_500_000
    lifted = await forebay(
        "quota", "set", "--user", "admin", "--requests-per-minute", "none", "--tokens-per-minute", "none"
    )
    assert lifted.output == "user admin: no limits.\n"
    gone = await forebay("quota", "budget", "remove", tokens["id"])
    assert gone.output == f"Budget {tokens['id']} (9,000 tokens for ever) is removed.\n"
    rolling = await forebay("quota", "budget", "add", "--user", "admin", "--tokens", "700", "--last", "36h")
    assert rolling.output.endswith(": 700 tokens in 36 h, which begins anew bit by bit.\n")
    carried = ("quota", "budget", "add", "--user", "admin", "--tokens", "900", "--period", "day", "--carry-over", "50")
    day = told(await forebay(*carried, "--json"))
    assert (day["carry_most"], day["carried"], day["left"]) == (50, 0, 900)
    kept = await forebay("quota", "budget", "set", day["id"], "--tokens", "900", "--carry-over", "none")
    assert kept.output == f"Budget {day['id']}: 900 tokens a day, 0 of it spent.\n"
    assert "bit by bit" in (await forebay("quota", "show")).output
    members = await forebay("quota", "members", "set", "everyone", "--concurrency", "2", "--money", "5", "--last", "7d")
    assert members.output == "New members of everyone start with: 2 at once, 5.00 money in 7 days.\n"
    assert row_of((await forebay("quota", "members", "show")).output, "everyone") == "everyone 2 at once"
    (plainly,) = told(await forebay("quota", "members", "show", "Everyone", "--json"))
    assert [(b["amount"], b["window_s"], b["period"]) for b in plainly["budgets"]] == [(5_000_000, 604_800, "ever")]


async def test_models_are_priced_and_weighed(forebay: Invoke) -> None:
    assert (await forebay("model", "price")).output.startswith("No model has a price or a weight.")
    priced = await forebay(
        "model", "price", "big", "--prompt", "0.15", "--cached", "0.075", "--completion", "0.60", "--weight", "2"
    )
    assert row_of(priced.output, "big") == "big 0.15 0.075 0.60 2"
    assert told(await forebay("model", "price", "big", "--json")) == {
        "model": "big",
        "prompt_micros": 150_000,
        "cached_prompt_micros": 75_000,
        "completion_micros": 600_000,
        "weight_milli": 2000,
    }
    assert (await forebay("model", "price", "big", "--remove")).output == "The model big costs nothing and weighs 1.\n"
    assert told(await forebay("model", "price", "--json")) == []
    assert isinstance((await forebay("model", "price", "big")).exception, NotFound)


async def test_pools_are_listed_set_and_set_back(forebay: Invoke) -> None:
    done = await forebay("pool", "set", "night", "--placement", "least_loaded", "--sticky", "--locality-window", "2048")
    assert done.output == ("Pool night: least_loaded, sessions stay on one backend, locality window 2,048 tokens.\n")
    assert told(await forebay("pool", "list", "--json")) == [
        {
            "pool": "night",
            "placement": "least_loaded",
            "sticky": True,
            "locality_window": 2048,
            "is_default": False,
            "backends": 0,
            "hosts": [],
            "path_prefix": None,
            "required_models": [],
            "pull": "auto",
        }
    ]
    await forebay("pool", "set", "night", "--locality-window", "default", "--no-sticky")
    assert row_of((await forebay("pool", "list")).output, "night") == "night 0 least_loaded no default set"
    assert "in the usual way again" in (await forebay("pool", "reset", "night")).output
    assert (await forebay("pool", "list")).output.startswith("No pools")


WRONG: tuple[tuple[tuple[str, ...], str], ...] = (
    (("group", "create", "x", "--weight", "0"), "A weight is more than 0"),
    (("group", "set", "x", "--parent", "y", "--no-parent"), "not both"),
    (("user", "set", "admin", "--max-queued", "many"), "'many' is not a whole number"),
    (("user", "set", "admin", "--max-queued", "99999999999"), "99999999999 is too much"),
    (("user", "set", "admin"), "Say what is to be changed"),
    (("quota", "set", "--concurrency", "1"), "Say for whom"),
    (("quota", "set", "--user", "a", "--group", "b", "--concurrency", "1"), "Say for whom"),
    (("quota", "set", "--user", "admin", "--concurrency", "0"), "would let nothing through"),
    (("quota", "budget", "add", "--user", "admin"), "Say how much"),
    (("quota", "budget", "add", "--user", "admin", "--money", "0.0000001"), "at most 6 decimals"),
    (("quota", "budget", "add", "--user", "admin", "--tokens", "none"), "without an amount is none"),
    (
        ("quota", "budget", "add", "--user", "admin", "--tokens", "1", "--time-zone", "Mars/Olympus"),
        "There is no time zone Mars/Olympus",
    ),
    (
        ("quota", "budget", "add", "--user", "admin", "--tokens", "1", "--period", "day", "--last", "24h"),
        "(--last): not both",
    ),
    (("quota", "budget", "add", "--user", "admin", "--tokens", "1", "--last", "90m"), "A window is of whole hours"),
    (("quota", "members", "set", "everyone", "--period", "day"), "Say how much the budget is"),
    (("model", "price", "--prompt", "1"), "Say which model"),
    (("model", "price", "x", "--prompt", "1", "--remove"), "not both"),
    (("drain", "x", "--undo", "--wait"), "--undo goes with neither"),
    (("drain", "x", "--deadline", "0s"), "at least a second"),
)


async def test_what_is_wrong_is_one_sentence(forebay: Invoke) -> None:
    for words, said in WRONG:
        done = await forebay(*words)
        assert isinstance(done.exception, BadInput), (words, done.output, done.exception)
        assert said in str(done.exception), words
        assert done.stdout == "", words


async def fill(forebay: Invoke, admin: Running) -> str:
    """A scheduler with something to tell; gives the id of alice."""
    alice: str = told(await forebay("user", "add", "alice", "--group", "research", "--json"))["id"]
    group = next(g["id"] for g in told(await forebay("group", "list", "--json")) if g["name"] == "research")
    await forebay("backend", "add", "big-gpu", "http://127.0.0.1:1")
    await forebay("backend", "add", "small", "http://127.0.0.1:2")
    admin.site.scheduler.queue = scheduler_pb2.ShowQueueResponse(
        epoch=scheduler_pb2.Epoch(term_us=1, revision=2),
        waiting=[
            scheduler_pb2.QueuedUser(
                pool="default",
                model="tiny",
                user_id=alice,
                requests=12,
                oldest_ms=2500,
                band=types_pb2.BAND_BATCH,
                predicted_wait_ms=1200,
                blocked_by=["no free slot"],
            )
        ],
        shares=[
            scheduler_pb2.UserShare(
                pool="default",
                user_id=alice,
                band=types_pb2.BAND_BATCH,
                groups=[group],
                weight_milli=2500,
                due=0.75,
                ahead_tokens=-1234.4,
                waiting=12,
                running=3,
            )
        ],
        held=[
            scheduler_pb2.HeldSlots(backend_id="backend-1", cap=16, held=14, quarantined=1, lent=2),
            scheduler_pb2.HeldSlots(
                backend_id="backend-2", cap=6, cap_is_found=True, closed_because="it failed 5 times"
            ),
            scheduler_pb2.HeldSlots(backend_id="backend-9", cap=1, held=1, draining=True),
        ],
        gateways=[scheduler_pb2.GatewaySession(gateway="gateway-1", connected=True, heard_ago_ms=300, running=17)],
    )
    return alice


async def test_the_queue_is_told_in_names_and_in_json(forebay: Invoke, admin: Running, tmp_path: Path) -> None:
    empty = (await forebay("queue")).output
    assert "Nobody waits." in empty
    assert "No gateway is connected." in empty
    alice = await fill(forebay, admin)
    shown = (await forebay("queue")).output
    rows = [" ".join(line.split()) for line in shown.splitlines()]
    assert "alice default batch tiny 12 2500 ms about 1200 ms no free slot" in rows
    assert "alice default batch research 2.5 75.0% -1,234 tokens 12 3" in rows
    assert "big-gpu 14 16 1 2" in rows
    assert "small 0 about 6 0 0 closed: it failed 5 times" in rows
    assert "backend-9 1 1 0 0 draining" in rows
    assert "gateway-1 300 ms ago 17 0 0" in rows
    plain = told(await forebay("queue", "--json"))
    assert plain["epoch"] == {"term": "1970-01-01T00:00:00.000Z", "revision": 2}
    assert [(w["user_id"], w["user_name"], w["band"]) for w in plain["waiting"]] == [(alice, "alice", "batch")]
    assert plain["shares"][0]["group_names"] == ["research"]
    assert [h["backend_name"] for h in plain["held"]] == ["big-gpu", "small", None]
    file = tmp_path / "dump.json"
    assert (await forebay("queue", "--dump", str(file))).exit_code == 0
    dump = json.loads(file.read_text())
    assert (dump["queue"], dump["names"]["users"][alice]) == (plain, "alice")
    assert json.loads((await forebay("queue", "--dump", "-")).stdout) == dump


async def test_a_request_is_explained_from_its_coming_to_its_end(forebay: Invoke, admin: Running) -> None:
    alice = await fill(forebay, admin)
    ledger_id = new_ledger_id(time.time())
    admin.site.scheduler.remembered = [
        scheduler_pb2.Explanation(
            request_id="req-1",
            ledger_id=ledger_id,
            pool="default",
            model="tiny",
            user_id=alice,
            key_id="5f0c2d9a41be",
            band=types_pb2.BAND_STANDARD,
            width=2,
            prompt_tokens=1500,
            state="ended",
            arrived_at_us=1_800_000_000_000_000,
            predicted_wait_ms=200,
            wait_bound_ms=900,
            gateway="gateway-1",
            attempts=[
                scheduler_pb2.Attempt(
                    number=1, backend_id="backend-2", policy="expected_ttft", queued_ms=150, end="unreachable"
                ),
                scheduler_pb2.Attempt(
                    number=2,
                    backend_id="backend-1",
                    policy="expected_ttft",
                    queued_ms=250,
                    predicted_ttft_ms=400,
                    ttft_ms=430,
                    cached_tokens=1024,
                    reserved_milli=2_000_000,
                    settled_milli=1_700_400,
                    end="finished",
                    passed_over_tokens=300.2,
                    candidates=[
                        scheduler_pb2.Candidate(
                            backend_id="backend-1",
                            total_s=0.4,
                            prefill_s=0.3,
                            wait_s=0.1,
                            cached_tokens=1024,
                            free_slots=2,
                        ),
                        scheduler_pb2.Candidate(backend_id="backend-2", total_s=12.5, load_model_s=12, failure_s=0.5),
                    ],
                ),
            ],
        )
    ]
    lines = [" ".join(line.split()) for line in (await forebay("explain", "req-1")).output.splitlines()]
    assert [line for line in lines if line] == [
        "Request req-1 of alice, key 5f0c2d9a41be",
        f"tiny in the pool default, standard, about 1,500 prompt tokens, 2 slots; ledger id {UUID(bytes=ledger_id)}",
        "It is ended.",
        "+0 ms came to gateway-1 (2027-01-15T08:00:00.000Z), expected to wait 200 ms and never longer than 900 ms",
        "+150 ms attempt 1: placed on small by expected_ttft",
        "unreachable",
        "+250 ms attempt 2: placed on big-gpu by expected_ttft, 1,024 tokens of it cached there",
        "before its turn, for its cached prefix: it was 300 tokens ahead of the least served",
        "+680 ms first token 430 ms after that; expected 400 ms, 30 ms later",
        "finished; 2,000 weighted tokens reserved, 1,700 charged",
        "Why big-gpu (attempt 2), in seconds:",
        "Backend Total Wait Load Prefill Slowdown Failures Guard Cached Free slots",
        next(line for line in lines if set(line) == {"─"}),
        "big-gpu 0.400 0.100 0 0.300 0 0 0 1,024 2 chosen",
        "small 12.500 0 12.000 0 0 0.500 0 0 0",
    ]
    (plain,) = told(await forebay("explain", str(UUID(bytes=ledger_id)), "--json"))
    assert (plain["user_name"], plain["ledger_id"]) == ("alice", str(UUID(bytes=ledger_id)))
    assert [a["backend_name"] for a in plain["attempts"]] == ["small", "big-gpu"]
    assert plain["attempts"][0]["ttft_ms"] is None
    assert isinstance((await forebay("explain", "gone")).exception, NotFound)


async def test_a_request_that_waits_is_told_what_for(forebay: Invoke, admin: Running) -> None:
    admin.site.scheduler.remembered = [
        scheduler_pb2.Explanation(
            request_id="req-2",
            state="waiting",
            model="tiny",
            waited_ms=1200,
            due=0.25,
            ahead=3,
            blocked_by=["no free slot on any backend with this model", "its user is paused"],
        )
    ]
    shown = (await forebay("explain", "req-2")).output
    for words in (
        "It is waiting.",
        "It has waited 1200 ms; its user's due is 25.0% of the pool.",
        "3 requests of the same key go first.",
        "It waits for: its user is paused",
    ):
        assert words in shown


async def test_a_backend_is_drained_and_waited_for(forebay: Invoke, admin: Running) -> None:
    await fill(forebay, admin)
    scheduler = admin.site.scheduler
    orders = admin.site.registry.lifecycle.drains
    begun = await forebay("drain", "big-gpu", "--deadline", "10m")
    assert begun.output == "Backend big-gpu gets nothing new; 15 slots are still held there. See: forebay queue\n"
    (order,) = orders.values()
    assert (order.name, order.deadline_us, order.force) == ("big-gpu", 600_000_000, False)
    waiting = asyncio.ensure_future(forebay("drain", "big-gpu", "--wait"))
    await asyncio.sleep(1.0)
    assert not waiting.done()
    scheduler.leads = False
    await asyncio.sleep(0.6)
    scheduler.leads = True
    scheduler.queue.held[0].held = 0
    await asyncio.sleep(0.8)
    assert not waiting.done(), "what is kept back until the engine agrees still runs there"
    scheduler.queue.held[0].quarantined = 0
    done = await asyncio.wait_for(waiting, 20)
    assert "Backend big-gpu is drained after" in done.output
    assert (await forebay("drain", "big-gpu", "--undo")).output == "Backend big-gpu gets requests again.\n"
    assert orders == {}
    assert told(await forebay("drain", "small", "--json")) == {
        "backend_id": "backend-2",
        "name": "small",
        "running": 0,
        "drained": True,
        "running_unknown": False,
    }


def _leaves(group: click.Command, name: str) -> list[tuple[str, click.Command]]:
    if isinstance(group, click.Group):
        return [leaf for verb, one in group.commands.items() for leaf in _leaves(one, f"{name} {verb}")]
    return [(name, group)]


@pytest.mark.parametrize(
    "noun", ["group", "quota", "pool", "queue", "explain", "drain", "user", "key", "model", "apply", "diff", "fleet"]
)
def test_every_command_has_a_help_with_its_json(noun: str) -> None:
    found: Any = cli.get_command(None, noun)  # type: ignore[arg-type]
    for name, command in _leaves(found, noun):
        shown = CliRunner().invoke(command, ["--help"])
        assert shown.exit_code == 0, name
        assert "With --json:" in shown.output, name


async def test_prices_are_set_listed_ended_and_taken_back(forebay: Invoke) -> None:
    assert (await forebay("price", "list")).output.startswith("Nothing has a price.")
    made = await forebay("price", "set", "big", "--prompt", "0.15", "--completion", "0.60", "--tier", "1000:0.30:0:1")
    assert made.output == (
        "big costs from now on (1): prompt 0.15, cached 0.15, completion 0.60, from 1,000 0.30/0.00/1.00.\n"
    )
    own = await forebay(
        *("price", "set", "llama*", "--gpu-hour", "1.80", "--gpus", "2", "--shared-by", "16"),
        *("--kwh", "0.3", "--watts", "350", "--from", "+7d", "--json"),
    )
    assert (told(own)["in_force"], told(own)["terms"]["hardware"]["kwh_micros"]) == (False, 300_000)
    listed = (await forebay("price", "list")).output
    assert "in force" in row_of(listed, "big")
    assert "1.80 a GPU-hour (2 shared by 16), 0.30 a kWh at 350 W to come" in row_of(listed, "llama*")
    assert (await forebay("price", "cancel", "2")).output == "Price 2 of llama* will not begin.\n"
    assert "began on" in str((await forebay("price", "cancel", "1")).exception)
    assert (await forebay("price", "end", "big")).output == "big has no price from now on (3).\n"
    assert [p["id"] for p in told(await forebay("price", "list", "big", "--all", "--json"))] == ["1", "3"]
    assert "has no price that could end" in str((await forebay("price", "end", "big")).exception)
    for wrong in (("--prompt", "-1"), (), ("--prompt", "1", "--from", "2020-01-01"), ("--tier", "1:2")):
        assert isinstance((await forebay("price", "set", "big", *wrong)).exception, BadInput)


async def test_balances_are_opened_paid_shown_and_closed(forebay: Invoke) -> None:
    assert (await forebay("balance", "list")).output.startswith("Nobody pays in advance.")
    opened = told(await forebay("balance", "open", "--group", "everyone", "--amount", "500", "--json"))
    assert (opened["kind"], opened["name"], opened["left_micros"]) == ("group", "everyone", 500_000_000)
    for _ in range(2):
        paid = await forebay("balance", "top-up", "250", "--group", "everyone", "--reference", "bill-1")
    assert paid.output == (
        "bill-1 was posted before; nothing was changed.\n"
        f"Balance {opened['id']} of group everyone: 750.00 left of 750.00.\n"
    )
    less = await forebay("balance", "adjust", "-12.50", "--id", opened["id"], "--note", "charged twice")
    assert less.output == f"Balance {opened['id']} of group everyone: 737.50 left of 737.50.\n"
    shown = (await forebay("balance", "show")).output
    assert ("-12.50" in shown, "charged twice" in shown, "Nothing was charged." in shown) == (True, True, True)
    refund = await forebay("balance", "refund", "-1", "--group", "everyone")
    assert "A refund is more than nothing" in str(refund.exception)
    assert row_of((await forebay("balance", "list")).output, "group everyone").startswith("group everyone 737.50 0.00")
    closed = (await forebay("balance", "close", "--group", "everyone")).output
    assert closed.endswith("737.50 left of 737.50, and is closed.\n")
    assert (await forebay("usage", "--request", "nothing")).output.startswith("The ledger has no request nothing;")
