"""Preference pairs: which branches are compared, and that both sides continue one context id by id."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentloop.dataset.preference import Settings, build
from agentloop.dataset.preference_row import PreferenceRow, Side
from agentloop.dataset.preference_schema import PREFERENCES
from agentloop.dataset.row import Provenance
from agentloop.dataset.row_file import open_rows
from agentloop.dataset.store import ParquetPreferences, ParquetRows, content_hash, open_source, write_rows
from agentloop.errors import Mistake
from agentloop.trace.tree import Tree, Turn, Verdict
from tests.dataset.grown_trees import bushy_trees
from tests.dataset.handmade_trees import STOP, episode, tree


def sides(trees: list[Tree], **options: Any) -> list[tuple[str, str]]:
    """(last turn chosen, last turn rejected) of each pair."""
    rows = build(trees, Settings(**options), stage="pairs", iteration=1)
    return [(row.chosen.provenance.turns[-1], row.rejected.provenance.turns[-1]) for row in rows]


def branching() -> list[Turn]:
    """0.0, then 0.1 (return 0) or 1.1, which goes on to 1.2 (return 1) or 2.2 (return 0.5)."""
    first, bad = episode(0, [[1], [2]], reward=0.0)
    good = replace(bad, id="1.1", completion_ids=(3, STOP), done=False)
    ends = [
        replace(bad, id=name, parent="1.1", extends="1.1", completion_ids=(4 + number, STOP), prompt_ids=(102, 0), reward=reward)
        for number, (name, reward) in enumerate([("1.2", 1.0), ("2.2", 0.5)])
    ]
    return [first, bad, good, *ends]


def test_trajectories_are_compared_from_the_turn_at_which_they_part() -> None:
    (row,) = build([tree("a", branching())], Settings(), stage="pairs", iteration=1)
    assert row.prompt_ids == (100, 0, 1, STOP, 101, 0), "the turn that both have is in the prompt"
    assert (row.chosen.ids, row.chosen.mask) == ((3, STOP, 102, 0, 4, STOP), (1, 1, 0, 0, 1, 1))
    assert (row.rejected.ids, row.rejected.mask) == ((2, STOP), (1, 1))
    assert (row.chosen.value, row.rejected.value, row.trained) == (1.0, 0.0, 6)
    assert row.chosen.provenance == Provenance("000/trees/a", ("1.1", "1.2"), (), "pairs", 1, ("0.0",))
    assert row.rejected.provenance == Provenance("000/trees/a", ("0.1",), (), "pairs", 1, ("0.0",))
    assert (row.task, row.role, row.adapter, row.temperature, row.authored) == ("a", "actor", "actor-000-abc", 1.0, False)


def test_sibling_turns_are_compared_by_the_mean_return_below_them() -> None:
    rows = list(build([tree("a", branching())], Settings(unit="turn", pairs=9)))
    found = {(row.chosen.ids, row.rejected.ids, row.chosen.value, row.rejected.value) for row in rows}
    assert found == {((3, STOP), (2, STOP), 0.75, 0.0), ((4, STOP), (5, STOP), 1.0, 0.5)}
    assert rows[0].prompt_ids == (100, 0, 1, STOP, 101, 0)


def test_the_margin_is_exclusive_and_equals_are_no_pair() -> None:
    group = tree("a", episode(0, [[1]], reward=0.0), episode(1, [[2]], reward=0.5), episode(2, [[3]], reward=0.5))
    assert sides([group], pairs=9) == [("1.0", "0.0"), ("2.0", "0.0")]
    assert sides([group], pairs=9, margin=0.5) == []


def test_the_widest_pairs_come_first_and_each_branch_once_before_any_twice() -> None:
    rewards = [1.0, 1.0, 0.0, 0.0, 0.5]
    group = tree("a", *[episode(k, [[k + 1]], reward=reward) for k, reward in enumerate(rewards)])
    assert sides([group], pairs=2) == [("0.0", "3.0"), ("1.0", "2.0")]
    assert len(sides([group], pairs=99)) == 8
    assert len(sides([group, replace(group, id="again")], pairs=3)) == 3, "a task is capped over all its trees"
    assert len(sides([group, replace(group, id="again", task="b")], pairs=3)) == 6


def test_the_better_side_is_no_episode_that_was_cut() -> None:
    cut = {"done": False, "truncated": "turns"}
    group = tree("a", episode(0, [[1]], reward=1.0, **cut), episode(1, [[2]], reward=0.5), episode(2, [[3]], reward=0.0, **cut))
    assert sides([group], pairs=9) == [("1.0", "2.0")]


def test_a_critic_may_order_the_sides() -> None:
    group = tree("a", episode(0, [[1]], reward=1.0), episode(1, [[2]], reward=0.0), episode(2, [[3]], reward=0.0))
    scored = group.with_verdicts(
        [Verdict("rubric", "0.0", 1.0), Verdict("rubric", "1.0", 5.0), Verdict("rubric", "2.0", None, "unparsable")]
    )
    (row,) = build([scored], Settings(by="rubric", pairs=9))
    assert (row.chosen.ids, row.rejected.ids) == ((2, STOP), (1, STOP))
    assert (row.chosen.value, row.chosen.provenance.verdicts) == (5.0, ("rubric",))
    assert sides([scored], by="rubric", unit="turn", pairs=9) == [("1.0", "0.0")]
    assert sides([group], by="rubric") == []


def test_branches_that_say_the_same_are_no_pair() -> None:
    group = tree("a", episode(0, [[1]], reward=1.0), episode(1, [[1]], reward=0.0))
    assert sides([group]) == [] and sides([group], unit="turn") == []


def test_a_context_that_starts_afresh_behind_the_fork_is_no_single_sequence() -> None:
    group = tree("a", episode(0, [[1], [2]], fresh_at={1: "template"}), episode(1, [[3]], reward=0.0))
    assert sides([group]) == []
    assert sides([group], unit="turn") == [("0.0", "1.0")]


def test_sides_with_different_contexts_are_no_pair() -> None:
    other = [replace(turn, prompt_ids=(100, 7)) for turn in episode(1, [[3]], reward=0.0)]
    assert sides([tree("a", episode(0, [[1]]), other)]) == []


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data(), unit=st.sampled_from(["trajectory", "turn"]), margin=st.sampled_from([0.0, 0.3]))
def test_both_sides_are_the_ids_of_their_branch(data: st.DataObject, unit: Any, margin: float) -> None:
    grown = data.draw(bushy_trees("smollm2"))
    rows = list(build([grown], Settings(unit=unit, margin=margin, pairs=99)))
    assert rows == list(build([grown], Settings(unit=unit, margin=margin, pairs=99)))
    assert len({row.id for row in rows}) == len(rows)
    for row in rows:
        assert row.chosen.value - row.rejected.value > margin
        for side in (row.chosen, row.rejected):
            first, last = side.provenance.turns[0], side.provenance.turns[-1]
            assert list(row.prompt_ids) == grown.context_ids(first)
            assert [*row.prompt_ids, *side.ids] == [*grown.context_ids(last), *grown[last].completion_ids]
            own = [token for token, trained in zip(side.ids, side.mask, strict=True) if trained]
            assert own == [token for turn in side.provenance.turns for token in grown[turn].completion_ids]
            assert [*side.provenance.context, *side.provenance.turns] == [turn.id for turn in grown.path(last)]
            if unit == "trajectory":
                assert side.value == grown.episode_return(last) and (grown[last].done or grown[last].truncated)


def pair(number: int) -> PreferenceRow:
    where = Provenance("tree", ("0.1",), ("rubric",), "pairs", 3, ("0.0",))
    better, worse = Side((number, 2), (1, 1), 1.0, where), Side((5,), (1,), -0.5, replace(where, turns=("1.1",)))
    return PreferenceRow(f"pair-{number}", (1, 2, 3), better, worse, "actor", "t", False, "base", 0.7)


def test_pairs_come_back_from_disk_as_they_were(tmp_path: Any) -> None:
    rows = [pair(number) for number in range(5)]
    assert write_rows(tmp_path / "pairs.parquet", rows, form=PREFERENCES, rows_per_group=2) == 5
    source = ParquetPreferences(tmp_path / "pairs.parquet")
    assert len(source) == 5 and list(source) == rows
    assert source.content_hash() == content_hash(reversed(rows), PREFERENCES)
    assert content_hash([*rows[:4], replace(rows[4], weight=2.0)], PREFERENCES) != source.content_hash()
    assert isinstance(open_source(tmp_path / "pairs.parquet"), ParquetPreferences)


def test_one_kind_of_rows_is_not_taken_for_the_other(tmp_path: Any) -> None:
    write_rows(tmp_path / "pairs.parquet", [pair(0)], form=PREFERENCES)
    write_rows(tmp_path / "rows.parquet", [])
    for refuse in (ParquetRows, open_rows):
        with pytest.raises(Mistake, match="holds preference rows; expected rows"):
            refuse(tmp_path / "pairs.parquet")
    with pytest.raises(Mistake, match="holds rows; expected preference rows"):
        ParquetPreferences(tmp_path / "rows.parquet")
    assert isinstance(open_source(tmp_path / "rows.parquet"), ParquetRows)
