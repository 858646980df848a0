"""The registry's settings, from a file and the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forebay.config import read_file, read_settings
from forebay.errors import BadSettings
from forebay_registry.backend import ModelFacts, Pool
from forebay_registry.config import RegistrySettings

NEEDED = {"FOREBAY_REGISTRY_TOKEN_FILE": "/t", "FOREBAY_REGISTRY_CALLERS_FILE": "/c"}
SAMPLE = Path(__file__).resolve().parents[2] / "services" / "registry" / "registry.toml"


def settings(table: dict[str, Any]) -> RegistrySettings:
    return read_settings(RegistrySettings, "registry", file={"registry": table}, environ=NEEDED)


def test_the_defaults_need_only_the_two_secrets() -> None:
    read = settings({})
    assert (read.listen, read.ops_listen) == ("127.0.0.1:8094", "127.0.0.1:8097")
    assert read.history_minutes_s == 14 * 24 * 3600
    with pytest.raises(BadSettings, match="FOREBAY_REGISTRY_TOKEN_FILE is required"):
        read_settings(RegistrySettings, "registry", file={}, environ={})


def test_the_file_names_backends() -> None:
    tables = [
        {
            "name": "big",
            "url": "http://gpu-1:8000/v1",
            "kind": "vllm",
            "slots": 8,
            "node": "gpu-1",
            "gpu_indices": [1, 0],
        },
        {"name": "x", "url": "http://x", "models": {"llama": "meta/llama"}},
    ]
    big, x = settings({"backends": tables}).fleet.backends
    assert (big.node, big.backend.url, big.backend.kind, big.backend.slots) == ("gpu-1", "http://gpu-1:8000", "vllm", 8)
    assert big.backend.gpu_indices == (0, 1)
    assert x.backend.model_names == (("llama", "meta/llama"),)


def test_the_file_names_nodes_pools_and_models_in_the_same_way() -> None:
    fleet = settings(
        {
            "nodes": [{"name": "gpu-1", "labels": {"rack": "a"}}],
            "pools": [{"name": "lab", "hosts": ["Lab.Example.com"], "required_models": ["llama"]}],
            "models": [{"name": "llama", "context_length": 8192}],
        }
    ).fleet
    assert fleet.nodes[0].labels == (("rack", "a"),)
    assert fleet.pools == (Pool("lab", ("lab.example.com",), "", ("llama",)),)
    assert fleet.models == (ModelFacts("llama", context_length=8192),)


def test_every_problem_is_told_at_once() -> None:
    tables = [
        {"name": "a b", "url": "http://x"},
        {"name": "ok", "url": "gpu:8000"},
        {"url": "http://x", "slot": 3},
        {"name": "ok", "url": "http://x", "kind": "cuda"},
        {"name": "ok"},
        {"name": "ok", "url": "http://x", "slots": "four"},
        {"name": "ok", "url": "http://x", "models": ["llama"]},
        {"name": "cloud", "url": "http://169.254.169.254", "gpu_indices": [0]},
    ]
    pools = [{"name": "lab", "placement": "random"}, {"name": "desk", "path_prefix": "/v1"}]
    with pytest.raises(BadSettings) as told:
        settings({"backends": tables, "pools": pools, "probe_healthy_s": 0, "probe_failures": 0, "snapshot_dir": "/x"})
    message = told.value.message
    for part in (
        "[[registry.backends]] a b.name: 'a b' cannot be",
        "ok.url: The address must begin",
        "3.slot: 'slot' is not known here; did you mean slots?",
        "3.name: Each of the backends needs a name",
        "ok.kind: 'cuda' is no kind of engine; there are openai, ollama, vllm, llamacpp, sglang",
        "ok.name: 'ok' stands here twice",
        "ok.slots: 'four' is not a whole number",
        "ok.models: ['llama'] is not a table",
        "cloud.gpu_indices: GPUs belong to a node",
        "[[registry.pools]] lab.placement: This is kept by admin",
        "[[registry.pools]] desk.path_prefix: /v1 means something to gateways already",
        "probe_healthy_s must be more than zero",
        "probe_failures must be at least one",
        "snapshot_key_file and snapshot_dir are needed together",
    ):
        assert part in message


def test_the_sample_file_is_valid_and_says_the_defaults() -> None:
    read = read_settings(RegistrySettings, "registry", file=read_file(SAMPLE), environ={})
    assert [table["name"] for table in read.backends] == ["gpu-1"]
    plain = RegistrySettings(token_file=read.token_file, callers_file=read.callers_file)
    for name in RegistrySettings.__dataclass_fields__.keys() - {"backends"}:
        assert getattr(read, name) == getattr(plain, name), name
    tables = {"kubernetes", "alerts", "webhooks", "backends", "nodes", "pools", "models"}
    shown = {line.lstrip("# ").partition(" = ")[0] for line in SAMPLE.read_text().splitlines() if " = " in line}
    text = SAMPLE.read_text()
    assert RegistrySettings.__dataclass_fields__.keys() - tables - shown == {"database_url"}
    assert all(f"[registry.{name}]" in text for name in tables)
