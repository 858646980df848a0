"""One gateway process's ceiling on one backend, and the two ends it ties together. State only; `ceilings` decides.

used ≤ told ≤ believed ≤ sure           what may run, and what the bus would tell a successor
Σ reserved over a backend ≤ its cap     so every shard that is written fits, and every successor starts from one that fits"""

from __future__ import annotations

from forebay_scheduler.request import BackendId, PoolName, Process, SessionId


class Holder:
    """One gateway process."""

    __slots__ = ("ceilings", "is_dead", "is_heard", "process", "session")

    def __init__(self, process: Process) -> None:
        self.process = process
        self.session: SessionId | None = None
        """None while it is out of reach: what it was told stands and nothing can be lowered."""
        self.is_heard = False
        """It has said Hello to this leader, which therefore knows what it holds."""
        self.is_dead = False
        """What is left of its ceilings is kept until its engines are done."""
        self.ceilings: dict[BackendId, Ceiling] = {}


class Split:
    """One backend's cap, and how it is split among processes."""

    __slots__ = ("backend", "cap", "ceilings", "pool", "shard", "wants")

    def __init__(self, backend: BackendId, shard: int) -> None:
        self.backend = backend
        self.shard = shard
        self.cap = 0
        self.pool = PoolName("")
        self.ceilings: dict[Process, Ceiling] = {}
        self.wants: dict[Process, int] = {}
        """Ceilings that were promised and wait for others to be lowered; the oldest first."""

    @property
    def unallotted(self) -> int:
        """Below zero when a cap was lowered and the gateways have not followed yet."""
        return self.cap - sum(ceiling.reserved for ceiling in self.ceilings.values())


class Ceiling:
    """Of one process on one backend."""

    __slots__ = ("asked", "asked_at", "believed", "has_settled", "holder", "split", "sure", "target", "told", "used")

    def __init__(self, holder: Holder, split: Split) -> None:
        self.holder = holder
        self.split = split
        self.target = 0
        """What it is to be."""
        self.told = 0
        """What it was told last, in this session or (by its Hello) before it."""
        self.believed = 0
        """The most that it may go by: no lower ceiling is acknowledged. Also what it held when it acknowledged."""
        self.sure = 0
        """The least that the bus may say of it, whichever of the writes on their way has arrived."""
        self.used = 0
        """Taken by grants and credits, as this leader knows."""
        self.asked: list[tuple[int, int]] = []
        """Version and slots of what was told and not acknowledged yet."""
        self.asked_at = float("-inf")
        self.has_settled = False
        """Something was given back since it was last told."""

    @property
    def reserved(self) -> int:
        """What nobody else may be given, and what is stored."""
        return self.target if self.target > self.believed else self.believed

    @property
    def idle(self) -> int:
        return self.target - self.used
