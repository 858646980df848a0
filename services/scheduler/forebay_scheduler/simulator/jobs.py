"""What a simulated client asks for, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from forebay_scheduler.request import Band
from forebay_scheduler.simulator.engines import EngineModel

NEVER = float("inf")


@dataclass(slots=True, eq=False)
class Job:
    """One request. The upper half is asked, the lower half is filled in by a run. Times are seconds from the start."""

    number: int
    arrives_at: float
    user: int
    prompt_tokens: int
    output_tokens: int
    blocks: Sequence[int] = ()
    """Chained hashes of the prompt's whole blocks, from its start."""
    model: str = "m"
    band: Band = Band.STANDARD

    granted_at: float = NEVER
    """When a discipline sent it to an engine."""
    started_at: float = NEVER
    """When the engine began to work on it."""
    first_token_at: float = NEVER
    ended_at: float = NEVER
    engine: int = -1
    cached_tokens: int = 0
    """Of its prompt, found in the engine's prefix cache."""
    attempts: int = 0
    is_failed: bool = False

    prefill_left: int = 0
    """The engine's own: prompt tokens yet to be read."""
    ends_at_step: int = 0
    """The engine's own, once the prompt is read."""

    @property
    def ttft_s(self) -> float:
        return self.first_token_at - self.arrives_at

    def anew(self) -> Job:
        """As it was asked, for another run."""
        return Job(
            self.number,
            self.arrives_at,
            self.user,
            self.prompt_tokens,
            self.output_tokens,
            self.blocks,
            self.model,
            self.band,
        )


@dataclass(frozen=True, slots=True)
class Outage:
    """An engine that answers nothing for a while."""

    engine: int
    begins_at: float
    ends_at: float


@dataclass(frozen=True, slots=True)
class CostRule:
    """What a token weighs in fairness. What a discipline charges and what is measured go by the same one."""

    prompt: float = 1.0
    cached: float = 1.0
    output: float = 2.0

    def of_prompt(self, job: Job) -> float:
        return self.prompt * (job.prompt_tokens - job.cached_tokens) + self.cached * job.cached_tokens

    def of(self, job: Job) -> float:
        return self.of_prompt(job) + self.output * job.output_tokens


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    jobs: Sequence[Job]
    """In order of arrival."""
    engines: Sequence[EngineModel]
    users: int = 1
    weights: Mapping[int, float] = field(default_factory=dict)
    """Of users; 1 where nothing is said."""
    cost: CostRule = CostRule()
    block_tokens: int = 512
    outages: Sequence[Outage] = ()
    engines_say_what_fits: bool = False
    """The pool of the engines is what is short, and they tell any discipline whether one more request fits into it."""
    are_limits_known: bool = True
    """False: nobody says how much an engine takes at once; only how much to try at most."""
    is_about_fairness: bool = True
    """False: one crowd of users without names, where only placement is measured, and no service is recorded."""

    def weight(self, user: int) -> float:
        return self.weights.get(user, 1.0)
