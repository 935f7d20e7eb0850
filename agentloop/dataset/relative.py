"""Advantages: how much better a reward is than those that it is compared with. Plain functions of numbers, one group a call.

A group is what was drawn from the same start: the samples of a task, or the siblings at a node of a search. Whatever the form, the
advantages of a group whose rewards are all equal are 0, and so is its gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean
from typing import Literal, NamedTuple

Against = Literal["group", "leave_one_out"]
"""What is taken off a reward: the mean of its group, or the mean of the group's others (RLOO, arXiv:2402.14740)."""

EPSILON = 1e-4
"""Added to the standard deviation that advantages are divided by, as TRL and verl do, so that nearly equal rewards are not blown up."""

EQUAL = 1e-9
"""Spread at or below which rewards count as equal: returns are sums of floats."""


def spread(rewards: Sequence[float]) -> float:
    """Standard deviation of a group's rewards, of the population (divided by their number); 0 of a single one."""
    if not rewards:
        return 0.0
    middle = fmean(rewards)
    return sqrt(fmean([(reward - middle) ** 2 for reward in rewards]))


def sample_deviation(rewards: Sequence[float]) -> float:
    """Standard deviation that advantages are divided by: of the sample (divided by their number less 1), as in TRL; 0 of a single one."""
    count = len(rewards)
    return spread(rewards) * sqrt(count / (count - 1)) if count > 1 else 0.0


def are_equal(rewards: Sequence[float]) -> bool:
    """Whether a group says nothing: no reward in it differs from another."""
    return spread(rewards) <= EQUAL


class Baseline(NamedTuple):
    """What a reward is compared with: it is taken off, and the difference is divided by the scale."""

    value: float
    scale: float = 1.0

    def advantage(self, reward: float) -> float:
        """(reward - value) / scale."""
        return (reward - self.value) / self.scale


def baseline_of(rewards: Sequence[float], *, normalise: bool) -> Baseline:
    """The baseline of a set of rewards: their mean; scaled by their standard deviation where `normalise` says so."""
    return Baseline(fmean(rewards), sample_deviation(rewards) + EPSILON if normalise else 1.0)


def advantages(rewards: Sequence[float], *, against: Against = "group", normalise: bool = True) -> list[float]:
    """The advantage of each reward of one group, in their order.

    Args:
        rewards: Returns of the group, one or more.
        against: `group` takes off the mean of all (GRPO, arXiv:2402.03300, section 4.1). `leave_one_out` takes off the mean of the others,
            which is n / (n - 1) times as much and leaves the gradient unbiased.
        normalise: Whether the result is divided by the standard deviation of the group. Dr. GRPO (arXiv:2503.20783) does not: dividing
            weighs tasks by how rarely they are won or lost.
    """
    if are_equal(rewards):
        return [0.0] * len(rewards)
    compared = baseline_of(rewards, normalise=normalise)
    others = len(rewards) / (len(rewards) - 1) if against == "leave_one_out" else 1.0
    return [others * compared.advantage(reward) for reward in rewards]


def widest(spreads: Sequence[float], share: float) -> list[int]:
    """Which of the groups are kept, by their place: the `share` of them with the widest spread of rewards, the earlier of equals.

    At least one is kept of any. SPEAR (arXiv:2509.22601) keeps 0.75.
    """
    if not spreads:
        return []
    count = max(1, int(share * len(spreads) + EQUAL))
    ranked = sorted(range(len(spreads)), key=lambda at: (-spreads[at], at))
    return sorted(ranked[:count])
