"""Looks at files, ports, peers, NATS and PostgreSQL, and gives facts. Each look ends within seconds, changes nothing, and
says in words why it saw nothing. What it means is for the modules that judge."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import stat
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from forebay.doctor.certificates import CertificateFacts
from forebay.doctor.files import PathFacts
from forebay.doctor.network import PortFacts, PostgresFacts

PATIENCE_S = 3.0


# --- this machine -----------------------------------------------------------------------------------------------------


def open_files() -> tuple[int, int]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return tuple(-1 if number == resource.RLIM_INFINITY else number for number in (soft, hard))  # type: ignore[return-value]


def memory() -> tuple[int, int] | None:
    """(total, available) in bytes; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        return kib["MemTotal"] * 1024, kib["MemAvailable"] * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None


def room(path: Path) -> tuple[int, int] | None:
    """(free, total) in bytes of the file system that `path` is or would be on."""
    try:
        usage = shutil.disk_usage(_nearest(path))
    except OSError:
        return None
    return usage.free, usage.total


def file_system(path: Path) -> int:
    """Which one `path` is or would be on."""
    return _nearest(path).stat().st_dev


def is_clock_synchronised() -> bool | None:
    """As the kernel was told by chrony, ntpd or timesyncd."""
    import ctypes

    # struct timex begins with `modes`, an int; with 0 nothing is set, and the answer is the state of the clock.
    buffer = ctypes.create_string_buffer(512)
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != 5  # TIME_ERROR: nobody keeps it


# --- files ------------------------------------------------------------------------------------------------------------


def path_facts(path: Path) -> PathFacts:
    try:
        found = path.stat()
    except PermissionError:  # of a folder above it: whether it is there is not to be seen
        return PathFacts(exists=True)
    except OSError:
        return PathFacts(exists=False)
    return PathFacts(
        exists=True,
        is_directory=stat.S_ISDIR(found.st_mode),
        can_read=os.access(path, os.R_OK),
        can_write=os.access(path, os.W_OK),
        mode=stat.S_IMODE(found.st_mode),
        size_bytes=found.st_size,
    )


def can_be_made(path: Path) -> bool:
    nearest = _nearest(path)
    return nearest.is_dir() and os.access(nearest, os.W_OK)


def _nearest(path: Path) -> Path:
    """The path itself, or the first above it that is there."""
    return next((one for one in (path, *path.parents) if os.path.exists(one)), Path("/"))


def certificate_facts(path: Path, key: Path | None, ca: Path | None) -> CertificateFacts | str:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from forebay.pki.certificates import is_of, names

    try:
        chain = x509.load_pem_x509_certificates(path.read_bytes())
        first = chain[0]
        fits = None
        if key is not None:
            fits = load_pem_private_key(key.read_bytes(), None).public_key() == first.public_key()
        signed = None
        if ca is not None:
            authorities = (*x509.load_pem_x509_certificates(ca.read_bytes()), *chain[1:])
            signed = any(is_of(first, authority) for authority in authorities)
        return CertificateFacts(
            first.subject.rfc4514_string(),
            max(one.not_valid_before_utc for one in chain),
            min(one.not_valid_after_utc for one in chain),
            tuple(names(first)),
            fits,
            signed,
        )
    except OSError as error:
        return error.strerror or str(error)
    except (ValueError, TypeError, IndexError) as error:
        return str(error) or "not PEM"


# --- the network ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """What a service says of itself at its ops port."""

    service: str
    version: str | None


def ask_ops(host: str, port: int) -> Told | None:
    """None where no service of Forebay answers."""
    where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    try:
        service = json.loads(_get(f"{where}/healthz"))["service"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    version = None
    try:
        for line in _get(f"{where}/metrics").decode().splitlines():
            if line.startswith("forebay_build_info{"):
                version = line.partition('version="')[2].partition('"')[0] or None
    except (OSError, ValueError):
        pass
    return Told(str(service), version)


def _get(url: str) -> bytes:
    request = urllib.request.Request(url)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE_S) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as error:  # /healthz of one that is stuck, which tells its name all the same
        with error:
            return error.read()


def try_port(host: str, port: int) -> PortFacts:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(place)
            one.listen(1)
    except OSError as error:
        return PortFacts(False, error.strerror or str(error))
    return PortFacts(True)


def reach(host: str, port: int) -> tuple[float | None, str]:
    """(seconds until it took a connection, "") or (None, why it did not)."""
    began = time.monotonic()
    try:
        with socket.create_connection((host, port), timeout=PATIENCE_S):
            return time.monotonic() - began, ""
    except socket.gaierror as error:
        return None, f"the name {host} is not known ({error.strerror})"
    except TimeoutError:
        return None, f"nothing within {PATIENCE_S:.0f} s"
    except OSError as error:
        return None, error.strerror or str(error)


def ask_nats(host: str, port: int) -> dict[str, object] | str:
    """What a server says to everybody who connects, before any credential."""
    try:
        with socket.create_connection((host, port), timeout=PATIENCE_S) as one:
            one.settimeout(PATIENCE_S)
            line = one.makefile("rb").readline(65_536)
    except OSError as error:
        return error.strerror or str(error)
    if not line.startswith(b"INFO "):
        return "something answers that is no NATS"
    try:
        told = json.loads(line[5:])
    except ValueError:
        return "something answers that is no NATS"
    return told if isinstance(told, dict) else "something answers that is no NATS"


def ask_postgres(url: str) -> tuple[PostgresFacts, float, float] | str:
    """(facts, seconds that its clock is ahead, how uncertain that is), or why there are none."""
    import asyncpg

    async def look() -> tuple[PostgresFacts, float, float]:
        async with asyncio.timeout(2 * PATIENCE_S):
            connection = await asyncpg.connect(url.replace("+asyncpg", ""), timeout=PATIENCE_S)
            try:
                asked = time.time()
                row = await connection.fetchrow(
                    "SELECT current_setting('server_version') AS version, clock_timestamp() AS now,"
                    " current_setting('max_connections')::int AS most, pg_is_in_recovery() AS standby,"
                    " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections"
                )
                heard = time.time()
            finally:
                await connection.close(timeout=PATIENCE_S)
        ahead_s = row["now"].timestamp() - (asked + heard) / 2
        facts = PostgresFacts(row["version"], row["most"], row["connections"], row["standby"])
        return facts, ahead_s, (heard - asked) / 2

    try:
        return asyncio.run(look())
    except TimeoutError:
        return f"nothing within {2 * PATIENCE_S:.0f} s"
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, ssl.SSLError) as error:
        return str(error).splitlines()[0] if str(error) else type(error).__name__


def ask_time(url: str) -> tuple[float, float] | None:
    """(seconds that an HTTP server's clock is ahead, how uncertain that is): its `date` has whole seconds."""
    context = ssl._create_unverified_context()  # only its clock is asked for
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    asked = time.time()
    try:
        with opener.open(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE_S) as answer:
            told = answer.headers.get("date")
    except urllib.error.HTTPError as error:
        with error:
            told = error.headers.get("date")
    except (OSError, ValueError):
        return None
    heard = time.time()
    try:
        theirs = parsedate_to_datetime(told or "")
    except (ValueError, TypeError):
        return None
    middle = datetime.fromtimestamp((asked + heard) / 2, UTC)
    return (theirs - middle).total_seconds() + 0.5, (heard - asked) / 2 + 0.5
