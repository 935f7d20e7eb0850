"""Gymnasium environments in words: its own toy games, and one that a module of the user's registers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gymnasium", reason="needs the package gymnasium: pip install 'agentloop[gymnasium]'")

from agentloop import Environment
from agentloop.environment.base import SPLITS
from agentloop.environment.check import check
from agentloop.environment.registry import find
from agentloop.errors import Mistake

ECHO = '''
import gymnasium
from gymnasium import spaces


class Echo(gymnasium.Env):
    """Say the word back."""

    def __init__(self, words=("apple", "pear"), shout=False):
        self.words, self.shout = words, shout
        self.observation_space = spaces.Dict({"say": spaces.Text(20), "left": spaces.Discrete(9)})
        self.action_space = spaces.Text(20)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.word = str(self.np_random.choice(self.words))
        self.left = 3
        return self._see(), {}

    def step(self, action):
        self.left -= 1
        right = action == (self.word.upper() if self.shout else self.word)
        return self._see(), float(right), right, self.left == 0, {"word": self.word}

    def _see(self):
        return {"say": self.word, "left": self.left}


gymnasium.register("Echo-v0", Echo)
'''


def make(**options: Any) -> Environment:
    return find("gymnasium").make(**options)


async def test_the_default_and_a_table_of_numbers_keep_the_protocol() -> None:
    for options in ({}, {"name": "Blackjack-v1", "tasks": {"train": 5, "dev": 2, "test": 2}}):
        findings = [finding async for finding in check(find("gymnasium"), options, episodes=6)]
        assert [finding for finding in findings if finding.passed is False] == [] and len(findings) > 5


def test_a_lake_is_crossed_by_the_names_of_its_actions() -> None:
    lake = make(keywords={"is_slippery": False})
    task = lake.tasks("test")[0]
    assert lake.reset(task) == "[S]FFF\nFHFH\nFFFH\nHFFG"
    assert lake.actions() == ("left", "down", "right", "up")
    unread = lake.step("I go somewhere")
    assert unread.observation == "An action is one of: left, down, right, up." and not unread.reward and not unread.done
    assert lake.step("Down.").observation == "  (Down)\nSFFF\n[F]HFH\nFFFH\nHFFG"
    steps = [lake.step(action) for action in ("I go down", "2", "down", "right", "RIGHT")]
    assert [step.done for step in steps] == [False] * 4 + [True] and steps[-1].reward == 1.0 and lake.success(1.0)
    assert lake.actions() == ()
    lake.close()


def test_seeds_are_the_tasks_and_no_seed_is_in_two_splits() -> None:
    game = make(name="Blackjack-v1", steps=1)
    seeds = [task.data["seed"] for split in SPLITS for task in game.tasks(split)]
    assert len(set(seeds)) == len(seeds) == 1400
    first, second = game.tasks("train")[:2]
    dealt = [game.reset(task) for task in (first, second, first)]
    assert dealt[0] == dealt[2] and dealt[0].startswith("[")
    last = game.step("hit")
    assert last.truncated or last.done
    game.close()


def test_an_action_mask_narrows_what_is_admissible() -> None:
    taxi = make(name="Taxi-v4")
    taxi.reset(taxi.tasks("train")[0])
    admissible = taxi.actions()
    assert admissible is not None and set(admissible) < {"south", "north", "east", "west", "pick up", "drop off"}
    assert taxi.step("pick up").reward in (-1.0, -10.0)
    taxi.close()


def test_a_users_module_registers_text_in_and_text_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "echo_games.py").write_text(ECHO)
    monkeypatch.syspath_prepend(str(tmp_path))
    echo = make(name="Echo-v0", module="echo_games", keywords={"shout": True}, prompt="Shout it back.")
    assert echo.system_prompt() == "Shout it back." and echo.actions() is None
    seen = echo.reset(echo.tasks("train")[0])
    word = seen.splitlines()[0].removeprefix("say: ")
    assert seen == f"say: {word}\nleft: 3" and word in ("apple", "pear")
    assert echo.step("!").observation.startswith("An action is text of 1 to 20 of the characters")
    assert echo.step(word).reward == 0.0
    said = echo.step(word.upper())
    assert (said.reward, said.done, said.info["gymnasium"]) == (1.0, True, {"word": word})
    echo.close()


def test_numbers_are_read_as_json_for_continuous_actions() -> None:
    car = make(name="MountainCarContinuous-v0")
    assert "written as JSON" in car.system_prompt()
    car.reset(car.tasks("train")[0])
    assert car.step("[0.5]").info["action"] == [0.5]
    for odd in ("[2.0]", "0.5", "[1, 2]", "full speed", "[" * 5000, '{"a": 1}', "[1e999]"):
        assert "An action is JSON that fits" in car.step(odd).observation
    car.close()


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(Mistake, match="knows no environment 'FrozenLakes-v1'.*did you mean 'FrozenLake-v1'"):
        make(name="FrozenLakes-v1")
    with pytest.raises(Mistake, match="there is no module 'nowhere'"):
        make(module="nowhere")
    with pytest.raises(Mistake, match="keywords do not fit.*is_slipery"):
        make(keywords={"is_slipery": False})
    with pytest.raises(Mistake, match="there are 4 actions, and 2 names"):
        make(actions=["left", "right"])
