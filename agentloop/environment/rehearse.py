"""Plays that can be repeated exactly: which actions to play on which tasks, and everything that came back.

Run as a module, it plays scripts from standard input in a process of its own (`agentloop env check` does, under two hash seeds).
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agentloop.environment.base import SPLITS, Split, Task
from agentloop.environment.calls import Call, render_call
from agentloop.environment.player import Player
from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import EnvironmentSpec, find
from agentloop.environment.signatures import ToolSchema
from agentloop.environment.tools import ToolEnvironment

GARBAGE = (
    "",
    " \n\t ",
    "hello",
    "-1",
    "0",
    "1e999",
    "nan",
    "None",
    "{}",
    '{"name": "x", "arguments": {}}',
    "[[[[[[",
    "x(1, y=2)",
    "<tool_call>{",
    "```json\n{\n```",
    "<|im_end|>",
    "../../etc/passwd",
    "\x00\x1b[31m",
    "naïve 文字 🙂",
    "a " * 2000,
    "9" * 500,
)
"""Actions that no environment expects and every environment must take."""

LONGEST_PLAY = 60


@dataclass(frozen=True, slots=True)
class Script:
    """Actions to play on a task, and where they come from: "demonstration", "actions", "tools" or "garbage"."""

    split: Split
    task: Task
    actions: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Played:
    """All that came back from a play: one entry for the reset and one a step, comparable with `==`."""

    task: str
    system_prompt: str
    observations: tuple[str, ...]
    outcomes: tuple[tuple[float, bool, bool], ...]

    @property
    def total(self) -> float:
        """The return."""
        return sum(reward for reward, _, _ in self.outcomes)

    @property
    def done(self) -> bool:
        """Whether the episode ended."""
        return bool(self.outcomes) and self.outcomes[-1][1]


async def write_script(player: Player, split: Split, task: Task) -> Script:
    """Choose actions for a task: its demonstration, else admissible ones drawn by a seed, else calls by schema, else garbage."""
    demonstration = await player.demonstration(task)
    if demonstration is not None:
        return Script(split, task, demonstration[:LONGEST_PLAY], "demonstration")
    await player.reset(task)
    if await player.actions() is not None:
        return Script(split, task, await _explore(player, task), "actions")
    if isinstance(player.environment, ToolEnvironment):
        calls = [_example_call(schema) for schema in player.environment.all_tools().values()]
        return Script(split, task, (*calls, "7", *calls), "tools")
    return Script(split, task, tuple(action[:200] for action in GARBAGE), "garbage")


async def play(player: Player, script: Script, *, stop_at_done: bool = True) -> Played:
    """Reset and play a script; stops when the episode is over. Raises `EnvironmentFailure`."""
    observations = [await player.reset(script.task)]
    outcomes = []
    for action in script.actions:
        result = await player.step(action)
        observations.append(result.observation)
        outcomes.append((result.reward, result.done, result.truncated))
        if stop_at_done and (result.done or result.truncated):
            break
    return Played(script.task.id, player.system_prompt(), tuple(observations), tuple(outcomes))


def difference(first: Played, second: Played) -> str | None:
    """Where two plays of one script part, in a line; None if they do not."""
    if first.system_prompt != second.system_prompt:
        return f"task {first.task!r}: the system prompt {_parting(first.system_prompt, second.system_prompt)}"
    for step, (one, other) in enumerate(zip(first.observations, second.observations, strict=False)):
        if one != other:
            where = "the first observation" if step == 0 else f"the observation of step {step}"
            return f"task {first.task!r}: {where} {_parting(one, other)}"
    for step, (mine, yours) in enumerate(zip(first.outcomes, second.outcomes, strict=False), start=1):
        if mine != yours:
            return f"task {first.task!r}: (reward, done, truncated) of step {step} was {mine} and then {yours}"
    if len(first.outcomes) != len(second.outcomes):
        return f"task {first.task!r}: the episode had {len(first.outcomes)} steps and then {len(second.outcomes)}"
    return None


async def play_all(spec: EnvironmentSpec, options: dict[str, Any], scripts: Iterable[Script]) -> list[Played]:
    """Play scripts one after another in one instance. Raises `EnvironmentFailure`."""
    async with EnvironmentPool(spec, options, concurrency=1) as pool, pool.instance() as player:
        return [await play(player, script) for script in scripts]


def spread(tasks: Sequence[Task], count: int) -> list[Task]:
    """At most `count` tasks, evenly over the sequence."""
    if len(tasks) <= count:
        return list(tasks)
    return [tasks[index * (len(tasks) - 1) // max(count - 1, 1)] for index in range(count)]


async def _explore(player: Player, task: Task) -> tuple[str, ...]:
    chance = random.Random(f"rehearse {task.id}")
    chosen: list[str] = []
    while len(chosen) < 20 and (admissible := await player.actions()):
        chosen.append(chance.choice(admissible))
        result = await player.step(chosen[-1])
        if result.done or result.truncated:
            break
    return tuple(chosen)


def _example_call(schema: ToolSchema) -> str:
    values = {"int": 3, "float": 1.5, "bool": True, "str": "a"}
    arguments = {name: schema.defaults.get(name, values.get(type_name, "a")) for name, type_name in schema.types.items()}
    return render_call(Call(schema.name, arguments), "plain")


def _parting(one: str, other: str) -> str:
    at = next((index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    start = max(0, at - 10)
    return f"was {one[start : at + 40]!r} and then {other[start : at + 40]!r} (from character {start})"


def to_json(spec: EnvironmentSpec, options: dict[str, Any], scripts: Iterable[Script]) -> str:
    """What `main` reads."""
    id = f"{spec.path}:{spec.target}" if spec.source == "file" and spec.target else str(spec.path) if spec.source == "file" else spec.id
    return json.dumps({"id": id, "options": options, "scripts": [asdict(script) for script in scripts]}, default=str)


def from_json(text: str) -> list[Played]:
    """What `main` wrote."""
    return [
        Played(one["task"], one["system_prompt"], tuple(one["observations"]), tuple((r, bool(d), bool(t)) for r, d, t in one["outcomes"]))
        for one in json.loads(text)
    ]


def main() -> None:
    """Play the scripts on standard input, write the plays to standard output."""
    given = json.loads(sys.stdin.read())
    scripts = [
        Script(SPLITS[SPLITS.index(one["split"])], Task(one["task"]["id"], one["task"]["data"]), tuple(one["actions"]), one["source"])
        for one in given["scripts"]
    ]
    out, sys.stdout = sys.stdout, sys.stderr  # what an environment prints must not end up in the answer
    played = asyncio.run(play_all(find(given["id"], Path.cwd()), given["options"], scripts))
    out.write(json.dumps([asdict(one) for one in played]))
    out.flush()


if __name__ == "__main__":
    main()
