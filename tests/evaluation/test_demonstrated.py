"""Demonstrations become successful episodes that errors can be planted in."""

from __future__ import annotations

from collections.abc import Sequence

from agentloop.environment.base import Environment, StepResult, Task
from agentloop.evaluation.demonstrated import demonstrated
from agentloop.evaluation.planted import OtherActions, Planter, planted_error
from agentloop.trace.episode import ended, succeeded
from agentloop.trace.tree import Tree
from tests.sampling.world import pool_of


class Spell(Environment):
    """Say the letters of a word in order."""

    def tasks(self, split: str) -> list[Task]:
        return [Task(word, {"word": word}) for word in ("cat", "dog", "wrong", "unknown", "long")]

    def system_prompt(self) -> str:
        return "Spell."

    def reset(self, task: Task) -> str:
        self.word, self.said = task.data["word"], ""
        return self.word

    def step(self, action: str) -> StepResult:
        self.said += action
        done = len(self.said) == len(self.word)
        return StepResult(f"so far {self.said}", float(done and self.said == self.word), done)

    def demonstration(self, task: Task) -> Sequence[str] | None:
        word = task.data["word"]
        shown = {"wrong": "wrung", "unknown": None, "long": "lo"}
        said = shown.get(word, word)
        return None if said is None else list(said)


async def shown() -> list[Tree]:
    async with pool_of(Spell) as pool:
        spell = Spell()
        return [
            tree async for tree in demonstrated(spell.tasks("dev"), spell.demonstration, pool, environment="spell", split="dev", seed=4)
        ]


async def test_only_what_was_shown_to_succeed_is_an_episode() -> None:
    cat, dog = await shown()
    assert (cat.task, dog.task, cat.environment, cat.split) == ("cat", "dog", "spell", "dev")
    assert (cat.system_prompt, cat.first_observation, dict(cat.task_data)) == ("Spell.", "cat", {"word": "cat"})
    assert [turn.action for turn in cat.turns] == ["c", "a", "t"] and cat.turns[-1].observation == "so far cat"
    assert all(turn.authored and turn.completion_ids == () for turn in cat.turns)
    (leaf,) = ended(cat)
    assert succeeded(leaf) and cat.episode_return(leaf.id) == 1.0
    assert cat.seed != dog.seed and [tree.seed for tree in await shown()] == [cat.seed, dog.seed]


async def test_errors_can_be_planted_in_it() -> None:
    trees = await shown()
    async with pool_of(Spell) as pool:
        planted = [tree async for tree in Planter(pool, OtherActions.of(trees), errors=2).plant(trees)]
    assert len(planted) == 2
    for tree in planted:
        errors = [planted_error(tree, leaf.id) for leaf in ended(tree) if not leaf.success]
        assert len(errors) == 2 and None not in errors
