"""What a report shows of a run's artifacts: example trajectories, and the trees that tell most."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from agentloop.dataset.store import open_source
from agentloop.errors import Mistake, nearest
from agentloop.report.marks import Marks, marks_of, trained_turns
from agentloop.report.trajectory import Decode, Example, examples
from agentloop.report.tree_view import TreeView, tree_view
from agentloop.run.directory import RunDirectory
from agentloop.trace.store import read_columns, read_trees
from agentloop.trace.tree import Tree

ARTIFACTS = 3
"""Tree artifacts that a report shows something of, the newest ones."""

TREES = 2
"""Trees of an artifact that a report draws."""


def collect_marks(directory: RunDirectory) -> Marks:
    """What the rows of a run, of all iterations, do with the turns of its trees."""
    return marks_of(row for _, path in _newest(directory, "rows") for row in open_source(path))


def collect_examples(directory: RunDirectory, marks: Marks, decode: Decode) -> list[tuple[str, Sequence[Example]]]:
    """Examples of the last few tree artifacts of the run under their stages, the newest first."""
    trained = trained_turns(marks)
    return [(stage, examples(read_trees(path), trained, decode)) for stage, path in islice(_newest(directory), ARTIFACTS)]


def collect_trees(directory: RunDirectory, marks: Marks, decode: Decode) -> list[tuple[str, Sequence[TreeView]]]:
    """A few trees of the last few tree artifacts that hold any, under their stages, the newest first.

    A tree that was judged is not drawn unjudged too.
    """
    newer: set[str] = set()
    found: list[tuple[str, Sequence[TreeView]]] = []
    for stage, path in _newest(directory):
        chosen = choose(read_trees(path), marks, without=newer)
        if chosen:
            found.append((stage, [tree_view(tree, marks, decode) for tree in chosen]))
        if len(found) == ARTIFACTS:
            break
        newer.update(row["id"] for row in read_columns(path, ("id",)))
    return found


def choose(trees: Iterable[Tree], marks: Marks, *, without: Collection[str] = (), count: int = TREES) -> list[Tree]:
    """The first trees that became training rows, and where these are too few, the first others; a single path is no tree to draw."""
    used = {tree for tree, _ in marks}
    first: list[Tree] = []
    others: list[Tree] = []
    for tree in trees:
        if tree.id in without or not _branches(tree):
            continue
        if tree.id in used:
            first.append(tree)
            if len(first) == count:
                break
        elif len(others) < count:
            others.append(tree)
    return [*first, *others][:count]


def _branches(tree: Tree) -> bool:
    parents = [turn.parent for turn in tree.turns if not turn.from_critic]
    return len(set(parents)) < len(parents)


def find_tree(directory: RunDirectory, name: str) -> Tree:
    """The tree of that id, or the newest of the task of that name, as the last stage that wrote it left it.

    Raises:
        Mistake: The run has no such tree.
    """
    known: list[str] = []
    of_task: Tree | None = None
    for _, path in _newest(directory):
        for tree in read_trees(path):
            if tree.id == name:
                return tree
            if tree.task == name and of_task is None:
                of_task = tree
            known += (tree.id, tree.task)
    if of_task is not None:
        return of_task
    raise Mistake(
        "no such tree in this run",
        file=str(directory.path),
        found=name,
        expected=f"a tree such as {known[0]!r}, or a task such as {known[1]!r}" if known else "a run that has sampled something",
        nearest=nearest(name, set(known)),
    )


def _newest(directory: RunDirectory, kind: str = "trees") -> Iterator[tuple[str, Path]]:
    """(stage, path) of the artifacts of a type that are still there, the newest first."""
    for entry in reversed(list(directory.journal.finished_entries())):
        for output in entry.outputs.values():
            if output.type == kind and (directory.path / output.path).exists():
                yield entry.stage, directory.path / output.path
