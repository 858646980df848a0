"""A certificate authority of one's own, for connections between machines that trust nobody else's.

Its key stays in the secrets; its certificate is what other machines are given. Server certificates are made from it when
they are missing, about to expire, or for other names."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from forebay.errors import CannotStart
from forebay.local.secret_files import write_private

_AUTHORITY_LASTS = timedelta(days=3650)
_SERVER_LASTS = timedelta(days=365)
_RENEW_BEFORE = timedelta(days=30)
_CLOCKS_DIFFER = timedelta(hours=1)


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
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Forebay local CA")])
        certificate = (
            _builder(name, name, key.public_key(), now, _AUTHORITY_LASTS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, SHA256())
        )
        write_private(key_file, _pem_of_key(key))
        write_private(certificate_file, certificate.public_bytes(Encoding.PEM))
    try:
        return Authority(_read_certificate(certificate_file), certificate_file, _read_key(key_file))
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
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
        certificate = (
            _builder(subject, authority.certificate.subject, key.public_key(), now, _SERVER_LASTS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_name_of(host) for host in hosts]), critical=False)
            .add_extension(issuer_key, critical=False)
            .sign(authority.key, SHA256())
        )
        write_private(key_file, _pem_of_key(key))
        write_private(certificate_file, certificate.public_bytes(Encoding.PEM))
    return ServerCertificate(certificate_file, key_file, pin(_read_certificate(certificate_file)))


def pin(certificate: x509.Certificate) -> str:
    """`sha256//…` of the public key, as curl's --pinnedpubkey takes it (RFC 7469)."""
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256//" + base64.b64encode(hashlib.sha256(key).digest()).decode()


def _still_good(
    certificate_file: Path, key_file: Path, authority: Authority, hosts: Sequence[str], now: datetime
) -> bool:
    try:
        held, key = _read_certificate(certificate_file), _read_key(key_file)
        named = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        held.verify_directly_issued_by(authority.certificate)
    except (FileNotFoundError, ValueError, TypeError, x509.ExtensionNotFound, InvalidSignature):
        return False
    return (
        set(named) == {_name_of(host) for host in hosts}
        and now + _RENEW_BEFORE < held.not_valid_after_utc
        and key.public_key() == held.public_key()
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lasts: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + lasts)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name_of(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _read_certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} holds no elliptic-curve key")
    return key


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
