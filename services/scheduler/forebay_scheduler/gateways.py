"""The gateways that have spoken: which process of each, over which session, and what it has waiting. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from forebay_scheduler.request import GatewayName, LedgerId, Process, Request, SessionId


class Gateway:
    """One process of a gateway, from its first Hello to its goodbye or death."""

    __slots__ = ("generation", "heard_at", "is_silent", "lost_at", "name", "process", "session", "waiting")

    def __init__(self, name: GatewayName, generation: int, heard_at: float) -> None:
        self.name = name
        self.generation = generation
        self.process: Process = (name, generation)
        self.heard_at = heard_at
        self.session: SessionId | None = None
        """None while it is out of reach."""
        self.is_silent = False
        """Its session stands but says nothing, so it gets no grants."""
        self.lost_at: float | None = None
        """When it came out of reach."""
        self.waiting: dict[LedgerId, Request] = {}
        """Its requests without a grant, in the queue or parked while it is out of reach."""

    @property
    def is_reachable(self) -> bool:
        return self.session is not None and not self.is_silent


class Roster:
    """At most one process for each name: the one with the highest generation."""

    def __init__(self) -> None:
        self._by_name: dict[GatewayName, Gateway] = {}
        self._by_session: dict[SessionId, Gateway] = {}
        self._generations: dict[GatewayName, int] = {}

    def __iter__(self) -> Iterator[Gateway]:
        return iter(list(self._by_name.values()))

    def get(self, name: GatewayName) -> Gateway | None:
        return self._by_name.get(name)

    def at(self, process: Process) -> Gateway | None:
        gateway = self._by_name.get(process[0])
        return gateway if gateway is not None and gateway.generation == process[1] else None

    def speaking(self, session: SessionId) -> Gateway | None:
        """The gateway whose newest session this is."""
        return self._by_session.get(session)

    def is_outdated(self, name: GatewayName, generation: int) -> bool:
        """A later process of this gateway has been heard of."""
        return generation < self._generations.get(name, generation)

    def note_generation(self, name: GatewayName, generation: int) -> None:
        self._generations[name] = max(generation, self._generations.get(name, generation))

    def open(self, name: GatewayName, generation: int, session: SessionId, now: float) -> Gateway:
        """This session now speaks for this process. Any process before it must have been removed."""
        gateway = self._by_name.get(name)
        if gateway is None:
            gateway = self._by_name[name] = Gateway(name, generation, now)
        self.close_session(gateway)
        gateway.session, gateway.heard_at, gateway.is_silent, gateway.lost_at = session, now, False, None
        self._by_session[session] = gateway
        self.note_generation(name, generation)
        return gateway

    def expect(self, name: GatewayName, generation: int, heard_at: float) -> None:
        """The stored ceilings know of it; it has not spoken to this leader yet."""
        self._by_name[name] = Gateway(name, generation, heard_at)
        self.note_generation(name, generation)

    def close_session(self, gateway: Gateway) -> None:
        if gateway.session is not None:
            del self._by_session[gateway.session]
            gateway.session = None

    def remove(self, gateway: Gateway) -> None:
        self.close_session(gateway)
        self._by_name.pop(gateway.name, None)
