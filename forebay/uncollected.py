"""Making very many objects at once, all of which stay. The garbage collector would look through them again and again while
they are made, and find nothing: with a hundred thousand keys that is two thirds of the work."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_open = 0


@contextmanager
def uncollected() -> Iterator[None]:
    """Nothing is collected before the last of those that overlap is left. Keep it short: seconds at most."""
    global _open
    if _open == 0 and not gc.isenabled():
        yield  # somebody else's decision
        return
    _open += 1
    gc.disable()
    try:
        yield
    finally:
        _open -= 1
        if _open == 0:
            gc.enable()
