"""The registry's settings, from a file and the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forebay.config import read_file, read_settings
from forebay.errors import BadSettings
from forebay_registry.backend import EngineKind
from forebay_registry.config import FILE_ACTOR, RegistrySettings, read_backend
from forebay_registry.wanted.catalog import AddBackend

NEEDED = {"FOREBAY_REGISTRY_TOKEN_FILE": "/t", "FOREBAY_REGISTRY_CALLERS_FILE": "/c"}
SAMPLE = Path(__file__).resolve().parents[2] / "services" / "registry" / "registry.toml"


def settings(table: dict[str, Any]) -> RegistrySettings:
    return read_settings(RegistrySettings, "registry", file={"registry": table}, environ=NEEDED)


def test_the_defaults_need_only_the_two_secrets() -> None:
    read = settings({})
    assert (read.listen, read.ops_listen) == ("127.0.0.1:8094", "127.0.0.1:8097")
    assert read.telemetry_keep_s == 24 * 3600
    with pytest.raises(BadSettings, match="FOREBAY_REGISTRY_TOKEN_FILE is required"):
        read_settings(RegistrySettings, "registry", file={}, environ={})


def test_the_file_names_backends() -> None:
    tables = [{"name": "big", "url": "http://gpu-1:8000/v1", "kind": "vllm", "slots": 8}]
    (table,) = settings({"backends": tables}).backends
    big = read_backend(table)
    assert big == AddBackend(FILE_ACTOR, "big", "http://gpu-1:8000", EngineKind.VLLM, slots=8, replace=True)
    named = read_backend({"name": "x", "url": "http://x", "models": {"llama": "meta/llama"}})
    assert named.model_names == (("llama", "meta/llama"),)


def test_every_problem_is_told_at_once() -> None:
    tables = [
        {"name": "a b", "url": "http://x"},
        {"name": "ok", "url": "gpu:8000"},
        {"url": "http://x", "slot": 3},
        {"name": "ok", "url": "http://x", "kind": "cuda"},
        {"name": "ok"},
        {"name": "ok", "url": "http://x", "slots": "four"},
        {"name": "ok", "url": "http://x", "models": ["llama"]},
    ]
    with pytest.raises(BadSettings) as told:
        settings({"backends": tables, "probe_healthy_s": 0, "probe_failures": 0, "snapshot_dir": "/x"})
    message = told.value.message
    for part in (
        "number 1: 'a b' cannot be",
        "number 2: The address must begin",
        "number 3: there is no such setting: slot",
        "number 4: 'cuda' is not a kind of engine; there are openai, ollama, vllm, llamacpp, sglang",
        "number 5: url must be given",
        "number 6: 'four' is not a number of slots",
        "probe_healthy_s must be more than zero",
        "probe_failures must be at least one",
        "snapshot_key_file and snapshot_dir are needed together",
    ):
        assert part in message


def test_the_sample_file_is_valid_and_says_the_defaults() -> None:
    read = read_settings(RegistrySettings, "registry", file=read_file(SAMPLE), environ={})
    assert [table["name"] for table in read.backends] == ["gpu-1"]
    plain = RegistrySettings(token_file=read.token_file, callers_file=read.callers_file)
    for name in RegistrySettings.__dataclass_fields__:
        if name.startswith(("probe_", "telemetry_")) or name in ("listen", "ops_listen", "admin_address", "nats_url"):
            assert getattr(read, name) == getattr(plain, name), name
