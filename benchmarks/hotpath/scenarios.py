"""What is measured, on which systems. Pure: the plan, and nothing that runs it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.hotpath.loads import Load

DIRECT = "direct"
"""No system in between: what the generator and the engine take by themselves."""
OURS = "forebay"
"""Everything on: key check, limits in requests and tokens, a budget, fair queue, ledger, metrics."""
BARE = "forebay-bare"
"""The same process asked with a key whose user has no limits: nothing is reserved. Nothing else can be turned off."""
AIOHTTP = "forebay-aiohttp"
"""Everything on, and aiohttp reads every request."""
TLS = "forebay-tls"
"""Everything on, and clients come over TLS."""
WORKERS = "forebay-2"
FAMILY = (OURS, BARE, AIOHTTP, TLS)
FAST = ("nginx", "envoy", "sglang-router", "vllm-router")
LITELLM = "litellm"


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    about: str
    load: Load
    systems: tuple[str, ...]
    is_fresh: bool = False
    """Each system is started for it alone, as where memory is looked at."""


def plan(*, short: bool) -> list[Scenario]:
    seconds, streams_s = (1.5, 3.0) if short else (4.0, 6.0)
    plain = Load(connections=64, seconds=seconds)
    paced = Load(connections=200, seconds=streams_s, open_ms=1200, tokens=64, gap_ms=20)
    everyone = (DIRECT, *FAST, LITELLM, *FAMILY)
    fast = (DIRECT, *FAST, *FAMILY)
    bodies = ("nginx", OURS, BARE)
    many = 2_000 if short else 10_000
    return [
        Scenario("plain64", "plain requests, 64 connections, closed loop", plain, everyone),
        Scenario("plain1", "plain requests, one connection", replace(plain, connections=1), everyone),
        Scenario(
            "rate500", "500 plain requests a second, timed from when each was due", replace(plain, rate=500), fast
        ),
        Scenario("rate2000", "2,000 of them", replace(plain, rate=2000), fast),
        Scenario("kb8", "as plain64 with 8 kB of prompt", replace(plain, prompt_bytes=8_000), fast),
        Scenario("paced200", "200 streams, a token each 20 ms", paced, fast),
        Scenario("burst64", "64 streams of 64 tokens that come at once", replace(plain, tokens=64), fast),
        Scenario(
            "anthropic-to-openai",
            "as paced200: Anthropic's client, OpenAI's engine",
            replace(paced, path="/v1/messages", ends="message_stop"),
            (OURS,),
        ),
        Scenario(
            "ollama-to-openai",
            "as paced200: Ollama's client, OpenAI's engine",
            replace(paced, path="/api/chat", ends='"done":true'),
            (OURS,),
        ),
        Scenario(
            "openai-to-anthropic",
            "as paced200: OpenAI's client, Anthropic's engine",
            replace(paced, model="mock-anthropic"),
            (OURS,),
        ),
        *(
            Scenario(
                f"body{size}",
                f"requests with a prompt of {size:,} bytes, 4 connections",
                Load(connections=4, seconds=seconds, prompt_bytes=size),
                bodies,
            )
            for size in (10, 1_000, 100_000, 10_000_000)
        ),
        *(
            Scenario(
                f"streams{count}",
                f"{count:,} streams, a token each 100 ms",
                Load(connections=count, seconds=streams_s, open_ms=max(200, 2 * count), tokens=60, gap_ms=100),
                ("nginx", OURS),
            )
            for count in (10, 100, 1_000)
        ),
        Scenario(
            "memory1000",
            "memory with 1,000 streams, a token each 100 ms",
            Load(connections=1_000, seconds=3, open_ms=4_000, tokens=400, gap_ms=100),
            (*FAST, OURS),
            is_fresh=True,
        ),
        Scenario(
            f"many{many}",
            f"{many:,} streams, a token each 750 ms, two processes on one core",
            # Streams end and begin anew while they are looked at: one that lost a token is seen.
            Load(connections=many, seconds=20, warm_s=5, open_ms=2 * many, tokens=16, gap_ms=750),
            (WORKERS,),
            is_fresh=True,
        ),
    ]
