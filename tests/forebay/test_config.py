"""Settings: where they come from, what they may be, and that every problem is told at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from forebay.config import parse_address, read_file, read_secret, read_settings, setting, unknown_tables
from forebay.errors import BadSettings, CannotStart


@dataclass(frozen=True, slots=True)
class Settings:
    listen: str = "127.0.0.1:8090"
    slots: int = 4
    fence_s: float = 90.0
    verbose: bool = False
    key_file: Path | None = None
    place: Path = Path("/var")
    nats_url: str = setting("nats://127.0.0.1:4222", alias="NATS_URL")
    pools: tuple[str, ...] = ()
    weights: tuple[int, ...] = (1, 2)
    backends: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Needy:
    database_url: str = setting(alias="DATABASE_URL")
    other: int = 1


@dataclass(frozen=True, slots=True)
class Particular:
    low: int = 1
    high: int = 2

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low: {self.low} is above high, {self.high}")


def read(file: Mapping[str, Any] | None = None, flags: Mapping[str, str] | None = None, **environ: str) -> Settings:
    return read_settings(
        Settings, "gpu-agent", file={"gpu_agent": file} if file is not None else {}, environ=environ, flags=flags
    )


def problems_of(**given: Any) -> list[str]:
    with pytest.raises(BadSettings) as refused:
        read(**given)
    return refused.value.problems


def test_without_a_word_from_anyone_the_defaults_hold() -> None:
    assert read() == Settings()


def test_the_environment_overrules_the_file_and_a_flag_overrules_both() -> None:
    file = {"slots": 5, "listen": "file:1", "fence_s": 1}
    environ = {"FOREBAY_GPU_AGENT_SLOTS": "6", "FOREBAY_GPU_AGENT_LISTEN": "environment:1"}
    settings = read(file, {"slots": "7"}, **environ)
    assert (settings.slots, settings.listen, settings.fence_s) == (7, "environment:1", 1.0)


def test_a_name_the_world_uses_overrules_the_file_and_gives_way_to_ours() -> None:
    assert read(NATS_URL="nats://world").nats_url == "nats://world"
    assert read({"nats_url": "nats://file"}, NATS_URL="nats://world").nats_url == "nats://world"
    assert read(NATS_URL="nats://world", FOREBAY_GPU_AGENT_NATS_URL="nats://ours").nats_url == "nats://ours"
    assert read(NATS_URL="").nats_url == "nats://127.0.0.1:4222"


def test_every_type_is_read_from_text() -> None:
    environ = {
        "SLOTS": "12", "FENCE_S": "1.5", "VERBOSE": "Yes", "KEY_FILE": "~/key", "POOLS": "a, b,,c ", "WEIGHTS": "3,4",
    }  # fmt: skip
    settings = read(None, None, **{f"FOREBAY_GPU_AGENT_{name}": value for name, value in environ.items()})
    assert (settings.slots, settings.fence_s, settings.verbose) == (12, 1.5, True)
    assert settings.key_file == Path.home() / "key"
    assert settings.pools == ("a", "b", "c")
    assert settings.weights == (3, 4)


def test_every_type_is_read_from_toml() -> None:
    settings = read(
        {"slots": 12, "fence_s": 2, "verbose": True, "place": "/srv", "pools": ["a"], "backends": {"x": {"url": "u"}}}
    )
    assert (settings.slots, settings.fence_s, settings.verbose, settings.place) == (12, 2.0, True, Path("/srv"))
    assert isinstance(settings.fence_s, float)
    assert (settings.pools, settings.backends) == (("a",), {"x": {"url": "u"}})


def test_an_empty_text_takes_an_optional_setting_back() -> None:
    assert read({"key_file": "/a"}, FOREBAY_GPU_AGENT_KEY_FILE="").key_file is None


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"slots": "many"}, "'many' is not a whole number"),
        ({"slots": 2.5}, "2.5 is not a whole number"),
        ({"slots": True}, "True is not a whole number"),
        ({"slots": -1}, "-1 is below zero"),
        ({"fence_s": "nan"}, "'nan' is not a number"),
        ({"fence_s": "soon"}, "'soon' is not a number"),
        ({"verbose": "perhaps"}, "'perhaps' is neither true nor false"),
        ({"pools": 5}, "5 is not a list"),
        ({"backends": "x"}, "'x' is not a table"),
        ({"place": ""}, "'' is not a path"),
        ({"place": 5}, "5 is not a path"),
        ({"listen": ["a"]}, "['a'] is not text"),
    ],
)
def test_what_a_setting_cannot_be_is_refused_with_its_place(given: dict[str, Any], problem: str) -> None:
    (name,) = given
    assert problems_of(file=given) == [f"[gpu-agent] {name}: {problem}"]


def test_all_problems_are_told_at_once() -> None:
    told = problems_of(
        file={"slots": "x", "lissten": "y"},
        flags={"fence": "1"},
        FOREBAY_GPU_AGENT_VERBOSE="maybe",
        FOREBAY_GPU_AGENT_FENCES="1",
    )
    assert sorted(told) == [
        "--set gpu-agent.fence: there is no such setting (did you mean fence_s?)",
        "FOREBAY_GPU_AGENT_FENCES: there is no such setting (did you mean fence_s?)",
        "FOREBAY_GPU_AGENT_VERBOSE: 'maybe' is neither true nor false",
        "[gpu-agent] lissten: there is no such setting (did you mean listen?)",
        "[gpu-agent] slots: 'x' is not a whole number",
    ]


def test_a_setting_without_a_default_must_be_given() -> None:
    with pytest.raises(BadSettings) as refused:
        read_settings(Needy, "admin", file={}, environ={})
    assert refused.value.problems == ["FOREBAY_ADMIN_DATABASE_URL is required ([admin] database_url in the file)"]
    assert read_settings(Needy, "admin", file={}, environ={"DATABASE_URL": "p"}).database_url == "p"


def test_what_a_class_finds_wrong_with_its_fields_is_a_problem_like_others() -> None:
    with pytest.raises(BadSettings) as refused:
        read_settings(Particular, "gateway", file={"gateway": {"low": 3}}, environ={})
    assert refused.value.problems == ["[gateway] low: 3 is above high, 2"]


def test_what_a_class_finds_is_told_together_with_what_cannot_be_read() -> None:
    with pytest.raises(BadSettings) as refused:
        read_settings(Particular, "x", file={"x": {"low": 3, "hihg": 9}}, environ={})
    assert refused.value.problems == [
        "[x] hihg: there is no such setting (did you mean high?)",
        "[x] low: 3 is above high, 2",
    ]


def test_a_table_that_belongs_to_no_service_is_a_problem() -> None:
    file: dict[str, Any] = {"gatway": {}, "gpu-agent": {}, "gpu_agent": {}, "gateway": {}}
    assert unknown_tables(file, ["gateway", "gpu-agent"]) == [
        "[gatway]: there is no such service (did you mean gateway?)"
    ]


def test_a_file_is_utf_8_whatever_the_terminal_speaks(tmp_path: Path) -> None:
    (tmp_path / "marked.toml").write_bytes("[gateway]\nname = 'Zürich'\n".encode("utf-8-sig"))
    assert read_file(tmp_path / "marked.toml") == {"gateway": {"name": "Zürich"}}
    (tmp_path / "other.toml").write_bytes(b"\xff\xfe[\x00")
    with pytest.raises(BadSettings, match=r"other\.toml is not valid TOML: it is not text in UTF-8"):
        read_file(tmp_path / "other.toml")


def test_settings_of_another_service_are_not_ours() -> None:
    settings = read_settings(
        Settings, "gateway", file={"admin": {"slots": 9}}, environ={"FOREBAY_GPU_AGENT_SLOTS": "8"}
    )
    assert settings.slots == 4


def test_what_commands_read_of_an_operators_environment_keeps_no_service_from_starting() -> None:
    assert read_settings(Settings, "admin", file={}, environ={"FOREBAY_ADMIN_CA": "/etc/forebay/ca.crt"}) == Settings()
    with pytest.raises(BadSettings, match="FOREBAY_ADMIN_CAS: there is no such setting"):
        read_settings(Settings, "admin", file={}, environ={"FOREBAY_ADMIN_CAS": "/etc/forebay/ca.crt"})


def test_a_table_of_a_service_must_be_a_table() -> None:
    with pytest.raises(BadSettings, match="must be a table"):
        read_settings(Settings, "gateway", file={"gateway": 5}, environ={})


def test_a_file_is_read_when_named_and_found_when_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_file(None) == {}
    (tmp_path / "forebay.toml").write_text("[gateway]\nslots = 3\n")
    assert read_file(None) == {"gateway": {"slots": 3}}
    assert read_file(tmp_path / "forebay.toml") == {"gateway": {"slots": 3}}
    with pytest.raises(BadSettings, match=r"other\.toml cannot be read"):
        read_file(tmp_path / "other.toml")
    (tmp_path / "forebay.toml").write_text("[gateway")
    with pytest.raises(BadSettings, match="not valid TOML"):
        read_file(None)


def test_a_secret_is_a_file_that_is_there_and_not_empty(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"hush\n")
    assert read_secret(file) == b"hush"
    file.write_bytes(b"\n")
    with pytest.raises(CannotStart, match="is empty"):
        read_secret(file)
    with pytest.raises(CannotStart, match="cannot be read"):
        read_secret(tmp_path / "absent")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8090", ("127.0.0.1", 8090)),
        ("[::1]:0", ("::1", 0)),
        (":80", ("127.0.0.1", 80)),
        ("host.example:65535", ("host.example", 65535)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "8090", "host:", "host:http", "host:65536", "host:-1", "http://h:1", "h:²"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        parse_address(text)
