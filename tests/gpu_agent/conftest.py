"""Machines with a driver, and without one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gpu_agent.nvml_machine import NvmlMachine, build_library
from tests.real_nats import RealNats


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    _demand_compiler()
    return build_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    _demand_compiler()
    return build_library(tmp_path_factory.mktemp("old_nvml"), old_driver=True)


@pytest.fixture(scope="session")
def one_machine(nvml_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NvmlMachine]:
    with NvmlMachine(nvml_library, tmp_path_factory.mktemp("machine") / "nvml") as machine:
        yield machine


@pytest.fixture
def machine(one_machine: NvmlMachine) -> NvmlMachine:
    one_machine.begin_anew()
    return one_machine


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[RealNats]:
    with RealNats(tmp_path) as server:
        yield server


def _demand_compiler() -> None:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler (cc) to make a stand-in for its driver")
