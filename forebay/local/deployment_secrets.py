"""What a deployment of several machines or containers has to keep secret, one folder for each part that reads it.

The originals lie in `kept`, made once; the other folders are written from them each time, so that a part is handed its own
folder and nothing else. How they get there (mounted, as a Kubernetes secret) is the deployment's part; certificates are
`forebay.pki`'s. `forebay up` makes its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlunsplit

from forebay.errors import BadInput, CannotStart
from forebay.local.nats import public_key
from forebay.local.postgres_roles import DATABASE, OWNERS, closing_statements
from forebay.local.secret_files import keep_secret, write_private
from forebay.local.service_secrets import ServiceSecrets
from forebay.nats_rights import render_accounts, rights
from forebay.rpc import render_tokens

KEPT = "kept"
CALLERS = ("gateway", "scheduler", "registry", "admin")
"""Who calls gRPC ports with a token of its own; all gateways share one."""
SERVICES = ("scheduler", "registry", "admin")
"""Besides gateways: folders, and users of NATS."""
BACKUP = "backup"
"""A user of NATS alone, who copies what lies there (`forebay backup`)."""
AGENTS_FILE = "agents.conf"
"""Where NATS finds the users of agents, beside its own file: admin writes it."""

Files = Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What the secrets are for."""

    gateways: Sequence[str] = ("gateway-1",)
    """Their names, which are their NATS users too."""
    nats_servers: Sequence[str] = ("nats-1", "nats-2", "nats-3")
    """Host names by which they reach each other; one alone is no cluster."""
    postgres: str = "postgres:5432"
    """HOST:PORT, as admin and the registry reach it."""
    postgres_options: str = ""
    """What their addresses end with, such as `sslmode=verify-full`."""
    nats_tls: str | None = None
    """The folder in which a NATS server finds tls.crt, tls.key and ca.crt; its clients must then show certificates too.
    None: no TLS."""

    def __post_init__(self) -> None:
        """Raises BadInput for names that cannot be."""
        for name in self.gateways:
            rights(name)
            if name in (*SERVICES, BACKUP, "nats", "postgres", KEPT):
                raise BadInput(f"A gateway cannot be called {name}: that is the name of another part.")
        if not self.gateways or len(set(self.gateways)) < len(self.gateways):
            raise BadInput("Each gateway needs a name of its own, and there must be one.")
        if not self.nats_servers or len(set(self.nats_servers)) < len(self.nats_servers):
            raise BadInput("Each NATS server needs a host name of its own, and there must be one.")


def make_secrets(folder: Path, deployment: Deployment) -> dict[str, list[str]]:
    """Folder → its files. What is in `kept` already stays; all else is written anew, so that it may be called again with
    more gateways. Raises CannotStart when the folder cannot be written."""
    try:
        for private in (folder, folder / KEPT):
            private.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = dict(_folders(folder / KEPT, deployment))
        for name, files in written.items():
            for file, content in files.items():
                write_private(folder / name / file, content)
    except OSError as error:
        raise CannotStart(f"{error.filename or folder} cannot be written: {error.strerror}.") from error
    return {name: sorted(files) for name, files in sorted(written.items())}


def give_to(folder: Path, owner: int, group: int) -> None:
    """Makes the folder and all in it belong to the user that containers run as. Raises CannotStart."""
    try:
        for path in (folder, *sorted(folder.rglob("*"))):
            os.chown(path, owner, group, follow_symlinks=False)
    except PermissionError as error:
        raise CannotStart("Only root can give files to another user: run this as root, or without --owner.") from error


