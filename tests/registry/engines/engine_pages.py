"""Pages of engines as they write them: llama.cpp's taken from the real server, the others written by their source."""

from __future__ import annotations

VLLM_V0 = b"""\
# HELP vllm:num_requests_running Number of requests currently running on GPU.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="llama"} 3.0
# HELP vllm:num_requests_swapped Number of requests swapped to CPU.
# TYPE vllm:num_requests_swapped gauge
vllm:num_requests_swapped{model_name="llama"} 1.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model_name="llama"} 5.0
# HELP vllm:gpu_cache_usage_perc GPU KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:gpu_cache_usage_perc gauge
vllm:gpu_cache_usage_perc{model_name="llama"} 0.75
# HELP vllm:cpu_prefix_cache_hit_rate CPU prefix cache block hit rate.
# TYPE vllm:cpu_prefix_cache_hit_rate gauge
vllm:cpu_prefix_cache_hit_rate{model_name="llama"} -1.0
# HELP vllm:num_preemptions_total Cumulative number of preemption from the engine.
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{model_name="llama"} 4.0
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{model_name="llama"} 1.2e+06
# HELP vllm:generation_tokens_total Number of generation tokens processed.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{model_name="llama"} 20000.0
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",num_gpu_blocks="1000",sliding_window="None"} 1.0
"""

VLLM_V1_OLD = b"""\
vllm:num_requests_running{engine="0",model_name="llama"} 2.0
vllm:num_requests_waiting{engine="0",model_name="llama"} 0.0
vllm:gpu_cache_usage_perc{engine="0",model_name="llama"} 0.5
vllm:kv_cache_usage_perc{engine="0",model_name="llama"} 0.5
vllm:gpu_prefix_cache_queries_total{engine="0",model_name="llama"} 4000.0
vllm:gpu_prefix_cache_queries_created{engine="0",model_name="llama"} 1.7499e+09
vllm:gpu_prefix_cache_hits_total{engine="0",model_name="llama"} 1000.0
vllm:prefix_cache_queries_total{engine="0",model_name="llama"} 4000.0
vllm:prefix_cache_hits_total{engine="0",model_name="llama"} 1000.0
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="None",num_gpu_blocks_override="None"} 1.0
"""

