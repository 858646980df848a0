"""What `forebay up` reads for itself."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from forebay.errors import BadSettings
from forebay.local.settings_file import read_settings_file


def test_without_a_file_the_defaults_are_a_laptops(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr(platform, "node", lambda: "ada's_laptop.example.org")
    settings = read_settings_file(None, {})
    assert (settings.path, settings.names_engines, settings.drain_s) == (None, False, 30.0)
    assert settings.node == "ada-s-laptop"


def test_the_file_in_the_working_directory_is_found_and_named_in_full(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "forebay.toml").write_text(
        '[gateway]\ndrain_s = 5\n[gpu_agent]\nnode = "box"\n[[registry.backends]]\nname = "x"\nurl = "http://x:1"\n'
    )
    monkeypatch.chdir(place)
    settings = read_settings_file(None, {})
    assert settings.path == place / "forebay.toml"
    assert (settings.names_engines, settings.drain_s, settings.node) == (True, 5.0, "box")
    from_environment = {"FOREBAY_GATEWAY_DRAIN_S": "7", "FOREBAY_GPU_AGENT_NODE": "other"}
    settings = read_settings_file(None, from_environment)
    assert (settings.drain_s, settings.node) == (7.0, "other")


def test_what_cannot_be_read_is_told_before_anything_starts(place: Path) -> None:
    with pytest.raises(BadSettings, match="cannot be read"):
        read_settings_file(place / "missing.toml", {})
    (place / "bad.toml").write_text("[gateway\n")
    with pytest.raises(BadSettings, match="not valid TOML"):
        read_settings_file(place / "bad.toml", {})
