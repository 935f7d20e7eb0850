"""Which trajectories self-imitation keeps, and that their rows hold exactly what the model saw and produced."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentloop.dataset.self_imitation import Settings, build
from agentloop.trace.tree import Draw, Failure, Tree, Turn, Verdict
from tests.dataset.handmade_trees import STOP, episode, tree


def kept(trees, **options) -> list[str]:
    return [f"{row.task}:{row.provenance.turns[0]}" for row in build(trees, Settings(**options), stage="rows", iteration=2)]


def test_a_row_is_the_segments_ids_with_a_mask_on_every_id_of_the_models_own():
    (row,) = build([tree("a", episode(0, [[1, 2], [3]]))], Settings(), stage="rows", iteration=2)
    assert row.input_ids == (100, 0, 1, 2, STOP, 101, 0, 3, STOP)
    assert row.mask == (0, 0, 1, 1, 1, 0, 0, 1, 1), "first answer ids and stop tokens are trained on, prompts are not"
    assert row.logprobs == (0.0, 0.0, -0.5, -1.5, -2.5, 0.0, 0.0, -0.5, -1.5)
    assert (row.task, row.role, row.reward, row.adapter, row.temperature) == ("a", "actor", 1.0, "actor-000-abc", 1.0)
    assert (row.provenance.tree, row.provenance.turns) == ("000/trees/a", ("0.0", "0.1"))
    assert (row.provenance.stage, row.provenance.iteration) == ("rows", 2)
    assert not row.authored and row.weight == 1.0


def test_only_episodes_at_or_above_the_reward_are_kept():
    grown = tree("a", episode(0, [[1]], reward=0.4), episode(1, [[2]], reward=0.5), episode(2, [[3]], reward=0.9))
    assert kept([grown], min_reward=0.5) == ["a:1.0", "a:2.0"]


def test_rewards_of_all_turns_count():
    first, last = episode(0, [[1], [2]], reward=0.5)
    assert kept([tree("a", [replace(first, reward=0.5), last])]) == ["a:0.0"]


def test_episodes_that_were_cut_or_broke_are_no_examples():
    grown = tree("a", episode(0, [[1]], done=False, truncated="turns"), episode(1, [[2]], done=True, truncated="environment"))
    broken = replace(tree("b", episode(0, [[1]], done=False)), failures=(Failure("environment.step.timeout", "", 0, "0.0"),))
    assert kept([grown, broken], min_reward=0.0) == []


def test_trajectories_that_did_the_same_count_once():
    grown = tree("a", episode(0, [[1], [2]]), episode(1, [[1], [2]]), episode(2, [[1], [3]]))
    assert kept([grown]) == ["a:0.0", "a:2.0"]
    assert kept([grown], deduplicate=False) == ["a:0.0", "a:1.0", "a:2.0"]
    again = tree("a", episode(0, [[1], [2]]), stage="more")
    assert kept([grown, again]) == ["a:0.0", "a:2.0"], "another tree of the task counts too"
    assert kept([tree("a", episode(0, [[1]])), tree("b", episode(0, [[1]]))]) == ["a:0.0", "b:0.0"], "another task does not"


def test_a_turn_boundary_is_part_of_what_was_done():
    assert len(kept([tree("a", episode(0, [[1, STOP, 2]]), episode(1, [[1], [2]]))])) == 2


def test_best_prefers_reward_then_fewer_turns_then_the_order_of_the_tree():
    grown = tree(
        "a",
        episode(0, [[1], [2], [3]], reward=2.0),
        episode(1, [[4]], reward=1.0),
        episode(2, [[5], [6]], reward=2.0),
        episode(3, [[7], [8]], reward=2.0),
    )
    assert kept([grown], best=1) == ["a:2.0"]
    assert kept([grown], best=3) == ["a:2.0", "a:3.0", "a:0.0"]


def test_best_counts_distinct_trajectories():
    assert kept([tree("a", episode(0, [[1]]), episode(1, [[1]]), episode(2, [[2]]))], best=2) == ["a:0.0", "a:2.0"]


def test_a_cap_limits_rows_of_a_task_over_all_trees():
    trees = [tree("a", episode(0, [[1]]), episode(1, [[2]])), tree("b", episode(0, [[1]])), tree("a", episode(0, [[3]]), stage="more")]
    assert kept(trees, per_task=2) == ["a:0.0", "a:1.0", "b:0.0"]


@pytest.mark.parametrize(
    ("reason", "train", "rows"), [("window", True, 2), ("window", False, 1), ("summary", False, 1), ("template", False, 2)]
)
def test_segments_after_an_overflow_train_unless_told_otherwise(reason, train, rows):
    grown = tree("a", episode(0, [[1], [2]], fresh_at={1: reason}))
    assert len(kept([grown], train_after_overflow=train)) == rows


def test_each_segment_is_a_row_and_shared_ones_are_rows_once():
    shared = episode(0, [[1], [2]], fresh_at={1: "template"})
    other = replace(shared[1], id="1.1", completion_ids=(3, STOP), logprobs=(-1.0, -1.0))
    rows = list(build([tree("a", [*shared, other])]))
    assert [row.provenance.turns for row in rows] == [("0.0",), ("0.1",), ("1.1",)]
    assert len({row.id for row in rows}) == 3


def test_only_turns_of_the_role_and_seat_make_rows():
    players = [
        replace(turn, seat=seat, role=seat) for turn, seat in zip(episode(0, [[1]]) + episode(1, [[2]]), ("white", "black"), strict=True)
    ]
    game = [replace(players[0], done=False), replace(players[1], parent="0.0", fresh="seat")]
    for chosen in (Settings(role="black"), Settings(seat="black")):
        rows = list(build([tree("a", game)], chosen))
        assert [(row.role, row.input_ids) for row in rows] == [("black", (100, 0, 2, STOP))]
    assert len(list(build([tree("a", game)], Settings(role="black", seat="white")))) == 0
    assert [row.role for row in build([tree("a", game)], Settings(min_reward=0.0))] == ["white", "black"]


def test_a_path_that_another_role_went_on_with_is_nobodys_example():
    first, last = episode(0, [[1], [2]])
    assert kept([tree("a", [first, replace(last, role="player")])]) == []
    assert kept([tree("a", [replace(first, given=True), replace(last, role="player")])]) == ["a:0.1"], "what was taken over does not train"


def judged(grown: Tree, critic: str, **values: float | None) -> Tree:
    """The tree with verdicts; turn "1.0" is written `t1_0`."""
    said = {name[1:].replace("_", "."): value for name, value in values.items()}
    return grown.with_verdicts([Verdict(critic, turn, value, None if value is not None else "unparsable") for turn, value in said.items()])


def test_a_critic_chooses_among_whole_episodes_where_the_environment_has_no_reward():
    grown = tree("a", *(episode(k, [[k + 1]], reward=0.0) for k in range(4)))
    rated = judged(grown, "rubric", t0_0=2.0, t1_0=5.0, t2_0=None)
    (row,) = build([rated], Settings(min_reward=1.0, best=1, verdicts={"rubric": 0.5}), stage="rows")
    assert (row.provenance.turns, row.reward, row.provenance.verdicts) == (("1.0",), 2.5, ("rubric",))
    rest = kept([rated], min_reward=-9.0, verdicts={"rubric": 1.0})
    assert rest == ["a:0.0", "a:1.0"], "what could not be read, and what nobody looked at, is not guessed"
    assert kept([rated], min_reward=0.0) == ["a:0.0", "a:1.0", "a:2.0", "a:3.0"]


def test_of_a_critic_of_steps_the_least_counts_and_is_added_to_the_return():
    grown = tree("a", episode(0, [[1], [2]], reward=1.0), episode(1, [[3], [4]], reward=0.5))
    rated = judged(judged(grown, "scoring", t0_0=-3.0, t0_1=1.0, t1_0=0.5, t1_1=0.0), "outcome", t0_1=1.0, t1_1=0.5)
    rows = list(build([rated], Settings(min_reward=0.0, best=2, verdicts={"scoring": 0.2, "outcome": -1.0})))
    assert [(row.provenance.turns, row.reward) for row in rows] == [(("1.0", "1.1"), 0.0)]
    rows = list(build([rated], Settings(min_reward=-9.0, verdicts={"scoring": 0.2})))
    assert [row.reward for row in rows] == [pytest.approx(0.4), pytest.approx(0.5)]


def test_rows_without_plain_draws_carry_no_log_probabilities():
    def rows(turn: Turn):
        return list(build([tree("a", [turn])]))

    (turn,) = episode(0, [[1]])
    assert rows(replace(turn, draw=Draw("base", top_p=0.9)))[0].logprobs is None
    authored = rows(replace(turn, logprobs=None, finish="authored"))[0]
    assert authored.authored and authored.logprobs is None and authored.mask == (0, 0, 1, 1)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.lists(st.integers(1, 3), max_size=2), min_size=1, max_size=3), st.sampled_from([0.0, 0.5, 1.0])), max_size=6
    )
)
def test_rows_are_a_pure_function_of_the_trees(episodes):
    trees = [tree("a", *[episode(k, replies, reward=reward) for k, (replies, reward) in enumerate(episodes)])]
    rows = list(build(trees, Settings(min_reward=0.5)))
    assert rows == list(build(iter(trees), Settings(min_reward=0.5)))
    assert all(row.reward >= 0.5 and row.mask[0] == 0 and row.input_ids[-1] == STOP for row in rows)
    assert len({row.id for row in rows}) == len(rows)


def test_trees_are_read_one_at_a_time():
    read = []

    def stream():
        for name in "abc":
            read.append(name)
            yield tree(name, episode(0, [[1]]))

    next(build(stream()))
    assert read == ["a"]
