"""Question benchmarks, on small data in the schemas of the real ones: the frozen split, judging, attempts, and errors that help."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agentloop import Environment
from agentloop.environment.base import SPLITS, Split
from agentloop.environment.check import check
from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import find
from agentloop.errors import Mistake

BENCHMARKS = ("gsm8k", "svamp", "math500", "aime24", "aime25")


def word_problem(number: int) -> dict[str, Any]:
    """A row in the schema of GSM8K."""
    answer = f"Ann has {number} + 5 = <<{number}+5={number + 5}>>{number + 5} eggs.\n#### {number + 5:,}"
    return {"question": f"Ann has {number} eggs and finds 5 more. How many has she?", "answer": answer}


def competition_problem(number: int) -> dict[str, Any]:
    """A row in the schema of MATH-500; the AIME's has whole numbers for answers."""
    answer = f"\\frac{{{number}}}{{7}}"
    return {"problem": f"Solve $7x = {number}$.", "solution": f"Divide: $x = \\boxed{{{answer}}}$.", "answer": answer, "level": "1"}


def write(folder: Path, part: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as `AGENTLOOP_DATA` names it, with all benchmarks in small."""
    write(tmp_path / "gsm8k", "train", [word_problem(number) for number in range(1000, 1090)])
    write(tmp_path / "gsm8k", "test", [word_problem(number) for number in range(2000, 2010)])
    changed = [{"ID": str(n), "Body": f"Dan had $ {n} left.", "Question": "What is twice that?", "Answer": 2.0 * n} for n in range(1, 31)]
    write(tmp_path / "svamp", "train", changed[:20])
    write(tmp_path / "svamp", "test", changed[20:])
    write(tmp_path / "math500", "test", [competition_problem(number) for number in range(1, 8)])
    for name in ("aime24", "aime25"):
        write(tmp_path / name, "test", [{"id": n, "problem": f"What is ${n}^2$?", "answer": n * n} for n in range(2, 8)])
    monkeypatch.setenv("AGENTLOOP_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    return tmp_path


def sizes(environment: Environment) -> list[int]:
    return [len(environment.tasks(split)) for split in SPLITS]


@pytest.mark.parametrize("name", BENCHMARKS)
async def test_the_protocol_is_kept(data: Path, name: str) -> None:
    findings = [finding async for finding in check(find(name), episodes=4)]
    assert len(findings) > 5
    assert all(finding.passed for finding in findings), [finding for finding in findings if not finding.passed]


def test_splits_are_frozen_and_no_question_is_in_two(data: Path) -> None:
    environment = find("gsm8k").make()
    assert sizes(environment) == [84, 6, 10]
    found = {split: {task.id: task.data["question"] for task in environment.tasks(split)} for split in SPLITS}
    assert not set(found["train"].values()) & set(found["dev"].values())
    assert list(found["test"]) == [f"test-{number}" for number in range(10)] and all(id.startswith("train-") for id in found["dev"])
    rows = [word_problem(number) for number in range(1000, 1090)]
    write(data / "other", "train", rows[::-1] + rows[:3])
    write(data / "other", "test", [word_problem(number) for number in range(2000, 2010)])
    other = find("gsm8k").make(data=str(data / "other"))
    dev = {task.data["question"] for task in other.tasks("dev")}
    assert dev == set(found["dev"].values()) and sizes(other) == [84, 6, 10], "the order and repetitions of the data change nothing"


def test_a_question_of_the_test_split_is_never_learnt_from(data: Path) -> None:
    leaked = [word_problem(2000), {**word_problem(2001), "question": word_problem(2001)["question"].upper().replace(" ", "  ")}]
    write(data / "gsm8k", "train", [word_problem(number) for number in range(1000, 1090)] + leaked)
    assert sizes(find("gsm8k").make()) == [84, 6, 10]


def test_a_question_is_judged_by_mathematics(data: Path) -> None:
    environment = find("math500").make()
    task = environment.tasks("test")[0]
    for said, reward in (("\\boxed{1/7}", 1.0), ("So $x = \\frac{2}{14}$.", 1.0), ("\\boxed{7}", 0.0), ("I cannot say.", 0.0), ("", 0.0)):
        assert environment.reset(task) == "Solve $7x = 1$."
        result = environment.step(said)
        assert (result.reward, result.done, result.observation) == (reward, True, "")
        assert result.info["reference"] == "\\frac{1}{7}" and result.info["why"] == ("same" if reward else result.info["why"])
    assert "boxed" in environment.system_prompt()


def test_demonstrations_are_the_worked_solutions(data: Path) -> None:
    environment = find("gsm8k").make()
    assert environment.demonstration(environment.tasks("test")[0]) == ["Ann has 2000 + 5 = 2005 eggs.\nThe answer is \\boxed{2,005}."]
    competition = find("math500").make()
    assert competition.demonstration(competition.tasks("test")[0]) == ["Divide: $x = \\boxed{\\frac{1}{7}}$."]
    changed = find("svamp").make()
    task = changed.tasks("test")[0]
    assert (task.data["question"], task.data["answer"]) == ("Dan had $ 21 left. What is twice that?", "42")
    assert changed.demonstration(task) == ["The answer is \\boxed{42}."]


def test_with_attempts_a_wrong_answer_is_told_and_another_may_follow(data: Path) -> None:
    environment = find("gsm8k").make(attempts=3)
    task = environment.tasks("test")[0]
    environment.reset(task)
    first, second = environment.step("No idea."), environment.step("\\boxed{2004}")
    assert "no final answer" in first.observation and "not right" in second.observation and not (first.done or second.done)
    kept = environment.snapshot()
    third = environment.step("\\boxed{2005}")
    assert (third.reward, third.done, third.info["attempt"]) == (1.0, True, 3)
    environment.restore(kept)
    again = environment.step("\\boxed{1}")
    assert (again.reward, again.done, again.observation) == (0.0, True, "")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the sandbox is refused")
def test_with_python_the_model_computes_sees_what_is_printed_and_goes_on(data: Path) -> None:
    environment = find("gsm8k").make(tool="python", programs=3, unprotected=["files"])  # a container may lack that
    task = environment.tasks("test")[0]
    assert "```python" in environment.system_prompt() and "boxed" in environment.system_prompt()
    environment.reset(task)
    first = environment.step("Let us see.\n```python\neggs = 2000 + 5\n```\nSo it is \\boxed{2005}.")
    assert first.observation == "```output\n(nothing was printed)\n```", "an answer beside a program is none: its output was not seen"
    assert not first.done and first.reward == 0.0
    second = environment.step("```python\nprint(eggs)\n```\n```output\n1\n```\n```python\neggs / 0\n```\n```python\n1\n```")
    assert (
        second.observation.startswith("```output\n2005\n  line 1: eggs / 0\nZeroDivisionError")
        and "1 more program was not run" in second.observation
    )
    assert second.info["endings"] == ["finished", "raised"]
    third = environment.step('<tool_call>{"name": "python", "arguments": {"code": "import sympy; sympy.factorint(eggs)"}}</tool_call>')
    assert "{5: 1, 401: 1}" in third.observation and "last program" in third.observation
    last = environment.step("```python\neggs\n```\nIt is \\boxed{2005}.")
    assert (last.reward, last.done) == (1.0, True)
    environment.reset(task)
    assert "NameError" in environment.step("```python\neggs\n```").observation, "an episode begins with nothing"
    environment.close()


def test_any_file_of_questions_and_answers_will_do(data: Path) -> None:
    rows = [{"a": f"{number}", "context": "Add one.", "q": f"What is {number} + 1?", "right": number + 1} for number in range(60)]
    write(data, "mine", rows)
    options: dict[str, Any] = {"data": str(data / "mine.jsonl"), "question": "{context} {q}", "answer": ["none", "right"], "prompt": "Add."}
    environment = find("questions").make(**options)
    found = sizes(environment)
    assert sum(found) == 60 and found[0] > 30 and min(found) > 0, "one file is shared out between all three"
    assert environment.tasks("train")[0].data["question"].startswith("Add one. What is") and environment.system_prompt() == "Add."
    only: dict[Split, str] = {"test": "mine"}
    assert sizes(find("questions").make(**options, splits=only)) == [0, 0, 60]


def test_csv_and_snapshots_of_the_hub_are_read_too(data: Path) -> None:
    (data / "table").mkdir()
    (data / "table" / "test.csv").write_text('question,answer\n"What is 1 + 1?",2\n')
    assert [task.data["answer"] for task in find("questions").make(data=str(data / "table")).tasks("test")] == ["2"]
    write(data / "snapshot" / "data", "test-00000-of-00001", [word_problem(1)])
    assert sizes(find("gsm8k").make(data=str(data / "snapshot"))) == [0, 0, 1]


@pytest.mark.parametrize(
    ("id", "options", "told"),
    [
        ("gsm8k", {"tool": "python", "programs": 0}, ["programs is at least 1", "leave tool out"]),
        ("gsm8k", {"tool": "python", "unprotected": ["file"]}, ["unprotected", "'files'"]),
        ("gsm8k", {"tool": "bash"}, ["tool", "'python'"]),
        ("gsm8k", {"attempts": 0}, ["attempts is at least 1"]),
        ("gsm8k", {"data": "./gsm9k"}, ["no data of benchmark 'gsm8k'", "gsm9k", "did you mean 'gsm8k'?"]),
        ("questions", {}, ["needs the option 'data'"]),
        ("questions", {"data": "x/y", "answer": []}, ["answer names no field"]),
        ("questions", {"data": "x/y", "splits": {"tset": "test"}}, ["splits"]),
    ],
)
def test_wrong_options_are_told(data: Path, monkeypatch: pytest.MonkeyPatch, id: str, options: dict[str, Any], told: list[str]) -> None:
    monkeypatch.chdir(data)
    with pytest.raises(Mistake) as caught:
        find(id).make(**options)
    assert all(words in str(caught.value) for words in told), caught.value


@pytest.mark.parametrize(
    ("rows", "options", "told"),
    [
        ([{"query": "1 + 1?", "answer": "2"}], {}, ["no field 'question'", "one of query, answer", "options question and answer"]),
        ([{"question": "1 + 1?", "answer": ""}], {}, ["row 0 of 'test' has no final answer"]),
        ([{"question": "1 + 1?", "answer": "2"}], {"question": "{qeustion}"}, ["no field 'qeustion'", "did you mean 'question'?"]),
    ],
)
def test_data_that_cannot_be_read_is_told(data: Path, rows: list[dict[str, Any]], options: dict[str, Any], told: list[str]) -> None:
    write(data / "odd", "test", rows)
    with pytest.raises(Mistake) as caught:
        find("questions").make(data=str(data / "odd"), **options).tasks("test")
    assert all(words in str(caught.value) for words in told), caught.value
    (data / "empty").mkdir()
    with pytest.raises(Mistake, match="holds none of the parts train, test"):
        find("questions").make(data=str(data / "empty")).tasks("test")


async def test_without_network_and_data_the_message_says_what_was_looked_for_and_what_helps(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub (offline)\nmore")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    monkeypatch.setenv("AGENTLOOP_DATA", str(data / "svamp"))
    assert find("gsm8k").make().remote == "openai/gsm8k from the hub"
    async with EnvironmentPool(find("gsm8k")) as pool:
        with pytest.raises(Mistake) as caught:
            await pool.tasks("test")
    message = str(caught.value)
    assert "'openai/gsm8k'" in message and "has no folder 'gsm8k'" in message and "--option data=FOLDER" in message
    assert "hf download" in message and "AGENTLOOP_DATA" in message and "\n" not in message


def test_a_listing_downloads_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from agentloop.cli.env import env

    monkeypatch.delenv("AGENTLOOP_DATA")
    listed = CliRunner().invoke(env, ["list"]).output
    assert all(any(line.startswith(name) and "on the hub" in line for line in listed.splitlines()) for name in BENCHMARKS)
