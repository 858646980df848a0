"""Which parts a whole installation has, and by which hosts each is reached. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.errors import BadInput
from forebay.pki.folder import demand_name

_SERVERS = ("admin", "nats", "postgres")


def parts_of(
    *,
    gateways: int,
    schedulers: int = 1,
    registries: int = 1,
    agents: Sequence[str] = (),
    hosts: Sequence[str] = (),
    domain: str | None = None,
) -> dict[str, list[str]]:
    """Name of each part → hosts. `hosts` has `HOST`, which is everybody's, and `NAME=HOST`; with a `domain` each is reached
    as `NAME.domain` and, where there are several, without its number too. Raises BadInput."""
    names = [
        *(f"gateway-{number}" for number in range(1, gateways + 1)),
        "scheduler",
        *(f"scheduler-{number}" for number in range(2, schedulers + 1)),
        "registry",
        *(f"registry-{number}" for number in range(2, registries + 1)),
        *_SERVERS,
        *agents,
    ]
    for name in names:
        demand_name(name)
    reached: dict[str, list[str]] = {name: [] for name in names}
    for text in hosts:
        name, equals, host = text.rpartition("=")
        if equals and name not in reached:
            raise BadInput(f"--host {text}: there is no part {name!r} here; there are {', '.join(names)}.")
        for one in [name] if equals else names:
            reached[one].append(host)
    if domain is not None:
        for name in names:
            service = name.rpartition("-")[0] if name not in agents else ""
            reached[name] += [f"{called}.{domain}" for called in (name, service) if called]
    return reached
