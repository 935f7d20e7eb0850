"""The protocol run against an environment: what holds, what does not, and how to mend it. `agentloop env check` prints the result."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import psutil

from agentloop.environment.base import SPLITS, Environment, Split, Task
from agentloop.environment.failure import EnvironmentFailure
from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import EnvironmentSpec
from agentloop.environment.rehearse import (
    GARBAGE,
    Played,
    Script,
    difference,
    from_json,
    play,
    play_all,
    spread,
    to_json,
    write_script,
)
from agentloop.environment.tools import ToolEnvironment

TASKS_A_SPLIT = 3
PROCESS_TIMEOUT = 180.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim of the protocol.

    Attributes:
        name: Short name of the claim.
        passed: Whether it holds; None where it does not apply.
        detail: What was found.
        mend: How to put it right, where it does not hold.
    """

    name: str
    passed: bool | None
    detail: str
    mend: str = ""


class _NotHeld(Exception):
    """A claim that does not hold, or does not apply (`applies` is False)."""

    def __init__(self, detail: str, *, applies: bool = True) -> None:
        self.applies = applies
        super().__init__(detail)


@dataclass
class _Subject:
    """The environment under examination, and what earlier claims found out about it."""

    spec: EnvironmentSpec
    options: dict[str, Any]
    episodes: int
    tasks: dict[Split, tuple[Task, ...]] = field(default_factory=dict)
    scripts: list[Script] = field(default_factory=list)
    played: list[Played] = field(default_factory=list)
    test_only: bool = False

    def pool(self, concurrency: int = 1) -> EnvironmentPool:
        return EnvironmentPool(self.spec, self.options, concurrency)


async def check(spec: EnvironmentSpec, options: Mapping[str, Any] | None = None, *, episodes: int = 50) -> AsyncIterator[Finding]:
    """Examine an environment claim by claim.

    Args:
        spec: From `registry.find`.
        options: Options of the environment.
        episodes: How many episodes to play when looking for leaks.

    Raises:
        Mistake: The environment cannot be imported or made.
    """
    subject = _Subject(spec, spec.check_options(options or {}), episodes)
    for name, claim, mend in CLAIMS:
        try:
            finding = Finding(name, True, await claim(subject))
        except _NotHeld as error:
            finding = Finding(name, False if error.applies else None, str(error), mend if error.applies else "")
        except EnvironmentFailure as error:
            finding = Finding(name, False, str(error), mend)
        yield finding
        if finding.passed is False and name in ("tasks", "plays"):
            return  # nothing further can be played


async def _tasks(subject: _Subject) -> str:
    """Tasks are JSON, listed in a fixed order, and no id occurs twice, in one split or in two."""
    async with subject.pool() as pool, pool.instance() as player:
        for split in SPLITS:
            subject.tasks[split] = await player.tasks(split)
            again = await player.tasks(split)
            subject.test_only = player.environment.test_only
            if [(task.id, task.data) for task in again] != [(task.id, task.data) for task in subject.tasks[split]]:
                raise _NotHeld(f"tasks({split!r}) gave other tasks, or another order, when it was asked again")
    ids = Counter(task.id for tasks in subject.tasks.values() for task in tasks)
    twice = [id for id, count in ids.items() if count > 1]
    if twice:
        where = [split for split, tasks in subject.tasks.items() if any(task.id == twice[0] for task in tasks)]
        raise _NotHeld(f"{len(twice)} task ids occur more than once, for example {twice[0]!r} in {' and '.join(where)}")
    needed: Split = "test" if subject.test_only else "train"
    if not subject.tasks[needed]:
        raise _NotHeld(f"tasks({needed!r}) is empty")
    for task in (task for tasks in subject.tasks.values() for task in tasks):
        if not isinstance(task.id, str) or not task.id:
            raise _NotHeld(f"the id of a task is {task.id!r}, expected a string")
        if json.loads(json.dumps(task.data, default=repr)) != task.data:
            raise _NotHeld(f"the data of task {task.id!r} does not survive JSON: {task.data!r:.80}")
    return ", ".join(f"{len(tasks)} {split}" for split, tasks in subject.tasks.items()) + ", no id twice"


