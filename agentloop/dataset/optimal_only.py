"""Optimal only: the good paths that reflection would revise to, and nothing of how one gets there (the baseline of Agent-R,
arXiv:2501.11425, section 4.3). The rows are those that `reflection` adds with `good`, so that the two can be compared at equal size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agentloop.dataset import self_imitation
from agentloop.dataset.row import Row
from agentloop.trace.tree import Tree


@dataclass(frozen=True, slots=True)
class Settings:
    """What the recipe's `build` stage may say of `dataset: optimal_only`.

    Attributes:
        alpha: Least return of a good path, inclusive.
        best: Most good paths a tree, by return, then by fewer turns; None takes all.
        role: Only turns that this role played; None means any.
        seat: Only turns of this seat; None means any.
    """

    alpha: float = 1.0
    best: int | None = None
    role: str | None = None
    seat: str | None = None


def build(trees: Iterable[Tree], settings: Settings = Settings(), *, stage: str = "", iteration: int = 0) -> Iterator[Row]:
    """Rows of the good paths, tree by tree; equal trees give equal rows. Trees must be whole."""
    chosen = self_imitation.Settings(min_reward=settings.alpha, best=settings.best, role=settings.role, seat=settings.seat)
    return self_imitation.build(trees, chosen, stage=stage, iteration=iteration)
