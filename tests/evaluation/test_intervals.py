"""Intervals against independent formulas, at their edges, and by simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from agentloop.evaluation.intervals import Cluster, mean, paired_difference, proportion, wilson

Z = 1.959963984540054


def clusters(*pairs: tuple[int, float]) -> list[Cluster]:
    return [Cluster(n, total) for n, total in pairs]


@settings(deadline=None)
@given(successes=st.integers(0, 60), failures=st.integers(0, 60))
def test_with_one_episode_a_task_it_is_wilsons_interval(successes: int, failures: int) -> None:
    n = successes + failures
    if n == 0:
        return
    found = proportion(clusters(*[(1, 1)] * successes, *[(1, 0)] * failures))
    other = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert found.value == pytest.approx(successes / n)
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=1e-9)
    assert (found.n, found.tasks) == (n, n)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0, 1)), min_size=1, max_size=40))
def test_a_share_lies_in_its_interval_and_the_interval_in_0_to_1(tasks: list[tuple[int, float]]) -> None:
    found = proportion(clusters(*[(n, round(n * share)) for n, share in tasks]))
    assert 0 <= found.low <= found.value <= found.high <= 1
    n, tasks_alone = found.n, found.n**2 / sum(size**2 for size, _ in tasks)
    narrowest, widest = wilson(found.value, n, Z), wilson(found.value, tasks_alone, Z)
    assert widest[0] - 1e-12 <= found.low <= narrowest[0] + 1e-12
    assert narrowest[1] - 1e-12 <= found.high <= widest[1] + 1e-12


@pytest.mark.parametrize("total", [0, 5])
def test_none_and_all_of_n_have_the_width_of_one_episode_a_task(total: int) -> None:
    found = proportion(clusters(*[(5, total)] * 40))
    other = stats.binomtest(40 * total // 5, 40).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=1e-9)
    assert found.value == total / 5 and found.high - found.low > 0.05


def test_a_single_task_tells_no_more_than_one_episode() -> None:
    found = proportion(clusters((50, 25)))
    assert (found.low, found.high) == pytest.approx(wilson(0.5, 1, Z))


def test_episodes_that_agree_within_tasks_count_less_than_those_that_do_not() -> None:
    alike = proportion(clusters(*[(8, 8)] * 20, *[(8, 0)] * 20))
    mixed = proportion(clusters(*[(8, 4)] * 40))
    assert alike.value == mixed.value == 0.5
    assert alike.high - alike.low > 2 * (mixed.high - mixed.low)


def test_empty_tasks_are_left_out_and_nothing_at_all_is_an_error() -> None:
    assert proportion(clusters((0, 0), (1, 1), (1, 0))).tasks == 2
    for estimate in (proportion, mean):
        with pytest.raises(ValueError, match="no episode"):
            estimate(clusters((0, 0)))
    with pytest.raises(ValueError, match="more successes than episodes"):
        proportion(clusters((1, 2)))


@settings(deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30).filter(lambda values: np.std(values) > 1e-3))
def test_with_one_episode_a_task_a_mean_has_students_interval(values: list[float]) -> None:
    found = mean(clusters(*[(1, value) for value in values]))
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high), rel=1e-6, abs=1e-6)


def test_a_mean_has_the_cluster_robust_interval_of_a_regression_on_a_constant() -> None:
    """Liang and Zeger's sandwich with the factor m / (m - 1), written out by matrices."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 7, 25)
    values = [rng.normal(rng.normal(3, 2), 1, size) for size in sizes]
    found = mean(clusters(*[(len(task), float(task.sum())) for task in values]))
    y = np.concatenate(values)
    x = np.ones((len(y), 1))
    group = np.repeat(np.arange(25), sizes)
    bread = np.linalg.inv(x.T @ x)
    beta = bread @ x.T @ y
    scores = np.stack([x[group == g].T @ (y - x @ beta)[group == g] for g in range(25)])
    variance = (bread @ (scores.T @ scores) @ bread * 25 / 24).item()
    half = stats.t.ppf(0.975, 24) * math.sqrt(variance)
    assert (found.value, found.low, found.high) == pytest.approx((y.mean(), y.mean() - half, y.mean() + half))


def test_a_mean_over_one_task_has_no_interval() -> None:
    found = mean(clusters((7, 21.0)))
    assert (found.value, found.low, found.high, found.n, found.tasks) == (3.0, None, None, 7, 1)


def simulated(rng: np.random.Generator, tasks: int, samples: int, share: float, alike: float) -> list[Cluster]:
    """Tasks whose chances follow a beta distribution with the intra-task correlation `alike`."""
    chances = np.full(tasks, share)
    if alike:
        scale = (1 - alike) / alike
        chances = rng.beta(share * scale, (1 - share) * scale, tasks)
    return [Cluster(samples, int(total)) for total in rng.binomial(samples, chances)]


@pytest.mark.parametrize("tasks", [12, 60])
@pytest.mark.parametrize("samples", [1, 4, 16])
@pytest.mark.parametrize("share", [0.03, 0.3, 0.9])
@pytest.mark.parametrize("alike", [0.0, 0.3, 0.9])
def test_the_interval_of_a_share_covers_as_often_as_it_says(tasks: int, samples: int, share: float, alike: float) -> None:
    rng = np.random.default_rng([tasks, samples, int(100 * share), int(10 * alike)])
    runs = 400
    covered = 0
    for _ in range(runs):
        found = proportion(simulated(rng, tasks, samples, share, alike))
        covered += found.low <= share <= found.high
    # Wilson's own interval for independent episodes dips to about 0.91 at such sizes; four standard errors of the simulation are 0.04.
    assert covered / runs >= 0.90


