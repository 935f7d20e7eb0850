"""A value for a search: one turn at a time, between 0 and 1."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentloop.critic import AskSettings
from agentloop.critic.value import ValueCritic
from agentloop.engine.base import EngineFailure
from agentloop.trace.verdict import UNPARSABLE
from tests.critic.world import Judge, grow, respondent

TREE = grow(["a", "b", "c"])


async def test_the_value_is_the_scores_place_between_the_lowest_and_the_highest() -> None:
    engine = Judge(lambda prompt: "Score: 4")
    verdict, turns = await ValueCritic(respondent(engine), scale=5, stage="trees")(TREE, "0.1", seed=9)
    assert (verdict.critic, verdict.turn, verdict.value, verdict.label, verdict.stage) == ("value", "0.1", 0.75, "4", "trees")
    assert verdict.turns == tuple(turn.id for turn in turns) == ("0.1/trees.0.0",)
    prompt = "".join(map(chr, engine.requests[0].prompt_ids))
    assert "> b\nWhat came back:\n> saw b" in prompt and "> c" not in prompt
    TREE.with_verdicts([verdict], turns)


async def test_a_candidate_that_has_not_acted_is_shown_as_such() -> None:
    engine = Judge(lambda prompt: "Score: 1")
    tree = replace(TREE, turns=(*TREE.turns[:2], replace(TREE.turns[2], observation=None, done=False)))
    verdict, _ = await ValueCritic(respondent(engine))(tree, "0.2", seed=9)
    assert verdict.value == 0.0
    prompt = "".join(map(chr, engine.requests[0].prompt_ids))
    assert prompt.count("What came back:") == 2 and "nothing came back yet:\n> c\n" in prompt


async def test_the_searchs_seed_decides_and_votes_are_averaged() -> None:
    async def ask(seed: int) -> tuple[list[int | None], float | None]:
        engine = Judge(lambda prompt: "Score: 2" if len(engine.requests) % 2 else "Score: 4")
        verdict, _ = await ValueCritic(respondent(engine), AskSettings(votes=2, temperature=1.0), scale=5)(TREE, "0.0", seed=seed)
        return [request.seed for request in engine.requests], verdict.value

    assert await ask(1) == await ask(1)
    assert (await ask(1))[0] != (await ask(2))[0] and (await ask(1))[1] == pytest.approx(0.5)


async def test_a_judge_that_gives_way_is_a_failure_and_no_value() -> None:
    with pytest.raises(EngineFailure, match="do not fit") as caught:
        await ValueCritic(respondent(Judge(lambda prompt: "", max_model_len=50)))(TREE, "0.0", seed=1)
    assert caught.value.kind == "context"


def test_the_form_reads_no_other_scores() -> None:
    from agentloop.critic.value import Value

    form = Value("t").form
    assert [form.read(f"Score: {score}") for score in ("1", "10", "11", "0.5")] == ["1", "10", None, None]
    assert UNPARSABLE not in form.labels
