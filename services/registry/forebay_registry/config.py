"""What the registry can be told: addresses, files with its secrets, the fleet that a file names, and how to probe it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forebay.config import setting
from forebay.errors import BadInput, BadSettings
from forebay.internal_tls import PeerTls, demand_bus_pair, peer_tls
from forebay_registry.alerts.rules import AlertSettings, read_alerts
from forebay_registry.alerts.webhooks import Webhook, read_webhooks
from forebay_registry.discovery.kubernetes.settings import read_kubernetes
from forebay_registry.discovery.settings import FindingSettings
from forebay_registry.engines.telemetry import ScrapeRhythm
from forebay_registry.health.conditions import Rhythm, Thresholds
from forebay_registry.health.pace import Pace
from forebay_registry.health.patrol import Beat
from forebay_registry.health.states import Limits
from forebay_registry.wanted.specs import FleetOrder
from forebay_registry.wanted.state import Kind
from forebay_registry.wanted.wire import from_tables

FILE_ACTOR = "forebay.toml"
"""Who wants what the configuration names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    listen: str = "127.0.0.1:8094"
    """gRPC, for the other services."""

    advertise: str = ""
    """HOST:PORT under which others reach this registry; told to whoever asks one that stands by. Empty: `listen`."""

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

    nats_cert_file: Path | None = None
    """The certificate that the bus sees (PEM), where it asks for one; read again for each connection."""

    nats_key_file: Path | None = None
    """Its private key (PEM)."""

    internal_ca_file: Path | None = None
    """The authorities of the other parts (PEM). With the two below: mTLS on every gRPC port and to every peer; without
    all three gRPC is plain. Read again when they change."""

    internal_cert_file: Path | None = None
    """The certificate that the other parts see (PEM): its name is registry, or begins with registry-."""

    internal_key_file: Path | None = None
    """Its private key (PEM)."""

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
    """`[[registry.backends]]`, each with name and url, and if wanted kind, pool, slots, `models` (a table of what the engine
    calls models of the fleet) and whatever else an entry of a fleet file may say. They are added, or changed to what the
    file says, at every start; what operators added stays. An engine's own key is admin's to keep: give it with
    `forebay backend add --bearer-file`."""

    nodes: tuple[dict[str, Any], ...] = ()
    """`[[registry.nodes]]`, each with name, and if wanted labels and note; in the same way, like the next two."""

    pools: tuple[dict[str, Any], ...] = ()
    """`[[registry.pools]]`, each with name, and if wanted hosts, path_prefix, required_models and pull."""

    models: tuple[dict[str, Any], ...] = ()
    """`[[registry.models]]`, each with name, and what goes before what engines say of it: capabilities, context_length,
    quantization, size_bytes, description."""

    allow_link_local: bool = False
    """Whether engines may have link-local addresses, which are those of clouds' metadata services as well."""

    probe_healthy_s: float = 2.0
    """Seconds between two looks at a healthy backend."""

    probe_doubt_s: float = 1.0
    """The same while its last look failed, or it is not known yet."""

    probe_dead_s: float = 10.0
    """At most, when it has been away for long."""

    probe_https_s: float = 10.0
    """Seconds between two looks at a healthy backend behind https, which is usually somebody else's."""

    probe_looks_per_s: float = 75.0
    """Of all backends together, where nothing is in doubt: of more than 150 each is looked at less often than every two
    seconds, and of more than a thousand every 15 s. Gateways tell of failures in between."""

    probe_timeout_s: float = 3.0
    """An engine that does not give its list of models in this time failed."""

    metrics_s: float = 15.0
    """An engine's gauges are read this often, a tenth sooner or later."""

    metrics_per_s: float = 10.0
    """Of all engines together: as long as they are few enough for that, their gauges are read more often, at every look."""

    metrics_timeout_s: float = 1.0
    """How long an engine's gauges are waited for; without them it serves all the same."""

    probe_failures: int = 3
    """In a row, until a healthy backend is unhealthy."""

    probe_refusals: int = 2
    """The same for refused connections."""

    probe_successes: int = 2
    """In a row, until an unhealthy backend is healthy."""

    flap_falls: int = 3
    """Falls within `flap_window_s` from which on each return takes twice as many successes as the one before."""

    flap_window_s: float = 600.0
    """How long a fall is held against a backend."""

    offline_s: float = 300.0
    """A backend that has been unhealthy for so long is offline."""

    load_stale_s: float = 45.0
    """Gauges older than this are left out, and when they were read is told."""

    settle_s: float = 2.0
    """How long after a start the first word to watchers waits for Postgres and for the first look at every backend, so that
    a restart of the registry does not make all of them unknown."""

    reload_s: float = 15.0
    """How often the wanted fleet is read again, for changes that another registry made."""

    telemetry_flush_s: float = 15.0
    """How often the last sample of each node is stored, for the time after a restart."""

    history_minutes_s: float = 14 * 24 * 3600.0
    """How long minutes of the history are kept."""

    history_hours_s: float = 400 * 24 * 3600.0
    """How long hours are kept, which are made of them."""

    history_max_series: int = 20_000
    """Nodes, GPUs, backends and models of which minutes are made; what is beyond has no history."""

    pulls_per_node: int = 2
    """Models that are fetched to one node at once."""

    pull_reserve_bytes: int = 10_000_000_000
    """Of a node's disk, what pulls leave free."""

    upkeep_s: float = 5.0
    """How often models that pools require, and those that are pinned, are looked after."""

    discovery_auto: bool = False
    """Whether engines that agents find on their nodes become backends by themselves, where nothing else is said for the
    node; else they are suggested (`forebay backend found`)."""

    discovery_forget_s: float = 3600.0
    """How long a backend that was added by itself stays after its agent does not find it any more."""

    kubernetes: dict[str, Any] = field(default_factory=dict)
    """`[registry.kubernetes]`: Services that carry a label, and the endpoints behind them, become backends. In a pod,
    `enabled = true` is enough; else `api` (https://HOST:6443), `token_file` and `ca_file`. And if wanted `namespaces`
    (a list, or ['*']; usually our own), `selector` (forebay.io/backend=true) and `forget_s` (60)."""

    alerts: dict[str, Any] = field(default_factory=dict)
    """`[registry.alerts]`: `repeat_s` (4 h) and `keep_s` (90 days), and for each rule a table with `enabled`, `severity`,
    `for_s`, `clear_s` and `limit`, as far as they are to be other than usual."""

    alerts_every_s: float = 5.0
    """How often the rules are looked through."""

    webhooks: tuple[dict[str, Any], ...] = ()
    """`[[registry.webhooks]]`, each with name, url and secret_file, and if wanted `severities` (warning, critical) and
    `rules` (all): who is told of alerts."""

    command_key_file: Path | None = None
    """64 hexadecimal digits: the key that commands to agents are signed with. None: none are sent."""

    def __post_init__(self) -> None:
        problems: list[str] = []
        if not 3 * 3600 <= self.history_minutes_s <= self.history_hours_s or self.history_max_series < 1:
            problems.append(
                "[registry] history_minutes_s must be at least three hours and no more than history_hours_s, "
                "and history_max_series at least one"
            )
        if self.pulls_per_node < 1 or self.pull_reserve_bytes < 0 or self.upkeep_s <= 0:
            problems.append(
                "[registry] pulls_per_node and upkeep_s must be more than zero, pull_reserve_bytes not less"
            )
        for problem in from_tables(self._tables)[1]:
            section, _, rest = problem.path.partition(".")
            problems.append(f"[[registry.{section}]] {rest}: {problem.why}")
        above_zero = ("probe_healthy_s", "probe_doubt_s", "probe_dead_s", "probe_https_s", "probe_timeout_s")
        for name in (*above_zero, "probe_looks_per_s", "metrics_s", "metrics_per_s", "metrics_timeout_s"):
            if getattr(self, name) <= 0:
                problems.append(f"[registry] {name} must be more than zero")
        for name in ("probe_failures", "probe_refusals", "probe_successes", "flap_falls"):
            if getattr(self, name) < 1:
                problems.append(f"[registry] {name} must be at least one")
        if (self.snapshot_key_file is None) != (self.snapshot_dir is None):
            problems.append("[registry] snapshot_key_file and snapshot_dir are needed together, or neither")
        try:
            demand_bus_pair(self.nats_ca_file, self.nats_cert_file, self.nats_key_file)
            _ = self.internal_tls
        except ValueError as error:
            problems.append(f"[registry] {error}")
        if self.alerts_every_s <= 0:
            problems.append("[registry] alerts_every_s must be more than zero")
        problems += [f"[registry.alerts] {why}" for why in read_alerts(self.alerts)[1]]
        _, wrong = read_webhooks(self.webhooks, allow_link_local=self.allow_link_local)
        problems += [f"[[registry.webhooks]] {why}" for why in wrong]
        try:
            read_kubernetes(self.kubernetes, os.environ)
        except BadInput as error:
            problems.append(f"[registry.kubernetes] {error.message}")
        if problems:
            raise BadSettings(problems)

    @property
    def internal_tls(self) -> PeerTls | None:
        """None: gRPC is plain. Raises ValueError for some of the three files without the others."""
        return peer_tls("internal", self.internal_ca_file, self.internal_cert_file, self.internal_key_file)

    @property
    def fleet(self) -> FleetOrder:
        """What the file wants there to be."""
        return from_tables(self._tables)[0]

    @property
    def _tables(self) -> dict[Kind, tuple[dict[str, Any], ...]]:
        return {Kind.NODE: self.nodes, Kind.BACKEND: self.backends, Kind.POOL: self.pools, Kind.MODEL: self.models}

    @property
    def finding(self) -> FindingSettings:
        return FindingSettings(
            self.discovery_auto, self.discovery_forget_s, read_kubernetes(self.kubernetes, os.environ)
        )

    @property
    def alerting(self) -> AlertSettings:
        return read_alerts(self.alerts)[0]

    @property
    def told(self) -> list[Webhook]:
        """Webhooks that hear of alerts."""
        return read_webhooks(self.webhooks, allow_link_local=self.allow_link_local)[0]

    @property
    def beat(self) -> Beat:
        return Beat(
            rhythm=Rhythm(self.probe_healthy_s, self.probe_doubt_s, self.probe_dead_s),
            rhythm_https=Rhythm(self.probe_https_s, max(2.0, self.probe_doubt_s), max(30.0, self.probe_dead_s)),
            thresholds=Thresholds(
                self.probe_failures,
                self.probe_refusals,
                self.probe_successes,
                flap_falls=self.flap_falls,
                flap_window_s=self.flap_window_s,
            ),
            load_stale_s=self.load_stale_s,
            pace=Pace(self.probe_looks_per_s),
        )

    @property
    def limits(self) -> Limits:
        return Limits(offline_s=self.offline_s)

    @property
    def scrape_rhythm(self) -> ScrapeRhythm:
        return ScrapeRhythm(self.metrics_s, self.metrics_per_s, self.metrics_timeout_s)
