"""A machine joins by invitation: once, under the name it was invited by, with a secret that it made itself."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import nkeys
import pytest

from forebay.errors import NotFound
from forebay.local.certificates import open_authority, server_certificate
from forebay.nats_bus import open_nats_bus
from forebay.nats_rights import render_agents
from forebay.wire.v1 import telemetry_pb2
from forebay_admin.fleet.invitations import Invitation, Spent, demand_open, join_command
from forebay_admin.fleet.join_script import JoinScript
from tests.admin.fake_nodes import COMMAND_KEY
from tests.admin.replica import Running, Start, until
from tests.admin.test_operator import query
from tests.conftest import NatsServer

NOW = datetime(2027, 1, 15, tzinfo=UTC)


def new_nkey() -> str:
    pair = nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)))
    key: bytes = pair.public_key
    return key.decode()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def invited(admin: Running, node: str = "gpu-box", **options: Any) -> str:
    """The URL of an invitation."""
    command = (await (await admin.operator()).InviteNode(name=node, **options)).command
    words = shlex.split(command)
    assert words[:2] == ["curl", "-fsS"]
    assert words[-2:] == ["|", "sh"]
    return words[2]


async def post(client: aiohttp.ClientSession, url: str, **body: Any) -> tuple[int, dict[str, Any]]:
    async with client.post(url, json=body) as answer:
        return answer.status, await answer.json()


async def test_an_agent_that_joins_is_told_where_to_report_and_let_in(
    start: Start, client: aiohttp.ClientSession
) -> None:
    async with start(public_nats_url="tls://10.0.0.1:4222", ca_file=None) as admin:
        nkey = new_nkey()
        status, told = await post(client, await invited(admin), public_nkey=nkey, hostname="box.example.com")
        assert status == 200
        assert told["node"] == "gpu-box"
        assert told["nats_url"] == "tls://10.0.0.1:4222"
        assert told["inbox_prefix"] == "_INBOX_gpu-box"
        assert told["subjects"]["telemetry"] == "forebay.telemetry.gpu-box"
        agents_file = admin.site.settings.agents_file
        assert agents_file is not None
        await until(lambda: nkey in agents_file.read_text())
        assert agents_file.read_text() == render_agents([("gpu-box", nkey)])
        assert list(admin.site.registry.enrolled) == ["gpu-box"]
        assert admin.site.registry.joined_from == {"gpu-box": "127.0.0.1"}
        assert (told["command_key"], told["subjects"]["answer"]) == (COMMAND_KEY, "forebay.answer.gpu-box")
        rows = await query(admin, "SELECT actor, interface, action FROM admin.audit_log WHERE action = 'node.enrol'")
        assert [tuple(row) for row in rows] == [("node gpu-box", "join", "node.enrol")]


async def test_an_invitation_lets_one_machine_in_of_many_that_come_at_once(
    start: Start, client: aiohttp.ClientSession
) -> None:
    async with start() as here, start() as there:
        url = await invited(here)
        elsewhere = url.replace(here.http_address, there.http_address)
        answers = await asyncio.gather(*(post(client, u, public_nkey=new_nkey()) for u in [url, elsewhere] * 5))
        assert sorted(status for status, _ in answers) == [200, *[410] * 9]
        refusals = {told["error"] for status, told in answers if status == 410}
        assert refusals == {"The invitation of gpu-box was used; make a new one with `forebay node enroll`."}
        assert len(await query(here, "SELECT 1 FROM admin.node_agents")) == 1


async def test_an_answer_that_got_lost_may_be_asked_for_again_with_the_same_nkey(
    admin: Running, client: aiohttp.ClientSession
) -> None:
    url, nkey = await invited(admin), new_nkey()
    first = await post(client, url, public_nkey=nkey)
    assert await post(client, url, public_nkey=nkey) == first
    assert (await post(client, url, public_nkey=new_nkey()))[0] == 410
    assert len(await query(admin, "SELECT 1 FROM admin.audit_log WHERE action = 'node.enrol'")) == 1


async def test_what_is_no_invitation_lets_nobody_in(admin: Running, client: aiohttp.ClientSession) -> None:
    url = await invited(admin)
    address = f"http://{admin.http_address}/join"
    assert (await post(client, f"{address}/{'0' * 64}", public_nkey=new_nkey()))[0] == 404
    assert (await post(client, f"{address}/nonsense", public_nkey=new_nkey()))[0] == 404
    assert (await post(client, url, public_nkey="not an nkey"))[0] == 400
    assert (await post(client, url))[0] == 400
    async with client.get(f"{address}/{'0' * 64}/forebay-0.1.0-py3-none-any.whl") as wheel:
        assert wheel.status == 404
    assert (await post(client, url, public_nkey=new_nkey()))[0] == 200


async def test_an_invitation_is_left_unused_while_the_registry_is_away(
    start: Start, client: aiohttp.ClientSession, site: Any
) -> None:
    nkey = new_nkey()
    async with start(registry_address="127.0.0.1:1") as admin:
        url = await invited(admin)
        status, told = await post(client, url, public_nkey=nkey)
        assert (status, told["error"]) == (503, "The registry is away; nothing was changed there.")
    async with start() as admin:
        again = f"http://{admin.http_address}/join/{url.rpartition('/')[2]}"
        assert (await post(client, again, public_nkey=nkey))[0] == 200


async def test_a_new_invitation_takes_the_place_of_an_unused_one(admin: Running, client: aiohttp.ClientSession) -> None:
    first, second = await invited(admin), await invited(admin)
    assert (await post(client, first, public_nkey=new_nkey()))[0] == 404
    assert (await post(client, second, public_nkey=new_nkey()))[0] == 200


async def test_a_token_is_kept_as_a_digest_only(admin: Running) -> None:
    token = (await invited(admin)).rpartition("/")[2]
    rows = await query(admin, "SELECT i::text AS row FROM admin.node_invitations i")
    assert len(rows) == 1
    assert token not in rows[0]["row"]


def test_an_invitation_expires() -> None:
    invitation = Invitation("gpu-box", NOW + timedelta(hours=1))
    assert demand_open(invitation, NOW) is invitation
    with pytest.raises(Spent, match="expired"):
        demand_open(invitation, NOW + timedelta(hours=1))
    with pytest.raises(NotFound):
        demand_open(None, NOW)


def test_with_a_pin_the_command_trusts_the_key_and_no_ca() -> None:
    assert join_command("https://h:8091", "ab" * 32, "sha256//x=") == (
        f"curl -fsSk --pinnedpubkey sha256//x= https://h:8091/join/{'ab' * 32} | sh"
    )


async def test_the_script_of_a_spent_invitation_says_so_and_fails(
    admin: Running, client: aiohttp.ClientSession
) -> None:
    url = await invited(admin)
    assert (await post(client, url, public_nkey=new_nkey()))[0] == 200
    done = await asyncio.to_thread(
        subprocess.run, ["sh", "-c", f"curl -fsS {url} | sh"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == "forebay: The invitation of gpu-box was used; make a new one with `forebay node enroll`.\n"


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_what_stands_in_the_script_is_only_ever_a_value(shell: str, tmp_path: Path) -> None:
    evil = f"'; touch {tmp_path}/evil; echo $(id) `id`\ntouch {tmp_path}/evil\n"
    program = shutil.which(shell)
    assert program is not None
    script = JoinScript(f"http://127.0.0.1:1/{evil}", evil, evil, evil, None).render()
    subprocess.run([program, "-n"], input=script, text=True, check=True)
    done = subprocess.run(
        [program], input=script, text=True, capture_output=True, env={"PATH": "/nowhere", "HOME": str(tmp_path)}
    )
    assert done.returncode == 1
    assert "curl is not installed" in done.stderr
    assert not (tmp_path / "evil").exists()


def test_a_download_that_breaks_off_runs_nothing(tmp_path: Path) -> None:
    script = JoinScript("http://127.0.0.1:1", "ab" * 32, "gpu-box", "w.whl", None).render()
    for length in range(200, len(script) - len("join_forebay </dev/null\n"), 97):
        subprocess.run(
            ["sh"],
            input=script[:length],
            text=True,
            capture_output=True,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "FOREBAY_AGENT_DIR": str(tmp_path / "agent")},
        )
        assert not list(tmp_path.iterdir()), f"the first {length} letters did something"


@pytest.fixture
def stop_agent(tmp_path: Path) -> Iterator[Path]:
    """The agent's folder; what runs from it is stopped in the end."""
    folder = tmp_path / "agent"
    yield folder
    pid_file = folder / "agent.pid"
    if pid_file.exists():
        os.kill(int(pid_file.read_text()), signal.SIGTERM)


