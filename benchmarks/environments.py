"""Episodes and steps a second of every installed environment, at 1, 2, 8 and 32 concurrent episodes through agentloop's own pool.

    python -m benchmarks.environments --out benchmarks/results/environments.json

Nothing is sampled: the actions are written down beforehand, by the environment's own demonstration, else by drawing admissible actions,
else by calling tools or sending garbage (`agentloop.environment.rehearse`), so what is timed is reset, step and the pool around them. Each
concurrency is first warmed up, so that its instances exist, and then plays until `--seconds` are over and at least as many episodes as play
at once; an episode under way then is played to its end, and counted with its time. An environment that allows fewer instances than asked
for is reported with the number that played. What cannot be made here is listed with the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from agentloop.environment.failure import EnvironmentFailure
from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import EnvironmentSpec, find, names
from agentloop.environment.rehearse import Script, spread, write_script
from agentloop.errors import AgentloopError

CONCURRENCY = (1, 2, 8, 32)
SCRIPTS = 32

OPTIONS: dict[str, dict[str, Any]] = {
    "scienceworld": {"variations": 2},
    "textarena": {"game": ["FrozenLake-v0", "GuessTheNumber-v0", "TicTacToe-v0", "ConnectFour-v0"]},
}
"""Options under which an environment is timed, where its defaults do not say what one episode is; all are written into the result."""


@dataclass(frozen=True)
class Row:
    """One environment at one concurrency.

    Attributes:
        environment: Its name.
        concurrency: Episodes asked for at once.
        instances: Instances that played at once; fewer, where the environment allows fewer.
        episodes: Episodes played.
        steps: Steps in them.
        seconds: Wall time from the first reset to the last step.
        episodes_per_second: Their quotient.
        steps_per_second: Likewise.
        reset_ms: Median time of a reset, waiting in the pool not counted.
        failures: How many episodes failed, by kind.
        memory_mb: Resident memory of this process and its children at the end.
    """

    environment: str
    concurrency: int
    instances: int
    episodes: int
    steps: int
    seconds: float
    episodes_per_second: float
    steps_per_second: float
    reset_ms: float
    failures: dict[str, int]
    memory_mb: int


async def measure(spec: EnvironmentSpec, options: dict[str, Any], concurrency: int, seconds: float, scripts: Sequence[Script]) -> Row:
    """Play scripts in turn, so many at once, until the time is over."""
    pool = EnvironmentPool(spec, options, concurrency)
    turns: Iterator[Script] = itertools.cycle(scripts)
    resets: list[float] = []
    failures: Counter[str] = Counter()
    played = steps = 0

    async def episode(script: Script) -> int:
        async with pool.instance() as player:
            begun = time.perf_counter()
            await player.reset(script.task)
            resets.append(time.perf_counter() - begun)
            taken = 0
            for action in script.actions:
                result = await player.step(action)
                taken += 1
                if result.done or result.truncated:
                    break
            return taken

    async def worker(until: float, least: int) -> None:
        nonlocal played, steps
        for number in itertools.count():
            if number >= least and time.perf_counter() >= until:
                return
            try:
                taken = await episode(next(turns))
                steps += taken  # not in one line: the sum would be that of before the wait
            except EnvironmentFailure as failure:
                failures[failure.kind] += 1
            played += 1

    async with pool:
        workers = pool.limit
        await asyncio.gather(*(worker(0.0, 1) for _ in range(workers)))
        resets.clear()
        failures.clear()
        played = steps = 0
        begun = time.perf_counter()
        await asyncio.gather(*(worker(begun + seconds, 1) for _ in range(workers)))
        wall = time.perf_counter() - begun
        memory = _memory()
    return Row(
        spec.id,
        concurrency,
        pool.limit,
        played,
        steps,
        round(wall, 3),
        round(played / wall, 2),
        round(steps / wall, 2),
        round(1000 * statistics.median(resets), 3) if resets else 0.0,
        dict(failures),
        memory,
    )


async def write_scripts(spec: EnvironmentSpec, options: dict[str, Any], count: int) -> list[Script]:
    """Scripts for tasks spread over the train split, or the test split where there is no other."""
    async with EnvironmentPool(spec, options, 1) as pool, pool.instance() as player:
        tasks = await player.tasks("train") or await player.tasks("test")
        return [await write_script(player, "train", task) for task in spread(tasks, count)]


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All environments, one after another."""
    rows: list[Row] = []
    about: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name in arguments.environments or names():
        options = OPTIONS.get(name, {})
        try:
            spec = find(name)
            remote = spec.make(**options).remote
            if remote and not arguments.remote:
                left_out[name] = f"downloads {remote}; --remote includes it"
                continue
            scripts = await write_scripts(spec, options, arguments.scripts)
            about[name] = {"options": options, "actions": dict(Counter(script.source for script in scripts)), "needs": spec.load().needs}
            for concurrency in arguments.concurrency:
                rows.append(await measure(spec, options, concurrency, arguments.seconds, scripts))
                print(
                    f"{name:16} {concurrency:3} {rows[-1].episodes_per_second:10.2f} episodes/s {rows[-1].steps_per_second:10.2f} steps/s",
                    flush=True,
                )
        except AgentloopError as error:
            left_out[name] = str(error)
            print(f"{name:16} left out: {error}", flush=True)
    return {
        "what": (__doc__ or "").split("\n")[0],
        "seconds": arguments.seconds,
        "environments": about,
        "left_out": left_out,
        "rows": [asdict(row) for row in rows],
    }


def _memory() -> int:
    """Resident memory of this process and all under it, in MB."""
    process = psutil.Process()
    found = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            found += one.memory_info().rss
        except psutil.Error:  # it ended meanwhile
            pass
    return found // 2**20


def about_machine() -> dict[str, Any]:
    """Processor, cores, Python, date and command, kept with every result."""
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    return {
        "device": f"{cpu or platform.processor()}, {len(psutil.Process().cpu_affinity() or [])} cores",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "command": "python -m " + " ".join(["benchmarks." + Path(sys.argv[0]).stem, *sys.argv[1:]]),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("environments", nargs="*", help="names; by default all that are found")
    parser.add_argument("--concurrency", type=int, nargs="+", default=list(CONCURRENCY))
    parser.add_argument("--seconds", type=float, default=10.0, help="for each environment and concurrency")
    parser.add_argument("--scripts", type=int, default=SCRIPTS, help="tasks that are played in turn")
    parser.add_argument("--remote", action="store_true", help="with the environments that download their tasks")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    result = asyncio.run(run(arguments)) | about_machine()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
