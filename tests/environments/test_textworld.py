"""TextWorld: games are made once by seed, the same in every process, and their walkthroughs win them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentloop import Environment
from agentloop.environment.base import SPLITS
from agentloop.environment.check import check
from agentloop.environment.registry import find
from agentloop.errors import Mistake

pytest.importorskip("textworld", reason="textworld is not installed (it needs a C compiler): pip install 'agentloop[textworld]'")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CHALLENGES: list[dict[str, Any]] = [
    {"challenge": "coin_collector", "level": 3},
    {"challenge": "treasure_hunter", "level": 12},
    {"challenge": "cooking", "settings": {"recipe": 2, "take": 1, "cut": True}},
    {"challenge": "simple"},
]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTLOOP_CACHE", str(folder))
        yield folder


@pytest.fixture
def closing() -> Iterator[list[Environment]]:
    made: list[Environment] = []
    yield made
    for environment in made:
        environment.close()


def make(closing: list[Environment], **options: Any) -> Environment:
    closing.append(find("textworld").make(**options))
    return closing[-1]


async def test_the_protocol_is_kept() -> None:
    findings = [finding async for finding in check(find("textworld"), {"challenge": "coin_collector", "level": 3}, episodes=10)]
    assert {finding.name: finding.passed for finding in findings if not finding.passed} == {"snapshots": None}, findings


@pytest.mark.parametrize("options", CHALLENGES, ids=lambda options: options["challenge"])
def test_a_walkthrough_wins_and_the_rewards_add_up_to_one(options: dict[str, Any], closing: list[Environment]) -> None:
    environment = make(closing, **options)
    for split in ("train", "test"):
        task = environment.tasks(split)[0]  # type: ignore[arg-type]
        text = environment.reset(task)
        assert "$$" not in text and ("TextWorld" in text or "hungry" in text), text
        assert not text.rstrip().endswith(">")
        results = [environment.step(command) for command in environment.demonstration(task) or []]
        assert [result.done for result in results] == [False] * (len(results) - 1) + [True]
        assert sum(result.reward for result in results) == pytest.approx(1.0)
        assert environment.success(sum(result.reward for result in results))
        assert "RESTART" not in results[-1].observation and environment.step("look").done


def test_a_game_is_the_same_wherever_it_is_made(tmp_path: Path, cache: Path, closing: list[Environment]) -> None:
    program = (
        "from agentloop.environment.registry import find\n"
        f"for options in {CHALLENGES!r}:\n"
        "    environment = find('textworld').make(**options)\n"
        "    task = environment.tasks('train')[0]\n"
        "    print(environment.reset(task), environment.demonstration(task), environment.actions())\n"
        "    environment.close()\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path), "AGENTLOOP_CACHE": str(tmp_path / seed)},
        )
        for seed in ("1", "2")
    ]
    first, second = (process.communicate(timeout=240)[0] for process in processes)
    assert first and first == second


def test_a_game_is_made_once_and_nothing_else_is_left_in_the_cache(cache: Path, closing: list[Environment]) -> None:
    environment = make(closing, challenge="coin_collector", level=2)
    task = environment.tasks("dev")[50]
    first = environment.reset(task)
    (folder,) = (path for path in (cache / "textworld").iterdir() if path.is_dir() and "1000050" in path.name)
    made = (folder / "game.z8").stat().st_mtime_ns
    assert make(closing, challenge="coin_collector", level=2).reset(task) == first
    assert (folder / "game.z8").stat().st_mtime_ns == made
    assert [path.name for path in (cache / "textworld").iterdir() if path.name.startswith(".")] == []


def test_what_is_no_command_is_answered_and_a_long_game_is_cut(closing: list[Environment]) -> None:
    environment = make(closing, challenge="coin_collector", level=2, steps=3)
    environment.reset(environment.tasks("train")[0])
    assert environment.step("\n\n").info == {"errors": {"format": 1}}
    results = [environment.step("dance 文字") for _ in range(3)]
    assert [result.truncated for result in results] == [False, False, True]
    assert {split: len(environment.tasks(split)) for split in SPLITS} == {"train": 500, "dev": 100, "test": 100}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"challenge": "chess"}, "option 'challenge'"),
        ({"challenge": "simple", "level": 3}, "has no setting 'level'"),
        ({"challenge": "cooking", "settings": {"recipe": "two"}}, "of type int"),
        ({"challenge": "cooking", "settings": {"go": 7}}, "refuses its settings"),
        ({"steps": -1}, "steps is 0 or more"),
    ],
)
def test_wrong_options_are_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Mistake, match=message):
        find("textworld").make(**options)
