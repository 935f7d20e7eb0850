"""Seeds by hash: every tree, sample and request has its own, that depends on what it is and never on when it was drawn.

A seed is derived along run -> tree (stage, iteration, task) -> sample -> request (its number in the episode). So the order in which
episodes finish, the number that are played at once, and a resume in between change nothing.
"""

from __future__ import annotations

from agentloop.trace.seed import derive

__all__ = ["derive", "request_seed", "sample_seed", "tree_seed"]


def tree_seed(run_seed: int, stage: str, iteration: str, task: str) -> int:
    """Seed of a tree, from which those of its samples derive."""
    return derive(run_seed, "tree", stage, iteration, task)


def sample_seed(seed_of_tree: int, sample: int) -> int:
    """Seed of one sample (episode) of a tree."""
    return derive(seed_of_tree, "sample", sample)


def request_seed(seed_of_sample: int, number: int, purpose: str = "turn") -> int:
    """Seed of the engine request with this number in the episode; requests for another purpose have seeds of their own."""
    return derive(seed_of_sample, purpose, number)
