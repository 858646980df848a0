"""`forebay upgrade`."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from forebay.errors import BadInput, CannotStart, ForebayError, Unavailable
from forebay.local.backup.cli import read_passphrase
from forebay.local.backup.making import make_backup
from forebay.local.data_dir_option import data_dir_option
from forebay.local.data_directory import DataDirectory, default_root, demand_space
from forebay.local.postgres_majors import remembered_programs
from forebay.local.started import Started, read_started
from forebay.local.upgrade.control import ask_control
from forebay.local.upgrade.environment import (
    Environment,
    clear_environments,
    find_environment,
    make_environment,
    place_of,
)
from forebay.local.upgrade.plan import Act
from forebay.local.upgrade.running import UpgradeRolledBack
from forebay.version_check import is_newer

_ROOM = 1000**3
_ROLLED_BACK = 7


@click.command(short_help="Put a new version in the place of the one that runs, without an interruption.")
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="The new version: an environment (a folder with bin/python), a wheel, or a folder of wheels.",
)
@click.option(
    "--requirements",
    type=click.Path(path_type=Path, dir_okay=False, exists=True, resolve_path=True),
    help="With wheels: a file with the digests of all that may be installed (pip's --require-hashes).",
)
@data_dir_option
@click.option(
    "--backup-to",
    type=click.Path(path_type=Path),
    help="A folder for the backup that is made before.  [default: beside the data directory, DIR-backups]",
)
@click.option("--no-backup", is_flag=True, help="Make none.")
@click.option("--passphrase-file", type=click.Path(path_type=Path, dir_okay=False), help="Seal the backup under it.")
@click.option(
    "--ready-within",
    type=click.FloatRange(1, 3600),
    default=90.0,
    show_default=True,
    help="Seconds each new part has to get ready; else all of it is taken back.",
)
@click.option("--allow-older", is_flag=True, help="Also go to an older version.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option(
    "--json", "as_json", is_flag=True, help="Answer as JSON: a line for each piece of news, the last one is the result."
)
@click.pass_context
def upgrade(ctx: click.Context, /, **options: Any) -> None:
    """Put a new version of Forebay in the place of the one that `forebay up` runs here. Clients notice nothing: connections
    are taken all the time, and answers under way go on to their end.

    A backup is made. The new version is started beside the old one, which brings the tables up to date (they are only ever
    added to), and is given up if it does not get ready. Then each service is replaced, the old ones draining. Whatever
    fails, the old version is put back. An answer that runs for long keeps its gateway, and so the upgrade, waiting: at
    most `drain_s` of the gateway's settings.

    `forebay up` itself, PostgreSQL and NATS go on as they are until the next start, which is then to be the new version's.
    Of the environments that were made of wheels, the one that runs now stays and the one before it.

    \b
    forebay upgrade --to /opt/forebay-1.3 --dry-run
    forebay upgrade --to forebay-1.3.0-py3-none-any.whl
    forebay upgrade --to wheels --requirements lock.txt   # of an unpacked wheelhouse

    With --json: lines {"step": {"act", "part", "about"}, "state": "began" | "done" | "failed"} and at last {"result":
    "upgraded" | "rolled_back" | "failed", "why", "from", "to", "python", "backup"}; with --dry-run {"steps", "from", "to"}.
    Exit status 7: rolled back, the old version goes on.
    """
    ctx.exit(asyncio.run(_upgrade(**options)))


async def _upgrade(
    *,
    to: Path | None,
    requirements: Path | None,
    data_dir: Path | None,
    backup_to: Path | None,
    no_backup: bool,
    passphrase_file: Path | None,
    ready_within: float,
    allow_older: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    data = DataDirectory((data_dir or default_root()).absolute())
    started = read_started(data)
    if started is None:
        raise Unavailable(
            f"No Forebay runs on {data.root}: start the new version with `forebay up`; it brings everything up to date."
        )
    here = started.services_version or started.version
    if dry_run:
        return await _show(data, here, to, as_json)
    if to is None:
        raise BadInput("Say which version: --to with an environment, a wheel, or a folder of wheels.")
    demand_space(data.root, _ROOM, "for an upgrade")
    with _alone(data):
        environment, made = await _environment(data, to, requirements, as_json)
        try:
            _demand_newer(here, environment, allow_older)
            backup = None if no_backup else await _back_up(data, backup_to, passphrase_file, as_json)
        except ForebayError:
            await _discard(made)
            raise
        _tell(as_json, f"From {here} to {environment.version}")
        status = await _follow(data, started, here, environment, backup, ready_within, as_json)
        if status == _ROLLED_BACK:
            await _discard(made)
        elif status == 0:
            before = (started.services_python, started.python)
            used = [environment.python, *before, sys.executable, remembered_programs(data.postgres)]
            await asyncio.to_thread(clear_environments, _made_below(data), [Path(one) for one in used if one])
    return status


@contextmanager
def _alone(data: DataDirectory) -> Iterator[None]:
    """Raises BadInput."""
    lock = os.open(data.root / "run" / "upgrade.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"Another `forebay upgrade` is at work on {data.root}: wait until it has ended.") from None
        yield
    finally:
        os.close(lock)


async def _environment(
    data: DataDirectory, to: Path, requirements: Path | None, as_json: bool
) -> tuple[Environment, Path | None]:
    """And its folder, when it was made for this."""
    environment = await find_environment(to)
    if environment is not None:
        return environment, None
    _tell(as_json, f"Making an environment for {to.name}")
    made = place_of(to, _made_below(data))
    return await make_environment(made, to, requirements), made


async def _discard(made: Path | None) -> None:
    """Nothing runs in it."""
    if made is not None:
        await asyncio.to_thread(shutil.rmtree, made, ignore_errors=True)


def _made_below(data: DataDirectory) -> Path:
    return data.root / "upgrades"


def _demand_newer(here: str, environment: Environment, allow_older: bool) -> None:
    if is_newer(here, environment.version) and not allow_older:
        raise BadInput(
            f"{environment.version} is older than {here}, which runs: give --allow-older if that is meant. Tables stay as "
            "the newer one has made them, with which the version before it can work."
        )


async def _follow(
    data: DataDirectory,
    started: Started,
    here: str,
    environment: Environment,
    backup: Path | None,
    ready_within_s: float,
    as_json: bool,
) -> int:
    asked = ask_control(
        data,
        ask="upgrade",
        python=environment.python,
        version=environment.version,
        ready_within_s=ready_within_s,
    )
    result: dict[str, Any] = {"result": "failed", "why": "`forebay up` ended meanwhile."}
    async for news in asked:
        if "result" in news:
            result = news
        elif as_json:
            click.echo(json.dumps(news))
        elif news["state"] != "done":
            click.echo(f"{news['step']['about']}{' – it did not get ready' if news['state'] == 'failed' else ''}")
    if as_json:
        told = {"from": here, "to": environment.version, "python": environment.python}
        click.echo(json.dumps({**result, **told, "backup": str(backup) if backup else None}))
        return {"upgraded": 0, "rolled_back": _ROLLED_BACK}.get(result["result"], 1)
    if result["result"] == "rolled_back":
        click.echo(f"forebay: {UpgradeRolledBack(result['why']).message}", err=True)
        return _ROLLED_BACK
    if result["result"] != "upgraded":
        raise CannotStart(f"The upgrade failed: {result['why']}")
    program = Path(environment.python).with_name("forebay")
    click.echo(
        f"Upgraded to {environment.version}. `forebay up` itself is still {started.version}: start it as {program} from now "
        "on."
    )
    if result["why"]:
        click.echo(f"Warning: {result['why']}", err=True)
    return 0


async def _show(data: DataDirectory, here: str, to: Path | None, as_json: bool) -> int:
    steps: list[dict[str, str]] = []
    async for news in ask_control(data, ask="plan"):
        steps = news["steps"]
    environment = await find_environment(to) if to is not None else None
    there = environment.version if environment else None
    if as_json:
        click.echo(json.dumps({"steps": steps, "from": here, "to": there}, indent=2))
        return 0
    click.echo(f"From {here}" + (f" to {there}" if there else ""))
    for number, step in enumerate(steps, 1):
        is_safe = step["act"] == Act.BESIDE
        click.echo(f"{number:3}. {step['about']}" + ("" if is_safe else "  (taken back if it fails)"))
    return 0


async def _back_up(data: DataDirectory, to: Path | None, passphrase_file: Path | None, as_json: bool) -> Path:
    _tell(as_json, "Making a backup")
    folder = to or data.root.with_name(f"{data.root.name}-backups")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        passphrase = read_passphrase(passphrase_file)
        file, _ = await make_backup(data, folder, passphrase=passphrase)
    except (ForebayError, OSError) as error:
        raise CannotStart(
            f"No backup could be made, so nothing was changed ({error}). Give another folder with --backup-to, or "
            "--no-backup."
        ) from error
    _tell(as_json, f"Backup: {file}")
    return file


def _tell(as_json: bool, line: str) -> None:
    if not as_json:
        click.echo(f"{line} …")
