"""Arithmetic that may be tried again: rewards of single answers, with an oracle and without, and disjoint splits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentloop import Environment, Task
from agentloop.environment.base import SPLITS
from agentloop.environment.check import check
from agentloop.environment.registry import find

TASK = Task("12 + 5 - 3", {"numbers": [12, 5, -3]})


def make(**options: object) -> Environment:
    return find("retry").make(**options)


@pytest.mark.parametrize("options", [{}, {"oracle": False, "attempts": 3}])
async def test_the_protocol_is_kept(options: dict[str, object]) -> None:
    findings = [finding async for finding in check(find("retry"), options)]
    assert all(finding.passed for finding in findings), [finding for finding in findings if not finding.passed]


def test_an_answer_is_right_wrong_or_none_and_a_right_one_ends_the_episode() -> None:
    retry = make()
    assert retry.reset(TASK) == "12 + 5 - 3 ="
    results = [retry.step(answer) for answer in ("fourteen", "13", "The answer is 14.")]
    assert [(result.reward, result.done) for result in results] == [(-1.0, False), (0.0, False), (1.0, True)]
    assert results[1].observation == "The answer is incorrect. Please try again. Here is the question: 12 + 5 - 3 ="
    assert retry.success(0.0), "what was wrong before takes nothing off"


def test_without_an_oracle_every_answer_is_called_wrong_until_the_attempts_are_used_up() -> None:
    retry = make(oracle=False, attempts=3)
    retry.reset(TASK)
    results = [retry.step(answer) for answer in ("14", "13", "14")]
    assert [result.done for result in results] == [False, False, True] and len({result.observation for result in results}) == 1
    assert retry.success(2.0)
    retry.reset(TASK)
    assert [retry.step("1").done for _ in range(3)][-1] and not retry.success(0.0)


@settings(max_examples=25)
@given(st.integers(2, 4), st.integers(2, 30), st.integers(0, 3))
def test_splits_share_no_problem(terms: int, largest: int, seed: int) -> None:
    retry = make(terms=terms, largest=largest, seed=seed)
    ids = [task.id for split in SPLITS for task in retry.tasks(split)]
    assert ids and len(ids) == len(set(ids))
