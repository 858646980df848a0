"""Which command is obeyed. Pure: node, start, time and settings come in, a refusal or nothing goes out.

That a command names the start of the agent that it is for makes replays void without anything being kept on disk."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

EARLY_S = 60.0
"""How far the registry's clock may be ahead of ours."""
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_MODEL = re.compile(rf"(?:{_WORD}:[0-9]{{1,5}}/)?(?:{_WORD}/){{0,4}}{_WORD}(?::{_WORD})?")


class OrderKind(StrEnum):
    """What a command may ask for; also what the setting `commands` names."""

    SAMPLE = "sample"
    PROBE = "probe"
    PULL = "pull"
    DELETE = "delete"


class Refusal(StrEnum):
    """Why a command is not obeyed; also the label of its metric."""

    MALFORMED = "malformed"
    NO_KEY = "no_key"
    BAD_SIGNATURE = "bad_signature"
    FOREIGN = "foreign"
    ANOTHER_START = "another_start"
    EXPIRED = "expired"
    NOT_YET = "not_yet"
    REPLAYED = "replayed"
    UNKNOWN_ORDER = "unknown_order"
    NOT_ALLOWED = "not_allowed"
    BAD_MODEL = "bad_model"
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class Order:
    id: str
    node: str
    agent_started_us: int
    issued_at: float
    """Seconds since the epoch by the registry's clock, as is `expires_at`."""
    expires_at: float
    actor: str
    kind: OrderKind | None
    """None: a word of a newer registry."""
    model: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class Here:
    """What this agent is and may do."""

    node: str
    agent_started_us: int
    allowed: Collection[OrderKind]
    seen: Collection[str]
    """Ids of the commands that were taken and have not expired."""


@dataclass(frozen=True, slots=True)
class Refused:
    why: Refusal
    message: str


def judge(order: Order, here: Here, now: float) -> Refused | None:
    """Of a command whose signature is good. `now`: seconds since the epoch by this node's clock."""
    if order.node != here.node:
        return Refused(Refusal.FOREIGN, f"The command is for the node {order.node}; this is {here.node}.")
    if order.agent_started_us != here.agent_started_us:
        return Refused(Refusal.ANOTHER_START, "The command was for this agent before it started anew; give it again.")
    if order.id in here.seen:
        return Refused(Refusal.REPLAYED, "The command came before; nothing is done twice.")
    if now >= order.expires_at:
        late_s = now - order.expires_at
        return Refused(
            Refusal.EXPIRED, f"By this node's clock the command expired {late_s:.0f} s ago. Are both clocks right?"
        )
    if now < order.issued_at - EARLY_S:
        early_s = order.issued_at - now
        return Refused(
            Refusal.NOT_YET,
            f"By this node's clock the command comes from {early_s:.0f} s ahead. Are both clocks right?",
        )
    if order.kind is None:
        return Refused(Refusal.UNKNOWN_ORDER, "This agent does not know such a command; is it of an older version?")
    if order.kind not in here.allowed:
        why = f"This node does not allow {order.kind}; the setting `commands` of its agent names what it does."
        return Refused(Refusal.NOT_ALLOWED, why)
    if order.kind in (OrderKind.PULL, OrderKind.DELETE) and not _MODEL.fullmatch(order.model):
        return Refused(Refusal.BAD_MODEL, f"{order.model[:200]!r} is not the name of a model.")
    return None
