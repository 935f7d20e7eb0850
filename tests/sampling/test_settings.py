"""Settings refuse what makes no sense; seeds depend on what they belong to and on nothing else."""

from __future__ import annotations

import pytest

from agentloop.errors import Mistake
from agentloop.sampling.seed import derive, request_seed, sample_seed, tree_seed
from agentloop.sampling.settings import SampleSettings


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"samples": 0}, "samples.*found 0; expected at least 1"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_turns": -1}, "max_turns"),
        ({"concurrency": 0}, "concurrency"),
        ({"episodes": 0}, "episodes"),
        ({"temperature": -0.1}, "temperature.*negative"),
        ({"max_failures": 1.5}, "max_failures.*0 to 1"),
    ],
)
def test_senseless_settings_are_mistakes(wrong: dict[str, float], told: str) -> None:
    with pytest.raises(Mistake, match=told):
        SampleSettings(**wrong)  # type: ignore[arg-type]


def test_a_pool_is_asked_for_as_many_instances_as_episodes_may_live() -> None:
    assert SampleSettings(concurrency=8).alive == 32
    assert SampleSettings(concurrency=8, episodes=5).alive == 5


def test_seeds_are_fixed_for_ever_fit_everywhere_and_seldom_meet() -> None:
    assert tree_seed(0, "trees", "000", "add-17") == 1120908331656140, "another value would make old runs irreproducible"
    seeds = {
        request_seed(sample_seed(tree_seed(0, "trees", "000", f"t{task}"), sample), turn)
        for task in range(20)
        for sample in range(20)
        for turn in range(20)
    }
    assert len(seeds) == 8000 and all(0 <= seed < 2**53 for seed in seeds)


def test_parts_of_a_path_do_not_run_together() -> None:
    assert len({derive(0, "a", "bc"), derive(0, "ab", "c"), derive(0, "abc"), derive(0, "a", "b", "c"), derive(0, "1"), derive(0, 1)}) == 6
