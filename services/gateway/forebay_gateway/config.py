"""The gateway's settings. What a field means stands under it; forebay.config reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from forebay.client_addresses import TrustedProxies, read_proxies
from forebay.config import setting
from forebay.internal_tls import PeerTls, demand_bus_pair, peer_tls

_THIS_MACHINE = ("localhost", "127.0.0.1", "0.0.0.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    name: str = "gateway-1"
    """This gateway's name, stable over restarts and unlike every other's. Also its NATS user."""
    listen: str = "127.0.0.1:8090"
    """Where clients connect. Of a name that has several addresses: the first of IPv4, or else of IPv6."""
    listen_descriptor: int = 0
    """The descriptor of a socket that listens there already and that this process has inherited: from `forebay up`, or from
    systemd, whose first one is 3. Others may take from it too, before and after: it is taken from only when this gateway is
    ready, and left a second before it drains. 0: the gateway opens `listen` itself."""
    listen_wait_s: float = 10.0
    """How long a gateway that shares its address with others waits to be ready before it takes connections all the same, and
    says why it cannot serve them."""
    workers: int = 1
    """How many processes of this gateway share that address, each a gateway of its own to the scheduler, `<name>.<number>`,
    with its own journal below `journal_dir`. What may be held in memory and on the disk is divided among them; what is
    counted (`most_background` …) each counts for itself."""
    tls_cert: Path | None = None
    """Certificate chain (PEM) for clients; without one the port speaks plain HTTP. Read again when it changes."""
    tls_key: Path | None = None
    """Its private key (PEM)."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of the proxies in front, such as `10.0.0.7` or `10.1.0.0/24`: what they say in
    `forwarded_header` of where a request came from counts, and nobody else's word does. Name the proxies alone."""
    forwarded_header: str = "x-forwarded-for"
    """`x-forwarded-for` or `forwarded`: the one that they write. The other counts for nothing."""
    hot_path: bool = True
    """Whether the addresses at which nearly all requests come are served without aiohttp, which takes half the work."""
    ops_listen: str = "127.0.0.1:8095"
    """/healthz, /readyz and /metrics."""
    cors_origins: tuple[str, ...] = (
        *(f"{scheme}://{host}{port}" for host in _THIS_MACHINE for scheme in ("http", "https") for port in ("", ":*")),
        *(f"{scheme}://*" for scheme in ("app", "file", "tauri", "vscode-webview", "vscode-file")),
    )
    """Origins of the pages that may call this gateway from a browser, such as `https://chat.example.org` or
    `https://*.example.org`; `*` is all, nothing is none. Those of this machine and of desktop applications unless given."""
    pages_url: str | None = None
    """Where browsers find Forebay's own pages (admin's `public_url`): its chat may call, whatever `cors_origins` has. None:
    as `cors_origins` says."""

    scheduler_address: str = "127.0.0.1:8093"
    """Where the schedulers listen, the leader and its standbys in any order, with commas between them."""
    registry_address: str = "127.0.0.1:8094"
    """The registry's gRPC port (HOST:PORT), or those of both registries, with a comma between them."""
    admin_address: str = "127.0.0.1:8092"
    admin_http_url: str = "http://127.0.0.1:8091"
    """Admin's HTTP port, to which the administration routes of other gateways (/api/admin, /v1.0, /status …) are passed on.
    Empty: they are refused here."""
    admin_http_ca_file: Path | None = None
    """The CA of its certificate (PEM). None: those that the system knows."""
    admin_http_cert_file: Path | None = None
    """Its own certificate (PEM), where it and no other is to be accepted, whatever its name."""
    token_file: Path
    """This service's own token for calling the others."""
    pepper_file: Path
    """The pepper under which keys' secrets are kept; the same file as admin's."""
    nats_url: str = setting("nats://127.0.0.1:4222", alias="NATS_URL")
    nats_user: str | None = None
    """NATS user; the gateway's name unless given."""
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
    """The certificate that the other parts see (PEM): its name is gateway, or begins with gateway-."""
    internal_key_file: Path | None = None
    """Its private key (PEM)."""

    snapshot_dir: Path
    """Where the last known keys, credentials and fleet are kept, sealed, to start from while their owners are away."""
    snapshot_key_file: Path
    """What seals them."""
    snapshot_max_age_s: float = 7 * 86400.0

    journal_dir: Path
    """Where the record of each request lies until it is published. One process at a time; keep it over restarts."""
    journal_segment_bytes: int = 8 << 20
    journal_segments: int = 16
    """At most so many segment files. New requests are refused (`journal_full`) when all are in use."""

    isolation: str = "serve"
    """What happens to work that would start past the scheduler's fence: `serve` counts it, `refuse` answers 503."""
    local_after_s: float = 2.0
    """Without a scheduler for so long, requests begin within the ceilings last told."""
    credits: bool = True
    """Whether requests begin on slots that the scheduler lent ahead, without asking."""
    fence_s: float = 90.0
    """How long new work may start after the last leader renewal heard of; the scheduler may say less."""

    max_body_bytes: int = 32 << 20
    """Of one request, with what it names or goes on from that is kept."""
    max_upload_bytes: int = 512 << 20
    """Of one request that is a form with files. They lie in `spool_dir` meanwhile."""
    max_picture_bytes: int = 20 << 20
    """Of one picture that a request names by its address and that is fetched for it."""
    trusted_picture_hosts: str = ""
    """Host names, with commas between them, from which pictures and files are fetched though their addresses are not
    public."""
    held_bodies_bytes: int = 512 << 20
    """Of all requests that have not begun to be answered, in this process's memory; others' bodies lie on the disk."""
    spooled_bodies_bytes: int = 8 << 30
    """Of those on the disk. Beyond it requests are refused (`queue_full`)."""
    spool_dir: Path | None = None
    """Where they lie, and files of forms; the system's directory for temporary files unless given. On a disk: many systems
    keep /tmp in memory."""
    max_answer_bytes: int = 64 << 20
    """Of one answer that is not streamed. What an engine streams and is gathered here may be eight times as long."""
    body_idle_s: float = 30.0
    """How long a client may pause while it sends its request."""
    waiting_s: float = 15.0
    """How often a client that waits for its stream to begin gets a comment line."""
    max_queue_s: float = 600.0
    """How long a request waits for a slot when it names no deadline itself."""
    max_duration_s: float = 3600.0
    """The longest a request may take, from its arrival."""
    lost_idle_s: float = 5.0
    """How long an engine that the registry calls unhealthy may be silent before its requests are ended."""
    silent_look_s: float = 20.0
    """After so long without a first word from an engine it is looked at whether it works or loads, and every half of that
    again. Two looks in a row that show neither: the request goes elsewhere."""
    stream_gap_s: float = 300.0
    """How long an engine may be silent in the middle of an answer, healthy or not."""
    connect_s: float = 5.0
    """How long connecting to an engine may take, with the looking up of its name and TLS."""
    allow_link_local: bool = False
    """Whether engines may be at link-local addresses and others at which clouds tell a machine its own secrets; as the
    registry's setting of this name."""
    most_background: int = 64
    """How many responses may be answered in the background at once, here."""
    most_background_per_user: int = 8
    """The same of one user."""
    background_silent_s: float = 20.0
    """A response in the background whose gateway shows no sign of life for so long is told as failed by the others."""
    drain_s: float = 600.0
    """How long running requests may go on after the gateway was told to stop."""
    recorded_body_bytes: int = 128 << 10
    """The most that is kept of a request, and of an answer, where policy says that they are kept; at most 224 KiB."""
    recordings_held_bytes: int = 64 << 20
    """Of all requests and answers that are taken down and not sent to admin yet. Beyond it they are kept cut, or not."""
    publish_s: float = 5.0
    """How long stopping waits for the last usage records to be published; the journal keeps what is left."""

    def __post_init__(self) -> None:
        read_proxies(self.trusted_proxies, self.forwarded_header)
        demand_bus_pair(self.nats_ca_file, self.nats_cert_file, self.nats_key_file)
        _ = self.internal_tls
        if not 1 <= self.workers <= 64:
            raise ValueError(f"workers: {self.workers} is not between 1 and 64")
        url = self.admin_http_url
        if url and (not url.startswith(("http://", "https://")) or not set("?#@ ").isdisjoint(url)):
            raise ValueError(
                "admin_http_url: it is an address such as http://127.0.0.1:8091, without a credential, ? and #"
            )
        pages = self.pages_url
        if pages is not None and (not pages.startswith(("http://", "https://")) or not set("?#@* ").isdisjoint(pages)):
            raise ValueError("pages_url: it is an address such as https://forebay.example.org, without *, ? and #")

    @property
    def internal_tls(self) -> PeerTls | None:
        """None: gRPC is plain. Raises ValueError for some of the three files without the others."""
        return peer_tls("internal", self.internal_ca_file, self.internal_cert_file, self.internal_key_file)

    @property
    def origins(self) -> tuple[str, ...]:
        """Of the pages that may call, as patterns."""
        if self.pages_url is None:
            return self.cors_origins
        pages = urlsplit(self.pages_url)
        return (*self.cors_origins, f"{pages.scheme}://{pages.netloc}")

    @property
    def proxies(self) -> TrustedProxies:
        return read_proxies(self.trusted_proxies, self.forwarded_header)
