"""What each state of a backend means to those that send requests, and that the wire has a number for each."""

from __future__ import annotations

import pytest

from forebay.backend_states import Condition, condition_named
from forebay.wire.v1 import registry_pb2


def test_the_wire_has_each_state_by_its_name() -> None:
    named = {condition_named(name) for name, _ in registry_pb2.BackendHealth.items()}
    assert named == set(Condition)
    for condition in Condition:
        registry_pb2.BackendHealth.Value(f"BACKEND_HEALTH_{condition.name}")


@pytest.mark.parametrize("word", ["BACKEND_HEALTH_SOMETHING_NEWER", "BACKEND_HEALTH_UNSPECIFIED", ""])
def test_a_state_of_a_newer_version_is_unknown_and_gets_nothing(word: str) -> None:
    assert condition_named(word) is Condition.UNKNOWN
    assert not Condition.UNKNOWN.takes_new


def test_every_state_either_takes_new_work_or_is_barred_but_the_unknown_one() -> None:
    for condition in Condition:
        assert condition.takes_new + condition.is_barred == (0 if condition is Condition.UNKNOWN else 1)
        assert not (condition.is_down and condition.takes_new)
        assert not (condition.is_emptied and condition.takes_new)
