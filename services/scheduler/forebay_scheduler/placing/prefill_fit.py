"""How long a backend takes from the start of a prompt's prefill to its first token: learnt from what it did. Pure.

seconds = c + a·n + b·n·ctx, where n tokens are not cached and ctx is the mean number of tokens each of them attends to.
Least squares with exponential forgetting, pulled towards what was believed before the first observation. Relative errors
count, so that long prompts do not drown short ones; an observation far off is drawn in before it counts."""

from __future__ import annotations

from collections.abc import Sequence

_TOKENS = 1e-3
"""n is counted in thousands, n·ctx in tens of millions, so that the three numbers are of one size."""
_PAIRS = 1e-7

BYTES_PER_S = 2e14
"""Weights times tokens that a data-centre GPU gets through in a second: 80 µs a token for 16 GB of weights."""
USUAL_BYTES = 16_000_000_000

SURE = 16.0
EACH = 8
"""After the first so many observations only each so many are solved for: solving takes longer than adding them up."""


class PrefillFit:
    __slots__ = (
        "_aa",
        "_ab",
        "_bb",
        "_ca",
        "_cb",
        "_cc",
        "_prior",
        "_scale",
        "_unsolved",
        "_ya",
        "_yb",
        "_yc",
        "a",
        "b",
        "c",
        "observations",
    )

    FORGETTING = 0.98
    """About the last fifty first tokens count."""
    TRUST = 2.0
    """What was believed before counts like so many observations."""
    FAR_OFF = 4.0
    """Times the usual error."""

    def __init__(self, prior: tuple[float, float, float]) -> None:
        """`prior` is (c, a, b): seconds, seconds a token, seconds a pair of tokens."""
        c, a, b = prior
        self._prior = (c, a / _TOKENS, b / _PAIRS)
        self.c, self.a, self.b = prior
        self._cc = self._ca = self._cb = self._aa = self._ab = self._bb = 0.0
        self._yc = self._ya = self._yb = 0.0
        self._scale = 0.5
        self.observations = 0.0
        self._unsolved = 0

    @property
    def coefficients(self) -> tuple[float, float, float]:
        return self.c, self.a, self.b

    def seconds(self, uncached: int, cached: int) -> float:
        return self.c + uncached * (self.a + self.b * (cached + 0.5 * uncached))

    def observe(self, uncached: int, cached: int, seconds: float, is_floor: bool = False) -> None:
        """`is_floor`: the engine may let requests wait unseen, so that what takes long says little about the prefill."""
        expected = self.seconds(uncached, cached)
        size = expected + 0.05
        error = (seconds - expected) / size
        # The first few may be far off because the prior is: let them.
        bound = self.FAR_OFF * self._scale if self.observations >= 5.0 else 20.0
        drawn = min(max(error, -bound), bound)
        self._scale += 0.05 * (min(abs(error), 2.0 * bound) - self._scale)
        self._scale = max(self._scale, 0.02)
        seconds = expected + drawn * size
        weight = 1.0 / (size * size)
        if is_floor and error > 0.0:
            weight *= 0.05
        keep = self.FORGETTING
        x = uncached * _TOKENS
        z = uncached * (cached + 0.5 * uncached) * _PAIRS
        self._cc = keep * self._cc + weight
        self._ca = keep * self._ca + weight * x
        self._cb = keep * self._cb + weight * z
        self._aa = keep * self._aa + weight * x * x
        self._ab = keep * self._ab + weight * x * z
        self._bb = keep * self._bb + weight * z * z
        self._yc = keep * self._yc + weight * seconds
        self._ya = keep * self._ya + weight * x * seconds
        self._yb = keep * self._yb + weight * z * seconds
        self.observations = keep * self.observations + 1.0
        self._unsolved += 1
        if self._unsolved >= EACH or self.observations < SURE:
            self._solve()

    def sums(self) -> list[float]:
        """All that it has learnt, to be kept."""
        return [
            *(self._cc, self._ca, self._cb, self._aa, self._ab, self._bb),
            *(self._yc, self._ya, self._yb),
            *(self._scale, self.observations),
        ]

    def restore(self, sums: Sequence[float]) -> None:
        if len(sums) != 11:
            return
        (self._cc, self._ca, self._cb, self._aa, self._ab, self._bb) = sums[:6]
        (self._yc, self._ya, self._yb) = sums[6:9]
        self._scale, self.observations = sums[9], sums[10]
        self._solve()

    def _solve(self) -> None:
        """Ridge towards the prior; what came out negative is left out, the largest share of the time first."""
        self._unsolved = 0
        c0, a0, b0 = self._prior
        # Each coefficient is pulled as if TRUST observations of the usual size had confirmed the prior.
        trust = self.TRUST / max(self.observations, 1.0)
        pull_c = trust * self._cc * 0.2 + 1e-9
        pull_a = trust * self._aa * 0.2 + 1e-9
        pull_b = trust * self._bb * 0.2 + 1e-9
        cc, ca, cb = self._cc + pull_c, self._ca, self._cb
        aa, ab, bb = self._aa + pull_a, self._ab, self._bb + pull_b
        yc, ya, yb = self._yc + pull_c * c0, self._ya + pull_a * a0, self._yb + pull_b * b0
        minor_c = aa * bb - ab * ab
        minor_a = ca * bb - cb * ab
        minor_b = ca * ab - cb * aa
        determinant = cc * minor_c - ca * minor_a + cb * minor_b
        if determinant > 1e-30:
            c = (yc * minor_c - ca * (ya * bb - ab * yb) + cb * (ya * ab - aa * yb)) / determinant
            a = (cc * (ya * bb - ab * yb) - yc * minor_a + cb * (ca * yb - ya * cb)) / determinant
            b = (cc * (aa * yb - ya * ab) - ca * (ca * yb - ya * cb) + yc * minor_b) / determinant
            if c >= 0.0 and a >= 0.0 and b >= 0.0:
                self.c, self.a, self.b = c, a * _TOKENS, b * _PAIRS
                return
        # Without the constant or the pairs, or with the tokens alone: what is left is a line, which cannot fail.
        c, a, b = _best_of_two(cc, ca, cb, aa, ab, bb, yc, ya, yb)
        self.c, self.a, self.b = c, a * _TOKENS, b * _PAIRS


