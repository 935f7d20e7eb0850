"""BabyAI: follow an instruction in rooms seen from within, by the levels of the paper, over the `minigrid` package.

What is seen, the split and the rewards are in docs/environments/babyai.md.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any, Literal

from agentloop import Environment, StepResult, Task
from agentloop.environment.base import Split
from agentloop.errors import nearest

from .expert import solve
from .levels import PAPER, level_names, make_world
from .view import describe, named

FIRST_SEED: dict[Split, int] = {"train": 0, "dev": 1_000_000, "test": 2_000_000}
"""The split goes by seed: task number n of a split is drawn with its first seed plus n."""

TASKS_A_LEVEL: dict[Split, int] = {"train": 1000, "dev": 100, "test": 100}

ACTIONS = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle")
"""The actions by the numbers that `minigrid` gives them. Its seventh, "done", does nothing in these levels."""

_ACTION = re.compile(
    r"\s*(?:>|action:)?\s*(?:(?:turn )?(left|right)|((?:go |move )?forward)|(pick ?up)\b.*|(drop)\b.*|((?:toggle|open)\b.*))[\s.!]*",
    re.IGNORECASE,
)


class BabyAI(Environment):
    """Follow the instruction. You walk on a grid of squares, and see only what is in front of you in the same room.

    Answer with one action and nothing else:
    turn left, turn right - turn on the spot
    go forward - walk one step
    pick up - take the object that is 1 step forward; you can carry one
    drop - put what you carry on the free square 1 step forward
    toggle - open or close the door, or open the box, that is 1 step forward; a locked door needs the key of its colour in your hands
    To go to an object means to stand in front of it and face it."""

    needs = "the package minigrid"
    step_timeout = 30.0

    def __init__(self, level: str | list[str] = "GoToLocal", reward: Literal["success", "steps"] = "success") -> None:
        """Choose what is played.

        Args:
            level: A level by its name in the paper, such as GoToLocal or BossLevel, or several; "paper" is all nineteen.
            reward: For a success 1, or, as published, the less the more steps it took: 1 - 0.9 * steps / the level's limit.
        """
        names = list(PAPER) if level == "paper" else [level] if isinstance(level, str) else list(dict.fromkeys(level))
        for name in names or [""]:
            if name not in level_names():
                near = nearest(name, level_names())
                hint = f"did you mean {near!r}?" if near else f"the paper has {', '.join(PAPER)}"
                raise ValueError(f"there is no level {name!r}; {hint}")
        self._levels = names
        self._reward = reward
        self._world: Any = None
        self._over = False

    def tasks(self, split: Split) -> Sequence[Task]:
        """So many worlds a level; the levels take turns."""
        seeds = range(FIRST_SEED[split], FIRST_SEED[split] + TASKS_A_LEVEL[split])
        return [Task(f"{level}-{seed}", {"level": level, "seed": seed}) for seed in seeds for level in self._levels]

    def reset(self, task: Task) -> str:
        self._world = make_world(task.data["level"], task.data["seed"])
        self._over = False
        return f"Instruction: {self._world.mission}\n\n{describe(self._world)}"

    def step(self, action: str) -> StepResult:
        if self._over:
            return StepResult("The episode is over.", done=True)
        number = _read(action)
        if number is None:
            return StepResult(f"Could not find an action. Use one of: {', '.join(ACTIONS)}.", info={"errors": {"format": 1}})
        possible = _has_effect(self._world, number)
        _, reward, terminated, truncated, _ = self._world.step(number)
        self._over = bool(terminated or truncated)
        if reward > 0 and self._reward == "success":
            reward = 1.0
        if terminated:
            text = "The instruction is carried out." if reward > 0 else "The instruction cannot be carried out any more."
        else:
            text = describe(self._world) if possible else f"{_refusal(self._world, number)}\n{describe(self._world)}"
        info = {} if possible else {"errors": {"no_effect": 1}}
        return StepResult(text, float(reward), done=bool(terminated), truncated=bool(truncated and not terminated), info=info)

    def success(self, total_reward: float) -> bool:
        """The published reward of a success is between 0.1 and 1, and nothing else is rewarded."""
        return total_reward > 0

    def actions(self) -> Sequence[str]:
        """The actions that change something now."""
        return [name for number, name in enumerate(ACTIONS) if _has_effect(self._world, number)]

    def snapshot(self) -> tuple[Any, bool]:
        return copy.deepcopy(self._world), self._over

    def restore(self, state: Any) -> None:
        world, self._over = state
        self._world = copy.deepcopy(world)

    def demonstration(self, task: Task) -> Sequence[str] | None:
        """What the package's bot does, which sees no more than the agent; None for the few worlds that it does not solve."""
        numbers = solve(make_world(task.data["level"], task.data["seed"]))
        return None if numbers is None else [ACTIONS[number] for number in numbers]


def _read(text: str) -> int | None:
    """The number of the first line that is an action."""
    for line in text.strip().splitlines():
        if match := _ACTION.fullmatch(line):
            turn, *others = match.groups()
            return ("left", "right").index(turn.lower()) if turn else 2 + next(number for number, found in enumerate(others) if found)
    return None


def _has_effect(world: Any, number: int) -> bool:
    """Whether an action changes anything but the count of steps."""
    ahead = world.grid.get(*world.front_pos)
    match ACTIONS[number]:
        case "go forward":
            return ahead is None or bool(ahead.can_overlap())
        case "pick up":
            return world.carrying is None and ahead is not None and bool(ahead.can_pickup())
        case "drop":
            return world.carrying is not None and ahead is None
        case "toggle":
            key = world.carrying is not None and world.carrying.type == "key" and ahead is not None and world.carrying.color == ahead.color
            return ahead is not None and (ahead.type == "box" or (ahead.type == "door" and (not ahead.is_locked or key)))
    return True


def _refusal(world: Any, number: int) -> str:
    """Why an action had no effect."""
    ahead = world.grid.get(*world.front_pos)
    what = "nothing" if ahead is None else "a wall" if ahead.type == "wall" else f"the {named(ahead)}"
    match ACTIONS[number]:
        case "go forward":
            return f"You cannot go forward: there is {what}."
        case "pick up" if world.carrying is not None:
            return "You cannot pick up anything: you carry something already."
        case "pick up":
            return f"You cannot pick up {what}."
        case "drop" if world.carrying is None:
            return "You cannot drop anything: you carry nothing."
        case "drop":
            return f"You cannot drop it here: there is {what}."
    return f"You cannot toggle {what}" + (" without its key." if ahead is not None and ahead.type == "door" else ".")
