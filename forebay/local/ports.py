"""Whether ports are free, and if not, who holds them."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from forebay.errors import CannotStart

_LISTENING = "0A"
_NOT_OURS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


async def demand_free(ports: Mapping[str, tuple[str, int]], wait_s: float = 0.0) -> None:
    """`ports`: what for → (host, port). Waits up to `wait_s` for those that an earlier start still holds, then raises
    CannotStart with every one that is taken."""
    until = asyncio.get_running_loop().time() + wait_s
    while taken := [(what, host, port) for what, (host, port) in ports.items() if not is_free(host, port)]:
        if asyncio.get_running_loop().time() >= until:
            each = "; ".join(f"{port} ({what}) by {holder(port) or 'another process'}" for what, _, port in taken)
            raise CannotStart(f"Ports are in use: {each}. Stop what uses them, or choose others with --base-port.")
        await asyncio.sleep(0.2)


def any_free_port() -> int:
    """On loopback, for a server that is there for a moment only."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


def is_free(host: str, port: int) -> bool:
    """Raises CannotStart when `host` is no address of this machine."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise CannotStart(
            f"{host} is no address that can be listened on ({error.strerror}): give --listen an address of this machine, "
            "without a port; that is for --base-port."
        ) from error
    with socket.socket(family, kind, protocol) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that are closing do not count
        try:
            trial.bind(address)
        except PermissionError as error:
            raise CannotStart(f"Port {port} is reserved for root: choose a --base-port above 1023.") from error
        except OSError as error:
            if error.errno in _NOT_OURS:
                raise CannotStart(f"{host} is no address of this machine: give one of its own to --listen.") from error
            return False
    return True


def holder(port: int) -> str | None:
    """Who listens there, such as `ollama (process 4711)`; None when that cannot be seen, as for other users' processes."""
    inodes = _listening_inodes(port)
    for process in Path("/proc").iterdir() if inodes else ():
        if not process.name.isdigit():
            continue
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    if os.readlink(descriptor) in inodes:
                        return f"{_name_of(process)} (process {process.name})"
    return None


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{fields[9]}]")
    return found


def _name_of(process: Path) -> str:
    words = (process / "cmdline").read_bytes().decode(errors="replace").strip("\0").split("\0")
    return " ".join([Path(words[0]).name, *words[1:]])[:60]
