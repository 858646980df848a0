"""The agent: looks at this node and says what it saw on `forebay.telemetry.<node>`. It keeps nothing,
hears commands on the same bus, and looks on when nobody can hear it."""

from __future__ import annotations

import logging
from asyncio import TaskGroup
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from forebay import subjects
from forebay.bus import Bus
from forebay.clock import Clock
from forebay.service import Ground, Service
from forebay_gpu_agent.config import GpuAgentSettings
from forebay_gpu_agent.errands import Errands, open_errands
from forebay_gpu_agent.facts import Gpu, Gpus, GpuState
from forebay_gpu_agent.host import HostReader
from forebay_gpu_agent.measures import Measures
from forebay_gpu_agent.nvml import Nvml
from forebay_gpu_agent.report import to_wire
from forebay_gpu_agent.sampler import Sampler

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_gpu_agent(settings: GpuAgentSettings, ground: Ground) -> AsyncIterator[None]:
    nvml = Nvml(ground.clock.monotonic, ground.clock.now)
    sampler = Sampler(
        settings.node,
        read_host=HostReader(settings.disk_path, settings.disk_paths, monotonic=ground.clock.monotonic).read,
        read_gpus=nvml.read,
        clock=ground.clock,
        pace=settings.pace,
    )
    measures = Measures(ground.ops.metrics)
    ground.ops.not_ready("nats", f"not connected to NATS at {_without_password(settings.nats_url)} yet")
    opening = ground.open_bus(
        settings.nats_url,
        settings.bus_user,
        seed_file=settings.nats_seed_file,
        ca_file=settings.nats_ca_file,
        cert_file=settings.nats_cert_file,
        key_file=settings.nats_key_file,
    )
    async with opening as bus, TaskGroup() as tasks:
        errands = open_errands(settings, ground, bus, sample_now=sampler.ask, reopen_driver=nvml.open_anew)
        running = [
            tasks.create_task(_become_ready(bus, ground), name="ready"),
            tasks.create_task(_sample(sampler, bus, measures, ground.clock, errands), name="sample"),
            *(tasks.create_task(todo, name=name) for name, todo in errands.work().items()),
        ]
        yield
        for task in running:
            task.cancel()


async def _become_ready(bus: Bus, ground: Ground) -> None:
    await bus.wait_connected()
    ground.ops.ready("nats")


async def _sample(sampler: Sampler, bus: Bus, measures: Measures, clock: Clock, errands: Errands) -> None:
    agent_version = version("forebay")
    told, sent = Told(), True
    async for look in sampler.looks():
        told.tell(look.reading.gpus)
        measures.saw(look.reading, max(0.0, clock.now() - look.reading.at))
        if look.sample is None or look.reason is None:
            if bus.is_connected and not sent:
                sampler.ask()  # the last sample was lost, and the next may be far away
            continue
        sent = bus.is_connected
        sample = to_wire(look.sample, agent_version)
        errands.add_to(sample)
        await bus.publish(subjects.telemetry(sample.node), sample.SerializeToString())
        measures.told(look.reason, sent=sent)


class Told:
    """Says in the log how the GPUs are: once, and again when that changes."""

    def __init__(self) -> None:
        self._state: tuple[GpuState, str] | None = None
        self._errors: dict[int, str] = {}

    def tell(self, gpus: Gpus) -> None:
        state = (gpus.state, gpus.message)
        if state != self._state:
            self._state = state
            self._tell_state(gpus)
        for gpu in gpus.gpus:
            if gpu.error != self._errors.get(gpu.index, ""):
                self._errors[gpu.index] = gpu.error
                self._tell_gpu(gpu)

    def _tell_state(self, gpus: Gpus) -> None:
        level = logging.WARNING if gpus.state is GpuState.FAILED else logging.INFO
        extra = {"action": "gpu_state", "state": str(gpus.state), "gpus": len(gpus.gpus)}
        log.log(level, gpus.message or "GPUs are sampled", extra=extra)

    def _tell_gpu(self, gpu: Gpu) -> None:
        extra = {"action": "gpu_error", "gpu": gpu.index, "uuid": gpu.uuid, "error": gpu.error}
        if gpu.error:
            log.warning("a GPU cannot be read", extra=extra)
        else:
            log.info("a GPU can be read again", extra=extra)


def _without_password(url: str) -> str:
    return url.rpartition("@")[2]


service = Service("gpu-agent", GpuAgentSettings, open_gpu_agent)
