"""One episode: exact ids and log-probabilities, how it ends, and what is kept when it breaks."""

from __future__ import annotations

import pytest

from agentloop.engine.base import EngineFailure, GenerationRequest
from agentloop.environment.base import StepResult, Task
from agentloop.sampling.prompt import preface
from agentloop.sampling.seed import request_seed, sample_seed
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.tree import Tree
from tests.sampling.world import END, BrokenEngine, FunctionEngine, Letters, pool_of, sample

LONG = SampleSettings(samples=2, max_turns=5, max_tokens=16)


def by_seed(engine: FunctionEngine) -> dict[int | None, GenerationRequest]:
    return {request.seed: request for request in engine.requests}


async def test_every_turn_records_what_the_engine_was_fed_and_what_it_gave() -> None:
    engine = FunctionEngine()
    trees, _ = await sample(engine=engine, settings=LONG)
    requests = by_seed(engine)
    turns = [(tree, turn) for tree in trees for turn in tree.turns]
    assert len(turns) == len(engine.requests) > len(trees)
    for tree, turn in turns:
        request = requests[turn.draw.seed]
        answer = engine.answers[request]
        assert tuple(tree.context_ids(turn.id)) == request.prompt_ids
        assert (turn.completion_ids, turn.logprobs, turn.finish) == (answer.ids, answer.logprobs, answer.finish)
        assert turn.cached_tokens == answer.cached_tokens
        assert turn.text == turn.action == "".join(map(chr, answer.ids)).removesuffix(END)


async def test_contexts_grow_along_extends_and_carry_the_observation() -> None:
    trees, _ = await sample(settings=LONG)
    longer = [turn for tree in trees for turn in tree.turns if not turn.id.endswith(".0")]
    assert longer
    for tree in trees:
        for turn in tree.turns:
            assert turn.extends == turn.parent
            if turn.parent is not None:
                assert tree[turn.parent].observation in "".join(map(chr, turn.prompt_ids))
                assert turn.parent.split(".")[0] == turn.id.split(".")[0]


async def test_the_draw_tells_how_it_was_drawn() -> None:
    settings = SampleSettings(samples=1, temperature=0.7, top_p=0.9, top_k=5, max_tokens=16, max_turns=2, role="solver")
    engine = FunctionEngine()
    trees, _ = await sample(engine=engine, settings=settings, adapter="solver-0-abc")
    turn = trees[0].turns[0]
    seed = request_seed(sample_seed(trees[0].seed, 0), 0)
    assert (turn.draw.adapter, turn.draw.temperature, turn.draw.top_p, turn.draw.top_k) == ("solver-0-abc", 0.7, 0.9, 5)
    assert (turn.draw.kind, turn.draw.seed, turn.role) == ("policy", seed, "solver")
    request = by_seed(engine)[seed]
    assert (request.adapter, request.temperature, request.top_p, request.top_k) == ("solver-0-abc", 0.7, 0.9, 5)
    assert request.max_tokens == 16 and request.stop_token_ids == (2,)


async def test_a_turn_cut_by_its_token_limit_has_no_stop_token_and_goes_on() -> None:
    engine = FunctionEngine(length=30)
    trees, _ = await sample(engine=engine, settings=SampleSettings(samples=4, max_tokens=3, max_turns=3))
    cut = [turn for tree in trees for turn in tree.turns if turn.finish == "length"]
    assert cut
    for turn in cut:
        assert turn.completion_ids[-1] != 2 and len(turn.completion_ids) == 3 == len(turn.text)
    followed = [(tree, turn) for tree in trees for turn in tree.turns if turn.extends is not None and tree[turn.extends].finish == "length"]
    assert followed and all(turn.prompt_ids[0] == 2 for _, turn in followed), "the end of turn is fed, not put into the completion"


async def test_an_episode_ends_when_the_environment_says_so_and_only_its_last_turn_tells_the_outcome() -> None:
    trees, report = await sample(settings=LONG)
    assert 0 < report.succeeded < report.finished == 8
    for tree in trees:
        for leaf in tree.leaves():
            *inner, last = tree.path(leaf.id)
            assert last.done and last.truncated is None and last.success is (last.reward == 1.0)
            assert all(turn.success is None and not turn.done for turn in inner)


async def test_max_turns_cuts_an_episode_which_then_is_unsuccessful() -> None:
    class Endless(Letters):
        def step(self, action: str) -> StepResult:
            return StepResult("go on", 1.0)

    trees, report = await sample(Endless, settings=SampleSettings(samples=1, max_turns=3, max_tokens=16))
    assert report.truncated == {"turns": 4} and report.succeeded == 0
    for tree in trees:
        assert [turn.truncated for turn in tree.turns] == [None, None, "turns"]
        assert tree.turns[-1].success is False and tree.episode_return("0.2") == 3.0


async def test_an_environment_that_truncates_cuts_the_episode() -> None:
    class Short(Letters):
        def step(self, action: str) -> StepResult:
            return StepResult("time is up", 1.0, truncated=True)

    trees, report = await sample(Short)
    assert report.truncated == {"environment": 12} and report.succeeded == 0
    assert all(turn.truncated == "environment" and turn.success is False for tree in trees for turn in tree.turns)


class Talkative(Letters):
    """Speaks."""

    def step(self, action: str) -> StepResult:
        return StepResult("x" * 60)


