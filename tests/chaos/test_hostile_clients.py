"""Clients that mean harm, beside one that does not: connections that idle or dribble, heads, bodies and archives without
end, keys tried by the ten thousand. The one is served as before, and memory stays within bounds."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import secrets
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from forebay.address_gate import AddressGate
from forebay.brute_force import MOST_COUNTED
from forebay.client_addresses import TrustedProxies
from forebay.clock import ManualClock
from forebay.errors import ForebayError
from forebay.event_counts import MOST_TOLD_APART, EventCounts, Sort
from forebay.keys import new_key, seal_secret
from forebay.local.layout import LOOPBACK
from forebay_gateway.callers.call import read_call
from forebay_gateway.callers.guard import Guard
from forebay_gateway.callers.principals import KnownKey, Principal, Principals
from tests.chaos.figures import LONG, resident_bytes, tell
from tests.chaos.quick_client import NO_ANSWER, Answer, QuickClient, chat, request, share
from tests.system.cluster import Cluster, cluster_place, open_cluster

ENGINES = {"one": ("--slots", "8", "--tokens-per-s", "2000", "--ttft-s", "0")}
IDLE = 10_000 if LONG else 2_000
DRIBBLING = 1_000 if LONG else 200
WRONG_KEYS = 1_000_000 if LONG else 50_000
WRONG_KEYS_SENT = 20_000 if LONG else 4_000
_PHASE_S = 20.0 if LONG else 3.0
_DRIBBLE_S = 2.0
_HEAD_ENDS_WITHIN_S = 45.0
"""A head may take 30 s; it is looked every 5, and here every other second."""
_HELD = 64 << 20
_MEMORY_GROWS_BY = 320 << 20
"""What may be held of bodies, four more that come from the disk, what is made of one, and the connections; `afterwards` says
what is left of it."""
_MEMORY_STAYS_BY = 64 << 20
_SLOWER_BY, _SLOWER_S = 5.0, 1.0
"""How much longer a neighbour's request may take in the median; whichever is more."""
_ENOUGH = 5
"""So many of its requests have a median worth the name."""
_LONGEST_S = 20.0
"""That any of them may take. On a machine that does much else beside, seconds are no sign of harm."""
_SETTINGS = {
    "gateway-1": {
        "FOREBAY_GATEWAY_HELD_BODIES_BYTES": str(_HELD),
        "FOREBAY_GATEWAY_SPOOLED_BODIES_BYTES": str(256 << 20),
        "FOREBAY_GATEWAY_TRUSTED_PROXIES": LOOPBACK,  # so that one machine can come from many addresses
    }
}
_MOST_BODY = 32 << 20


@pytest.fixture
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    place = cluster_place(tmp_path_factory, "hostile")
    async with open_cluster(place, gateways=1, users=2, engines=ENGINES, engine_slots=8, settings=_SETTINGS) as cluster:
        yield cluster


@dataclass
class Neighbour:
    """One client like others; how it fares, phase by phase."""

    port: int
    key: str
    phase: str = "calm"
    answers: dict[str, list[Answer]] = field(default_factory=dict)

    async def live(self) -> None:
        """Until cancelled."""
        async with QuickClient(self.port) as client:
            while True:
                phase = self.phase
                answer = await client.ask(chat(self.key, "hello", tokens=5, stream=True))
                self.answers.setdefault(phase, []).append(answer)
                await asyncio.sleep(0.02)

    def took_s(self, phase: str, part: float) -> float:
        return share([answer.took_s for answer in self.answers[phase]], part)

    def unserved(self) -> int:
        return sum(answer.status != 200 for answers in self.answers.values() for answer in answers)


