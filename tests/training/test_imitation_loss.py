"""Weighted tokens: values and gradients against the formulas of the papers, written out number by number."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from agentloop.training.imitation_loss import token_losses  # noqa: E402

logprob = st.floats(-12, 0)


def by_hand(logprob: float, reference: float, weight: float) -> tuple[float, float]:
    """Loss and its derivative in the log-probability, as the papers have them."""
    if weight >= 0:
        return weight * -logprob, -weight
    sigmoid = 1 / (1 + math.exp(logprob - reference))  # of -(log pi - log pi_ref)
    return -weight * -math.log(sigmoid), -weight * (1 - sigmoid)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(logprob, logprob, st.floats(-13, 13)), min_size=1, max_size=8))
def test_values_and_gradients_are_those_of_the_formulas(tokens: list[tuple[float, float, float]]):
    logprobs, reference, weights = (torch.tensor(values, dtype=torch.float32) for values in zip(*tokens, strict=True))
    logprobs.requires_grad_()
    reference.requires_grad_()
    losses = token_losses(logprobs, weights, reference)
    losses.sum().backward()
    expected = [by_hand(*token) for token in zip(logprobs.tolist(), reference.tolist(), weights.tolist(), strict=True)]
    assert losses.tolist() == pytest.approx([value for value, _ in expected], rel=1e-5, abs=1e-5)
    assert logprobs.grad is not None and logprobs.grad.tolist() == pytest.approx([slope for _, slope in expected], rel=1e-5, abs=1e-5)
    assert reference.grad is None, "the reference stays what it is"


def test_unlearning_is_bounded_where_plain_unlikelihood_is_not():
    logprobs = torch.tensor([-1.0, -40.0], requires_grad=True)
    token_losses(logprobs, torch.tensor([-0.2, -0.2]), torch.tensor([-1.0, -1.0])).sum().backward()
    assert logprobs.grad is not None and logprobs.grad.tolist() == pytest.approx([0.1, 0.0], abs=1e-6)


def test_a_weight_below_zero_needs_a_reference():
    with pytest.raises(ValueError, match="reference"):
        token_losses(torch.tensor([-1.0]), torch.tensor([-0.5]))
    assert token_losses(torch.tensor([-1.0, -2.0]), torch.tensor([0.5, 0.0])).tolist() == [0.5, 0.0]
