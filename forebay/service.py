"""What a service is: an async context manager. Entered means ready, left means drained."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forebay.bus import Bus
from forebay.clock import Clock
from forebay.memory_bus import MemoryBus
from forebay.nats_bus import open_nats_bus
from forebay.ops import Ops


@dataclass(frozen=True, slots=True)
class Ground:
    """What every service stands on."""

    service: str
    clock: Clock
    ops: Ops
    memory_bus: MemoryBus

    def open_bus(
        self,
        url: str,
        name: str,
        *,
        seed_file: Path | None = None,
        ca_file: Path | None = None,
        cert_file: Path | None = None,
        key_file: Path | None = None,
        replicas: int = 1,
    ) -> AbstractAsyncContextManager[Bus]:
        """The bus at `url` as the user `name`; `memory:` is the one inside this process."""
        if url.startswith("memory:"):
            return _Given(self.memory_bus)
        files = {"seed_file": seed_file, "ca_file": ca_file, "cert_file": cert_file, "key_file": key_file}
        return open_nats_bus(url, name, **files, replicas=replicas)


@dataclass(frozen=True, slots=True)
class Service:
    name: str
    settings: type[Any]
    """A frozen dataclass with at least `ops_listen: str`; see forebay.config."""
    open: Callable[[Any, Ground], AbstractAsyncContextManager[None]]
    """`open(settings, ground)`: entering starts it, leaving drains it. Its background tasks live in a TaskGroup inside, so
    that one that fails takes the process down with its reason."""
    needs: tuple[str, ...] = field(default=())
    """Services that are better started first when they share a process. None may rely on it: any may restart at any time."""


class _Given(AbstractAsyncContextManager[Bus]):
    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def __aenter__(self) -> Bus:
        return self._bus

    async def __aexit__(self, *_: object) -> None: ...