async def _plays(subject: _Subject) -> str:
    """Some tasks of each split can be played."""
    begun = time.perf_counter()
    async with subject.pool() as pool, pool.instance() as player:
        for split, tasks in subject.tasks.items():
            subject.scripts += [await write_script(player, split, task) for task in spread(tasks, TASKS_A_SPLIT)]
        subject.played = [await play(player, script) for script in subject.scripts]
        prompt = player.system_prompt()
    steps = sum(len(played.outcomes) for played in subject.played)
    if not prompt.strip() and not (prompt == "" and _has_own_prompt(subject.spec.load())):
        raise _NotHeld("the system prompt is empty")
    seconds = time.perf_counter() - begun
    sources = sorted({script.source for script in subject.scripts})
    text = f"{len(subject.played)} episodes of {steps} steps in {seconds:.1f} s, actions from: {', '.join(sources)}"
    notes = [] if prompt else ["system_prompt() gives none"]
    if not {"demonstration", "actions", "tools"} & set(sources):
        notes.append("define demonstration() or actions(), and more will be tested")
    return text + (f" ({'; '.join(notes)})" if notes else "")


def _has_own_prompt(environment: type[Environment]) -> bool:
    """Whether the class says its system prompt itself; then "" is a choice. Without a docstring it is an oversight."""
    return environment.system_prompt not in (Environment.system_prompt, ToolEnvironment.system_prompt)


async def _garbage(subject: _Subject) -> str:
    """Whatever a model writes is answered by an observation."""
    async with subject.pool() as pool:
        for action in GARBAGE:
            async with pool.instance() as player:
                await player.reset(subject.scripts[0].task)
                try:
                    await player.step(action)
                except EnvironmentFailure as failure:
                    raise _NotHeld(f"the action {action!r:.40} was not taken: {failure}") from None
    return f"{len(GARBAGE)} senseless actions are answered"


async def _done(subject: _Subject) -> str:
    """An episode that is over stays over until reset; a demonstration ends in success."""
    async with subject.pool() as pool, pool.instance() as player:
        for script, played in zip(subject.scripts, subject.played, strict=True):
            if script.source == "demonstration" and len(script.actions) < 60:
                if not played.done:
                    raise _NotHeld(f"the demonstration of task {played.task!r} does not end the episode")
                if not player.success(played.total):
                    raise _NotHeld(f"the demonstration of task {played.task!r} is no success: its return is {played.total:g}")
            elif played.done:
                player.success(played.total)
    ended = [script for script, played in zip(subject.scripts, subject.played, strict=True) if played.done]
    if not ended:
        raise _NotHeld("no episode ended with the actions at hand", applies=False)
    again = await play_all(subject.spec, subject.options, [ended[0], ended[0]])
    parted = difference(again[0], again[1])
    if parted:
        raise _NotHeld(f"an episode after a finished one is another: {parted}")
    return f"{len(ended)} of {len(subject.played)} episodes ended, and reset begins afresh"


async def _repeats(subject: _Subject) -> str:
    """The same task and actions give the same observations: in a used instance and in a new one."""
    _compare(subject.played, await play_all(subject.spec, subject.options, reversed(subject.scripts)), backwards=True)
    return f"{len(subject.scripts)} episodes gave the same text and rewards again, in another order"


async def _processes(subject: _Subject) -> str:
    """The same in other processes, whatever the hash seed."""
    seeds = ("1", "2")
    for seed, played in zip(seeds, await asyncio.gather(*(_play_elsewhere(subject, seed) for seed in seeds)), strict=True):
        _compare(subject.played, played, where=f" in a process with PYTHONHASHSEED={seed}")
    return "two other processes with different hash seeds gave the same"


