"""What may become of a connection to an engine, beyond what the system says of it. All of them are OSErrors."""

from __future__ import annotations


class Unresolved(OSError):
    """Its name cannot be looked up."""


class ClosedEarly(ConnectionError):
    """It closed the connection before its answer was whole."""


class NotHttp(ConnectionError):
    """What it answered cannot be read."""