def test_without_clustering_the_interval_would_not_cover() -> None:
    """What the clustering is for: the same data taken as independent episodes."""
    rng = np.random.default_rng(5)
    covered = {"clustered": 0, "independent": 0}
    for _ in range(300):
        data = simulated(rng, 40, 16, 0.3, 0.9)
        found = proportion(data)
        covered["clustered"] += found.low <= 0.3 <= found.high
        low, high = wilson(found.value, found.n, Z)
        covered["independent"] += low <= 0.3 <= high
    assert covered["clustered"] >= 275 and covered["independent"] < 180


@pytest.mark.parametrize("tasks", [10, 50])
def test_the_interval_of_a_mean_covers_as_often_as_it_says(tasks: int) -> None:
    rng = np.random.default_rng(tasks)
    covered = 0
    for _ in range(600):
        sizes = rng.integers(1, 6, tasks)
        data = [Cluster(int(n), float(rng.normal(rng.normal(2, 1), 0.5, n).sum())) for n in sizes]
        found = mean(data)
        assert found.low is not None and found.high is not None
        covered += found.low <= 2 <= found.high
    assert 0.91 <= covered / 600 <= 0.98


def by_task(values: list[Cluster]) -> dict[str, Cluster]:
    return {f"t{index}": value for index, value in enumerate(values)}


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=2, max_size=30))
def test_a_paired_difference_of_means_is_students_paired_test(pairs: list[tuple[float, float]]) -> None:
    first, second = np.array(pairs).T
    if np.std(first - second) < 1e-3:
        return
    found = paired_difference(by_task([Cluster(1, v) for v in first]), by_task([Cluster(1, v) for v in second]), shares=False)
    other = stats.ttest_rel(first, second)
    interval = other.confidence_interval()
    assert (found.value, found.low, found.high) == pytest.approx(((first - second).mean(), interval.low, interval.high), rel=1e-5, abs=1e-5)
    assert found.p_value == pytest.approx(other.pvalue, rel=1e-4, abs=1e-9)


def test_a_paired_difference_of_shares_follows_agresti_and_min() -> None:
    """Their table of matched pairs, half a pair added to each cell: (b* - c*) / N* with its Wald variance."""
    both, only_first, only_second, neither = 20, 15, 4, 11
    first = [1] * both + [1] * only_first + [0] * only_second + [0] * neither
    second = [1] * both + [0] * only_first + [1] * only_second + [0] * neither
    found = paired_difference(by_task([Cluster(1, v) for v in first]), by_task([Cluster(1, v) for v in second]), shares=True)
    b, c, n = only_first + 0.5, only_second + 0.5, 52
    centre = (b - c) / n
    variance = (b + c - (b - c) ** 2 / n) / n**2 * n / (n - 1)  # theirs divides by n; Student's needs n - 1
    half = stats.t.ppf(0.975, 49) * math.sqrt(variance)
    assert found.value == pytest.approx(11 / 50)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=30))
def test_the_p_value_and_the_interval_agree(tasks: list[tuple[int, float, float]]) -> None:
    first = by_task([Cluster(n, round(n * a)) for n, a, _ in tasks])
    second = by_task([Cluster(n, round(n * b)) for n, _, b in tasks])
    found = paired_difference(first, second, shares=True)
    assert found.low is not None and found.high is not None and found.p_value is not None
    assert -1 <= found.low <= found.value <= found.high <= 1
    if abs(found.p_value - 0.05) > 1e-9 and not (found.low == 0 or found.high == 0):
        assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)


def test_equal_results_differ_by_nothing_and_still_have_an_interval() -> None:
    same = by_task([Cluster(1, 1)] * 30)
    found = paired_difference(same, same, shares=True)
    assert found.value == 0 and found.p_value == 1
    assert found.low is not None and found.high is not None and found.low < -0.01 < 0.01 < found.high


def test_only_tasks_of_both_are_compared_and_the_others_are_counted() -> None:
    first = {"a": Cluster(1, 1), "b": Cluster(1, 1), "c": Cluster(2, 2), "d": Cluster(1, 0)}
    second = {"a": Cluster(1, 0), "b": Cluster(1, 1), "c": Cluster(2, 1), "e": Cluster(1, 0)}
    found = paired_difference(first, second, shares=True)
    assert (found.tasks, found.unpaired, found.value) == (3, 2, pytest.approx(0.5))
    with pytest.raises(ValueError, match="no task in common"):
        paired_difference({"a": Cluster(1, 1)}, {"b": Cluster(1, 1)}, shares=True)
    alone = paired_difference({"a": Cluster(1, 1)}, {"a": Cluster(1, 0)}, shares=True)
    assert (alone.value, alone.low, alone.p_value) == (1.0, None, None)


@pytest.mark.parametrize("samples", [1, 4])
def test_the_interval_of_a_difference_covers_and_a_null_is_seldom_rejected(samples: int) -> None:
    rng = np.random.default_rng(samples)
    covered = rejected = 0
    for _ in range(400):
        easy = rng.beta(1, 1, 40)
        better = np.clip(easy + 0.2, 0, 1)
        base = by_task([Cluster(samples, int(k)) for k in rng.binomial(samples, easy)])
        again = by_task([Cluster(samples, int(k)) for k in rng.binomial(samples, easy)])
        tuned = by_task([Cluster(samples, int(k)) for k in rng.binomial(samples, better)])
        found = paired_difference(tuned, base, shares=True)
        truth = float((better - easy).mean())
        assert found.low is not None and found.high is not None
        covered += found.low <= truth <= found.high
        rejected += (paired_difference(again, base, shares=True).p_value or 0.0) < 0.05
    assert covered / 400 >= 0.91 and rejected / 400 <= 0.08
