"""The doors that other people use: on which address they open, under which name and certificate they are known."""

from __future__ import annotations

import os
import platform
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from forebay.errors import BadSettings, CannotStart
from forebay.local.certificates import open_authority, server_certificate
from forebay.local.data_directory import DataDirectory
from forebay.local.layout import LOOPBACK
from forebay.local.nats import Tls

_EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the HTTP ports show."""

    file: Path
    key_file: Path
    ca: Path | None
    """What clients need to trust it; None: they know its authority already."""
    pin: str | None
    """For those who are told a pin and no authority; None when the certificate is not ours and may be replaced any day."""


@dataclass(frozen=True, slots=True)
class Front:
    host: str
    """Where the gateways and admin's HTTP port listen, and NATS too when `nats_tls` is there."""
    shown_host: str
    """How others call it."""
    certificate: Certificate | None
    """None: plain HTTP."""
    nats_tls: Tls | None
    """None: NATS stays on loopback."""

    @property
    def is_open(self) -> bool:
        """Whether other machines are served."""
        return self.nats_tls is not None

    def url(self, port: int) -> str:
        return f"{'https' if self.certificate else 'http'}://{bracketed(self.shown_host)}:{port}"

    def near_url(self, port: int) -> str:
        """The same door, seen from here."""
        near = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(self.host, self.host)
        return f"{'https' if self.certificate else 'http'}://{bracketed(near)}:{port}"


def open_front(
    data: DataDirectory,
    *,
    listen: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    plain_http: bool,
    now: datetime,
) -> Front:
    """Makes what certificates are missing or about to expire. Raises BadSettings, CannotStart."""
    if (tls_cert is None) != (tls_key is None):
        raise BadSettings(["--tls-cert and --tls-key belong together: give both or neither"])
    if tls_cert is not None and plain_http:
        raise BadSettings(["--plain-http needs no certificate: give one or the other"])
    host = LOOPBACK if listen is None else listen.strip().removeprefix("[").removesuffix("]")
    if not host:
        raise BadSettings(["--listen: there is no address in it"])
    names = _names(host)
    given = _given(tls_cert, tls_key) if tls_cert is not None and tls_key is not None else None
    if listen is None:
        return Front(host, _known_as(given, names[0]), given, None)
    authority = open_authority(data.secrets, now)
    (data.root / "ca.pem").write_bytes(authority.certificate_file.read_bytes())
    bus = server_certificate(authority, data.secrets, "nats", names, now)
    certificate = given
    if given is None and not plain_http:
        made = server_certificate(authority, data.secrets, "server", names, now)
        certificate = Certificate(made.certificate_file, made.key_file, data.root / "ca.pem", made.pin)
    tls = Tls(bus.certificate_file, bus.key_file, authority.certificate_file)
    return Front(host, _known_as(given, names[0]), certificate, tls)


def fingerprint(certificate: Certificate) -> bytes:
    """SHA-256 of the certificate itself: by this we know our own door, whatever it is called."""
    return x509.load_pem_x509_certificate(certificate.file.read_bytes()).fingerprint(SHA256())


def expired_on(certificate: Certificate, now: datetime) -> datetime | None:
    """None while clients can accept it."""
    ends = x509.load_pem_x509_certificate(certificate.file.read_bytes()).not_valid_after_utc
    return ends if ends <= now else None


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _given(file: Path, key_file: Path) -> Certificate:
    """Tried here as the services will, which would say the same later and each in its own log."""
    for path in (file, key_file):
        if not path.is_file():
            raise CannotStart(f"The certificate file {path} is not there: give --tls-cert and --tls-key as PEM files.")
        if not os.access(path, os.R_OK):
            raise CannotStart(
                f"The certificate file {path} may not be read by this user: change its mode or its owner."
            )
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(file, key_file, password=_no_passphrase)
    except (OSError, ValueError) as error:
        raise CannotStart(
            f"The certificate {file} with the key {key_file} cannot be used ({_why(error)}): give a PEM certificate and "
            "the key that belongs to it, not locked with a passphrase."
        ) from error
    return Certificate(file.absolute(), key_file.absolute(), None, None)


def _no_passphrase() -> str:
    raise ValueError("the key is locked with a passphrase")  # by itself OpenSSL would ask for it at the terminal


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None)  # of an SSLError, such as KEY_VALUES_MISMATCH
    return reason.replace("_", " ").lower() if isinstance(reason, str) else str(error)


def _names(host: str) -> list[str]:
    """By which others may know this machine; the most useful first."""
    if host not in _EVERYWHERE:
        return [host]
    names = [_outward_address(), platform.node(), "localhost", LOOPBACK, "::1"]
    return list(dict.fromkeys(name for name in names if name and name.isascii()))


def _outward_address() -> str:
    """The address from which packets to the world would leave; none is sent."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # reserved for documentation (RFC 5737)
        address: str = probe.getsockname()[0]
        return address
    return ""


def _known_as(given: Certificate | None, otherwise: str) -> str:
    """The name that a given certificate is for."""
    if given is None:
        return otherwise
    try:
        certificate = x509.load_pem_x509_certificate(given.file.read_bytes())
        named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return otherwise
    except (OSError, ValueError) as error:
        raise CannotStart(f"The certificate {given.file} cannot be read: {error}.") from error
    addresses = [str(address) for address in named.get_values_for_type(x509.IPAddress)]
    names = [name for name in named.get_values_for_type(x509.DNSName) if not name.startswith("*")]
    return otherwise if otherwise in (*addresses, *names) else next(iter((*names, *addresses)), otherwise)
