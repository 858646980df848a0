"""What engines tell of themselves, page by page: they work, they are idle, or the page says nothing of it."""

from __future__ import annotations

import pytest

from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.engines.activity import PAGES, Activity, read_activity

LLAMA, VLLM, SGLANG, OLLAMA = EngineKind.LLAMACPP, EngineKind.VLLM, EngineKind.SGLANG, EngineKind.OLLAMA


def vllm(running: float, waiting: float) -> str:
    """Of two replicas, of which the second does nothing."""
    return "\n".join(
        f'vllm:num_requests_{name}{{engine="{engine}",model_name="a}} 7"}} {value if engine == 0 else 0.0}'
        for engine in (0, 1)
        for name, value in (("running", running), ("waiting", waiting))
    )


def sglang(*, running: int = 0, queued: int = 0, used: int = 0) -> str:
    told = {"num_running_reqs": running, "num_queue_reqs": queued, "num_used_tokens": used}
    return "\n".join(f'sglang:{name}{{model_name="m"}} {value}' for name, value in told.items())


@pytest.mark.parametrize(
    ("kind", "path", "status", "body", "activity"),
    [
        (LLAMA, "/health", 503, '{"error": {"message": "Loading model"}}', Activity.BUSY),
        (LLAMA, "/health", 200, '{"status": "ok"}', Activity.UNTOLD),
        (LLAMA, "/slots", 200, '[{"is_processing": false}, {"is_processing": true}]', Activity.BUSY),
        (LLAMA, "/slots", 200, '[{"is_processing": false}]', Activity.IDLE),
        (LLAMA, "/slots", 200, '[{"id": 0}]', Activity.UNTOLD),
        (LLAMA, "/slots", 200, "[]", Activity.UNTOLD),
        (LLAMA, "/slots", 501, '{"error": {"message": "no --slots"}}', Activity.UNTOLD),
        (LLAMA, "/slots", 200, "<html>", Activity.UNTOLD),
        (LLAMA, "/metrics", 200, "llamacpp:requests_processing 0\nllamacpp:requests_deferred 1", Activity.BUSY),
        (LLAMA, "/metrics", 200, "llamacpp:requests_processing 0\nllamacpp:requests_deferred 0", Activity.IDLE),
        (VLLM, "/metrics", 200, vllm(2.0, 0.0), Activity.BUSY),
        (VLLM, "/metrics", 200, vllm(0.0, 1.0), Activity.BUSY),
        (VLLM, "/metrics", 200, vllm(0.0, 0.0), Activity.IDLE),
        (VLLM, "/metrics", 200, vllm(0.0, 0.0) + "\nvllm:num_requests_swapped 1", Activity.BUSY),
        (VLLM, "/metrics", 200, "vllm:num_requests_running 0", Activity.UNTOLD),
        (VLLM, "/metrics", 200, "python_gc_objects_collected_total 12", Activity.UNTOLD),
        (VLLM, "/metrics", 404, vllm(0.0, 0.0), Activity.UNTOLD),
        (SGLANG, "/metrics", 200, sglang(running=1), Activity.BUSY),
        (SGLANG, "/metrics", 200, sglang(queued=1), Activity.BUSY),
        (SGLANG, "/metrics", 200, sglang(used=40_000), Activity.BUSY),
        (SGLANG, "/metrics", 200, sglang(), Activity.IDLE),
        (OLLAMA, "/api/ps", 200, '{"models": [{"name": "m"}]}', Activity.BUSY),
        (OLLAMA, "/api/ps", 200, '{"models": []}', Activity.IDLE),
        (OLLAMA, "/api/ps", 200, '{"models": null}', Activity.UNTOLD),
    ],
)
def test_a_page_tells(kind: EngineKind, path: str, status: int, body: str, activity: Activity) -> None:
    assert path in PAGES[kind]
    assert read_activity(kind, path, status, body.encode()) is activity


def test_engines_that_tell_nothing_have_no_pages() -> None:
    assert set(PAGES) == {LLAMA, VLLM, SGLANG, OLLAMA}
