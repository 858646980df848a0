"""Why a connection to an engine broke or was never made, in words that clients may read."""

from __future__ import annotations

import os

import aiohttp

from forebay.engine_sockets import RefusedAddress


def why_broken(error: BaseException) -> str:
    """What happened, and not where: clients read this too, and where an engine is is not for them to know."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "its name cannot be looked up"
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate is not valid"
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, RefusedAddress):
            return "its name leads to an address that no engine has"
        case aiohttp.ClientConnectorError() if error.errno is not None and error.errno > 0:
            return os.strerror(error.errno)
        case TimeoutError():
            return "it took too long"
        case OSError() if error.strerror:
            return error.strerror
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection"
        case _:
            return "the connection failed"
