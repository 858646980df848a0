"""The real NATS with certificates on both sides: who is let in, and that a connection is made anew with new files."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypedDict

import pytest

from forebay import subjects
from forebay.errors import CannotStart
from forebay.internal_tls import PeerTls
from forebay.local.nats import Nats, Tls, open_nats
from forebay.nats_bus import NatsBus, open_nats_bus
from forebay.pki.folder import Folder, Step, make_folder


class Files(TypedDict, total=False):
    ca_file: Path
    cert_file: Path
    key_file: Path


USERS = ("admin", "registry", "scheduler", "gateway-1")
YEAR = timedelta(days=365)
PATIENCE_S = 60


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = make_folder(tmp_path / "pki", now())
    for name in ("nats", "scheduler"):
        made.issue(name, (), now(), YEAR)
    return made


@pytest.fixture
async def server(folder: Folder, tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[Nats]:
    place = folder.part("nats")
    async with open_nats(
        tmp_path / "nats",
        secrets=tmp_path / "secrets",
        port=free_port(),
        users=USERS,
        log=tmp_path / "log",
        tls=Tls(place / "tls.crt", place / "tls.key", place / "ca.crt", demands_certificates=True),
    ) as opened:
        yield opened


@pytest.fixture
def free_port() -> Callable[[], int]:
    import socket

    def find() -> int:
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            return int(trial.getsockname()[1])

    return find


def files_of(folder: Folder, name: str) -> Files:
    place = folder.part(name)
    return {"ca_file": place / "ca.crt", "cert_file": place / "tls.crt", "key_file": place / "tls.key"}


async def is_let_in(server: Nats, files: Files, patience_s: float = PATIENCE_S) -> bool:
    seed = server.seed_file("scheduler")
    async with open_nats_bus(server.url, "scheduler", seed_file=seed, **files) as bus:
        return await connects(bus, patience_s)


async def connects(bus: NatsBus, patience_s: float = PATIENCE_S) -> bool:
    try:
        async with asyncio.timeout(patience_s):
            await bus.wait_connected()
    except TimeoutError:
        return False
    return True


async def test_with_its_certificate_a_part_is_let_in_and_may_what_its_nkey_may(server: Nats, folder: Folder) -> None:
    seed = server.seed_file("scheduler")
    async with open_nats_bus(server.url, "scheduler", seed_file=seed, **files_of(folder, "scheduler")) as bus:
        assert await connects(bus)
        assert (await bus.bucket(subjects.LEADER_BUCKET)).created_at > 0


async def test_without_one_or_with_that_of_a_stranger_nobody_is_let_in(
    server: Nats, folder: Folder, tmp_path: Path
) -> None:
    other = make_folder(tmp_path / "other", now())
    other.issue("scheduler", (), now(), YEAR)
    known = files_of(folder, "scheduler")
    stranger: Files = {**files_of(other, "scheduler"), "ca_file": known["ca_file"]}
    misled: Files = {**known, "ca_file": other.part("scheduler") / "ca.crt"}
    assert await is_let_in(server, known)
    without: Files = {"ca_file": known["ca_file"]}
    for files in (without, stranger, misled):
        assert not await is_let_in(server, files, patience_s=2)


async def test_the_authority_is_replaced_and_a_lost_connection_comes_back_with_the_new_files(
    server: Nats, folder: Folder, tmp_path: Path
) -> None:
    files = files_of(folder, "scheduler")
    old = PeerTls(*(copied(file, tmp_path) for file in (files["ca_file"], files["cert_file"], files["key_file"])))
    seed = server.seed_file("scheduler")
    async with open_nats_bus(server.url, "scheduler", seed_file=seed, **files) as bus:
        assert await connects(bus)
        before = bus.demand_connection()
        for step in Step:
            folder.rotate(step, now(), YEAR)
            async with asyncio.timeout(PATIENCE_S):
                while not await is_let_in(server, files, patience_s=2):
                    await asyncio.sleep(0.1)
        assert bus.demand_connection() is before  # nobody was sent away
        await refuses(server, old)
        server.server.send(signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_S):
            while not bus.is_connected or bus.demand_connection() is before:
                await asyncio.sleep(0.05)
        assert (await bus.bucket(subjects.LEADER_BUCKET)).created_at > 0


def copied(file: Path, to: Path) -> Path:
    return Path(shutil.copy(file, to / f"old-{file.name}"))


async def refuses(server: Nats, tls: PeerTls) -> None:
    """As soon as the server has read its files again, which takes it half a second."""
    assert tls.cert is not None
    assert tls.key is not None
    files: Files = {"ca_file": tls.ca, "cert_file": tls.cert, "key_file": tls.key}
    async with asyncio.timeout(PATIENCE_S):
        while await is_let_in(server, files, patience_s=2):
            await asyncio.sleep(0.1)


async def test_files_that_do_not_belong_together_are_told_at_the_start(folder: Folder) -> None:
    files: Files = {**files_of(folder, "scheduler"), "key_file": folder.part("nats") / "tls.key"}
    with pytest.raises(CannotStart, match=r"or the certificate .*tls\.crt cannot be used"):
        async with open_nats_bus("tls://127.0.0.1:1", "scheduler", **files):
            pytest.fail("it was opened")
