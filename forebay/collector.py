"""Python's garbage collector, tuned for a service: it holds tens of thousands of objects that live long, and nothing that it
does may pause. What is there at the start is never looked at again, and the young are looked at less often."""

from __future__ import annotations

import gc

_YOUNG = 50_000
"""New objects between two looks at the young: a look costs with them, a request makes about a hundred."""
_OLDER = 20


def calm() -> None:
    """For the whole process, once what stays has been made; again whenever much more of that has come."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _OLDER, _OLDER)
