"""How long a prompt takes to read: learnt from first tokens, against laws that are known here."""

from __future__ import annotations

from random import Random

import pytest

from forebay_scheduler.placing.prefill_fit import PrefillFit, usual_prefill

TRUE = (0.05, 1.2e-4, 3e-9)


def true_seconds(uncached: int, cached: int) -> float:
    c, a, b = TRUE
    return c + a * uncached + b * uncached * (cached + 0.5 * uncached)


def teach(fit: PrefillFit, times: int, random: Random, noise: float = 0.0, outliers: float = 0.0) -> None:
    for _ in range(times):
        uncached = int(min(90_000, random.lognormvariate(8.5, 1.2))) + 1
        cached = random.choice([0, 0, 512, 8192, 32_768])
        seconds = true_seconds(uncached, cached) * (1 + noise * (2 * random.random() - 1))
        if random.random() < outliers:
            seconds += 20.0
        fit.observe(uncached, cached, seconds)


def error(fit: PrefillFit) -> float:
    cases = [(500, 0), (2000, 4000), (10_000, 0), (10_000, 30_000), (60_000, 0)]
    return max(abs(fit.seconds(*case) / true_seconds(*case) - 1) for case in cases)


@pytest.mark.parametrize("wrong_by", [0.5, 1.0, 2.0])
def test_a_prior_that_is_wrong_by_two_is_corrected_within_a_hundred_requests(wrong_by: float) -> None:
    c, a, b = TRUE
    fit = PrefillFit((c * wrong_by, a * wrong_by, b * wrong_by))
    teach(fit, 100, Random(1))
    assert error(fit) < 0.03


def test_noise_of_thirty_percent_averages_out() -> None:
    fit = PrefillFit(usual_prefill(None))
    teach(fit, 400, Random(2), noise=0.3)
    assert error(fit) < 0.15


def test_a_few_requests_that_took_far_too_long_do_not_spoil_it() -> None:
    fit = PrefillFit(usual_prefill(None))
    teach(fit, 400, Random(3), noise=0.1, outliers=0.03)
    assert error(fit) < 0.35


def test_what_waits_unseen_does_not_raise_the_floor() -> None:
    fit = PrefillFit(TRUE)
    random = Random(4)
    for step in range(400):
        waited = 3.0 if step % 2 else 0.0
        fit.observe(1000, 0, true_seconds(1000, 0) + waited * random.random(), is_floor=True)
    assert fit.seconds(1000, 0) < true_seconds(1000, 0) + 0.2


def test_an_engine_that_became_slower_is_noticed() -> None:
    fit = PrefillFit(TRUE)
    teach(fit, 200, Random(5))
    for _ in range(300):
        fit.observe(4000, 0, 3 * true_seconds(4000, 0))
    assert fit.seconds(4000, 0) == pytest.approx(3 * true_seconds(4000, 0), rel=0.1)


def test_no_prediction_is_negative_whatever_it_was_told() -> None:
    random = Random(6)
    fit = PrefillFit(usual_prefill(None))
    for _ in range(300):
        fit.observe(random.randrange(100_000), random.randrange(100_000), random.random() * 10)
        c, a, b = fit.coefficients
        assert c >= 0
        assert a >= 0
        assert b >= 0


def test_it_goes_on_from_its_sums() -> None:
    taught, restored = PrefillFit(usual_prefill(None)), PrefillFit(usual_prefill(None))
    teach(taught, 104, Random(7))  # a multiple of eight: all of it is solved for
    restored.restore(taught.sums())
    assert restored.sums() == taught.sums()
    assert error(restored) < 0.03


def test_sums_of_another_shape_are_ignored() -> None:
    fit = PrefillFit(TRUE)
    fit.restore([1.0, 2.0])
    assert fit.coefficients == TRUE
