"""BabyAI: what the agent is told is what the grid holds, the package's bot solves the paper's levels in our protocol, states come back."""

from __future__ import annotations

import random

import pytest

from agentloop import Environment
from agentloop.environment.base import SPLITS
from agentloop.environment.check import check
from agentloop.environment.registry import find
from agentloop.errors import Mistake

pytest.importorskip("minigrid", reason="minigrid is not installed: pip install 'agentloop[babyai]'")

PAPER = [
    [
        "GoToObj",
        "GoToRedBallGrey",
        "GoToRedBall",
        "GoToLocal",
        "PutNextLocal",
        "PickupLoc",
        "GoToObjMaze",
        "GoTo",
        "Pickup",
        "UnblockPickup",
        "Open",
        "Unlock",
        "PutNext",
    ],
    ["Synth", "SynthLoc", "GoToSeq", "SynthSeq", "GoToImpUnlock", "BossLevel"],
]


def make(**options: object) -> Environment:
    return find("babyai").make(**options)


@pytest.mark.parametrize("options", [{}, {"level": ["OpenDoor", "PutNextLocal"], "reward": "steps"}])
async def test_the_protocol_is_kept(options: dict[str, object]) -> None:
    findings = [finding async for finding in check(find("babyai"), options, episodes=20)]
    assert all(finding.passed for finding in findings), [finding for finding in findings if not finding.passed]


def test_the_bot_solves_every_level_of_the_paper_in_words(capfd: pytest.CaptureFixture[str]) -> None:
    environment = make(level="paper")
    tasks = environment.tasks("test")[:19]
    assert [task.data["level"] for task in tasks] == [name for names in PAPER for name in names]
    for task in tasks:
        actions = environment.demonstration(task)
        assert actions, task
        environment.reset(task)
        results = [environment.step(action) for action in actions]
        assert [result.done for result in results] == [False] * (len(actions) - 1) + [True], task
        assert environment.success(sum(result.reward for result in results)) and results[-1].reward == 1.0
        assert results[-1].observation == "The instruction is carried out."
    assert capfd.readouterr().out == "", "the package prints which missions it has thrown away"


def test_what_is_described_is_what_the_grid_holds() -> None:
    """Every object that the package's own encoding of the view shows is named at its place, and nothing else is."""
    from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT

    environment = make(level="BossLevel")
    chance = random.Random(0)
    kinds = set()
    for task in environment.tasks("train")[:4]:
        text = environment.reset(task)
        for _ in range(25):
            image = environment._world.gen_obs()["image"]  # type: ignore[attr-defined]
            expected = set()
            for column in range(7):
                for row in range(7):
                    kind, colour, state = image[column, row]
                    name = IDX_TO_OBJECT[int(kind)]
                    if name in ("door", "key", "ball", "box") and (column, row) != (3, 6):
                        condition = {0: "open ", 1: "closed ", 2: "locked "}[int(state)] if name == "door" else ""
                        expected.add((f"{condition}{IDX_TO_COLOR[int(colour)]} {name}", 6 - row, column - 3))
                        kinds.add(name)
            found = {seen for line in text.splitlines() if line.startswith("- ") and (seen := placed(line))}
            assert found == expected, text
            text = environment.step(chance.choice(environment.actions() or [])).observation
    assert kinds == {"door", "key", "ball", "box"}


def placed(line: str) -> tuple[str, int, int] | None:
    """What a line of the view says: an object, how far forward and how far right."""
    if line == "- no objects":
        return None
    name, _, place = line.removeprefix("- ").partition(", ")
    forward = right = 0
    for part in place.split(" and "):
        count, _, side = part.split()
        forward += int(count) * (side == "forward")
        right += int(count) * {"forward": 0, "left": -1, "right": 1}[side]
    return name.split(" ", 1)[1], forward, right


def test_an_action_is_understood_in_the_ways_that_models_write_it() -> None:
    environment = make()
    task = environment.tasks("train")[0]
    words = {
        "turn left": ["left", "Turn left.", "> turn left", "Action: turn left", "I think:\nturn left"],
        "go forward": ["forward", "move forward", "GO FORWARD!"],
        "pick up": ["pickup", "pick up the red ball"],
        "toggle": ["open the door", "toggle"],
    }
    for action, ways in words.items():
        environment.reset(task)
        expected = environment.step(action)
        for way in ways:
            environment.reset(task)
            assert environment.step(way) == expected, way
    environment.reset(task)
    assert environment.step("dance").info == {"errors": {"format": 1}}


def test_an_action_without_effect_says_why() -> None:
    environment = make(level="PickupLoc")
    environment.reset(environment.tasks("train")[0])
    assert environment.step("drop").observation.startswith("You cannot drop anything: you carry nothing.\nYou see:")
    for _ in range(8):
        result = environment.step("go forward")
    assert result.observation.startswith("You cannot go forward: there is ") and result.info == {"errors": {"no_effect": 1}}
    assert "go forward" not in (environment.actions() or [])


def test_a_world_cut_short_is_truncated_and_no_success() -> None:
    environment = make(level="GoToObj")
    environment.reset(environment.tasks("dev")[0])
    results = [environment.step("drop") for _ in range(64)]
    assert [result.truncated for result in results] == [False] * 63 + [True] and not results[-1].done
    assert not environment.success(sum(result.reward for result in results))


def test_fewer_steps_are_worth_more_where_the_reward_is_as_published() -> None:
    environment = make(level="GoToObj", reward="steps")
    task = environment.tasks("train")[3]
    actions = list(environment.demonstration(task) or [])
    environment.reset(task)
    quick = sum(environment.step(action).reward for action in actions)
    environment.reset(task)
    slow = sum(environment.step(action).reward for action in ["drop", "drop", *actions])
    assert quick == pytest.approx(1 - 0.9 * len(actions) / 64)
    assert slow == pytest.approx(quick - 0.9 * 2 / 64) and environment.success(slow)


def test_the_split_goes_by_seed_and_the_levels_take_turns() -> None:
    environment = make(level=["GoTo", "Open"])
    tasks = {split: environment.tasks(split) for split in SPLITS}
    assert {split: len(found) for split, found in tasks.items()} == {"train": 2000, "dev": 200, "test": 200}
    assert [task.id for task in tasks["test"][:3]] == ["GoTo-2000000", "Open-2000000", "GoTo-2000001"]
    assert [task.id for task in make(level="Open").tasks("test")] == [task.id for task in tasks["test"][1::2]]


@pytest.mark.parametrize(
    ("option", "message"),
    [("GoToLocl", "did you mean 'GoToLocal'?"), ([], "the paper has GoToObj"), ("Debug", "there is no level 'Debug'")],
)
def test_a_level_that_is_not_there_is_a_mistake(option: object, message: str) -> None:
    with pytest.raises(Mistake, match=message.replace("?", r"\?")):
        make(level=option)
