"""Engines' Prometheus pages of all ages, as they write them and as nobody should."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_registry.backend import EngineKind, Rates
from forebay_registry.engines import gauges
from forebay_registry.engines.answers import BadAnswer
from forebay_registry.engines.gauges import Page, read_page
from forebay_registry.engines.rates import Counters, has_restarted, rates_of
from tests.registry.engines import engine_pages as of

VLLM, SGLANG, LLAMACPP = EngineKind.VLLM, EngineKind.SGLANG, EngineKind.LLAMACPP


def page_of(page: bytes, kind: EngineKind = VLLM) -> Page:
    read = read_page(page, kind)
    assert read is not None
    return read


def test_vllms_first_engine_tells_by_the_old_names() -> None:
    page = page_of(of.VLLM_V0)
    assert (page.running, page.waiting, page.swapped, page.kv_used_fraction) == (3, 5, 1, 0.75)
    assert page.kv_tokens == 16_000
    assert (page.counters.prompt_tokens, page.counters.completion_tokens) == (1_200_000, 20_000)
    assert page.counters.preemptions == 4
    assert (page.counters.looked_up_tokens, page.counters.ttft_sum_s) == (None, None), "what it does not tell is absent"


def test_a_page_with_old_and_new_names_is_counted_once() -> None:
    page = page_of(of.VLLM_V1_OLD)
    assert (page.running, page.waiting, page.swapped, page.kv_used_fraction) == (2, 0, None, 0.5)
    assert (page.counters.looked_up_tokens, page.counters.found_tokens) == (4000, 1000)
    assert page.kv_tokens is None, "None is no number of blocks"


def test_replicas_are_summed_the_fullest_cache_counts_and_labels_may_hold_anything() -> None:
    page = page_of(of.VLLM_REPLICAS)
    assert (page.running, page.waiting, page.kv_used_fraction) == (3, 5, 0.5)
    assert page.kv_tokens == 18_000
    assert page.running_loras == ("law", "sql")
    assert page.counters == Counters(1000, 100, 1000, 250, 1, 2.5, 10, 0.5, 10)
    blocks = of.VLLM_REPLICAS.replace(b'kv_cache_size_tokens="9000",', b"")
    assert page_of(blocks).kv_tokens == 19_200, "the blocks of all replicas are on each line"


def test_sglangs_ranks_are_one_replica_and_its_priorities_parts_of_a_whole() -> None:
    page = page_of(of.SGLANG, SGLANG)
    assert (page.running, page.waiting, page.kv_used_fraction) == (6, 1, 0.4)
    assert page.kv_tokens == 100_000
    counters = page.counters
    assert (counters.looked_up_tokens, counters.found_tokens, counters.preemptions) == (8000, 2000, 2)


def test_llamacpp_tells_what_it_found_beside_what_it_read() -> None:
    page = page_of(of.LLAMACPP, LLAMACPP)
    assert (page.running, page.waiting, page.kv_used_fraction, page.kv_tokens) == (1, 2, None, None)
    assert (page.counters.looked_up_tokens, page.counters.found_tokens) == (100, 21)
    assert page_of(of.LLAMACPP_2024, LLAMACPP).kv_used_fraction == 0.125


@pytest.mark.parametrize(
    ("page", "kind"), [(of.VLLM_V0, VLLM), (of.VLLM_REPLICAS, VLLM), (of.SGLANG, SGLANG), (of.LLAMACPP, LLAMACPP)]
)
def test_a_page_says_which_engine_wrote_it(page: bytes, kind: EngineKind) -> None:
    assert gauges.kind_of_page(page) is kind
    assert gauges.kind_of_page(b"go_goroutines 7\n# vllm:num_requests_running\n") is None
    others = {VLLM, SGLANG, LLAMACPP} - {kind}
    assert [read_page(page, other) for other in others] == [None, None]


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"<html><body>vllm:num_requests_running 3</body></html>",
        b"vllm:num_requests_running NaN\n",
        b"vllm:num_requests_running -1\nvllm:num_requests_running +Inf\n",
        b"vllm:num_requests_running 1e999\n",
        b"vllm:num_requests_running 1_000\n",
        b"vllm:num_requests_running 1.2.3\n",
        b'vllm:num_requests_running{model_name="m"}\n',
        b'vllm:num_requests_running{model_name="m 3\n',
        b"vllm:num_requests_running_total 3\n",
        b" vllm:num_requests_running 3\n",
        b'{"vllm:num_requests_running": 3}',
        b"vllm:num_requests_running\x00 3\n",
    ],
)
def test_what_is_no_number_of_requests_is_unknown(page: bytes) -> None:
    assert read_page(page, VLLM) is None


def test_numbers_that_cannot_be_meant_are_left_out_and_the_others_are_read() -> None:
    page = page_of(
        b"vllm:num_requests_running 1e12\nvllm:num_requests_waiting 2\nvllm:kv_cache_usage_perc 7\n"
        b'vllm:cache_config_info{block_size="16",num_gpu_blocks="99999999999999999999"} 1\n'
    )
    assert (page.running, page.waiting, page.kv_used_fraction, page.kv_tokens) == (None, 2, None, None)


def test_a_label_cannot_pass_for_a_value_or_for_another_label() -> None:
    page = page_of(
        b'vllm:num_requests_running{model_name="x\\"} 99 # {",engine="0"} 2 1700000000 # {trace="a"} 7\n'
        b'vllm:num_requests_running{model_name="m,engine=\\"1\\"",engine="0"} 1\n'
        b'vllm:cache_config_info{a="num_gpu_blocks=\\"9\\"",block_size="16",num_gpu_blocks="2"} 1\n'
        b'vllm:lora_requests_info{running_lora_adapters="ok,esc\\x1b[31m,\x1b[31m"} 1\n'
    )
    assert page.running == 2, "one replica, whose larger line counts"
    assert page.kv_tokens == 32
    assert page.running_loras == ("escx1b[31m", "ok"), "what a terminal should not see is left out"


def test_the_same_series_twice_counts_once() -> None:
    line = b'sglang:prompt_tokens_total{model_name="m"} %d\n'
    page = page_of(b"sglang:num_running_reqs 1\n" + line % 5 + line % 7, SGLANG)
    assert page.counters.prompt_tokens == 7


def test_a_page_of_nothing_but_wanted_samples_is_not_read_to_its_end() -> None:
    endless = b"".join(b'vllm:num_requests_running{engine="%d"} 1\n' % n for n in range(gauges.MOST_SAMPLES + 1))
    with pytest.raises(BadAnswer, match="more than 20000 samples"):
        read_page(endless, VLLM)


def test_unclosed_labels_do_not_make_it_think_for_long() -> None:
    began = time.process_time()
    assert read_page(b"vllm:num_requests_running{" + b'a="\\"' * 200_000, VLLM) is None
    assert read_page(b"\nvllm:num_requests_running{a" * 50_000, VLLM) is None
    assert time.process_time() - began < 2.0


PARTS = st.sampled_from(
    [
        *(b"vllm:num_requests_running", b"sglang:num_running_reqs", b"llamacpp:requests_processing"),
        *(b"vllm:cache_config_info", b"vllm:lora_requests_info", b"# HELP ", b"{", b"}", b'"', b"\\", b",", b"=", b" "),
        *(
            b'engine="0"',
            b'num_gpu_blocks="9"',
            b"\n",
            b"\r\n",
            b"1",
            b"2.5",
            b"NaN",
            b"1e400",
            b"-3",
            b"\xff",
            b"\x00",
        ),
    ]
)


@settings(max_examples=30)
@given(st.lists(PARTS | st.binary(max_size=4), max_size=60).map(b"".join), st.sampled_from([VLLM, SGLANG, LLAMACPP]))
def test_no_page_of_any_shape_gives_more_than_facts_in_their_bounds(raw: bytes, kind: EngineKind) -> None:
    page = read_page(raw, kind)
    if page is not None:
        assert all(n is None or 0 <= n <= 1_000_000 for n in (page.running, page.waiting, page.swapped))
        assert page.kv_used_fraction is None or 0.0 <= page.kv_used_fraction <= 1.0
        assert page.kv_tokens is None or page.kv_tokens > 0


def test_several_models_behind_a_router_are_one_engine_and_one_that_does_not_tell_makes_the_whole_unknown() -> None:
    one, other = page_of(of.LLAMACPP, LLAMACPP), page_of(of.LLAMACPP_2024, LLAMACPP)
    both = gauges.summed([one, other])
    assert both is not None
    assert (both.running, both.waiting, both.counters) == (2, 2, Counters())
    silent = page_of(b"llamacpp:requests_processing 3\n", LLAMACPP)
    both = gauges.summed([one, silent])
    assert both is not None
    assert (both.running, both.waiting) == (4, None)
    assert gauges.summed([]) is None


def test_rates_are_what_the_counters_gained_in_the_time_between() -> None:
    before = Counters(1000, 100, 1000, 250, 1, 2.5, 10, 0.5, 10)
    now = Counters(3000, 400, 3000, 1750, 4, 6.5, 18, 0.5, 10)
    assert rates_of(before, now, 20.0) == Rates(20.0, 100.0, 15.0, 0.75, 0.15, 0.5, None)


def test_an_engine_that_started_anew_has_no_rates_for_that_time() -> None:
    before, now = Counters(prompt_tokens=1000, completion_tokens=5), Counters(prompt_tokens=10, completion_tokens=7)
    assert has_restarted(before, now)
    assert rates_of(before, now, 15.0) is None
    assert rates_of(now, now, 0.0) is None
    assert rates_of(Counters(), Counters(), 15.0) is None, "it counts nothing"
    idle = rates_of(now, now, 15.0)
    assert idle == Rates(15.0, 0.0, 0.0), "an idle engine wrote nothing, and of its waits there is nothing to say"


def test_sums_that_are_no_numbers_any_more_are_not_told() -> None:
    most = b"1e308"
    lines = [b'vllm:prompt_tokens_total{engine="%d"} %s' % (engine, most) for engine in range(9)]
    page = read_page(b"\n".join([b"vllm:num_requests_running 2", *lines]), EngineKind.VLLM)
    assert page is not None
    assert (page.running, page.counters.prompt_tokens) == (2, None)
