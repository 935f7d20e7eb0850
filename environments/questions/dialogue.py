r"""A question, an answer, and a mathematical judge: what all question benchmarks have in common.

Plain chain of thought is one turn. With several attempts the environment says whether the answer was right, and the model tries again: that
tells it more than a test would, so such numbers are of another kind and not to be held against single attempts.

With `tool: python` the model may compute: the program that it writes in a fenced block is run in a sandbox, it reads what that prints, and
goes on, with variables that stay (ToRA, Gou et al. 2023, arXiv:2309.17452, section 2.1; DotaMath, Li et al. 2024, arXiv:2407.04078). A
message with a program is no answer, whatever else it says, for what follows the program was written without its output.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from agentloop import Environment, StepResult, Task
from agentloop.environment.base import Split
from agentloop.environment.sandbox import Protection, Sandbox, programs
from agentloop.evaluation.math import grade

from .data import Source, tasks

PROMPT = "Solve the problem step by step. At the end, write the final answer as \\boxed{answer}."

PYTHON_PROMPT = """Solve the problem step by step. To compute something, write a program in a block such as

```python
from sympy import *
print(factorint(2024))
```

and stop there: you will be shown what it prints, and go on. Variables are kept, and there may be several programs, one after another. \
At the end, write the final answer as \\boxed{answer}, without a program."""

NO_ANSWER = "There is no final answer in this. Write it as \\boxed{answer}."
WRONG = "That is not right. Look for the mistake, and solve the problem again. Write the final answer as \\boxed{answer}."

PRELOADED = ("math", "sympy")
"""What most programs begin with; imported once, and not in every episode."""

_CALCULATION = re.compile(r"<<[^<>]*>>")
"""GSM8K's notes for a calculator, `<<16-3=13>>`, which nobody writes by himself."""


@dataclass(frozen=True, slots=True)
class Computing:
    """Whether and how the model may compute.

    Attributes:
        tool: "python", or "none".
        programs: Messages with programs that are run in an episode; after them a message is an answer, whatever it holds.
        unprotected: Protections of the sandbox that this machine may lack.
    """

    tool: Literal["none", "python"] = "none"
    programs: int = 4
    unprotected: tuple[Protection, ...] = ()


class Dialogue(Environment):
    """A question whose answer is judged by mathematics."""

    source: ClassVar[Source | None] = None
    step_timeout = 300.0  # the first comparison starts a process, and a hostile one may use up its patience

    def __init__(self, source: Source, attempts: int, computing: Computing) -> None:
        if attempts < 1:
            raise ValueError(f"attempts is at least 1, found {attempts}")
        if computing.programs < 1:
            raise ValueError(f"programs is at least 1, found {computing.programs}; without any, leave tool out")
        for module in ("datasets", "math_verify"):
            if importlib.util.find_spec(module) is None:
                raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        self._source = source
        self._attempts = attempts
        self._task: dict[str, Any] | None = None
        self._tried = self._run = 0
        self._most_programs = computing.programs
        self._python = Sandbox(preload=PRELOADED, unprotected=computing.unprotected) if computing.tool == "python" else None
        if self._python is not None:
            self._python.check()  # a machine that cannot is told now, not in the middle of an episode
        local = source.path()
        self.remote = "" if local is not None else f"{source.data} from the hub"
        self.test_only = {split for split, _ in source.splits} == {"test"}

    def tasks(self, split: Split) -> Sequence[Task]:
        return tasks(self._source, split)

    def system_prompt(self) -> str:
        return PROMPT if self._python is None else PYTHON_PROMPT

    def reset(self, task: Task) -> str:
        self._task, self._tried, self._run = dict(task.data), 0, 0
        if self._python is not None:
            self._python.restart()
        return str(task.data["question"])

    def step(self, action: str) -> StepResult:
        if self._task is None:
            raise RuntimeError("reset(task) comes before step(action)")
        if self._python is not None and self._run < self._most_programs and (written := programs(action)):
            return self._compute(self._python, written)
        self._tried += 1
        found = grade(action, self._task["answer"])
        info = {"final_answer": found.answer, "why": found.why, "reference": self._task["answer"], "attempt": self._tried}
        if found.correct:
            return StepResult("", reward=1.0, done=True, info=info)
        if self._tried >= self._attempts:
            return StepResult("", done=True, info=info)
        return StepResult(NO_ANSWER if found.answer is None else WRONG, info=info)

    def _compute(self, python: Sandbox, written: Sequence[str]) -> StepResult:
        """Run the programs of a message in order until one fails; what they print is what the model sees."""
        self._run += 1
        shown, endings = [], []
        for program in written:
            output = python.run(program)
            shown.append(output.text or "(nothing was printed)")
            endings.append(output.ending)
            if not output.finished:
                break
        left = len(written) - len(shown)
        text = "\n".join(["```output", *shown, "```"])
        if left:
            text += f"\n({left} more {'program was' if left == 1 else 'programs were'} not run)"
        if self._run >= self._most_programs:
            text += "\nThis was the last program. Write the final answer as \\boxed{answer}."
        return StepResult(text, info={"programs": list(written), "endings": endings})

    def demonstration(self, task: Task) -> Sequence[str]:
        """The worked solution where the data has one, and the answer in a box."""
        solution, answer = str(task.data["solution"]), task.data["answer"]
        steps = _CALCULATION.sub("", solution.partition("####")[0]).strip()
        if "\\boxed" in steps:
            return [steps]
        return [f"{steps}\nThe answer is \\boxed{{{answer}}}.".lstrip()]

    def snapshot(self) -> Any:
        """Where the dialogue stands; None with a tool, whose variables are reached by running the programs again."""
        return (self._task, self._tried) if self._python is None else None

    def restore(self, state: Any) -> None:
        self._task, self._tried = state

    def close(self) -> None:
        if self._python is not None:
            self._python.close()


class Benchmark(Dialogue):
    """A benchmark whose data and split are known: derive from it and set `source`."""

    def __init__(
        self,
        data: str = "",
        attempts: int = 1,
        tool: Literal["none", "python"] = "none",
        revision: str = "",
        programs: int = 4,
        unprotected: tuple[Protection, ...] = (),
    ) -> None:
        """Choose the data and the play.

        Args:
            data: A folder or file with the data, or another id on the hub; "" is the benchmark's own.
            attempts: Answers that may be given; after a wrong one, the environment says so.
            tool: "none", or "python" for programs that are run in a sandbox.
            revision: Commit or tag of the data on the hub; "" is the newest.
            programs: With a tool, messages with programs that are run in an episode.
            unprotected: Protections of the sandbox that this machine may lack.
        """
        own = type(self).source
        assert own is not None, f"{type(self).__name__} says where its data is"
        super().__init__(
            replace(own, data=data or own.data, given=bool(data), revision=revision or own.revision),
            attempts,
            Computing(tool, programs, unprotected),
        )
