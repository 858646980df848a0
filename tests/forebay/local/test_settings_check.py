"""What is wrong with anyone's settings is told at once, before anything starts."""

from __future__ import annotations

import pytest

from forebay.errors import BadSettings
from forebay.local.settings_check import demand_good_settings, without_effect
from forebay.local.settings_file import read_settings_file

_FILES = ("TOKEN_FILE", "CALLERS_FILE", "SNAPSHOT_DIR", "SNAPSHOT_KEY_FILE")
_TOLD = [
    ("scheduler", {f"FOREBAY_SCHEDULER_{name}": "/x" for name in _FILES}),
    (
        "gateway",
        {f"FOREBAY_GATEWAY_{name}": "/x" for name in ("TOKEN_FILE", *_FILES[2:], "PEPPER_FILE", "JOURNAL_DIR")},
    ),
    ("gpu-agent", {"FOREBAY_GPU_AGENT_NODE": "box"}),
]


def test_the_problems_of_all_services_are_told_together() -> None:
    tables = {
        "gatway": {},
        "scheduler": {"attempts": 2.5},
        "gateway": {"drain_s": "soon", "lissten": "x"},
        "gpu_agent": {"interval_s": 0},
    }
    with pytest.raises(BadSettings) as refused:
        demand_good_settings(tables, {"FOREBAY_GATEWAY_FENCE_S": "-1"}, [*_TOLD, _TOLD[1]])
    assert sorted(refused.value.problems) == [
        "FOREBAY_GATEWAY_FENCE_S: '-1' is below zero",
        "[gateway] drain_s: 'soon' is not a number",
        "[gateway] lissten: there is no such setting (did you mean listen?)",
        "[gatway]: there is no such service (did you mean gateway?)",
        "[gpu-agent] interval_s: 0.0 is not between 0.1 and 3600",
        "[scheduler] attempts: 2.5 is not a whole number",
    ]
    assert read_settings_file(None, {"FOREBAY_GATEWAY_DRAIN_S": "soon"}).drain_s > 0, "it is refused here and not there"


def test_what_forebay_up_says_itself_fills_what_is_required() -> None:
    demand_good_settings({"gateway": {"drain_s": 3}}, {}, _TOLD)


def test_what_forebay_up_decides_otherwise_is_named() -> None:
    told = [("admin", {"FOREBAY_ADMIN_LISTEN": "127.0.0.1:1", "FOREBAY_ADMIN_DATABASE_URL_FILE": "/x"}), *_TOLD]
    tables = {"admin": {"listen": "0.0.0.0:1", "database_url": "postgresql://mine"}, "gpu-agent": {"node": "box"}}
    environ = {"FOREBAY_GATEWAY_PEPPER_FILE": "/mine", "FOREBAY_SCHEDULER_TOKEN_FILE": "/x"}
    assert without_effect(tables, environ, told) == [
        "[admin] database_url",
        "[admin] listen",
        "FOREBAY_GATEWAY_PEPPER_FILE",
    ]
