"""Self-imitation replay, formula by formula: the median baseline, the recalibrated advantage, how much is replayed, and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentloop.dataset.row import Row
from agentloop.dataset.store import write_rows
from agentloop.training.job import TrainingJob
from agentloop.training.policy_data import PolicyData, load_policy_rows
from agentloop.training.policy_settings import PolicySettings, Replay
from agentloop.training.replay import chosen, quantile, remembered, replay_count, storable
from tests.training.policy_rows import policy_rows

MakeJob = Callable[..., TrainingJob]


def stored(*rewards: float) -> list[Row]:
    """Rows that were better than their group, of these returns."""
    rows = policy_rows(len(rewards), seed=3)
    return [replace(row, reward=reward, advantages=tuple(map(float, row.mask))) for row, reward in zip(rows, rewards, strict=True)]


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=12), st.floats(0, 1))
def test_quantiles_are_numpys(values: list[float], share: float) -> None:
    assert quantile(values, share) == pytest.approx(float(numpy.quantile(values, share)), abs=1e-9)


def test_the_baseline_forgets_whole_iterations_the_oldest_first() -> None:
    """D_R: before an iteration is added, others are dropped while there are more than D_R means."""
    steps = [[0.1] * 4, [0.2] * 4, [0.3] * 4, [0.4] * 4]
    assert remembered(steps, 100) == [0.1] * 4 + [0.2] * 4 + [0.3] * 4 + [0.4] * 4
    assert remembered(steps, 5) == [0.3] * 4 + [0.4] * 4
    assert remembered([], 5) == []


@pytest.mark.parametrize(
    ("available", "most", "count"), [(0, 9, 0), (1, 9, 0), (2, 9, 2), (7, 9, 4), (8, 9, 8), (100, 32, 32), (33, 40, 32)]
)
def test_how_many_are_replayed_is_a_power_of_two(available: int, most: int, count: int) -> None:
    """min(2 ** floor(log2 n), B)."""
    assert replay_count(available, most) == count


def test_only_what_was_better_than_its_group_is_stored() -> None:
    row = stored(1.0)[0]
    assert storable(row) and not storable(replace(row, advantages=tuple(-a for a in row.advantages or ())))
    assert not storable(replace(row, advantages=None))


def test_nothing_is_replayed_until_the_store_holds_one_and_a_half_times_enough() -> None:
    """More than 1.5 B rows above the median: 6 of them for B = 4 are not enough, 7 are."""
    settings = Replay(group_means=((0.0, 0.5, 1.0),), size=4)
    assert chosen(stored(*[1.0] * 6, 0.5, 0.2), settings, seed="s") == ([], None)
    rows, baseline = chosen(stored(*[1.0] * 7, 0.5, 0.2), settings, seed="s")
    assert baseline == 0.5 and len(rows) == 4 and all(row.reward >= 0.5 for row in rows)


def test_the_median_rises_with_the_policy_and_old_poor_wins_drop_out() -> None:
    """Recalibration: what was a win among failures is none once half of the groups do better."""
    rows = stored(*[0.4] * 8, *[1.0] * 8)
    early = chosen(rows, Replay(group_means=((0.1, 0.2, 0.3),), size=16, least=0.0), seed="s")
    late = chosen(rows, Replay(group_means=((0.1, 0.2, 0.3), (0.6, 0.7, 0.8), (0.8, 0.9, 0.9)), size=16, least=0.0), seed="s")
    assert early[1] == pytest.approx(0.2) and {row.reward for row in early[0]} == {0.4, 1.0}
    assert late[1] == pytest.approx(0.7) and {row.reward for row in late[0]} == {1.0}


def test_without_recalibration_all_that_is_stored_may_come_with_its_own_advantage() -> None:
    rows = stored(*[0.4] * 4, *[1.0] * 4)
    found, baseline = chosen(rows, Replay(group_means=((0.9,),), size=8, least=0.5, recalibrate=False), seed="s")
    assert baseline is None and {row.reward for row in found} == {0.4, 1.0} and len(found) == 8


def test_the_draw_depends_on_the_seed_alone() -> None:
    rows, settings = stored(*[1.0] * 20), Replay(group_means=((0.5,),), size=4)
    draws = [[row.id for row in chosen(rows, settings, seed=seed)[0]] for seed in ("a", "a", "b")]
    assert draws[0] == draws[1] != draws[2]


def loaded(make_job: MakeJob, tmp_path: Path, new: list[Row], old: list[Row], **replay: object) -> PolicyData:
    write_rows(tmp_path / "store.parquet", old)
    options = {"replay": {"rows": [str(tmp_path / "store.parquet")], "group_means": [[0.25, 0.5]], "least": 0.5, "size": 4, **replay}}
    job = make_job(new, options=options)
    return load_policy_rows(job, PolicySettings.of(job.options))


def test_replayed_rows_have_the_recalibrated_advantage_and_their_old_log_probabilities(make_job: MakeJob, tmp_path: Path) -> None:
    old, new = stored(*[1.0] * 5), policy_rows(3, seed=8)
    data = loaded(make_job, tmp_path, new, [*old, *new])
    assert data.baseline == 0.375 and data.replayed == 4, "new rows, though in the store too, are not replayed"
    by_ids = {row.input_ids: row for row in old}
    for row in data.rows[3:]:
        source = by_ids[row.input_ids]
        assert row.replayed and set(row.advantages) == {1.0 - 0.375}
        assert row.old_logprobs == pytest.approx([p for p, m in zip(source.logprobs or (), source.mask, strict=True) if m], abs=1e-5)
    assert not any(row.replayed for row in data.rows[:3])


def test_a_weight_of_zero_replays_nothing(make_job: MakeJob, tmp_path: Path) -> None:
    """gamma(0) = 0: at first there is nothing to imitate."""
    assert loaded(make_job, tmp_path, policy_rows(3, seed=8), stored(*[1.0] * 5), weight=0.0).replayed == 0
