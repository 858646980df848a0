"""A model of an inference engine: iteration-level continuous batching with chunked prefill, a KV pool, a prefix cache
and, for engines that swap, a few models in memory at once.

One step reads a chunk of the prompts that are new and gives one token to every answer that runs. It takes
α + β·batch + γ·(prompt tokens read) + δ·(prompt tokens read × their context), divided by the engine's speed.

The defaults are calibrated: one engine of this kind under the 27-user arena workload (`workloads.arena`), first come first
served, gives 775 tokens/s, as an A10G with Llama-2-7B and a pool of 10,000 tokens did for the authors of VTC (OSDI'24)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forebay_scheduler.simulator.prefix_cache import PrefixCache

if TYPE_CHECKING:
    from forebay_scheduler.simulator.jobs import Job


@dataclass(frozen=True, slots=True)
class EngineModel:
    """Seconds and tokens."""

    step_s: float = 0.030
    """α: of every step."""
    per_sequence_s: float = 0.0006
    """β: for each answer that runs or prompt that is read in it."""
    per_prompt_token_s: float = 0.0002
    """γ"""
    per_prompt_token_context_s: float = 0.0
    """δ: attention over what is there already; it makes long prompts quadratic."""
    speed: float = 1.0
    kv_tokens: int | None = 10_000
    """Prompt and output tokens of all that run. None: never short."""
    max_sequences: int = 256
    prefill_tokens_per_step: int = 4000
    cache_blocks: int = 0
    """0: no prefix cache."""
    block_tokens: int = 512
    models: tuple[str, ...] = ("m",)
    models_at_once: int | None = None
    """None: all that it serves are always in memory."""
    sequences_per_model: int | None = None
    load_s: float = 0.0
    """To bring a model into memory. Models that are there go on meanwhile."""

    def prefill_s(self, tokens: int, cached: int) -> float:
        """Alone, without the steps' own time."""
        context = cached + tokens / 2
        return tokens * (self.per_prompt_token_s + self.per_prompt_token_context_s * context) / self.speed


