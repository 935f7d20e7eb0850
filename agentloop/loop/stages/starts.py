"""`start_from`: the nodes of earlier trees that a stage's episodes start from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from agentloop.environment.base import Split, Task
from agentloop.errors import Mistake
from agentloop.loop import references
from agentloop.loop.context import Context, StageRun
from agentloop.recipe.sample import StartFrom
from agentloop.sampling.start import QUESTION, Start, Thought, starts_of
from agentloop.trace.store import read_columns, read_trees
from agentloop.trace.thoughts import THOUGHTS

Choose = Callable[[Sequence[Task], int | None], list[Task]]
"""Which of the tasks are played, given how many are asked for."""


def find_starts(run: StageRun, context: Context, start_from: StartFrom, *, split: Split, count: int | None, choose: Choose) -> list[Start]:
    """The nodes, tree by tree, of at most `count` of the trees' tasks; none where there is nothing to start from.

    Raises:
        Mistake: The trees are of another split than the stage: what is sampled or measured there would go by the wrong name.
    """
    paths = list(_trees(references.paths((start_from.from_,), run, context.directory), context))
    tasks: dict[str, Task] = {}
    for path in paths:
        for row in read_columns(path, ("task", "split")):
            if row["split"] != split:
                raise Mistake(f"stage {run.key} would start from trees of another split", found=row["split"], expected=split)
            tasks.setdefault(row["task"], Task(row["task"]))
    chosen = {task.id for task in choose(list(tasks.values()), count)}
    most = start_from.nodes.at(run.schedule_at) if start_from.nodes is not None else None
    thought = _thought(start_from)
    return [
        start
        for path in paths
        for tree in read_trees(path)
        if tree.task in chosen
        for start in starts_of(tree, start_from.at, most=most, thought=thought)
    ]


def _trees(paths: Sequence[Path], context: Context) -> Iterator[Path]:
    """Paths of trees; in place of a measurement the trees that it was made from, those of the current adapter."""
    for path in paths:
        if path.suffix == ".json":
            record = json.loads(path.read_text(encoding="utf-8"))
            yield context.directory.path / next(iter(record["trees"].values()))["path"]
        else:
            yield path


def _thought(start_from: StartFrom) -> Thought | None:
    if start_from.thought == "none":
        return None
    return Thought(
        by=start_from.thought,
        texts=start_from.thoughts or THOUGHTS,
        question=start_from.question or QUESTION,
        answer=None if start_from.act else start_from.answer,
    )
