"""Rows with advantages: which ids get which, what is compared, and what is left out and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentloop.dataset.advantage import Settings, build
from agentloop.dataset.build_report import BuildReport
from agentloop.dataset.relative import advantages
from agentloop.dataset.row import Row
from agentloop.errors import Mistake
from agentloop.trace.tree import Draw, Tree, Turn, Verdict
from tests.dataset.grown_trees import bushy_trees
from tests.dataset.handmade_trees import episode, tree


def rows_of(*trees: Tree, report: BuildReport | None = None, **settings: Any) -> list[Row]:
    return list(build(trees, Settings(**settings), report=report, stage="rows", iteration=2))


def advantage(row: Row) -> float:
    """The one advantage of a row whose masked ids all have the same."""
    (value,) = {a for a, m in zip(row.advantages or (), row.mask, strict=True) if m}
    return value


def group(*rewards: float, task: str = "t") -> Tree:
    return tree(task, *(episode(sample, [[sample + 1], [7]], reward=reward) for sample, reward in enumerate(rewards)))


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=6))
def test_every_sampled_id_has_its_episodes_advantage_and_no_other_id_has_any(rewards: list[float]) -> None:
    rows, expected = rows_of(group(*rewards)), advantages(rewards)
    assert len(rows) == (len(rewards) if any(expected) else 0)
    for row, value, reward in zip(rows, expected, rewards, strict=False):
        assert row.logprobs is not None and row.advantages is not None and row.reward == reward
        assert row.advantages == tuple(value if trains else 0.0 for trains in row.mask)
        assert sum(row.mask) == 4 and not any(p for p, trains in zip(row.logprobs, row.mask, strict=True) if not trains)
        assert row.provenance.stage == "rows" and row.provenance.iteration == 2 and len(row.provenance.turns) == 2


def test_groups_without_variance_are_left_out_and_counted() -> None:
    report = BuildReport()
    rows = rows_of(group(1.0, 0.0, task="a"), group(1.0, 1.0, task="b"), group(0.0, 0.0, task="c"), report=report)
    assert {row.task for row in rows} == {"a"}
    assert report.left_out == {"groups without variance": 2} and report.group_means == [0.5, 1.0, 0.0]
    assert len(rows_of(group(1.0, 1.0), drop_equal=False)) == 2


def test_groups_of_the_widest_spread_are_kept() -> None:
    """SPEAR step 2: three quarters of the groups, by standard deviation; the baseline's means are those of what was kept."""
    report = BuildReport()
    trees = [group(1.0, 0.0, task="a"), group(1.0, 1.0, task="b"), group(1.0, 0.9, task="c"), group(0.0, 0.9, task="d")]
    rows = rows_of(*trees, keep_groups=0.5, report=report)
    assert {row.task for row in rows} == {"a", "d"}
    assert report.left_out == {"groups of narrow spread": 2} and report.group_means == pytest.approx([0.5, 0.45])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"baseline": "group"}, [0.5, -0.5, 0.25, -0.25]),
        ({"baseline": "leave_one_out"}, [1.0, -1.0, 0.5, -0.5]),
        ({"baseline": "batch"}, [0.375, -0.625, 0.375, -0.125]),
        ({"baseline": "role"}, [0.375, -0.625, 0.375, -0.125]),
        ({"baseline": "none"}, [1.0, 0.0, 1.0, 0.5]),
    ],
)
def test_what_episodes_are_compared_with(settings: dict[str, Any], expected: list[float]) -> None:
    rows = rows_of(group(1.0, 0.0, task="a"), group(1.0, 0.5, task="b"), normalise=False, **settings)
    assert [advantage(row) for row in rows] == pytest.approx(expected)


def with_role(turns: Sequence[Turn], role: str) -> list[Turn]:
    return [replace(turn, role=role) for turn in turns]


def test_roles_have_baselines_of_their_own() -> None:
    """Self-play: each role is compared with itself, however unequal the game."""
    attacker = tree("a", with_role(episode(0, [[1]], reward=0.2), "attacker"), with_role(episode(1, [[2]], reward=0.0), "attacker"))
    defender = tree("d", with_role(episode(0, [[1]], reward=1.0), "defender"), with_role(episode(1, [[2]], reward=0.8), "defender"))
    rows = rows_of(attacker, defender, baseline="role", normalise=False)
    assert [(row.role, advantage(row)) for row in rows] == [
        ("attacker", pytest.approx(0.1)),
        ("attacker", pytest.approx(-0.1)),
        ("defender", pytest.approx(0.1)),
        ("defender", pytest.approx(-0.1)),
    ]
    assert {row.role for row in rows_of(attacker, defender, role="defender")} == {"defender"}