class Engine:
    """Its own queue is first come first served, as those of real engines are. What is to wait by other rules must wait
    before it is sent here."""

    def __init__(self, index: int, model: EngineModel) -> None:
        self.index = index
        self.model = model
        self.queue: deque[Job] = deque()
        self.cache = PrefixCache(model.cache_blocks) if model.cache_blocks else None
        self.is_stepping = False
        self.is_down = False
        self.loaded: list[str] = list(model.models if model.models_at_once is None else ())
        """The least recently used first."""
        self.running_of: dict[int, int] = {}
        """Answers that are being written, by user."""
        self.prefilled: list[tuple[Job, int]] = []
        """Read in this step: the job, and how many tokens of its prompt."""
        self.busy_s = 0.0
        self.most_at_once = 0
        self.loads = 0
        self.queued_prefill = 0
        """Prompt tokens that were sent here and not read yet."""
        self._prefilling: deque[Job] = deque()
        self._ending: dict[int, list[Job]] = {}
        """Jobs by the step with which they end."""
        self._running = 0
        self._resident: list[Job] = []
        self._refused: Job | None = None
        """Did not fit; nothing has changed for it until something ends."""
        self._ready_at: dict[str, float] = {}
        """Models on their way into memory."""
        self._step = 0

    # -- what it has --------------------------------------------------------------------------------------------------

    @property
    def at_once(self) -> int:
        """Jobs that are in its batch."""
        return self._running + len(self._prefilling)

    @property
    def in_flight(self) -> int:
        """Jobs that were sent here and have not ended."""
        return self._running + len(self._prefilling) + len(self.queue)

    @property
    def to_be_read(self) -> int:
        """Jobs in its batch whose prompt is not read yet."""
        return len(self._prefilling)

    @property
    def tokens_in_use(self) -> int:
        """Prompt tokens of its batch, and what was written so far."""
        used = 0
        for job in self._resident:
            used += job.prompt_tokens
            if job.ends_at_step:
                used += job.output_tokens - (job.ends_at_step - self._step)
        return used

    def cached_blocks(self, job: Job) -> int:
        return self.cache.match(job.blocks) if self.cache is not None and job.blocks else 0

    def fits(self, job: Job) -> bool:
        """Whether it could join the batch now and every answer still be finished in the pool.

        The peak of what is in the pool is what counts: the answer that ends first gives its room to the others."""
        if job is self._refused:
            return False
        if self.at_once >= self.model.max_sequences or not self._is_loadable(job.model):
            return False
        most = self.model.kv_tokens
        if most is None or self._peak(job) < most or not self._resident:
            return True
        self._refused = job
        return False

    def _peak(self, job: Job) -> int:
        step = self._step
        left = [(job.output_tokens - 1, job.prompt_tokens + 1)]
        for other in self._resident:
            if other.ends_at_step:
                to_come = other.ends_at_step - step
                left.append((to_come, other.prompt_tokens + other.output_tokens - to_come))
            else:
                left.append((other.output_tokens, other.prompt_tokens))
        left.sort(reverse=True)
        held = peak = 0
        for count, (to_come, has) in enumerate(left, 1):
            held += has
            if to_come * count + held > peak:
                peak = to_come * count + held
        return peak

    def written(self, job: Job) -> int:
        """Output tokens so far."""
        return job.output_tokens - (job.ends_at_step - self._step) if job.ends_at_step else 0

    # -- work ---------------------------------------------------------------------------------------------------------

    def send(self, job: Job) -> None:
        self.queue.append(job)
        self.queued_prefill += job.prompt_tokens

    def admit(self, now: float) -> list[Job]:
        """Let what fits of its own queue join the batch, in order."""
        admitted = []
        while self.queue and self.fits(self.queue[0]):
            job = self.queue.popleft()
            self._join(job, now)
            admitted.append(job)
        return admitted

    def _join(self, job: Job, now: float) -> None:
        job.started_at = now
        blocks = self.cached_blocks(job)
        # At least one token is read anew: the engine needs its logits.
        job.cached_tokens = min(blocks * self.model.block_tokens, job.prompt_tokens - 1)
        job.prefill_left = job.prompt_tokens - job.cached_tokens
        job.ends_at_step = 0
        if self.model.models_at_once is not None:
            self._load(job.model, now)
        self._prefilling.append(job)
        self._resident.append(job)
        self.most_at_once = max(self.most_at_once, self.at_once)

    def begin_step(self, now: float) -> float | None:
        """How long the step takes that begins now; None when there is nothing to do."""
        batch = self._running + len(self._prefilling)
        if not batch:
            return None
        model = self.model
        took = model.step_s + model.per_sequence_s * batch
        self.prefilled.clear()
        if self._ready_at:
            return self._step_while_loading(now)
        if self._prefilling:
            room = model.prefill_tokens_per_step
            for job in self._prefilling:
                tokens = min(room, job.prefill_left)
                before = job.prompt_tokens - job.prefill_left
                took += tokens * (model.per_prompt_token_s + model.per_prompt_token_context_s * (before + tokens / 2))
                self.prefilled.append((job, tokens))
                room -= tokens
                if room <= 0:
                    break
        took /= model.speed
        self.busy_s += took
        self.is_stepping = True
        return took

    def end_step(self, now: float) -> tuple[list[Job], list[Job]]:
        """Those that gave their first token in this step, and those that ended with it."""
        self.is_stepping = False
        self._step += 1
        firsts = []
        for job, tokens in self.prefilled:
            job.prefill_left -= tokens
            self.queued_prefill -= tokens
            if job.prefill_left:
                continue
            self._prefilling.remove(job)
            self.queued_prefill -= job.cached_tokens
            job.first_token_at = now
            job.ends_at_step = self._step + job.output_tokens - 1
            self._ending.setdefault(job.ends_at_step, []).append(job)
            self._running += 1
            self.running_of[job.user] = self.running_of.get(job.user, 0) + 1
            if self.cache is not None and job.blocks:
                self.cache.keep(job.blocks)
            firsts.append(job)
        ended = self._ending.pop(self._step, [])
        for job in ended:
            job.ended_at = now
            self._running -= 1
            self._resident.remove(job)
            if self.running_of[job.user] == 1:
                del self.running_of[job.user]
            else:
                self.running_of[job.user] -= 1
        if ended:
            self._refused = None
        return firsts, ended

    # -- failing ------------------------------------------------------------------------------------------------------

    def fail(self) -> list[Job]:
        """It is gone, and all that it had in memory. Returns what was there, finished or not."""
        lost = [*self._resident, *self.queue]
        self.is_down, self.is_stepping = True, False
        self.queue.clear()
        self._prefilling.clear()
        self._ending.clear()
        self._resident.clear()
        self.running_of.clear()
        self.prefilled.clear()
        self._running = self.queued_prefill = 0
        self._refused = None
        if self.cache is not None:
            self.cache.clear()
        if self.model.models_at_once is not None:
            self.loaded.clear()
            self._ready_at.clear()
        return lost

    # -- models that come and go --------------------------------------------------------------------------------------

    def _is_loadable(self, name: str) -> bool:
        """It is in memory, or there is room for it, or something idle may go."""
        most = self.model.models_at_once
        if most is None:
            return True
        each = self.model.sequences_per_model
        if each is not None and sum(job.model == name for job in self._resident) >= each:
            return False
        return name in self.loaded or len(self.loaded) < most or self._idle_model() is not None

    def _idle_model(self) -> str | None:
        in_use = {job.model for job in self._resident}
        return next((name for name in self.loaded if name not in in_use), None)

    def _load(self, name: str, now: float) -> None:
        assert self.model.models_at_once is not None
        if name in self.loaded:
            self.loaded.remove(name)
        else:
            self.loads += 1
            self._ready_at[name] = now + self.model.load_s
            if len(self.loaded) >= self.model.models_at_once:
                victim = self._idle_model()
                assert victim is not None, "what does not fit is not let in"
                self.loaded.remove(victim)
                self._ready_at.pop(victim, None)
        self.loaded.append(name)

    def _step_while_loading(self, now: float) -> float:
        """What waits for its model waits; the rest goes on."""
        for name in [name for name, ready_at in self._ready_at.items() if ready_at <= now]:
            del self._ready_at[name]
        model = self.model
        ready = [job for job in self._prefilling if job.model not in self._ready_at]
        batch = self._running + len(ready)
        if batch:
            took = model.step_s + model.per_sequence_s * batch
            room = model.prefill_tokens_per_step
            for job in ready:
                tokens = min(room, job.prefill_left)
                took += tokens * model.per_prompt_token_s
                room -= tokens
                self.prefilled.append((job, tokens))
                if room <= 0:
                    break
            took /= model.speed
        else:
            took = min(self._ready_at.values()) - now
        self.busy_s += took
        self.is_stepping = True
        return took
