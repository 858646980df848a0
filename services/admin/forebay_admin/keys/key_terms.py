"""What a key allows beyond its models, its band and its pool, and what its owner says about it. Pure; gateways enforce
it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from forebay.errors import BadInput, NotAllowed
from forebay_admin.people.people import demand_name

CALLS = (
    "chat",
    "completion",
    "embedding",
    "rerank",
    "score",
    "moderation",
    "image",
    "image_edit",
    "speech",
    "transcription",
    "translation",
)
"""What a request can ask for, in whichever dialect."""

MOST_TOKENS = 10**9
_MOST_WORDS = 200
_LONGEST_PATTERN = 256
_LONGEST_DESCRIPTION = 1000
_MOST_LABELS = 32
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}", re.ASCII)
_LONGEST_VALUE = 256

_MAPPED_BITS = 96
"""Of IPv6 in front of an IPv4 address that it carries."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class AuditPolicy(StrEnum):
    """What is kept of a key's requests and answers."""

    OFF = "off"
    METADATA = "metadata"
    FULL = "full"
    SAMPLED = "sampled"


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What is empty or None does not restrict."""

    denied_models: tuple[str, ...] = ()
    """Names, or patterns with `*`. They go before those that are allowed."""
    other_pools: tuple[str, ...] = ()
    """Where it may go besides its own pool."""
    addresses: tuple[str, ...] = ()
    """Networks from which it may be used, as `ipaddress` writes them."""
    calls: tuple[str, ...] = ()
    """Of CALLS."""
    max_output_tokens: int | None = None
    """Of one answer."""
    max_context_tokens: int | None = None
    """Of a prompt."""
    audit: AuditPolicy | None = None


NO_TERMS = KeyTerms()


def order_terms(
    *,
    denied_models: Sequence[str] = (),
    other_pools: Sequence[str] = (),
    addresses: Sequence[str] = (),
    calls: Sequence[str] = (),
    max_output_tokens: int | None = None,
    max_context_tokens: int | None = None,
    audit: AuditPolicy | None = None,
) -> KeyTerms:
    """Raises BadInput for what cannot be meant."""
    return KeyTerms(
        order_models(denied_models),
        order_pools(other_pools),
        order_addresses(addresses),
        order_calls(calls),
        order_tokens(max_output_tokens, "answer"),
        order_tokens(max_context_tokens, "prompt"),
        audit,
    )


def order_models(patterns: Sequence[str]) -> tuple[str, ...]:
    """Names and patterns of models, each once. Raises BadInput."""
    if len(patterns) > _MOST_WORDS:
        raise BadInput(f"A key names at most {_MOST_WORDS} models; use a pattern such as llama* for many.")
    for pattern in patterns:
        if not pattern.strip() or len(pattern) > _LONGEST_PATTERN or not pattern.isprintable():
            raise BadInput(f"{pattern[:_LONGEST_PATTERN]!r} is not the name of a model or a pattern of names.")
    return tuple(dict.fromkeys(pattern.strip() for pattern in patterns))


def order_pools(pools: Sequence[str]) -> tuple[str, ...]:
    """Raises BadInput."""
    if len(pools) > _MOST_WORDS:
        raise BadInput(f"A key names at most {_MOST_WORDS} pools.")
    return tuple(dict.fromkeys(demand_name(pool, "A pool's name") for pool in pools))


def order_addresses(addresses: Sequence[str]) -> tuple[str, ...]:
    """Networks as `ipaddress` writes them; an address alone is a network of one. Raises BadInput."""
    if len(addresses) > _MOST_WORDS:
        raise BadInput(f"A key names at most {_MOST_WORDS} networks.")
    return tuple(dict.fromkeys(str(_network(address)) for address in addresses))


def order_calls(calls: Sequence[str]) -> tuple[str, ...]:
    """Raises BadInput."""
    for call in calls:
        if call not in CALLS:
            raise BadInput(f"There is no call {call[:40]!r}; there are {', '.join(CALLS)}.")
    return tuple(dict.fromkeys(calls))


def order_tokens(tokens: int | None, what: str) -> int | None:
    """Raises BadInput."""
    if tokens is None:
        return None
    if tokens < 1:
        raise BadInput(f"A key whose {what} may have 0 tokens could do nothing: give at least 1, or block the key.")
    if tokens > MOST_TOKENS:
        raise BadInput(f"No {what} has {tokens} tokens: leave the limit out.")
    return tokens


def order_description(text: str) -> str:
    """Raises BadInput."""
    text = text.strip()
    if len(text) > _LONGEST_DESCRIPTION or not text.replace("\n", "").isprintable():
        raise BadInput(f"A key's description has at most {_LONGEST_DESCRIPTION} characters, all of them printable.")
    return text


def order_labels(labels: Mapping[str, str], put: Mapping[str, str], removed: Collection[str] = ()) -> dict[str, str]:
    """`labels` with those of `put` and without those of `removed`, by name. Raises BadInput."""
    after = {name: value for name, value in {**labels, **put}.items() if name not in removed}
    for name, value in put.items():
        if not _LABEL.fullmatch(name):
            raise BadInput(
                f"A label's name is 1 to 63 letters, digits or . _ / - and begins with a letter or digit; {name[:80]!r} "
                "is not."
            )
        if len(value) > _LONGEST_VALUE or not value.isprintable():
            raise BadInput(f"The label {name} has at most {_LONGEST_VALUE} characters, all of them printable.")
    if len(after) > _MOST_LABELS:
        raise BadInput(f"A key has at most {_MOST_LABELS} labels.")
    return dict(sorted(after.items()))


def parse_labels(told: Sequence[str]) -> dict[str, str]:
    """Each NAME=VALUE. Raises BadInput."""
    found = {}
    for label in told:
        name, equals, value = label.partition("=")
        if not equals:
            raise BadInput(f"{label[:80]!r} is no label: write NAME=VALUE.")
        found[name] = value
    return found


def narrowed_terms(wanted: KeyTerms, held: KeyTerms) -> KeyTerms:
    """`wanted`, with what it leaves open as the bearer of a key with the terms `held` has it; pools are the caller's part.
    Raises NotAllowed where it reaches further."""
    if held == NO_TERMS:
        return wanted
    if wanted.audit is not None and held.audit is not None and wanted.audit is not held.audit:
        raise NotAllowed(f"What is kept of the key you use is {held.audit}; of a new one it is that too.")
    return KeyTerms(
        tuple(dict.fromkeys((*wanted.denied_models, *held.denied_models))),
        wanted.other_pools,
        _addresses_within(wanted.addresses, held.addresses),
        _calls_within(wanted.calls, held.calls),
        _tokens_within(wanted.max_output_tokens, held.max_output_tokens, "answers"),
        _tokens_within(wanted.max_context_tokens, held.max_context_tokens, "prompts"),
        wanted.audit or held.audit,
    )


def is_from(address: str, networks: Sequence[str]) -> bool:
    """Whether a key of these networks may be used from there. Nothing has what is no address."""
    if not networks:
        return True
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in ipaddress.ip_network(network) for network in networks)


def _network(text: str) -> Network:
    """IPv4 in IPv6's clothes is IPv4, as a client's address is."""
    try:
        network = ipaddress.ip_network(text.strip(), strict=True)
        mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
        if mapped is None or network.prefixlen < _MAPPED_BITS:
            return network
        return ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    except ValueError as error:
        try:
            whole = ipaddress.ip_network(text.strip(), strict=False)
        except ValueError:
            raise BadInput(
                f"{text[:80]!r} is no address and no network such as 10.0.0.0/8 or 2001:db8::/32."
            ) from error
        raise BadInput(f"{text[:80]} has bits beyond its prefix; did you mean {whole}?") from error


def _addresses_within(wanted: tuple[str, ...], held: tuple[str, ...]) -> tuple[str, ...]:
    if not wanted or not held:
        return wanted or held
    allowed = [ipaddress.ip_network(one) for one in held]
    for one in wanted:
        if not any(_is_within(ipaddress.ip_network(one), network) for network in allowed):
            raise NotAllowed(f"The key you use works only from {', '.join(held)}; a new one may not from {one}.")
    return wanted


def _is_within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and inner.subnet_of(outer)


def _calls_within(wanted: tuple[str, ...], held: tuple[str, ...]) -> tuple[str, ...]:
    if held and not set(wanted) <= set(held):
        raise NotAllowed(f"The key you use allows only {', '.join(held)}; a new one may not allow more.")
    return wanted or held


def _tokens_within(wanted: int | None, held: int | None, what: str) -> int | None:
    if held is not None and wanted is not None and wanted > held:
        raise NotAllowed(f"The key you use caps {what} at {held} tokens; a new one may not allow more.")
    return wanted if wanted is not None else held
