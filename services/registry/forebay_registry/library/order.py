"""What somebody wants done with a model, read and checked. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from forebay.errors import BadInput
from forebay_registry.library.choosing import Choice
from forebay_registry.library.job import Action
from forebay_registry.library.names import demand_keep_alive, demand_model, demand_source


@dataclass(frozen=True, slots=True)
class Order:
    actor: str
    action: Action
    model: str
    """As the fleet calls it."""
    on: Choice
    destination: str = ""
    """Of a copy."""
    source: str = ""
    """Of an adapter."""
    keep_alive: str = ""
    force: bool = False


def check(order: Order) -> Order:
    """The same. Raises BadInput."""
    demand_model(order.model)
    if order.action is Action.COPY:
        if not order.destination:
            raise BadInput("Say what the copy is to be called.")
        demand_model(order.destination)
    elif order.destination:
        raise BadInput("Only a copy has a second name.")
    if order.source:
        if order.action is not Action.PRELOAD:
            raise BadInput("Only an adapter that is loaded lies somewhere.")
        demand_source(order.source)
    demand_keep_alive(order.keep_alive)
    if order.keep_alive and order.action is not Action.PRELOAD:
        raise BadInput("How long a model stays loaded is said when it is loaded.")
    return order
