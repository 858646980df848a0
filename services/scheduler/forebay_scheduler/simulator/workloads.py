"""Workloads drawn by a seed. Their numbers are fitted to published traces; the traces themselves are not here.

Arena lengths and counts: the Chatbot-Arena excerpt of VTC (OSDI'24). Azure: AzurePublicDataset 2023. Conversation: the
Mooncake release (FAST'25). A trace of one's own goes through `trace_files`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from statistics import NormalDist

from forebay_scheduler.request import Band
from forebay_scheduler.simulator.engines import EngineModel
from forebay_scheduler.simulator.jobs import CostRule, Job, Workload
from forebay_scheduler.simulator.lengths import Quantiles, gamma_gap, log_normal, poisson_times, zipf_shares

ARENA_COUNTS = (
    (23, 22, 42, 26, 23, 33, 30, 31, 35, 31),
    (0, 0, 0, 22, 67, 30, 36, 31, 34, 42),
    (56, 38, 44, 23, 14, 5, 4, 4, 6, 5),
    (21, 17, 18, 13, 3, 8, 12, 11, 9, 8),
    (10, 3, 13, 7, 4, 5, 6, 8, 8, 3),
    (0, 0, 0, 0, 9, 15, 14, 12, 8, 8),
    (3, 6, 7, 4, 2, 4, 10, 6, 6, 8),
    (0, 0, 0, 3, 11, 4, 8, 6, 10, 4),
    (9, 1, 5, 4, 3, 5, 10, 2, 1, 4),
    (0, 2, 7, 1, 6, 6, 2, 7, 6, 6),
    (1, 1, 4, 2, 3, 3, 5, 5, 8, 8),
    (2, 0, 2, 6, 4, 2, 5, 3, 3, 9),
    (0, 0, 0, 0, 0, 0, 3, 3, 13, 12),
    (2, 0, 1, 5, 3, 2, 5, 2, 2, 4),
    (0, 0, 0, 2, 2, 2, 8, 1, 2, 8),
    (1, 0, 1, 1, 2, 3, 4, 6, 2, 3),
    (3, 7, 5, 3, 4, 0, 0, 0, 0, 0),
    (0, 0, 0, 0, 0, 0, 0, 4, 6, 12),
    (4, 10, 5, 0, 0, 0, 0, 0, 0, 0),
    (0, 0, 0, 0, 0, 0, 2, 5, 6, 6),
    (5, 3, 4, 0, 0, 0, 0, 0, 0, 0),
    (4, 7, 0, 0, 0, 0, 0, 0, 0, 0),
    (4, 3, 0, 0, 0, 0, 0, 0, 0, 0),
    (3, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    (1, 1, 0, 0, 0, 0, 0, 0, 0, 0),
    (0, 0, 0, 0, 0, 0, 0, 0, 0, 2),
    (0, 0, 0, 0, 0, 0, 0, 0, 0, 1),
)
"""Requests of each of 27 users in each of ten minutes: users come and go."""
_ARENA_PROMPT = Quantiles(
    [
        (0, 2),
        (0.05, 2),
        (0.1, 5),
        (0.2, 10),
        (0.3, 16),
        (0.4, 24),
        (0.5, 40),
        (0.6, 68),
        (0.7, 124),
        (0.8, 215),
        (0.9, 432),
        (0.95, 656),
        (0.975, 778),
        (0.99, 929),
        (1, 1021),
    ]
)
_ARENA_OUTPUT = Quantiles(
    [
        (0, 2),
        (0.01, 3),
        (0.05, 10),
        (0.1, 18),
        (0.2, 43),
        (0.3, 85),
        (0.4, 141),
        (0.5, 211),
        (0.6, 309),
        (0.7, 400),
        (0.8, 511),
        (0.9, 513),
        (0.95, 513),
        (0.975, 628),
        (0.99, 785),
        (1, 977),
    ]
)
_NORMAL = NormalDist()
_ARENA_TALKERS = (
    (0.2, 0.21),
    (-0.06, 0.25),
    (-0.05, 0.0),
    (0.09, -0.35),
    (-0.1, 0.15),
    (-0.09, 0.16),
    (0.02, -0.41),
    (-0.4, -0.21),
    (0.03, -0.01),
    (-0.08, -0.3),
    (0.0, -0.41),
    (-0.49, -0.05),
    (0.18, 0.38),
    (-0.1, -0.01),
    (-0.24, -0.17),
    (-0.31, -0.81),
    (0.88, -0.1),
    (-0.1, -0.18),
    (0.52, -0.55),
    (-0.36, 0.1),
    (0.12, 0.49),
    (0.03, -0.53),
    (0.05, -1.11),
    (-1.35, -1.42),
    (-0.1, -1.52),
    (-0.92, 0.38),
    (-0.52, 0.2),
)
"""How long each user's prompts and the answers to them are, in deviations from the middle."""
_ARENA_MINUTES = (0.937, 0.828, 0.977, 0.996, 0.97, 1.161, 1.045, 0.94, 1.045, 1.012)
"""How much longer the answers of each minute are than their users' habits would make them."""
_ARENA_TIE = 0.3
"""Long prompts have longer answers: the correlation of a request's two scores."""
SMALL_GPU = EngineModel()

