"""Who listens on this host, and the processes below them, through psutil. Blocking; reads all of /proc, so not each beat."""

from __future__ import annotations

import logging
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

import psutil

log = logging.getLogger(__name__)

_PROXIES = frozenset(
    {"docker-proxy", "rootlessport", "rootlesskit", "slirp4netns", "pasta", "pasta.avx2", "sshd", "ssh"}
)
"""What they listen for runs elsewhere: in a container, or on another host."""


@dataclass(frozen=True, slots=True)
class Listener:
    port: int
    address: str
    """Bound to; where several sockets share the port, the one that lets the most in."""
    pid: int | None


def listeners(ports: Collection[int]) -> list[Listener]:
    """Those on `ports`, by port. Where the system does not tell who listens, those that take a connection on loopback."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError) as error:
        log.debug("listening sockets are not told", extra={"action": "sockets_unreadable", "error": str(error)})
        return [Listener(port, "127.0.0.1", None) for port in sorted(ports) if _answers(port)]
    found: dict[int, Listener] = {}
    for c in connections:
        if c.status != psutil.CONN_LISTEN or not c.laddr or c.laddr.port not in ports:
            continue
        listener = Listener(c.laddr.port, c.laddr.ip, c.pid)
        held = found.get(listener.port)
        if held is None or _reach(listener.address) > _reach(held.address):
            found[listener.port] = listener
    return [found[port] for port in sorted(found)]


def children_of_all() -> dict[int, list[int]]:
    """Process → those that it started and that live."""
    below: dict[int, list[int]] = {}
    for process in psutil.process_iter():
        try:
            below.setdefault(process.ppid(), []).append(process.pid)
        except psutil.Error:
            continue
    return below


def family(pid: int, below: Mapping[int, list[int]]) -> frozenset[int]:
    """`pid` and all below it."""
    found, waiting = {pid}, [pid]
    while waiting:
        for child in below.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return frozenset(found)


def is_proxy(pid: int) -> bool:
    try:
        return psutil.Process(pid).name() in _PROXIES
    except psutil.Error:
        return False


def _reach(address: str) -> int:
    try:
        bound = ip_address(address)
    except ValueError:
        return 0
    return 2 if bound.is_unspecified else 0 if bound.is_loopback else 1


def _answers(port: int) -> bool:
    with socket.socket() as tried:
        tried.settimeout(0.2)
        return tried.connect_ex(("127.0.0.1", port)) == 0