async def _snapshots(subject: _Subject) -> str:
    """Restoring a snapshot, twice and in another instance, leads where playing from the root leads."""
    script = max(subject.scripts, key=lambda script: len(script.actions))
    pool = subject.pool(2)
    async with pool, pool.instance() as player, AsyncExitStack() as stack:
        await player.reset(script.task)
        if await player.snapshot() is None:
            raise _NotHeld("no snapshots: states are reached by replay", applies=False)
        other = await stack.enter_async_context(pool.instance()) if pool.limit > 1 else player
        played = subject.played[subject.scripts.index(script)]
        for cut in sorted({0, len(played.outcomes) // 2, max(len(played.outcomes) - 1, 0)}):
            await player.reset(script.task)
            for action in script.actions[:cut]:
                await player.step(action)
            state = await player.snapshot()
            for attempt in ("straight on", "restored once", "restored again", "restored in another instance"):
                where = other if attempt == "restored in another instance" else player
                if attempt != "straight on":
                    await where.restore(state)
                rest = [await where.step(action) for action in script.actions[cut : len(played.outcomes)]]
                if tuple(result.observation for result in rest) != played.observations[cut + 1 :]:
                    raise _NotHeld(f"task {script.task.id!r}, snapshot after {cut} steps, {attempt}: other observations than by replay")
    return "restored states go on as replayed ones"


async def _isolation(subject: _Subject) -> str:
    """Two instances that play in turns do not see each other."""
    first, second = subject.scripts[0], subject.scripts[-1]
    pool = subject.pool(2)
    if pool.limit < 2:
        raise _NotHeld("the environment allows one instance only", applies=False)
    async with pool, pool.instance() as one, pool.instance() as other:
        together: list[list[str]] = [[await one.reset(first.task)], [await other.reset(second.task)]]
        for step in range(max(len(first.actions), len(second.actions))):
            for player, script, seen, alone in ((one, first, together[0], 0), (other, second, together[1], -1)):
                if step < len(subject.played[alone].outcomes):
                    seen.append((await player.step(script.actions[step])).observation)
    for seen, played in zip(together, (subject.played[0], subject.played[-1]), strict=True):
        if tuple(seen) != played.observations:
            raise _NotHeld(f"task {played.task!r} gave other observations while a second instance played")
    return "two instances played in turns, each as if alone"


async def _releases(subject: _Subject) -> str:
    """Instances that come and go leave no thread, process, file or socket behind."""
    rounds = max(subject.episodes // 2, 2)
    before: dict[str, int] = {}
    for number in range(rounds):
        async with subject.pool() as pool, pool.instance() as player:
            for script in (subject.scripts[0], subject.scripts[-1]):
                await play(player, Script(script.split, script.task, script.actions[:5], script.source))
        if pool.failures:
            raise _NotHeld(f"close() failed: {dict(pool.failures)}")
        if number == min(2, rounds - 1):  # the first instances load what all share
            before = await _held()
    grown = {what: count - before[what] for what, count in (await _held()).items() if count - before[what] > max(rounds // 3, 1)}
    if grown:
        listed = ", ".join(f"{count} {what}" for what, count in grown.items())
        raise _NotHeld(f"{rounds - 3} instances were closed and left behind {listed}")
    return f"{rounds} instances played {2 * rounds} episodes and left nothing behind"


async def _held() -> dict[str, int]:
    """What this process holds now, after what is ending has had a moment to end."""
    gc.collect()
    await asyncio.sleep(0.2)
    process = psutil.Process()
    return {
        "threads": process.num_threads(),
        "child processes": len(process.children(recursive=True)),
        "open files": process.num_fds() if hasattr(process, "num_fds") else len(process.open_files()),
        "sockets": len(process.net_connections()),
    }


def _compare(first: list[Played], second: list[Played], *, where: str = "", backwards: bool = False) -> None:
    for one, other in zip(first, reversed(second) if backwards else second, strict=True):
        parted = difference(one, other)
        if parted:
            raise _NotHeld(parted + where)


async def _play_elsewhere(subject: _Subject, hash_seed: str) -> list[Played]:
    """The scripts played in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "agentloop.environment.rehearse",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        given = to_json(subject.spec, subject.options, subject.scripts).encode()
        out, error = await asyncio.wait_for(process.communicate(given), PROCESS_TIMEOUT)
    except TimeoutError:
        raise _NotHeld(f"waited {PROCESS_TIMEOUT:g} s for the same episodes in another process, in vain") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = (error.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise _NotHeld(f"another process could not play the same episodes: {last}")
    return from_json(out.decode())


Claim = Callable[[_Subject], Awaitable[str]]

CLAIMS: tuple[tuple[str, Claim, str], ...] = (
    (
        "tasks",
        _tasks,
        "give every task an id of its own, in one split only; build the list from a fixed seed, random.Random(split), and keep its data to "
        "text, numbers, lists and dictionaries",
    ),
    (
        "plays",
        _plays,
        "reset returns the first observation (a string), step a StepResult(observation, reward, done); the class docstring is the system "
        'prompt unless system_prompt() says otherwise, by returning "" that there is none',
    ),
    ("garbage", _garbage, "answer what cannot be read with an observation that says what is expected, instead of raising"),
    ("done", _done, "set done=True when the episode is over, give its reward in that step, and set all state anew in reset"),
    (
        "repeats",
        _repeats,
        "let everything follow from the task and the actions: no clock, no global random, no state that survives reset, nothing shared "
        "that grows",
    ),
    ("processes", _processes, "sort sets and directory listings before using their order, and do not use hash() of text"),
    ("snapshots", _snapshots, "return a copy of all the state from snapshot(), task included, and copy it again in restore()"),
    ("isolation", _isolation, "keep state in self, not in the class, the module or a file of fixed name"),
    ("releases", _releases, "stop threads and processes, and close files and sockets, in close()"),
)


def passed(findings: list[Finding]) -> bool:
    """Whether nothing failed."""
    return all(finding.passed is not False for finding in findings)
