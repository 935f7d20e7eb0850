"""One environment instance as the sampler sees it: every call bounded in time, checked against the protocol, and typed where it fails."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from numbers import Real
from typing import Any

from agentloop.environment.base import Environment, Message, Split, StepResult, Task
from agentloop.environment.failure import (
    EnvironmentFailure,
    FailureKind,
    describe_error,
    format_error,
)
from agentloop.environment.worker import InstanceThread, Outcome
from agentloop.errors import Mistake

_QUICK_TIMEOUT = 10.0
"""Seconds for `success`, which is answered on the spot."""


class Player:
    """A handle on one instance, for one episode at a time. Made by `EnvironmentPool`.

    Attributes:
        environment: The instance; touch it only through this handle, since it may live in another thread.
        broken: Whether a call failed, so that the instance may not be used again.
        hung: Whether a call never returned.
        progressed: When a call last returned (`time.monotonic`).
    """

    def __init__(
        self,
        environment: Environment,
        *,
        name: str,
        thread: InstanceThread | None,
        step_timeout: float,
        folder: str | None = None,
        record: Callable[[EnvironmentFailure], EnvironmentFailure] = lambda failure: failure,
    ) -> None:
        self.environment = environment
        self.broken = False
        self.hung = False
        self.progressed = time.monotonic()
        self._name = name
        self._thread = thread
        self._step_timeout = step_timeout
        self._folder = folder
        self._record = record
        self._system_prompt = ""

    async def prepare(self) -> None:
        """Ask for what must be known before the first episode.

        Raises:
            EnvironmentFailure: It cannot be asked.
            Mistake: Several act in it, and nothing here would ask the others.
        """
        seats = await self.seats()
        if len(seats) != 1:
            named = ", ".join(seats) or "none"
            message = f"environment {self._name!r} has {len(seats)} seats ({named}), and this version plays one an episode"
            raise Mistake(message, expected="seats() with one name")
        self._system_prompt = self._text("system_prompt", await self._call("environment.create", "system_prompt"))

    async def tasks(self, split: Split) -> tuple[Task, ...]:
        """All tasks of a split. Raises `EnvironmentFailure`."""
        found = await self._call("environment.create", "tasks", split)
        if isinstance(found, (str, bytes)) or not isinstance(found, Sequence):
            raise self._protocol("tasks", found, "a sequence of Task(id, data)")
        for task in found:
            if not isinstance(task, Task):
                raise self._protocol("tasks", task, "a sequence of Task(id, data)", within=True)
        return tuple(found)

    async def reset(self, task: Task) -> str:
        """Start an episode; the first observation. Raises `EnvironmentFailure`."""
        observation = self._text("reset", await self._call("environment.reset", "reset", task))
        self._system_prompt = self._text("system_prompt", await self._call("environment.reset", "system_prompt"))
        return observation

    async def step(self, action: str) -> StepResult:
        """Act. The result's observation is valid Unicode, its reward a finite float and its info JSON. Raises `EnvironmentFailure`."""
        result = await self._call("environment.step", "step", action)
        if not isinstance(result, StepResult):
            raise self._protocol("step", result, "StepResult(observation, reward, done)")
        reward: Any = result.reward
        if not isinstance(reward, Real) or not math.isfinite(reward):
            raise self._protocol("step", reward, "a finite number", part="reward")
        for part in ("done", "truncated"):
            if getattr(result, part) not in (True, False):
                raise self._protocol("step", getattr(result, part), "True or False", part=part)
        info: Any = result.info
        if not isinstance(info, dict):
            raise self._protocol("step", info, "a dictionary of JSON values", part="info")
        return StepResult(
            self._text("step", result.observation, part="observation"),
            float(reward),
            bool(result.done),
            bool(result.truncated),
            json.loads(json.dumps(info, default=str)) if info else {},
        )

    def system_prompt(self) -> str:
        """The system message of the episode that was reset last (before any: of the instance)."""
        return self._system_prompt

    def success(self, total: float) -> bool:
        """Whether an episode with this return counts as solved. Raises `EnvironmentFailure`."""
        if self._thread is None:
            outcome = _attempt(self.environment.success, total)
        else:
            try:
                outcome = self._thread.run(self.environment.success, total).result(_QUICK_TIMEOUT)
            except TimeoutError:
                raise self._timeout("success", _QUICK_TIMEOUT) from None
        value = self._value("environment.step", outcome)
        if value not in (True, False):
            raise self._protocol("success", value, "True or False")
        return bool(value)

    async def actions(self) -> tuple[str, ...] | None:
        """Admissible actions now, or None. Raises `EnvironmentFailure`."""
        found = await self._call("environment.step", "actions")
        if found is None:
            return None
        if isinstance(found, (str, bytes)) or not isinstance(found, Sequence) or not all(isinstance(action, str) for action in found):
            raise self._protocol("actions", found, "a sequence of strings, or None")
        return tuple(found)

    async def snapshot(self) -> Any | None:
        """The present state, or None where states are reached by replay. Raises `EnvironmentFailure`."""
        return await self._call("environment.step", "snapshot")

    async def restore(self, state: Any) -> None:
        """Return to a state that `snapshot` gave. Raises `EnvironmentFailure`."""
        await self._call("environment.step", "restore", state)

    async def seats(self) -> tuple[str, ...]:
        """Names of those who act. Raises `EnvironmentFailure`."""
        found = await self._call("environment.create", "seats")
        if isinstance(found, (str, bytes)) or not isinstance(found, Sequence) or not all(isinstance(seat, str) for seat in found):
            raise self._protocol("seats", found, "a sequence of names")
        return tuple(found)

    async def demonstration(self, task: Task) -> tuple[str, ...] | None:
        """Actions that solve `task`, or None. Raises `EnvironmentFailure`."""
        found = await self._call("environment.step", "demonstration", task)
        return None if found is None else tuple(found)

    async def examples(self, count: int) -> list[list[Message]]:
        """Worked examples from the train split: the environment's own, else its demonstrations played out. Ends the present episode."""
        own = await self._call("environment.step", "examples", count)
        found = [list(example) for example in own][:count]
        if found or count < 1:
            return found
        for task in await self.tasks("train"):
            actions = await self.demonstration(task)
            if actions:
                found.append(await self._transcript(task, actions))
            if actions is None or len(found) == count:
                break
        return found

    async def close(self, seconds: float) -> bool:
        """Release the instance; waits at most so long, then leaves it behind. Whether it closed."""
        if self.hung and self._thread is not None:  # its thread runs `close` if it ever comes back
            self._thread.run(self.environment.close)
            self._thread.stop()
            return False
        try:
            await self._call("environment.step", "close", timeout=seconds)
        except EnvironmentFailure:
            return False
        finally:
            if self._thread is not None:
                self._thread.stop()
        return True

    async def _transcript(self, task: Task, actions: Sequence[str]) -> list[Message]:
        messages = [{"role": "user", "content": await self.reset(task)}]
        for action in actions:
            result = await self.step(action)
            messages.append({"role": "assistant", "content": action})
            if result.done:
                break
            messages.append({"role": "user", "content": result.observation})
        return messages

    async def _call(
        self,
        kind: FailureKind,
        method: str,
        *arguments: Any,
        timeout: float | None = None,
    ) -> Any:
        """Call a method wherever the instance lives and wait for the result, awaiting it if it is awaitable."""
        seconds = self._step_timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        function = getattr(self.environment, method)
        try:
            if self._thread is None:
                outcome = _attempt(function, *arguments)
            else:
                outcome = await _within(asyncio.wrap_future(self._thread.run(function, *arguments)), seconds)
            if inspect.isawaitable(outcome.value):
                outcome = await _within(_settle(outcome.value), deadline - time.monotonic())
        except TimeoutError:
            raise self._timeout(method, seconds) from None
        except asyncio.CancelledError:
            self.broken = True  # the call may still be running; `close` queues behind it
            raise
        self.progressed = time.monotonic()
        return self._value(kind, outcome)

    def _value(self, kind: FailureKind, outcome: Outcome) -> Any:
        if outcome.error is None:
            return outcome.value
        if isinstance(outcome.error, Mistake):  # the user's to put right, and no failure of this one episode
            self.broken = True
            raise outcome.error
        if isinstance(outcome.error, EnvironmentFailure):
            failure = outcome.error
        else:
            message = f"environment {self._name!r} raised {describe_error(outcome.error, self._folder)}"
            failure = EnvironmentFailure(kind, message, format_error(outcome.error))
        self.broken = True
        raise self._record(failure) from outcome.error

    def _timeout(self, method: str, seconds: float) -> EnvironmentFailure:
        self.broken = self.hung = True
        message = f"waited {seconds:g} s for {method}() of environment {self._name!r}, in vain; the instance is abandoned and replaced"
        return self._record(EnvironmentFailure("environment.timeout", message))

    def _protocol(
        self,
        method: str,
        found: object,
        expected: str,
        *,
        part: str = "",
        within: bool = False,
    ) -> EnvironmentFailure:
        self.broken = True
        what = f"{part} of {method}()" if part else f"{method}()"
        verb = "holds" if within else "is" if part else "returned"
        shown = "nothing (None)" if found is None else f"{type(found).__name__} {found!r:.80}"
        message = f"environment {self._name!r}: {what} {verb} {shown}, expected {expected}"
        return self._record(EnvironmentFailure("environment.protocol", message))

    def _text(self, method: str, found: object, *, part: str = "") -> str:
        if not isinstance(found, str):
            raise self._protocol(method, found, "a string", part=part)
        return found.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate could be neither stored nor tokenised


def is_async(environment: type[Environment]) -> bool:
    """Whether the class plays on the event loop: its `reset` or `step` is a coroutine function."""
    return any(inspect.iscoroutinefunction(getattr(environment, name)) for name in ("reset", "step"))


def _attempt(function: Callable[..., Any], *arguments: Any) -> Outcome:
    try:
        return Outcome(function(*arguments))
    except (Exception, SystemExit) as error:
        return Outcome(error=error)


async def _settle(value: Awaitable[Any]) -> Outcome:
    try:
        return Outcome(await value)
    except (Exception, SystemExit) as error:
        return Outcome(error=error)


async def _within(value: Awaitable[Outcome], seconds: float) -> Outcome:
    """The result of `value`. Raises TimeoutError and leaves it behind, even where it refuses to be cancelled."""
    task = asyncio.ensure_future(value)
    try:
        done, _ = await asyncio.wait({task}, timeout=max(seconds, 0.0))
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        raise TimeoutError
    return task.result()
