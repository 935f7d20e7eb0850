"""Where the trees of a stage come from: what names them and seeds them."""

from __future__ import annotations

from dataclasses import dataclass

from agentloop.sampling.seed import tree_seed


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the trees of a stage come from; it names them and seeds them.

    Attributes:
        stage: Id of the stage.
        environment: Id of the environment.
        split: "train", "dev" or "test".
        iteration: Iteration of the run, as its folder is called: "000", "001", ... or "final".
        seed: Seed of the run.
    """

    stage: str
    environment: str
    split: str
    iteration: str = "000"
    seed: int = 0

    def tree_id(self, task: str) -> str:
        """Id of the tree of a task, "ITERATION/STAGE/TASK"."""
        return f"{self.iteration}/{self.stage}/{task}"

    def tree_seed(self, task: str) -> int:
        """Seed of the tree of a task."""
        return tree_seed(self.seed, self.stage, self.iteration, task)
