"""Scoring: which chats a scorer reads, and what becomes of its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from agentloop.critic import ScoringJudge
from agentloop.critic.progress import JudgeProgress
from agentloop.critic.scoring import Score
from agentloop.engine.base import EngineFailure
from agentloop.trace.ledger import Ledger
from agentloop.trace.template import Message
from tests.critic.world import grow, verdicts

TREE = grow(["a", "b"], ["a", "cc"])


class Lengths:
    """Scores a chat by the length of its last message; remembers the chats."""

    name = "lengths"

    def __init__(self) -> None:
        self.chats: list[list[tuple[str, object]]] = []

    async def score(self, chats: Sequence[Sequence[Message]]) -> list[Score]:
        self.chats += [[(message.role, message.content) for message in chat] for chat in chats]
        return [Score(float(len(str(chat[-1].content))), tokens=10 * len(chat)) for chat in chats]


async def test_an_episode_is_the_chat_that_ends_with_its_last_action() -> None:
    scorer = Lengths()
    found = (await ScoringJudge(scorer, stage="scored").judge(TREE)).tree
    assert verdicts(found) == {"0.1": (1.0, None), "1.1": (2.0, None)}
    assert scorer.chats[1] == [("user", "Do the right thing.\n\na door"), ("assistant", "a"), ("user", "saw a"), ("assistant", "cc")]


async def test_each_turn_is_scored_once_by_what_came_before_it() -> None:
    scorer = Lengths()
    found = (await ScoringJudge(scorer, each="turn").judge(TREE)).tree
    assert list(verdicts(found)) == ["0.0", "0.1", "1.1"]
    assert [len(chat) for chat in scorer.chats] == [2, 4, 4]


async def test_a_scorers_turn_has_no_ids_and_its_tokens_are_judged() -> None:
    found = (await ScoringJudge(Lengths(), role="reward").judge(TREE)).tree
    for turn in found.leaves(seat="critic"):
        assert turn.foreign and not turn.authored and not turn.draw.has_ratio
        assert (turn.prompt_ids, turn.completion_ids, turn.logprobs, turn.draw.adapter) == ((), (), None, "lengths")
    assert Ledger.of_trees([found], "s").total(role="reward").judged == 80


async def test_a_scorer_that_fails_is_counted_and_gives_no_verdict() -> None:
    class Broken(Lengths):
        async def score(self, chats: Sequence[Sequence[Message]]) -> list[Score]:
            raise EngineFailure("memory", "too large")

    progress = JudgeProgress("scored", 1)
    result = await ScoringJudge(Broken(), progress=progress).judge(TREE)
    assert result.tree == TREE and [failure.kind for failure in result.failures] == ["engine.memory"] * 2
    assert progress.failures == {"engine.memory": 2}


async def test_a_tree_without_an_episode_is_left_as_it_is() -> None:
    tree = grow(["a"])
    empty = type(tree)("t", "t", "e", "train")
    assert (await ScoringJudge(Lengths()).judge(empty)).tree == empty
