"""ScienceWorld: thirty tasks of elementary science in a house with a workshop, a foundry and a greenhouse, over the `scienceworld` package.

What is seen, the split and the rewards are in docs/environments/scienceworld.md.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

from agentloop import Environment, StepResult, Task
from agentloop.environment.base import Split
from agentloop.errors import nearest

from .simulator import Simulator, find_java
from .split import VARIATIONS, variations

Simplification = Literal["teleportAction", "selfWateringFlowerPots", "openContainers", "openDoors", "noElectricalAction", "easy"]

_LONGEST_ACTION = 300


class ScienceWorld(Environment):
    """Carry out the task in a simulated house. Answer with one action and nothing else.

    Actions, with OBJ for what you see or carry:
    look around, look at OBJ, look in OBJ, read OBJ, inventory, task
    open OBJ, close OBJ, go to OBJ, pick up OBJ, put down OBJ, move OBJ to OBJ
    activate OBJ, deactivate OBJ, use OBJ on OBJ, connect OBJ to OBJ, disconnect OBJ
    pour OBJ into OBJ, dunk OBJ into OBJ, mix OBJ, eat OBJ, flush OBJ, focus on OBJ
    wait (ten steps), wait1 (one step)
    Doors have to be opened before you go through. focus on OBJ says which object your answer is: a wrong one ends the episode."""

    needs = "the package scienceworld and Java 8 or newer"
    step_timeout = 120.0
    concurrency = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    """A simulator a core: more of them only slow each other down, and each takes 330 MB."""

    def __init__(
        self,
        task: str | list[str] | None = None,
        simplifications: list[Simplification] | None = None,
        steps: int = 100,
        variations: int | None = None,
    ) -> None:
        """Choose what is played.

        Args:
            task: A task by its name, such as boil or find-plant, or several; by default all thirty.
            simplifications: Of the package: teleportAction, selfWateringFlowerPots, openContainers, openDoors, noElectricalAction, or easy.
            steps: Steps after which an episode is cut short; 0 for no limit. The package's default is 100, and some gold paths are longer.
            variations: Most variations of a task in a split, the first ones; by default all. The tasks differ much in how many they have.
        """
        names = list(VARIATIONS) if task is None else [task] if isinstance(task, str) else list(dict.fromkeys(task))
        for name in names or [""]:
            if name not in VARIATIONS:
                near = nearest(name, VARIATIONS)
                raise ValueError(
                    f"there is no task {name!r}; " + (f"did you mean {near!r}?" if near else f"it is one of {', '.join(VARIATIONS)}")
                )
        if steps < 0 or (variations is not None and variations < 1):
            raise ValueError(f"steps is 0 or more and variations 1 or more, found {steps} and {variations}")
        chosen = simplifications or []
        electrical = [name for name in names if "power-component" in name or "conductivity" in name]
        if "noElectricalAction" in chosen and electrical:
            raise ValueError(f"noElectricalAction takes away what the task {electrical[0]} needs")
        find_java()
        self._names = names
        self._simplifications = ",".join(chosen)
        self._most_steps = steps
        self._most_variations = variations
        self._simulator: Simulator | None = None
        self._task: Task | None = None
        self._actions: list[str] = []
        self._score = 0
        self._over = False
        self._look = ""
        self._gold: dict[str, list[str] | None] = {}

    def tasks(self, split: Split) -> Sequence[Task]:
        """The official split, task by task."""
        return [
            Task(f"{name}-{number}", {"task": name, "variation": number})
            for name in self._names
            for number in variations(name, split)[: self._most_variations]
        ]

    def reset(self, task: Task) -> str:
        simulator = self._running()
        self._begin(simulator, task)
        return f"{simulator.description()}\n\n{self._look}"

    def step(self, action: str) -> StepResult:
        if self._over or self._simulator is None:
            return StepResult("The episode is over.", done=True)
        words = " ".join(action.split())
        if not words or len(words) > _LONGEST_ACTION:
            return StepResult("Answer with one action, such as: look around", info={"errors": {"format": 1}})
        outcome = self._simulator.step(words)
        self._actions.append(words)
        reward = (outcome.score - self._score) / 100
        self._score = outcome.score
        self._over = outcome.over
        truncated = not outcome.over and 0 < self._most_steps <= len(self._actions)
        self._over |= truncated
        text = f"{outcome.text}\nThe task has failed." if outcome.score < 0 else outcome.text
        return StepResult(text, reward, done=outcome.over, truncated=truncated, info={"score": outcome.score})

    def success(self, total_reward: float) -> bool:
        """All hundred points; rounded, since the return is a sum of fractions."""
        return round(100 * total_reward) >= 100

    def actions(self) -> Sequence[str] | None:
        """All that would be carried out now. It takes ten times as long as a step, so nothing here asks for it by itself."""
        return self._simulator.valid_actions() if self._simulator is not None and not self._over else []

    def demonstration(self, task: Task) -> Sequence[str] | None:
        """The package's gold path. An episode under way goes on afterwards: it is played again up to where it was."""
        if task.id not in self._gold:
            simulator = self._running()
            simulator.load(task.data["task"], task.data["variation"], self._simplifications, gold=True)
            self._gold[task.id] = simulator.gold_path() or None
            if self._task is not None:
                self._replay(simulator, self._task)
        return self._gold[task.id]

    def close(self) -> None:
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None

    def _running(self) -> Simulator:
        """The instance's simulator, started when it is first needed: tasks can be listed without one."""
        if self._simulator is None:
            self._simulator = Simulator()
        return self._simulator

    def _begin(self, simulator: Simulator, task: Task) -> None:
        """Load a task and look around, which is the package's first step too."""
        simulator.load(task.data["task"], task.data["variation"], self._simplifications)
        outcome = simulator.step("look around")
        self._task, self._actions, self._over, self._look = task, [], False, outcome.text
        self._score = 0  # the start may be worth some points already; they come with the first step, so that the return is the score

    def _replay(self, simulator: Simulator, task: Task) -> None:
        played, over = self._actions, self._over
        self._begin(simulator, task)
        for action in played:
            self._score = simulator.step(action).score
        self._actions, self._over = played, over
