"""TLS for the ports that people's clients use: one context, whose certificate is read again when its files change."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from forebay.errors import CannotStart

log = logging.getLogger(__name__)


@asynccontextmanager
async def serving_tls(
    cert: Path | None, key: Path | None, *, poll_s: float = 5.0
) -> AsyncIterator[ssl.SSLContext | None]:
    """The context to serve with; None without a certificate. Until left, new connections get the newest certificate that
    could be read. Raises CannotStart."""
    if cert is None and key is None:
        yield None
        return
    if cert is None or key is None:
        raise CannotStart("TLS needs both tls_cert and tls_key; only one of them is set.")
    context = _new_context()
    try:
        stamp = await asyncio.to_thread(_stamp, cert, key)
        await asyncio.to_thread(context.load_cert_chain, cert, key)
    except (OSError, ssl.SSLError) as error:
        raise CannotStart(f"The certificate {cert} with the key {key} cannot be used: {error}.") from error
    reloading = asyncio.create_task(_reload(context, cert, key, stamp, poll_s), name="tls-reload")
    try:
        yield context
    finally:
        reloading.cancel()
        await asyncio.wait([reloading])


async def _reload(context: ssl.SSLContext, cert: Path, key: Path, stamp: tuple[int, ...], poll_s: float) -> None:
    while True:
        await asyncio.sleep(poll_s)
        try:
            found = await asyncio.to_thread(_stamp, cert, key)
            if found == stamp:
                continue
            # Tried first: a certificate without its key, loaded in the moment between the writing of the two, would leave
            # the context with neither the old pair nor the new one.
            await asyncio.to_thread(_new_context().load_cert_chain, cert, key)
            # Into the same context: it serves new connections, and those that are open keep what they began with.
            await asyncio.to_thread(context.load_cert_chain, cert, key)
        except (OSError, ssl.SSLError) as error:
            log.warning("certificate not reloaded, the old one stays", extra={"action": "tls", "why": str(error)})
        else:
            stamp = found
            log.info("certificate reloaded", extra={"action": "tls", "cert": str(cert)})


def _new_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _stamp(cert: Path, key: Path) -> tuple[int, ...]:
    """What tells a replaced file from the one before. Raises OSError."""
    return tuple(value for path in (cert, key) for value in (path.stat().st_mtime_ns, path.stat().st_ino))
