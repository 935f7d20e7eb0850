"""MiniWoB++ in a real browser: a scripted agent solves forty types, nothing is left behind, a killed browser is a typed failure."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentloop.environment.base import SPLITS, Environment, StepResult, Task
from agentloop.environment.check import Finding, check
from agentloop.environment.failure import EnvironmentFailure
from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import find
from agentloop.errors import Mistake
from tests.environments.miniwob_agent import ACTORS, read

miniwob = pytest.importorskip("miniwob", reason="needs MiniWoB++: pip install 'agentloop[miniwob]'", exc_type=ImportError)

needs_browser = pytest.mark.skipif(
    shutil.which("chromedriver") is None or not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="module")
def environment() -> Any:
    made = find("miniwob").make()
    yield made
    made.close()


@pytest.fixture
def short() -> Any:
    """A folder whose name is short: a browser puts sockets into it, and their paths may have 108 characters."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        yield Path(folder)


def task_of(environment: Environment, kind: str, number: int = 0) -> Task:
    return [task for task in environment.tasks("train") if task.data["type"] == kind][number]


def play(environment: Environment, task: Task) -> StepResult:
    """An episode of the scripted agent."""
    observation = environment.reset(task)
    actor = ACTORS[task.data["type"]](read(observation))
    action = next(actor)
    for _ in range(25):
        result = environment.step(action)
        if result.done:
            return result
        assert not result.observation.startswith("error"), (task.id, action, result.observation)
        action = actor.send(result.observation)
    raise AssertionError(f"{task.id} goes on for ever: {result.observation}")


