"""PostgreSQL as a child: made when there is none, on loopback alone, with a password, and small.

Who may do what inside it is `postgres_roles`' part. A given DATABASE_URL needs none of this."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import asyncpg

from forebay.errors import CannotStart
from forebay.local.ports import any_free_port
from forebay.local.postgres_binaries import Binaries, find_binaries, within_reach
from forebay.local.postgres_majors import (
    find_major,
    finish_move,
    held_major,
    move_tables,
    next_data,
    remember_programs,
)
from forebay.local.process import Account, Command, last_lines, run_to_end
from forebay.local.secret_files import keep_secret, write_private
from forebay.local.supervised import Say, Supervised, keep_running

SUPERUSER = "forebay"
UNPRIVILEGED = "nobody"

_SETTINGS = {
    # Services on this machine need one TCP port. A socket file's path may have 107 bytes at most, which a data directory
    # may well exceed.
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    # A laptop's memory belongs to the model; what a month's sums take of it is taken when they are first asked for.
    "shared_buffers": "128MB",
    "max_connections": "50",
    "max_wal_size": "256MB",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    # Nobody replicates from here.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # A crash of this process, or a cut of power, costs nothing that was committed.
    "fsync": "on",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] %u ",
}
_SETTINGS_SINCE_18 = {"io_method": "sync"}  # no pool of processes for reading ahead
_LEFTOVER_S = 10.0


@dataclass(frozen=True, slots=True)
class Postgres:
    port: int
    superuser_url: str
    """For making roles. Nothing else should connect with it."""
    server: Supervised


@asynccontextmanager
async def open_postgres(
    directory: Path,
    *,
    secrets: Path,
    port: int,
    log: Path,
    say: Say = lambda line: None,
    changed: Mapping[str, str] = MappingProxyType({}),
    may_move: bool = True,
) -> AsyncIterator[Postgres]:
    """The server is ready when entered and shut down when left. `directory` keeps its data, `secrets` its password;
    `changed` are settings of PostgreSQL's that are to differ from ours. Data of another major version is moved to the
    installed one if it `may_move`. Raises CannotStart."""
    binaries = await find_binaries()
    account = _account_for_postgres()
    if account is not None and port < _first_open_port():
        raise CannotStart(
            f"PostgreSQL's port {port} is reserved for root, as whom it does not run: choose a --base-port above "
            f"{_first_open_port() - 1}, or name a server of your own in DATABASE_URL."
        )
    data = _own_directory(directory, account)
    if account is not None:
        binaries = await within_reach(binaries, account, directory.parent / "binaries", log)
    password = _password(secrets, data)
    finish_move(directory)
    if not data.exists():
        await make_data(binaries, directory, data, password, account, log)
    elif held_major(data) != binaries.major:
        if not may_move:
            raise CannotStart(
                f"The data in {directory} is PostgreSQL {held_major(data)}'s and the installed programs are "
                f"{binaries.major}'s: start Forebay once, which moves the data, then try again."
            )
        await _move(directory, data, binaries, password, account, secrets, log, say)
    remember_programs(directory, binaries)
    async with _open_server(binaries, data, password, account, port, log, say, changed) as postgres:
        yield postgres


@asynccontextmanager
async def _open_server(
    binaries: Binaries,
    data: Path,
    password: str,
    account: Account | None,
    port: int,
    log: Path,
    say: Say,
    changed: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Postgres]:
    url = f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{port}/postgres"

    async def ready() -> bool:
        return await _answers(url)

    async def clear_the_way() -> None:
        await _clear_pid_file(data)

    settings = {**_SETTINGS, **(_SETTINGS_SINCE_18 if binaries.major >= 18 else {}), **changed, "port": str(port)}
    command = Command(
        name="PostgreSQL",
        argv=(binaries.postgres, "-D", _named(data, account), *_flags(settings)),
        log=log,
        environ={**os.environ, "LC_ALL": "C"},
        account=account,
        cwd=data,
        stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint
        hurry_signal=signal.SIGQUIT,
        grace_s=30.0,
        ready_within_s=60.0,  # after a crash it first reads its log again
    )
    async with keep_running(command, ready, say, clear_the_way) as server:
        yield Postgres(port, url, server)


def _account_for_postgres() -> Account | None:
    """PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise CannotStart(
            f"PostgreSQL does not run as root, and there is no user {UNPRIVILEGED} here to run it: "
            "run Forebay as a plain user, or name a server of your own in DATABASE_URL."
        ) from None
    return Account(UNPRIVILEGED, entry.pw_uid, entry.pw_gid)


