"""What the queue's page shows, from what the scheduler answered: who waits in which pool, what each had of it against what
their weight is worth, and what is held where. Pure; what is not known is None, never zero."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from forebay.wire.v1 import admin_pb2, scheduler_pb2, usage_queries_pb2
from forebay_admin.json_form import word
from forebay_admin.keys.key_words import BANDS

DEFAULT_POOL = "default"
FILTERS = ("pool", "band", "q")
MOST_ROWS = 200
"""Of one table; the others are counted."""
_LONGEST_FILTER = 60
_MUCH_MORE, _MUCH_LESS = 1.25, 0.75
"""Times what is due: between them somebody has their part."""


@dataclass(frozen=True, slots=True)
class Filter:
    pool: str = ""
    band: str = ""
    q: str = ""
    """Part of the name of a user, a model or a pool."""

    def query(self) -> str:
        """As an address or a topic says it; empty for everything."""
        return urlencode({name: value for name in FILTERS if (value := getattr(self, name))})

    def lets(self, pool: str, band: str, *names: str) -> bool:
        if (self.pool and pool != self.pool) or (self.band and band != self.band):
            return False
        return not self.q or any(self.q.casefold() in name.casefold() for name in (pool, *names))


@dataclass(frozen=True, slots=True)
class Waiting:
    turn: int
    """Whose next request is expected to start first has 1."""
    user: str
    user_id: str
    is_known: bool
    """The name is one, and not the id alone."""
    model: str
    band: str
    requests: int
    oldest_s: float
    foreseen_s: float | None
    because: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Share:
    user: str
    is_known: bool
    band: str
    groups: tuple[str, ...]
    weight: float
    due: float
    """0 to 1: by weight, among those who wait or run."""
    had: float | None
    """0 to 1, of what those who stand here had lately."""
    verdict: str
    """In words: more, less, about its part."""
    ahead_tokens: float
    waiting: int
    running: int


@dataclass(frozen=True, slots=True)
class PoolQueue:
    name: str
    requests: int
    oldest_s: float
    waiting: tuple[Waiting, ...]
    more: int
    """Rows that are not shown."""


@dataclass(frozen=True, slots=True)
class PoolShares:
    name: str
    shares: tuple[Share, ...]
    more: int


@dataclass(frozen=True, slots=True)
class Slots:
    backend: str
    is_known: bool
    held: int
    cap: int
    cap_is_found: bool
    quarantined: int
    lent: int
    tone: str
    state: str
    why: str


@dataclass(frozen=True, slots=True)
class Gateway:
    name: str
    is_there: bool
    heard_s: float
    running: int
    queued: int
    ceilings: int


@dataclass(frozen=True, slots=True)
class QueueView:
    measured_at: float
    waiting: int
    running: int
    cap: int
    oldest_s: float
    users: int
    pools: tuple[PoolQueue, ...]
    slots: tuple[Slots, ...]
    gateways: tuple[Gateway, ...]
    is_filtered: bool

    @property
    def gateways_there(self) -> int:
        return sum(gateway.is_there for gateway in self.gateways)


@dataclass(frozen=True, slots=True)
class SharesView:
    measured_at: float
    pools: tuple[PoolShares, ...]
    lately_s: float
    is_had_known: bool


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One that waits or runs."""

    id: str
    user: str
    key_id: str
    model: str
    pool: str
    band: str
    state: str
    tone: str
    waited_s: float
    foreseen_s: float | None
    ahead: int
    backend: str


def filter_of(asked: Mapping[str, str]) -> Filter:
    """Of an address; what cannot be in a name is cut away rather than answered with an error: it finds nothing."""

    def told(name: str) -> str:
        return "".join(c for c in asked.get(name, "") if c.isprintable()).strip()[:_LONGEST_FILTER]

    band = told("band")
    return Filter(told("pool"), band if band in BANDS else "", told("q"))


def filter_of_topic(text: str) -> Filter:
    return filter_of(dict(parse_qsl(text)))


def queue_view(told: admin_pb2.ViewQueueResponse, asked: Filter, now: float) -> QueueView:
    names, queue = told.names, told.queue
    rows: defaultdict[str, list[scheduler_pb2.QueuedUser]] = defaultdict(list)
    for one in queue.waiting:
        if asked.lets(_pool(one.pool), _band(one), names.users.get(one.user_id, one.user_id), one.model):
            rows[_pool(one.pool)].append(one)
    pools = tuple(_pool_queue(pool, rows[pool], names) for pool in sorted(rows))
    return QueueView(
        measured_at=now,
        waiting=sum(one.requests for one in queue.waiting),
        running=sum(one.held for one in queue.held),
        cap=sum(one.cap for one in queue.held),
        oldest_s=max((one.oldest_ms for one in queue.waiting), default=0) / 1000,
        users=len({one.user_id for one in queue.waiting}),
        pools=pools,
        slots=tuple(sorted((_slots(one, names) for one in queue.held), key=lambda s: (-s.held, s.backend))),
        gateways=tuple(_gateway(one) for one in sorted(queue.gateways, key=lambda g: g.gateway)),
        is_filtered=asked != Filter(),
    )


