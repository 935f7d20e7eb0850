"""Reasoning Gym: questions made and scored by the generators of the `reasoning_gym` package, one answer an episode.

The generators, the split, what is mended and what is not are in docs/environments/reasoning_gym.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from reasoning_gym.utils import extract_answer

from agentloop import Environment, StepResult, Task
from agentloop.environment.base import Split
from agentloop.errors import nearest

from . import questions

SEEDS: dict[Split, int] = {"train": 0, "dev": 1_000_000, "test": 2_000_000}
"""The split goes by seed: question n of a split is made from its seed plus n."""

TASKS_A_GENERATOR: dict[Split, int] = {"train": 500, "dev": 50, "test": 50}

LONGEST_ANSWER = 10_000


class ReasoningGym(Environment):
    """Answer the question. Think step by step, and end with the final answer, and nothing else, in tags: <answer>...</answer>"""

    needs = "the package reasoning-gym"
    step_timeout = 60.0

    def __init__(self, generator: str | list[str] | None = None, config: dict[str, Any] | None = None, tags: bool = True) -> None:
        """Choose what is asked.

        Args:
            generator: A generator by its name, such as chain_sum or sudoku, or several; by default all, in turn.
            config: Settings of the generator, such as {min_terms: 2, max_terms: 4}; for one generator only.
            tags: Whether the answer stands in <answer> tags; without, the whole message is the answer.
        """
        known = questions.names()
        names = list(known) if generator is None else [generator] if isinstance(generator, str) else list(dict.fromkeys(generator))
        for name in names or [""]:
            if name not in known:
                near = nearest(name, known)
                reason = questions.LEFT_OUT.get(name) or (f"did you mean {near!r}?" if near else f"it is one of {', '.join(known)}")
                raise ValueError(f"there is no generator {name!r}: {reason}")
        if config:
            if len(names) != 1:
                raise ValueError(f"config is for one generator, found {len(names)}")
            if fixed := {"seed", "size"} & set(config):
                raise ValueError(f"config cannot set {' and '.join(sorted(fixed))}, which the split goes by")
            questions.check_configuration(names[0], config)
        self._names = tuple(names)
        self._config = config or {}
        self._tags = tags
        self._task: Task | None = None
        self._entry: dict[str, Any] = {}

    def tasks(self, split: Split) -> Sequence[Task]:
        """So many questions a generator; the generators take turns."""
        return _tasks(self._names, split)

    def reset(self, task: Task) -> str:
        self._task, self._entry = task, self._make(task)
        return str(self._entry["question"])

    def step(self, action: str) -> StepResult:
        if self._task is None:
            return StepResult("The question has been answered.", done=True)
        answer = extract_answer(action) if self._tags else action.strip()
        task, self._task = self._task, None
        if answer is None:
            return StepResult("", done=True, info={"errors": {"format": 1}})
        seed, size = _place(task)
        try:
            reward = questions.score(task.data["generator"], seed, size, self._config, answer[:LONGEST_ANSWER], self._entry)
        except Exception as error:  # a scorer that stumbles over what a model wrote says that it is wrong
            return StepResult(
                "", done=True, info={"answer": answer[:200], "errors": {"scorer": 1}, "scorer": f"{type(error).__name__}: {error}"[:200]}
            )
        return StepResult("", reward, done=True, info={"answer": answer[:200], "reference": str(self._entry["answer"])[:200]})

    def system_prompt(self) -> str:
        return super().system_prompt() if self._tags else "Answer the question with the final answer and nothing else."

    def snapshot(self) -> tuple[Task | None, dict[str, Any]]:
        return self._task, self._entry

    def restore(self, state: Any) -> None:
        self._task, self._entry = state  # nothing changes an entry

    def demonstration(self, task: Task) -> Sequence[str] | None:
        """The generator's own answer; None where it has none to give, because it judges answers by what they do."""
        answer = self._make(task)["answer"]
        if answer is None:
            return None
        return [f"<answer>{answer}</answer>" if self._tags else str(answer)]

    def _make(self, task: Task) -> dict[str, Any]:
        seed, size = _place(task)
        return questions.question(task.data["generator"], seed, size, task.data["index"], self._config)


def _place(task: Task) -> tuple[int, int]:
    """The seed and the number of questions of a task's split."""
    split: Split = task.data["split"]
    return SEEDS[split], TASKS_A_GENERATOR[split]


@lru_cache(maxsize=8)
def _tasks(names: tuple[str, ...], split: Split) -> tuple[Task, ...]:
    return tuple(
        Task(f"{name}-{split}-{index}", {"generator": name, "split": split, "index": index})
        for index in range(TASKS_A_GENERATOR[split])
        for name in names
    )