@dataclass
class Attack:
    port: int
    key: str
    chance: random.Random
    answered: Counter[str] = field(default_factory=Counter)
    """What attempts got, as `what status`."""
    unharmed: list[str] = field(default_factory=list)
    """Attempts that got what they should not have got."""
    idle: list[socket.socket] = field(default_factory=list)

    def note(self, what: str, answer: Answer, *expected: int) -> None:
        self.answered[f"{what} {answer.status or 'closed'}"] += 1
        if answer.status not in expected:
            self.unharmed.append(f"{what}: {answer.status} {answer.body[:200]!r}")

    async def raw(self, whole: bytes, within_s: float = 20.0) -> Answer:
        async with QuickClient(self.port) as client:
            return await client.ask(whole, within_s)

    def open_idle(self, many: int) -> None:
        """A third says nothing, a third has asked for a page, a third was refused a generation. For a thread."""
        page = f"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self.key}\r\n\r\n".encode()
        refused = request(b"{}", authorization="Bearer wrong")
        for number in range(many):
            one = socket.create_connection((LOOPBACK, self.port), timeout=30)
            if number % 3:
                one.sendall(page if number % 3 == 1 else refused)
                one.recv(65536)
            one.setblocking(False)
            self.idle.append(one)

    def still_open(self, sockets: list[socket.socket]) -> int:
        return sum(_is_open(one) for one in sockets)

    def close_idle(self) -> None:
        for one in self.idle:
            one.close()

    # --- heads --------------------------------------------------------------------------------------------------------

    async def heads(self) -> None:
        first = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
        bombs = {
            "a long header": first + b"x-long: " + b"a" * (1 << 20) + b"\r\n\r\n",
            "many headers": first + b"".join(b"x-%d: y\r\n" % number for number in range(20_000)) + b"\r\n",
            "a long line": b"POST /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nhost: x\r\n\r\n",
            "no line at all": b"A" * (1 << 20),
            "many headers of a page": b"GET /v1/models HTTP/1.1\r\nhost: x\r\n"
            + b"".join(b"x-%d: y\r\n" % number for number in range(20_000))
            + b"\r\n",
        }
        for what, bomb in bombs.items():
            self.note(what, await self.raw(bomb), 400, 401, 413, 431, NO_ANSWER)

    # --- bodies -------------------------------------------------------------------------------------------------------

    async def bodies(self) -> None:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self.key}\r\n"
        announced = f"{head}content-type: application/json\r\ncontent-length: {10 << 30}\r\n\r\n".encode()
        self.note("ten GiB announced", await self.raw(announced), 413)
        self.note("chunks without end", await self._endless(f"{head}transfer-encoding: chunked\r\n\r\n".encode()), 413)
        deep = b'{"model":"fake-model","messages":' + b"[" * 500_000
        self.note("deep brackets", await self.raw(request(deep, authorization=f"Bearer {self.key}")), 400)
        deep = b'{"model":"fake-model","messages":' + b"[" * 500_000 + b"]" * 500_000 + b"}"
        self.note("deep and whole", await self.raw(request(deep, authorization=f"Bearer {self.key}")), 400)
        wide = b"{" + b",".join(b'"k%d":0' % number for number in range(200_000)) + b"}"
        self.note("many fields", await self.raw(request(wide, authorization=f"Bearer {self.key}")), 400)
        many = {"model": "fake-model", "messages": [{"role": "user", "content": "x"}] * 100_000, "max_tokens": 1}
        whole = request(json.dumps(many).encode(), authorization=f"Bearer {self.key}")
        self.note("many messages", await self.raw(whole), 200, 400, 413)

    async def large_bodies(self, at_once: int) -> None:
        """As large as they may be, and then of no use."""
        large = request(
            b'{"model":"nobody-has-it","messages":"' + b"a" * (_MOST_BODY - 100) + b'"}',
            authorization=f"Bearer {self.key}",
        )
        for answer in await asyncio.gather(*(self.raw(large, 60) for _ in range(at_once))):
            self.note("large bodies", answer, 400, 404, 413, 429, 503)
        brackets = b'{"model":"nobody-has-it","messages":[' + b"{}," * ((_MOST_BODY - 100) // 3) + b"{}]}"
        self.note(
            "ten million brackets", await self.raw(request(brackets, authorization=f"Bearer {self.key}"), 60), 413
        )

    async def _endless(self, head: bytes) -> Answer:
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        began = time.monotonic()
        writer.write(head)
        piece = b"10000\r\n" + b"a" * 65536 + b"\r\n"
        answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        try:
            for _ in range(4 * _MOST_BODY // 65536):
                if answer.done():
                    break
                writer.write(piece)
                await writer.drain()
            async with asyncio.timeout(20):
                status = int((await answer).split()[1])
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            status = NO_ANSWER
        finally:
            answer.cancel()
            writer.transport.abort()
        return Answer(status, took_s=time.monotonic() - began)

    # --- archives -----------------------------------------------------------------------------------------------------

    async def archives(self, bomb: bytes, at_once: int) -> None:
        whole = request(bomb, authorization=f"Bearer {self.key}", content_encoding="gzip")
        for answer in await asyncio.gather(*(self.raw(whole, 60) for _ in range(at_once))):
            self.note("an archive that grows a thousandfold", answer, 413, 400)
        twice = request(gzip.compress(bomb), authorization=f"Bearer {self.key}", content_encoding="gzip, gzip")
        self.note("an archive within one", await self.raw(twice, 60), 400, 413, 415)

    # --- keys ---------------------------------------------------------------------------------------------------------

    async def wrong_keys(self, many: int) -> float:
        """From many addresses, on a few connections. Gives how many a second."""
        began = time.monotonic()
        left = iter(range(many))
        await asyncio.gather(*(self._try_keys(left) for _ in range(8)))
        return many / (time.monotonic() - began)

    async def _try_keys(self, left: Iterator[int]) -> None:
        async with QuickClient(self.port) as client:
            for number in left:
                address = f"198.{18 + number // 65536 % 2}.{number // 256 % 256}.{number % 256}"
                whole = request(b"{}", authorization=f"Bearer {new_key()}", x_forwarded_for=address)
                self.note("a wrong key", await client.ask(whole), 401, 403, 429)

    async def one_stranger(self) -> Answer:
        """Who tries on is banned; the last answer."""
        async with QuickClient(self.port) as client:
            for _ in range(60):
                whole = request(b"{}", authorization=f"Bearer {new_key()}", x_forwarded_for="203.0.113.9")
                answer = await client.ask(whole)
        return answer


async def _dribble(sockets: list[socket.socket]) -> float:
    """A header line of each now and then, until all are closed. Gives how long that took, from their beginning."""
    began = time.monotonic()
    while any([_is_open(one) for one in sockets]):
        for one in sockets:
            with suppress(OSError):
                one.send(b"x-a: b\r\n")
        await asyncio.sleep(_DRIBBLE_S)
    return time.monotonic() - began


def _is_open(one: socket.socket) -> bool:
    try:
        return one.recv(65536) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _slow_heads(port: int, key: str, many: int) -> list[socket.socket]:
    """Half with their first request, half with one after a page that was answered. For a thread."""
    page = f"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n".encode()
    sockets = []
    for number in range(many):
        one = socket.create_connection((LOOPBACK, port), timeout=30)
        if number % 2:
            one.sendall(page)
            one.recv(65536)
        one.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n")
        one.setblocking(False)
        sockets.append(one)
    return sockets


@pytest.mark.timeout(3600 if LONG else 500)
async def test_clients_that_mean_harm_do_none_to_others(cluster: Cluster) -> None:
    port = cluster.layout.gateway("gateway-1")
    pid = cluster.parts["gateway-1"].pid
    assert pid is not None
    neighbour = Neighbour(port, cluster.keys[0])
    attack = Attack(port, cluster.keys[1], random.Random(int(os.environ.get("FOREBAY_CHAOS_SEED", "3"))))
    bomb = await asyncio.to_thread(lambda: gzip.compress(bytes(256 << 20), 6))
    memory: dict[str, int] = {}
    tasks = [asyncio.create_task(neighbour.live()), asyncio.create_task(_watch(pid, neighbour, memory))]

    async def phase(name: str, work: Callable[[], Awaitable[object]] | None = None) -> None:
        """At least so long: again and again."""
        neighbour.phase = name
        until = time.monotonic() + _PHASE_S
        while time.monotonic() < until:
            if work is None:
                await asyncio.sleep(0.1)
            else:
                await work()

    await phase("calm")
    slow = await asyncio.to_thread(_slow_heads, port, attack.key, DRIBBLING)
    dribbling = asyncio.create_task(_dribble(slow))
    await phase("slow heads")
    neighbour.phase = "idle connections opening"
    await asyncio.to_thread(attack.open_idle, IDLE)
    await phase("idle connections")
    idle_open = attack.still_open(attack.idle)
    await phase("heads without end", attack.heads)
    await phase("bodies without end", attack.bodies)
    await phase("large bodies", lambda: attack.large_bodies(3))
    await phase("archives", lambda: attack.archives(bomb, 4))
    neighbour.phase = "wrong keys"
    keys_per_s = await attack.wrong_keys(WRONG_KEYS_SENT)
    stranger = await attack.one_stranger()
    neighbour.phase = "waiting for slow heads to be ended"
    await asyncio.wait([dribbling], timeout=2 * _HEAD_ENDS_WITHIN_S)
    slow_ended_s = dribbling.result() if dribbling.done() else None
    dribbling.cancel()
    attack.close_idle()
    await phase("afterwards")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for one in slow:
        one.close()
    guessing = await asyncio.to_thread(_guess, WRONG_KEYS)

    phases = [name for name, answers in neighbour.answers.items() if name != "calm" and len(answers) >= _ENOUGH]
    worst_p50 = max(phases, key=lambda name: neighbour.took_s(name, 0.5))
    worst_p99 = max(phases, key=lambda name: neighbour.took_s(name, 0.99))
    bearable_s = max(_SLOWER_BY * neighbour.took_s("calm", 0.5), neighbour.took_s("calm", 0.5) + _SLOWER_S)
    growth = {name: most - memory["calm"] for name, most in memory.items()}
    figures = {
        "idle connections": IDLE,
        "KiB of each": (memory["idle connections"] - memory["slow heads"]) / 1024 / IDLE,
        "slow heads": DRIBBLING,
        "all ended after s": slow_ended_s,
        "wrong keys sent": WRONG_KEYS_SENT,
        "wrong keys sent /s": keys_per_s,
        "wrong keys in process": WRONG_KEYS,
        "us for each": guessing.us_each,
        "MiB more after them": guessing.grew_by / (1 << 20),
        "grew most MiB": max(growth.values()) / (1 << 20),
        "in": max(growth, key=lambda name: growth[name]),
        "neighbour's requests": sum(map(len, neighbour.answers.values())),
        "not served": neighbour.unserved(),
        "calm p50 ms": 1000 * neighbour.took_s("calm", 0.5),
        "calm p99 ms": 1000 * neighbour.took_s("calm", 0.99),
        "worst p50 ms": 1000 * neighbour.took_s(worst_p50, 0.5),
        "worst p50 in": worst_p50,
        "worst p99 ms": 1000 * neighbour.took_s(worst_p99, 0.99),
        "worst p99 in": worst_p99,
        "worst p50 / calm": neighbour.took_s(worst_p50, 0.5) / neighbour.took_s("calm", 0.5),
        "afterwards p50 / calm": neighbour.took_s("afterwards", 0.5) / neighbour.took_s("calm", 0.5),
    }
    holds = {
        "the neighbour was served each time": not neighbour.unserved(),
        "its median request took hardly longer": all(neighbour.took_s(name, 0.5) <= bearable_s for name in phases),
        "and none of them long": all(neighbour.took_s(name, 1.0) <= _LONGEST_S for name in neighbour.answers),
        "memory is bounded": max(growth.values()) <= _MEMORY_GROWS_BY,
        "and comes back": growth["afterwards"] <= _MEMORY_STAYS_BY,
        "every bomb was refused": not attack.unharmed,
        "idle connections cost nobody anything and are kept": idle_open == IDLE,
        "slow heads were ended": slow_ended_s is not None and slow_ended_s <= _HEAD_ENDS_WITHIN_S,
        "who tries key after key is banned": stranger.reason == "address_banned",
        "what is remembered of wrong keys is bounded": guessing.is_bounded,
    }
    broken = tell("hostile_clients", figures, holds)
    by_phase = {
        name: (
            len(answers),
            round(1000 * neighbour.took_s(name, 0.5), 1),
            round(1000 * neighbour.took_s(name, 0.99), 1),
        )
        for name, answers in neighbour.answers.items()
    }
    grew = {name: round(more / (1 << 20), 1) for name, more in growth.items()}
    told = [
        f"neighbour (requests, p50 ms, p99 ms): {by_phase}",
        f"MiB more: {grew}",
        f"answers: {dict(attack.answered)}",
    ]
    assert not broken, "\n".join([*broken, *attack.unharmed[:20], *told])


async def _watch(pid: int, neighbour: Neighbour, memory: dict[str, int]) -> None:
    """Until cancelled: the most memory in each phase."""
    while True:
        memory[neighbour.phase] = max(memory.get(neighbour.phase, 0), resident_bytes(pid))
        await asyncio.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Guessing:
    us_each: float
    grew_by: int
    is_bounded: bool


class _News:
    """As what is told to admin, but for the telling."""

    def __init__(self) -> None:
        self.counts = EventCounts()
        self.bans: set[str] = set()

    def note(self, sort: Sort) -> None:
        self.counts.note(sort, 0.0)

    def note_ban(self, network: str, failures: int) -> None:
        self.bans.add(network)


def _guess(many: int) -> Guessing:
    """So many distinct keys, from as many addresses as there are, by the way that a request's key goes."""
    clock = ManualClock()
    pepper = secrets.token_bytes(32)
    principals = Principals(pepper)
    real = new_key()
    principals.replace_all([KnownKey(Principal(real.public_id, "u"), seal_secret(pepper, real.secret))], version=1)
    news = _News()
    guard = Guard(AddressGate(), principals, news, TrustedProxies(), clock)
    before, began = resident_bytes(os.getpid()), time.monotonic()
    let_in = 0
    for number in range(many):
        key = f"fb-{number:012x}-{number:064x}"
        address = f"{1 + number % 199}.{number // 199 % 250}.{number // 49_750 % 250}.1"
        call = read_call("", "/v1/chat/completions", {"authorization": f"Bearer {key}"}, address=address)
        try:
            guard.demand(call)
            principals.verify(key, clock.now())
            let_in += 1
        except ForebayError as error:
            guard.note(call, error)
    took_s = time.monotonic() - began
    is_bounded = not let_in and len(guard._failures) <= MOST_COUNTED and len(news.counts) <= MOST_TOLD_APART + 2
    return Guessing(1e6 * took_s / many, max(0, resident_bytes(os.getpid()) - before), is_bounded)
