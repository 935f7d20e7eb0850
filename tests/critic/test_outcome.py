"""Outcome: the environment's own word as a verdict."""

from __future__ import annotations

from dataclasses import replace

from agentloop.critic import OutcomeJudge
from agentloop.trace.tree import Failure
from tests.critic.world import grow, verdicts


async def test_return_and_ending_of_every_episode() -> None:
    tree = grow(["a", "b"], ["a", "c"], ["d"], rewards=[1.0, 0.5, 0.25], cut=[2])
    found = (await OutcomeJudge(stage="o").judge(tree)).tree
    assert verdicts(found) == {"0.1": (1.0, "success"), "1.1": (0.5, "failure"), "2.0": (0.25, "cut")}
    assert {verdict.stage for verdict in found.verdicts} == {"o"} and found.turns == tree.turns


async def test_what_broke_or_merely_stopped_is_no_outcome() -> None:
    tree = grow(["a"], ["b"], ["c"])
    turns = (tree.turns[0], replace(tree.turns[1], done=False), tree.turns[2])
    tree = replace(tree, turns=turns, failures=(Failure("environment.step", "gone", 2, "2.0"),))
    assert verdicts((await OutcomeJudge().judge(tree)).tree) == {"0.0": (0.0, "failure")}
