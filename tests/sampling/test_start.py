"""Episodes that start from nodes of earlier trees: which nodes, the very ids on the way, and whole trees of what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from agentloop.dataset.reflection import Settings, build
from agentloop.dataset.row import Row
from agentloop.environment.base import StepResult
from agentloop.evaluation.measure import measure, tally
from agentloop.sampling.beginning import tree_ids
from agentloop.sampling.prompt import Preface
from agentloop.sampling.settings import SampleSettings
from agentloop.sampling.start import QUESTION, Start, Thought, starts_of
from agentloop.trace.author import Author
from agentloop.trace.hash import trees_hash
from agentloop.trace.ledger import Ledger
from agentloop.trace.render import Message, Renderer
from agentloop.trace.tree import Tree, Turn, Verdict
from agentloop.trace.verdict import BAD, FIRST_ERROR, GOOD
from tests.dataset.handmade_trees import episode, tree
from tests.sampling.world import ORIGIN, CharacterTokenizer, FunctionEngine, Letters, Memory, sample

FIRST = SampleSettings(samples=3, max_turns=5, max_tokens=16)
AGAIN = replace(ORIGIN, stage="again")


def text(ids: Sequence[int]) -> str:
    return "".join(map(chr, ids))


def starts(trees: Sequence[Tree], at: Any = "failure", **options: Any) -> list[Start]:
    return [start for tree in trees for start in starts_of(tree, at, **options)]


async def continued(trees: Sequence[Tree], at: Any = "failure", thought: Thought | None = None, **options: Any) -> list[Tree]:
    """Two episodes from every node."""
    chosen = starts(trees, at, thought=thought)
    settings = options.pop("settings", SampleSettings(samples=2, max_turns=5, max_tokens=16))
    found, _ = await sample(starts=chosen, settings=settings, origin=AGAIN, **options)
    return found


def own(tree: Tree) -> list[Turn]:
    return [turn for turn in tree.turns if not turn.given]


# Which nodes.


def judged(grown: Tree, **bad: str) -> Tree:
    labels = {turn.id: BAD if turn.id in bad.values() else GOOD for turn in grown.turns}
    return grown.with_verdicts([Verdict(FIRST_ERROR, turn, None, label) for turn, label in labels.items()])


def acted(*episodes: list[Turn]) -> Tree:
    return tree("a", *[[replace(turn, success=turn.reward == 1.0 if turn.done else None) for turn in turns] for turns in episodes])


def chosen(grown: Tree, at: Any, **options: Any) -> list[str]:
    return [start.turn for start in starts_of(grown, at, **options)]


def test_an_episode_that_the_environment_ended_is_gone_on_from_before_its_last_move() -> None:
    grown = acted(episode(0, [[1], [2], [3]]), episode(1, [[4], [5]], reward=0.0), episode(2, [[6]], reward=0.0))
    assert chosen(grown, "end") == ["0.1", "1.0"], "an episode of one move has no turn to go on from"
    assert chosen(grown, "failure") == ["1.0"]
    assert chosen(grown, "turn") == ["0.0", "0.1", "1.0"]


def test_an_episode_that_was_cut_is_gone_on_from_where_it_was_cut() -> None:
    turns = acted(episode(0, [[1], [2]], reward=0.0, done=False, truncated="turns"))
    assert chosen(turns, "failure") == ["0.1"]
    environment = acted(episode(0, [[1], [2]], reward=0.0, done=False, truncated="environment"))
    assert chosen(environment, "failure") == ["0.0"]


def test_what_broke_or_never_came_to_an_end_is_no_node() -> None:
    for last in ({"done": False}, {"done": False, "truncated": "budget"}):
        assert chosen(acted(episode(0, [[1], [2]], reward=0.0, **last)), "failure") == []


def test_the_first_error_of_failed_episodes() -> None:
    grown = acted(episode(0, [[1], [2], [3]], reward=0.0), episode(1, [[4], [5]], reward=0.0), episode(2, [[6], [7]]))
    assert chosen(judged(grown, first="0.0", win="2.0"), "error") == ["0.0", "1.0"], "without a Bad turn, as failure"
    assert chosen(judged(grown, last="0.2"), "error") == ["1.0"], "an error that ended the episode cannot be gone on from"
    assert chosen(grown, "error") == [], "nobody looked"


def test_equal_nodes_are_one_and_a_random_turn_is_one_of_each_episode() -> None:
    first, second, third = episode(0, [[1], [2], [3]], reward=0.0)
    grown = acted([first, second, third, replace(third, id="0.3", completion_ids=(7, 9))])
    assert chosen(grown, "failure") == ["0.1"]
    drawn = {tuple(chosen(replace(grown, seed=seed), "random")) for seed in range(20)}
    assert {nodes for one in drawn for nodes in one} == {"0.0", "0.1"}
    assert chosen(grown, "random") == chosen(grown, "random")


def test_most_nodes_are_drawn_by_the_seed_of_the_tree() -> None:
    grown = acted(*[episode(k, [[k], [9]], reward=0.0) for k in range(8)])
    assert len(chosen(grown, "failure", most=3)) == 3
    assert chosen(grown, "failure", most=3) == chosen(grown, "failure", most=3)
    assert len({tuple(chosen(replace(grown, seed=seed), "failure", most=3)) for seed in range(9)}) > 1
    assert chosen(grown, "failure", most=99) == chosen(grown, "failure")


# What is played.


async def test_a_new_tree_holds_the_way_to_its_nodes_and_what_came_of_it() -> None:
    engine = FunctionEngine()
    trees, _ = await sample(settings=FIRST)
    again = await continued(trees, engine=engine)
    assert [grown.id for grown in again] == [f"000/again/{old.task}" for old in trees if starts([old])]
    requests = {request.seed: request for request in engine.requests}
    for old, grown in zip([old for old in trees if starts([old])], again, strict=True):
        nodes = [start.turn for start in starts([old])]
        assert (grown.task, grown.task_data, grown.split) == (old.task, old.task_data, old.split)
        for turn in grown.turns:
            if turn.given:
                assert replace(turn, given=False) == old[turn.id]
            else:
                assert tuple(grown.context_ids(turn.id)) == requests[turn.draw.seed].prompt_ids
        leaves = list(grown.leaves())
        assert len(leaves) == 2 * len(nodes) and len(grown.samples) == len(leaves)
        for leaf in leaves:
            path = grown.path(leaf.id)
            assert [turn.given for turn in path] == sorted((turn.given for turn in path), reverse=True)
            assert path[0].parent is None and [turn for turn in path if turn.given][-1].id in nodes
            assert [turn.info["step"] for turn in path] == list(range(1, len(path) + 1)), "the environment was brought there"
    assert len(engine.requests) == sum(len(own(grown)) for grown in again)


async def test_the_return_and_the_success_are_those_of_the_whole_path() -> None:
    class Counted(Letters):
        STEPS = 4

        def step(self, action: str) -> StepResult:
            result = super().step(action)
            return replace(result, reward=0.25)

    trees, _ = await sample(Counted, settings=FIRST)
    for grown in await continued(trees, environment=Counted):
        for leaf in grown.leaves():
            assert leaf.done and leaf.success is (grown.episode_return(leaf.id) >= 1.0)
            assert grown.episode_return(leaf.id) == 0.25 * len(grown.path(leaf.id))


async def test_max_turns_counts_what_is_played_here() -> None:
    class Endless(Letters):
        def step(self, action: str) -> StepResult:
            return StepResult("go on")

    trees, _ = await sample(Endless, settings=SampleSettings(samples=1, max_turns=3, max_tokens=16))
    again = await continued(trees, environment=Endless, settings=SampleSettings(samples=1, max_turns=2, max_tokens=16))
    for grown in again:
        assert [turn.truncated for turn in own(grown)] == [None, "turns"] and len(grown.turns) == 5


async def test_it_does_not_matter_who_finishes_first_nor_whether_it_was_interrupted() -> None:
    trees, _ = await sample(settings=FIRST)
    whole = await continued(trees)
    narrow = await continued(trees, settings=SampleSettings(samples=2, max_turns=5, max_tokens=16, concurrency=1, episodes=1))
    assert trees_hash(narrow) == trees_hash(whole)
    kept = Memory()
    await continued(trees, sink=kept)
    half = Memory(kept.fragments[::2])
    engine = FunctionEngine()
    assert trees_hash(await continued(trees, sink=half, engine=engine)) == trees_hash(whole)
    missing = kept.fragments[1::2]
    assert len(engine.requests) == sum(not turn.given for fragment in missing for turn in fragment.turns)


async def test_an_environment_that_does_not_repeat_itself_is_told() -> None:
    class Moody(Letters):
        plays = 0

        def reset(self, task: Any) -> Any:
            type(self).plays += 1
            return f"{super().reset(task)} {self.plays}"

    trees, _ = await sample(Moody, settings=FIRST)
    settings = SampleSettings(samples=1, max_turns=5, max_tokens=16, max_failures=1.0)
    again = await continued(trees, environment=Moody, settings=settings)
    kinds = {failure.kind for grown in again for failure in grown.failures}
    assert kinds == {"environment.divergence"}
    assert all(not list(grown.leaves()) for grown in again)


async def test_an_earlier_tree_of_other_prompts_is_told_again_in_this_ones() -> None:
    shown = Preface("Say a word.", (Message("user", "find z"), Message("assistant", "zoo")))
    trees, _ = await sample(settings=FIRST, preface=shown)
    engine = FunctionEngine()
    again = await continued(trees, engine=engine)
    requests = {request.seed: request for request in engine.requests}
    for grown in again:
        old = next(one for one in trees if one.task == grown.task)
        for turn in grown.turns:
            if turn.given:
                assert turn.text == old[turn.id].text and turn.observation == old[turn.id].observation
                assert turn.authored and turn.draw.kind == "forced"
            else:
                assert tuple(grown.context_ids(turn.id)) == requests[turn.draw.seed].prompt_ids
                assert "Say a word." not in text(grown.context_ids(turn.id)) and "zoo" not in text(grown.context_ids(turn.id))
                for before in grown.path(turn.id)[:-1]:
                    assert before.text in text(grown.context_ids(turn.id))
    under_the_same = await continued(trees, preface=shown)
    assert all(not turn.authored for grown in under_the_same for turn in grown.turns)


async def test_trees_that_were_started_from_nodes_can_be_started_from() -> None:
    trees, _ = await sample(settings=FIRST)
    again = await continued(trees, "turn")
    chosen = starts(again, "turn")
    once_more, _ = await sample(starts=chosen, settings=SampleSettings(samples=1, max_turns=5, max_tokens=16), origin=AGAIN)
    assert {turn.id.rstrip("0123456789.") for grown in again for turn in own(grown)} == {"r"}
    assert {turn.id.rstrip("0123456789.") for grown in once_more for turn in own(grown)} == {"rr"}


async def test_several_trees_of_a_task_stay_several() -> None:
    trees, _ = await sample(settings=FIRST)
    more, _ = await sample(settings=FIRST, origin=replace(ORIGIN, stage="more"))
    both = starts([*trees, *more])
    again, _ = await sample(starts=both, settings=SampleSettings(samples=1, max_turns=5, max_tokens=16), origin=AGAIN)
    assert len(again) == len({start.tree.id for start in both}) == len(tree_ids(both, AGAIN))
    assert {grown.id for grown in again} == set(tree_ids(both, AGAIN).values())
    assert any(grown.id.endswith("~2") for grown in again)


# The revision thought.


async def test_a_thought_of_the_list_is_forced_and_the_environment_does_not_hear_it() -> None:
    trees, _ = await sample(settings=FIRST)
    engine = FunctionEngine()
    again = await continued(trees, thought=Thought(texts=("hm", "oh")), engine=engine)
    said = set()
    for grown in again:
        for leaf in grown.leaves():
            path = [turn for turn in grown.path(leaf.id) if not turn.given]
            thought, *rest = path
            said.add(thought.text)
            assert (thought.action, thought.observation, thought.finish) == (None, "ok.", "authored")
            assert thought.authored and thought.draw.kind == "forced" and text(thought.completion_ids) == f"{thought.text}\x02"
            assert rest and all(turn.draw.kind == "policy" for turn in rest)
            assert text(rest[0].prompt_ids) == "\x01user\nok.\x02\x01assistant\n"
            steps = [turn.info["step"] for turn in grown.path(leaf.id) if turn.action is not None]
            assert steps == list(range(1, len(steps) + 1))
    assert said == {"hm", "oh"}
    assert Ledger.of_trees(again, "again").total().turns == len(engine.requests)


async def test_a_thought_may_be_an_action() -> None:
    trees, _ = await sample(settings=FIRST)
    for grown in await continued(trees, "turn", thought=Thought(texts=("hm",), answer=None)):
        for leaf in grown.leaves():
            thought, *rest = [turn for turn in grown.path(leaf.id) if not turn.given]
            assert (thought.action, thought.observation) == ("hm", "no, not hm")
            assert thought.done is (not rest), "the environment may end the episode with it"


async def test_an_actor_that_is_asked_writes_its_own_thought() -> None:
    trees, _ = await sample(settings=FIRST)
    engine = FunctionEngine()
    for grown in await continued(trees, thought=Thought(by="actor"), engine=engine):
        for leaf in grown.leaves():
            thought, *rest = [turn for turn in grown.path(leaf.id) if not turn.given]
            assert QUESTION in text(thought.prompt_ids) and grown[thought.parent or ""].observation in text(thought.prompt_ids)
            assert (thought.action, thought.observation, thought.authored) == (None, "ok.", False)
            assert rest and rest[0].observation != "ok."


# From there to rows and numbers.


def revisions(trees: Sequence[Tree], **options: Any) -> list[Row]:
    return list(build(trees, Settings(form="replayed", **options), author=Author(Renderer(CharacterTokenizer())), stage="rows"))


@pytest.mark.parametrize("by", ["list", "actor"])
async def test_replayed_rows_are_continuations_that_reached_their_reward(by: Any) -> None:
    trees, _ = await sample(settings=replace(FIRST, samples=6), count=6)
    again = await continued(trees, "turn", thought=Thought(by=by, texts=("hm",)))
    rows = revisions([*trees, *again])
    names = {grown.id: grown for grown in [*trees, *again]}
    spliced = [row for row in rows if row.authored]
    assert spliced and any(not row.authored for row in rows)
    for row in spliced:
        grown = names[row.provenance.tree]
        node, last = grown[row.provenance.context[-1]], grown[row.provenance.turns[-1]]
        assert grown.episode_return(last.id) == row.reward == 1.0
        assert all(grown[turn].given for turn in row.provenance.context)
        start = len(grown.context_ids(node.id)) + len(node.completion_ids)
        assert list(row.input_ids[:start]) == [*grown.context_ids(node.id), *node.completion_ids] and not any(row.mask[:start])
        trained = [token for token, train in zip(row.input_ids, row.mask, strict=True) if train]
        assert trained == [token for turn in row.provenance.turns for token in grown[turn].completion_ids]
        if by == "list":  # nothing helped to write the thought, so the row is what the model saw
            assert list(row.input_ids) == [*grown.context_ids(last.id), *last.completion_ids]
        assert QUESTION not in text(row.input_ids)


async def test_a_measurement_from_nodes_counts_what_was_played_there_and_is_clustered_by_task() -> None:
    trees, _ = await sample(settings=FIRST)
    again = await continued(trees)
    sums = tally(again)
    by_name = {found.name: found for found in measure(again)}
    leaves = [leaf for grown in again for leaf in grown.leaves()]
    assert by_name["success"].n == len(leaves) and by_name["success"].tasks == len(again)
    assert by_name["success"].value == sum(bool(leaf.success) for leaf in leaves) / len(leaves)
    assert sum(cluster.total for cluster in sums.sums["tokens"].values()) == sum(
        len(turn.completion_ids) for grown in again for leaf in grown.leaves() for turn in grown.path(leaf.id) if not turn.given
    )
