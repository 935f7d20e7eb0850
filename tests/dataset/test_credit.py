"""Credit for turns, against sums written out and brute force."""

from __future__ import annotations

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentloop.dataset.credit import returns_to_go, sibling_advantages, subtree_values, turn_advantages
from agentloop.dataset.relative import advantages

step_rewards = st.lists(st.floats(-2, 2), min_size=1, max_size=6)


@given(step_rewards, st.floats(0, 1))
def test_what_follows_a_turn_counts_less_the_later_it_comes(rewards: list[float], discount: float) -> None:
    expected = [sum(reward * discount**later for later, reward in enumerate(rewards[at:])) for at in range(len(rewards))]
    assert returns_to_go(rewards, discount) == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6), st.integers(1, 4))
def test_a_reward_at_the_end_without_a_discount_is_the_advantage_of_the_episode(ends: list[float], turns: int) -> None:
    episodes = [[0.0] * (turns - 1) + [end] for end in ends]
    for found, episode in zip(turn_advantages(episodes, discount=1.0), advantages(ends), strict=True):
        assert found == pytest.approx([episode] * turns, abs=1e-9)


def test_turns_are_compared_with_the_same_turn_of_others() -> None:
    found = turn_advantages([[0.0, 1.0], [1.0], [0.0, 0.0, 0.0]], discount=0.5, normalise=False)
    assert found[0] == pytest.approx([0.5 - 0.5, 1.0 - 0.5])
    assert found[1] == pytest.approx([1.0 - 0.5])
    assert found[2] == pytest.approx([0.0 - 0.5, 0.0 - 0.5, 0.0 - fmean([0.0, 1.0, 0.0])]), "the third turn, alone, against the second"


def test_a_group_of_one_has_no_advantage_in_its_first_turn() -> None:
    assert turn_advantages([[1.0]], discount=1.0) == [[0.0]]
    assert turn_advantages([], discount=1.0) == []


@st.composite
def grown(draw: st.DrawFn) -> tuple[dict[str, str | None], dict[str, float]]:
    """A tree by parents, in any order of growth, whose leaves ended with a return."""
    parents: dict[str, str | None] = {}
    for number in range(draw(st.integers(1, 10))):
        parents[f"n{number}"] = draw(st.sampled_from([None, *parents]))
    leaves = [turn for turn in parents if turn not in parents.values()]
    return parents, {leaf: draw(st.sampled_from([0.0, 0.5, 1.0])) for leaf in leaves}


def above(parents: dict[str, str | None], turn: str) -> set[str]:
    found = {turn}
    while (parent := parents[turn]) is not None:
        found.add(parent)
        turn = parent
    return found


@given(grown())
def test_a_subtree_is_worth_the_mean_of_its_ends(tree: tuple[dict[str, str | None], dict[str, float]]) -> None:
    parents, ends = tree
    values = subtree_values(parents, ends)
    for turn in parents:
        assert values[turn] == pytest.approx(fmean(value for end, value in ends.items() if turn in above(parents, end)))


@given(grown())
def test_siblings_are_compared_among_themselves(tree: tuple[dict[str, str | None], dict[str, float]]) -> None:
    parents, ends = tree
    values, found = subtree_values(parents, ends), sibling_advantages(parents, ends, normalise=False)
    for turn in parents:
        family = [values[other] for other in parents if parents[other] == parents[turn]]
        assert found[turn] == pytest.approx(values[turn] - fmean(family), abs=1e-8)
        assert found[turn] == 0.0 or len(family) > 1


def test_turns_below_which_nothing_ended_have_no_value() -> None:
    parents: dict[str, str | None] = {"a": None, "b": None, "c": "a"}
    assert subtree_values(parents, {"a": 1.0}) == {"a": 1.0}
    assert sibling_advantages(parents, {"a": 1.0}) == {"a": 0.0}


def test_a_flat_tree_of_single_turns_is_a_group() -> None:
    ends = {"a": 1.0, "b": 0.0, "c": 0.0}
    assert list(sibling_advantages(dict.fromkeys(ends), ends).values()) == advantages(list(ends.values()))