def shares_view(
    told: admin_pb2.ViewQueueResponse,
    had: usage_queries_pb2.QueryUsageResponse | None,
    asked: Filter,
    now: float,
    lately_s: float,
) -> SharesView:
    """`had`: what users used lately, by pool and user."""
    used: defaultdict[tuple[str, str], int] = defaultdict(int)
    for line in had.lines if had is not None else ():
        used[_pool(line.pool), line.user_id] += line.sums.prompt_tokens + line.sums.completion_tokens
    by_pool: defaultdict[str, list[scheduler_pb2.UserShare]] = defaultdict(list)
    for one in told.queue.shares:
        by_pool[_pool(one.pool)].append(one)
    pools = []
    for pool, shares in sorted(by_pool.items()):
        together = sum(used[pool, user] for user in {one.user_id for one in shares})
        shown = [
            _share(one, used[pool, one.user_id] / together if had is not None and together else None, told.names)
            for one in shares
            if asked.lets(pool, _band(one), told.names.users.get(one.user_id, one.user_id))
        ]
        shown.sort(key=lambda share: (share.ahead_tokens, share.user))
        if shown:
            pools.append(PoolShares(pool, tuple(shown[:MOST_ROWS]), max(0, len(shown) - MOST_ROWS)))
    return SharesView(now, tuple(pools), lately_s, had is not None)


def requests_of(told: admin_pb2.ViewDumpResponse, asked: Filter) -> tuple[list[RequestRow], int]:
    """Those that wait, the longest first, then those that run; and how many are not shown."""
    rows = [
        _request(one, told.names)
        for one in told.dump.recent
        if one.state in ("waiting", "running")
        and asked.lets(_pool(one.pool), _band(one), told.names.users.get(one.user_id, one.user_id), one.model)
    ]
    rows.sort(key=lambda row: (row.state != "waiting", -row.waited_s, row.id))
    return rows[:MOST_ROWS], max(0, len(rows) - MOST_ROWS)


def pools_told(told: admin_pb2.ViewQueueResponse) -> list[str]:
    """To choose from."""
    waiting, sharing = (one.pool for one in told.queue.waiting), (one.pool for one in told.queue.shares)
    return sorted({_pool(name) for name in (*waiting, *sharing)})


def verdict(due: float, had: float | None) -> str:
    if had is None:
        return "not known"
    if due <= 0:
        return "nothing is due"
    times = had / due
    if times > _MUCH_MORE:
        return "more than its part"
    return "less than its part" if times < _MUCH_LESS else "about its part"


def _pool_queue(pool: str, rows: Sequence[scheduler_pb2.QueuedUser], names: admin_pb2.Names) -> PoolQueue:
    # What nobody can foresee comes last; the scheduler says 0 for it.
    ordered = sorted(rows, key=lambda one: (not one.predicted_wait_ms, one.predicted_wait_ms, -one.oldest_ms))
    shown = [
        Waiting(
            turn=turn,
            user=names.users.get(one.user_id, one.user_id),
            user_id=one.user_id,
            is_known=one.user_id in names.users,
            model=one.model,
            band=_band(one),
            requests=one.requests,
            oldest_s=one.oldest_ms / 1000,
            foreseen_s=one.predicted_wait_ms / 1000 if one.predicted_wait_ms else None,
            because=tuple(one.blocked_by),
        )
        for turn, one in enumerate(ordered[:MOST_ROWS], start=1)
    ]
    return PoolQueue(
        pool,
        sum(one.requests for one in rows),
        max(one.oldest_ms for one in rows) / 1000,
        tuple(shown),
        max(0, len(rows) - MOST_ROWS),
    )


def _share(one: scheduler_pb2.UserShare, had: float | None, names: admin_pb2.Names) -> Share:
    return Share(
        user=names.users.get(one.user_id, one.user_id),
        is_known=one.user_id in names.users,
        band=_band(one),
        groups=tuple(names.groups.get(group, group) for group in one.groups),
        weight=one.weight_milli / 1000,
        due=min(1.0, max(0.0, one.due)),
        had=had,
        verdict=verdict(one.due, had),
        ahead_tokens=one.ahead_tokens,
        waiting=one.waiting,
        running=one.running,
    )


def _slots(one: scheduler_pb2.HeldSlots, names: admin_pb2.Names) -> Slots:
    if one.draining:
        tone, state = ("warn", "draining") if one.held + one.quarantined else ("warn", "drained")
    elif one.closed_because:
        tone, state = "bad", "closed"
    elif one.cap and one.held >= one.cap:
        tone, state = "info", "full"
    else:
        tone, state = "good", "takes requests"
    return Slots(
        backend=names.backends.get(one.backend_id, one.backend_id),
        is_known=one.backend_id in names.backends,
        held=one.held,
        cap=one.cap,
        cap_is_found=one.cap_is_found,
        quarantined=one.quarantined,
        lent=one.lent,
        tone=tone,
        state=state,
        why=one.closed_because,
    )


def _gateway(one: scheduler_pb2.GatewaySession) -> Gateway:
    return Gateway(one.gateway, one.connected, one.heard_ago_ms / 1000, one.running, one.queued, one.ceilings)


def _request(one: scheduler_pb2.Explanation, names: admin_pb2.Names) -> RequestRow:
    backends: Iterable[str] = (names.backends.get(a.backend_id, a.backend_id) for a in reversed(one.attempts))
    return RequestRow(
        id=one.request_id or one.ledger_id.hex(),
        user=names.users.get(one.user_id, one.user_id),
        key_id=one.key_id,
        model=one.model,
        pool=_pool(one.pool),
        band=_band(one),
        state=one.state,
        tone="info" if one.state == "waiting" else "good",
        waited_s=one.waited_ms / 1000,
        foreseen_s=one.predicted_wait_ms / 1000 if one.predicted_wait_ms else None,
        ahead=one.ahead,
        backend=next(iter(backends), "") if one.state == "running" else "",
    )


def _pool(name: str) -> str:
    return name or DEFAULT_POOL


def _band(message: scheduler_pb2.QueuedUser | scheduler_pb2.UserShare | scheduler_pb2.Explanation) -> str:
    return word(message, "band") or "standard"
