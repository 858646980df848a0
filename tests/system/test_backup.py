"""`forebay backup` while requests run, and `forebay restore` into an empty directory: the same keys, sums, files and audit
log, and a Forebay that serves."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.system.conftest import FakeEngineProcess
from tests.system.installation import Installation, ask, eventually, start_up, stream

SEALED = "a passphrase for this test alone"


def _run(*words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "forebay", *map(str, words)], capture_output=True, text=True, timeout=180, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def _settings(directory: Path, engine: FakeEngineProcess) -> Path:
    settings = directory / "forebay.toml"
    settings.write_text(f'[[registry.backends]]\nname = "fake"\nurl = "{engine.url}"\nkind = "openai"\nslots = 4\n')
    return settings


@pytest.mark.slow
async def test_what_is_backed_up_under_traffic_comes_up_elsewhere_with_the_same_keys_sums_files_and_audit_log(
    tmp_path: Path, fake_engine: FakeEngineProcess, client: aiohttp.ClientSession
) -> None:
    settings = _settings(tmp_path, fake_engine)
    first = start_up(tmp_path / "data", "--no-engine", "--config", str(settings))
    backup, passphrase = tmp_path / "backups" / "one.backup", tmp_path / "passphrase"
    backup.parent.mkdir()
    passphrase.write_text(SEALED)
    sent: list[str] = []
    try:
        key = first.make_key("alice")
        kept = await _keep_things(client, first, key)
        for number in range(5):
            before = await stream(client, first.gateway, key, ask("x", model="fake-model", max_tokens=3), f"b-{number}")
            assert before.is_done, before
        backing = asyncio.Event()
        traffic = asyncio.create_task(_traffic(client, first, key, sent, backing))
        await eventually(lambda: len(sent) >= 3, 60, "no traffic")
        done_before = list(sent)
        made = json.loads(
            (
                await asyncio.to_thread(
                    _run, "backup", backup, "--data-dir", first.data_dir, "--passphrase-file", passphrase, "--json"
                )
            ).stdout
        )
        backing.set()
        answered = await traffic
        assert answered, "requests were served while it was made"
        assert all(one.is_done for one in answered), answered
        assert made["sealed"]
        assert made["streams"].keys() >= {"FOREBAY_USAGE", "KV_forebay-scheduler"}
        assert made["warnings"] == []
    finally:
        first.stop()

    assert "whole" in _run("backup", "verify", backup, "--passphrase-file", passphrase).stdout
    assert b"PGDMP" not in backup.read_bytes()
    refused = _run("restore", backup, "--data-dir", first.data_dir, "--passphrase-file", passphrase, check=False)
    assert (refused.returncode, "is not empty" in refused.stderr) == (2, True)

    elsewhere = tmp_path / "restored"
    told = json.loads(
        _run("restore", backup, "--data-dir", elsewhere, "--passphrase-file", passphrase, "--json").stdout
    )
    assert Path(told["config"]).read_text() == settings.read_text()
    second = start_up(elsewhere, "--no-engine", "--config", told["config"])
    try:
        assert second.key == first.key
        after = await stream(client, second.gateway, key, ask("y", model="fake-model", max_tokens=3), "after")
        assert after.is_done, after
        assert await _kept(client, second, key) == kept
        wanted = {f"b-{number}" for number in range(5)} | set(done_before) | {"after"}
        await eventually(lambda: wanted <= _rows(second).keys(), 60, "rows are missing")
        rows = _rows(second)
        for request_id in wanted - {"after"}:
            assert rows[request_id] == ("finished", 3), request_id
        assert _run_on(second, "audit", "verify").returncode == 0
    finally:
        second.stop()


@pytest.mark.slow
async def test_one_that_does_not_run_is_backed_up_too_and_records_that_nobody_entered_are_in_it(
    tmp_path: Path, fake_engine: FakeEngineProcess, client: aiohttp.ClientSession
) -> None:
    settings = _settings(tmp_path, fake_engine)
    first = start_up(tmp_path / "data", "--no-engine", "--config", str(settings))
    try:
        key = first.make_key("bob")
        await _known(client, first, key)
        await stream(client, first.gateway, key, ask("x", model="fake-model", max_tokens=2), "entered")
        await eventually(lambda: "entered" in _rows(first), 60, "no row")
        os.kill(first.pid("admin"), 19)  # nobody takes records out of the stream any more
        done = await stream(client, first.gateway, key, ask("x", model="fake-model", max_tokens=2), "waiting")
        assert done.is_done, done
        await asyncio.to_thread(first.kill, "gateway-1")
    finally:
        first.process.kill()
        first.process.wait()
    made = json.loads(_run("backup", tmp_path, "--data-dir", first.data_dir, "--json").stdout)
    assert not made["sealed"]
    assert Path(made["file"]).stat().st_mode & 0o077 == 0
    _run("restore", made["file"], "--data-dir", tmp_path / "restored")
    second = start_up(tmp_path / "restored", "--no-engine", "--config", str(settings))
    try:
        await eventually(lambda: {"entered", "waiting"} <= _rows(second).keys(), 60, "rows are missing")
        assert _rows(second)["waiting"] == ("finished", 2)
    finally:
        second.stop()


def _run_on(running: Installation, *words: str) -> subprocess.CompletedProcess[str]:
    return running.run_cli(*words)


def _rows(running: Installation) -> dict[str, tuple[str, int]]:
    return {
        row["request_id"]: (row["outcome"], row["completion_tokens"])
        for row in running.ledger_rows()
        if row["request_id"]
    }


async def _traffic(
    client: aiohttp.ClientSession, running: Installation, key: str, sent: list[str], until: asyncio.Event
) -> list[Any]:
    answered = []
    while not until.is_set():
        request_id = f"t-{len(sent)}"
        body = ask("x", model="fake-model", max_tokens=3)
        answered.append(await stream(client, running.gateway, key, body, request_id))
        sent.append(request_id)
    return answered


async def _known(client: aiohttp.ClientSession, running: Installation, key: str) -> None:
    """Until the gateway has heard of a new key, and offers a model."""
    async with asyncio.timeout(60):
        while True:
            url = f"{running.gateway}/v1/models"
            async with client.get(url, headers={"authorization": f"Bearer {key}"}) as answer:
                if answer.status == 200 and (await answer.json())["data"]:
                    return
            await asyncio.sleep(0.05)


async def _keep_things(client: aiohttp.ClientSession, running: Installation, key: str) -> Any:
    """A file, and a response that is kept."""
    await _known(client, running, key)
    headers = {"authorization": f"Bearer {key}"}
    form = aiohttp.FormData()
    form.add_field("purpose", "user_data")
    form.add_field("file", b"what alice wrote", filename="notes.txt")
    async with client.post(f"{running.gateway}/v1/files", data=form, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
    body = {"model": "fake-model", "input": "Hello", "store": True}
    async with client.post(f"{running.gateway}/v1/responses", json=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        response_id = (await answer.json())["id"]
    running_id = running.data_dir / "test-response-id"
    running_id.write_text(response_id)
    return await _kept(client, running, key)


async def _kept(client: aiohttp.ClientSession, running: Installation, key: str) -> Any:
    headers = {"authorization": f"Bearer {key}"}
    response_id = (running.data_dir / "test-response-id").read_text()
    async with client.get(f"{running.gateway}/v1/responses/{response_id}", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        response = (await answer.json())["output"]
    async with client.get(f"{running.gateway}/v1/files", headers=headers) as answer:
        listed = (await answer.json())["data"]
    async with client.get(f"{running.gateway}/v1/files/{listed[0]['id']}/content", headers=headers) as answer:
        content = await answer.read()
    assert content == b"what alice wrote"
    return response, listed
