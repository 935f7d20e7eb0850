"""What episodes count for: ended, cut, broken."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentloop.evaluation.measure import Measurement, compare, measure, tally
from agentloop.trace.tree import Draw, Failure, Tree, Truncation, Turn


def episode(sample: int, rewards: list[float], *, success: bool | None, truncated: Truncation | None = None, tokens: int = 3) -> list[Turn]:
    """Turns of one episode, of `tokens` ids each."""
    turns = []
    for number, reward in enumerate(rewards):
        last = number == len(rewards) - 1
        turns.append(
            Turn(
                id=f"{sample}.{number}",
                parent=turns[-1].id if turns else None,
                extends=turns[-1].id if turns else None,
                fresh=None if turns else "start",
                prompt_ids=(1, 2),
                completion_ids=tuple(range(tokens)),
                logprobs=(0.0,) * tokens,
                text="go",
                draw=Draw("base"),
                action="go",
                observation="there",
                reward=reward,
                done=last and truncated is None and success is not None,
                success=success if last else None,
                truncated=truncated if last else None,
            )
        )
    return turns


def tree(task: str, *episodes: list[Turn], failures: tuple[Failure, ...] = ()) -> Tree:
    turns = tuple(turn for turns in episodes for turn in turns)
    return Tree(f"000/eval/{task}", task, "toy", "test", turns, failures=failures, samples=tuple(range(len(episodes))))


def by_name(trees: list[Tree]) -> dict[str, Measurement]:
    return {measurement.name: measurement for measurement in measure(trees, stage="dev", iteration="002")}


def test_values_are_means_over_episodes() -> None:
    found = by_name(
        [
            tree("a", episode(0, [0.5, 1.0], success=True), episode(1, [0.0], success=False, tokens=10)),
            tree("b", episode(0, [0.0, 0.0, 0.25], success=False)),
        ]
    )
    assert {name: measurement.value for name, measurement in found.items()} == pytest.approx(
        {"success": 1 / 3, "reward": 1.75 / 3, "turns": 2.0, "tokens": (6 + 10 + 9) / 3, "failures": 0.0}
    )
    for measurement in found.values():
        assert (measurement.n, measurement.tasks, measurement.stage, measurement.iteration) == (3, 2, "dev", "002")
        assert measurement.low is not None and measurement.high is not None
        assert measurement.low <= measurement.value <= measurement.high


@pytest.mark.parametrize("truncated", ["turns", "context", "environment", "budget", "time"])
def test_an_episode_that_was_cut_is_unsuccessful_whatever_it_says(truncated: Truncation) -> None:
    found = by_name([tree("a", episode(0, [1.0], success=True, truncated=truncated)), tree("b", episode(0, [1.0], success=True))])
    assert found["success"].value == 0.5 and found["success"].n == 2
    assert found["reward"].value == 1.0
    assert tally([tree("a", episode(0, [1.0], success=False, truncated=truncated))]).truncated == {truncated: 1}


def test_broken_episodes_are_counted_apart_and_never_lost() -> None:
    half_played = Failure("environment.step", "gone", sample=1, turn="1.1")
    at_reset = Failure("environment.reset", "gone", sample=2)
    trees = [
        tree("a", episode(0, [1.0], success=True), episode(1, [0.0, 0.0], success=None), failures=(half_played, at_reset)),
        tree("b", failures=(Failure("engine.timeout", "slow", sample=0),)),
    ]
    found = by_name(trees)
    assert (found["success"].value, found["success"].n, found["turns"].value) == (1.0, 1, 1.0)
    assert (found["failures"].value, found["failures"].n, found["failures"].tasks) == (0.75, 4, 2)
    assert tally(trees).failures == {"environment.step": 1, "environment.reset": 1, "engine.timeout": 1}


def test_where_every_episode_broke_only_failures_are_measured() -> None:
    (only,) = measure([tree("b", failures=(Failure("engine.timeout", "slow", sample=0),))])
    assert (only.name, only.value, only.n) == ("failures", 1.0, 1)
    assert measure([]) == []


def test_a_critics_turns_and_a_summary_are_no_turns_of_the_agent() -> None:
    turns = episode(0, [0.0, 1.0], success=True)
    asked = Turn("c", "0.1", None, (5,), (6, 7), (0.0, 0.0), "Good", Draw("base"), fresh="critic", seat="critic")
    found = by_name([tree("a", [*turns, asked])])
    assert (found["turns"].value, found["tokens"].value, found["success"].n) == (2.0, 6.0, 1)
    summary = Turn("s", None, None, (5,), (6, 7, 8, 9), (0.0,) * 4, "so far", Draw("base"), fresh="start")
    after = Turn("t", "s", None, (5,), (6,), (0.0,), "go", Draw("base"), fresh="summary", action="go", done=True, success=True)
    found = by_name([tree("a", [summary, after])])
    assert (found["turns"].value, found["tokens"].value) == (1.0, 5.0)


def test_a_reward_of_0_or_1_has_the_interval_of_a_share_and_another_that_of_a_mean() -> None:
    binary = by_name([tree(task, episode(0, [0.0], success=False)) for task in "abcdefgh"])
    assert binary["reward"].high == pytest.approx(binary["success"].high) and binary["reward"].high > 0.2
    graded = by_name([tree(task, episode(0, [reward], success=False)) for task, reward in zip("abcd", [0.2, 0.4, 0.6, 2.0], strict=True)])
    assert graded["reward"].high is not None and graded["reward"].high > 1.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(1, 4)), min_size=1, max_size=12), st.randoms())
def test_fragments_in_any_order_measure_as_the_whole_tree(episodes, random) -> None:  # type: ignore[no-untyped-def]
    numbered = [(index, *what) for index, what in enumerate(episodes)]
    fragments = [
        Tree(f"000/eval/{task}", task, "toy", "test", tuple(episode(index, [1.0] * turns, success=success)), samples=(index,))
        for index, task, success, turns in numbered
    ]
    whole = [Tree.merge([fragment for fragment in fragments if fragment.task == task]) for task in sorted({f.task for f in fragments})]
    random.shuffle(fragments)
    assert measure(fragments) == measure(whole)


def test_trees_are_read_once_and_one_at_a_time() -> None:
    alive: list[int] = []

    def stream() -> Iterator[Tree]:
        for number in range(50):
            alive.append(number)
            yield tree(f"t{number}", episode(0, [1.0], success=True))

    assert measure(stream())[0].n == 50 and alive == list(range(50))


def test_two_results_are_compared_task_by_task() -> None:
    tasks = [f"t{number}" for number in range(20)]
    base = tally(tree(task, episode(0, [0.0], success=False)) for task in tasks)
    tuned = tally(tree(task, episode(0, [1.0], success=number < 15)) for number, task in enumerate(tasks))
    found = compare(tuned, base)
    assert found["success"].value == 0.75 and found["success"].tasks == 20
    assert found["success"].low is not None and found["success"].low > 0.4
    assert found["reward"].value == 1.0 and found["turns"].value == 0.0
