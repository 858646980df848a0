"""One worker's place among the others: what a gateway is given that is not all there is at its address."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from forebay_gateway.http_in.accepting import Seat


@dataclass(frozen=True, slots=True)
class Place:
    gateway: str
    """The name of the gateway that they are together: that of its user and its subjects on the bus."""
    number: int
    listener: socket.socket
    """Shared with the others. The worker's copy is closed when it drains."""
    seat: Seat
    patience_s: float
