"""A whole fleet in one process: a thousand engines that answer what a prober asks, and the agents of their nodes.

It is cheap, so that it is not what is measured: the engines share one listening socket (each has an address of its own in
127.0.0.0/8) and send pages made beforehand; agents share one connection and publish samples of which little changes.

    python -m tests.fakes.fleet_simulator --engines 1000 --nodes 250 … ; commands on stdin, a line of JSON each way:
    {"do": "looks"}                     → {"by_second": {"1800000000": 71, …}}: looks at engines, by the second
    {"do": "close", "mortal": 3}        → {}: nothing listens there any more
    {"do": "open", "mortal": 3}         → {}
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forebay.nats_bus import open_nats_bus
from forebay.subjects import telemetry
from forebay.wire.v1.telemetry_pb2 import GPU_STATE_OK, GpuProcess, GpuSample, HostSample, TelemetrySample

MODELS = tuple(f"model-{number}" for number in range(20))
_PAGES = 8
"""Versions of the gauges, so that they change."""
_HISTOGRAMS = (
    *("time_to_first_token_seconds", "time_per_output_token_seconds", "inter_token_latency_seconds"),
    *("e2e_request_latency_seconds", "request_queue_time_seconds", "request_inference_time_seconds"),
    *("request_prefill_time_seconds", "request_decode_time_seconds", "request_prompt_tokens"),
    *("request_generation_tokens", "request_params_n", "request_params_max_tokens", "iteration_tokens_total"),
)
_BUCKETS = (*(f"{0.001 * 2**step:g}" for step in range(20)), "+Inf")


def address_of(engine: int, port: int) -> str:
    return f"http://{host_of(engine)}:{port}"


def host_of(engine: int) -> str:
    return f"127.1.{engine // 250}.{engine % 250 + 1}"


def metrics_page(model: str, version: int) -> bytes:
    """As vLLM 0.11 writes it: about 300 lines, of which a prober needs a dozen."""
    labels = f'engine="0",model_name="{model}"'
    lines = [
        f"vllm:num_requests_running{{{labels}}} {version}.0",
        f"vllm:num_requests_waiting{{{labels}}} 0.0",
        f"vllm:kv_cache_usage_perc{{{labels}}} {0.05 * version:g}",
    ]
    for name in ("prompt_tokens", "generation_tokens", "prefix_cache_queries", "prefix_cache_hits", "num_preemptions"):
        lines.append(f"vllm:{name}_total{{{labels}}} {1000.0 * (version + 1)}")
    for name in _HISTOGRAMS:
        lines.append(f"# HELP vllm:{name} Histogram.\n# TYPE vllm:{name} histogram")
        lines += [f'vllm:{name}_bucket{{{labels},le="{le}"}} {version}.0' for le in _BUCKETS]
        lines += [f"vllm:{name}_count{{{labels}}} {version}.0", f"vllm:{name}_sum{{{labels}}} {version}.5"]
    return ("\n".join(lines) + "\n").encode()


def _answer(body: bytes, kind: str = "application/json", status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Engines:
    """All of them."""

    def __init__(self) -> None:
        self.looks: Counter[int] = Counter()
        self._models = [
            _answer(
                json.dumps(
                    {
                        "object": "list",
                        "data": [{"id": m, "object": "model", "owned_by": "vllm", "max_model_len": 32768}],
                    }
                ).encode()
            )
            for m in MODELS
        ]
        self._metrics = [[_answer(metrics_page(m, v), "text/plain") for v in range(_PAGES)] for m in MODELS]
        self._health, self._version = _answer(b""), _answer(b'{"version": "0.11.0"}')
        self._missing = _answer(b'{"detail": "Not Found"}', status="404 Not Found")

    def answer(self, path: bytes, number: int) -> bytes:
        kind = number % len(MODELS)
        if path == b"/v1/models":
            self.looks[int(time.time())] += 1
            return self._models[kind]
        if path == b"/metrics":
            return self._metrics[kind][(int(time.time()) // 5 + number) % _PAGES]
        if path == b"/health":
            return self._health
        return self._version if path == b"/version" else self._missing


class _Connection(asyncio.Protocol):
    def __init__(self, engines: Engines, number: int | None) -> None:
        self._engines = engines
        self._number = number
        self._waiting = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if self._number is None:
            *_, high, low = transport.get_extra_info("sockname")[0].split(".")
            self._number = int(high) * 250 + int(low) - 1

    def data_received(self, data: bytes) -> None:
        *requests, self._waiting = (self._waiting + data).split(b"\r\n\r\n")
        assert self._number is not None
        for request in requests:
            self._transport.write(self._engines.answer(request.split(b" ", 2)[1], self._number))


class Mortals:
    """Engines with a port of their own, which can be closed."""

    def __init__(self, engines: Engines, ports: Sequence[int], first: int) -> None:
        self._engines, self._ports, self._first = engines, ports, first
        self._open: dict[int, tuple[asyncio.Server, list[_Connection]]] = {}

    async def open(self, mortal: int) -> None:
        made: list[_Connection] = []

        def connect() -> _Connection:
            made.append(_Connection(self._engines, self._first + mortal))
            return made[-1]

        loop = asyncio.get_running_loop()
        server = await loop.create_server(connect, "127.0.0.1", self._ports[mortal], reuse_address=True)
        self._open[mortal] = server, made

    def close(self, mortal: int) -> None:
        server, made = self._open.pop(mortal)
        server.close()
        for connection in made:
            connection._transport.abort()


def sample_of(node: int, gpus: int) -> TelemetrySample:
    """As an agent on a busy node of eight cards sends it."""
    return TelemetrySample(
        node=f"node-{node:03}",
        agent_started_us=time.time_ns() // 1000,
        gpu_state=GPU_STATE_OK,
        agent_version="0.1.0",
        interval_ms=2000,
        busy=True,
        host=HostSample(
            hostname=f"node-{node:03}",
            cpu_count=128,
            cpu_percent=12.5,
            load_1m=9.0,
            memory_total_bytes=2**40,
            memory_available_bytes=2**39,
            disk_total_bytes=2**42,
            disk_free_bytes=2**41,
            network_received_bytes=10**12,
            network_sent_bytes=10**12,
            machine_id=f"machine-{node}",
            boot_id=f"boot-{node}",
        ),
        gpus=[
            GpuSample(
                index=index,
                uuid=f"GPU-{node:08x}-{index:04x}",
                name="NVIDIA H100 80GB HBM3",
                utilization_percent=80,
                memory_utilization_percent=40,
                memory_total_bytes=80 << 30,
                memory_used_bytes=70 << 30,
                memory_free_bytes=10 << 30,
                temperature_c=60,
                memory_temperature_c=70,
                power_mw=500_000,
                power_limit_mw=700_000,
                sm_clock_mhz=1980,
                memory_clock_mhz=2619,
                energy_mj=10**9,
                processes=[GpuProcess(pid=1000 + index, memory_bytes=70 << 30, name="vllm")],
                driver_version="570.86",
                pcie_tx_bytes_per_s=10**9,
                pcie_rx_bytes_per_s=10**9,
            )
            for index in range(gpus)
        ],
    )


async def publish_samples(url: str, seed_file: Path, user: str, *, nodes: int, gpus: int, every_s: float) -> None:
    """For ever, evenly: one node after the other."""
    samples = [sample_of(node, gpus) for node in range(nodes)]
    async with open_nats_bus(url, user, seed_file=seed_file) as bus:
        await bus.wait_connected()
        loop = asyncio.get_running_loop()
        due, turn = loop.time(), 0
        while True:
            turn += 1
            for number, sample in enumerate(samples):
                sample.sequence = turn
                sample.sampled_at_us = time.time_ns() // 1000
                for gpu in sample.gpus:
                    gpu.utilization_percent = (turn * 7 + number) % 100
                    gpu.energy_mj += 1_000_000
                await bus.publish(telemetry(sample.node), sample.SerializeToString())
                due += every_s / nodes
                await asyncio.sleep(max(0.0, due - loop.time()))


async def _serve(arguments: argparse.Namespace) -> None:
    engines, loop = Engines(), asyncio.get_running_loop()
    mortals = Mortals(engines, arguments.mortal_ports, arguments.engines)
    await loop.create_server(lambda: _Connection(engines, None), "0.0.0.0", arguments.port, backlog=2048)
    for mortal in range(len(arguments.mortal_ports)):
        await mortals.open(mortal)
    publishing = asyncio.create_task(
        publish_samples(
            arguments.nats,
            arguments.seed,
            arguments.user,
            nodes=arguments.nodes,
            gpus=arguments.gpus,
            every_s=arguments.every_s,
        )
    )
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    sys.stdout.write("{}\n")
    sys.stdout.flush()
    while line := await commands.readline():
        if publishing.done():
            publishing.result()
        command, answer = json.loads(line), {}
        match command["do"]:
            case "looks":
                answer = {"by_second": engines.looks}
            case "close":
                mortals.close(command["mortal"])
            case "open":
                await mortals.open(command["mortal"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    publishing.cancel()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engines", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mortal-ports", type=int, nargs="*", default=[])
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--every-s", type=float, default=2.0)
    parser.add_argument("--nats", required=True)
    parser.add_argument("--seed", type=Path, required=True)
    parser.add_argument("--user", required=True)
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
