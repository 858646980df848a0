"""The environment that an upgrade goes to: one that is there, or a new one from a wheel or a folder of wheels. Which version
of Forebay is in it, and which of those that were made are needed no more."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from forebay.errors import BadInput, CannotStart

_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Environment:
    python: str
    version: str


async def find_environment(to: Path) -> Environment | None:
    """None when `to` is no environment. Raises CannotStart when Forebay does not run in it."""
    python = to / "bin" / "python"
    if not os.access(python, os.X_OK):
        return None
    status, said = await _run(str(python), "-P", "-m", "forebay", "version", "--json", within_s=_WAIT_S)
    try:
        return Environment(str(python.absolute()), json.loads(said)["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise CannotStart(
            f"Forebay does not run in the environment {to} (exit status {status}): {said.strip()[-500:]}"
        ) from error


async def make_environment(to: Path, wheels: Path, requirements: Path | None) -> Environment:
    """A new environment in `to` (nothing is there yet), from a wheel of Forebay or a folder that has one and, it may be, all
    that it needs. With `requirements`, nothing is installed whose digest is not in it. Its path and `to` are absolute.
    Raises BadInput, CannotStart."""
    wheel = _wheel_of(wheels)
    to.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    shutil.rmtree(to, ignore_errors=True)
    status, said = await _run(sys.executable, "-m", "venv", str(to))
    pip = (str(to / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    found = ("--find-links", str(wheel.parent))
    alone = ("--no-index",) if wheels.suffix != ".whl" else ()  # a folder of wheels is to be enough
    if status == 0 and requirements is not None:
        # There, since pip looks from where it runs for what a lock names by its path.
        locked = ("--require-hashes", "-r", str(requirements))
        status, said = await _run(*pip, *alone, *found, *locked, cwd=requirements.parent)
    if status == 0:
        bare = ("--no-deps",) if requirements is not None else ()
        what = str(wheel) if requirements is not None else f"{wheel}[local]"
        status, said = await _run(*pip, *alone, *found, *bare, what)
    if status != 0:
        shutil.rmtree(to, ignore_errors=True)
        raise CannotStart(f"{wheel.name} could not be installed: {said.strip()[-1000:]}")
    environment = await find_environment(to)
    assert environment is not None
    return environment


def place_of(wheels: Path, below: Path) -> Path:
    """Where their environment is made: after the wheel's name, and never where one is already, since what runs may be in it.
    Raises BadInput."""
    name = _wheel_of(wheels).stem
    places = (below / (name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    return next(place for place in places if not place.exists())


def clear_environments(below: Path, used: Collection[Path]) -> list[Path]:
    """Removes those that were made there, but for those in which one of `used` lies; gives what it removed. Blocking."""
    kept = {folder for path in used for folder in (path.parent.resolve() / path.name).parents}
    places = sorted(below.iterdir()) if below.is_dir() else []
    gone = [place for place in places if (place / "pyvenv.cfg").is_file() and place.resolve() not in kept]
    for place in gone:
        shutil.rmtree(place, ignore_errors=True)
    return gone


def _wheel_of(wheels: Path) -> Path:
    if wheels.is_file() and wheels.suffix == ".whl":
        return wheels.absolute()
    found = sorted(wheels.glob("forebay-*.whl"), key=lambda path: path.stat().st_mtime) if wheels.is_dir() else []
    if not found:
        raise BadInput(
            f"{wheels} is neither an environment (with bin/python), nor a wheel of Forebay, nor a folder that holds one."
        )
    return found[-1].absolute()


async def _run(*argv: str, within_s: float = 1800.0, cwd: Path | None = None) -> tuple[int, str]:
    asked = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=cwd,
    )
    try:
        async with asyncio.timeout(within_s):
            said, _ = await asked.communicate()
    except TimeoutError:
        return 1, "it did not answer in time"
    finally:
        if asked.returncode is None:
            asked.kill()
            await asked.wait()
    return asked.returncode or 0, said.decode(errors="replace")