def test_turns_have_the_discounted_return_from_there_on() -> None:
    rows = rows_of(group(1.0, 0.0), credit="turn", discount=0.5, normalise=False)
    first, second = rows[0], rows[1]
    assert [a for a, m in zip(first.advantages or (), first.mask, strict=True) if m] == pytest.approx([0.25, 0.25, 0.5, 0.5])
    assert [a for a, m in zip(second.advantages or (), second.mask, strict=True) if m] == pytest.approx([-0.25, -0.25, -0.5, -0.5])


def branching() -> Tree:
    """One first turn with two endings, won and lost, and another first turn that lost."""
    won = episode(0, [[1], [2]], reward=1.0)
    lost = replace(episode(1, [[1], [3]], reward=0.0)[1], id="1.1", parent="0.0", extends="0.0")
    return tree("t", won, [lost], episode(2, [[4]], reward=0.0))


def test_siblings_are_compared_where_they_part_and_shared_turns_train_once() -> None:
    rows = rows_of(branching(), credit="siblings", normalise=False)
    by_turns = {row.provenance.turns: row for row in rows}
    assert set(by_turns) == {("0.0", "0.1"), ("1.1",), ("2.0",)}
    found = by_turns["0.0", "0.1"]
    assert [a for a, m in zip(found.advantages or (), found.mask, strict=True) if m] == pytest.approx([0.25, 0.25, 0.5, 0.5])
    assert advantage(by_turns["1.1",]) == pytest.approx(-0.5) and advantage(by_turns["2.0",]) == pytest.approx(-0.25)
    assert by_turns["1.1",].provenance.context == ("0.0",)
    with pytest.raises(Mistake, match="compares siblings"):
        Settings(credit="siblings", baseline="batch")


def test_a_turn_that_episodes_share_has_the_mean_of_their_advantages() -> None:
    found = next(row for row in rows_of(branching(), normalise=False) if row.provenance.turns == ("0.0", "0.1"))
    each = advantages([1.0, 0.0, 0.0], normalise=False)
    shared, own = fmean(each[:2]), each[0]
    assert [a for a, m in zip(found.advantages or (), found.mask, strict=True) if m] == pytest.approx([shared, shared, own, own])


def judged(grown: Tree, critic: str, **values: float) -> Tree:
    return grown.with_verdicts([Verdict(critic, turn.replace("_", "."), value) for turn, value in values.items()])


def test_verdicts_are_rewards_of_the_turns_that_they_judge() -> None:
    grown = judged(group(1.0, 1.0), "style", **{"0_1": 1.0, "1_0": 0.5})
    rows = rows_of(grown, verdicts={"style": 0.4}, normalise=False)
    assert [row.reward for row in rows] == pytest.approx([1.4, 1.2])
    assert [advantage(row) for row in rows] == pytest.approx([0.1, -0.1])
    assert rows[0].provenance.verdicts == ("style",)
    stepwise = rows_of(grown, verdicts={"style": 0.4}, credit="turn", normalise=False)
    assert [a for a, m in zip(stepwise[0].advantages or (), stepwise[0].mask, strict=True) if m] == pytest.approx([0.1, 0.1, 0.2, 0.2])


def test_channels_apart_are_each_compared_before_they_are_weighted() -> None:
    """B7: a critic of wide spread decides a raw sum, and has its weight's share where channels are apart."""
    grown = judged(group(1.0, 0.0, 1.0, 0.0), "length", **{"0_1": -40.0, "1_1": -10.0, "2_1": 30.0, "3_1": 20.0})
    together, apart = BuildReport(), BuildReport()
    first, second = rows_of(grown, verdicts={"length": 0.5}, report=together)[:2]
    assert advantage(first) < advantage(second), "the sum prefers a failure"
    rows = rows_of(grown, verdicts={"length": 0.5}, channels="apart", report=apart)
    expected = [
        solved + 0.5 * length
        for solved, length in zip(advantages([1.0, 0.0, 1.0, 0.0]), advantages([-40.0, -10.0, 30.0, 20.0]), strict=True)
    ]
    assert [advantage(row) for row in rows] == pytest.approx(expected)
    assert set(together.channels) == {"sum"} and apart.channels["reward"] > 1.5 * apart.channels["length"]


