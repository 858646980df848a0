"""Virtual endpoints: host names and beginnings of paths at which a pool is reached.

Pure. Whether a key may go there is `principals`' part; which endpoints there are is the registry's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VirtualEndpoint:
    pool: str
    hosts: tuple[str, ...] = ()
    """Lower case, without a port."""
    path_prefix: str = ""
    """Such as /team-a; empty: none."""


class VirtualEndpoints:
    def __init__(self, endpoints: Iterable[VirtualEndpoint] = ()) -> None:
        self._of_host: dict[str, str] = {}
        self._of_prefix: dict[str, str] = {}
        self._deepest = 0
        """Parts of the longest prefix."""
        self.version = 0
        """Another one after each change."""
        self.replace_all(endpoints)

    def replace_all(self, endpoints: Iterable[VirtualEndpoint]) -> None:
        known = list(endpoints)
        self.version += 1
        self._of_host = {host: endpoint.pool for endpoint in known for host in endpoint.hosts}
        self._of_prefix = {endpoint.path_prefix: endpoint.pool for endpoint in known if endpoint.path_prefix}
        self._deepest = max((prefix.count("/") for prefix in self._of_prefix), default=0)

    def find(self, host: str, path: str) -> tuple[str | None, str]:
        """The pool that this host name or this path leads to, None where neither does, and the path without the prefix.
        `host`: as the header has it. At a pool's own host other pools' prefixes mean nothing. About 2 µs with 200 pools."""
        pool = self._of_host.get(_without_port(host)) if self._of_host else None
        if not self._of_prefix:
            return pool, path
        parts = path.split("/", self._deepest + 1)
        for length in range(min(self._deepest + 1, len(parts)), 1, -1):  # the longest first: /team/a before /team
            prefix = "/".join(parts[:length])
            found = self._of_prefix.get(prefix)
            if found is not None and pool in (None, found):
                return found, path[len(prefix) :] or "/"
        return pool, path


def _without_port(host: str) -> str:
    return host.partition(":")[0].rstrip(".").lower()
