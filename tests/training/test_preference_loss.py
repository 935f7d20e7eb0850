"""Losses of preferences: values and gradients against the papers' formulas, and against the numbers of TRL's own trainers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from agentloop.training.dpo import PairObjective  # noqa: E402
from agentloop.training.kto import OutcomeObjective  # noqa: E402

Pair = tuple[float, float, float, float, int, int, float]
pairs = st.lists(st.tuples(*[st.floats(-20, -0.05)] * 4, st.integers(1, 5), st.integers(1, 5), st.floats(0.0, 3.0)), min_size=1, max_size=5)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def dpo(c: float, r: float, rc: float, rr: float, _c: int, _r: int, beta: float) -> float:
    return -math.log(sigmoid(beta * (c - rc) - beta * (r - rr)))


def simpo(c: float, r: float, _rc: float, _rr: float, lc: int, lr: int, beta: float) -> float:
    return -math.log(sigmoid(beta / lc * c - beta / lr * r - 0.5))


def orpo(c: float, r: float, _rc: float, _rr: float, lc: int, lr: int, beta: float) -> float:
    chosen, rejected = math.exp(c / lc), math.exp(r / lr)
    odds_ratio = (chosen / (1 - chosen)) / (rejected / (1 - rejected))
    return -c / lc + beta * -math.log(sigmoid(math.log(odds_ratio)))


def rpo(c: float, r: float, rc: float, rr: float, lc: int, lr: int, beta: float) -> float:
    return dpo(c, r, rc, rr, lc, lr, beta) + 0.3 * -c / lc


FORMS: list[tuple[PairObjective, Callable[..., float]]] = [
    (PairObjective("sigmoid", beta=0.1), dpo),
    (PairObjective("simpo", beta=2.0, margin=0.5), simpo),
    (PairObjective("orpo", beta=0.1), orpo),
    (PairObjective("sigmoid", beta=0.1, imitation=0.3), rpo),
]


def spread(values: list[float], lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences of these log-probabilities, laid out as a batch: (S, 6) in which each of the last `length` positions has its share, and
    who owns which position of the (S, 7) ids.
    """
    rows = torch.zeros(len(values), 6, dtype=torch.float32)
    for row, (value, length) in enumerate(zip(values, lengths, strict=True)):
        rows[row, 6 - length :] = value / length
    return rows, torch.arange(len(values))[:, None].expand(-1, 7)


@pytest.mark.parametrize(("objective", "formula"), FORMS, ids=["dpo", "simpo", "orpo", "rpo"])
@settings(max_examples=50, deadline=None)
@given(pairs)
def test_values_and_gradients_of_pairs_are_those_of_the_papers(objective: PairObjective, formula: Callable[..., float], found: list[Pair]):
    chosen, rejected, before_chosen, before_rejected, long, short, weights = map(list, zip(*found, strict=True))
    lengths = [*long, *short]
    policy, sequence = spread(chosen + rejected, lengths)
    reference, _ = spread(before_chosen + before_rejected, lengths)
    policy.requires_grad_()
    batch = {"sequence": sequence, "lengths": torch.tensor(lengths), "weights": torch.tensor(weights)}
    scores = objective(policy, reference if objective.compares else None, batch)
    scores.losses.sum().backward()
    assert policy.grad is not None
    for place, (pair, weight) in enumerate(zip(found, weights, strict=True)):
        numbers = (*pair[:6], objective.beta)
        assert scores.losses[place].item() == pytest.approx(weight * formula(*numbers), rel=1e-5, abs=1e-5)
        for side, at in ((0, place), (1, place + len(found))):
            slope = weight * slope_of(formula, numbers, side)
            assert policy.grad[at, -1].item() == pytest.approx(slope, rel=1e-4, abs=1e-5), "every trained id has its sequence's slope"


def slope_of(formula: Callable[..., float], numbers: tuple[float, ...], place: int) -> float:
    """Central difference in double precision."""
    step = 1e-5
    up, down = ([*numbers[:place], numbers[place] + sign * step, *numbers[place + 1 :]] for sign in (1, -1))
    return (formula(*up) - formula(*down)) / (2 * step)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-20, -0.05)] * 4, st.sampled_from([-2.0, -1.0, 0.5, 1.0])), min_size=1, max_size=5))
def test_values_and_gradients_of_outcomes_are_those_of_kto(found: list[tuple[float, float, float, float, float]]):
    own, before, crossed, crossed_before, weights = map(list, zip(*found, strict=True))
    lengths = [2] * len(own) * 2
    policy, sequence = spread(own + crossed, lengths)
    reference, _ = spread(before + crossed_before, lengths)
    policy.requires_grad_()
    batch = {"sequence": sequence, "lengths": torch.tensor(lengths), "weights": torch.tensor(weights)}
    scores = OutcomeObjective(beta=0.1)(policy, reference, batch)
    scores.losses.sum().backward()
    baseline = max(0.0, sum(a - b for a, b in zip(crossed, crossed_before, strict=True)) / len(own))
    assert policy.grad is not None
    for place, (value, was, _, _, weight) in enumerate(found):
        sign = 1 if weight > 0 else -1
        gain = sigmoid(sign * 0.1 * (value - was - baseline))
        assert scores.losses[place].item() == pytest.approx(abs(weight) * (1 - gain), rel=1e-5, abs=1e-6)
        assert policy.grad[place, -1].item() == pytest.approx(-weight * 0.1 * gain * (1 - gain), rel=1e-4, abs=1e-6)
    assert not policy.grad[len(own) :].any(), "the baseline is a number"


def test_the_odds_of_what_is_certain_are_finite():
    policy, sequence = spread([0.0, -1.0], [1, 1])
    policy.requires_grad_()
    batch = {"sequence": sequence, "lengths": torch.tensor([1, 1]), "weights": torch.tensor([1.0])}
    losses = PairObjective("orpo")(policy, None, batch).losses
    losses.sum().backward()
    assert policy.grad is not None and bool(torch.isfinite(losses).all()) and bool(torch.isfinite(policy.grad).all())
