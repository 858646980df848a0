"""What `forebay up` needs of this machine, or runs on it already: read from the data directory that it left, as far as there
is one. What the settings of single services name is `examining`'s part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from forebay.doctor import looking, network
from forebay.doctor.certificates import judge_certificate
from forebay.doctor.finding import Finding, Grade
from forebay.local.data_directory import DataDirectory
from forebay.local.layout import LOOPBACK, Layout

_PARTS = ("gateway-1", "scheduler", "registry", "admin", "gpu-agent")
"""Those that there are however many of some there are."""


def examine_up(root: Path, now: datetime) -> Iterator[Finding]:
    """`root`: its data directory, which need not be there yet."""
    data, layout = DataDirectory(root), Layout()
    try:
        layout = Layout(base=_base_port(data.connection_file))
    except FileNotFoundError:  # never started: it is to have its default
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not what forebay up writes"
        yield Finding(
            "files",
            "connection.json",
            Grade.UNKNOWN,
            f"{data.connection_file} cannot be read: {why}",
            "Ask as the user who runs `forebay up`, or name another directory in FOREBAY_DATA_DIR.",
        )
    running = {part: told for part in _PARTS if (told := looking.ask_ops(LOOPBACK, layout.ops(part))) is not None}
    ports = [*layout.open_ports(), *layout.inner_ports(), ("NATS", layout.nats), ("PostgreSQL", layout.postgres)]
    for name, port in ports:
        yield _judge_port(name, f"{LOOPBACK}:{port}", looking.try_port(LOOPBACK, port), is_up="admin" in running)
    yield from network.judge_versions(
        version("forebay"), {part: told.version for part, told in running.items() if told.version is not None}
    )
    pki = data.secrets / "pki"
    if (pki / "ca" / "ca.crt").exists():
        facts = looking.certificate_facts(pki / "ca" / "ca.crt", None, None)
        yield judge_certificate("the authority", str(pki / "ca" / "ca.crt"), facts, now)
    for certificate in sorted(pki.glob("*/tls.crt")):
        facts = looking.certificate_facts(
            certificate, certificate.with_name("tls.key"), certificate.with_name("ca.crt")
        )
        yield judge_certificate(f"of {certificate.parent.name}", str(certificate), facts, now)


def _base_port(connection_file: Path) -> int:
    """That of the last start. Raises OSError, ValueError, KeyError or TypeError."""
    gateway: str = json.loads(connection_file.read_text())["gateway"]
    port = urlsplit(gateway).port
    if port is None:
        raise ValueError("no port")
    return port


def _judge_port(name: str, address: str, facts: network.PortFacts, *, is_up: bool) -> Finding:
    if facts.is_free:
        return Finding("ports", name, Grade.OK, f"{address} is free")
    if is_up:
        return Finding("ports", name, Grade.OK, f"{address}: `forebay up` runs there")
    return Finding(
        "ports",
        name,
        Grade.FAIL,
        f"{address} cannot be opened: {facts.why_not}",
        "`ss -ltnp` says who has it. `forebay up --base-port PORT` takes others.",
    )