VLLM_REPLICAS = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a} b"} 2.0
vllm:num_requests_running{engine="1",model_name="a} b"} 1.0
vllm:num_requests_waiting{engine="0",model_name="a} b"} 5.0
vllm:num_requests_waiting{engine="1",model_name="a} b"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.5
vllm:prefix_cache_queries_total{engine="0"} 600.0
vllm:prefix_cache_queries_total{engine="1"} 400.0
vllm:prefix_cache_hits_total{engine="0"} 100.0
vllm:prefix_cache_hits_total{engine="1"} 150.0
vllm:num_preemptions_total{engine="0"} 1.0
vllm:prompt_tokens_total{engine="0"} 600.0
vllm:prompt_tokens_total{engine="1"} 400.0
vllm:generation_tokens_total{engine="0"} 50.0
vllm:generation_tokens_total{engine="1"} 50.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1"} 7.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf"} 10.0
vllm:time_to_first_token_seconds_count{engine="0"} 10.0
vllm:time_to_first_token_seconds_sum{engine="0"} 2.5
vllm:request_queue_time_seconds_count{engine="0"} 10.0
vllm:request_queue_time_seconds_sum{engine="0"} 0.5
vllm:cache_config_info{block_size="16",engine="0",kv_cache_size_tokens="9000",num_gpu_blocks="1200"} 1.0
vllm:cache_config_info{block_size="16",engine="1",kv_cache_size_tokens="9000",num_gpu_blocks="1200"} 1.0
vllm:lora_requests_info{max_lora="4",running_lora_adapters="old",waiting_lora_adapters=""} 1.7500000e+09
vllm:lora_requests_info{max_lora="4",running_lora_adapters="sql,law",waiting_lora_adapters="old"} 1.7500001e+09
"""

SGLANG = b"""\
# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{dp_rank="0",engine_type="unified",model_name="m",pp_rank="0",priority="",tp_rank="0"} 4.0
sglang:num_running_reqs{dp_rank="0",engine_type="unified",model_name="m",pp_rank="0",priority="",tp_rank="1"} 4.0
sglang:num_running_reqs{dp_rank="1",engine_type="unified",model_name="m",pp_rank="0",priority="",tp_rank="2"} 2.0
sglang:num_running_reqs{dp_rank="1",engine_type="unified",model_name="m",pp_rank="0",priority="7",tp_rank="2"} 2.0
sglang:num_queue_reqs{dp_rank="0",engine_type="unified",model_name="m",pp_rank="0",priority="",tp_rank="0"} 1.0
sglang:num_queue_reqs{dp_rank="1",engine_type="unified",model_name="m",pp_rank="0",priority="",tp_rank="2"} 0.0
sglang:token_usage{dp_rank="0",tp_rank="0"} 0.4
sglang:token_usage{dp_rank="1",tp_rank="2"} 0.1
sglang:cache_hit_rate{dp_rank="0",tp_rank="0"} 0.9
sglang:max_total_num_tokens{dp_rank="0",tp_rank="0"} 50000.0
sglang:max_total_num_tokens{dp_rank="0",tp_rank="1"} 50000.0
sglang:max_total_num_tokens{dp_rank="1",tp_rank="2"} 50000.0
sglang:num_retracted_requests_total{dp_rank="0",tp_rank="0"} 2.0
sglang:prompt_tokens_total{model_name="m"} 8000.0
sglang:generation_tokens_total{model_name="m"} 900.0
sglang:cached_tokens_total{cache_source="device",model_name="m"} 1500.0
sglang:cached_tokens_total{cache_source="host",model_name="m"} 500.0
sglang:time_to_first_token_seconds_sum{model_name="m"} 4.0
sglang:time_to_first_token_seconds_count{model_name="m"} 8.0
sglang:fwd_occupancy{dp_rank="0"} NaN
"""

LLAMACPP = b"""\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 79
# HELP llamacpp:prompt_tokens_cached_total Number of prompt tokens reused from the cache
# TYPE llamacpp:prompt_tokens_cached_total counter
llamacpp:prompt_tokens_cached_total 21
# HELP llamacpp:prompt_seconds_total Total time spent processing prompts
# TYPE llamacpp:prompt_seconds_total counter
llamacpp:prompt_seconds_total 0.965909
# HELP llamacpp:tokens_predicted_total Number of generation tokens processed
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total 12
# HELP llamacpp:predicted_tokens_seconds Average generation throughput in tokens/s
# TYPE llamacpp:predicted_tokens_seconds gauge
llamacpp:predicted_tokens_seconds 18.8818
# HELP llamacpp:requests_processing Number of requests processing
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 1
# HELP llamacpp:requests_deferred Number of requests deferred
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 2
"""

LLAMACPP_2024 = b"""\
# HELP llamacpp:kv_cache_usage_ratio KV-cache usage. 1 means 100 percent usage.
# TYPE llamacpp:kv_cache_usage_ratio gauge
llamacpp:kv_cache_usage_ratio 0.125
llamacpp:kv_cache_tokens 512
llamacpp:requests_processing 1
llamacpp:requests_deferred 0
"""

ROUTER_MODELS = {
    "object": "list",
    "data": [
        {
            "id": "small",
            "aliases": [],
            "object": "model",
            "owned_by": "llamacpp",
            "status": {"value": "loaded", "args": ["llama-server", "--port", "54353"]},
            "meta": {"n_ctx": 4096, "n_ctx_train": 32768, "size": 246587904, "ftype": "Q4_K - Medium"},
        },
        {
            "id": "large",
            "aliases": [],
            "object": "model",
            "owned_by": "llamacpp",
            "status": {"value": "unloaded", "args": [], "exit_code": 1, "failed": True},
        },
        {"id": "naps", "owned_by": "llamacpp", "status": {"value": "sleeping"}},
    ],
}
ROUTER_PROPS = {"role": "router", "max_instances": 4, "models_autoload": True, "build_info": "b9999-7e4c0a9"}

SGLANG_INFO = {
    "model_path": "m",
    "api_key": "never-to-be-kept",
    "dp_size": 2,
    "max_running_requests": None,
    "max_total_num_tokens": 50000,
    "internal_states": [
        {"effective_max_running_requests_per_dp": 128, "memory_usage": {"token_capacity": 50000}},
        {"effective_max_running_requests_per_dp": 128, "memory_usage": {"token_capacity": 50000}},
    ],
    "version": "0.5.18",
}
