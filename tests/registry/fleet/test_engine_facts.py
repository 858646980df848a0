"""What engines tell of themselves, on its way to those who watch the fleet."""

from __future__ import annotations

from dataclasses import replace

from forebay.clock import ManualClock
from forebay_registry.backend import BackendId, Condition, Desired, EngineKind, Load, Model, Observed, Rates, Seen
from forebay_registry.fleet.fleet import Difference, View, difference, view_of
from forebay_registry.wire import to_backend
from forebay_scheduler.wire import read_backend

WANTED = Desired(BackendId("be-1"), "gpu", "http://gpu:8000", None, "default", 0, None, "ada", 1.0)
MODEL = Model(
    "llama:8b",
    8192,
    ("completion",),
    loaded=True,
    slots=4,
    size_bytes=6_000,
    vram_bytes=5_000,
    disk_bytes=4_000,
    expires_at=200.0,
    family="llama",
    parameter_size="8.0B",
    quantization="Q4_K_M",
    trained_context_length=131072,
)
SEEN = Seen(EngineKind.SGLANG, 256, (MODEL, Model("sql", 8192, parent="llama:8b")), 100_000, 3, "0.5.18")
RATES = Rates(15.0, 100.0, 20.0, 0.5, 0.0, 0.25, None)


def view(seen: Seen = SEEN, load: Load | None = None, wanted: Desired = WANTED) -> View:
    return view_of(wanted, Observed(Condition.HEALTHY, seen=seen, load=load), has_credential=False)


def test_the_scheduler_hears_the_room_in_the_cache_and_what_is_in_memory() -> None:
    heard = read_backend(to_backend(view(load=Load(7, 2, 0.5, 100.0))), ManualClock(101.0))
    assert (heard.kv_tokens, heard.models_at_once, heard.slots, heard.slots_assumed) == (100_000, 3, 256, False)
    assert (heard.running, heard.waiting) == (7, 2)
    facts = heard.facts["llama:8b"]
    assert (facts.slots, facts.is_loaded, facts.size_bytes) == (4, True, 6_000)
    told = read_backend(to_backend(view(wanted=replace(WANTED, kv_tokens=50, models_at_once=1))), ManualClock())
    assert (told.kv_tokens, told.models_at_once) == (50, 1), "the operator's word goes first"


def test_of_a_stale_load_the_scheduler_hears_no_number() -> None:
    stale = Load(7, 2, 0.5, 100.0, rates=RATES).grown_stale()
    message = to_backend(view(load=stale))
    assert (message.load.stale, message.load.measured_at_us) == (True, 100_000_000)
    assert not message.load.HasField("kv_used_fraction")
    assert not message.load.HasField("completion_tokens_per_s")
    heard = read_backend(message, ManualClock(200.0))
    assert (heard.running, heard.waiting, heard.measured_at) == (None, None, float("-inf"))
    assert stale.grown_stale() is stale


def test_all_of_it_is_in_the_message_and_nothing_that_was_not_told() -> None:
    load = Load(7, 2, 0.5, 100.0, swapped=1, rates=RATES, running_loras=("sql",))
    message = to_backend(view(load=load))
    assert (message.engine_version, message.kv_tokens, message.models_at_once) == ("0.5.18", 100_000, 3)
    assert (message.load.window_ms, message.load.completion_tokens_per_s, message.load.ttft_s) == (15_000, 20.0, 0.25)
    assert (message.load.swapped, list(message.load.running_loras)) == (1, ["sql"])
    assert not message.load.HasField("queue_s")
    model, adapter = message.models
    assert (model.vram_bytes, model.disk_bytes, model.expires_at_us) == (5_000, 4_000, 200_000_000)
    assert (model.family, model.parameter_size, model.quantization) == ("llama", "8.0B", "Q4_K_M")
    assert (adapter.parent, adapter.HasField("size_bytes"), adapter.HasField("expires_at_us")) == (
        "llama:8b",
        False,
        False,
    )
    bare = to_backend(view(Seen()))
    assert not any(bare.HasField(name) for name in ("kv_tokens", "models_at_once", "load"))


def test_a_model_that_stays_a_little_longer_is_no_news_and_one_that_stays_much_longer_can_wait() -> None:
    told = view()

    def kept_until(at: float | None) -> View:
        return view(replace(SEEN, models=(replace(MODEL, expires_at=at), *SEEN.models[1:])))

    assert difference(told, kept_until(240.0)) is Difference.NONE
    assert difference(told, kept_until(260.0)) is Difference.LOAD
    assert difference(told, kept_until(None)) is Difference.LOAD


def test_what_the_first_look_tells_again_is_not_stored_each_time() -> None:
    moved = replace(SEEN, version="0.5.19", kv_tokens=7, models=(replace(MODEL, vram_bytes=1), *SEEN.models[1:]))
    assert moved != SEEN
    assert moved.lasting == SEEN.lasting
    assert replace(SEEN, slots=8).lasting != SEEN.lasting
    assert replace(SEEN, models=()).lasting != SEEN.lasting
