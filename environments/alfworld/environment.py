"""ALFWorld: household tasks in text, over the planning games of the `textworld` package, with the data of the ALFWorld project.

What is seen, the split, the rewards and how to get the data are in docs/environments/alfworld.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import textworld
import textworld.core

from agentloop import Environment, StepResult, Task
from agentloop.environment.base import Split

from .data import Kind, data_folder, game_files
from .names import readable_names

KINDS: tuple[Kind, ...] = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)

_LONGEST_COMMAND = 200


class AlfWorld(Environment):
    """Carry out the household task. Answer with one command and nothing else:
    go to (place), open (place), close (place), take (object) from (place), move (object) to (place), examine (something), use (object),
    heat (object) with (place), clean (object) with (place), cool (object) with (place), slice (object) with (object), look, inventory, help
    Name things with their numbers, such as: take mug 1 from desk 2."""

    needs = "the package textworld[pddl] and the data of ALFWorld, which alfworld-download gets"
    step_timeout = 60.0

    def __init__(self, data: str = "", kinds: list[Kind] | None = None, steps: int = 50) -> None:
        """Choose what is played.

        Args:
            data: The folder with json_2.1.1; by default what ALFWORLD_DATA says, else ~/.cache/alfworld.
            kinds: Kinds of task, such as pick_and_place_simple; by default all six.
            steps: Steps after which an episode is cut short; 0 for no limit. Published results mostly allow 50.
        """
        if steps < 0 or (kinds is not None and not kinds):
            raise ValueError(f"steps is 0 or more and kinds one or more, found {steps} and {kinds!r}")
        self._folder = data_folder(data)
        self._kinds = KINDS if kinds is None else tuple(kinds)
        self._most_steps = steps
        self._game: Any = None
        self._state: Any = None
        self._steps = 0
        self._over = False

    def tasks(self, split: Split) -> Sequence[Task]:
        """The official split: train, and the games in seen (dev) and unseen (test) rooms."""
        return [Task(path.removesuffix("/game.tw-pddl"), {"file": path}) for path in game_files(self._folder, split, self._kinds)]

    def reset(self, task: Task) -> str:
        if self._game is None:
            infos = textworld.EnvInfos(admissible_commands=True, won=True)
            self._game = _ReadableNames(textworld.envs.PddlEnv(infos))
        self._game.load(str(self._folder / task.data["file"]))
        self._state = self._game.reset()
        self._steps, self._over = 0, False
        return str(self._state.feedback).strip()

    def step(self, action: str) -> StepResult:
        if self._over:
            return StepResult("The task is over.", done=True)
        command = " ".join(action.split())
        if not command or len(command) > _LONGEST_COMMAND:
            return StepResult("Answer with one command, such as: look", info={"errors": {"format": 1}})
        known = command in self._state.admissible_commands
        self._state, _, _ = self._game.step(command)
        self._steps += 1
        won = bool(self._state.won)
        truncated = not won and 0 < self._most_steps <= self._steps
        self._over = won or truncated
        info = {} if known else {"errors": {"not_possible": 1}}
        return StepResult(str(self._state.feedback).strip(), float(won), done=won, truncated=truncated, info=info)

    def actions(self) -> Sequence[str]:
        """What can be done now."""
        return [] if self._over else list(self._state.admissible_commands)

    def demonstration(self, task: Task) -> Sequence[str] | None:
        """The walkthrough that is kept with the game."""
        found = json.loads((self._folder / task.data["file"]).read_text(encoding="utf-8")).get("walkthrough")
        return [str(command) for command in found] if found else None

    def close(self) -> None:
        if self._game is not None:
            self._game.close()
            self._game = None


class _ReadableNames(textworld.core.Wrapper):
    """Gives the things of a game the names that ALFWorld shows."""

    def load(self, path: str) -> None:
        """Load a game and name its things."""
        super().load(path)
        things = self._wrapped_env._entity_infos
        names = readable_names(thing.id for thing in things.values())
        for thing in things.values():
            thing.name = names[thing.id]