LARGE_GPU = EngineModel(
    step_s=0.019,
    per_sequence_s=0.00025,
    per_prompt_token_s=0.00004,
    kv_tokens=400_000,
    max_sequences=64,
    prefill_tokens_per_step=4096,
    cache_blocks=220,
)


def _in_order(jobs: list[Job]) -> list[Job]:
    jobs.sort(key=lambda job: job.arrives_at)
    for number, job in enumerate(jobs):
        job.number = number
    return jobs


def arena(random: Random, rate: float = 1.0) -> Workload:
    """27 users of a chat arena, more than one small engine can serve."""
    jobs = []
    for user, minutes in enumerate(ARENA_COUNTS):
        for minute, count in enumerate(minutes):
            for _ in range(round(count * rate)):  # Poisson with a given count: uniform times
                prompt, output = _arena_lengths(random, user)
                output = max(1, round(output * _ARENA_MINUTES[minute]))
                jobs.append(Job(0, 60.0 * (minute + random.random()), user, prompt, output))
    return Workload("arena", _in_order(jobs), (SMALL_GPU,), len(ARENA_COUNTS), engines_say_what_fits=True)


def _arena_lengths(random: Random, user: int) -> tuple[int, int]:
    prompt_middle, output_middle = _ARENA_TALKERS[user % len(_ARENA_TALKERS)]
    one, other = random.gauss(0, 1), random.gauss(0, 1)
    output_score = output_middle + 0.96 * (_ARENA_TIE * one + (1 - _ARENA_TIE**2) ** 0.5 * other)
    return _ARENA_PROMPT.at(_NORMAL.cdf(prompt_middle + 0.98 * one)), _ARENA_OUTPUT.at(_NORMAL.cdf(output_score))


def unknown_limit(random: Random, rate: float = 1.0) -> Workload:
    """The arena again, on an engine that does not tell how much it takes at once: 96 may be tried."""
    engine = replace(SMALL_GPU, max_sequences=96)
    drawn = replace(arena(random, rate), name="unknown_limit", engines=(engine,))
    return replace(drawn, engines_say_what_fits=False, are_limits_known=False)


def short_long(random: Random, rate: float = 1.0) -> Workload:
    """One user with many short requests, one with fewer long ones."""
    jobs = [Job(0, at, 0, 64, 64) for at in poisson_times(random, 8 * rate, 600.0)]
    jobs += [Job(0, at, 1, 256, 256) for at in poisson_times(random, 1.5 * rate, 600.0)]
    return Workload("short_long", _in_order(jobs), (SMALL_GPU,), 2, engines_say_what_fits=True)


def _overload(name: str, random: Random, rates: tuple[float, ...], seconds: float, rate: float) -> Workload:
    jobs = []
    for user, own in enumerate(rates):
        jobs += [Job(0, at, user, 256, 256) for at in poisson_times(random, own * rate, seconds)]
    return Workload(name, _in_order(jobs), (SMALL_GPU,), len(rates), engines_say_what_fits=True)


def weighted(random: Random, rate: float = 1.0) -> Workload:
    """Four users with weights 1:2:3:4, each of whom asks for more than their share."""
    drawn = _overload("weighted", random, (0.8, 0.8, 1.2, 1.6), 360.0, rate)
    return replace(drawn, weights={user: float(user + 1) for user in range(4)})


