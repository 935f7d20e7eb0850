"""TextWorld: text adventures made from a challenge and a seed by the `textworld` package, compiled and played in its interpreter.

What is seen, the split and the rewards are in docs/environments/textworld.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import textworld

from agentloop import Environment, StepResult, Task
from agentloop.environment.base import Split

from .games import Challenge, check_settings, game_file, walkthrough

FIRST_SEED: dict[Split, int] = {"train": 0, "dev": 1_000_000, "test": 2_000_000}
"""The split goes by seed: game n of a split is made with its first seed plus n."""

TASKS: dict[Split, int] = {"train": 500, "dev": 100, "test": 100}

_LONGEST_COMMAND = 200
_ART = re.compile(r"[\s\\/_$|<>]{8,}")
"""A line of the letters of TEXTWORLD, drawn in signs, with which every game begins."""


class TextWorld(Environment):
    """Play a text adventure. Answer with one command and nothing else, such as: look, inventory, go north, open chest, take coin,
    take coin from chest, put coin on table, insert coin into chest, unlock door with key, examine cookbook, cook carrot with stove,
    slice carrot with knife, prepare meal, eat meal."""

    needs = "the package textworld (352 MB; on Linux and macOS)"
    step_timeout = 120.0

    def __init__(
        self, challenge: Challenge = "treasure_hunter", level: int | None = None, settings: dict[str, Any] | None = None, steps: int = 100
    ) -> None:
        """Choose what is played.

        Args:
            challenge: coin_collector, cooking, simple or treasure_hunter.
            level: Of coin_collector (1 to 300) or treasure_hunter (1 to 30); short for settings: {level: ...}.
            settings: Of the challenge, by the names that the package gives them, such as {recipe: 2, take: 2, go: 6} for cooking.
            steps: Steps after which an episode is cut short; 0 for no limit.
        """
        if steps < 0:
            raise ValueError(f"steps is 0 or more, found {steps}")
        self._challenge: Challenge = challenge
        self._settings = check_settings(challenge, {**(settings or {}), **({} if level is None else {"level": level})})
        self._most_steps = steps
        self._game: Any = None
        self._state: Any = None
        self._score = 0
        self._steps = 0
        self._over = False

    def tasks(self, split: Split) -> Sequence[Task]:
        seeds = range(FIRST_SEED[split], FIRST_SEED[split] + TASKS[split])
        return [Task(f"{self._challenge}-{seed}", {"seed": seed, "split": split}) for seed in seeds]

    def reset(self, task: Task) -> str:
        path = str(self._file(task))
        if self._game is None:
            self._game = textworld.start(
                path, textworld.EnvInfos(admissible_commands=True, max_score=True, score=True, won=True, lost=True)
            )
        else:
            self._game.load(path)
        self._state = self._game.reset()
        self._score = self._steps = 0
        self._over = False
        return _clean(self._state.feedback)

    def step(self, action: str) -> StepResult:
        if self._over:
            return StepResult("The game is over.", done=True)
        command = " ".join(action.split()).encode("ascii", "ignore").decode()  # the interpreter reads ASCII, and one line
        if not command or len(command) > _LONGEST_COMMAND:
            return StepResult("Answer with one command, such as: look", info={"errors": {"format": 1}})
        self._state, score, done = self._game.step(command)
        self._steps += 1
        reward = (score - self._score) / max(self._state.max_score or 1, 1)
        self._score = score
        truncated = not done and 0 < self._most_steps <= self._steps
        self._over = bool(done or truncated)
        return StepResult(_clean(self._state.feedback), reward, done=bool(done), truncated=truncated, info={"score": score})

    def success(self, total_reward: float) -> bool:
        """All points; rounded, since the return is a sum of fractions."""
        return total_reward > 0.999

    def actions(self) -> Sequence[str]:
        """What the game would carry out now, its looking around left out."""
        return [] if self._over else list(self._state.admissible_commands)

    def demonstration(self, task: Task) -> Sequence[str] | None:
        return walkthrough(self._file(task)) or None

    def close(self) -> None:
        if self._game is not None:
            self._game.close()
            self._game = None

    def _file(self, task: Task) -> Any:
        return game_file(self._challenge, self._settings, task.data["seed"], task.data["split"])


_STATUS = re.compile(r"\n>\s.*$", re.DOTALL)
"""The prompt, and what the interpreter shows above its window: the room and the score."""

_QUESTION = re.compile(r"Would you like to RESTART, RESTORE a saved game.*$", re.DOTALL)


def _clean(text: str) -> str:
    """What the game says, without its drawn title, the prompt, the question after the end and the lines that centre it."""
    lines = [line.rstrip() for line in text.splitlines() if not _ART.fullmatch(line)]
    kept = _QUESTION.sub("", _STATUS.sub("", "\n".join(lines)))
    return re.sub(r"\n\s{20,}", "\n\n", re.sub(r"\n{3,}", "\n\n", kept)).strip().removesuffix(">").strip()
