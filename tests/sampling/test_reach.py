"""Back to a node: by snapshot or replay, checked step by step, and the conversation with the stored ids."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from agentloop.engine.base import GenerationRequest
from agentloop.environment.base import Environment, StepResult, Task
from agentloop.environment.failure import EnvironmentFailure
from agentloop.sampling.admission import Admission
from agentloop.sampling.episode import Episode, Seat, open_conversation, play_on
from agentloop.sampling.reach import Divergence, Snapshots, reach, retrace
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.render import Conversation, Renderer
from agentloop.trace.tree import Tree
from tests.sampling.world import CharacterTokenizer, FunctionEngine, Letters, pool_of, sample

SETTINGS = SampleSettings(samples=2, max_turns=4, max_tokens=16)


class Log(Letters):
    """Says all that was said since the reset; never ends by itself."""

    steps_taken = 0
    resets = 0

    def reset(self, task: Task) -> str:
        type(self).resets += 1
        self.said = [task.id]
        return " ".join(self.said)

    def step(self, action: str) -> StepResult:
        type(self).steps_taken += 1
        self.said.append(action)
        return StepResult(" ".join(self.said), len(self.said) / 8)


class Photographed(Log):
    """The same with snapshots."""

    restored: list[Any] = []

    def snapshot(self) -> Any:
        return tuple(self.said)

    def restore(self, state: Any) -> None:
        type(self).restored.append(state)
        self.said = list(state)


async def played(environment: type[Environment] = Log, **options: Any) -> tuple[Tree, Task]:
    trees, _ = await sample(environment, settings=SETTINGS, count=1, **options)
    return trees[0], Task(trees[0].task, trees[0].task_data)


async def test_a_replay_leads_to_every_node_of_a_tree() -> None:
    tree, task = await played()
    async with pool_of(Log, 1) as pool, pool.instance() as player:
        for turn in tree.turns:
            path = tree.path(turn.id)
            reached = await reach(player, task, path, first_observation=tree.first_observation)
            assert (reached.restored, reached.replayed, reached.total) == (False, len(path), tree.episode_return(turn.id))
            assert (await player.step("next")).observation == f"{turn.observation} next"
        assert (await reach(player, task, (), first_observation=tree.first_observation)).replayed == 0
        assert (await player.step("next")).observation == f"{tree.first_observation} next"


async def test_the_deepest_snapshot_on_the_path_spares_the_steps_before_it() -> None:
    tree, task = await played(Photographed)
    path = tree.path("1.3")
    snapshots = Snapshots()
    async with pool_of(Photographed, 2) as pool, pool.instance() as player, pool.instance() as other:
        for end in (0, 2):
            await reach(player, task, path[:end], first_observation=tree.first_observation)
            await snapshots.take(player, path[end - 1].id if end else None)
        resets, steps = Photographed.resets, Photographed.steps_taken
        for turns, replayed in ((path[:1], 1), (path[:2], 0), (path, 2)):
            reached = await reach(other, task, turns, first_observation=tree.first_observation, snapshots=snapshots)
            assert (reached.restored, reached.replayed) == (True, replayed)
            assert reached.total == sum(turn.reward for turn in turns)
            assert (await other.step("next")).observation == f"{turns[-1].observation} next"
        assert Photographed.resets == resets and Photographed.steps_taken == steps + 3 + 3


async def test_snapshots_are_bounded_and_those_not_used_for_long_go_first() -> None:
    snapshots = Snapshots(most=2)
    async with pool_of(Photographed, 1) as pool, pool.instance() as player:
        await player.reset(Task("t", {}))
        for name in ("a", "b"):
            await snapshots.take(player, name)
        assert snapshots.find("a") == ("t",)
        await snapshots.take(player, "c")
        assert (snapshots.find("a"), snapshots.find("b"), snapshots.find("c")) == (("t",), None, ("t",))


async def test_where_there_are_no_snapshots_it_asks_once() -> None:
    asked = []

    class Asked(Log):
        def snapshot(self) -> None:
            asked.append(self)

    snapshots = Snapshots()
    async with pool_of(Asked, 1) as pool, pool.instance() as player:
        await player.reset(Task("t", {}))
        for name in ("a", "b"):
            assert await snapshots.take(player, name) is None
    assert len(asked) == 1 and len(snapshots) == 0


async def test_a_snapshot_that_cannot_be_restored_is_forgotten_so_that_the_next_try_replays() -> None:
    class Blurred(Photographed):
        def restore(self, state: Any) -> None:
            raise RuntimeError("the picture is blurred")

    tree, task = await played(Blurred)
    path, snapshots = tree.path("0.2"), Snapshots()
    async with pool_of(Blurred, 1) as pool:
        async with pool.instance() as player:
            await reach(player, task, path, first_observation=tree.first_observation)
            await snapshots.take(player, "0.2")
            with pytest.raises(EnvironmentFailure, match="blurred"):
                await reach(player, task, path, first_observation=tree.first_observation, snapshots=snapshots)
        async with pool.instance() as player:
            assert (await reach(player, task, path, first_observation=tree.first_observation, snapshots=snapshots)).replayed == 3


@pytest.mark.parametrize(
    ("part", "turn", "changed"),
    [
        ("first observation", None, {}),
        ("observation", "0.1", {"observation": "somewhere else"}),
        ("reward", "0.1", {"reward": 0.5}),
        ("done", "0.1", {"done": True}),
        ("truncated", "0.1", {"truncated": True}),
    ],
)
async def test_what_comes_back_otherwise_is_a_divergence_that_says_what_and_where(
    part: str, turn: str | None, changed: dict[str, Any]
) -> None:
    episodes = itertools.count()

    class Forgetful(Letters):
        """Answers otherwise in every episode but the first two, which are sampled."""

        def reset(self, task: Task) -> str:
            self.steps, self.changed = 0, next(episodes) >= 2
            return "here" if part != "first observation" or not self.changed else "there"

        def step(self, action: str) -> StepResult:
            self.steps += 1
            answer = {"observation": "as ever", "reward": 0.25}
            return StepResult(**(answer | (changed if self.changed and self.steps == 2 else {})))  # type: ignore[arg-type]

    tree, task = await played(Forgetful)
    async with pool_of(Forgetful, 1) as pool, pool.instance() as player:
        with pytest.raises(Divergence) as caught:
            await reach(player, task, tree.path("0.3"), first_observation=tree.first_observation)
    assert (caught.value.kind, caught.value.part, caught.value.turn) == ("environment.divergence", part, turn)
    assert f"the {part} of {'reset' if turn is None else 'the action of turn 0.1'} was" in str(caught.value)


async def test_a_turn_whose_step_broke_cannot_be_returned_to() -> None:
    class Breaks(Log):
        def step(self, action: str) -> StepResult:
            if len(self.said) == 2:
                raise RuntimeError("a pipe burst")
            return super().step(action)

    settings = SampleSettings(samples=1, max_turns=4, max_tokens=16, retries=0, max_failures=1.0)
    trees, _ = await sample(Breaks, settings=settings, count=1)
    tree = trees[0]
    async with pool_of(Log, 1) as pool, pool.instance() as player:
        with pytest.raises(ValueError, match=r"turn 0\.1: its step broke"):
            await reach(player, Task(tree.task), tree.path("0.1"), first_observation=tree.first_observation)


@pytest.mark.parametrize("overflow", ["stop", "window", "summarise"])
async def test_a_conversation_is_brought_to_every_node_with_the_ids_that_were_fed(overflow: Any) -> None:
    settings = SampleSettings(samples=2, max_turns=8, max_tokens=8, overflow=overflow)
    limit = 560 if overflow == "summarise" else 320
    engine = FunctionEngine(max_model_len=limit)
    trees, report = await sample(Log, engine=engine, settings=settings, count=1)
    tree = trees[0]
    assert overflow == "stop" or report.fresh, "nothing was started afresh"
    requests: dict[int | None, GenerationRequest] = {request.seed: request for request in engine.requests}
    for turn in tree.turns:
        if turn.parent is None:
            continue
        conversation = Conversation(
            Renderer(CharacterTokenizer()), tree.system_prompt, max_context=limit, reserve=settings.max_tokens, overflow=overflow
        )
        observation = retrace(conversation, tree.path(turn.parent), first_observation=tree.first_observation)
        conversation.observe(observation)
        assert conversation.context_ids == requests[turn.draw.seed].prompt_ids


async def test_an_episode_goes_on_from_a_node_as_if_it_had_never_stopped() -> None:
    """The first half of a stored episode, reached; the second half played again with the same seeds: the same turns."""
    engine = FunctionEngine()
    tree, task = await played(Photographed, engine=engine)
    whole = tree.path("0.3")
    seat = Seat(engine, Renderer(CharacterTokenizer()), SETTINGS, "base", Admission(4, 4))
    async with pool_of(Photographed, 1) as pool, pool.instance() as player:
        reached = await reach(player, task, whole[:2], first_observation=tree.first_observation)
        conversation = open_conversation(seat, tree.system_prompt)
        observation = retrace(conversation, whole[:2], first_observation=tree.first_observation)
        episode = Episode(sample=5, seed=0, parent="0.1")
        await play_on(episode, seat, player, conversation, observation, total=reached.total, turns=2)
    assert [(turn.id, turn.parent, turn.extends) for turn in episode.turns] == [("5.0", "0.1", "0.1"), ("5.1", "5.0", "5.0")]
    assert episode.turns[0].prompt_ids == whole[2].prompt_ids
    assert episode.turns[-1].truncated == "turns"
    assert list(engine.requests[-1].prompt_ids) == Tree("t", "t", "e", "train", turns=(*whole[:2], *episode.turns)).context_ids("5.1")
