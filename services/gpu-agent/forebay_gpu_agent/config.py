"""The agent's settings."""

from __future__ import annotations

import dataclasses
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from forebay.config import setting

_NODE = re.compile(r"[A-Za-z0-9_-]{1,64}")


def node_of_host() -> str:
    """This host's name without its domain, as a word that can stand in a NATS subject."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", platform.node().partition(".")[0]).strip("-")
    return name[:64] or "node"


@dataclass(frozen=True, slots=True)
class GpuAgentSettings:
    node: str = dataclasses.field(default_factory=node_of_host)
    """The name under which this host's samples travel: letters, digits, - and _. An enrolled agent may use no other."""

    interval_s: float = 2.0
    """Seconds from one sample to the next."""

    disk_path: Path = Path("/")
    """The file system whose room is reported is the one that holds this path."""

    nats_url: str = setting("nats://127.0.0.1:4222", alias="NATS_URL")
    """Where samples go. The agent samples on while nobody answers there."""

    nats_user: str = ""
    """The NATS user name, which names the private inbox too; the node's name when empty."""

    nats_seed_file: Path | None = None
    """The secret half of the agent's nkey."""

    nats_ca_file: Path | None = None
    """What the NATS server's certificate is verified with."""

    ops_listen: str = "127.0.0.1:8099"
    """/healthz, /readyz, /metrics."""

    def __post_init__(self) -> None:
        if not _NODE.fullmatch(self.node):
            raise ValueError(f"node: {self.node!r} must be letters, digits, - and _, at most 64")
        if not 0.1 <= self.interval_s <= 3600:
            raise ValueError(f"interval_s: {self.interval_s} is not between 0.1 and 3600")

    @property
    def bus_user(self) -> str:
        return self.nats_user or self.node