async def test_a_full_context_stops_the_episode_under_stop() -> None:
    settings = SampleSettings(samples=1, max_turns=9, max_tokens=8)
    trees, report = await sample(Talkative, engine=FunctionEngine(max_model_len=300), settings=settings)
    assert report.truncated == {"context": 4} and not report.failures
    for tree in trees:
        assert 1 < len(tree.turns) < 9
        assert all(len(tree.context_ids(turn.id)) + 8 <= 300 for turn in tree.turns)


async def test_a_full_context_loses_its_oldest_turns_under_window() -> None:
    settings = SampleSettings(samples=1, max_turns=9, max_tokens=8, overflow="window")
    engine = FunctionEngine(max_model_len=400)
    trees, report = await sample(Talkative, engine=engine, settings=settings)
    assert report.truncated == {"turns": 4} and report.fresh["window"] >= 4
    requests = by_seed(engine)
    for tree in trees:
        assert len(tree.turns) == 9 and len(tree.segments("0.8")) > 1
        assert all(tuple(tree.context_ids(turn.id)) == requests[turn.draw.seed].prompt_ids for turn in tree.turns)


async def test_a_full_context_is_summarised_by_a_turn_that_does_not_act() -> None:
    settings = SampleSettings(samples=1, max_turns=6, max_tokens=8, overflow="summarise")
    engine = FunctionEngine(max_model_len=560)
    trees, report = await sample(Talkative, engine=engine, settings=settings)
    assert report.fresh["summary"] >= 4 and report.truncated == {"turns": 4}
    for tree in trees:
        summaries = [turn for turn in tree.turns if turn.action is None]
        assert summaries and len(tree.turns) - len(summaries) == 6, "a summary is no turn of the environment"
        for summary in summaries:
            (after,) = tree.children(summary.id)
            assert summary.observation is None and after.fresh == "summary"


async def test_a_first_prompt_that_does_not_fit_is_a_failure_and_not_an_empty_trajectory() -> None:
    settings = SampleSettings(samples=1, max_tokens=8, max_failures=1.0)
    trees, report = await sample(engine=FunctionEngine(max_model_len=50), settings=settings)
    assert report.failures == {"context.start": 4} and report.retried == {}
    assert all(not tree.turns and tree.failures[0].turn is None for tree in trees)


class BreaksAt(Letters):
    """Breaks in its second step."""

    def step(self, action: str) -> StepResult:
        if self.steps == 1:
            raise ValueError("the server is gone")
        self.steps += 1
        return StepResult("go on")


def only(trees: list[Tree]) -> Tree:
    (tree,) = trees
    return tree


async def test_the_turns_before_a_failure_are_kept_with_its_place_and_traceback() -> None:
    settings = SampleSettings(samples=1, retries=0, max_failures=1.0)
    tree = only((await sample(BreaksAt, settings=settings, count=1))[0])
    (failure,) = tree.failures
    assert [turn.observation for turn in tree.turns] == ["go on", None]
    assert tree.turns[1].completion_ids and tree.turns[1].action == tree.turns[1].text, "what was sampled is not lost"
    assert (failure.kind, failure.turn, failure.sample) == ("environment.step", "0.1", 0)
    assert "the server is gone" in failure.message
    assert failure.traceback is not None and "BreaksAt" not in failure.message.split("(")[0]
    assert 'raise ValueError("the server is gone")' in failure.traceback


async def test_an_engine_that_fails_is_a_failure_of_its_kind() -> None:
    settings = SampleSettings(samples=1, retries=0, max_failures=1.0)
    trees, report = await sample(engine=BrokenEngine("train-2"), settings=settings)
    assert report.failures == {"engine.connection": 1} and report.finished == 3
    (failure,) = [failure for tree in trees for failure in tree.failures]
    assert failure.message == "no answer to a prompt with 'train-2'" and failure.turn is None


async def test_an_error_of_ours_is_not_taken_for_a_failure_of_the_environment() -> None:
    class Bug(FunctionEngine):
        async def generate(self, request: GenerationRequest) -> None:  # type: ignore[override]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await sample(engine=Bug(), settings=SampleSettings(max_failures=1.0))


async def test_worked_examples_and_a_system_prompt_come_before_the_first_observation() -> None:
    class Shown(Letters):
        def demonstration(self, task: Task) -> list[str]:
            return ["zzz", task.data["letter"] * 3]

    async with pool_of(Shown) as pool:
        before = await preface(pool, 2, "Find letters.")
    assert [message.role for message in before.examples] == ["user", "assistant", "user", "assistant"] * 2
    engine = FunctionEngine()
    trees, _ = await sample(Shown, engine=engine, preface=before, count=1)
    text = "".join(map(chr, engine.requests[0].prompt_ids))
    assert text.index("Find letters.") < text.index("zzz") < text.index("bbb") < text.rindex("find a (train-0)")
    assert trees[0].system_prompt == "Find letters."


async def test_an_engine_failure_in_the_middle_names_the_last_turn() -> None:
    class Second(FunctionEngine):
        async def generate(self, request: GenerationRequest):  # type: ignore[no-untyped-def]
            if "no, not" in "".join(map(chr, request.prompt_ids)):
                raise EngineFailure("request", "refused")
            return await super().generate(request)

    settings = SampleSettings(samples=3, max_failures=1.0)
    trees, report = await sample(engine=Second(), settings=settings, count=1)
    assert report.failures["engine.request"] >= 1 and not report.retried, "a refused request would be refused again"
    tree = only(trees)
    for failure in tree.failures:
        assert failure.turn == f"{failure.sample}.0" and tree[failure.turn].observation is not None
