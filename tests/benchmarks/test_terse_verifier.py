"""The verifier of the Agent-R benchmark: without a mistake, held against the environment itself, and readable by the critic."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentloop.critic import FirstError
from agentloop.critic.base import Question
from agentloop.engine.chat import ChatServer
from agentloop.environment.registry import find
from agentloop.trace.tree import Tree, Turn
from benchmarks.terse_verifier import judgement, serving
from tests.dataset.handmade_trees import episode, tree


def played(actions: list[str], task: int) -> Tree:
    """An episode of the terse calculator that was lost, whatever was said in it."""
    environment = find("calculator").make(terse=True, levels=[2, 3])
    chosen = environment.tasks("train")[task]
    first = environment.reset(chosen)
    turns: list[Turn] = []
    for action, turn in zip(actions, episode(0, [[1]] * len(actions), reward=0.0), strict=True):
        turns.append(replace(turn, text=action, action=action, observation=environment.step(action).observation, success=False))
    return replace(tree(chosen.id, turns), first_observation=first)


def labels(actions: list[str], task: int) -> list[str]:
    """What the verifier says of each step."""
    grown = played(actions, task)
    critic = FirstError()
    question: Question = next(iter(critic.questions(grown)))
    found = [judgement(question.write(None))]
    for _ in actions[1:]:
        question = next(iter(critic.after(grown, question, ())))
        found.append(judgement(question.write(None)))
    return found


def demonstration(task: int) -> list[str]:
    environment = find("calculator").make(terse=True, levels=[2, 3])
    return list(environment.demonstration(environment.tasks("train")[task]))


@pytest.mark.parametrize("task", range(0, 40, 7))
def test_it_knows_every_call_of_the_way_and_no_other(task: int) -> None:
    actions = demonstration(task)
    assert set(labels(actions, task)) == {"Good"}
    name = actions[0][:3]
    wrong = actions[0].replace(name, "add" if name != "add" else "sub")
    assert labels([wrong, "oops", *actions[:-1], "77777"], task) == ["Bad", "Uncertain", *["Good"] * (len(actions) - 1), "Bad"]


async def test_it_answers_a_judge_by_http() -> None:
    question = next(iter(FirstError().questions(played(demonstration(0), 0)))).write(None)
    with serving() as url:
        server = ChatServer(url)
        await server.connect()
        answer = await server.complete([{"role": "user", "content": question}], max_tokens=9, temperature=0.0)
        await server.close()
    assert answer.text == "Judgement: Good" and server.name.startswith("terse-verifier at ")


def test_another_question_is_refused() -> None:
    with pytest.raises(ValueError, match="no question about a step"):
        judgement("Is this good?")
