"""The protocol that every environment keeps, and that a user's own environment is written against.

Three methods are enough: `tasks`, `reset` and `step`, sync or async. Everything else has a default. An instance plays
one episode at a time; the framework makes as many instances as it plays episodes at once, and calls `close` on each.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")

Message = dict[str, str]
"""One message of a worked example: `{"role": "user" | "assistant", "content": text}`."""


@dataclass(frozen=True, slots=True)
class Task:
    """One problem. `id` is unique within the environment, over all splits; `data` holds JSON values that `reset` needs."""

    id: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step returns.

    Attributes:
        observation: Text for the agent.
        reward: Reward of this step; an episode's return is the sum.
        done: Whether the episode has ended.
        truncated: Whether the environment cut it short (its own step limit), which is not the same as having ended.
        info: JSON values for people to see; the agent never does.
    """

    observation: str
    reward: float = 0.0
    done: bool = False
    truncated: bool = False
    info: dict[str, Any] = field(default_factory=dict)


class Environment:
    """Base class of environments. Override `tasks`, `reset` and `step`; the rest where you can do better than the default.

    Options that a recipe gives (`environment: {id: ./guess.py, highest: 100}`) are keyword arguments of `__init__`; unknown ones are a
    mistake that the user is told about.

    Class attributes:
        concurrency: Most instances that may play at once on one machine; None means as many as asked for.
        step_timeout: Seconds after which a reset or step counts as failed and the instance is abandoned.
        needs: What has to be installed beyond agentloop, in a few words for people; "" for nothing.
        remote: What is downloaded when tasks are first asked for, in a few words; "" for nothing. A listing then does not ask.
        test_only: Whether it is a benchmark alone: only its test split has tasks, and nothing trains on it.
    """

    concurrency: int | None = None
    step_timeout: float = 60.0
    needs: str = ""
    remote: str = ""
    test_only: bool = False

    def tasks(self, split: Split) -> Sequence[Task]:
        """All tasks of a split, in a fixed order. No task may be in two splits."""
        raise NotImplementedError(f"{type(self).__name__} must define tasks(split)")

    def reset(self, task: Task) -> str | Awaitable[str]:
        """Start an episode and return the first observation."""
        raise NotImplementedError(f"{type(self).__name__} must define reset(task)")

    def step(self, action: str) -> StepResult | Awaitable[StepResult]:
        """Act and return what happened."""
        raise NotImplementedError(f"{type(self).__name__} must define step(action)")

    def system_prompt(self) -> str:
        """Text of the system message: how to act here. By default the class docstring; "" is no system message."""
        return inspect.cleandoc(type(self).__doc__ or "")

    def success(self, total_reward: float) -> bool:
        """Whether an episode with this return counts as solved, asked when it has ended."""
        return total_reward >= 1.0

    def actions(self) -> Sequence[str] | None:
        """Admissible actions in the present state; None where they cannot be listed."""
        return None

    def snapshot(self) -> Any | None:
        """A copy of the present state, for `restore`; None means that states are reached by replay from the root."""
        return None

    def restore(self, state: Any) -> None:
        """Return to a state that `snapshot` gave, of this or another instance in the process, any number of times."""
        raise NotImplementedError(f"{type(self).__name__} has no snapshots; states are reached by replay")

    def demonstration(self, task: Task) -> Sequence[str] | None:
        """Actions that solve `task` from `reset` on, or None; used for worked examples and by `agentloop env check`."""
        return None

    def examples(self, count: int) -> Sequence[Sequence[Message]]:
        """At most `count` worked examples for a prompt, from the train split only; each begins with the first observation.

        By default there are none here, and the framework plays `demonstration` of the first train tasks instead.
        """
        return ()

    def seats(self) -> Sequence[str]:
        """Names of those who act in an episode; default one. What has more is refused, because this version plays one seat an episode."""
        return ("actor",)

    def close(self) -> Awaitable[None] | None:
        """Release what the instance holds (processes, sockets, files). Called once, also after a failure."""
        return None