def _best_of_two(
    cc: float, ca: float, cb: float, aa: float, ab: float, bb: float, yc: float, ya: float, yb: float
) -> tuple[float, float, float]:
    """The non-negative solution with one or two of the three that explains most."""
    best, explained = (0.0, max(0.0, ya / aa), 0.0), max(0.0, ya) ** 2 / aa
    for pp, pq, qq, yp, yq, at in (
        (cc, ca, aa, yc, ya, (0, 1)),
        (aa, ab, bb, ya, yb, (1, 2)),
        (cc, cb, bb, yc, yb, (0, 2)),
    ):
        determinant = pp * qq - pq * pq
        if determinant <= 1e-30:
            continue
        p = (yp * qq - pq * yq) / determinant
        q = (pp * yq - yp * pq) / determinant
        if p >= 0.0 and q >= 0.0 and p * yp + q * yq > explained:
            explained = p * yp + q * yq
            found = [0.0, 0.0, 0.0]
            found[at[0]], found[at[1]] = p, q
            best = (found[0], found[1], found[2])
    return best


def usual_prefill(size_bytes: int | None) -> tuple[float, float, float]:
    """What to expect of a model of this size before anything is known of the hardware."""
    per_token = max(size_bytes or USUAL_BYTES, 1_000_000_000) / BYTES_PER_S
    # At 60,000 tokens of context, attending to it costs as much as the weights do.
    return 0.02, per_token, per_token / 60_000