def browsers() -> list[psutil.Process]:
    """The processes of browsers that this process started."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(f"agentloop-browser-{psutil.Process().pid}-" in part for part in process.info["cmdline"] or ()):
            found.append(process)
    return found


def folders() -> set[Path]:
    """The folders of browsers whose owner is this process, or is no more; those of tests that run beside this one are not ours."""
    found = Path(tempfile.gettempdir()).glob("agentloop-browser-*")
    owners = {path: int(path.name.split("-")[2]) for path in found}
    return {path for path, owner in owners.items() if owner == psutil.Process().pid or not psutil.pid_exists(owner)}


def test_the_types_are_those_of_the_package_that_run_from_files(environment: Environment) -> None:
    package = Path(miniwob.__file__).parent
    registered = set(re.findall(r'id="miniwob/([\w-]+)-v1"', (package / "registration.py").read_text()))
    assert {task.data["type"] for task in environment.tasks("dev")} == registered and len(registered) == 125
    assert all((package / "html" / "miniwob" / f"{kind}.html").exists() for kind in registered)


def test_the_split_is_fixed_by_seed_and_types_take_turns(environment: Environment) -> None:
    seeds = {split: {task.data["seed"] for task in environment.tasks(split)} for split in SPLITS}
    assert {split: len(found) for split, found in seeds.items()} == {"train": 100, "dev": 10, "test": 10}
    assert not seeds["train"] & seeds["dev"] and not seeds["dev"] & seeds["test"] and not seeds["train"] & seeds["test"]
    assert len({task.data["type"] for task in environment.tasks("test")[:125]}) == 125
    few = find("miniwob").make(types=["click-test", "enter-text"])
    assert [task.id for task in few.tasks("dev")][:3] == ["enter-text/100", "click-test/100", "enter-text/101"]
    with pytest.raises(Mistake, match="found clik-test"):
        find("miniwob").make(types="clik-test")


@needs_browser
@pytest.mark.slow
def test_a_scripted_agent_solves_forty_types(environment: Environment) -> None:
    solved = {kind for kind in ACTORS if play(environment, task_of(environment, kind)).reward > 0}
    assert solved == set(ACTORS) and len(solved) >= 40


@needs_browser
@pytest.mark.slow
def test_every_page_begins_and_looks_the_same_again(environment: Environment) -> None:
    """A third of the 125 types, in a used browser; the price that the clock moves after some time, too."""
    for task in environment.tasks("test")[:125:3]:
        first = environment.reset(task)
        assert first.startswith("Task: ") and re.search(r"\n *\[\d", first), (task.id, first)
        assert environment.reset(task) == first, task.id
    prices = []
    for _ in range(2):
        environment.reset(task_of(environment, "stock-market"))
        prices.append([environment.step("wait()").observation for _ in range(3)])
    assert prices[0] == prices[1] and len(set(prices[0])) == 3


@needs_browser
def test_what_cannot_be_done_is_an_observation_that_says_why(environment: Environment) -> None:
    environment.reset(task_of(environment, "enter-text"))
    said = {
        "click(77)": "error: click: there is no element 77 on the page; use a number in brackets",
        "click(-1)": "error: click: there is no element -1 on the page",
        "select(5, 'x')": "error: select: element 5 is no select element",
        "press('Entre')": "error: press: there is no key 'Entre', did you mean 'enter'?",
        "press('Hyper+a')": "error: press: 'Hyper' is no modifier",
        "click_at(900, 2)": "error: click_at: the point 900,2 is not on the page",
        "type(6, 'x')": "error: type: element 6 takes no text",
        "type(5, '\ue000')": "error: type: the text holds characters that no key types",
        "scroll(99, 5)": "error: scroll: there is no element 99",
        "drag(5, 99)": "error: drag: there is no element 99",
        "submit": "error: your message holds no tool call",
    }
    for action, observation in said.items():
        result = environment.step(action)
        assert result.observation.startswith(observation), (action, result.observation)
        assert not result.done and result.info["errors"]


@needs_browser
def test_the_reward_does_not_decay_and_time_does_not_run_out(environment: Environment) -> None:
    environment.reset(task_of(environment, "click-test"))
    for _ in range(15):  # 15 s of the page's time; its own limit is 10
        assert not environment.step("wait()").done
    result = environment.step("click(4)")
    assert (result.reward, result.done) == (1.0, True)
    assert environment.step("click(4)") == StepResult("The episode is over.", done=True)


@needs_browser
def test_a_killed_browser_is_a_typed_failure_and_the_next_episode_has_a_fresh_one() -> None:
    async def run() -> None:
        async with EnvironmentPool(find("miniwob"), {"types": "click-test"}, concurrency=1) as pool:
            (task, *_) = await pool.tasks("train")
            async with pool.instance() as player:
                others = set(browsers())
                await player.reset(task)
                for process in set(browsers()) - others:
                    process.send_signal(signal.SIGKILL)
                with pytest.raises(EnvironmentFailure, match="the browser died or did not answer") as failure:
                    await player.step("click(4)")
                assert failure.value.kind == "environment.crash"
            assert set(browsers()) <= others and dict(pool.failures) == {"environment.crash": 1}
            async with pool.instance() as player:
                await player.reset(task)
                assert (await player.step("click(4)")).reward == 1.0

    running = set(browsers())
    asyncio.run(run())
    assert set(browsers()) <= running


@needs_browser
def test_what_a_killed_owner_left_is_swept_away(monkeypatch: pytest.MonkeyPatch, short: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    gone = short / "agentloop-browser-999999999-abc"  # no process has that number
    own = short / f"agentloop-browser-{psutil.Process().pid}-abc"
    for folder in (gone, own):
        folder.mkdir()
    left = psutil.Popen(["python3", "-c", "import time; time.sleep(600)", f"--user-data-dir={gone}/profile"])
    made = find("miniwob").make(types="click-test")
    made.reset(made.tasks("dev")[0])
    made.close()
    assert left.wait(10) != 0 and not gone.exists() and own.exists()
    assert [path for path in short.iterdir() if path != own] == []


@needs_browser
@pytest.mark.slow
def test_many_episodes_leave_no_process_socket_or_file() -> None:
    """Through the pool, two browsers at once; then the protocol's own claims, which make and close two dozen browsers."""
    types = ["click-test", "click-button", "enter-text", "choose-list", "click-checkboxes"]
    process, before, running = psutil.Process(), folders(), browsers()  # the other tests of this file share a browser
    held = (process.num_fds(), len(process.net_connections()), process.num_threads())

    async def run() -> list[Finding]:
        async with EnvironmentPool(find("miniwob"), {"types": types}, concurrency=2) as pool:
            tasks = (await pool.tasks("train"))[:40]

            async def episode(task: Task) -> float:
                async with pool.instance() as player:
                    actor = ACTORS[task.data["type"]](read(await player.reset(task)))
                    result = await player.step(next(actor))
                    while not result.done:
                        result = await player.step(actor.send(result.observation))
                    return result.reward

            rewards = await asyncio.gather(*map(episode, tasks))
            assert min(rewards) > 0 and pool.created == 2 and not pool.failures
        return [finding async for finding in check(find("miniwob"), {"types": ["email-inbox-star-reply", "click-test"]}, episodes=4)]

    findings = asyncio.run(run())
    assert [finding for finding in findings if finding.passed is False] == []
    assert {finding.name for finding in findings if finding.passed} >= {"plays", "repeats", "processes", "isolation", "releases"}
    assert folders() == before and set(browsers()) <= set(running)
    assert process.num_fds() <= held[0] + 5 and len(process.net_connections()) <= held[1] and process.num_threads() <= held[2] + 3
