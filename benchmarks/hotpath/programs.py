"""The engine and the generator, in C: built once, from the sources that are here."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SOURCES = Path(__file__).parent / "c"
BUILT = Path(__file__).parents[2] / "build" / "hotpath"
_TLS = ("-DWITH_TLS", "-lssl", "-lcrypto")


def build() -> Path:
    """Where `engine` and `load` lie. Without OpenSSL's headers the generator has no TLS, and says so when asked for it.
    Raises SystemExit where they cannot be built."""
    BUILT.mkdir(parents=True, exist_ok=True)
    for name, extra in (("engine", ()), ("load", _TLS)):
        source, program = _SOURCES / f"{name}.c", BUILT / name
        if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
            continue
        tried = _compile(source, program, *extra)
        if tried.returncode and extra:
            tried = _compile(source, program)
        if tried.returncode:
            raise SystemExit(f"{source.name} was not compiled; a C compiler named `cc` is needed.\n{tried.stderr}")
    return BUILT


def _compile(source: Path, program: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    command = ["cc", "-O2", "-std=gnu11", "-Wall", "-o", str(program), str(source), *extra]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise SystemExit("There is no C compiler named `cc` on the path.") from error
