"""The scheduler's settings. What a field means stands under it; forebay.config reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from forebay.config import setting
from forebay.internal_tls import PeerTls, demand_bus_pair, peer_tls
from forebay_scheduler.request import Band
from forebay_scheduler.rules import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSettings:
    listen: str = "127.0.0.1:8093"
    """Where gateways hold their sessions (gRPC)."""
    advertise: str = ""
    """Where gateways reach this one, for those that ask another scheduler; empty: where it listens."""
    ops_listen: str = "127.0.0.1:8096"
    """/healthz, /readyz and /metrics."""

    registry_address: str = "127.0.0.1:8094"
    """The registry's gRPC port (HOST:PORT), or those of both registries, with a comma between them."""
    admin_address: str = "127.0.0.1:8092"
    token_file: Path
    """This service's own token for calling the others."""
    callers_file: Path
    """Who may call: a line `name sha256` for each service."""
    nats_url: str = setting("nats://127.0.0.1:4222", alias="NATS_URL")
    nats_user: str = "scheduler"
    nats_seed_file: Path | None = None
    nats_ca_file: Path | None = None
    nats_cert_file: Path | None = None
    """The certificate that the bus sees (PEM), where it asks for one; read again for each connection."""
    nats_key_file: Path | None = None
    """Its private key (PEM)."""
    internal_ca_file: Path | None = None
    """The authorities of the other parts (PEM). With the two below: mTLS on every gRPC port and to every peer; without
    all three gRPC is plain. Read again when they change."""
    internal_cert_file: Path | None = None
    """The certificate that the other parts see (PEM): its name is scheduler, or begins with scheduler-."""
    internal_key_file: Path | None = None
    """Its private key (PEM)."""
    nats_replicas: int = 1
    """On how many servers of a NATS cluster the lead and what a successor needs lie, one to five; three outlive any one of
    them."""

    snapshot_dir: Path
    """Where the last known fleet and policy are kept, sealed, to start from while their owners are away."""
    snapshot_key_file: Path
    """What seals them."""
    snapshot_max_age_s: float = 7 * 86400.0

    queue_per_user: int = 200
    """Requests that one user may have waiting, where policy says nothing else."""
    queue_per_pool: int = 10_000
    queue_timeout_interactive_s: float = 30.0
    """How long a request of this band waits for a slot when it names no deadline."""
    queue_timeout_standard_s: float = 120.0
    queue_timeout_batch_s: float = 3600.0
    attempts: int = 3
    """Backends that are tried for one request before its first byte."""
    fence_s: float = 90.0
    """How long a gateway may start work after the last leader renewal it heard of."""
    orphan_after_s: float = 60.0
    """How long a lost gateway has to return before its requests are written down as lost."""
    heartbeat_s: float = 1.0
    credits: bool = True
    """Lend slots ahead, so that gateways start a lone request without asking."""
    locality_window: int = 2000
    """Tokens of weight one by which a request whose prompt is cached may jump the queue, where its pool says nothing."""
    explained: int = 20_000
    """Requests of which it is remembered why they went where they went."""

    def __post_init__(self) -> None:
        demand_bus_pair(self.nats_ca_file, self.nats_cert_file, self.nats_key_file)
        _ = self.internal_tls
        if not 1 <= self.nats_replicas <= 5:
            raise ValueError("nats_replicas: it must be from 1 to 5")

    @property
    def internal_tls(self) -> PeerTls | None:
        """None: gRPC is plain. Raises ValueError for some of the three files without the others."""
        return peer_tls("internal", self.internal_ca_file, self.internal_cert_file, self.internal_key_file)

    def rules(self) -> Rules:
        return Rules(
            queue_per_user=self.queue_per_user,
            queue_per_pool=self.queue_per_pool,
            queue_timeout_s={
                Band.SYSTEM: self.queue_timeout_interactive_s,
                Band.INTERACTIVE: self.queue_timeout_interactive_s,
                Band.STANDARD: self.queue_timeout_standard_s,
                Band.BATCH: self.queue_timeout_batch_s,
            },
            attempts=self.attempts,
            heard_within_s=1.5 * max(self.heartbeat_s, 1.0),  # a pause of less is no sign of anything
            fence_s=self.fence_s,
            orphan_after_s=self.orphan_after_s,
            locality_window=self.locality_window,
            explained=self.explained,
            are_credits_lent=self.credits,
        )
