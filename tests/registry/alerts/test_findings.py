"""Which rules hold for what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_registry.alerts.facts import BackendFacts, DiskFacts, Facts, GpuFacts, NodeFacts, Refused
from forebay_registry.alerts.findings import REGISTRY, Seen, find
from forebay_registry.alerts.rules import USUAL, AlertSettings, Rule, Severity, as_table, read_alerts
from forebay_registry.backend import Condition
from forebay_registry.nodes.troubles import Trouble

README = Path(__file__).parents[3] / "services" / "registry" / "README.md"
SETTINGS = AlertSettings()
GPU = GpuFacts(0, "H100", temperature_c=40, memory_used=0.5)
BACKEND = BackendFacts("vllm", "lab", "box", Condition.HEALTHY, 0.0, "", models=("llama",))
MOST = dict.fromkeys(Trouble, "It is so: do this.")


def seen(*, before: tuple[tuple[str, str], ...] = (), settings: AlertSettings = SETTINGS, **facts: Any) -> Seen:
    return find(Facts(**facts), settings, before)


def of_gpu(gpu: GpuFacts, *before: tuple[str, str]) -> list[str]:
    found = seen(nodes=(NodeFacts("box", True, gpus=(gpu,)),), before=before).findings
    return [rule for rule, _ in found]


def test_a_backend_that_is_down_is_found_and_is_graver_once_it_is_offline() -> None:
    down = replace(BACKEND, condition=Condition.UNHEALTHY, reason="Nothing listens at box:8000.")
    one = seen(backends=(down,)).findings["backend_unhealthy", "backend/vllm"]
    assert (one.severity, one.node) == (Severity.WARNING, "box")
    assert one.summary == "The backend vllm is unhealthy. Nothing listens at box:8000."
    assert "forebay backend show vllm" in one.todo
    worse = seen(backends=(replace(down, condition=Condition.OFFLINE),)).findings
    assert worse["backend_unhealthy", "backend/vllm"].severity is Severity.CRITICAL


@pytest.mark.parametrize("condition", [Condition.DRAINED, Condition.DRAINING, Condition.STARTING, Condition.UNKNOWN])
def test_what_is_kept_empty_or_only_begins_is_no_alert(condition: Condition) -> None:
    assert not seen(backends=(replace(BACKEND, condition=condition),)).findings


def test_models_that_only_dead_backends_have_are_one_alert_of_their_pool() -> None:
    dead = replace(BACKEND, name="dead", condition=Condition.OFFLINE, models=("a", "b", "llama"))
    found = seen(backends=(BACKEND, dead)).findings
    assert found["models_unserved", "pool/lab"].summary == "In the pool lab no backend that works has a, b."
    elsewhere = replace(dead, pool="other", models=tuple("abcdefg"))
    text = seen(backends=(elsewhere,)).findings["models_unserved", "pool/other"].summary
    assert text.endswith("has a, b, c, d, e and 2 more.")


def test_what_engines_call_their_models_breaks_no_line_and_no_json() -> None:
    odd = replace(BACKEND, condition=Condition.OFFLINE, models=("a\0b\n\ud800", "x" * 5000))
    text = seen(backends=(odd,)).findings["models_unserved", "pool/lab"].summary
    assert text.startswith("In the pool lab no backend that works has a b  , xxx")
    assert len(text) == 1001


def test_a_model_that_is_required_is_missed_where_a_backend_works() -> None:
    lacking = replace(BACKEND, missing_models=("qwen",))
    assert ("model_missing", "backend/vllm") in seen(backends=(lacking,)).findings
    assert not seen(backends=(replace(lacking, condition=Condition.STARTING),)).findings


def test_flapping_is_from_three_falls_on_and_until_there_are_two() -> None:
    def flaps(falls: int, *before: tuple[str, str]) -> bool:
        return bool(seen(backends=(replace(BACKEND, falls=falls),), before=before).findings)

    key = "backend_flapping", "backend/vllm"
    assert [flaps(2), flaps(3), flaps(3, key), flaps(2, key)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"temperature_c": 88}, "gpu_hot"),
        ({"memory_temperature_c": 100}, "gpu_memory_hot"),
        ({"error": "GPU_IS_LOST"}, "gpu_lost"),
        ({"clock_reasons": ("gpu_idle", "hw_thermal_slowdown")}, "gpu_throttling"),
        ({"ecc_uncorrected": 1}, "gpu_ecc"),
        ({"repair_pending": True}, "gpu_ecc"),
        ({"last_xid": 31, "xid_age_s": 10.0}, "gpu_xid"),
        ({"memory_used": 0.99}, "vram_full"),
    ],
)
def test_what_is_wrong_with_a_gpu(change: dict[str, Any], rule: str) -> None:
    assert of_gpu(replace(GPU, **change)) == [rule]


@pytest.mark.parametrize(
    "change",
    [
        {"temperature_c": 87},
        {"temperature_c": None},
        {"clock_reasons": ("sw_power_cap", "gpu_idle")},
        {"ecc_uncorrected": 0},
        {"last_xid": 31, "xid_age_s": 3600.0},
        {"memory_used": None},
    ],
)
def test_what_is_ordinary_or_not_told_is_nothing(change: dict[str, Any]) -> None:
    assert of_gpu(replace(GPU, **change)) == []


def test_a_number_is_left_at_another_level_than_it_is_reached() -> None:
    key = "gpu_hot", "gpu/box/0"
    assert of_gpu(replace(GPU, temperature_c=84)) == []
    assert of_gpu(replace(GPU, temperature_c=84), key) == ["gpu_hot"]
    assert of_gpu(replace(GPU, temperature_c=83), key) == []


def test_an_xid_of_the_hardware_is_grave_and_one_of_a_program_is_not() -> None:
    def severity(xid: int) -> Severity:
        node = NodeFacts("box", True, gpus=(replace(GPU, last_xid=xid, xid_age_s=1.0),))
        return seen(nodes=(node,)).findings["gpu_xid", "gpu/box/0"].severity

    assert [severity(79), severity(13)] == [Severity.CRITICAL, Severity.WARNING]


def test_of_a_silent_node_only_its_silence_is_known() -> None:
    hot = replace(GPU, temperature_c=99)
    silent = NodeFacts("box", True, {Trouble.SILENT: "Nothing was heard: see whether it is up."}, gpus=(hot,))
    found = seen(nodes=(silent,))
    assert list(found.findings) == [("node_silent", "node/box")]
    one = found.findings["node_silent", "node/box"]
    assert (one.summary, one.todo) == ("The node box: Nothing was heard.", "See whether it is up.")
    assert found.is_blind_to("gpu_hot", "gpu/box/0", "box")
    assert not found.is_blind_to("command_refused", "node/box", "box")
    assert not found.is_blind_to("gpu_hot", "gpu/b/0", "b")


def test_while_the_registry_hears_nobody_no_node_is_blamed() -> None:
    silent = NodeFacts("box", True, {Trouble.SILENT: "Nothing was heard: see whether it is up."})
    found = seen(nodes=(silent,), has_nats=False)
    assert list(found.findings) == [("registry_without_nats", REGISTRY)]
    assert found.is_blind_to("node_silent", "node/box", "box"), "and one of which that was told before stays told"


def test_disks_drivers_commands_and_the_registrys_own_surroundings() -> None:
    full = DiskFacts("/models", 1000, 40)
    node = NodeFacts(
        "box",
        True,
        {Trouble.TWO_AGENTS: "Two agents: stop one.", Trouble.DROPPED: "Malformed: update."},
        "no NVML",
        disks=(full,),
    )
    refused = (Refused("box", "pull", "not_allowed", 10.0), Refused("old", "pull", "replayed", 3600.0))
    found = seen(nodes=(node,), refused=refused, has_postgres=False, has_nats=False).findings
    assert set(found) == {
        ("disk_full", "disk/box/models"),
        ("gpu_driver_failed", "node/box"),
        ("node_two_agents", "node/box"),
        ("node_samples_dropped", "node/box"),
        ("command_refused", "node/box"),
        ("registry_without_postgres", REGISTRY),
        ("registry_without_nats", REGISTRY),
    }


def test_a_rule_that_is_switched_off_finds_nothing_and_limits_are_as_they_are_set() -> None:
    settings, problems = read_alerts(
        {
            "repeat_s": 3600,
            "gpu_hot": {"limit": 60, "severity": "critical", "for_s": 5},
            "node_silent": {"enabled": False},
        }
    )
    assert not problems
    warm = NodeFacts("box", True, {Trouble.SILENT: "It is: so."})
    assert not seen(nodes=(warm,), settings=settings).findings
    node = NodeFacts("box", True, gpus=(replace(GPU, temperature_c=61),))
    assert seen(nodes=(node,), settings=settings).findings["gpu_hot", "gpu/box/0"].severity is Severity.CRITICAL
    assert settings.terms[Rule.GPU_HOT].for_s == 5
    assert settings.repeat_s == 3600
    assert settings.terms[Rule.GPU_LOST] == USUAL[Rule.GPU_LOST]


def test_each_wrong_setting_is_a_sentence_of_its_own() -> None:
    _, problems = read_alerts(
        {
            "gpu_hott": {},
            "gpu_lost": {"limit": 3, "enabled": "yes", "often": 1},
            "vram_full": {"limit": 98},
            "disk_full": 1,
            "keep_s": True,
        }
    )
    told = "\n".join(problems)
    assert len(problems) == 7
    for words in (
        "gpu_hott: there is no such rule",
        "gpu_lost: it has no limit",
        "gpu_lost: enabled = 'yes'",
        "gpu_lost: often: there is no such setting",
        "vram_full: limit = 98",
        "disk_full must be a table",
        "keep_s must be a number",
    ):
        assert words in told


def test_the_readme_lists_the_rules_as_they_are() -> None:
    assert as_table() in README.read_text()


maybe = st.none() | st.integers(0, 2**32 - 1)
gpus = st.builds(
    GpuFacts,
    index=st.integers(0, 70),
    name=st.text(max_size=5),
    error=st.sampled_from(["", "GPU_IS_LOST"]),
    temperature_c=maybe,
    memory_temperature_c=maybe,
    clock_reasons=st.lists(st.text(max_size=4)).map(tuple),
    memory_used=st.none() | st.floats(0, 1e9),
    ecc_uncorrected=maybe,
    last_xid=maybe,
    xid_age_s=st.none() | st.floats(-1e9, 1e9),
)
disks = st.builds(DiskFacts, st.text(max_size=8), st.integers(0, 2**63), st.integers(0, 2**63))


@given(st.lists(gpus, max_size=4), st.lists(disks, max_size=3), st.booleans())
def test_nothing_that_an_agent_may_say_breaks_the_rules(
    told: list[GpuFacts], rooms: list[DiskFacts], is_heard: bool
) -> None:
    node = NodeFacts("box", is_heard, MOST if is_heard else {}, "x", tuple(told), tuple(rooms))
    for key, finding in seen(nodes=(node,)).findings.items():
        assert key == finding.key
        assert finding.summary.isprintable()
        assert finding.summary
        assert finding.todo
