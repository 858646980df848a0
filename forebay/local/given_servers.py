"""Servers that are not ours, as DATABASE_URL and NATS_URL name them: whether they are there, asked before anything starts.

Services would wait for them for ever, which is right for one that goes away later and no help against a typing error."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import asyncpg

from forebay.errors import BadSettings, CannotStart

PATIENCE_S = 15.0
"""For a server that starts together with us, as after a reboot."""
_TRY_S = 5.0
_PAUSE_S = 0.5
_NATS_PORT = 4222


async def demand_database(url: str, patience_s: float = PATIENCE_S) -> None:
    """Raises CannotStart when it is not there after so long, or at once when it does not want us; BadSettings when `url` is
    no address of a database."""
    until = asyncio.get_running_loop().time() + patience_s
    while True:
        try:
            connection = await asyncpg.connect(url, timeout=_TRY_S)
        except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
            raise CannotStart(
                f"The database of DATABASE_URL at {_place(url)} does not let us in: {error}. "
                "It needs a database that exists and a user who may create schemas in it."
            ) from error
        except (asyncpg.InterfaceError, ValueError) as error:
            raise BadSettings(
                [f"DATABASE_URL is not postgresql://USER:PASSWORD@HOST:PORT/NAME: {_first_line(error)}"]
            ) from error
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            if asyncio.get_running_loop().time() >= until:
                raise CannotStart(
                    f"The database of DATABASE_URL cannot be reached at {_place(url)} ({_first_line(error)}): start it, "
                    "correct DATABASE_URL, or unset it to use the PostgreSQL that comes along."
                ) from error
        else:
            await connection.close()
            return
        await asyncio.sleep(_PAUSE_S)


async def demand_nats(urls: str, patience_s: float = PATIENCE_S) -> None:
    """The same for NATS, of whose servers (`nats://a:4222,nats://b:4222`) one must answer. Whether it lets us in, services
    find out."""
    places = [_nats_place(url.strip()) for url in urls.split(",")]
    until = asyncio.get_running_loop().time() + patience_s
    while True:
        answers = await asyncio.gather(*(_is_listening(host, port) for host, port in places))
        if any(answers):
            return
        if asyncio.get_running_loop().time() >= until:
            told = ", ".join(f"{host}:{port}" for host, port in places)
            raise CannotStart(
                f"The NATS of NATS_URL cannot be reached at {told}: start it, correct NATS_URL, or unset it to use the one "
                "that comes along."
            )
        await asyncio.sleep(_PAUSE_S)


async def _is_listening(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_TRY_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _nats_place(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        host, port = parts.hostname, parts.port or _NATS_PORT
    except ValueError as error:
        raise BadSettings([f"NATS_URL: {error}"]) from error
    if not host:
        raise BadSettings(["NATS_URL is not nats://HOST:PORT"])
    return host, port


def _place(url: str) -> str:
    """Host and port; never the password."""
    return urlsplit(url).netloc.rpartition("@")[2] or "this machine"


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
