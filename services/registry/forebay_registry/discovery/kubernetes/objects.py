"""Services and EndpointSlices, as JSON of the API, read into offers. Pure: what cannot be meant is left out, and said.

The API's own words: https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from forebay.errors import BadInput
from forebay_registry.backend import DEFAULT_POOL, EngineKind
from forebay_registry.discovery.offers import FoundBy, Offer, name_of
from forebay_registry.fleet.model_names import Names
from forebay_registry.wanted.catalog import MAX_SLOTS, parse_add

PREFIX = "forebay.io/"
"""Of the labels and annotations of a Service that say what its backends are: pool, kind, slots, port, scheme, models. An
annotation goes before a label of the same name."""
SERVICE_NAME = "kubernetes.io/service-name"
"""The label with which a slice names its Service."""
_USUAL_PORT_NAMES = ("forebay", "http", "api", "http-api", "openai")
MOST_BACKENDS = 2_000
_NUMBER = re.compile(r"[0-9]{1,6}")
"""An annotation may be long enough to hold Python up, or to be more digits than it takes."""
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Key:
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Wish:
    """What a Service says of its backends."""

    pool: str = DEFAULT_POOL
    kind: EngineKind | None = None
    slots: int = 0
    port: str = ""
    """Name or number; empty: the only one, or one with a usual name."""
    scheme: str = "http"
    models: Names = ()


@dataclass(frozen=True, slots=True)
class Named:
    """All that a cluster names, and what is wrong with some of it."""

    offers: tuple[Offer, ...] = ()
    problems: Mapping[Key, str] = field(default_factory=dict)
    """Service → one sentence; its backends are left out."""
    is_whole: bool = True
    """Else there are more than MOST_BACKENDS: one that is not among them is not gone for that."""


def read_key(item: Any) -> Key | None:
    """None for what is no object of the API."""
    meta = _table(item, "metadata")
    namespace, name = meta.get("namespace"), meta.get("name")
    return Key(namespace, name) if isinstance(namespace, str) and isinstance(name, str) and name else None


def named_by(services: Mapping[Key, Any], slices: Mapping[Key, Any]) -> Named:
    """Each pod once, though a Service of two families of addresses has a slice for each."""
    of_service: dict[Key, list[Any]] = {}
    for key, one in sorted(slices.items(), key=lambda kept: (kept[0].namespace, kept[0].name)):
        service = _table(_table(one, "metadata"), "labels").get(SERVICE_NAME)
        if isinstance(service, str):
            of_service.setdefault(Key(key.namespace, service), []).append(one)
    offers: dict[str, Offer] = {}
    problems: dict[Key, str] = {}
    for key, service in sorted(services.items(), key=lambda kept: (kept[0].namespace, kept[0].name)):
        try:
            wish = read_wish(service)
            for offer in _offers(key, service, wish, of_service.get(key, [])):
                offers.setdefault(offer.url, offer)
        except BadInput as error:
            problems[key] = error.message
    return Named(tuple(offers.values())[:MOST_BACKENDS], problems, len(offers) <= MOST_BACKENDS)


def read_wish(service: Any) -> Wish:
    """Raises BadInput."""
    meta = _table(service, "metadata")
    said = {
        name.removeprefix(PREFIX): value.strip()
        for table in (_table(meta, "labels"), _table(meta, "annotations"))
        for name, value in table.items()
        if name.startswith(PREFIX) and isinstance(value, str) and value.strip()
    }
    kind, slots, scheme = said.get("kind", ""), said.get("slots", "0"), said.get("scheme", "http")
    if kind and kind not in set(EngineKind):
        raise BadInput(f"{PREFIX}kind is {kind[:_SHOWN]!r}; there are {', '.join(EngineKind)}.")
    if not _NUMBER.fullmatch(slots) or int(slots) > MAX_SLOTS:
        raise BadInput(f"{PREFIX}slots is {slots[:_SHOWN]!r}, which is not a number of slots.")
    if scheme not in ("http", "https"):
        raise BadInput(f"{PREFIX}scheme is {scheme[:_SHOWN]!r}; it is http or https.")
    port = said.get("port", "")
    if port.isdigit() and not (_NUMBER.fullmatch(port) and 0 < int(port) < 65536):
        raise BadInput(f"{PREFIX}port is {port[:_SHOWN]!r}, which is no port.")
    models = {}
    for pair in said.get("models", "").replace("\n", ",").split(","):
        name, sign, at_engine = pair.strip().partition("=")
        if name.strip():
            models[name.strip()] = at_engine.strip() if sign else name.strip()
    order = parse_add(
        actor="", name="x", url="http://x", pool=said.get("pool", ""), slots=int(slots), model_names=models
    )
    return Wish(order.pool, EngineKind(kind) if kind else None, order.slots, port, scheme, order.model_names)


@dataclass(frozen=True, slots=True)
class _Endpoint:
    address: str
    pod: str
    """Its uid, else its address."""
    name: str
    node: str


def _offers(key: Key, service: Any, wish: Wish, slices: list[Any]) -> Iterator[Offer]:
    spec = _table(service, "spec")
    if spec.get("type") == "ExternalName":
        host = spec.get("externalName")
        if not isinstance(host, str) or not host:
            raise BadInput("It is of the type ExternalName and names none.")
        if wish.port and not wish.port.isdigit():
            raise BadInput(f"{PREFIX}port is {wish.port[:_SHOWN]!r}, and an external name has ports by number only.")
        yield _offer(wish, host, wish.port, f"{key.namespace}-{key.name}", "")
        return
    seen: set[tuple[str, int]] = set()
    # IPv4 first: of a pod with two addresses that one is taken.
    for one in sorted(slices, key=lambda s: str(s.get("addressType")) if isinstance(s, dict) else ""):
        if not _list(one, "endpoints"):
            continue
        port = _port_of(one, wish)
        for endpoint in _endpoints(one):
            if (endpoint.pod, port) not in seen:
                seen.add((endpoint.pod, port))
                name = endpoint.name or f"{key.name}-{endpoint.address}"
                yield _offer(wish, endpoint.address, str(port), name, endpoint.node)


def _offer(wish: Wish, host: str, port: str, name: str, node: str) -> Offer:
    shown = f"[{host}]" if ":" in host else host
    url = f"{wish.scheme}://{shown}{f':{port}' if port else ''}"
    order = parse_add(actor="", name=name_of(name, ""), url=url, kind=wish.kind, pool=wish.pool)
    return Offer(
        FoundBy.KUBERNETES,
        order.name,
        order.url,
        kind=wish.kind,
        pool=wish.pool,
        slots=wish.slots,
        node=node,
        port=int(port) if port else 0,
        model_names=wish.models,
        is_auto=True,
    )


def _port_of(one: Any, wish: Wish) -> int:
    """Raises BadInput."""
    ports: dict[str, int] = {}
    for port in _list(one, "ports"):
        number = port.get("port") if isinstance(port, dict) else None
        if isinstance(number, int) and 0 < number < 65536 and port.get("protocol", "TCP") == "TCP":
            ports[str(port.get("name") or "")] = number
    if wish.port.isdigit():
        return int(wish.port)
    if wish.port:
        if wish.port not in ports:
            raise BadInput(f"{PREFIX}port is {wish.port[:_SHOWN]!r}; it has {', '.join(map(repr, ports)) or 'none'}.")
        return ports[wish.port]
    if len(ports) == 1:
        return next(iter(ports.values()))
    usual = next((ports[name] for name in _USUAL_PORT_NAMES if name in ports), None)
    if usual is None:
        raise BadInput(f"It has {len(ports)} ports; say which with the annotation {PREFIX}port.")
    return usual


def _endpoints(one: Any) -> Iterable[_Endpoint]:
    """Those that are not being ended. One that is not ready yet counts: looking at it tells how it is."""
    for endpoint in _list(one, "endpoints"):
        addresses = _list(endpoint, "addresses")
        address = addresses[0] if addresses else None
        if _table(endpoint, "conditions").get("terminating") is True or not isinstance(address, str) or not address:
            continue
        pod = _table(endpoint, "targetRef")
        uid, name, node = pod.get("uid"), pod.get("name"), endpoint.get("nodeName")
        yield _Endpoint(
            address,
            uid if isinstance(uid, str) else address,
            name if isinstance(name, str) else "",
            node if isinstance(node, str) else "",
        )


def _table(item: Any, name: str) -> Mapping[str, Any]:
    value = item.get(name) if isinstance(item, dict) else None
    return value if isinstance(value, dict) else {}


def _list(item: Any, name: str) -> list[Any]:
    value = item.get(name) if isinstance(item, dict) else None
    return value if isinstance(value, list) else []