async def test_the_pasted_command_installs_an_agent_whose_samples_arrive_over_nats(
    start: Start,
    free_port: Callable[[], int],
    nats_server: NatsServer,
    libraries: Path,
    stop_agent: Path,
    tmp_path: Path,
) -> None:
    """Over TLS that only a pin vouches for, on real NATS, which lets the agent in when it has enrolled."""
    authority = open_authority(tmp_path / "tls", datetime.now(UTC))
    certificate = server_certificate(authority, tmp_path / "tls", "server", ["127.0.0.1"], datetime.now(UTC))
    port = free_port()
    async with (
        start(
            http_listen=f"127.0.0.1:{port}",
            public_url=f"https://127.0.0.1:{port}/",
            tls_cert=certificate.certificate_file,
            tls_key=certificate.key_file,
            http_pin=certificate.pin,
            public_nats_url=nats_server.url,
            agents_file=nats_server.agents_file,
        ) as admin,
        open_nats_bus(nats_server.url, "registry", seed_file=nats_server.seed_file("registry")) as bus,
        bus.subscribe("forebay.telemetry.*") as samples,
    ):
        command = (await (await admin.operator()).InviteNode(name="gpu-box")).command
        assert "--pinnedpubkey sha256//" in command
        environment = {
            "PATH": os.environ["PATH"],
            "FOREBAY_AGENT_DIR": str(stop_agent),
            "FOREBAY_GPU_AGENT_OPS_LISTEN": f"127.0.0.1:{free_port()}",
            "PYTHONPATH": str(libraries),
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
        }
        joined = await asyncio.to_thread(
            subprocess.run, ["sh", "-c", command], capture_output=True, text=True, env=environment, timeout=90
        )
        assert joined.returncode == 0, joined.stdout + joined.stderr
        assert "done: gpu-box reports to" in joined.stderr
        async with asyncio.timeout(20):
            message = await anext(samples)
        assert message.subject == "forebay.telemetry.gpu-box"
        assert telemetry_pb2.TelemetrySample.FromString(message.payload).node == "gpu-box"
        again = await asyncio.to_thread(
            subprocess.run, ["sh", "-c", command], capture_output=True, text=True, env=environment
        )
        assert again.returncode == 1
        assert "was used" in again.stderr
    assert [path.stat().st_mode & 0o077 for path in stop_agent.rglob("*.nk")] == [0]
