"""Advantages of a group against formulas of their own."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentloop.dataset.relative import EPSILON, advantages, are_equal, spread, widest

rewards = st.lists(st.floats(-5, 5).map(lambda value: round(value, 3)), min_size=1, max_size=9)


@given(rewards)
def test_group_advantages_are_grpo(group: list[float]) -> None:
    """Equation of arXiv:2402.03300, section 4.1.2, with TRL's deviation (of the sample) and epsilon."""
    values = numpy.array(group)
    plain = values - values.mean()
    assert advantages(group, normalise=False) == pytest.approx(plain, abs=1e-9)
    if len(group) > 1 and not are_equal(group):
        assert advantages(group) == pytest.approx(plain / (values.std(ddof=1) + EPSILON), rel=1e-9, abs=1e-9)


@given(rewards.filter(lambda group: len(group) > 1))
def test_leave_one_out_compares_with_the_others_alone(group: list[float]) -> None:
    if are_equal(group):
        expected = [0.0] * len(group)
    else:
        expected = [group[i] - numpy.mean(group[:i] + group[i + 1 :]) for i in range(len(group))]
    assert advantages(group, against="leave_one_out", normalise=False) == pytest.approx(expected, abs=1e-9)


@given(rewards, st.floats(-3, 3), st.floats(0.1, 10))
def test_neither_the_origin_of_rewards_nor_their_unit_counts(group: list[float], shift: float, scale: float) -> None:
    if spread(group) < 0.01 or spread(group) * scale < 0.01:
        return
    assert advantages([reward + shift for reward in group]) == pytest.approx(advantages(group), abs=1e-6)
    assert advantages([reward * scale for reward in group]) == pytest.approx(advantages(group), rel=0.05)


@pytest.mark.parametrize("against", ["group", "leave_one_out"])
def test_equal_rewards_say_nothing(against: str) -> None:
    """The sums of floats that returns are may differ in the last digit; a deviation of 1e-17 must not make an advantage of 1."""
    assert advantages([0.1 + 0.2, 0.3, 0.3], against=against) == [0.0, 0.0, 0.0]  # type: ignore[arg-type]
    assert advantages([0.7], against=against) == [0.0]  # type: ignore[arg-type]


def test_the_widest_groups_are_kept() -> None:
    assert widest([0.0, 0.5, 0.1, 0.5], 0.75) == [1, 2, 3]
    assert widest([0.2, 0.2, 0.2], 0.4) == [0], "of equals the earlier; never none"
    assert widest([], 0.5) == [] and widest([0.1, 0.2], 1.0) == [0, 1]
