"""ALFWorld: the official splits from the data's own folders, its names, and a clear message where the data is not; tried on a tiny room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentloop import Environment
from agentloop.environment.base import SPLITS
from agentloop.environment.check import check
from agentloop.environment.registry import find
from agentloop.errors import Mistake
from tests.environments.alfworld_room import WALKTHROUGH, write_room

for package in ("textworld", "fast_downward"):
    pytest.importorskip(package, reason=f"{package} is not installed (it needs a C compiler): pip install 'agentloop[alfworld]'")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in ("train", "valid_seen", "valid_unseen"):
        write_room(tmp_path, split)
    return tmp_path


def make(folder: Path, **options: Any) -> Environment:
    return find("alfworld").make(data=str(folder), **options)


@pytest.mark.slow
async def test_the_protocol_is_kept(folder: Path) -> None:
    findings = [finding async for finding in check(find("alfworld"), {"data": str(folder)}, episodes=10)]
    assert {finding.name: finding.passed for finding in findings if not finding.passed} == {"snapshots": None}, findings


def test_a_walkthrough_solves_the_task_and_things_have_readable_names(folder: Path) -> None:
    environment = make(folder)
    (task,) = environment.tasks("train")
    first = environment.reset(task)
    assert first == (
        "You are in the middle of a room. You see a cabinet 2, a cabinet 1, and a desk 1.\n\nYour task is to: put some mug on desk."
    )
    assert list(environment.actions() or []) == ["go to cabinet 1", "go to cabinet 2", "go to desk 1", "look"]
    assert environment.demonstration(task) == list(WALKTHROUGH)
    results = [environment.step(command) for command in WALKTHROUGH]
    assert [result.observation for result in results[:2]] == [
        "You arrive at cabinet 1. The cabinet 1 is closed.",
        "You open the cabinet 1. In it, you see a mug 1.",
    ]
    assert [result.reward for result in results] == [0.0, 0.0, 0.0, 0.0, 1.0] and results[-1].done
    environment.close()


def test_what_cannot_be_done_changes_nothing_and_a_long_task_is_cut(folder: Path) -> None:
    environment = make(folder, steps=3)
    environment.reset(environment.tasks("dev")[0])
    results = [environment.step("open desk 1") for _ in range(3)]
    assert results[0].observation == "Nothing happens." and results[0].info == {"errors": {"not_possible": 1}}
    assert [result.truncated for result in results] == [False, False, True]
    environment.close()


def test_tasks_are_chosen_as_the_package_chooses_them(folder: Path) -> None:
    write_room(folder, "train", trial="trial_2", solvable=False)
    write_room(folder, "train", kind="pick_two_obj_and_place")
    write_room(folder, "train", kind="pick_and_place_with_movable_recep")
    write_room(folder, "train", kind="pick_heat_then_place_in_recep-AppleSliced")
    listed = {split: [task.id for task in make(folder).tasks(split)] for split in SPLITS}
    assert listed == {
        "train": ["train/pick_and_place_simple-Mug-None-Desk-301/trial_1", "train/pick_two_obj_and_place-Mug-None-Desk-301/trial_1"],
        "dev": ["valid_seen/pick_and_place_simple-Mug-None-Desk-301/trial_1"],
        "test": ["valid_unseen/pick_and_place_simple-Mug-None-Desk-301/trial_1"],
    }
    assert len(make(folder, kinds=["pick_two_obj_and_place"]).tasks("train")) == 1


def test_missing_data_is_a_message_with_the_command_that_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    with pytest.raises(Mistake, match="there is no ALFWorld data in .* pip install alfworld && alfworld-download"):
        find("alfworld").make()
    write_room(tmp_path, "train")
    assert len(find("alfworld").make().tasks("train")) == 1


def test_names_are_numbered_as_the_package_numbers_them() -> None:
    find("alfworld").load()
    import sys

    readable_names = sys.modules["agentloop_environments.alfworld.names"].readable_names
    names = ["sink_bar_a_bar_sinkbasin", "sink_bar_a", "mug_bar__plus_1", "mug_bar__plus_2", "agent1"]
    assert readable_names(names) == {
        "agent1": "agent1 ",
        "mug_bar__plus_1": "mug 2",
        "mug_bar__plus_2": "mug 1",
        "sink_bar_a": "sink 1",
        "sink_bar_a_bar_sinkbasin": "sinkbasin 1",
    }
