"""What engines tell of themselves, as people read it."""

from __future__ import annotations

from forebay.wire.v1 import registry_pb2
from forebay_admin.cli.backends.facts import engine_facts, load_in_short, model_row, place_facts

NOW = 1_000_000.0


def backend_with(**load: object) -> registry_pb2.Backend:
    load.setdefault("measured_at_us", round((NOW - 7) * 1e6))
    return registry_pb2.Backend(name="gpu", load=registry_pb2.EngineLoad(**load))  # type: ignore[arg-type]


def test_what_an_engine_does_not_tell_is_left_out_and_zero_is_told() -> None:
    assert load_in_short(registry_pb2.Backend(), NOW) == ""
    assert list(engine_facts(registry_pb2.Backend(), NOW)) == []
    assert load_in_short(backend_with(running=0), NOW) == "0 running"
    assert load_in_short(backend_with(running=3, waiting=5, kv_used_fraction=0.5), NOW) == (
        "3 running, 5 waiting, cache 50 %"
    )


def test_where_it_runs_is_told_with_its_gpus_and_who_wants_it() -> None:
    assert list(place_facts(registry_pb2.Backend(enabled=True), "")) == []
    placed = registry_pb2.Backend(gpu_indices=[0, 1], labels={"rack": "a", "b": "[red]"}, found_by="agent")
    assert dict(place_facts(placed, "gpu-box")) == {
        "Node": "gpu-box",
        "GPUs": "0, 1",
        "Labels": "b=\\[red], rack=a",
        "Wanted by": "nobody: added by itself, found by its node's agent",
        "Enabled": "no, by an operator",
    }
    assert dict(place_facts(registry_pb2.Backend(enabled=True), "box"))["GPUs"] == "all"


def test_a_stale_load_says_for_how_long_and_nothing_else() -> None:
    stale = backend_with(stale=True)
    assert load_in_short(stale, NOW) == "not told for 7 s"
    assert list(engine_facts(stale, NOW)) == [("Load", "not told for 7 s")]


def test_all_that_an_engine_tells_is_shown_and_cannot_paint_the_terminal() -> None:
    backend = backend_with(
        running=1,
        window_ms=15_000,
        prompt_tokens_per_s=12_345.6,
        completion_tokens_per_s=0.0,
        prefix_hit_fraction=0.25,
        preemptions_per_s=0.05,
        ttft_s=0.5,
        queue_s=0.125,
        swapped=2,
        running_loras=["sql", "[red]law"],
    )
    backend.engine_version, backend.kv_tokens, backend.models_at_once = "0.32.0", 1_234_567, 3
    assert dict(engine_facts(backend, NOW)) == {
        "Version": "0.32.0",
        "Cache": "1,234,567 tokens",
        "Models at once": "3",
        "Load": "1 running",
        "Measured": "7 s ago",
        "Swapped out": "2",
        "Reads": "12,346 tokens/s",
        "Writes": "0 tokens/s",
        "Found in its cache": "25 % of the prompts",
        "First token": "after 0.50 s on average",
        "Wait inside": "0.12 s on average",
        "Preemptions": "3.0 a minute",
        "Adapters in use": "sql, \\[red]law",
    }


def test_a_model_says_where_it_is_and_for_how_long() -> None:
    model = registry_pb2.BackendModel(
        name="llama",
        engine_name="llama:8b",
        loaded=True,
        context_length=8192,
        size_bytes=8_000_000_000,
        vram_bytes=6_000_000_000,
        expires_at_us=round((NOW + 240) * 1e6),
        family="llama",
        parameter_size="8.0B",
        quantization="Q4_K_M",
        capabilities=["completion", "tools"],
    )
    assert model_row(model, NOW) == (
        "llama (llama:8b)",
        "for 4 min",
        "8,192",
        "8.0 GB, 75 % on GPU",
        "llama 8.0B Q4_K_M",
        "completion, tools",
    )
    model.expires_at_us = round((NOW + 300 * 366 * 86_400) * 1e6)
    assert model_row(model, NOW)[1] == "for ever"
    idle = registry_pb2.BackendModel(name="sql", parent="llama", loaded=False, disk_bytes=2_000_000_000)
    assert model_row(idle, NOW) == ("sql, adapts llama", "no", "", "2.0 GB on disk", "", "")
    assert model_row(registry_pb2.BackendModel(name="m"), NOW) == ("m", "", "", "", "", "")
