"""Pairwise preference: shares of comparisons won, without the judge's favour for a position."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentloop.critic import Pairwise
from agentloop.critic.base import Answer
from agentloop.trace.verdict import UNPARSABLE
from tests.critic.world import grow, judged, verdicts

ROCK, PAPER, SCISSORS = "rock", "paper", "scissors"
BEATS = {(PAPER, ROCK), (SCISSORS, PAPER), (ROCK, SCISSORS)}


def shown(prompt: str) -> tuple[str, str]:
    """The single action of episode A and of episode B."""
    first, second = (part.split("> ", 1)[1].split("\n", 1)[0] for part in prompt.split("\nEpisode ")[1:])
    return first, second


def by(better: Callable[[str, str], bool]) -> Callable[[str], str]:
    def script(prompt: str) -> str:
        first, second = shown(prompt)
        return f"Better: {'A' if better(first, second) else 'B' if better(second, first) else 'Tie'}"

    return script


@given(strengths=st.lists(st.integers(0, 3), min_size=2, max_size=6))
async def test_the_value_is_the_mean_over_rivals_ties_counting_half(strengths: list[int]) -> None:
    """The reward of SPO, held against its formula."""
    paths = [[f"{strength}-{number}"] for number, strength in enumerate(strengths)]
    found = await judged(grow(*paths), Pairwise(), by(lambda one, other: int(one[0]) > int(other[0])))
    for number, own in enumerate(strengths):
        others = strengths[:number] + strengths[number + 1 :]
        wins = sum(1.0 if own > other else 0.5 if own == other else 0.0 for other in others)
        value, label = verdicts(found)[f"{number}.0"]
        assert value == pytest.approx(wins / len(others)) and label is None


async def test_preferences_may_go_round() -> None:
    found = await judged(grow([ROCK], [PAPER], [SCISSORS]), Pairwise(), by(lambda one, other: (one, other) in BEATS))
    assert {value for value, _ in verdicts(found).values()} == {0.5}


@pytest.mark.parametrize("favourite", ["A", "B"])
async def test_a_judge_that_only_favours_a_position_is_left_with_ties(favourite: str) -> None:
    found = await judged(grow(["a"], ["b"], ["c"]), Pairwise(), lambda prompt: f"Better: {favourite}")
    assert {value for value, _ in verdicts(found).values()} == {0.5}


async def test_both_orders_are_kept_as_turns_of_the_episode_shown_first() -> None:
    found = await judged(grow(["a"], ["b"]), Pairwise(), by(lambda one, other: one < other))
    assert {turn.id: turn.parent for turn in found.leaves(seat="critic")} == {
        "0.0/vs/1.0/judge.0.0": "0.0",
        "1.0/vs/0.0/judge.0.0": "1.0",
    }
    first, second = found.verdicts
    assert (first.value, second.value) == (1.0, 0.0)
    assert first.turns == second.turns == ("0.0/vs/1.0/judge.0.0", "1.0/vs/0.0/judge.0.0")


async def test_episodes_that_did_the_same_are_a_tie_and_nobody_is_asked() -> None:
    tree = grow(["a"], ["b"])
    first, second = tree.turns
    tree = replace(tree, turns=(first, replace(second, text=first.text, observation=first.observation)))
    found = await judged(tree, Pairwise(), lambda prompt: pytest.fail("asked"))
    assert verdicts(found) == {"0.0": (0.5, None), "1.0": (0.5, None)}


def test_a_comparison_with_an_unreadable_order_is_left_out() -> None:
    tree = grow(["a"], ["b"], ["c"])
    read, unread = [Answer("A", ())], [Answer(None, ())]
    answers = {f"{one}.0/vs/{other}.0": unread if "2" in (one, other) else read for one in "012" for other in "012" if one != other}
    answers["0.0/vs/1.0"], answers["1.0/vs/0.0"] = [Answer("A", ())], [Answer("B", ())]
    said = {verdict.turn: (verdict.value, verdict.label) for verdict in Pairwise().verdicts(tree, answers)}
    assert said["0.0"] == (1.0, None) and said["1.0"] == (0.0, None)
    assert "2.0" not in said or said["2.0"] == (None, UNPARSABLE)


@given(episodes=st.integers(2, 9), rivals=st.integers(1, 9), seed=st.integers(0, 99))
def test_each_episode_meets_as_many_rivals_as_asked_for(episodes: int, rivals: int, seed: int) -> None:
    tree = grow(*([f"e{number}"] for number in range(episodes)), seed=seed)
    pairs = list(Pairwise(rivals=rivals).pairs(tree))
    met = Counter(leaf.id for pair in pairs for leaf in pair)
    most = min(rivals + rivals % 2, episodes - 1)
    assert len({frozenset((one.id, other.id)) for one, other in pairs}) == len(pairs)
    assert set(met.values()) <= {min(rivals, episodes - 1), most} and len(met) == episodes
    assert pairs == list(Pairwise(rivals=rivals).pairs(tree))
