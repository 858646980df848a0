"""How even the shares are: by how much one is served ahead of another who waits for the same model. Pure.

Among siblings with a backlog for one model the least served is next, so their virtual times stay within one request's cost
of each other, weight for weight (Goyal, Vin and Cheng, 1996). A gap that is wide and stays says that somebody's turn cannot
come: a limit holds it, or something is wrong."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from forebay_scheduler.fairness.tree import Leaf, Node

LEVELS = ("band", "group", "user", "key")
_LEVEL_OF = {"g:": "group", "u:": "user", "k:": "key"}


def gaps(roots: Iterable[Node]) -> Mapping[str, float]:
    """Level → the widest gap there, in tokens of weight one; 0 where nobody waits beside another.

    It may be asked on a thread beside the one that changes the tree: it looks at copies, and a number is a moment old."""
    widest = dict.fromkeys(LEVELS, 0.0)
    stack = list(roots)
    while stack:
        node = stack.pop()
        waiting = [child for child in list(node.children.values()) if child.backlogs and not child.is_paused]
        if len(waiting) > 1:
            gap = _widest(waiting)
            level = _level(node, waiting[0])
            widest[level] = max(widest[level], gap)
        stack += [child for child in waiting if child.children]
    return widest


def _widest(siblings: Iterable[Node]) -> float:
    """Of those that wait for the same model."""
    least: dict[str, float] = {}
    most: dict[str, float] = {}
    for node in siblings:
        vt = node.vt
        if vt == -math.inf:
            continue  # nothing of it has had a turn yet
        for model in list(node.backlogs):
            if vt < least.get(model, math.inf):
                least[model] = vt
            if vt > most.get(model, -math.inf):
                most[model] = vt
    return max((most[model] - least[model] for model in most if model in least), default=0.0)


def _level(parent: Node, child: Node) -> str:
    return "band" if not parent.name else _LEVEL_OF.get(child.name[:2], "key" if isinstance(child, Leaf) else "group")
