"""The secrets that services share with each other and with nobody else, one file each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from forebay.local.secret_files import keep_secret, write_private
from forebay.rpc import render_tokens

CALLERS = ("gateway", "scheduler", "registry", "admin", "up")
"""Who calls gRPC ports with a token of its own; `up` is ourselves."""


@dataclass(frozen=True, slots=True)
class ServiceSecrets:
    folder: Path

    def token_file(self, caller: str) -> Path:
        return self.folder / "tokens" / f"{caller}.token"

    @property
    def callers_file(self) -> Path:
        """What servers know of the tokens: their digests."""
        return self.folder / "tokens" / "callers"

    @property
    def pepper_file(self) -> Path:
        return self.folder / "pepper"

    @property
    def seal_key_file(self) -> Path:
        return self.folder / "seal.key"

    @property
    def snapshot_key_file(self) -> Path:
        return self.folder / "snapshot.key"

    @property
    def engine_key_file(self) -> Path:
        return self.folder / "engine.key"

    @property
    def agent_seed_file(self) -> Path:
        """The nkey of this machine's own agent, apart from those of services, since a machine may be called `admin`."""
        return self.folder / "agent.nk"

    @property
    def command_key_file(self) -> Path:
        """What the registry signs commands to agents with."""
        return self.folder / "command.key"

    def database_url_file(self, owner: str) -> Path:
        return self.folder / f"{owner}.database_url"


def keep_service_secrets(folder: Path) -> ServiceSecrets:
    """Those that are there already stay as they are."""
    held = ServiceSecrets(folder)
    write_private(
        held.callers_file,
        render_tokens({caller: keep_secret(held.token_file(caller)) for caller in CALLERS}).encode(),
    )
    kept = (held.pepper_file, held.seal_key_file, held.snapshot_key_file, held.engine_key_file, held.command_key_file)
    for file in kept:
        keep_secret(file)
    return held
