"""The calculator: right answers, disjoint splits, worked examples from train, and a message of whatever kind is only an observation."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentloop import Environment, Task
from agentloop.environment.base import SPLITS
from agentloop.environment.check import check
from agentloop.environment.registry import find
from agentloop.errors import Mistake

KINDS = ("story", "problem", "expression")
STORY = Task(
    "story/2/12+30-7",
    {
        "start": 12,
        "operations": [["add", 30], ["subtract", 7]],
        "who": "Tom",
        "what": "apples",
        "told": ["Tom finds 30 more.", "Tom loses 7."],
        "level": 2,
    },
)


def make(**options: object) -> Environment:
    return find("calculator").make(**options)


def arithmetic(task: Task) -> str:
    """The calculation of a task, read off its data and not off its id."""
    signs = {"add": "+", "subtract": "-", "multiply": "*"}
    return str(task.data["start"]) + "".join(signs[name] + str(operand) for name, operand in task.data["operations"])


def python_answer(task: Task) -> int:
    """What Python makes of the expression as it is written for the model."""
    expression = make(kind="expression", levels=list(range(1, 9)))
    return eval(str(expression.reset(task)))  # the text is ours: digits, signs and brackets


@pytest.mark.parametrize("options", [{"kind": "story"}, {"kind": "expression"}, {"terse": True}])
async def test_the_protocol_is_kept(options: dict[str, object]) -> None:
    findings = [finding async for finding in check(find("calculator"), options)]
    assert len(findings) > 5
    assert all(finding.passed for finding in findings), [finding for finding in findings if not finding.passed]


@pytest.mark.parametrize("kind", KINDS)
def test_the_demonstration_gives_the_answer_that_python_gives(kind: str) -> None:
    environment = make(kind=kind, levels=[1, 2, 3, 5, 8])
    for task in itertools.chain(*(environment.tasks(split)[:100] for split in SPLITS)):
        environment.reset(task)
        *calls, last = environment.demonstration(task)
        results = [environment.step(action) for action in (*calls, last)]
        assert last == f"answer({python_answer(task)})"
        assert len(calls) == task.data["level"]
        assert [result.done for result in results] == [False] * len(calls) + [True]
        assert sum(result.reward for result in results) == 1.0
        assert not any("errors" in result.info for result in results)


def test_no_calculation_is_in_two_splits_whatever_the_kind_and_the_seed() -> None:
    splits: dict[str, set[str]] = {}
    for kind, seed, split in itertools.product(KINDS, (0, 1), SPLITS):
        tasks = make(kind=kind, levels=[1, 2, 3], seed=seed).tasks(split)
        assert len({task.id for task in tasks}) == len(tasks)
        assert len({arithmetic(task) for task in tasks}) == len(tasks)
        for task in tasks:
            splits.setdefault(arithmetic(task), set()).add(split)
    assert len(splits) > 18_000
    assert all(len(found) == 1 for found in splits.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [1, 2, 3])
def test_every_level_has_tasks_enough(kind: str, level: int) -> None:
    environment = make(kind=kind, levels=level)
    sizes = [len(environment.tasks(split)) for split in SPLITS]
    assert sizes == [1000, 250, 250]


def test_levels_take_turns_and_operations_are_balanced() -> None:
    environment = make(levels=[1, 2, 3])
    tasks = environment.tasks("train")
    assert [task.data["level"] for task in tasks[:6]] == [1, 2, 3, 1, 2, 3]
    operations = [name for task in tasks for name, _ in task.data["operations"]]
    for name in ("add", "subtract", "multiply"):
        assert 0.2 < operations.count(name) / len(operations) < 0.45


def test_a_story_tells_one_event_a_turn() -> None:
    environment = make()
    assert environment.reset(STORY) == "Tom has 12 apples. Tom finds 30 more."
    assert environment.step("add(12, 30)").observation == "42. Tom loses 7."
    assert environment.step("subtract(42, 7)").observation == "35. How many apples?"
    result = environment.step("answer(35)")
    assert (result.reward, result.done) == (1.0, True)


def test_a_problem_is_told_at_once_and_an_expression_is_written() -> None:
    problem, expression = make(kind="problem"), make(kind="expression")
    assert problem.reset(STORY) == "Tom has 12 apples. Tom finds 30 more. Tom loses 7. How many apples?"
    assert problem.step("add(12, 30)").observation == "42"
    assert expression.reset(STORY) == "(12 + 30) - 7"
    assert expression.step("add(12, 30)").observation == "42"


def test_a_wrong_operation_goes_on_and_is_not_rewarded() -> None:
    environment = make()
    environment.reset(STORY)
    assert environment.step("multiply(12, 30)").observation == "360. Tom loses 7."
    environment.step("subtract(360, 7)")
    result = environment.step("answer(353)")
    assert (result.reward, result.done) == (0.0, True)


def test_the_right_number_before_the_story_ends_is_no_answer_to_it() -> None:
    environment = make()
    environment.reset(STORY)
    environment.step("add(12, 30)")
    result = environment.step("answer(35)")
    assert (result.reward, result.done) == (0.0, True)


def test_what_cannot_be_read_is_an_observation_and_the_story_waits() -> None:
    environment = make()
    environment.reset(STORY)
    for message in ("", "Tom has 42 apples.", "add(12)", "add(twelve, 30)", "divide(12, 3)", "add(12, 30", "add(10000000000, 1)"):
        result = environment.step(message)
        assert result.observation.startswith("error:"), message
        assert sum(result.info["errors"].values()) == 1
        assert not result.done
        if message == "Tom has 42 apples.":
            assert environment.snapshot()[1] == 1, "the next event has not been told"
    assert environment.step("add(12, 30)").observation == "42. Tom loses 7."


def test_only_the_first_call_of_a_message_runs() -> None:
    environment = make()
    environment.reset(STORY)
    observation = environment.step("add(12, 30)\nsubtract(42, 7)\nanswer(35)").observation
    assert observation.startswith("42. Tom loses 7.")
    assert "not run" in observation


def test_an_episode_without_an_answer_is_cut_short() -> None:
    environment = make()
    environment.reset(STORY)
    results = [environment.step("add(1, 1)") for _ in range(8)]
    assert [result.truncated for result in results] == [False] * 7 + [True]
    assert not any(result.done or result.reward for result in results)


@given(st.lists(st.one_of(st.text(max_size=40), st.from_regex(r"(add|answer|multiply)\(-?[0-9]{1,12}(, ?-?[0-9]{1,12})?\)?")), max_size=10))
def test_no_message_raises_and_only_the_right_number_is_rewarded(messages: list[str]) -> None:
    for terse in (False, True):
        environment = make(terse=terse)
        environment.reset(STORY)
        for message in messages:
            result = environment.step(message)
            assert not result.reward or "35" in message
            if result.done or result.truncated:
                break


def test_worked_examples_are_train_problems_that_begin_with_each_operation() -> None:
    environment = make(levels=[1, 2, 3])
    examples = environment.examples(3)
    train = {environment.reset(task) for task in environment.tasks("train")}
    assert all(example[0]["content"] in train for example in examples)
    first = [example[1]["content"].partition("(")[0] for example in examples]
    assert sorted(first) == ["add", "multiply", "subtract"]
    for example in examples:
        calls = [message["content"].partition("(")[0] for message in example if message["role"] == "assistant"]
        assert sorted(calls) == ["add", "answer", "multiply", "subtract"]
    assert [list(example) for example in environment.examples(2)] == [list(example) for example in examples[:2]]


def test_a_worked_example_is_what_really_happens() -> None:
    environment = make(levels=[1, 2, 3])
    (example,) = environment.examples(1)
    task = next(task for task in environment.tasks("train") if environment.reset(task) == example[0]["content"] and task.data["level"] == 3)
    shown = [environment.reset(task)]
    for action in environment.demonstration(task):
        shown += [action, environment.step(action).observation]
    assert [message["content"] for message in example] == shown[:-1]
    assert [message["role"] for message in example] == ["user", "assistant"] * 4


def test_terse_mode_is_bare_characters() -> None:
    environment = make(terse=True, levels=2)
    assert environment.system_prompt() == ""
    task = Task("t", {**STORY.data, "operations": [["add", 30], ["multiply", 2]]})
    assert environment.reset(task) == "(12+30)*2"
    assert environment.demonstration(task) == ["add(12,30)", "mul(42,2)", "84"]
    assert environment.step("add(12, 30)").observation == "error"
    assert environment.step("add(12,30)").observation == "42"
    assert environment.step("sub(42,2)").observation == "40"
    assert environment.step("mul(42,2)").observation == "84"
    result = environment.step("84")
    assert (result.observation, result.reward, result.done) == ("", 1.0, True)
    characters = set("".join(str(environment.reset(task)) for task in environment.tasks("train")))
    assert characters <= set("0123456789+-*()")


def test_options_that_make_no_sense_are_the_users_mistake() -> None:
    for options in ({"levels": 0}, {"levels": [1, 9]}, {"levels": []}, {"kind": "poem"}, {"level": 1}):
        with pytest.raises(Mistake):
            make(**options)
