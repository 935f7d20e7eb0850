"""A scoring model's value of a turn: what it reads, and how its number becomes one between 0 and 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentloop.critic.progress import JudgeProgress
from agentloop.critic.scored_value import ScoredValue, logistic
from agentloop.critic.scoring import Score
from agentloop.trace.ledger import Ledger
from agentloop.trace.template import Message
from tests.critic.world import grow

TREE = grow(["a", "b"], ["a", "cc"])


class Fixed:
    """Says the same of every chat; remembers them."""

    name = "fixed"

    def __init__(self, score: Score) -> None:
        self.score_of_all = score
        self.chats: list[list[object]] = []

    async def score(self, chats: Sequence[Sequence[Message]]) -> list[Score]:
        self.chats += [[message.content for message in chat] for chat in chats]
        return [self.score_of_all for _ in chats]


async def test_a_reward_becomes_the_probability_of_being_preferred_to_none() -> None:
    scorer = Fixed(Score(-2.0, tokens=7, left_out=1))
    progress = JudgeProgress("trees", 0)
    verdict, turns = await ScoredValue(scorer, role="reward", stage="trees", progress=progress)(TREE, "1.1", seed=3)
    assert verdict.value == pytest.approx(1 / (1 + math.exp(2.0)))
    assert (verdict.critic, verdict.turn, verdict.label, verdict.stage) == ("estimate", "1.1", None, "trees")
    (turn,) = turns
    assert (turn.id, turn.parent, turn.text, turn.role, turn.foreign) == ("1.1/trees.0.0", "1.1", "-2", "reward", True)
    assert scorer.chats == [["Do the right thing.\n\na door", "a", "saw a", "cc"]]
    assert (progress.asked, progress.prompt, progress.shortened) == (1, 7, 1)
    assert Ledger.of_trees([TREE.with_verdicts([verdict], turns)], "trees").total(role="reward").judged == 7


async def test_a_classifiers_score_is_a_probability_already() -> None:
    verdict, _ = await ScoredValue(Fixed(Score(0.25, label="bad")))(TREE, "0.0", seed=3)
    assert (verdict.value, verdict.label) == (0.25, "bad")


async def test_a_candidate_that_has_not_acted_ends_the_chat() -> None:
    candidate = replace(TREE["0.1"], action=None, observation=None, done=False, success=None)
    tree = replace(TREE, turns=(TREE["0.0"], candidate))
    scorer = Fixed(Score(0.0))
    await ScoredValue(scorer)(tree, "0.1", seed=3)
    assert scorer.chats[0][1:] == ["a", "saw a", "b"]


@given(one=st.floats(-1e6, 1e6), other=st.floats(-1e6, 1e6))
def test_the_order_of_rewards_is_kept_and_none_overflows(one: float, other: float) -> None:
    assert 0.0 <= logistic(one) <= 1.0 and logistic(one) + logistic(-one) == pytest.approx(1.0)
    assert (one <= other) <= (logistic(one) <= logistic(other))
