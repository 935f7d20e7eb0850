"""ScienceWorld: gold paths solve tasks in our protocol, the split is the official one, a dead simulator is a typed failure and replaced.

One simulator serves the whole file, because each takes seconds to start.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from agentloop import Environment, Task
from agentloop.environment.base import SPLITS
from agentloop.environment.check import check
from agentloop.environment.failure import EnvironmentFailure
from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import find
from agentloop.errors import Mistake
from tests.environments.scienceworld_gold import FILE

pytest.importorskip("scienceworld", reason="scienceworld is not installed: pip install 'agentloop[scienceworld]'")
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java: sudo apt install default-jre-headless")

GOLD: dict[str, list[str]] = json.loads(FILE.read_text(encoding="utf-8"))
"""Gold paths by task id; all but the longest few are played here."""


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    made = find("scienceworld").make()
    yield made
    made.close()


def tasks(environment: Environment, name: str, split: str = "dev") -> list[Task]:
    return [task for task in environment.tasks(split) if task.data["task"] == name]  # type: ignore[arg-type]


@needs_java
@pytest.mark.slow
def test_the_gold_paths_of_26_tasks_solve_them_in_our_protocol(environment: Environment) -> None:
    by_id = {task.id: task for task in environment.tasks("dev")}
    shortest = sorted(GOLD, key=lambda id: len(GOLD[id]))[:26]
    assert len({by_id[id].data["task"] for id in shortest}) == 26
    for id in shortest:
        assert environment.reset(by_id[id]).startswith("Your task is to ")
        results = [environment.step(action) for action in GOLD[id]]
        assert [result.done for result in results] == [False] * (len(results) - 1) + [True], id
        assert environment.success(sum(result.reward for result in results)), id


@needs_java
@pytest.mark.slow
async def test_the_protocol_is_kept() -> None:
    findings = [finding async for finding in check(find("scienceworld"), {"task": "find-non-living-thing", "variations": 1}, episodes=4)]
    assert {finding.name: finding.passed for finding in findings if not finding.passed} == {"snapshots": None}, findings


@needs_java
@pytest.mark.slow
def test_the_split_is_the_official_one(environment: Environment) -> None:
    simulator = environment._running()  # type: ignore[attr-defined]
    listed = {split: environment.tasks(split) for split in SPLITS}
    assert {split: len(found) for split, found in listed.items()} == {"train": 3592, "dev": 1796, "test": 1819}
    counts: dict[str, int] = {}
    for task in (task for found in listed.values() for task in found):
        counts[task.data["task"]] = counts.get(task.data["task"], 0) + 1
    assert simulator.counts() == counts
    for name in ("identify-life-stages-1", "grow-fruit", "boil"):
        simulator.load(name, 0, "")
        ours = tuple([task.data["variation"] for task in tasks(environment, name, split)] for split in SPLITS)
        assert simulator.split() == ours


@needs_java
@pytest.mark.slow
def test_focus_on_the_wrong_thing_fails_and_ends_the_episode(environment: Environment) -> None:
    environment.reset(tasks(environment, "find-plant")[0])
    results = []
    for action in ("look around", "focus on agent"):
        results.append(environment.step(action))
    assert results[-1].done and results[-1].info["score"] < 0 and results[-1].observation.endswith("The task has failed.")
    assert sum(result.reward for result in results) == -1.0
    assert environment.step("look around").done


@needs_java
@pytest.mark.slow
def test_a_demonstration_does_not_disturb_the_episode_under_way(environment: Environment) -> None:
    first, other = tasks(environment, "find-animal")[:2]
    actions = environment.demonstration(first) or []
    environment.reset(first)
    undisturbed = [environment.step(action) for action in actions]
    environment.reset(first)
    half = len(actions) // 2
    seen = [environment.step(action) for action in actions[:half]]
    environment._gold.clear()  # type: ignore[attr-defined]
    environment.demonstration(other)
    assert seen + [environment.step(action) for action in actions[half:]] == undisturbed


@needs_java
@pytest.mark.slow
async def test_a_simulator_that_dies_is_a_typed_failure_and_the_next_episode_has_a_fresh_one() -> None:
    pool = EnvironmentPool(find("scienceworld"), {"task": "find-plant"}, concurrency=1)
    async with pool:
        (task, *_) = await pool.tasks("train")
        async with pool.instance() as player:
            first = await player.reset(task)
            process = player.environment._simulator.process  # type: ignore[attr-defined]
            assert "-Xmx256m" in psutil.Process(process.pid).cmdline() and "-XX:+UseSerialGC" in psutil.Process(process.pid).cmdline()
            os.kill(process.pid, signal.SIGKILL)
            with pytest.raises(EnvironmentFailure, match="the Java process died in step.. with exit code -9") as caught:
                await player.step("look around")
            assert caught.value.kind == "environment.step"
        async with pool.instance() as player:
            assert await player.reset(task) == first
            second = player.environment._simulator.process  # type: ignore[attr-defined]
    assert pool.failures == {"environment.step": 1} and process.poll() == -9 and second.poll() is not None


def test_options_are_validated_before_a_simulator_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    for options, message in (
        ({"task": "boyl"}, "did you mean 'boil'"),
        ({"task": "power-component", "simplifications": ["noElectricalAction"]}, "takes away what the task power-component needs"),
        ({"simplifications": ["fly"]}, "simplifications"),
        ({"steps": -1}, "steps is 0 or more"),
    ):
        with pytest.raises(Mistake, match=message):
            find("scienceworld").make(**options)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(Mistake, match="sudo apt install default-jre-headless"):
        find("scienceworld").make()


def test_tasks_are_listed_without_a_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = find("scienceworld")
    module: Any = spec.load().reset.__globals__
    monkeypatch.setitem(module, "find_java", lambda: "java")
    monkeypatch.setitem(module, "Simulator", lambda: pytest.fail("a simulator was started"))
    environment = spec.make(task=["boil", "find-plant"], variations=2)
    assert [task.id for task in environment.tasks("test")] == ["boil-21", "boil-22", "find-plant-225", "find-plant-226"]
