"""pass@k and maj@k against brute force, over tasks, and with episodes that broke."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentloop.evaluation.samples import Samples, ks, majority, pass_at_k
from agentloop.trace.tree import Draw, Failure, Tree, Truncation, Turn


def turn(sample: int, answer: str | None, success: bool, truncated: Truncation | None = None, told: bool = True) -> Turn:
    info = {"final_answer": answer} if told else {}
    return Turn(
        f"{sample}.0", None, None, (1,), (2,), (0.0,), "x", Draw("base"), fresh="start", action="x", observation="", info=info,
        reward=float(success), done=truncated is None, success=success, truncated=truncated,
    )  # fmt: skip


def tree(task: str, *turns: Turn, failures: tuple[Failure, ...] = ()) -> Tree:
    return Tree(f"000/eval/{task}", task, "toy", "test", turns, failures=failures, samples=tuple(range(len(turns))))


def samples(*trees: Tree) -> Samples:
    found = Samples()
    for one in trees:
        found.add(one)
    return found


@settings(deadline=None)
@given(st.integers(1, 7), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_success(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(any(subset) for subset in subsets) / len(subsets))


def test_pass_at_k_is_unbiased_where_the_plain_estimate_is_not() -> None:
    chance, truth = random.Random(1), 1 - 0.8**4
    draws = [sum(chance.random() < 0.2 for _ in range(8)) for _ in range(20_000)]
    assert sum(pass_at_k(8, c, 4) for c in draws) / len(draws) == pytest.approx(truth, abs=0.01)
    assert sum(1 - (1 - c / 8) ** 4 for c in draws) / len(draws) < truth - 0.02


@pytest.mark.parametrize("wrong", [(3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4)])
def test_pass_at_k_of_numbers_that_cannot_be_is_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="successes among"):
        pass_at_k(*wrong)


def test_the_majority_is_right_or_wrong_as_a_class_and_a_tie_counts_by_share() -> None:
    assert majority([(0, True), (0, True), (1, False)]) == 1.0
    assert majority([(0, True), (1, False), (1, False)]) == 0.0
    assert majority([(0, True), (1, False)]) == 0.5 and majority([(0, True), (1, False), (2, False)]) == pytest.approx(1 / 3)
    assert majority([(None, False), (None, False), (0, True)]) == 1.0, "who has no answer has no vote"
    assert majority([(None, False)]) == 0.0 and majority([]) == 0.0


def test_powers_of_two_and_the_number_itself_are_told() -> None:
    assert [ks(number) for number in (0, 1, 2, 3, 4, 6, 8)] == [[], [], [2], [2, 3], [2, 4], [2, 4, 6], [2, 4, 8]]


def test_answers_that_are_the_same_vote_together() -> None:
    found = samples(
        tree("a", turn(0, "1/2", True), turn(1, "3", False), turn(2, "0.5", True), turn(3, "3", False), turn(4, "\\frac12", True)),
        tree("b", *(turn(number, "7", False) for number in range(4)), turn(4, "8", True)),
    ).estimates()
    assert found["maj@5"].value == 0.5 and found["pass@5"].value == 1.0
    assert found["pass@2"].value == pytest.approx((pass_at_k(5, 3, 2) + pass_at_k(5, 1, 2)) / 2)
    assert found["maj@2"].value == pytest.approx((0.5 + 0.5) / 2 / 2), "two blocks a task, (1/2, 3) and (0.5, 3): a tie each; b is wrong"
    assert (found["pass@5"].n, found["pass@5"].tasks) == (10, 2)
    for estimate in found.values():
        assert estimate.low is not None and estimate.high is not None and estimate.low <= estimate.value <= estimate.high


def test_with_k_of_all_samples_a_task_is_one_draw() -> None:
    found = samples(*(tree(f"t{number}", *(turn(s, "1", number < 10) for s in range(4))) for number in range(40))).estimates()
    from agentloop.evaluation.intervals import Cluster, proportion

    alone = proportion([Cluster(1, float(number < 10)) for number in range(40)])
    assert (found["pass@4"].low, found["pass@4"].high) == pytest.approx((alone.low, alone.high), abs=0.01)


def test_broken_episodes_are_no_samples_and_tasks_with_too_few_are_left_out() -> None:
    broken = Failure("environment.step", "gone", sample=1, turn="1.0")
    found = samples(
        tree("a", turn(0, "1", True), turn(1, "1", True)),
        tree("b", turn(0, "1", False), turn(1, None, True), failures=(broken,)),
    )
    assert found.estimates()["pass@2"].tasks == 1 and found.estimates()["pass@2"].value == 1.0
    assert {task: len(drawn) for task, drawn in found.drawn.items()} == {"toy/a": 2, "toy/b": 1}


def test_there_is_no_majority_where_answers_are_not_told_but_a_cut_episode_needs_none() -> None:
    untold = samples(tree("a", turn(0, None, True, told=False), turn(1, "1", True)))
    assert set(untold.sums()) == {"pass@2"}
    cut = samples(tree("a", turn(0, None, False, truncated="context", told=False), turn(1, "1", True)))
    assert cut.estimates()["maj@2"].value == 1.0 and cut.estimates()["pass@2"].value == 1.0
    assert samples(tree("a", turn(0, "1", True))).sums() == {}
