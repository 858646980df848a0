"""The authority of `forebay up`, for connections between machines that trust nobody else's, and its server certificates.

Its key stays in the secrets; its certificate is what other machines are given. Server certificates are made from it when
they are missing, about to expire, or for other names. How they are made is `forebay.pki.certificates`' part; those by which
Forebay's own parts know each other lie in a folder of their own (`forebay.pki.folder`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from forebay.errors import CannotStart
from forebay.local.secret_files import write_private
from forebay.pki.certificates import (
    SERVER,
    is_of,
    issue,
    name_of,
    new_authority,
    pem_of,
    pem_of_key,
    pin,
    read_certificate,
    read_key,
)
from forebay.pki.certificates import Authority as SigningAuthority

_AUTHORITY_LASTS = timedelta(days=3650)
_SERVER_LASTS = timedelta(days=365)
_RENEW_BEFORE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Authority:
    certificate: x509.Certificate
    certificate_file: Path
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    certificate_file: Path
    key_file: Path
    pin: str
    """For `curl --pinnedpubkey`, and for agents that were told it at enrolment."""


def open_authority(secrets: Path, now: datetime) -> Authority:
    """The authority kept in `secrets/ca`, made at first use. Raises CannotStart when what is there cannot be read."""
    certificate_file, key_file = secrets / "ca" / "ca.pem", secrets / "ca" / "ca.key"
    if not (certificate_file.exists() and key_file.exists()):
        made = new_authority("Forebay local CA", now, _AUTHORITY_LASTS)
        write_private(key_file, pem_of_key(made.key))
        write_private(certificate_file, pem_of(made.certificate))
    try:
        return Authority(
            read_certificate(certificate_file.read_bytes()), certificate_file, read_key(key_file.read_bytes())
        )
    except (OSError, ValueError) as error:
        raise CannotStart(
            f"The local certificate authority in {secrets / 'ca'} cannot be read ({error}): "
            "put it back, or remove that folder to get a new one and enrol the agents again."
        ) from error


def server_certificate(
    authority: Authority, secrets: Path, name: str, hosts: Sequence[str], now: datetime
) -> ServerCertificate:
    """The certificate kept as `secrets/tls/<name>`, for these host names and addresses."""
    certificate_file, key_file = secrets / "tls" / f"{name}.pem", secrets / "tls" / f"{name}.key"
    if not _still_good(certificate_file, key_file, authority, hosts, now):
        signing = SigningAuthority(authority.certificate, authority.key)
        made = issue(signing, hosts[0], hosts, now, _SERVER_LASTS, SERVER)
        write_private(key_file, pem_of_key(made.key))
        write_private(certificate_file, pem_of(made.certificate))
    return ServerCertificate(certificate_file, key_file, pin(read_certificate(certificate_file.read_bytes())))


def _still_good(
    certificate_file: Path, key_file: Path, authority: Authority, hosts: Sequence[str], now: datetime
) -> bool:
    try:
        held, key = read_certificate(certificate_file.read_bytes()), read_key(key_file.read_bytes())
        named = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        return False
    return (
        is_of(held, authority.certificate)
        and set(named) == {name_of(host) for host in hosts}
        and now + _RENEW_BEFORE < held.not_valid_after_utc
        and key.public_key() == held.public_key()
    )
