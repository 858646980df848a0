"""What a request costs in fairness."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forebay_scheduler.fairness.cost import CostModel
from forebay_scheduler.request import LedgerId, Request, Used, UserId
from forebay_scheduler.terms import ModelTerms

tokens = st.integers(0, 200_000)


def asking(prompt_tokens: int = 100, max_output_tokens: int = 0, model: str = "m") -> Request:
    return Request(
        LedgerId(b"1"), UserId("ann"), model, 0.0, prompt_tokens=prompt_tokens, max_output_tokens=max_output_tokens
    )


def test_a_prompt_token_costs_one_a_cached_one_a_tenth_and_a_generated_one_two() -> None:
    assert CostModel().actual(asking(), Used(1000, 400, 50)) == 600_000 + 40_000 + 100_000


def test_the_estimate_takes_what_the_model_answered_lately_and_never_more_than_allowed() -> None:
    costs = CostModel()
    assert costs.estimate(asking(100)) == 100_000 + 512_000
    assert costs.estimate(asking(100, max_output_tokens=16)) == 100_000 + 32_000
    assert costs.estimate(asking(100, max_output_tokens=100_000)) == 100_000 + 512_000
    for _ in range(400):
        costs.learn("m", 10)
    assert costs.estimate(asking(100)) == 100_000 + 20_000


def test_a_model_that_only_embeds_soon_needs_no_guess_of_an_answer() -> None:
    costs = CostModel()
    for _ in range(400):
        costs.learn("embed", 0)
    assert costs.estimate(asking(100, model="embed")) == 100_000


def test_a_heavier_model_costs_more_and_a_weight_of_zero_is_not_for_nothing() -> None:
    costs = CostModel()
    costs.change([ModelTerms("m", weight=3.0), ModelTerms("n", weight=0.0)])
    assert costs.so_far(asking(1000), 0, 0) == 3_000_000
    assert costs.so_far(asking(1000, model="n"), 0, 0) == 1000
    costs.change(removed_models=["m"])
    assert costs.so_far(asking(1000), 0, 0) == 1_000_000


def test_what_was_learned_goes_to_the_next_leader() -> None:
    costs, successor = CostModel(), CostModel()
    costs.learn("m", 1000)
    successor.restore_lengths(costs.lengths())
    assert successor.estimate(asking()) == costs.estimate(asking())


@given(prompt=tokens, cached=tokens, completion=tokens, more=st.integers(1, 1000))
def test_costs_are_whole_never_negative_and_grow_with_each_token(
    prompt: int, cached: int, completion: int, more: int
) -> None:
    costs = CostModel()
    cost = costs.so_far(asking(prompt), cached, completion)
    assert isinstance(cost, int)
    assert cost >= 0
    assert costs.so_far(asking(prompt), cached, completion + more) > cost
    assert costs.actual(asking(prompt), Used(prompt, cached, completion)) == cost
