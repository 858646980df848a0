"""What each service is told: its ports, its peers, its secrets. As environment variables, which win over a settings file;
so `forebay.toml` may say everything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from forebay.local.data_directory import DataDirectory
from forebay.local.front import Front, bracketed
from forebay.local.layout import LOOPBACK, Layout
from forebay.local.mtls import AGENT, Mtls
from forebay.local.nats import Nats
from forebay.local.service_secrets import ServiceSecrets
from forebay.signed_commands import CommandKey

Environ = dict[str, str]


@dataclass(frozen=True, slots=True)
class Wiring:
    layout: Layout
    data: DataDirectory
    secrets: ServiceSecrets
    front: Front
    nats: Nats | None
    """None: NATS_URL names one that is not ours."""
    has_own_database: bool
    """False: DATABASE_URL names one that is not ours."""
    node: str
    """Under which this machine's own agent reports."""
    gateway_workers: int | None = None
    """How many processes each gateway has. None: as its settings say."""
    mtls: Mtls | None = None
    """None: gRPC on loopback is plain."""

    def admin(self) -> Environ:
        front, certificate = self.front, self.front.certificate
        open_nats = f"tls://{bracketed(front.shown_host)}:{self.layout.nats}" if self.nats and front.is_open else None
        return _variables(
            "admin",
            listen=self._inner(self.layout.admin),
            http_listen=self._outer(self.layout.admin_http),
            **self._certificate(),
            ops_listen=self._inner(self.layout.ops("admin")),
            registry_address=self._registries(),
            scheduler_address=self._schedulers(),
            token_file=self.secrets.token_file("admin"),
            callers_file=self.secrets.callers_file,
            **self._bus("admin"),
            **self._internal("admin"),
            operators_listen=self._inner(self.layout.operators) if self.mtls else None,
            **self._database("admin"),
            pepper_file=self.secrets.pepper_file,
            seal_key_file=self.secrets.seal_key_file,
            bootstrap_key_file=self.data.admin_key_file,
            agents_file=self.nats.agents_file if self.nats else None,
            content_dir=self.data.content,
            gateway_urls=",".join(front.near_url(self.layout.gateway(name)) for name in self.layout.gateways),
            gateway_cert_file=certificate.file if certificate else None,
            public_gateway_url=front.url(self.layout.base),
            public_url=front.url(self.layout.admin_http),
            public_nats_url=open_nats,
            ca_file=self.nats.ca_file if self.nats else None,
            http_pin=certificate.pin if certificate else None,
        )

    def registry(self, name: str = "registry") -> Environ:
        return _variables(
            "registry",
            listen=self._inner(self.layout.registry(name)),
            ops_listen=self._inner(self.layout.ops(name)),
            admin_address=self._inner(self.layout.admin),
            token_file=self.secrets.token_file("registry"),
            callers_file=self.secrets.callers_file,
            **self._bus("registry"),
            **self._internal(name),
            **self._database("registry"),
            **self._snapshots(name),
            command_key_file=self.secrets.command_key_file,
        )

    def scheduler(self, name: str = "scheduler") -> Environ:
        return _variables(
            "scheduler",
            listen=self._inner(self.layout.scheduler(name)),
            ops_listen=self._inner(self.layout.ops(name)),
            registry_address=self._registries(),
            admin_address=self._inner(self.layout.admin),
            token_file=self.secrets.token_file("scheduler"),
            callers_file=self.secrets.callers_file,
            **self._bus("scheduler"),
            **self._internal(name),
            **self._snapshots(name),
        )

    def gateway(self, name: str) -> Environ:
        return _variables(
            "gateway",
            name=name,
            listen=self._outer(self.layout.gateway(name)),
            **self._certificate(),
            ops_listen=self._inner(self.layout.ops(name)),
            scheduler_address=f"{self._schedulers()},{self._inner(self.layout.scheduler_beside)}",
            registry_address=self._registries(),
            admin_address=self._inner(self.layout.admin),
            admin_http_url=self.front.near_url(self.layout.admin_http),
            admin_http_cert_file=self.front.certificate.file if self.front.certificate else None,
            pages_url=self.front.url(self.layout.admin_http),
            token_file=self.secrets.token_file("gateway"),
            pepper_file=self.secrets.pepper_file,
            **self._bus(name),
            **self._internal(name),
            **self._snapshots(name),
            journal_dir=self.data.journal / name,
            workers=None if self.gateway_workers is None else str(self.gateway_workers),
        )

    def gpu_agent(self) -> Environ:
        return _variables(
            "gpu-agent",
            node=self.node,
            ops_listen=self._inner(self.layout.ops("gpu-agent")),
            disk_path=self.data.root,
            command_key=self._command_key(),
            **{
                **self._bus(self.node, AGENT),
                **({"nats_seed_file": self.secrets.agent_seed_file} if self.nats else {}),
            },
        )

    def _schedulers(self) -> str:
        """Whoever calls finds the one that leads."""
        return ",".join(self._inner(self.layout.scheduler(name)) for name in self.layout.schedulers)

    def _registries(self) -> str:
        return ",".join(self._inner(self.layout.registry(name)) for name in self.layout.registries)

    def _command_key(self) -> str | None:
        """What the registry signs commands with. None while settings are checked only: no secret is made for that."""
        file = self.secrets.command_key_file
        return CommandKey.from_file(file).public_line if file.exists() else None

    def _inner(self, port: int) -> str:
        return f"{LOOPBACK}:{port}"

    def _outer(self, port: int) -> str:
        return f"{bracketed(self.front.host)}:{port}"

    def _certificate(self) -> Mapping[str, Path | None]:
        shown = self.front.certificate
        return {"tls_cert": shown.file if shown else None, "tls_key": shown.key_file if shown else None}

    def _internal(self, part: str) -> Mapping[str, Path | None]:
        if self.mtls is None:
            return {}
        tls = self.mtls.tls(part)
        return {"internal_ca_file": tls.ca, "internal_cert_file": tls.cert, "internal_key_file": tls.key}

    def _bus(self, user: str, part: str = "") -> Mapping[str, str | Path | None]:
        """`part`: whose certificate it is, when not of the same name."""
        if self.nats is None:
            return {}  # services read NATS_URL themselves
        tls = self.mtls.tls(part or user) if self.mtls else None
        return {
            "nats_cert_file": tls.cert if tls else None,
            "nats_key_file": tls.key if tls else None,
            "nats_url": self.nats.url,
            "nats_user": user,
            "nats_seed_file": self.nats.seed_file(user),
            "nats_ca_file": self.nats.ca_file,
        }

    def _database(self, owner: str) -> Mapping[str, Path]:
        return {"database_url_file": self.secrets.database_url_file(owner)} if self.has_own_database else {}

    def _snapshots(self, part: str) -> Mapping[str, Path]:
        return {
            "snapshot_dir": self.data.snapshots / part,
            "snapshot_key_file": self.secrets.snapshot_key_file,
        }


def _variables(service: str, **values: str | Path | None) -> Environ:
    prefix = f"FOREBAY_{service.replace('-', '_').upper()}_"
    return {prefix + field.upper(): str(value) for field, value in values.items() if value is not None}
