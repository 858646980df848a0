"""The agent's settings, and the file that shows them."""

from __future__ import annotations

import dataclasses
import platform
import tomllib
from pathlib import Path

import pytest

import forebay
from forebay.config import read_settings
from forebay.errors import BadSettings
from forebay_gpu_agent.config import GpuAgentSettings, node_of_host

SHOWN = Path(forebay.__path__[0]).parent / "services" / "gpu-agent" / "gpu-agent.toml"


def read(**environ: str) -> GpuAgentSettings:
    return read_settings(GpuAgentSettings, "gpu-agent", file={}, environ=environ)


def test_the_defaults_work_on_a_laptop() -> None:
    settings = read()
    assert (settings.interval_s, settings.nats_url) == (2.0, "nats://127.0.0.1:4222")
    assert (settings.node, settings.bus_user) == (node_of_host(), node_of_host())


@pytest.mark.parametrize(
    ("host", "node"),
    [
        ("gpu-1.example.com", "gpu-1"),
        ("my box!", "my-box"),
        ("größe", "gr-e"),
        ("", "node"),
        ("...", "node"),
        ("x" * 80, "x" * 64),
    ],
)
def test_a_host_name_becomes_a_word_that_nats_can_carry(monkeypatch: pytest.MonkeyPatch, host: str, node: str) -> None:
    monkeypatch.setattr(platform, "node", lambda: host)
    assert node_of_host() == node
    assert GpuAgentSettings().node == node


@pytest.mark.parametrize("node", ["a.b", "*", "a b", "", "x" * 65])
def test_a_name_that_nats_cannot_carry_is_refused(node: str) -> None:
    with pytest.raises(BadSettings, match=r"node: .* must be letters"):
        read(FOREBAY_GPU_AGENT_NODE=node)


@pytest.mark.parametrize("interval", ["0", "0.01", "1e9"])
def test_an_interval_that_makes_no_sense_is_refused(interval: str) -> None:
    with pytest.raises(BadSettings, match="interval_s"):
        read(FOREBAY_GPU_AGENT_INTERVAL_S=interval)


def test_an_idle_node_is_never_told_of_more_often_than_it_is_looked_at() -> None:
    assert (read().pace.busy_s, read().pace.idle_s) == (2.0, 10.0)
    assert read(FOREBAY_GPU_AGENT_INTERVAL_S="60").pace.idle_s == 60.0
    with pytest.raises(BadSettings, match="idle_interval_s"):
        read(FOREBAY_GPU_AGENT_IDLE_INTERVAL_S="0")


def test_the_user_of_nats_may_have_another_name_than_the_node() -> None:
    assert read(FOREBAY_GPU_AGENT_NODE="gpu-1", FOREBAY_GPU_AGENT_NATS_USER="local").bus_user == "local"


def test_the_file_that_shows_the_settings_names_them_all_with_their_defaults() -> None:
    text = SHOWN.read_text()
    table = tomllib.loads(text)["gpu_agent"]
    defaults = GpuAgentSettings()
    for name, value in table.items():
        default = getattr(defaults, name)
        assert value == (str(default) if isinstance(default, Path) else default), name
    shown = {line.lstrip("# ").partition(" = ")[0] for line in text.splitlines() if " = " in line}
    assert shown == {field.name for field in dataclasses.fields(GpuAgentSettings)}
