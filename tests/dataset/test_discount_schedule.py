"""The discount that follows how far the agent has come, against the formulas of its paper."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentloop.dataset.discount_schedule import MOST_STEPS, DiscountSchedule, discount_of, in_order

places = st.lists(st.integers(0, 6), max_size=8)


@given(st.integers(1, 60), st.floats(0.01, 0.99))
def test_the_horizon_itself_always_counts_alpha(progress: int, alpha: float) -> None:
    assert discount_of(progress, alpha) ** progress == pytest.approx(alpha)


@given(places)
def test_milestones_in_order_are_the_longest_increasing_subsequence(met: list[int]) -> None:
    longest = max(
        size for size in range(len(met) + 1) if any(all(a < b for a, b in pairwise(chosen)) for chosen in combinations(met, size))
    )
    assert in_order(met) == longest


def test_it_begins_with_a_fifth_of_the_horizon() -> None:
    begun = DiscountSchedule.begin(20)
    assert begun.progress == 4 and begun.discount == pytest.approx(0.2**0.25)
    assert DiscountSchedule.begin(3).progress == 1


def test_it_looks_further_only_where_the_agent_follows() -> None:
    """Three milestones: get the key, open, take. An agent that skips the key is not following, however many later ones it meets."""
    schedule, reference = DiscountSchedule(horizon=10, progress=3), [list(range(10))]
    assert schedule.after([[2, 1, 0]] * 10, reference).progress == 3
    followed = schedule.after([list(range(10))] * 10, reference)
    assert followed.progress == 3 + MOST_STEPS, "no more than five turns an evaluation"
    assert followed.discount > schedule.discount
    assert followed.after([list(range(10))] * 10, reference).progress == 10, "and not beyond the horizon"


@given(st.lists(places, min_size=1, max_size=5), st.lists(places, min_size=1, max_size=4), st.integers(1, 8))
def test_it_never_falls(episodes: list[list[int]], references: list[list[int]], progress: int) -> None:
    found = DiscountSchedule(8, progress).after(episodes, references)
    assert progress <= found.progress <= min(8, progress + MOST_STEPS)


def test_without_a_reference_nothing_changes() -> None:
    assert DiscountSchedule(8, 3).after([[0, 1]], []) == DiscountSchedule(8, 3)
