"""One measurement: a load on one system, and what came of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.hotpath.machine import Cores, busy_share, family

CHAT = "/v1/chat/completions"


class NotMeasured(Exception):
    """A system did not start, or a load did not come to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    connections: int
    seconds: float = 3.0
    warm_s: float = 1.0
    open_ms: int = 0
    """Over how long the connections are opened."""
    rate: float = 0.0
    """Requests a second, each timed from when it was due. 0: each connection asks again when it is answered."""
    prompt_bytes: int = 120
    tokens: int = 0
    """Of a stream. 0: a plain answer."""
    gap_ms: int = 0
    """Between tokens. 0: all at once."""
    path: str = CHAT
    ends: str = "[DONE]"
    """What a whole stream has at its end."""
    answers: int = 0
    """After so many it ends sooner. 0: after its time alone."""
    model: str = ""
    """Another one than the system's."""

    def words(self) -> list[str]:
        options: dict[str, object] = {
            "-c": self.connections,
            "-d": self.seconds,
            "-w": self.warm_s,
            "-o": self.open_ms,
            "-r": self.rate,
            "-b": self.prompt_bytes,
            "-t": self.tokens,
            "-g": self.gap_ms,
            "-u": self.path,
            "-e": self.ends,
        }
        if self.answers:
            options["-n"] = self.answers
        return [str(part) for option in options.items() for part in option]

    @property
    def longest_s(self) -> float:
        return self.open_ms / 1000 + self.warm_s + self.seconds + 60


@dataclass(frozen=True, slots=True)
class System:
    """Something that answers requests on this machine, and the processes that are charged for it."""

    name: str
    port: int
    pids: tuple[int, ...] = ()
    key: str = "none"
    tls: bool = False
    model: str = "mock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Times in microseconds; those of a stream's first token and of a token's way (`transit`) are None for plain answers."""

    seconds: float
    answers: int
    errors: int
    incomplete: int
    """Streams that lack a token or their end."""
    tokens: int
    connects: int
    cpu_s: float
    rss_mb: float
    pss_mb: float
    """As `rss_mb`, what processes share counted once."""
    own_cpu_s: float
    """The generator's."""
    longest_silence_ms: float
    """Between two answers."""
    busy_before: float = 0.0
    """Share of the system's core that others used just before."""
    latency_p50_us: float | None = None
    latency_p99_us: float | None = None
    first_p50_us: float | None = None
    first_p99_us: float | None = None
    transit_p50_us: float | None = None
    transit_p99_us: float | None = None
    behind_s: float = 0.0
    """How far a constant rate was behind at the end: above a few milliseconds the rate was not held."""
    said: str = ""
    """What the generator said of the first errors."""

    @property
    def is_valid(self) -> bool:
        """Errors are cheap: with any of them the costs say nothing."""
        return self.errors == 0 and self.incomplete == 0 and (self.answers > 0 or self.tokens > 0)

    @property
    def us_per_answer(self) -> float:
        return self.cpu_s * 1e6 / max(1, self.answers)

    @property
    def us_per_token(self) -> float:
        return self.cpu_s * 1e6 / max(1, self.tokens)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Reading:
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in told.items() if name in known})


async def measure(system: System, load: Load, cores: Cores, programs: Path) -> Reading:
    """Raises NotMeasured."""
    busy = await asyncio.to_thread(busy_share, cores.system)
    words = [*load.words(), "-p", str(system.port), "-k", system.key, "-m", load.model or system.model]
    if system.pids:
        words += ["-P", ",".join(str(pid) for pid in family(*system.pids))]
    if system.tls:
        words.append("-s")
    process = await asyncio.create_subprocess_exec(
        *cores.pinned(cores.load),
        str(programs / "load"),
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(load.longest_s):
            told, said = await process.communicate()
    except TimeoutError:
        raise NotMeasured(f"{system.name}: the load did not end in {load.longest_s:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise NotMeasured(f"{system.name}: {said.decode(errors='replace').strip()}")
    return Reading.of({**json.loads(told), "busy_before": busy, "said": said.decode(errors="replace").strip()})
