"""Planted errors: episodes that succeeded, with one action replaced by a harmful one, so that the first error is known.

A planted episode has the beginning of the successful one, the harmful action in place of what was done there, and then the rest of the
original actions, all really played. It is used only if it does not succeed any more, so that the replacement harms by the environment's own
word, and all that came before it was part of a success. The truth stands in the tree, in the `info` of the planted turn, where no critic
looks; `agentloop.evaluation.judge_quality` holds a critic's verdicts against it.

Planted and replayed turns are authored and have no ids: they are to be judged, never to be trained on.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol

from agentloop.environment.base import StepResult, Task
from agentloop.trace.episode import ended, succeeded
from agentloop.trace.tree import Draw, Tree, Turn
from agentloop.trace.verdict import steps

PLANTED = "planted"
"""Key of a planted turn's `info`."""

Harm = Callable[[Tree, Sequence[Turn], int, random.Random], Iterable[str]]
"""Candidates for a harmful action: from a tree, a successful path of it, the index of the step to replace and a source of chance. They are
tried in order, until one does harm."""


class Player(Protocol):
    """An environment instance."""

    async def reset(self, task: Task) -> str: ...

    async def step(self, action: str) -> StepResult: ...

    def success(self, total: float) -> bool: ...


class Pool(Protocol):
    """Where instances come from."""

    def instance(self) -> AbstractAsyncContextManager[Player]: ...


@dataclass
class PlantingReport:
    """What became of the attempts.

    Attributes:
        planted: Errors planted.
        clean: Successful episodes that they were planted in, kept beside them.
        harmless: Replacements after which the episode succeeded all the same.
        diverged: Episodes that did not come back as stored when they were replayed, and were left out.
    """

    planted: int = 0
    clean: int = 0
    harmless: int = 0
    diverged: int = 0


@dataclass(frozen=True, slots=True)
class OtherActions:
    """Harm by what other episodes did: actions of `pool` that are not the one to replace, in a random order.

    Attributes:
        pool: Actions to choose from; those of the same environment make errors that are hard to tell.
        tries: Most candidates a step.
    """

    pool: tuple[str, ...]
    tries: int = 8

    @staticmethod
    def of(trees: Iterable[Tree], *, tries: int = 8) -> OtherActions:
        """All actions of these trees, each once."""
        actions = {turn.text for tree in trees for leaf in ended(tree) for turn in steps(tree, leaf.id)}
        return OtherActions(tuple(sorted(actions)), tries)

    def __call__(self, tree: Tree, path: Sequence[Turn], index: int, chance: random.Random) -> list[str]:
        others = [action for action in self.pool if action != path[index].text]
        return chance.sample(others, min(self.tries, len(others)))


@dataclass
class Planter:
    """Plants errors in the successful episodes of trees.

    Attributes:
        pool: Instances of the environment.
        harm: Where harmful actions come from.
        seed: Of the choice of steps and actions.
        errors: Most planted episodes a tree.
        report: What became of the attempts so far.
    """

    pool: Pool
    harm: Harm
    seed: int = 0
    errors: int = 1
    report: PlantingReport = field(default_factory=PlantingReport)

    async def plant(self, trees: Iterable[Tree]) -> AsyncIterator[Tree]:
        """For each tree with a success: that episode (the first of them) and its planted ones. Other trees are left out.

        Raises:
            EnvironmentFailure: The environment broke.
        """
        for tree in trees:
            leaf = next((leaf for leaf in ended(tree) if succeeded(leaf) and steps(tree, leaf.id)), None)
            if leaf is None:
                continue
            path = tree.path(leaf.id)
            bare = replace(tree, turns=path, verdicts=(), failures=())
            found = await self._planted(bare, steps(bare, leaf.id))
            if found:
                self.report.clean += 1
                self.report.planted += len(found)
                yield replace(bare, turns=(*path, *(turn for planted in found for turn in planted)))

    async def _planted(self, tree: Tree, path: tuple[Turn, ...]) -> list[list[Turn]]:
        """Turns of the planted episodes of one path, each from the planted turn on."""
        chance = random.Random(f"{self.seed}/{tree.id}")
        order = chance.sample(range(len(path)), len(path))
        found: list[list[Turn]] = []
        for index in order:
            if len(found) == self.errors:
                break
            for action in self.harm(tree, path, index, chance):
                turns = await self._played(tree, path, index, action, name=f"planted{len(found)}")
                if turns is None:
                    self.report.diverged += 1
                    return found
                if not turns[-1].success:
                    found.append(turns)
                    break
                self.report.harmless += 1
        return found

    async def _played(self, tree: Tree, path: tuple[Turn, ...], index: int, action: str, *, name: str) -> list[Turn] | None:
        """The turns from the planted one on, with how the episode ended at the last; None if its beginning does not come back as stored."""
        async with self.pool.instance() as player:
            if await player.reset(Task(tree.task, tree.task_data)) != tree.first_observation:
                return None
            total = 0.0
            for turn in path[:index]:
                result = await player.step(turn.text)
                if result.observation != turn.observation or result.done:
                    return None
                total += result.reward
            turns: list[Turn] = []
            parent = path[index - 1].id if index else None
            for number, said in enumerate([action, *(turn.text for turn in path[index + 1 :])]):
                result = await player.step(said)
                total += result.reward
                turns.append(_authored(f"{name}.{number}", parent, said, result, {PLANTED: True} if number == 0 else {}))
                parent = turns[-1].id
                if result.done or result.truncated:
                    break
            last = turns[-1]
            if last.done:
                turns[-1] = replace(last, success=player.success(total))
            else:
                turns[-1] = replace(last, success=False, truncated="environment" if result.truncated else "turns")
            return turns


def planted_error(tree: Tree, leaf_id: str) -> Turn | None:
    """The planted turn on the path to `leaf_id`; None where there is none."""
    return next((turn for turn in tree.path(leaf_id) if turn.info.get(PLANTED) is True), None)


def _authored(name: str, parent: str | None, said: str, result: StepResult, info: dict[str, bool]) -> Turn:
    return Turn(
        id=name,
        parent=parent,
        extends=None,
        fresh="authored",
        prompt_ids=(),
        completion_ids=(),
        logprobs=None,
        text=said,
        draw=Draw("base", kind="authored"),
        action=said,
        observation=result.observation,
        reward=result.reward,
        done=result.done,
        finish="authored",
        info=info,
    )
