"""llama.cpp's own HTTP server as a program: `python -m forebay.local.llama_server -m FILE --port N …`.

The package `xllamacpp` holds the server as a library, built for any x86-64 processor since 2013 and any 64-bit ARM, but no
program that starts it. The options are a few of llama-server's own, by its names."""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

_POOLINGS = ("none", "mean", "cls", "last", "rank")


def main(argv: list[str] | None = None) -> None:
    """Serves until the process is ended. Exits with 1 when the model cannot be loaded; the reason is in the output."""
    asked = _parser().parse_args(argv)
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(asked.model)
    params.model_alias = set(asked.alias.split(","))
    params.hostnames = [asked.host]
    params.port = asked.port
    params.cpuparams.n_threads = asked.threads
    params.n_parallel = asked.parallel
    params.n_ctx = asked.ctx_size
    params.n_batch = params.n_ubatch = asked.batch_size or (512 if asked.embeddings else 32)
    params.embedding = asked.embeddings
    # With a cache for each slot, two texts of different lengths that are read together spoil a third one's vector (seen with
    # Gemma 3 in build 11549: 0.80 like itself).
    params.kv_unified = asked.embeddings
    if asked.pooling is not None:
        params.pooling_type = xllamacpp.llama_pooling_type[f"LLAMA_POOLING_TYPE_{asked.pooling.upper()}"]
    params.use_jinja = params.endpoint_metrics = params.endpoint_slots = True
    params.ui = False
    # A demonstration should leave a laptop its memory: no second, reordered copy of the weights and no cache of prompts.
    params.no_extra_bufts = True
    params.cache_ram_mib = 0
    if asked.api_key_file is not None:
        params.api_keys = asked.api_key_file.read_text().split()
    if asked.chat_template_file is not None:
        params.chat_template = asked.chat_template_file.read_text()
    if asked.reverse_prompt is not None:
        params.antiprompt = [asked.reverse_prompt]
    if asked.temp is not None:
        params.sampling.temp = asked.temp
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise SystemExit(f"llama.cpp does not start: {error}") from error
    threading.Event().wait()  # it serves on threads of its own; a signal ends the process
    del server


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m forebay.local.llama_server", description="llama.cpp's HTTP server."
    )
    add = parser.add_argument
    add("-m", "--model", type=Path, required=True, help="weights, a GGUF file")
    add("--alias", required=True, help="the names that clients may use, with commas between them")
    add("--host", default="127.0.0.1")
    add("--port", type=int, required=True)
    add("-t", "--threads", type=int, default=1)
    add("-np", "--parallel", type=int, default=1, help="slots")
    add("-c", "--ctx-size", type=int, default=4096, help="tokens, of all slots together")
    # A long prompt holds up everybody's next token, and the end of a request whose client has gone, until its batch is read.
    # The usual 2,048 tokens take a laptop ten seconds; so few cost a sixth of its reading speed.
    # A text to embed has to fit in a batch: one that does not is refused.
    add("-b", "--batch-size", type=int, help="tokens of prompts that are read at once; 32, and 512 with --embeddings")
    add("--embeddings", action="store_true", help="texts are made vectors at /v1/embeddings")
    add("--pooling", choices=_POOLINGS, help="how a text's vector comes from its tokens'; the model's own if not said")
    add("--api-key-file", type=Path, help="callers must give one of the keys in it, one a line")
    add("--chat-template-file", type=Path, help="in place of the model's own")
    add("--reverse-prompt", help="an answer ends before this, if its request names no other stop")
    add("--temp", type=float, help="of requests that name none")
    return parser


if __name__ == "__main__":
    main()
