"""Mental arithmetic that may be tried again: an answer a turn, and the word that it was wrong, nothing else.

For methods that learn to improve on one's own last answer. What an episode looks like is in docs/environments/retry.md.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field

from agentloop import Environment, StepResult, Task
from agentloop.environment.base import Split

SIZES: dict[Split, int] = {"train": 1000, "dev": 250, "test": 250}
"""Tasks of a split, less where there are not as many problems."""

_ANSWER = re.compile(r"\s*(?:the answer is\s*)?(-?\d{1,9})\s*\.?\s*", re.IGNORECASE)


class Retry(Environment):
    """Work it out in your head and answer with the number alone.
    If you are told that it is wrong, look for your mistake and answer again."""

    step_timeout = 10.0

    def __init__(
        self,
        terms: Annotated[int, Field(ge=2, le=8)] = 3,
        largest: Annotated[int, Field(ge=2, le=999)] = 20,
        attempts: Annotated[int, Field(ge=1, le=64)] = 8,
        oracle: bool = True,
        seed: int = 0,
    ) -> None:
        """Choose the problems.

        Args:
            terms: Numbers to add and subtract, 2 to 8.
            largest: The largest of them, at least 2.
            attempts: Answers after which the episode has ended.
            oracle: Whether a right answer ends the episode. Without, every answer is called wrong, so that nobody is told when to stop.
            seed: Of the problems; another seed makes others.
        """
        self._terms = terms
        self._largest = largest
        self._attempts = attempts
        self._oracle = oracle
        self._seed = seed
        self._numbers: list[int] = []
        self._tried = 0
        self._right = False

    def tasks(self, split: Split) -> Sequence[Task]:
        return [Task(_text(numbers), {"numbers": list(numbers)}) for numbers in _problems(self._terms, self._largest, self._seed)[split]]

    def reset(self, task: Task) -> str:
        self._numbers = [int(number) for number in task.data["numbers"]]
        self._tried, self._right = 0, False
        return self._question

    def step(self, action: str) -> StepResult:
        """Reward 1 for the right number, 0 for a wrong one, -1 for what is no number."""
        self._tried += 1
        found = _ANSWER.fullmatch(action)
        right = found is not None and int(found[1]) == sum(self._numbers)
        self._right = self._right or right
        reward = -1.0 if found is None else float(right)
        done = (right and self._oracle) or self._tried >= self._attempts
        said = "Right." if right and self._oracle else f"The answer is incorrect. Please try again. Here is the question: {self._question}"
        return StepResult(said, reward, done, info={"answer": sum(self._numbers)})

    def success(self, total_reward: float) -> bool:
        """Whether any answer was right, whatever those that were no numbers took off."""
        return self._right or total_reward >= 1.0

    def demonstration(self, task: Task) -> Sequence[str]:
        """The answer."""
        answer = str(sum(task.data["numbers"]))
        return [answer] if self._oracle else [answer] * self._attempts

    def snapshot(self) -> Any:
        return list(self._numbers), self._tried, self._right

    def restore(self, state: Any) -> None:
        numbers, self._tried, self._right = state
        self._numbers = list(numbers)

    @property
    def _question(self) -> str:
        return f"{_text(self._numbers)} ="


def _text(numbers: Sequence[int]) -> str:
    first, *others = numbers
    return str(first) + "".join(f" {'-' if number < 0 else '+'} {abs(number)}" for number in others)


@lru_cache(maxsize=16)
def _problems(terms: int, largest: int, seed: int) -> dict[Split, tuple[tuple[int, ...], ...]]:
    """Problems by split, different from each other, in a fixed order. The split follows from a hash of the problem."""
    generator = random.Random(f"retry/{terms}/{largest}/{seed}")
    found: dict[Split, dict[tuple[int, ...], None]] = {"train": {}, "dev": {}, "test": {}}
    for _ in range(20 * SIZES["train"]):
        first, *others = (generator.randint(1, largest) for _ in range(terms))
        numbers = (first, *(number * generator.choice((1, -1)) for number in others))
        split = _split_of(numbers)
        if len(found[split]) < SIZES[split]:
            found[split][numbers] = None
        elif all(len(found[split]) == size for split, size in SIZES.items()):
            break
    return {split: tuple(problems) for split, problems in found.items()}


def _split_of(numbers: Sequence[int]) -> Literal["train", "dev", "test"]:
    share = int.from_bytes(hashlib.sha256(_text(numbers).encode()).digest()[:4], "big") % 10
    return "train" if share < 6 else "dev" if share < 8 else "test"
