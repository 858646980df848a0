"""A sample as `forebay agent status` shows it."""

from __future__ import annotations

from forebay_gpu_agent.facts import Gpu, GpuProcess, Gpus, GpuState, Sample
from forebay_gpu_agent.picture import render_sample


def test_a_process_calls_itself_what_it_likes_and_the_terminal_obeys_nothing_of_it() -> None:
    gpu = Gpu(0, "GPU-0", "A100", processes=(GpuProcess(41, 1 << 30, "evil\x1b[2J\x9b1m\rroot"),))
    shown = render_sample(Sample("box", 1, 0.0, 5.0, None, Gpus(GpuState.OK, "", (gpu,))))
    assert "evil?[2J?1m?root" in shown
    assert all(char.isprintable() or char == "\n" for char in shown)
