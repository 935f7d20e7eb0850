"""Numbers that change: each way of writing one, and its value at every iteration and update."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from agentloop.recipe.part import Count, Number
from agentloop.recipe.schedule import Scheduled

real: TypeAdapter[Any] = TypeAdapter(Scheduled[Number])
count: TypeAdapter[Any] = TypeAdapter(Scheduled[Count])


def test_a_number_is_the_same_at_all_times() -> None:
    assert [real.validate_python(0.7).at(iteration) for iteration in (0, 5)] == [0.7, 0.7]


def test_a_whole_number_will_do_for_a_real_one() -> None:
    assert real.validate_python(2) == Scheduled.constant(2.0)


def test_values_go_by_iteration_and_the_last_one_holds() -> None:
    schedule = real.validate_python({"by": "iteration", "values": [0.5, 0.7, 1.0]})
    assert [schedule.at(iteration) for iteration in range(5)] == [0.5, 0.7, 1.0, 1.0, 1.0]


def test_values_go_by_update() -> None:
    schedule = real.validate_python({"by": "update", "values": [1.0, 2.0]})
    assert [schedule.at(7, update) for update in range(3)] == [1.0, 2.0, 2.0]


@given(update=st.integers(0, 400))
def test_cosine_is_the_fading_of_spear(update: int) -> None:
    """mu(t) = (cos(pi t / T) + 1) / 2 up to T = 200, then 0 (arXiv:2509.22601)."""
    schedule = real.validate_python({"by": "update", "cosine": {"from": 1.0, "to": 0.0, "over": 200}})
    expected = (math.cos(math.pi * update / 200) + 1) / 2 if update <= 200 else 0.0
    assert schedule.at(0, update) == pytest.approx(expected, abs=1e-12)


def test_cosine_rises_too() -> None:
    """gamma(t) = (1 - cos(pi t / T)) / 2: 0 at the beginning, 1 at the end."""
    schedule = real.validate_python({"by": "update", "cosine": {"from": 0.0, "to": 1.0, "over": 10}})
    assert [schedule.at(0, update) for update in (0, 5, 10)] == pytest.approx([0.0, 0.5, 1.0])


def test_linear_counts_stay_whole() -> None:
    schedule = count.validate_python({"by": "iteration", "linear": {"from": 2, "to": 10, "over": 4}})
    assert [schedule.at(iteration) for iteration in range(6)] == [2, 4, 6, 8, 10, 10]
    assert all(isinstance(schedule.at(iteration), int) for iteration in range(6))


def test_a_grid_gives_one_number_a_trial() -> None:
    grid = real.validate_python({"grid": [0.5, 0.9]})
    assert [grid.at(3, trial=trial) for trial in range(2)] == [0.5, 0.9]


def test_a_choice_is_looked_up() -> None:
    tuned = real.validate_python({"tuned": "probe.temperature"})
    assert tuned.at(0, choices={"probe.temperature": 0.9}) == 0.9
    with pytest.raises(LookupError, match="probe.temperature"):
        tuned.at(0)


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True, {"by": "iteration", "values": [1, 0]}])
def test_bounds_and_types_hold_inside_schedules_too(value: object) -> None:
    with pytest.raises(ValidationError):
        count.validate_python(value)


@pytest.mark.parametrize(
    "written",
    [
        3,
        {"by": "update", "values": [1, 2]},
        {"by": "iteration", "cosine": {"from": 1, "to": 4, "over": 3}},
        {"grid": [1, 2]},
        {"tuned": "a.b"},
    ],
)
def test_it_is_written_as_it_was_read(written: object) -> None:
    schedule = count.validate_python(written)
    assert count.dump_python(schedule, mode="json") == written
    assert count.validate_python(written) == schedule
    assert hash(count.validate_python(written)) == hash(schedule)