@pytest.mark.parametrize(("turns", "counted"), [(3, 3), (14, 10)])
def test_the_tool_reward_is_spears(turns: int, counted: int) -> None:
    """R = R_outcome + mu * min(1, 0.1 n), with n the turns that acted without an error."""
    mu = 0.6
    long, short = episode(0, [[k] for k in range(1, turns + 1)], reward=1.0), episode(1, [[1]], reward=1.0)
    failed = [replace(short[0], info={"errors": {"malformed": 1}})]
    rows = rows_of(tree("t", long, failed), tool_reward=0.1 * mu, normalise=False)
    assert rows[0].reward == pytest.approx(1.0 + mu * min(1.0, 0.1 * turns)) == pytest.approx(1.0 + mu * 0.1 * counted)
    assert rows[1].reward == pytest.approx(1.0)


def test_what_was_cut_short_or_repeats_itself_is_compared_but_does_not_train() -> None:
    cut = [replace(turn, truncated="turns", done=False) if turn.id == "1.1" else turn for turn in episode(1, [[1], [2]], reward=0.0)]
    stutter = episode(2, [[5] * 40], reward=0.0)
    grown, report = tree("t", episode(0, [[1], [2]]), cut, stutter), BuildReport()
    rows = rows_of(grown, normalise=False, drop_truncated=True, drop_repetitive=True, report=report)
    assert [row.provenance.turns for row in rows] == [("0.0", "0.1")] and advantage(rows[0]) == pytest.approx(1 - 1 / 3)
    assert report.left_out == {"episodes that were cut short": 1, "episodes that repeat themselves": 1}
    assert len(rows_of(grown)) == 3


def drawn(turns: Sequence[Turn], at: int, **changes: Any) -> list[Turn]:
    return [replace(turn, draw=replace(turn.draw, **changes)) if k == at else turn for k, turn in enumerate(turns)]


@pytest.mark.parametrize(
    "changes",
    [{"kind": "uct"}, {"kind": "deduplicated", "copies": 3}, {"kind": "beam"}, {"top_p": 0.9}, {"top_k": 5}, {"temperature": 0.0}],
)
def test_turns_without_an_importance_ratio_stay_in_the_context_only(changes: dict[str, Any]) -> None:
    report = BuildReport()
    grown = tree("t", drawn(episode(0, [[1], [2]]), 0, **changes), drawn(episode(1, [[3], [4]], reward=0.0), 1, **changes))
    first, second = rows_of(grown, report=report)
    assert first.provenance.turns == ("0.1",) and first.provenance.context == ("0.0",) and first.logprobs is not None
    assert second.provenance.turns == ("1.0",) and len(second.input_ids) < len(first.input_ids), "nothing behind the last trained turn"
    assert report.left_out == {"turns that are no plain draws": 2}


def test_any_draws_train_without_log_probabilities_where_they_are_asked_for() -> None:
    grown = tree("t", drawn(episode(0, [[1], [2]]), 0, kind="uct"), episode(1, [[3]], reward=0.0))
    first, second = rows_of(grown, draws="any")
    assert first.logprobs is None and sum(first.mask) == 4 and second.logprobs is not None


def test_what_nobody_sampled_never_trains() -> None:
    written = [replace(turn, logprobs=None, draw=Draw("", kind="authored"), finish="authored") for turn in episode(0, [[1]])]
    rows = rows_of(tree("t", written, episode(1, [[2]], reward=0.0)), draws="any")
    assert [row.provenance.turns for row in rows] == [("1.0",)] and not rows[0].authored


def test_turns_taken_over_from_another_tree_are_context() -> None:
    given = replace(episode(0, [[1]])[0], done=False, given=True, reward=0.0)
    ways = [
        replace(episode(sample, [[1], [sample + 5]], reward=reward)[1], parent="0.0", extends="0.0")
        for sample, reward in [(1, 1.0), (2, 0.0)]
    ]
    rows = rows_of(tree("t", [given], ways))
    assert [row.provenance.turns for row in rows] == [("1.1",), ("2.1",)]
    assert all(row.provenance.context == ("0.0",) and sum(row.mask) == 2 for row in rows)


@given(bushy_trees("smollm2"), st.sampled_from(["episode", "turn", "siblings"]))
def test_in_any_search_each_turn_trains_once_at_most(grown: Tree, credit: Any) -> None:
    rows = rows_of(grown, credit=credit, drop_equal=False)
    trained = [turn for row in rows for turn in row.provenance.turns]
    assert len(trained) == len(set(trained))
    for row in rows:
        ids = [token for token, trains in zip(row.input_ids, row.mask, strict=True) if trains]
        assert ids == [token for turn in row.provenance.turns for token in grown[turn].completion_ids]
        assert row.input_ids[-1] == grown[row.provenance.turns[-1]].completion_ids[-1]
