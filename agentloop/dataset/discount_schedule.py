"""Automatic discount scheduling: look only as far ahead as the agent has come (ADS, "Imitation Learning from Observation with Automatic
Discount Scheduling", arXiv:2310.07433, section 4).

Rewards of late steps keep an agent from learning the early ones that those depend on. So the discount is short-sighted at first: with k the
number of steps that the agent masters in order, gamma = alpha ** (1 / k), and gamma ** k = alpha whatever k is. k grows when an evaluation
shows that the agent follows the reference that far.

Here a step is a turn and following a reference is meeting its milestones in their order; how a milestone is recognised is the caller's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

ALPHA = 0.2
START = 0.2
"""Share of the horizon from which k starts."""
MASTERED = 0.9
"""Share of the reference's own progress that counts as following it."""
MOST_STEPS = 5
"""How much k grows at most after one evaluation."""
EPISODES, REFERENCES = 0.9, 0.5
"""Quantiles: of the agent's matches over episodes and references, and of the references' matches with each other."""


def discount_of(progress: int, alpha: float = ALPHA) -> float:
    """gamma = alpha ** (1 / k): what comes k steps later counts alpha times as much. `progress` is k, at least 1."""
    return alpha ** (1.0 / progress)


def in_order(milestones: Sequence[int]) -> int:
    """How many milestones were met in their order: the length of the longest strictly increasing subsequence of their places in the
    reference, as the episode met them.
    """
    tails: list[int] = []
    for place in milestones:
        at = bisect_left(tails, place)
        tails[at:] = [place, *tails[at + 1 :]]
    return len(tails)


@dataclass(frozen=True, slots=True)
class DiscountSchedule:
    """How far the agent has come.

    Attributes:
        horizon: Turns of the longest reference.
        progress: k, the turns that it masters.
        alpha: See `discount_of`.
    """

    horizon: int
    progress: int
    alpha: float = ALPHA

    @staticmethod
    def begin(horizon: int, alpha: float = ALPHA) -> DiscountSchedule:
        """Short-sighted: k is a fifth of the horizon, at least 1."""
        return DiscountSchedule(horizon, max(1, int(START * horizon)), alpha)

    @property
    def discount(self) -> float:
        """gamma of a turn now."""
        return discount_of(self.progress, self.alpha)

    def after(self, episodes: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> DiscountSchedule:
        """The schedule after an evaluation: k grows by one as long as the agent keeps up, at most `MOST_STEPS` times; it never falls.

        Args:
            episodes: For each pair of an episode and a reference, the places in the reference that its turns met, in the order of turns.
            references: The same for each pair of two references: how far even these agree.
        """
        reached = self.progress
        for _ in range(MOST_STEPS):
            if reached >= self.horizon or not episodes or not references:
                break
            agent = _quantile([in_order(places[:reached]) for places in episodes], EPISODES)
            model = _quantile([in_order(places[:reached]) for places in references], REFERENCES)
            if agent < int(MASTERED * model):
                break
            reached += 1
        return DiscountSchedule(self.horizon, reached, self.alpha)


def _quantile(values: Sequence[int], share: float) -> float:
    """Interpolated between the two nearest, as numpy's default."""
    ranked = sorted(values)
    at = share * (len(ranked) - 1)
    low = int(at)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (at - low) * (ranked[high] - ranked[low])
