r"""A question, an answer, and a mathematical judge: what all question benchmarks have in common.

Plain chain of thought is one turn. With several attempts the environment says whether the answer was right, and the model tries again: that
tells it more than a test would, so such numbers are of another kind and not to be held against single attempts.

A tool that runs Python (ToRA, DotaMath) will be the option `tool`; it needs a sandbox, and until there is one it is refused by name.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from agentloop import Environment, StepResult, Task
from agentloop.environment.base import Split
from agentloop.evaluation.math import grade

from .data import Source, tasks

PROMPT = "Solve the problem step by step. At the end, write the final answer as \\boxed{answer}."

NO_ANSWER = "There is no final answer in this. Write it as \\boxed{answer}."
WRONG = "That is not right. Look for the mistake, and solve the problem again. Write the final answer as \\boxed{answer}."

_CALCULATION = re.compile(r"<<[^<>]*>>")
"""GSM8K's notes for a calculator, `<<16-3=13>>`, which nobody writes by himself."""


class Dialogue(Environment):
    """A question whose answer is judged by mathematics."""

    source: ClassVar[Source | None] = None
    step_timeout = 300.0  # the first comparison starts a process, and a hostile one may use up its patience

    def __init__(self, source: Source, attempts: int, tool: Literal["none", "python"]) -> None:
        if attempts < 1:
            raise ValueError(f"attempts is at least 1, found {attempts}")
        if tool == "python":
            raise ValueError("tool: python needs a sandbox for what the model writes, which this version does not have; leave tool out")
        for module in ("datasets", "math_verify"):
            if importlib.util.find_spec(module) is None:
                raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        self._source = source
        self._attempts = attempts
        self._task: dict[str, Any] | None = None
        self._tried = 0
        local = source.path()
        self.remote = "" if local is not None else f"{source.data} from the hub"
        self.test_only = {split for split, _ in source.splits} == {"test"}

    def tasks(self, split: Split) -> Sequence[Task]:
        return tasks(self._source, split)

    def system_prompt(self) -> str:
        return PROMPT

    def reset(self, task: Task) -> str:
        self._task, self._tried = dict(task.data), 0
        return str(task.data["question"])

    def step(self, action: str) -> StepResult:
        if self._task is None:
            raise RuntimeError("reset(task) comes before step(action)")
        self._tried += 1
        found = grade(action, self._task["answer"])
        info = {"final_answer": found.answer, "why": found.why, "reference": self._task["answer"], "attempt": self._tried}
        if found.correct:
            return StepResult("", reward=1.0, done=True, info=info)
        if self._tried >= self._attempts:
            return StepResult("", done=True, info=info)
        return StepResult(NO_ANSWER if found.answer is None else WRONG, info=info)

    def demonstration(self, task: Task) -> Sequence[str]:
        """The worked solution where the data has one, and the answer in a box."""
        solution, answer = str(task.data["solution"]), task.data["answer"]
        steps = _CALCULATION.sub("", solution.partition("####")[0]).strip()
        if "\\boxed" in steps:
            return [steps]
        return [f"{steps}\nThe answer is \\boxed{{{answer}}}.".lstrip()]

    def snapshot(self) -> Any:
        return self._task, self._tried

    def restore(self, state: Any) -> None:
        self._task, self._tried = state


class Benchmark(Dialogue):
    """A benchmark whose data and split are known: derive from it and set `source`."""

    def __init__(self, data: str = "", attempts: int = 1, tool: Literal["none", "python"] = "none", revision: str = "") -> None:
        """Choose the data and the play.

        Args:
            data: A folder or file with the data, or another id on the hub; "" is the benchmark's own.
            attempts: Answers that may be given; after a wrong one, the environment says so.
            tool: "none"; "python" is refused until there is a sandbox.
            revision: Commit or tag of the data on the hub; "" is the newest.
        """
        own = type(self).source
        assert own is not None, f"{type(self).__name__} says where its data is"
        super().__init__(replace(own, data=data or own.data, given=bool(data), revision=revision or own.revision), attempts, tool)
