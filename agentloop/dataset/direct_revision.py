"""Direct revision: the revision thought comes at the end of the bad path, however early that went wrong (the baseline of Agent-R,
arXiv:2501.11425, section 4.3). Needs no critic; everything else is `reflection` in its published form.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agentloop.dataset.row import Row
from agentloop.dataset.splice import Revisions, SpliceSettings
from agentloop.trace.author import Author
from agentloop.trace.tree import Tree


@dataclass(frozen=True, slots=True)
class Settings(SpliceSettings):
    """What the recipe's `build` stage may say of `dataset: direct_revision`."""


def build(trees: Iterable[Tree], settings: Settings = Settings(), *, author: Author, stage: str = "", iteration: int = 0) -> Iterator[Row]:
    """Revision rows, and plain rows of good paths, tree by tree; equal trees give equal rows. Trees must be whole."""
    revisions = Revisions(settings, author, stage=stage, iteration=iteration)
    for tree in trees:
        yield from revisions.of_pairs(tree, lambda tree, pair: len(pair.bad.turns))
