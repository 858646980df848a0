"""Which part listens on which port. All of them follow from the base port, so that two whole Forebays fit on one machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
_OPS = {"scheduler": 6, "registry": 7, "admin": 8, "gpu-agent": 9}


@dataclass(frozen=True, slots=True)
class Layout:
    base: int = 8090
    gateway_count: int = 1
    scheduler_count: int = 1
    registry_count: int = 1

    @property
    def gateways(self) -> tuple[str, ...]:
        """Their names, which are their NATS users too."""
        return tuple(f"gateway-{number}" for number in range(1, self.gateway_count + 1))

    @property
    def schedulers(self) -> tuple[str, ...]:
        """Of which one leads; at most four fit between the other ports."""
        return ("scheduler", *(f"scheduler-{number}" for number in range(2, self.scheduler_count + 1)))

    @property
    def registries(self) -> tuple[str, ...]:
        """Of which one leads; two at most."""
        return ("registry", *(f"registry-{number}" for number in range(2, self.registry_count + 1)))

    def gateway(self, name: str) -> int:
        index = self.gateways.index(name)
        return self.base if index == 0 else self.base + 18 + 2 * index

    @property
    def admin_http(self) -> int:
        return self.base + 1

    @property
    def admin(self) -> int:
        return self.base + 2

    def scheduler(self, name: str = "scheduler") -> int:
        index = self.schedulers.index(name)
        return self.base + 3 if index == 0 else self.base + 11 + 2 * index

    @property
    def scheduler_beside(self) -> int:
        """Of the one that is there during an upgrade, and leads for a moment."""
        return self.base + 52

    def registry(self, name: str = "registry") -> int:
        return self.base + 4 if self.registries.index(name) == 0 else self.base + 50

    def ops(self, part: str) -> int:
        """Of a service, or of the gateway or standby of that name."""
        if part in _OPS:
            return self.base + _OPS[part]
        if part in self.schedulers:
            return self.scheduler(part) + 1
        if part in self.registries:
            return self.registry(part) + 1
        index = self.gateways.index(part)
        return self.base + 5 if index == 0 else self.base + 19 + 2 * index

    @property
    def operators(self) -> int:
        """Admin's gRPC port for commands, where the other one asks for certificates."""
        return self.base + 19

    @property
    def nats(self) -> int:
        return self.base + 10

    @property
    def postgres(self) -> int:
        return self.base + 11

    @property
    def engine(self) -> int:
        return self.base + 12

    def open_ports(self) -> Iterator[tuple[str, int]]:
        """Those that clients and operators use, which `--listen` opens to other machines."""
        for name in self.gateways:
            yield name, self.gateway(name)
        yield "admin HTTP", self.admin_http

    def inner_ports(self) -> Iterator[tuple[str, int]]:
        """Those that stay on loopback whatever happens; NATS and what only some installations have are not among them."""
        yield "admin gRPC", self.admin
        for name in self.schedulers:
            yield name, self.scheduler(name)
        for name in self.registries:
            yield name, self.registry(name)
        for part in (*self.gateways, *self.schedulers[1:], *self.registries[1:], *_OPS):
            yield f"ops of {part}", self.ops(part)
