"""A trace for `forebay simulate` of a site with a thousand GPUs: a short one, since each engine is simulated step by step.

python -m benchmarks.scaling > build/scaling.csv
forebay simulate --trace build/scaling.csv --policy forebay --engines 1000"""

from __future__ import annotations

import random

_SEED = 1
_REQUESTS = 2000
_A_SECOND = 200.0
_USERS = 200


def lines() -> list[str]:
    """Chat of two hundred users, with prompts and answers about as long as Azure's trace has them: 735 and 148 tokens in the
    median."""
    chance, now, told = random.Random(_SEED), 0.0, ["TIMESTAMP,ContextTokens,GeneratedTokens,User"]
    for _ in range(_REQUESTS):
        now += chance.expovariate(_A_SECOND)
        prompt = int(chance.lognormvariate(6.6, 1)) + 1
        answer = min(1000, int(chance.lognormvariate(5, 0.86)) + 1)
        told.append(f"{now:.3f},{prompt},{answer},u{chance.randrange(_USERS)}")
    return told


if __name__ == "__main__":
    print("\n".join(lines()))
