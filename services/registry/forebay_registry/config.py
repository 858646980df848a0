"""What the registry can be told: addresses, files with its secrets, the backends a file names, and how to probe them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forebay.config import setting
from forebay.errors import BadInput, BadSettings
from forebay_registry.backend import EngineKind
from forebay_registry.health.conditions import Rhythm, Thresholds
from forebay_registry.health.patrol import Beat
from forebay_registry.wanted.catalog import AddBackend, parse_add

FILE_ACTOR = "forebay.toml"
"""Who wants the backends that the configuration names."""

_FIELDS = {"name", "url", "kind", "pool", "slots", "models"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    listen: str = "127.0.0.1:8094"
    """gRPC, for the other services."""

    ops_listen: str = "127.0.0.1:8097"
    """/healthz, /readyz, /metrics."""

    admin_address: str = "127.0.0.1:8092"
    """Admin's gRPC port (HOST:PORT), which tells the engines' own keys."""

    token_file: Path
    """The registry's own token for calling admin."""

    callers_file: Path
    """Who may call here: a line `name sha256-of-token` for each service."""

    nats_url: str = setting("nats://127.0.0.1:4222", alias="NATS_URL")
    """The bus that agents send their samples on."""

    nats_user: str = "registry"
    """The registry's name on the bus."""

    nats_seed_file: Path | None = None
    """The seed of the registry's nkey. None: a bus that asks for none."""

    nats_ca_file: Path | None = None
    """The CA that signed the bus's certificate (PEM). None: no TLS."""

    database_url_file: Path | None = None
    """A file with the database's address; it wins over database_url."""

    database_url: str | None = setting(None, alias="DATABASE_URL")
    """postgresql://user:password@host:port/name"""

    snapshot_key_file: Path | None = None
    """The secret under which the last known fleet and credentials are sealed on disk. None: no snapshots are kept."""

    snapshot_dir: Path | None = None
    """Where they are kept, to start from while Postgres or admin is away. None: no snapshots are kept."""

    snapshot_max_age_s: float = 7 * 24 * 3600.0
    """An older snapshot is not started from."""

    backends: tuple[dict[str, Any], ...] = ()
    """`[[registry.backends]]`, each with name and url, and if wanted kind, pool, slots, and `models`, a table of what the
    engine calls models of the fleet. They are added, or changed to what the file says, at every start; what operators added
    stays. An engine's own key is admin's to keep: give it with `forebay backend add --bearer-file`."""

    probe_healthy_s: float = 2.0
    """Seconds between two looks at a healthy backend."""

    probe_doubt_s: float = 1.0
    """The same while its last look failed, or it is not known yet."""

    probe_dead_s: float = 10.0
    """At most, when it has been away for long."""

    probe_https_s: float = 10.0
    """Seconds between two looks at a healthy backend behind https, which is usually somebody else's."""

    probe_timeout_s: float = 3.0
    """An engine that does not give its list of models in this time failed."""

    probe_gauges_timeout_s: float = 1.0
    """How long its gauges are waited for; without them it serves all the same."""

    probe_failures: int = 3
    """In a row, until a healthy backend is unhealthy."""

    probe_refusals: int = 2
    """The same for refused connections."""

    probe_successes: int = 2
    """In a row, until an unhealthy backend is healthy."""

    load_stale_s: float = 15.0
    """Gauges older than this are not told any more."""

    settle_s: float = 2.0
    """How long after a start the first word to watchers waits for Postgres and for the first look at every backend, so that
    a restart of the registry does not make all of them unknown."""

    reload_s: float = 15.0
    """How often the wanted fleet is read again, for changes that another registry made."""

    telemetry_keep_s: float = 24 * 3600.0
    """How long the agents' samples are kept."""

    telemetry_flush_s: float = 2.0
    """How often samples are stored."""

    def __post_init__(self) -> None:
        problems: list[str] = []
        for index, table in enumerate(self.backends):
            try:
                read_backend(table)
            except BadInput as error:
                problems.append(f"[[registry.backends]] number {index + 1}: {error.message}")
        for name in ("probe_healthy_s", "probe_doubt_s", "probe_dead_s", "probe_https_s", "probe_timeout_s"):
            if getattr(self, name) <= 0:
                problems.append(f"[registry] {name} must be more than zero")
        for name in ("probe_failures", "probe_refusals", "probe_successes"):
            if getattr(self, name) < 1:
                problems.append(f"[registry] {name} must be at least one")
        if (self.snapshot_key_file is None) != (self.snapshot_dir is None):
            problems.append("[registry] snapshot_key_file and snapshot_dir are needed together, or neither")
        if problems:
            raise BadSettings(problems)

    @property
    def beat(self) -> Beat:
        return Beat(
            rhythm=Rhythm(self.probe_healthy_s, self.probe_doubt_s, self.probe_dead_s),
            rhythm_https=Rhythm(self.probe_https_s, max(2.0, self.probe_doubt_s), max(30.0, self.probe_dead_s)),
            thresholds=Thresholds(self.probe_failures, self.probe_refusals, self.probe_successes),
            load_stale_s=self.load_stale_s,
        )


def read_backend(table: Mapping[str, Any]) -> AddBackend:
    """One table of `[[registry.backends]]`. Raises BadInput."""
    unknown = sorted(set(table) - _FIELDS)
    if unknown:
        raise BadInput(f"there is no such setting: {', '.join(unknown)}.")
    missing = sorted({"name", "url"} - set(table))
    if missing:
        raise BadInput(f"{' and '.join(missing)} must be given.")
    kind, slots, models = table.get("kind"), table.get("slots", 0), table.get("models", {})
    if kind is not None and kind not in set(EngineKind):
        raise BadInput(f"{kind!r} is not a kind of engine; there are {', '.join(EngineKind)}.")
    if not isinstance(slots, int) or isinstance(slots, bool):
        raise BadInput(f"{slots!r} is not a number of slots.")
    if not isinstance(models, dict) or not all(isinstance(name, str) for name in models.values()):
        raise BadInput("models must be a table of names in the fleet and names at the engine.")
    return parse_add(
        actor=FILE_ACTOR,
        name=str(table["name"]),
        url=str(table["url"]),
        kind=EngineKind(kind) if kind is not None else None,
        pool=str(table.get("pool", "")),
        slots=slots,
        replace=True,
        model_names=models,
    )
