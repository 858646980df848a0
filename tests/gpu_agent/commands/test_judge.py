"""Which commands an agent obeys."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_gpu_agent.commands.judge import Here, Order, OrderKind, Refusal, judge

HERE = Here("gpu-1", 77, frozenset({OrderKind.SAMPLE, OrderKind.PULL}), {"seen"})
ORDER = Order("new", "gpu-1", 77, issued_at=100.0, expires_at=130.0, actor="ada", kind=OrderKind.SAMPLE)


def test_a_command_for_this_node_and_this_start_is_obeyed_until_it_expires() -> None:
    assert judge(ORDER, HERE, 110.0) is None
    assert judge(ORDER, HERE, 50.0) is None, "a clock may be a little behind"
    assert judge(replace(ORDER, kind=OrderKind.PULL, model="hf.co/org/name:Q4_K_M"), HERE, 110.0) is None


@pytest.mark.parametrize(
    ("changed", "now", "why"),
    [
        ({"node": "gpu-2"}, 110.0, Refusal.FOREIGN),
        ({"agent_started_us": 76}, 110.0, Refusal.ANOTHER_START),
        ({"id": "seen"}, 110.0, Refusal.REPLAYED),
        ({}, 130.0, Refusal.EXPIRED),
        ({}, 100.0 + 5 * 3600, Refusal.EXPIRED),
        ({}, 100.0 - 5 * 3600, Refusal.NOT_YET),
        ({"kind": None}, 110.0, Refusal.UNKNOWN_ORDER),
        ({"kind": OrderKind.DELETE, "model": "m"}, 110.0, Refusal.NOT_ALLOWED),
        ({"kind": OrderKind.PULL, "model": "../../etc/passwd"}, 110.0, Refusal.BAD_MODEL),
        ({"kind": OrderKind.PULL, "model": "/etc/passwd"}, 110.0, Refusal.BAD_MODEL),
        ({"kind": OrderKind.PULL, "model": "a\nb"}, 110.0, Refusal.BAD_MODEL),
        ({"kind": OrderKind.PULL, "model": ""}, 110.0, Refusal.BAD_MODEL),
        ({"kind": OrderKind.PULL, "model": "a//b"}, 110.0, Refusal.BAD_MODEL),
    ],
)
def test_anything_else_is_refused_with_its_reason(changed: dict[str, object], now: float, why: Refusal) -> None:
    refused = judge(replace(ORDER, **changed), HERE, now)  # type: ignore[arg-type]
    assert refused is not None
    assert refused.why is why
    assert refused.message.endswith((".", "?"))


@settings(max_examples=30)
@given(st.text(max_size=40))
def test_no_name_of_a_model_leaves_its_place(model: str) -> None:
    refused = judge(replace(ORDER, kind=OrderKind.PULL, model=model), HERE, 110.0)
    assert refused is not None or (".." not in model.split("/") and not model.startswith("/") and "\\" not in model)
