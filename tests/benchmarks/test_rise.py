"""What the benchmark of RISE counts, and that the player whom its policy imitates plays the environment's game."""

from __future__ import annotations

import random

from agentloop import Task
from agentloop.environment.registry import find
from agentloop.evaluation.intervals import Cluster
from benchmarks.retry_policy import LARGEST, RIGHT, TURNS, play  # needs torch
from benchmarks.rise import majority, metrics, pooled

FIRST = [("3", True), ("4", False), ("4", False), ("3", True), ("5", False)]
SECOND = [("4", False), ("4", False), ("3", True), ("4", False), ("3", True)]


def test_a_majority_is_of_answers_and_the_earliest_of_equals() -> None:
    assert majority(FIRST), "3 and 4 were said twice, 3 first"
    assert not majority(SECOND) and not majority(SECOND[:2])


def test_every_turn_the_vote_and_any_right_answer_are_counted_by_task() -> None:
    found = metrics({"a": [FIRST, SECOND]})
    assert [found[f"turn {turn}"]["a"] for turn in (1, 2, 3)] == [Cluster(2, 1), Cluster(2, 0), Cluster(2, 1)]
    assert found["m1@t5"]["a"] == Cluster(2, 1) and found["p1@t5"]["a"] == Cluster(2, 2)
    assert found["m5@t1"]["a"] == Cluster(1, 1.0), "of the first answers 3 and 4 the earlier one"
    assert found["same as the answer before"]["a"] == Cluster(2, 1)
    assert pooled([found, found])["p1@t5"]["a"] == Cluster(4, 4)


def test_the_player_is_as_good_on_the_last_turn_as_on_the_first_in_the_words_of_the_environment() -> None:
    generator = random.Random(1)
    retry = find("retry").make(terms=2, largest=LARGEST, oracle=False, attempts=TURNS)
    right = [0] * TURNS
    for _ in range(2000):
        said = play(generator, TURNS)
        first, sign, second, _equals = said[0][0].split()
        observation = retry.reset(Task("t", {"numbers": [int(first), int(sign + second)]}))
        for turn, (seen, answer) in enumerate(said):
            assert seen == observation
            result = retry.step(answer)
            observation = result.observation
            right[turn] += result.reward == 1.0
    assert all(abs(count / 2000 - RIGHT) < 0.05 for count in right), right
