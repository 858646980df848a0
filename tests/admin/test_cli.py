"""The commands, against a real admin: what people read, what scripts parse, and the status they end with."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from forebay.errors import BadInput, NotFound
from forebay.launch import EXIT_CODES, cli
from forebay.ledger_id import new_ledger_id
from forebay.subjects import USAGE_STREAM, usage
from forebay.wire.v1 import registry_pb2, telemetry_pb2, types_pb2, usage_pb2
from forebay_admin.cli import output
from forebay_admin.cli.connection import data_directories, find_connection
from tests.admin.replica import Running

Invoke = Callable[..., Awaitable[Result]]


@pytest.fixture
async def forebay(admin: Running) -> Invoke:
    """`await forebay("key", "list")`, as the first admin."""

    async def invoke(*words: str, token: str | None = None, stdin: str | None = None) -> Result:
        environment = {"FOREBAY_ADMIN": admin.grpc_address, "FOREBAY_TOKEN": token or admin.site.first_key}
        return await asyncio.to_thread(CliRunner().invoke, cli, words, stdin, environment)

    return invoke


def told(result: Result) -> Any:
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


async def test_a_key_is_made_shown_once_listed_and_revoked(forebay: Invoke, admin: Running) -> None:
    await forebay("user", "add", "alice")
    made = await forebay(
        "key", "create", "--user", "alice", "--name", "laptop", "--expires", "30d", "--model", "llama*"
    )
    secret = re.fullmatch(r"Key (fb-\S+) made for alice\. It is shown only this once\.\n", made.output)
    assert secret is not None, made.output
    assert (await admin.operator(secret[1])) is not None

    listed = await forebay("key", "list", "--user", "alice")
    assert secret[1] not in listed.output
    row = next(line for line in listed.output.splitlines() if "laptop" in line)
    assert [word for word in ("active", "llama*", "interactive", "in 30 days") if word not in row] == []

    key_id = secret[1].split("-")[1]
    assert "is revoked" in (await forebay("key", "revoke", key_id)).output
    assert told(await forebay("key", "list", "--user", "alice", "--json")) == []
    after = told(await forebay("key", "list", "--user", "alice", "--all", "--json"))
    assert [(k["id"], k["state"]) for k in after] == [(key_id, "revoked")]
    assert after[0]["revoked_at"].endswith("Z")


async def test_a_key_is_revoked_now_also_when_it_was_revoked_before(forebay: Invoke, admin: Running) -> None:
    key_id = told(await forebay("key", "create", "--name", "ci", "--json"))["key"]["id"]
    stream = (await admin.watcher("gateway")).WatchPrincipals()
    await stream.read()
    assert (await forebay("key", "revoke", key_id)).output == f"Key {key_id} (ci) of admin is revoked.\n"
    assert [k.cut_running for k in (await stream.read()).keys] == [False]
    done = await forebay("key", "revoke", key_id, "--now")
    assert done.output == f"Key {key_id} (ci) of admin is revoked. Its running requests are cut.\n"
    assert [k.cut_running for k in (await stream.read()).keys] == [True]
    assert told(await forebay("key", "revoke", key_id, "--now", "--json"))["key"]["state"] == "revoked"
    stream.cancel()


async def test_json_of_key_create_has_the_key_and_its_secret(forebay: Invoke) -> None:
    made = told(await forebay("key", "create", "--name", "ci", "--band", "batch", "--json"))
    assert made["secret"].startswith(f"fb-{made['key']['id']}-")
    assert (made["key"]["band_cap"], made["key"]["user_name"], made["key"]["expires_at"]) == ("batch", "admin", None)


async def test_users_are_added_and_listed(forebay: Invoke) -> None:
    added = told(await forebay("user", "add", "dana", "--role", "operator", "--group", "research", "--json"))
    assert (added["name"], added["role"], added["group_name"]) == ("dana", "operator", "research")
    listed = await forebay("user", "list")
    assert [line.split()[:3] for line in listed.output.splitlines() if "dana" in line] == [
        ["dana", "research", "operator"]
    ]
    assert {u["name"] for u in told(await forebay("user", "list", "--json"))} == {"admin", "dana"}


async def test_users_are_found_by_name_group_role_and_state(forebay: Invoke) -> None:
    await forebay("user", "add", "Dana", "--role", "operator", "--group", "research")
    await forebay("user", "add", "daniel")
    await forebay("user", "rights", "daniel", "--disable")

    async def found(*options: str) -> list[str]:
        return [user["name"] for user in told(await forebay("user", "list", *options, "--json"))]

    assert await found("--text", "DAN") == ["Dana", "daniel"]
    assert await found("--group", "research") == ["Dana"]
    assert await found("--role", "admin") == ["admin"]
    assert await found("--disabled") == ["daniel"]
    assert await found("--text", "dan", "--enabled") == ["Dana"]
    assert (await forebay("user", "list", "--group", "no-such")).exit_code != 0


async def test_a_backend_is_added_with_its_key_listed_without_it_and_removed(
    forebay: Invoke, admin: Running, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("sk-secret\n")
    url = "http://127.0.0.1:8000"
    added = await forebay("backend", "add", "big-gpu", url, "--slots", "16", "--bearer-file", str(tmp_path / "key"))
    assert added.output == f"Backend big-gpu added: {url}, 16 slots, pool default.\nIt is healthy.\n"
    listed = await forebay("backend", "list")
    row = next(line for line in listed.output.splitlines() if "big-gpu" in line)
    assert [word for word in ("healthy", "16", "tiny", "(with key)") if word not in row] == []
    assert "sk-secret" not in listed.output
    shown = await forebay("backend", "show", "big-gpu")
    assert [word for word in (url, "healthy", "16", "tiny") if word not in shown.output] == []
    assert told(await forebay("backend", "show", "big-gpu", "--json"))["backend"]["kv_tokens"] is None
    assert isinstance((await forebay("backend", "show", "small-gpu")).exception, NotFound)
    plain = told(await forebay("backend", "list", "--json"))
    assert (plain[0]["health"], plain[0]["has_credential"], plain[0]["models"][0]["name"]) == ("healthy", True, "tiny")
    models = await forebay("model", "list")
    assert "1 of 1" in models.output
    assert told(await forebay("model", "list", "--json"))[0]["backends"] == ["big-gpu"]
    on_two = ("--node", "gpu-box", "--gpu", "1", "--gpu", "0")
    replaced = told(await forebay("backend", "add", "big-gpu", url, "--replace", *on_two, "--json"))
    assert (replaced["created"], replaced["backend"]["gpu_indices"]) == (False, [1, 0])
    assert "is removed" in (await forebay("backend", "remove", "big-gpu")).output
    assert "No backends." in (await forebay("backend", "list")).output
    assert "No models" in (await forebay("model", "list")).output


async def test_nodes_are_invited_and_listed_with_what_they_said(forebay: Invoke, admin: Running) -> None:
    command = told(await forebay("node", "enroll", "gpu-box", "--valid", "10m", "--json"))
    assert command["command"].startswith("curl ")
    shown = await forebay("node", "enroll", "gpu-box")
    assert "expires in 60 min" in shown.output
    assert "works on this machine only" in shown.output
    now_us = round(time.time() * 1_000_000)
    admin.site.registry.enrolled["gpu-box"] = registry_pb2.Node(
        name="gpu-box",
        heard_at_us=now_us - 3_000_000,
        last_sample=telemetry_pb2.TelemetrySample(
            host=telemetry_pb2.HostSample(cpu_count=64, memory_total_bytes=256 * 10**9),
            gpu_state=telemetry_pb2.GPU_STATE_OK,
            gpus=[telemetry_pb2.GpuSample(name="H100 [80GB]", utilization_percent=97, temperature_c=71)],
        ),
    )
    admin.site.registry.enrolled["silent-box"] = registry_pb2.Node(name="silent-box")
    listed = (await forebay("node", "list")).output
    assert "H100 [80GB], 97 %, 71 °C" in listed
    assert re.search(r"gpu-box\s+3 s ago", listed)
    assert re.search(r"silent-box\s+silent", listed)
    plain = {node["name"]: node for node in told(await forebay("node", "list", "--json"))}
    assert plain["silent-box"]["last_sample"] is None
    assert plain["gpu-box"]["last_sample"]["gpu_state"] == "ok"

    admin.site.registry.enrolled["gpu-box"].problems.append("Its clock is 2 h ahead.")
    assert re.search(r"gpu-box\s+Its clock is 2 h ahead", (await forebay("node", "list")).output)
    seen = (await forebay("node", "show", "gpu-box")).output
    assert "Its clock is 2 h ahead." in seen
    assert "H100 [80GB]" in seen
    assert told(await forebay("node", "show", "gpu-box", "--json"))["node"]["problems"] == ["Its clock is 2 h ahead."]
    assert isinstance((await forebay("node", "show", "nobody")).exception, NotFound)


async def test_usage_is_summed_by_user_and_model_and_listed_by_row(forebay: Invoke, admin: Running) -> None:
    alice = told(await forebay("user", "add", "alice", "--json"))
    key = told(await forebay("key", "create", "--user", "alice", "--json"))
    await forebay("backend", "add", "big-gpu", "http://127.0.0.1:8000", "--slots", "16")
    backend = told(await forebay("backend", "show", "big-gpu", "--json"))
    now = time.time()

    def record(
        outcome: types_pb2.Outcome.ValueType, tokens: int, at: float = now, **more: Any
    ) -> usage_pb2.UsageRecord:
        return usage_pb2.UsageRecord(
            ledger_id=new_ledger_id(at),
            user_id=alice["id"],
            model="tiny",
            outcome=outcome,
            started_at_us=round(at * 1_000_000),
            duration_ms=20,
            usage=types_pb2.TokenUsage(
                prompt_tokens=1000, completion_tokens=tokens, source=types_pb2.USAGE_SOURCE_ENGINE
            ),
            **more,
        )

    records = [
        record(types_pb2.OUTCOME_FINISHED, 1_234_567, now - 5, backend_id=backend["backend"]["id"]),
        record(types_pb2.OUTCOME_CANCELLED, 1, now - 3),
        record(types_pb2.OUTCOME_GATEWAY_LOST, 0, now - 2),
        record(types_pb2.OUTCOME_FINISHED, 1, now - 3 * 86_400),
        usage_pb2.UsageRecord(
            ledger_id=new_ledger_id(now),
            request_id="nobody",
            outcome=types_pb2.OUTCOME_REFUSED,
            reason="invalid_key",
            started_at_us=round(now * 1_000_000),
        ),
    ]
    await admin.bus.ensure_stream(USAGE_STREAM)
    await admin.bus.append(usage("gateway-1"), usage_pb2.UsageBatch(records=records).SerializeToString())
    for _ in range(100):
        if len(told(await forebay("usage", "--rows", "--since", "7d", "--json"))) == 5:
            break

    sums = {s["user_name"]: s for s in told(await forebay("usage", "--json"))}
    assert sums["alice"] == {
        "user_name": "alice",
        "model": "tiny",
        "requests": 3,
        "finished": 1,
        "refused": 0,
        "failed": 1,
        "cancelled": 1,
        "prompt_tokens": 3000,
        "completion_tokens": 1_234_568,
    }
    assert (sums[""]["requests"], sums[""]["refused"]) == (1, 1)
    shown = (await forebay("usage")).output
    assert "1,234,568" in shown
    assert "(no valid key)" in shown

    rows = told(await forebay("usage", "--rows", "--limit", "2", "--json"))
    assert [row["outcome"] for row in rows] == ["refused", "gateway_lost"]
    assert rows[0]["request_id"] == "nobody"
    assert (rows[1]["usage_source"], rows[1]["prompt_tokens"], rows[1]["ttft_ms"]) == ("engine", 1000, None)
    listed = (await forebay("usage", "--rows", "--user", "alice")).output
    assert "cancelled" in listed
    assert "invalid_key" not in listed
    own = told(await forebay("usage", "--json", token=key["secret"]))
    assert [s["user_name"] for s in own] == ["alice"]
    assert "cancelled" in (await forebay("usage", "--rows", token=key["secret"])).output

    for name in ("big-gpu", backend["backend"]["id"]):
        assert told(await forebay("usage", "--backend", name, "--json"))["total"]["requests"] == 1, name
    by_backend = (await forebay("usage", "--by", "backend")).output
    assert "big-gpu" in by_backend
    assert backend["backend"]["id"] not in by_backend
    assert "--rows shows the newest requests" in (await forebay("usage", "--rows", "--backend", "big-gpu")).output


FAILURES: tuple[tuple[tuple[str, ...], int, str], ...] = (
    (("key", "create", "--user", "nobody"), 3, "forebay: There is no user nobody.\n"),
    (("user", "add", "admin"), 5, "forebay: There is a user admin already.\n"),
    (
        ("usage", "--since", "yesterday"),
        2,
        "forebay: 'yesterday' is not a length of time: write 90s, 30m",
    ),
    (("key", "create", "--band", "urgent"), 2, "Invalid value for '--band'"),
    (("backend", "add", "x", "nonsense"), 2, "forebay: 'nonsense' is not the URL of an engine"),
)


async def test_a_script_can_tell_failures_apart(admin: Running) -> None:
    for words, status, said in FAILURES:
        done = await _run(words, FOREBAY_ADMIN=admin.grpc_address, FOREBAY_TOKEN=admin.site.first_key)
        assert (done.returncode, done.stdout) == (status, ""), words
        assert said in done.stderr, words


async def test_a_wrong_key_and_a_silent_address_have_statuses_of_their_own(admin: Running) -> None:
    wrong = await _run(("key", "list"), FOREBAY_ADMIN=admin.grpc_address, FOREBAY_TOKEN="fb-000000000000-x")
    assert (wrong.returncode, wrong.stderr) == (
        EXIT_CODES["NotAuthenticated"],
        "forebay: This key is not known here.\n",
    )
    silent = await _run(("key", "list"), FOREBAY_ADMIN="127.0.0.1:1", FOREBAY_TOKEN="fb-000000000000-x")
    assert silent.returncode == EXIT_CODES["Unavailable"]
    assert silent.stderr == (
        "forebay: Nothing answers at 127.0.0.1:1 (from FOREBAY_ADMIN). Is Forebay running? Start it with `forebay up`.\n"
    )


def test_the_connection_is_the_environments_else_that_of_the_data_directory(tmp_path: Path) -> None:
    (tmp_path / "connection.json").write_text('{"admin_grpc": "127.0.0.1:8092", "admin_key": "fb-kept"}')
    data = {"FOREBAY_DATA_DIR": str(tmp_path)}
    found = find_connection(data)
    assert (found.admin, found.token) == ("127.0.0.1:8092", "fb-kept")
    assert "fb-kept" not in repr(found)
    assert find_connection({**data, "FOREBAY_TOKEN": "fb-mine"}).token == "fb-mine"
    assert find_connection({**data, "FOREBAY_TOKEN": "fb-mine\n"}).token == "fb-mine", (
        "a file's last line end is no key's"
    )
    elsewhere = find_connection({**data, "FOREBAY_ADMIN": "h:1", "FOREBAY_TOKEN": "fb-other"})
    assert (elsewhere.admin, elsewhere.token) == ("h:1", "fb-other")


def test_the_authority_of_admins_certificate_comes_from_the_same_place_as_its_address(tmp_path: Path) -> None:
    held = {"admin_grpc": "127.0.0.1:8109", "admin_key": "fb-kept", "admin_ca": "/data/ca.crt"}
    (tmp_path / "connection.json").write_text(json.dumps(held))
    data = {"FOREBAY_DATA_DIR": str(tmp_path)}
    assert find_connection(data).ca == Path("/data/ca.crt")
    assert find_connection({**data, "FOREBAY_TOKEN": "fb-mine"}).ca == Path("/data/ca.crt")
    elsewhere = {**data, "FOREBAY_ADMIN": "h:1", "FOREBAY_TOKEN": "fb-other"}
    assert find_connection(elsewhere).ca is None
    assert find_connection({**elsewhere, "FOREBAY_ADMIN_CA": "/etc/ca.crt"}).ca == Path("/etc/ca.crt")


@pytest.mark.parametrize(
    "environ",
    [
        {"FOREBAY_ADMIN": "127.0.0.1:8092"},
        {"FOREBAY_ADMIN": "nonsense", "FOREBAY_TOKEN": "fb-x"},
        {"FOREBAY_ADMIN": "http://127.0.0.1:8092", "FOREBAY_TOKEN": "fb-x"},
        {"FOREBAY_ADMIN": "127.0.0.1:8092", "FOREBAY_TOKEN": "fb-ü"},
        {"FOREBAY_ADMIN": "127.0.0.1:8092", "FOREBAY_TOKEN": "fb-a\nfb-b"},
        {"FOREBAY_DATA_DIR": "/nowhere/at/all"},
    ],
)
def test_half_a_connection_is_none_and_a_kept_key_is_not_sent_elsewhere(environ: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        find_connection(environ)


def test_a_broken_connection_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "connection.json").write_text("{")
    with pytest.raises(BadInput, match=r"connection\.json is not what `forebay up` writes"):
        find_connection({"FOREBAY_DATA_DIR": str(tmp_path)})


def test_root_looks_in_the_systems_folder_first() -> None:
    assert data_directories({"HOME": "/home/a"}, False) == [Path("/home/a/.local/share/forebay")]
    assert data_directories({"HOME": "/home/a"}, True) == [
        Path("/var/lib/forebay"),
        Path("/home/a/.local/share/forebay"),
    ]


OF_THIS_MACHINE = {"agent", "run", "simulate", "up"}
"""Commands that ask no Forebay anything."""
NOT_JSON = {"completion", "history export", "ledger export"}
"""They write what a shell reads, or a file in the form that is asked for."""


@pytest.mark.parametrize("noun", sorted({*cli.list_commands(click.Context(cli))} - OF_THIS_MACHINE))
def test_every_command_says_in_its_help_how_it_is_called_and_what_json_it_prints(noun: str) -> None:
    command: Any = cli.get_command(None, noun)  # type: ignore[arg-type]
    assert f"forebay {noun}" in command.help
    for words, one in _commands_of(command, noun):
        shown = CliRunner().invoke(one, ["--help"])
        assert shown.exit_code == 0, words
        assert "With --json: " in shown.output or words in NOT_JSON, words


def _commands_of(command: Any, words: str) -> Iterator[tuple[str, Any]]:
    """Itself, or those of its group and of the groups within."""
    if not hasattr(command, "commands"):
        yield words, command
        return
    for verb, one in command.commands.items():
        yield from _commands_of(one, f"{words} {verb}")


async def _run(words: tuple[str, ...], **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "forebay", *words]
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, env=environ, timeout=60)


def test_in_a_narrow_terminal_nothing_is_cut_and_names_stay_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "_console", lambda: Console(highlight=False, width=60))
    columns = ("Name", "Health", "Checked", "Kind", "#Slots", "Pool", "URL", "Models")
    row = (
        "llamacpp-8080",
        "unhealthy",
        "1 s ago",
        "llamacpp",
        "4",
        "default",
        "http://127.0.0.1:8080",
        "a-long-name/q4",
    )
    output.print_table(columns, [row], nothing="")
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 60
    assert "llamacpp-8080" in told
    assert "…" not in told
