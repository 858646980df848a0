"""The agent's settings."""

from __future__ import annotations

import dataclasses
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from forebay.config import setting
from forebay.internal_tls import demand_bus_pair
from forebay.signing_keys import parse_line
from forebay_gpu_agent.commands.judge import OrderKind
from forebay_gpu_agent.pace import Pace

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
    """Seconds from one look at this host to the next, and from one sample to the next while a GPU works."""

    idle_interval_s: float = 10.0
    """The longest, in seconds, that nothing is told while nothing happens; what changes is told at the next look. Never less
    than `interval_s`."""

    disk_path: Path = Path("/")
    """The file system whose room is told as this node's is the one that holds this path."""

    disk_paths: tuple[Path, ...] = ()
    """Other folders whose room matters, such as a network's with models. Local file systems are found by themselves."""

    find_engines: bool = True
    """Whether engines on this host are looked for: Ollama, vLLM, SGLang and llama.cpp, at their usual ports."""

    engine_ports: tuple[int, ...] = ()
    """Further ports at which to look for them."""

    engines_interval_s: float = 15.0
    """Seconds between two looks for engines."""

    command_key: str = ""
    """`ssh-ed25519 …`: what the registry signs its commands with; an invitation brings it. Empty: all are refused."""

    commands: tuple[str, ...] = ("sample", "probe", "pull")
    """What commands may do here: sample now, probe (open the driver anew and look for engines), pull or delete a model."""

    nats_url: str = setting("nats://127.0.0.1:4222", alias="NATS_URL")
    """Where samples go. The agent samples on while nobody answers there."""

    nats_user: str = ""
    """The NATS user name, which names the private inbox too; the node's name when empty."""

    nats_seed_file: Path | None = None
    """The secret half of the agent's nkey."""

    nats_ca_file: Path | None = None
    """What the NATS server's certificate is verified with."""

    nats_cert_file: Path | None = None
    """The certificate that the bus sees (PEM), where it asks for one; read again for each connection."""

    nats_key_file: Path | None = None
    """Its private key (PEM)."""

    ops_listen: str = "127.0.0.1:8099"
    """/healthz, /readyz, /metrics."""

    def __post_init__(self) -> None:
        demand_bus_pair(self.nats_ca_file, self.nats_cert_file, self.nats_key_file)
        if not _NODE.fullmatch(self.node):
            raise ValueError(f"node: {self.node!r} must be letters, digits, - and _, at most 64")
        if not 0.1 <= self.interval_s <= 3600:
            raise ValueError(f"interval_s: {self.interval_s} is not between 0.1 and 3600")
        if not 0.1 <= self.idle_interval_s <= 3600:
            raise ValueError(f"idle_interval_s: {self.idle_interval_s} is not between 0.1 and 3600")

        if any(not 0 < port < 65536 for port in self.engine_ports):
            raise ValueError("engine_ports: a port is from 1 to 65535")
        if self.engines_interval_s < 1:
            raise ValueError(f"engines_interval_s: {self.engines_interval_s} is less than a second")
        if unknown := sorted(set(self.commands) - set(OrderKind)):
            raise ValueError(f"commands: there is no {', '.join(unknown)}; there are {', '.join(OrderKind)}")
        if self.command_key:
            try:
                parse_line(self.command_key)
            except ValueError as error:
                raise ValueError(f"command_key: {error}") from error

    @property
    def pace(self) -> Pace:
        return Pace(busy_s=self.interval_s, idle_s=max(self.interval_s, self.idle_interval_s))

    @property
    def bus_user(self) -> str:
        return self.nats_user or self.node
