"""A calculator and problems in graded difficulty: the operation has to be understood, and intermediate results carried on.

Kinds, levels, options and what was measured are in docs/environments/calculator.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import permutations
from typing import Annotated, Any

from pydantic import Field

from agentloop import StepResult, Task
from agentloop.environment.base import Message, Split
from agentloop.environment.tools import ToolEnvironment, tool

from .problems import HIGHEST_LEVEL, SIGNS, Kind, Problem, calculate, problems

Level = Annotated[int, Field(ge=1, le=HIGHEST_LEVEL)]
"""How many operations a problem takes."""

_TERSE_NAMES = {"add": "add", "sub": "subtract", "mul": "multiply"}
_TERSE_CALL = re.compile(r"\s*(add|sub|mul)\((-?\d{1,9}),(-?\d{1,9})\)\s*")
_TERSE_ANSWER = re.compile(r"\s*-?\d{1,12}\s*")

PROMPTS: dict[Kind, str] = {
    "story": (
        "You are careful with words and numbers. Read what happens, decide whether the number gets larger, smaller or is multiplied, "
        "and write one call, where the first number is the number so far. When asked how many, give the answer."
    ),
    "problem": "Solve the problem with one call a message, each on the result of the one before. At the end, give the answer.",
    "expression": "Work it out with one call a message, each on the result of the one before. At the end, give the answer.",
}
"""How to play, by the kind of problem; the tools follow. The words for stories are the best of those that were tried on the base model."""


class Calculator(ToolEnvironment):
    """Solve problems with a calculator, one call a message."""

    most_calls = 1
    step_timeout = 10.0

    def __init__(
        self,
        kind: Kind = "story",
        levels: Level | Annotated[Sequence[Level], Field(min_length=1)] = (1, 2, 3),
        terse: bool = False,
        seed: int = 0,
    ) -> None:
        """Choose the problems.

        Args:
            kind: "story" (events come one a turn), "problem" (the same, told at once) or "expression".
            levels: How many operations a problem takes, 1 to 8: a number or several.
            terse: Expressions and results with as few characters as can be, for policies over single characters.
            seed: Of the problems; another seed makes others.
        """
        self._levels = [levels] if isinstance(levels, int) else sorted(set(levels))
        self._kind: Kind = "expression" if terse else kind
        self._terse = terse
        self._seed = seed
        self._problem: Problem | None = None
        self._told = 0
        self._steps = 0

    def tasks(self, split: Split) -> Sequence[Task]:
        """Levels take turns, so that the first tasks hold as many of each."""
        by_level = [
            [_task(self._kind, level, problem) for problem in problems(self._kind, level, split, self._seed)] for level in self._levels
        ]
        return [row[index] for index in range(max(map(len, by_level))) for row in by_level if index < len(row)]

    def system_prompt(self) -> str:
        return "" if self._terse else f"{PROMPTS[self._kind]}\n\n{self.tools_prompt()}"

    def reset(self, task: Task) -> str:
        data = task.data
        operations = tuple((str(name), int(operand)) for name, operand in data["operations"])
        self._problem = Problem(data["start"], operations, data["who"], data["what"], tuple(data["told"]))
        self._told, self._steps = 1, 0
        if self._terse:
            return self._problem.expression("")
        if self._kind == "expression":
            return self._problem.expression()
        beginning = f"{self._problem.who} has {self._problem.start} {self._problem.what}."
        if self._kind == "story":
            return f"{beginning} {self._problem.told[0]}"
        return " ".join([beginning, *self._problem.told, self._question])

    def step(self, action: str) -> StepResult:
        result = self._terse_step(action) if self._terse else super().step(action)
        assert isinstance(result, StepResult), "all tools are sync"
        self._steps += 1
        if result.done or self._steps < 2 * len(self._now.operations) + 4:
            return result
        return StepResult(result.observation, result.reward, truncated=True, info=result.info)

    @tool
    def add(self, a: int, b: int) -> str:
        """The sum a + b."""
        return self._calculated("add", a, b)

    @tool
    def subtract(self, a: int, b: int) -> str:
        """The difference a - b."""
        return self._calculated("subtract", a, b)

    @tool
    def multiply(self, a: int, b: int) -> str:
        """The product a * b."""
        return self._calculated("multiply", a, b)

    @tool
    def answer(self, n: int) -> StepResult:  # type: ignore[override]
        """Give the final number."""
        complete = self._kind != "story" or self._told > len(self._now.operations)
        right = complete and n == self._now.values[-1]
        return StepResult("right" if right else "wrong", reward=float(right), done=True, info={"answer": self._now.values[-1]})

    def demonstration(self, task: Task) -> Sequence[str]:
        """The calculation from left to right, then the answer."""
        problem = Problem(task.data["start"], tuple((name, operand) for name, operand in task.data["operations"]), "", "", ())
        before = (problem.start, *problem.values)
        if self._terse:
            short = {name: abbreviation for abbreviation, name in _TERSE_NAMES.items()}
            calls = [f"{short[name]}({value},{operand})" for (name, operand), value in zip(problem.operations, before, strict=False)]
            return [*calls, str(before[-1])]
        calls = [f"{name}({value}, {operand})" for (name, operand), value in zip(problem.operations, before, strict=False)]
        return [*calls, f"answer({before[-1]})"]

    def examples(self, count: int) -> Sequence[Sequence[Message]]:
        """Train problems that show the operations in ever other orders, the shortest texts first. Ends the present episode."""
        level = min(max(self._levels), len(SIGNS))
        chosen: list[Problem] = []
        available = sorted(problems(self._kind, level, "train", self._seed), key=lambda problem: (len(problem.key), problem.key))
        orders = [order[:level] for order in permutations(("multiply", "subtract", "add"))]
        orders = [orders[index] for index in (0, 3, 4, 1, 2, 5)]  # each operation is first once before any is first again
        while len(chosen) < count and len(available) > len(chosen):
            order = orders[len(chosen) % len(orders)]
            fitting = (problem for problem in available if tuple(name for name, _ in problem.operations) == order and problem not in chosen)
            chosen.append(next(fitting, next(problem for problem in available if problem not in chosen)))
        return [self._played(_task(self._kind, level, problem)) for problem in chosen]

    def snapshot(self) -> Any:
        return self._problem, self._told, self._steps

    def restore(self, state: Any) -> None:
        self._problem, self._told, self._steps = state

    @property
    def _now(self) -> Problem:
        if self._problem is None:
            raise RuntimeError("reset(task) comes before step(action)")
        return self._problem

    @property
    def _question(self) -> str:
        return f"How many {self._now.what}?"

    def _calculated(self, operation: str, a: int, b: int) -> str:
        """The result, and in a story what happens next."""
        if max(abs(a), abs(b)) >= 10**9:
            raise ValueError("the numbers are too long for this calculator")
        result = str(calculate(operation, a, b))
        if self._terse or self._kind != "story":
            return result
        following = self._now.told[self._told] if self._told < len(self._now.told) else self._question
        self._told += 1
        return f"{result}. {following}"

    def _terse_step(self, action: str) -> StepResult:
        """`add(12,7)`, `sub(19,3)`, `mul(19,3)`, or the answer: a number alone."""
        if call := _TERSE_CALL.fullmatch(action):
            return StepResult(self._calculated(_TERSE_NAMES[call[1]], int(call[2]), int(call[3])))
        if _TERSE_ANSWER.fullmatch(action):
            right = int(action) == self._now.values[-1]
            return StepResult("", reward=float(right), done=True)
        return StepResult("error", info={"errors": {"malformed": 1}})

    def _played(self, task: Task) -> list[Message]:
        messages: list[Message] = [{"role": "user", "content": self.reset(task)}]
        for action in self.demonstration(task):
            messages.append({"role": "assistant", "content": action})
            messages.append({"role": "user", "content": self.step(action).observation})
        return messages[:-1]


def _task(kind: Kind, level: int, problem: Problem) -> Task:
    data = {
        "start": problem.start,
        "operations": [list(operation) for operation in problem.operations],
        "who": problem.who,
        "what": problem.what,
        "told": list(problem.told),
        "level": level,
    }
    return Task(f"{kind}/{level}/{problem.key}", data)
