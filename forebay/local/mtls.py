"""Certificates of the parts of one `forebay up --mtls`: a folder of `forebay.pki` among the secrets, kept good as it runs.

The embedded PostgreSQL speaks no TLS; it listens on loopback alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from forebay.errors import CannotStart, NotPossible
from forebay.internal_tls import PeerTls
from forebay.local.data_directory import DataDirectory
from forebay.local.front import Front
from forebay.local.layout import Layout
from forebay.local.nats import Tls
from forebay.pki.certificates import names, read_certificate
from forebay.pki.folder import PART_DAYS, Folder, make_folder

AGENT, UP = "gpu-agent", "up"


@dataclass(frozen=True, slots=True)
class Mtls:
    root: Path

    def tls(self, part: str) -> PeerTls:
        place = self.root / part
        return PeerTls(place / "ca.crt", place / "tls.crt", place / "tls.key")

    @property
    def ca(self) -> Path:
        """For operators' commands, which know admin by it."""
        return self.root / UP / "ca.crt"

    @property
    def nats(self) -> Tls:
        place = self.root / "nats"
        return Tls(place / "tls.crt", place / "tls.key", place / "ca.crt", demands_certificates=True)


def open_mtls(data: DataDirectory, layout: Layout, front: Front, now: datetime) -> Mtls:
    """Makes what is missing or about to expire. Raises CannotStart."""
    root = data.secrets / "pki"
    parts = ("admin", *layout.registries, *layout.schedulers, *layout.gateways, AGENT, UP)
    try:
        folder = Folder(root) if (root / "ca" / "ca.crt").exists() else make_folder(root, now)
        for part in parts:
            folder.keep(part, (), now, timedelta(days=PART_DAYS))
        folder.keep("nats", _outside(front), now, timedelta(days=PART_DAYS))
    except NotPossible as error:
        raise CannotStart(f"{error.message} Or remove {root} to have all of it made anew.") from error
    return Mtls(root)


def _outside(front: Front) -> list[str]:
    """By which names agents on other machines reach NATS."""
    return names(read_certificate(front.nats_tls.certificate.read_bytes())) if front.nats_tls is not None else []
