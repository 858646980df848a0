"""An agent gets its certificate, and a new one, by the commands in docs/operations.md: run as they stand there, on a NATS
that demands certificates. Only the folders are others, and the node is this machine."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

from forebay.config import read_settings
from forebay.local.nats import Nats, Tls, open_nats, public_key
from forebay.nats_bus import open_nats_bus
from forebay.nats_rights import render_agents
from forebay.pki.folder import make_folder
from forebay_gpu_agent.config import GpuAgentSettings
from tests.conftest import free_port

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
_BLOCK = re.compile(r"<!-- tested: agents -->\n```(?:bash|toml)\n(.*?)```", re.DOTALL)
# `scp FILES root@node:FOLDER` and `ssh root@node WORDS`, with the node here.
_STANDINS = {
    "scp": 'shift; for last; do :; done; while [ $# -gt 1 ]; do cp "$1" "${last#*:}"; shift; done',
    "ssh": 'shift; exec "$@"',
    "systemd-tmpfiles": 'test "$1" = --create',
}
PATIENCE_S = 60


def _blocks(pki: Path, agent: Path) -> list[str]:
    moved = OPERATIONS.read_text().replace("/etc/forebay/pki", str(pki)).replace("/etc/forebay/agent", str(agent))
    return _BLOCK.findall(moved)


async def _typed(lines: str, programs: Path) -> str:
    environ = {**os.environ, "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    typed = await asyncio.create_subprocess_exec(
        "bash", "-euc", lines, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    told, _ = await asyncio.wait_for(typed.communicate(), PATIENCE_S)
    assert typed.returncode == 0, told.decode()
    return told.decode()


def _settings(agent_toml: Path) -> GpuAgentSettings:
    return read_settings(GpuAgentSettings, "gpu-agent", file=tomllib.loads(agent_toml.read_text()), environ={})


async def _is_let_in(settings: GpuAgentSettings, within_s: float = PATIENCE_S) -> bool:
    opening = open_nats_bus(
        settings.nats_url,
        settings.bus_user,
        seed_file=settings.nats_seed_file,
        ca_file=settings.nats_ca_file,
        cert_file=settings.nats_cert_file,
        key_file=settings.nats_key_file,
    )
    try:
        async with opening as bus, asyncio.timeout(within_s):
            await bus.wait_connected()
    except TimeoutError:
        return False
    return True


async def test_an_agent_gets_a_certificate_and_a_new_one_as_the_documents_say(tmp_path: Path) -> None:
    agent, pki, programs = tmp_path / "agent", tmp_path / "pki", tmp_path / "bin"
    agent.mkdir()
    programs.mkdir()
    for name, does in _STANDINS.items():
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)
    once, lines, daily, doctor = _blocks(pki, agent)
    authority = make_folder(pki, datetime.now(UTC))
    await _typed(f"forebay pki issue {pki} nats", programs)
    nats_files = Tls(pki / "nats/tls.crt", pki / "nats/tls.key", pki / "nats/ca.crt", demands_certificates=True)
    async with open_nats(
        tmp_path / "nats",
        secrets=tmp_path / "secrets",
        port=free_port(),
        users=("admin", "registry", "scheduler"),
        log=tmp_path / "log",
        tls=nats_files,
    ) as nats:
        await _lets_in("gpu-1", agent / "agent.nk", nats)
        joined = f'[gpu_agent]\nnode = "gpu-1"\nnats_url = "{nats.url}"\nnats_seed_file = "{agent}/agent.nk"\n'
        (agent / "agent.toml").write_text(f'{joined}nats_ca_file = "{pki}/nats/ca.crt"\n')
        assert not await _is_let_in(_settings(agent / "agent.toml"), within_s=2)

        await _typed(once, programs)
        assert "Nothing is due" in await _typed(daily, programs)
        (agent / "agent.toml").write_text(joined + lines)
        settings = _settings(agent / "agent.toml")
        assert await _is_let_in(settings)

        first = (agent / "tls/tls.crt").read_bytes()
        await _typed(daily.replace("pki renew", "pki renew --all"), programs)
        assert (agent / "tls/tls.crt").read_bytes() == authority.part("gpu-1").joinpath("tls.crt").read_bytes() != first
        assert await _is_let_in(settings)
        told = json.loads(await _typed(f"{doctor.rstrip()} --json", programs))
        (certificate,) = (
            one
            for one in told["findings"]
            if one["subject"] == "gpu-agent.nats_cert_file" and one["area"] == "certificates"
        )
        assert certificate["grade"] == "ok", certificate


async def _lets_in(node: str, seed_file: Path, nats: Nats) -> None:
    nats.agents_file.write_text(render_agents([(node, public_key(seed_file))]))
