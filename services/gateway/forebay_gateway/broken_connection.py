"""Why a connection to an engine broke or was never made, in words that clients may read."""

from __future__ import annotations

import os
import ssl

from forebay.engine_sockets import RefusedAddress
from forebay_gateway.http_out.failures import ClosedEarly, NotHttp, Unresolved


def why_broken(error: BaseException) -> str:
    """What happened, and not where: clients read this too, and where an engine is is not for them to know."""
    match error:
        case Unresolved():
            return "its name cannot be looked up"
        case RefusedAddress():
            return "its name leads to an address that no engine has"
        case ssl.SSLCertVerificationError():
            return "its certificate is not valid"
        case ssl.SSLError():
            return "it does not speak TLS as this gateway does"
        case TimeoutError():
            return "it took too long"
        case ClosedEarly():
            return "it closed the connection"
        case NotHttp():
            return "what it answered cannot be read"
        case OSError() if error.errno is not None and error.errno > 0:
            return os.strerror(error.errno)
        case _:
            return "the connection failed"
