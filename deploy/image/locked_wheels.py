"""Fetches the wheels that some requirements need, and no others, in the versions and with the hashes of a lock file:

    python locked_wheels.py LOCK FOLDER REQUIREMENT…

to be installed with `pip install --no-index --no-deps FOLDER/*.whl`. `forebay[gateway]` means what `./pyproject.toml` says
of it. For an image of one service, which has no use for everything that is locked. pip does the fetching, compares hashes,
makes a wheel of what its authors publish as source alone (setuptools must be installed), and is told from where to fetch as
anywhere else (PIP_CONFIG_FILE, PIP_INDEX_URL)."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from email.parser import HeaderParser
from pathlib import Path

# pip's own copy of `packaging`: nothing is to be installed before hashes are looked at.
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name, parse_wheel_filename

OURS = "forebay"


def main(lock: Path, folder: Path, wanted: Iterable[str]) -> None:
    """Raises SystemExit for what the lock does not have, or what pip cannot fetch."""
    locked = read_lock(lock.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    read: dict[str, list[Requirement]] = {OURS: own_requirements(tomllib.loads(Path("pyproject.toml").read_text()))}
    seen: set[tuple[str, str]] = set()
    todo = [Requirement(text) for text in wanted]
    while todo:
        names = {canonicalize_name(one.name) for one in todo}
        missing = sorted(name for name in names if name not in read)
        if unlocked := [name for name in missing if name not in locked]:
            raise SystemExit(f"{lock} does not have {', '.join(unlocked)}.")
        if missing:
            _download(folder, [locked[name] for name in missing])
            fetched = _wheels(folder)
            read |= {name: wheel_requirements(fetched[name]) for name in missing}
        pairs = {(canonicalize_name(one.name), extra) for one in todo for extra in ("", *one.extras)} - seen
        seen |= pairs
        todo = [need for name, extra in sorted(pairs) for need in read[name] if applies(need, extra)]


def read_lock(text: str) -> dict[str, str]:
    """Name → its whole entry, hashes and all."""
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", text)
    found: dict[str, str] = {}
    for entry in entries:
        if match := re.match(r"[A-Za-z0-9._-]+", entry):
            # Some are locked more than once, for different Pythons; pip takes the one whose marker fits.
            name = canonicalize_name(match[0])
            found[name] = found.get(name, "") + entry.rstrip("\n") + "\n"
    return found


def own_requirements(project: dict[str, object]) -> list[Requirement]:
    """Of Forebay itself, as its metadata would say."""
    table = project["project"]
    assert isinstance(table, dict)
    extras = table["optional-dependencies"].items()
    lines = [*table["dependencies"], *(_with_extra(one, extra) for extra, needs in extras for one in needs)]
    return [Requirement(line) for line in lines]


def wheel_requirements(wheel: Path) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(one for one in archive.namelist() if one.count("/") == 1 and one.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    return [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]


def applies(need: Requirement, extra: str) -> bool:
    """Whether it is needed here, for this extra; the empty one stands for what is needed anyway."""
    return not extra if need.marker is None else need.marker.evaluate({"extra": extra})


def _with_extra(requirement: str, extra: str) -> str:
    plain, semicolon, marker = requirement.partition(";")
    return f'{plain.strip()}; extra == "{extra}"' + (f" and ({marker.strip()})" if semicolon else "")


def _wheels(folder: Path) -> dict[str, Path]:
    return {parse_wheel_filename(file.name)[0]: file for file in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    return folder.glob("*.whl")


def _download(folder: Path, entries: Iterable[str]) -> None:
    asked = folder / "asked.txt"
    asked.write_text("".join(entries))
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-cache-dir")
    options = ("--no-deps", "--no-build-isolation", "--require-hashes", "-r", str(asked), "-w", str(folder))
    done = subprocess.run((*pip, *options), check=False)
    asked.unlink()
    if done.returncode:
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
