"""Judges the trees of a stage, many at once, and keeps each the moment it is done.

A tree that the sink already holds is not judged again, so a resumed stage ends as an uninterrupted one. Questions that the judge's model
failed to answer are counted by kind, and the stage stops when their share is too large; trees with such questions are handed to the sink
only at the stage's end, so that a stage that was stopped asks them again. Memory holds the trees that are being judged, as many as there
may be requests.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from agentloop.critic.base import JudgeFailure, TreeJudge
from agentloop.critic.progress import JudgeProgress
from agentloop.errors import RunFailed
from agentloop.trace.tree import Tree


class Sink(Protocol):
    """Where judged trees go; `TreeWriter` is one."""

    def holds(self, tree: Tree) -> bool:
        """Whether it has this tree already."""
        ...

    def add(self, fragment: Tree) -> None:
        """Keep it; called from a thread."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a judging stage.

    Attributes:
        trees: Most trees that are judged at once.
        max_failures: Share of questions (0 to 1) that may go unanswered; above it the stage stops.
        few: Questions below which the share is not judged before the stage's end.
    """

    trees: int = 32
    max_failures: float = 0.1
    few: int = 8


@dataclass
class JudgeReport:
    """What went wrong in a stage; how far it is, is in `JudgeProgress`.

    Attributes:
        failures: Questions that were not answered, by kind.
        first_failures: The first of each kind.
    """

    failures: Counter[str] = field(default_factory=Counter)
    first_failures: dict[str, JudgeFailure] = field(default_factory=dict)

    def add(self, failures: Iterable[JudgeFailure]) -> None:
        """Count them."""
        for failure in failures:
            self.failures[failure.kind] += 1
            self.first_failures.setdefault(failure.kind, failure)

    def check(self, asked: int, limits: Limits, *, ended: bool = False) -> None:
        """Stop the stage if too many of the `asked` questions were not answered.

        Raises:
            RunFailed: They were; the message has the failures by kind and a traceback of each.
        """
        failed = self.failures.total()
        if (asked < limits.few and not ended) or failed <= limits.max_failures * asked:
            return
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.failures.most_common())
        lines = [
            f"{failed} of {asked} questions were not answered, more than max_failures allows ({limits.max_failures:g}): {kinds}",
            "judged trees are kept; the same command goes on and asks the others again",
        ]
        lines += [
            f"\nfirst {kind}: {failure.message}\n{failure.traceback}".rstrip() for kind, failure in sorted(self.first_failures.items())
        ]
        raise RunFailed("\n".join(lines))


async def judge_trees(
    trees: Iterable[Tree],
    judge: TreeJudge,
    sink: Sink,
    *,
    progress: JudgeProgress,
    limits: Limits = Limits(),
    shown: Callable[[JudgeProgress], None] = lambda progress: None,
) -> JudgeReport:
    """Judge every tree that the sink does not hold and hand it over. Making the artifact is the caller's (`TreeWriter.finish`).

    Args:
        trees: Read one after another, as there is room.
        judge: Judges one; it counts in the same `progress`.
        sink: Where they go.
        progress: The numbers of this stage.
        limits: See `Limits`.
        shown: Called whenever a number has changed.

    Raises:
        RunFailed: Too many questions were not answered.
    """
    report = JudgeReport()
    broken: list[Tree] = []
    room = asyncio.Semaphore(limits.trees)

    async def one(tree: Tree) -> None:
        try:
            judged = await judge.judge(tree)
            report.add(judged.failures)
            if judged.failures:
                broken.append(judged.tree)
            else:
                await _keep(sink, judged.tree)
                progress.finished += 1
        finally:
            room.release()
        shown(progress)
        report.check(progress.asked, limits)

    shown(progress)
    try:
        async with asyncio.TaskGroup() as running:
            for tree in trees:
                if sink.holds(tree):
                    progress.resumed += 1
                    continue
                await room.acquire()
                running.create_task(one(tree))
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    report.check(progress.asked, limits, ended=True)
    for tree in broken:
        await _keep(sink, tree)
        progress.finished += 1
    shown(progress)
    return report


async def _keep(sink: Sink, tree: Tree) -> None:
    """Hand a tree to the sink, in a thread since that waits for the disk; it is kept even while the stage is cancelled."""
    keeping = asyncio.ensure_future(asyncio.to_thread(sink.add, tree))
    try:
        await asyncio.shield(keeping)
    except asyncio.CancelledError:
        await keeping
        raise


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group, which is what stopped the others."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