def _first_open_port() -> int:
    """The first one that a plain user may listen on."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except OSError:
        return 1024


def _own_directory(directory: Path, account: Account | None) -> Path:
    """Makes the folder, the server's alone; gives the place of the data in it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if account is not None:
        os.chown(directory, account.uid, account.gid)
    return directory.resolve() / "data"


def _named(data: Path, account: Account | None) -> str:
    """How a process that works in `data` names it. A data directory may lie under root's closed home, where the server's
    user cannot go by any path; but it may stand where root has put it."""
    return str(data) if account is None else "/proc/self/cwd"


def _password(secrets: Path, data: Path) -> str:
    file = secrets / "postgres" / "superuser.password"
    if data.exists() and not file.exists():
        raise CannotStart(
            f"The database in {data} is there but its password {file} is not: "
            f"put that file back, or move {data} away to begin anew."
        )
    return keep_secret(file)


async def _move(
    directory: Path,
    data: Path,
    binaries: Binaries,
    password: str,
    account: Account | None,
    secrets: Path,
    log: Path,
    say: Say,
) -> None:
    """Data of another major version into that of `binaries`. What there was stays beside, until somebody removes it."""
    old = await find_major(directory, held_major(data))
    if account is not None:
        old = await within_reach(old, account, directory.parent / "binaries", log)
    say(f"Moving the database from PostgreSQL {old.major} to {binaries.major}; this takes a while.")

    def open_old() -> AbstractAsyncContextManager[Postgres]:
        return _open_server(old, data, password, account, any_free_port(), log, say)

    def open_new(fresh: Path) -> AbstractAsyncContextManager[Postgres]:
        return _open_server(binaries, fresh, password, account, any_free_port(), log, say)

    fresh = next_data(directory)
    await make_data(binaries, directory, fresh, password, account, log)
    async with open_old() as source, open_new(fresh) as target:
        await move_tables(source.superuser_url, target.superuser_url, secrets, directory, binaries.folder / "bin")
    kept = finish_move(directory)
    say(
        f"The database is PostgreSQL {binaries.major}'s now. That of before is kept in {kept}: remove it when all is well."
    )


async def make_data(
    binaries: Binaries, directory: Path, data: Path, password: str, account: Account | None, log: Path
) -> None:
    """Makes the data beside its place and moves it there: half of it is never taken for the whole."""
    fresh, password_file = directory / "data.new", directory / "initdb.password"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    write_private(password_file, password.encode())
    if account is not None:
        for path in (fresh, password_file):
            os.chown(path, account.uid, account.gid)
    where = _named(fresh, account)
    options = ("-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-instructions")
    argv = (binaries.initdb, "-D", where, "-U", SUPERUSER, "--pwfile", f"{where}/../{password_file.name}", *options)
    environ = {**os.environ, "LC_ALL": "C"}
    try:
        status = await run_to_end(Command("initdb", argv, log, environ=environ, account=account, cwd=fresh))
    finally:
        password_file.unlink()
    if status != 0:
        raise CannotStart(f"initdb could not make a database in {directory}. The end of {log}:\n{last_lines(log)}")
    fresh.rename(data)


async def _clear_pid_file(data: Path) -> None:
    """PostgreSQL forgives a pid file whose process is gone, but not one whose number went to somebody else. A server that
    outlived the `forebay up` before us was told to end by the kernel and gets a moment for it."""
    file = data / "postmaster.pid"
    until = asyncio.get_running_loop().time() + _LEFTOVER_S
    while True:
        try:
            pid = int(file.read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return
        works_in = _working_directory(pid)
        if works_in is None:
            return
        if works_in != data:
            file.unlink(missing_ok=True)
            return
        if asyncio.get_running_loop().time() > until:
            raise CannotStart(f"Another PostgreSQL (process {pid}) uses {data}: end it with kill -INT {pid}")
        await asyncio.sleep(0.1)


def _working_directory(pid: int) -> Path | None:
    """Where a process works; None when there is none of that number or it is not ours to look at."""
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd"))
    except OSError:
        return None


async def _answers(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=2, command_timeout=2)
    except asyncpg.InvalidPasswordError as error:
        raise CannotStart(
            f"PostgreSQL does not accept its own password ({error}): the secret beside the data is of another database."
        ) from error
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return False
    await connection.close()
    return True


def _flags(settings: dict[str, str]) -> tuple[str, ...]:
    return tuple(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
