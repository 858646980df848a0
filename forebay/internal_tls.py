"""The certificates that Forebay's own parts show each other: three files, read again when they change.

Who opens connections with them is `forebay.rpc`, `forebay.nats_bus` and, through its address, the database; who makes the
files is `forebay pki`, or whoever gave them."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from forebay.errors import CannotStart

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""How often the files are looked at, at most."""

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class PeerTls:
    """What one part needs for TLS with the others."""

    ca: Path
    """The authorities of the others, one or several (PEM). While one replaces another, both are in it."""
    cert: Path | None = None
    """Our own certificate with what lies between it and the authority (PEM). None: we show none, as callers may."""
    key: Path | None = None
    """Its private key (PEM)."""


@dataclass(frozen=True, slots=True)
class Pem:
    """What the files of a PeerTls held at one moment; certificate and key belong together."""

    ca: bytes
    cert: bytes | None
    key: bytes | None


def peer_tls(prefix: str, ca: Path | None, cert: Path | None, key: Path | None) -> PeerTls | None:
    """From the settings `<prefix>_ca_file`, `<prefix>_cert_file` and `<prefix>_key_file`: all three or none. Raises
    ValueError, which names what is missing."""
    given = {f"{prefix}_ca_file": ca, f"{prefix}_cert_file": cert, f"{prefix}_key_file": key}
    missing = [name for name, file in given.items() if file is None]
    if len(missing) == len(given):
        return None
    if ca is None or missing:
        raise ValueError(
            f"{' and '.join(missing)}: missing beside the others; give all three ({', '.join(given)}) or none"
        )
    return PeerTls(ca, cert, key)


def demand_bus_pair(ca: Path | None, cert: Path | None, key: Path | None) -> None:
    """The settings `nats_ca_file`, `nats_cert_file` and `nats_key_file`: the last two come together, and never without the
    first. Raises ValueError."""
    if (cert is None) != (key is None):
        raise ValueError("nats_cert_file and nats_key_file: one is missing; give both or neither")
    if cert is not None and ca is None:
        raise ValueError("nats_cert_file: it needs nats_ca_file, the authority of the bus's certificate")


class WatchedTls:
    """The newest files that could be used. What cannot be read, or does not belong together, leaves the ones before in use:
    a certificate and its key are two files, and somebody may look between the writing of the two."""

    def __init__(self, tls: PeerTls) -> None:
        """Raises CannotStart when they cannot be used now."""
        self.tls = tls
        self._lock = threading.Lock()  # gRPC asks from a thread of its own
        self._looked_at = time.monotonic()
        self._refused: tuple[_Stamp | None, str] | None = None
        """What was told last of files that cannot be used."""
        try:
            self._stamp = _stamp(tls)
            self._pem = _read(tls)
        except (OSError, ValueError) as error:
            raise CannotStart(
                f"The certificate files {', '.join(map(str, _files(tls)))} cannot be used: {error}. They are PEM files, the "
                "key is that of the certificate and not locked; `forebay pki show` tells what lies where."
            ) from error

    def newest(self, *, at_once: bool = False) -> Pem:
        """The same object until something new is there. `at_once`: without waiting for the next look to be due."""
        with self._lock:
            now = time.monotonic()
            if not at_once and now - self._looked_at < LOOK_EVERY_S:
                return self._pem
            self._looked_at = now
            stamp = None
            try:
                stamp = _stamp(self.tls)
                if stamp == self._stamp:
                    self._refused = None
                    return self._pem
                # Also those that could not be used when last looked at: nothing tells that they can be now, since what has
                # changed may be who is let read them.
                found = _read(self.tls)
                if _stamp(self.tls) != stamp:
                    return self._pem  # they are being written; the next look finds them whole
                self._pem, self._stamp, self._refused = found, stamp, None
                log.info("certificates reloaded", extra={"action": "tls", "cert": str(self.tls.cert)})
            except (OSError, ValueError) as error:
                self._tell(stamp, str(error))
            return self._pem

    def _tell(self, stamp: _Stamp | None, why: str) -> None:
        """Once for each change."""
        if self._refused != (stamp, why):
            self._refused = (stamp, why)
            log.warning("certificates not reloaded, the old ones stay", extra={"action": "tls", "why": why})


class Authorities:
    """What HTTPS to another part is verified with, as one context until the file changes."""

    def __init__(self, ca: Path) -> None:
        """Raises CannotStart."""
        self._watched = WatchedTls(PeerTls(ca))
        self._made_of: Pem | None = None
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def context(self) -> ssl.SSLContext:
        pem = self._watched.newest()
        if pem is not self._made_of:
            self._context, self._made_of = ssl.create_default_context(cadata=_text(pem.ca)), pem
        return self._context


def client_context(tls: PeerTls) -> ssl.SSLContext:
    """For connections other than gRPC's, from the files as they are now. Raises OSError, of which ssl.SSLError is one."""
    context = ssl.create_default_context(cafile=str(tls.ca))
    if tls.cert is not None:
        context.load_cert_chain(tls.cert, tls.key, password=_no_passphrase)
    return context


def _read(tls: PeerTls) -> Pem:
    """Raises OSError, ValueError."""
    pem = Pem(tls.ca.read_bytes(), *(file.read_bytes() if file else None for file in (tls.cert, tls.key)))
    try:
        client_context(tls)  # judged by OpenSSL: that they are certificates, and that the key is the certificate's
    except ssl.SSLError as error:
        raise ValueError((error.reason or str(error)).replace("_", " ").lower()) from error
    return pem


def _text(pem: bytes) -> str:
    """What stands between certificates may be in any language, and OpenSSL takes ASCII alone."""
    return pem.decode("ascii", "ignore")


def _no_passphrase() -> str:
    raise ValueError("the key is locked with a passphrase")  # by itself OpenSSL would ask for it at the terminal


def _files(tls: PeerTls) -> list[Path]:
    return [file for file in (tls.ca, tls.cert, tls.key) if file is not None]


def _stamp(tls: PeerTls) -> _Stamp:
    """What tells replaced files from those before. Raises OSError."""
    return tuple((found.st_mtime_ns, found.st_ino, found.st_size) for found in (file.stat() for file in _files(tls)))
