"""Attempts: every answer to a problem that may be tried again, each a row behind all that came before it (RISE, arXiv:2407.18219).

An attempt is a turn with the reward that its own step gave. Its row shows the problem, the earlier attempts and what was said of them, and
trains on the attempt alone, with the weight exp(reward / temperature): right answers pull hardest, wrong ones still a little, so that the
model learns from which answers it can do better. `center` takes the mean reward of the task's attempts off first, as the paper's text does
and its code does not; otherwise easy tasks pull harder.

Left out are empty attempts, those that say what an earlier one on the way said, and all behind a right one. The attempts of several samples
from one point (self-distillation draws 16) are one with `siblings: best`: the one with the highest reward.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import fmean
from typing import Literal

from agentloop.dataset.row import Row
from agentloop.dataset.segment_row import segment_row
from agentloop.trace.tree import Tree, Turn

RIGHT = 1.0
"""Least reward of a right attempt."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the recipe's `build` stage may say of `dataset: attempts`.

    Attributes:
        keep: All attempts; those with a higher reward than the one before (a first one has none before it); of each trajectory the first
            with the highest reward; or right ones.
        temperature: Of the weights.
        center: Whether the mean reward of the task's attempts is taken off before the weight is made.
        siblings: Whether all attempts behind the same ids are rows, or the first with the highest reward.
        role: Only turns that this role played; None means every role.
        seat: Only turns of this seat; None means every seat.
    """

    keep: Literal["all", "better", "best", "success"] = "all"
    temperature: float = 0.4
    center: bool = False
    siblings: Literal["all", "best"] = "all"
    role: str | None = None
    seat: str | None = None


def build(trees: Iterable[Tree], settings: Settings = Settings(), *, stage: str = "", iteration: int = 0) -> Iterator[Row]:
    """Rows in the order of the trees; equal trees give equal rows. Trees must be whole. Centred weights need all trees at once."""
    means: dict[str, float] = {}
    if settings.center:
        trees = list(trees)
        means = {task: fmean(rewards) for task, rewards in _rewards(trees, settings).items()}
    for tree in trees:
        for turn in attempts(tree, settings):
            weight = math.exp((turn.reward - means.get(tree.task, 0.0)) / settings.temperature)
            segment = tree.segment(turn.id)
            yield segment_row(tree, segment, reward=turn.reward, stage=stage, iteration=iteration, weight=weight, trained={turn.id})


def attempts(tree: Tree, settings: Settings) -> list[Turn]:
    """The attempts of a tree that become rows, in the order of its turns."""
    wanted: set[str] = set()
    for leaf in tree.leaves():
        wanted |= {turn.id for turn in _kept(_tried(tree.path(leaf.id)), settings.keep)}
    found = [turn for turn in tree.turns if turn.id in wanted and _own(turn, settings)]
    return found if settings.siblings == "all" else _best_of_siblings(tree, found)


def _tried(path: Sequence[Turn]) -> list[Turn]:
    """The distinct attempts of a trajectory up to the first right one, those of others before it included."""
    tried: list[Turn] = []
    for turn in path:
        said = turn.text.strip()
        if turn.from_critic or turn.observation is None or not said or said in (earlier.text.strip() for earlier in tried):
            continue
        tried.append(turn)
        if turn.reward >= RIGHT:
            break
    return tried


def _kept(tried: Sequence[Turn], keep: str) -> Iterable[Turn]:
    if keep == "better":
        return [turn for before, turn in pairwise(tried) if turn.reward > before.reward]
    if keep == "best":
        return [max(tried, key=lambda turn: turn.reward)] if tried else []
    return [turn for turn in tried if keep == "all" or turn.reward >= RIGHT]


def _own(turn: Turn, settings: Settings) -> bool:
    return not turn.given and settings.role in (None, turn.role) and settings.seat in (None, turn.seat)


def _best_of_siblings(tree: Tree, found: Sequence[Turn]) -> list[Turn]:
    def context(turn: Turn) -> tuple[int, ...]:
        return tuple(tree.context_ids(turn.id))

    best = {max(same, key=lambda turn: turn.reward).id for _, same in groupby(sorted(found, key=context), key=context)}
    return [turn for turn in found if turn.id in best]


def _rewards(trees: Iterable[Tree], settings: Settings) -> dict[str, list[float]]:
    rewards: dict[str, list[float]] = {}
    for tree in trees:
        for turn in attempts(tree, settings):
            rewards.setdefault(tree.task, []).append(turn.reward)
    return rewards
