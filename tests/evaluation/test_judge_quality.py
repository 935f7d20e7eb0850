"""Planted errors do harm where they say, and a critic's precision and recall are counted against them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentloop.critic import FirstError
from agentloop.environment.base import Environment, StepResult, Task
from agentloop.evaluation.judge_quality import JudgeQuality, judge_quality
from agentloop.evaluation.planted import OtherActions, Planter, planted_error
from agentloop.trace.episode import ended, succeeded
from agentloop.trace.tree import Tree, Verdict
from agentloop.trace.verdict import BAD, GOOD, UNCERTAIN, steps
from tests.critic.world import grow, judged, latest
from tests.sampling.world import pool_of

CODE = ("g1", "g2", "g3", "g4")
GAMES = [grow(CODE, rewards=[1.0], id=f"000/trees/t{number}", task=f"t{number}", seed=number) for number in range(6)]
LOST = grow(["g1", "b2", "g3", "g4"], id="000/trees/lost", task="lost")


class Buttons(Environment):
    """Press the buttons in order; a wrong one is not forgiven, and nothing shows it before the end. One button has two names."""

    def tasks(self, split: str) -> list[Task]:
        return []

    def reset(self, task: Task) -> str:
        self.pressed: list[str] = []
        return "a door"

    def step(self, action: str) -> StepResult:
        self.pressed.append("g2" if action == "g2 too" else action)
        over = len(self.pressed) == len(CODE)
        return StepResult(f"saw {action}", float(over and tuple(self.pressed) == CODE), over)


async def plant(trees: Sequence[Tree], harm: Any, environment: type[Environment] = Buttons, **options: Any) -> tuple[list[Tree], Planter]:
    async with pool_of(environment) as pool:
        planter = Planter(pool, harm, **options)
        return [tree async for tree in planter.plant(trees)], planter


def oracle(prompt: str) -> str:
    """Knows the code."""
    return f"Judgement: {GOOD if latest(prompt) in CODE and f'step {CODE.index(latest(prompt)) + 1}:' in prompt else BAD}"


async def quality(script: Callable[[str], str], **options: Any) -> JudgeQuality:
    trees, _ = await plant(GAMES, OtherActions(("b1", *CODE)), errors=2)
    return judge_quality([await judged(tree, FirstError(paths="all"), script) for tree in trees], **options)


async def test_a_planted_episode_is_the_successful_one_up_to_the_error_and_fails() -> None:
    trees, planter = await plant([*GAMES, LOST], OtherActions.of([*GAMES, LOST]), errors=3)
    assert len(trees) == 6 and planter.report.clean == 6 and planter.report.planted == 18
    places = set()
    for tree in trees:
        clean, *planted = ended(tree)
        assert succeeded(clean) and planted_error(tree, clean.id) is None and len(planted) == 3
        for leaf in planted:
            assert not leaf.success and leaf.done
            error = planted_error(tree, leaf.id)
            assert error is not None
            path = steps(tree, leaf.id)
            place = path.index(error)
            places.add(place)
            assert path[:place] == steps(tree, clean.id)[:place] and error.text != CODE[place]
            assert [turn.text for turn in path[place + 1 :]] == list(CODE[place + 1 :])
            assert all(turn.authored and turn.completion_ids == () for turn in path[place:])
    assert places == {0, 1, 2, 3}
    again, _ = await plant([*GAMES, LOST], OtherActions.of([*GAMES, LOST]), errors=3)
    assert again == trees


async def test_a_replacement_that_does_no_harm_is_not_planted() -> None:
    def harm(tree: Tree, path: Sequence[Any], index: int, chance: Any) -> list[str]:
        return ["g2 too"] if index == 1 else []

    trees, planter = await plant(GAMES[:1], harm)
    assert trees == [] and planter.report.harmless == 1


async def test_an_environment_that_does_not_repeat_itself_is_left_out() -> None:
    class Changed(Buttons):
        def reset(self, task: Task) -> str:
            return super().reset(task) + " that was moved"

    trees, planter = await plant(GAMES, OtherActions(("b1",)), Changed)
    assert trees == [] and planter.report.diverged == 6


async def test_an_oracle_is_perfect() -> None:
    found = await quality(oracle)
    assert found.precision is not None and found.recall is not None and found.false_alarms is not None
    assert (found.precision.value, found.recall.value, found.false_alarms.value) == (1.0, 1.0, 0.0)
    assert (found.planted, found.clean, found.unwalked, found.offsets) == (12, 6, 0, {0: 12})
    assert found.recall.tasks == 6 and found.recall.low is not None and 0.5 < found.recall.low < 1.0
    assert found.in_words().startswith("precision 1.00 [0.")


async def test_a_judge_that_finds_nothing_has_no_precision() -> None:
    found = await quality(lambda prompt: f"Judgement: {UNCERTAIN}")
    assert found.precision is None and found.recall is not None and found.recall.value == 0.0
    assert found.offsets == {"none": 12} and found.in_words().startswith("precision –, recall 0.00 [0.00, ")


async def test_a_judge_that_always_cries_is_right_by_luck_only() -> None:
    found = await quality(lambda prompt: f"Judgement: {BAD}")
    assert found.false_alarms is not None and found.false_alarms.value == 1.0
    hits = found.offsets.get(0, 0)
    assert 0 < hits < 12 and found.precision is not None and found.recall is not None
    assert found.recall.value == pytest.approx(hits / 12) and found.precision.value == pytest.approx(hits / 18)
    near = await quality(lambda prompt: f"Judgement: {BAD}", tolerance=1)
    assert near.recall is not None and near.recall.value > found.recall.value


async def test_what_was_not_walked_counts_for_nothing_but_itself() -> None:
    trees, _ = await plant(GAMES[:2], OtherActions(("b1",)))
    found = judge_quality([await judged(trees[0], FirstError(), oracle), trees[1]])
    # Of the judged tree only the failed episode was walked, but the clean one shares steps that come before the error.
    assert found.planted == 1 and found.unwalked >= 2 and found.clean <= 1


@given(data=st.data())
async def test_any_verdicts_against_plain_counting(data: st.DataObject) -> None:
    trees, _ = await plant(GAMES[:3], OtherActions(("b1", *CODE)), errors=2)
    flagged = hits = planted = alarms = clean = 0
    said = []
    for tree in trees:
        labels = {turn.id: data.draw(st.sampled_from([GOOD, BAD, UNCERTAIN])) for turn in tree.turns}
        said.append(tree.with_verdicts([Verdict("first_error", turn, None, label) for turn, label in labels.items()]))
        for leaf in ended(tree):
            path = tree.path(leaf.id)
            error = next((turn for turn in path if labels[turn.id] == BAD), None)
            truth = [turn for turn in path if turn.info.get("planted")]
            flagged += error is not None
            planted += bool(truth)
            clean += not truth
            hits += bool(truth) and error is truth[0]
            alarms += not truth and error is not None
    found = judge_quality(said)
    assert (found.planted, found.clean, found.unwalked) == (planted, clean, 0)
    assert found.recall is not None and found.recall.value == pytest.approx(hits / planted)
    assert (found.precision.value if found.precision else None) == (pytest.approx(hits / flagged) if flagged else None)
    assert found.false_alarms is not None and found.false_alarms.value == pytest.approx(alarms / clean)


def test_the_critic_does_not_see_the_truth() -> None:
    """The mark is in `info`, which no question shows."""
    tree = grow(["g1"], rewards=[0.0])
    marked = replace(tree, turns=(replace(tree.turns[0], info={"planted": True}),))
    (one,), (other,) = (list(FirstError().questions(each)) for each in (tree, marked))
    assert one.write(None) == other.write(None)