def _folders(kept: Path, deployment: Deployment) -> Iterator[tuple[str, Files]]:
    held = ServiceSecrets(kept)
    tokens = {caller: keep_secret(held.token_file(caller)) for caller in CALLERS}
    callers = render_tokens(tokens).encode()
    pepper, seal = _line(keep_secret(held.pepper_file)), _line(keep_secret(held.seal_key_file))
    snapshot, command = _line(keep_secret(held.snapshot_key_file)), _line(keep_secret(held.command_key_file))
    passwords = {owner: keep_secret(kept / "postgres" / f"{owner}.password") for owner in (*OWNERS, "superuser")}
    users = {user: public_key(kept / "nats" / f"{user}.nk") for user in (*deployment.gateways, *SERVICES, BACKUP)}

    def seed(user: str) -> bytes:
        return (kept / "nats" / f"{user}.nk").read_bytes()

    def database(owner: str) -> bytes:
        who = f"forebay_{owner}:{passwords[owner]}@{deployment.postgres}"
        return _line(urlunsplit(("postgresql", who, f"/{DATABASE}", deployment.postgres_options, "")))

    for gateway in deployment.gateways:
        yield (
            gateway,
            {"token": _line(tokens["gateway"]), "pepper": pepper, "nats.seed": seed(gateway), "snapshot.key": snapshot},
        )
    for service in SERVICES:
        own = {"token": _line(tokens[service]), "callers": callers, "nats.seed": seed(service)}
        if service == "admin":
            own |= {"pepper": pepper, "seal.key": seal, "database_url": database("admin")}
        if service == "registry":
            own |= {"snapshot.key": snapshot, "command.key": command, "database_url": database("registry")}
        if service == "scheduler":
            own |= {"snapshot.key": snapshot}
        yield service, own
    yield BACKUP, {"nats.seed": seed(BACKUP)}
    route_password = keep_secret(kept / "nats" / "routes.password")
    yield (
        "nats",
        {
            "nats.conf": render_nats(deployment, route_password).encode(),
            "accounts.conf": render_accounts(list(users.items()), AGENTS_FILE).encode(),
        },
    )
    yield (
        "postgres",
        {"password": _line(passwords["superuser"]), "roles.sql": render_roles(passwords).encode()},
    )


def _line(text: str) -> bytes:
    return text.encode() + b"\n"


def render_nats(deployment: Deployment, route_password: str) -> str:
    """One file for all servers of the cluster; each finds its own name in the environment variable NATS_NAME."""
    return f"""# Written by `forebay secrets make`.
server_name: $NATS_NAME
port: 4222
http_port: 8222
{_tls(deployment.nats_tls)}max_payload: 1MB
ping_interval: "10s"
lame_duck_duration: "30s"
jetstream {{
  store_dir: "/data"
  max_file_store: 4GB
  max_memory_store: 32MB
  sync_interval: "2s"
}}
{_cluster(deployment, route_password)}include "accounts.conf"
"""


def _tls(folder: str | None) -> str:
    if folder is None:
        return ""
    cert, key, ca = (json.dumps(f"{folder.rstrip('/')}/{file}") for file in ("tls.crt", "tls.key", "ca.crt"))
    return f"tls {{ cert_file: {cert}, key_file: {key}, ca_file: {ca}, verify: true, timeout: 5 }}\n"


def _cluster(deployment: Deployment, password: str) -> str:
    if len(deployment.nats_servers) == 1:
        return ""
    routes = "\n".join(f'    "nats-route://routes:{password}@{host}:6222"' for host in deployment.nats_servers)
    encryption = _tls(deployment.nats_tls).replace("tls {", "  tls {")
    return f"""cluster {{
  name: forebay
  port: 6222
{encryption}  authorization {{ user: routes, password: "{password}", timeout: 5 }}
  no_advertise: true
  routes: [
{routes}
  ]
}}
"""


def render_roles(passwords: Mapping[str, str]) -> str:
    """For psql as a superuser; may be run again. What `forebay up` does by itself (`postgres_roles.ensure_roles`)."""
    roles = "\n".join(
        f"SELECT 'CREATE ROLE forebay_{owner}' WHERE NOT EXISTS "
        f"(SELECT FROM pg_roles WHERE rolname = 'forebay_{owner}') \\gexec\n"
        f"ALTER ROLE forebay_{owner} LOGIN PASSWORD '{passwords[owner]}';"
        for owner in OWNERS
    )
    closing = "\n".join(f"{statement};" for statement in closing_statements())
    return f"""-- Written by `forebay secrets make`. For psql as a superuser; it may be run again.
\\set ON_ERROR_STOP on
{roles}
SELECT 'CREATE DATABASE {DATABASE}' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{DATABASE}') \\gexec
\\connect {DATABASE}
BEGIN;
{closing}
COMMIT;
"""
