"""Attempts: one row an answer behind all before it, its weight, and what is left out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentloop.dataset.attempts import Settings, build
from agentloop.trace.tree import Tree, Turn
from tests.dataset.handmade_trees import STOP, episode, tree

WRONG, RIGHT, NOTHING = 0.0, 1.0, -1.0


def tries(sample: int, *said: tuple[int, float]) -> list[Turn]:
    """An episode of (id that was said, its reward); 0 says nothing."""
    turns = episode(sample, [[word] for word, _ in said])
    return [replace(turn, text=str(word or ""), reward=reward) for turn, (word, reward) in zip(turns, said, strict=True)]


def kept(*trees: Tree, **options: object) -> list[str]:
    return [row.provenance.turns[0] for row in build(trees, Settings(**options))]  # type: ignore[arg-type]


def test_a_row_shows_what_came_before_and_trains_on_one_attempt():
    first, second = build([tree("a", tries(0, (1, WRONG), (2, RIGHT)))], stage="rows", iteration=1)
    assert (first.input_ids, first.mask) == ((100, 0, 1, STOP), (0, 0, 1, 1))
    assert (second.input_ids, second.mask) == ((100, 0, 1, STOP, 101, 0, 2, STOP), (0, 0, 0, 0, 0, 0, 1, 1))
    assert (first.provenance.turns, second.provenance.turns, second.provenance.context) == (("0.0",), ("0.1",), ("0.0",))
    assert (first.reward, second.reward) == (WRONG, RIGHT)


def test_weights_are_those_of_rise():
    rows = list(build([tree("a", tries(0, (1, NOTHING), (2, WRONG), (3, RIGHT)))]))
    assert [row.weight for row in rows] == pytest.approx([0.0821, 1.0, 12.1825], abs=1e-4)


@settings(max_examples=50)
@given(st.lists(st.lists(st.sampled_from([WRONG, NOTHING]), min_size=1, max_size=4), min_size=1, max_size=3), st.floats(0.1, 2.0))
def test_centred_weights_average_one_in_the_logarithm_within_a_task(rewards: list[list[float]], temperature: float):
    trees = [
        tree("a", tries(0, *[(10 * number + place, reward) for place, reward in enumerate(found, 1)]), stage=f"stage-{number}")
        for number, found in enumerate(rewards)
    ]
    rows = list(build(trees, Settings(center=True, temperature=temperature)))
    assert len(rows) == sum(map(len, rewards))
    assert sum(math.log(row.weight) for row in rows) == pytest.approx(0, abs=1e-6)


def test_what_is_empty_said_before_or_behind_a_right_answer_is_left_out():
    assert kept(tree("a", tries(0, (1, WRONG), (0, NOTHING), (1, WRONG), (2, RIGHT), (3, RIGHT)))) == ["0.0", "0.3"]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [("all", ["0.0", "0.1", "0.2", "1.0"]), ("better", ["0.1"]), ("best", ["0.1", "1.0"]), ("success", ["1.0"])],
)
def test_which_attempts_are_kept(keep: str, expected: list[str]):
    grown = tree("a", tries(0, (1, NOTHING), (2, WRONG), (3, NOTHING)), tries(1, (4, RIGHT)))
    assert kept(grown, keep=keep) == expected


def test_of_samples_from_one_point_the_best_is_kept():
    grown = tree("a", tries(0, (1, WRONG)), tries(1, (2, RIGHT)), tries(2, (3, RIGHT)))
    assert kept(grown, siblings="best") == ["1.0"] and len(kept(grown)) == 3
    apart = tree("a", tries(0, (1, WRONG), (5, WRONG)), tries(1, (2, NOTHING), (6, RIGHT)))
    assert kept(apart, siblings="best") == ["0.0", "0.1", "1.1"], "second answers have different points behind them"


def test_what_was_taken_over_is_context_and_counts_as_said():
    first, *others = tries(0, (1, WRONG), (1, WRONG), (2, RIGHT))
    (row,) = build([tree("a", [replace(first, given=True), *others])])
    assert row.provenance.turns == ("0.2",) and sum(row.mask) == 2
