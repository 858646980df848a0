"""What admin can be told: addresses, files with its secrets, and what invited nodes are told about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from forebay.client_addresses import TrustedProxies, read_proxies
from forebay.config import parse_address, setting
from forebay.internal_tls import PeerTls, demand_bus_pair, peer_tls
from forebay_admin.ledger.retention import Keeping


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSettings:
    listen: str = "127.0.0.1:8092"
    """gRPC, for the other services and for operators."""

    http_listen: str = "127.0.0.1:8091"
    """HTTP: the REST API and its page /docs, and where invited nodes fetch their agent and enrol."""

    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of the proxies in front of the HTTP port, such as `10.0.0.7` or `10.1.0.0/24`: what they say in
    `forwarded_header` of where a request came from counts, and nobody else's word does. Name the proxies alone."""

    forwarded_header: str = "x-forwarded-for"
    """`x-forwarded-for` or `forwarded`: the one that they write. The other counts for nothing."""

    tls_cert: Path | None = None
    """Certificate chain of the HTTP port (PEM), read again when it changes. None: plain HTTP."""

    tls_key: Path | None = None
    """Its private key (PEM)."""

    ops_listen: str = "127.0.0.1:8098"
    """/healthz, /readyz, /metrics."""

    registry_address: str = "127.0.0.1:8094"
    """The registry's gRPC port (HOST:PORT), or those of both registries, with a comma between them: one of them leads."""

    scheduler_address: str = "127.0.0.1:8093"
    """The scheduler's gRPC port (HOST:PORT), or those of all schedulers, with commas between them: one of them leads."""

    token_file: Path
    """Admin's own token for calling the registry and the scheduler."""

    callers_file: Path
    """Who may call admin's gRPC port: a line `name sha256-of-token` for each service."""

    nats_url: str = setting("nats://127.0.0.1:4222", alias="NATS_URL")
    """The bus that usage records come by."""

    nats_user: str = "admin"
    """Admin's name on the bus."""

    nats_seed_file: Path | None = None
    """The seed of admin's nkey. None: a bus that asks for none."""

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
    """The certificate that the other parts see (PEM): its name is admin, or begins with admin-."""

    internal_key_file: Path | None = None
    """Its private key (PEM)."""

    operators_listen: str | None = None
    """With `internal_cert_file`: a second gRPC port (HOST:PORT) for operators' commands, which have a key and no
    certificate. It speaks TLS with our certificate and takes no service's token. None: operators need a certificate too."""

    nats_replicas: int = 1
    """On how many servers of a NATS cluster usage and recordings lie, one to five; three outlive any one of them."""

    database_url_file: Path | None = None
    """A file with the database's address; it wins over database_url."""

    database_url: str | None = setting(None, alias="DATABASE_URL")
    """postgresql://user:password@host:port/name"""

    pepper_file: Path
    """The pepper of API keys. Kept outside the database, so that a copy of that alone opens nothing."""

    seal_key_file: Path
    """The secret under which the engines' own keys are sealed in the database."""

    bootstrap_key_file: Path | None = None
    """Where the first admin's key is written (mode 600) when there are no users yet. None: none is made."""

    agents_file: Path | None = None
    """The NATS users of all enrolled agents, rewritten at each enrolment; nats.conf includes it."""

    public_url: str | None = None
    """How invited nodes reach the HTTP port. None: http://<http_listen>, which is enough on this machine only."""

    public_nats_url: str | None = None
    """How the agents of invited nodes reach the bus. None: nats_url."""

    ca_file: Path | None = None
    """The CA of the bus's certificate (PEM), handed to agents when they enrol."""

    http_pin: str | None = None
    """The HTTP certificate's public key as `sha256//<base64>`, for invited nodes where no public CA signed it."""

    content_dir: Path | None = None
    """Where the bytes of clients' files lie; all replicas need the same, and no other Forebay may have it. None: files are
    not kept."""

    content_max_blob_bytes: int = 512 * 1024**2
    """The largest file."""

    content_per_user: int = 10_000
    """How many things (responses, conversations, their items, files) are kept for one user."""

    content_bytes_per_user: int = 10 * 1024**3
    """How many bytes all of that may have."""

    chat_per_user: int = 1000
    """How many conversations of the chat are kept for one user."""

    chat_bytes_per_user: int = 2 * 1024**3
    """How many bytes all of them may have, with their files."""

    chat_days: int = 0
    """After how many days without a new message a conversation is removed. 0: never."""

    chat_binds_address: bool = True
    """Whether what the chat sends works from its user's address only. False: where gateways see browsers at other addresses
    than admin does."""

    web_search_url: str | None = None
    """Where the chat looks things up in the web: the JSON API of SearXNG, or one that answers as it does, such as
    https://search.example.org/search. None: the chat has no web search."""

    web_search_key_file: Path | None = None
    """What it asks for, if it asks for anything: sent as `Authorization: Bearer …`."""

    gateway_urls: str = "http://127.0.0.1:8090"
    """Where the gateways are to which batches are sent, with commas between them."""

    public_gateway_url: str | None = None
    """Where people and their programs reach the gateways, as pages show it and chat calls it. None: the first of
    gateway_urls."""

    gateway_ca_file: Path | None = None
    """The CA of the gateways' certificates (PEM). None: those that the system knows."""

    gateway_cert_file: Path | None = None
    """The gateways' own certificate (PEM), where it and no other is to be accepted, whatever its name."""

    batch_lines_at_once: int = 16
    """How many requests of all batches together are under way at once."""

    batches_per_user: int = 100
    """How many batches of one user may not have ended."""

    session_idle_s: float = 8 * 3600.0
    """How long somebody stays signed in at the web pages without using them."""

    session_longest_s: float = 7 * 86_400.0
    """How long at most."""

    program_session_idle_s: float = 30 * 86_400.0
    """How long `forebay login` lasts without being used."""

    program_session_longest_s: float = 90 * 86_400.0
    """How long at most."""

    password_hash_mib: int = 64
    """The memory that checking one password takes: what makes guessing from a stolen database dear."""

    public_status: bool = True
    """Whether everybody is told how many backends are well, which models there are and how much was served (/status and
    /api/cluster), as MindRouter does. False: whoever may see the status."""

    providers_file: Path | None = None
    """The providers that people may sign in with (OpenID Connect), as a TOML file. None: passwords only."""

    public_grpc: str | None = None
    """Where `forebay login` is told that the gRPC port is (HOST:PORT). None: the host that it signed in at, with the port of
    `operators_listen`, or else of `listen`."""

    ledger_days: int = 400
    """How long rows of the ledger are kept, in days: until then, and as long as an open budget counts them. 0: for ever."""

    usage_minute_days: int = 32
    """How long sums of minutes are kept. 0: for ever."""

    usage_hour_days: int = 400
    """How long sums of hours are kept. 0: for ever."""

    usage_day_days: int = 0
    """How long sums of days (UTC) are kept. 0: for ever."""

    recording_days: int = 30
    """How long recordings of requests and answers are kept, in days, where policy says that they are made. 0: for ever."""

    event_days: int = 30
    """How long events and how they were told are kept. 0: for ever."""

    smtp_host: str | None = None
    """The server that sends mail. None: no mail is sent."""

    smtp_port: int = 587
    """Its port."""

    smtp_tls: str = "starttls"
    """`starttls`, `tls` (from the first byte, usually port 465), or `none`."""

    smtp_user: str = ""
    """Whom it lets in. Empty: it asks for nobody."""

    smtp_password_file: Path | None = None
    """The password."""

    smtp_ca_file: Path | None = None
    """The CA of its certificate (PEM). None: those that the system knows."""

    smtp_from: str = "forebay@localhost"
    """The sender of mails."""

    security_event_days: int = 90
    """How long security events are kept, in days. 0: for ever."""

    batch_settle_s: float = 300.0
    """How long the ledger is waited for to tell what became of a request whose answer was lost, before it is made again."""

    def __post_init__(self) -> None:
        for url in self.gateway_addresses or ("",):
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
                raise ValueError(
                    f"gateway_urls: {url!r} is not the address of a gateway, such as http://127.0.0.1:8090"
                )
        if self.public_gateway_url is not None:
            parts = urlsplit(self.public_gateway_url)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
                raise ValueError(
                    f"public_gateway_url: {self.public_gateway_url!r} is not the address of a gateway, such as "
                    "https://llm.example.org"
                )
        if self.web_search_url is not None:
            parts = urlsplit(self.web_search_url)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.fragment:
                raise ValueError(
                    f"web_search_url: {self.web_search_url!r} is not the address of a search server, such as "
                    "https://search.example.org/search"
                )
        elif self.web_search_key_file is not None:
            raise ValueError("web_search_key_file: without web_search_url nobody is shown it")
        if problem := self.keeping.problem():
            raise ValueError(problem)
        read_proxies(self.trusted_proxies, self.forwarded_header)
        demand_bus_pair(self.nats_ca_file, self.nats_cert_file, self.nats_key_file)
        _ = self.internal_tls
        if self.operators_listen is not None and self.internal_tls is None:
            raise ValueError("operators_listen: without internal_cert_file `listen` serves operators too")
        if not 1 <= self.nats_replicas <= 5:
            raise ValueError("nats_replicas: it must be from 1 to 5")
        if self.security_event_days < 0 or self.security_event_days == 1:
            raise ValueError("security_event_days: it must be 2 at least, or 0 for ever")
        if self.chat_days < 0:
            raise ValueError("chat_days: it must be 1 at least, or 0 for never")
        if self.chat_per_user < 1:
            raise ValueError("chat_per_user: it must be 1 at least")
        if self.recording_days < 0:
            raise ValueError("recording_days: it must be 1 at least, or 0 for ever")
        if self.event_days < 0:
            raise ValueError("event_days: it must be 1 at least, or 0 for ever")
        if self.smtp_tls not in ("starttls", "tls", "none"):
            raise ValueError("smtp_tls: it is starttls, tls or none")
        if self.smtp_user and self.smtp_tls == "none":
            raise ValueError("smtp_user: without TLS its password could be read on the way: set smtp_tls")
        if self.batch_lines_at_once < 1:
            raise ValueError("batch_lines_at_once: it must be 1 at least")
        for address in self.scheduler_addresses or ("",):
            try:
                parse_address(address)
            except ValueError as error:
                raise ValueError(f"scheduler_address: {error}") from error

    @property
    def internal_tls(self) -> PeerTls | None:
        """None: gRPC is plain. Raises ValueError for some of the three files without the others."""
        return peer_tls("internal", self.internal_ca_file, self.internal_cert_file, self.internal_key_file)

    @property
    def proxies(self) -> TrustedProxies:
        return read_proxies(self.trusted_proxies, self.forwarded_header)

    @property
    def keeping(self) -> Keeping:
        return Keeping(self.ledger_days, self.usage_minute_days, self.usage_hour_days, self.usage_day_days)

    @property
    def gateway_addresses(self) -> tuple[str, ...]:
        return tuple(url.strip().rstrip("/") for url in self.gateway_urls.split(",") if url.strip())

    @property
    def shown_gateway_url(self) -> str:
        """Without a slash at its end."""
        return (self.public_gateway_url or self.gateway_addresses[0]).rstrip("/")

    @property
    def scheduler_addresses(self) -> tuple[str, ...]:
        return tuple(address.strip() for address in self.scheduler_address.split(",") if address.strip())