def overload_two(random: Random, rate: float = 1.0) -> Workload:
    """Two users, 1.5 and 3 requests a second of 256 tokens in and out, where 1.75 can be served."""
    return _overload("overload_two", random, (1.5, 3.0), 360.0, rate)


def overload_eight(random: Random, rate: float = 1.0) -> Workload:
    """Eight users, all of whom ask for more than their share."""
    return _overload("overload_eight", random, (0.4, 0.4, 0.4, 0.6, 0.6, 0.6, 0.6, 0.6), 360.0, rate)


def newcomer(random: Random, rate: float = 1.0) -> Workload:
    """A heavy user fills the engine for a minute; then a light one comes, and again each 20 seconds."""
    jobs = [Job(0, at, 0, 256, 256) for at in poisson_times(random, 4 * rate, 240.0)]
    jobs += [Job(0, 60.0 + 20 * turn + random.random(), 1, 64, 64) for turn in range(9)]
    return Workload("newcomer", _in_order(jobs), (SMALL_GPU,), 2, engines_say_what_fits=True)


def bands(random: Random, rate: float = 1.0) -> Workload:
    """Two users in each of the bands interactive, standard and batch; together half more than fits."""
    jobs = []
    for user in range(6):
        band = (Band.INTERACTIVE, Band.STANDARD, Band.BATCH)[user // 2]
        own = (0.15, 0.4, 0.8)[user // 2] * rate
        for at in poisson_times(random, own, 600.0):
            prompt, output = _arena_lengths(random, user)
            jobs.append(Job(0, at, user, prompt, output, band=band))
    return Workload("bands", _in_order(jobs), (SMALL_GPU,), 6, engines_say_what_fits=True)


def locality(random: Random, rate: float = 14.0) -> Workload:
    """32 users, each with an own system prompt of 3k tokens, on four engines that cannot keep all of them in cache."""
    users, system_blocks = 32, 6
    shares = zipf_shares(users, 0.6)
    jobs = []
    unique = 1_000_000
    for at in poisson_times(random, rate, 300.0):
        user = random.choices(range(users), shares)[0]
        own = log_normal(random, 6.2, 0.6, 4000)
        prompt = system_blocks * 512 + own
        blocks = [user * 100 + number for number in range(system_blocks)]
        for _ in range(prompt // 512 - system_blocks):
            unique += 1
            blocks.append(unique)
        output = log_normal(random, 6.1, 0.6, 2000)
        jobs.append(Job(0, at, user, prompt, output, tuple(blocks)))
    return Workload(
        "locality", _in_order(jobs), (LARGE_GPU,) * 4, users, cost=CostRule(prompt=1.0, cached=0.1, output=2.0)
    )


BIG_NODE = EngineModel(
    step_s=0.020,
    per_sequence_s=0.0003,
    per_prompt_token_s=1e-4,
    per_prompt_token_context_s=2e-9,
    kv_tokens=None,
    max_sequences=256,
    prefill_tokens_per_step=8192,
    cache_blocks=2700,
)
"""Eight GPUs with a 70B model. The two numbers of its prefill law, for tokens and for pairs of them, are a choice: under it
the Mooncake conversation trace at 1.25 times its rate ranks the rules of others as was measured elsewhere, and is a little
lighter (to the first token on average: least loaded 6.4 s, Dynamo's rule 4.0, llm-d's 2.8; there 10.3, 3.7 and 3.6). With
4e-5 and 5.5e-9 they come nearer (8.0, 4.0 and 3.5), but then the longest prompts take 40 s by themselves."""


def conversation(random: Random, rate: float = 1.25, seconds: float = 3537.0) -> Workload:
    """Long prompts that grow from turn to turn, in bursts, on eight large nodes: fitted to Mooncake's conversation trace."""
    jobs: list[Job] = []
    open_ones: list[tuple[int, tuple[int, ...]]] = []
    """(tokens of prompt and answer so far, blocks of the prompt), newest last."""
    block = 0
    now = 0.0
    while (now := now + gamma_gap(random, 1 / (3.4 * rate), 3.0)) < seconds / rate:
        if open_ones and random.random() < _CONTINUES:
            back = min(len(open_ones), 1 + int(random.expovariate(1 / 150)))
            tokens, kept = open_ones.pop(-back)
            prompt = min(126_000, tokens + log_normal(random, 6.6, 1.3, 60_000))
        else:
            prompt, kept = log_normal(random, 8.7, 1.12, 126_000), (0,)
        fresh = prompt // 512 - len(kept)
        blocks = (*kept, *range(block + 1, block + 1 + fresh))[: prompt // 512]
        block += max(0, fresh)
        output = log_normal(random, 5.45, 0.9, 2000)
        jobs.append(Job(0, now, 0, prompt, output, blocks))
        open_ones.append((prompt + output, blocks))
    return Workload("conversation", _in_order(jobs), (BIG_NODE,) * 8, is_about_fairness=False)


_CONTINUES = 0.36
"""Of the requests, so many go on with a conversation."""


def uneven(random: Random, rate: float = 1.0) -> Workload:
    """The same conversations at their own rate, and two of the eight nodes are two and a half times slower."""
    return replace(conversation(random, rate), name="uneven", engines=slowed(BIG_NODE, 8))


def slowed(model: EngineModel, count: int) -> tuple[EngineModel, ...]:
    """A quarter of them, two and a half times slower than the others."""
    slow = replace(model, speed=model.speed / 2.5)
    return tuple(slow if number < count // 4 else model for number in range(count))


def azure(random: Random, rate: float = 1.0) -> Workload:
    """Chat in an even stream and code in bursts, from 50 users by Zipf's law, on two engines."""
    users = 50
    shares = zipf_shares(users, 1.0)
    jobs = []
    now = 0.0
    while (now := now + gamma_gap(random, 1 / (5.53 * rate), 1.09)) < 600:
        user = random.choices(range(users), shares)[0]
        jobs.append(Job(0, now, user, log_normal(random, 6.63, 0.985, 14_000), log_normal(random, 5.02, 0.86, 1000)))
    now = 0.0
    while (now := now + gamma_gap(random, 1 / (2.57 * rate), 13.2)) < 600:
        user = random.choices(range(users), shares)[0]
        jobs.append(Job(0, now, user, log_normal(random, 7.0, 1.36, 7437), log_normal(random, 2.6, 1.15, 1899)))
    return Workload("azure", _in_order(jobs), (replace(LARGE_GPU, cache_blocks=0, max_sequences=32),) * 2, users)


SWAPPING = EngineModel(
    step_s=0.020,
    per_sequence_s=0.002,
    per_prompt_token_s=0.0003,
    kv_tokens=None,
    max_sequences=8,
    models=tuple(f"model-{number}" for number in range(6)),
    models_at_once=2,
    sequences_per_model=4,
    load_s=8.0,
)


def swapping(random: Random, rate: float = 1.0) -> Workload:
    """Six models, of which each of three engines keeps two in memory (as Ollama does), and twelve users."""
    shares = zipf_shares(6, 1.0)
    jobs = []
    for at in poisson_times(random, 1.2 * rate, 600.0):
        model = f"model-{random.choices(range(6), shares)[0]}"
        user = random.randrange(12)
        jobs.append(
            Job(0, at, user, log_normal(random, 5.5, 1.0, 4000), log_normal(random, 5.0, 0.7, 1000), model=model)
        )
    return Workload("swapping", _in_order(jobs), (SWAPPING,) * 3, 12)


def of_trace(jobs: list[Job], name: str, engines: int) -> Workload:
    """With its users where it names them, else as one crowd."""
    users = max(job.user for job in jobs) + 1
    models = tuple(sorted({job.model for job in jobs}))
    model = replace(BIG_NODE, models=models)
    return Workload(name, jobs, (model,) * engines, users, is_about_fairness=users > 1)


Draw = Callable[..., Workload]
WORKLOADS: dict[str, Draw] = {
    "arena": arena,
    "unknown_limit": unknown_limit,
    "short_long": short_long,
    "weighted": weighted,
    "newcomer": newcomer,
    "bands": bands,
    "conversation": conversation,
    "uneven": uneven,
    "locality": locality,
    "azure": azure,
    "swapping": swapping,
    "overload_two": overload_two,
    "overload_eight": overload_eight,
}
"""By name: (random) or (random, rate) to a workload."""
