"""How a judge is asked: exact tokens, a second try under constraint, votes, seeds, what does not fit, what fails."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentloop.critic import AskSettings, FirstError, ModelJudge, Pairwise, Rubric
from agentloop.critic.base import Critic
from agentloop.critic.progress import JudgeProgress
from agentloop.engine.base import EngineFailure, GenerationRequest
from agentloop.errors import Mistake
from agentloop.trace.hash import content_hash
from agentloop.trace.ledger import Ledger
from agentloop.trace.segment import segment_ids
from agentloop.trace.verdict import BAD
from tests.critic.test_first_error import by_word
from tests.critic.world import Judge, grow, judged, latest, respondent, verdicts

TREE = grow(["g1", "u2", "b3"], ["g1", "g4", "g5"])


async def test_the_turn_holds_the_very_ids_of_its_request() -> None:
    engine = Judge(by_word)
    found = (await ModelJudge(FirstError(), respondent(engine, role="actor")).judge(TREE)).tree
    questions = [turn for turn in found.turns if turn.from_critic]
    assert len(questions) == len(engine.requests) == 5
    sent = {request.seed: request for request in engine.requests}
    for turn in questions:
        assert tuple(found.context_ids(turn.id)) == sent[turn.draw.seed].prompt_ids
        assert (turn.seat, turn.role, turn.fresh, turn.draw.kind) == ("critic", "actor", "critic", "policy")
        assert turn.draw.has_ratio and turn.logprobs is not None and len(turn.logprobs) == len(turn.completion_ids)
        assert turn.id.startswith(f"{turn.parent}/") and turn.action is None and turn.observation is None


async def test_a_critics_turns_are_no_part_of_any_episode() -> None:
    found = await judged(TREE, FirstError(), by_word)
    assert [leaf.id for leaf in found.leaves()] == [leaf.id for leaf in TREE.leaves()]
    for leaf in TREE.leaves():
        assert found.path(leaf.id) == TREE.path(leaf.id)
        assert found.segments(leaf.id) == TREE.segments(leaf.id)
        assert found.segments(leaf.id, seat="critic") == ()
    for turn in TREE.turns:
        assert found.children(turn.id) == TREE.children(turn.id)
        assert [child.parent for child in found.children(turn.id, critics=True)] == [turn.id]


async def test_a_critic_can_be_trained_on_its_own_turns() -> None:
    """Both turns of a dialogue are one segment; the constrained one is context, or trains without a ratio."""
    found = await judged(grow(["b1"]), FirstError(), lambda prompt: "No idea.")
    (leaf,) = found.leaves(seat="critic")
    (segment,) = found.segments(leaf.id, seat="critic")
    assert [turn.id for turn in segment] == ["0.0/judge.0.0", "0.0/judge.0.1"]
    ids, mask, _ = segment_ids(segment, trained=[segment[0].id])
    assert [id for id, trains in zip(ids, mask, strict=True) if trains] == list(segment[0].completion_ids)
    assert [turn.draw.has_ratio for turn in segment] == [True, False]


async def test_what_cannot_be_read_is_asked_for_again_under_constraint() -> None:
    engine = Judge(lambda prompt: "I would rather not say.")
    progress = JudgeProgress("errors", 1)
    found = (await ModelJudge(FirstError(), respondent(engine), progress=progress, stage="errors").judge(grow(["g1"]))).tree
    free, constrained = engine.requests
    assert free.choices == () and constrained.choices == ("Judgement: Good", "Judgement: Bad", "Judgement: Uncertain")
    assert constrained.prompt_ids[: len(free.prompt_ids)] == free.prompt_ids  # the same context goes on
    first, second = [turn for turn in found.turns if turn.from_critic]
    assert (second.extends, second.draw.kind, second.text) == (first.id, "constrained", "Judgement: Good")
    assert found.verdicts[0].turns == (first.id, second.id) and found.verdicts[0].stage == "errors"
    assert (progress.asked, progress.again, progress.unreadable, progress.labels) == (1, 1, 0, {"Good": 1})


async def test_an_answer_that_was_cut_is_not_read() -> None:
    """ "Score: 1" may have been about to become "Score: 10"."""
    engine = Judge(lambda prompt: "Score: 10" if "nothing else" not in prompt else "Score: 9")
    judge = ModelJudge(Rubric("r", scale=10), respondent(engine), AskSettings(max_tokens=8))
    found = (await judge.judge(grow(["a"]))).tree
    assert [turn.text for turn in found.turns if turn.from_critic] == ["Score: 1", "Score: 9"]
    assert verdicts(found) == {"0.0": (9.0, "9")}


async def test_seeds_belong_to_tree_stage_question_and_vote() -> None:
    def seeds(requests: list[GenerationRequest]) -> list[int | None]:
        return sorted(request.seed or 0 for request in requests)

    async def ask(votes: int, stage: str = "s", seed: int = 3) -> list[int | None]:
        engine = Judge(by_word)
        tree = grow(["g1", "u2"], seed=seed)
        await ModelJudge(FirstError(), respondent(engine), AskSettings(votes=votes, temperature=1.0), stage=stage).judge(tree)
        return seeds(engine.requests)

    three = await ask(3)
    assert len(set(three)) == 6 and set(await ask(1)) < set(three) and await ask(3) == three
    assert not set(three) & set(await ask(3, stage="t")) and not set(three) & set(await ask(3, seed=4))


@given(order=st.randoms(use_true_random=False))
async def test_who_is_answered_first_changes_nothing(order: random.Random) -> None:
    class Slow(Judge):
        async def generate(self, request: GenerationRequest):  # type: ignore[no-untyped-def]
            for _ in range(order.randint(0, 5)):
                await asyncio.sleep(0)
            return await super().generate(request)

    critics: list[Critic] = [FirstError(), Pairwise()]
    for critic in critics:
        script = by_word if isinstance(critic, FirstError) else lambda prompt: f"Better: {'AB'[len(prompt) % 2]}"
        settings = AskSettings(votes=2, temperature=1.0)
        alone, crowd = (ModelJudge(critic, respondent(kind(script)), settings) for kind in (Judge, Slow))
        assert content_hash((await alone.judge(TREE)).tree) == content_hash((await crowd.judge(TREE)).tree)


async def test_no_more_requests_at_once_than_asked_for() -> None:
    at_once, most = 0, 0

    class Counting(Judge):
        async def generate(self, request: GenerationRequest):  # type: ignore[no-untyped-def]
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0)
            at_once -= 1
            return await super().generate(request)

    tree = grow(*([f"g{number}"] for number in range(9)))
    await ModelJudge(FirstError(), respondent(Counting(by_word)), AskSettings(concurrency=4, votes=2, temperature=1.0)).judge(tree)
    assert most == 4


async def test_a_long_log_is_shortened_from_its_beginning() -> None:
    path = [f"g{number:02} " + "x" * 40 for number in range(30)]
    engine = Judge(by_word, max_model_len=3000)
    progress = JudgeProgress("s", 1)
    judge = ModelJudge(FirstError(), respondent(engine), AskSettings(max_tokens=100), progress=progress)
    result = await judge.judge(grow(path))
    assert result.failures == () and len(verdicts(result.tree)) == 30 and progress.shortened > 0
    last = max(engine.requests, key=lambda request: "step 30" in "".join(map(chr, request.prompt_ids)))
    prompt = "".join(map(chr, last.prompt_ids))
    assert latest(prompt) == path[29] and "> a door" in prompt and "> g28" in prompt and "> g00" not in prompt
    assert "earlier steps are left out.)" in prompt
    for request in engine.requests:
        assert len(request.prompt_ids) + 100 <= 3000
    # Nothing more was left out than had to be: one step more would not have fitted.
    assert len(last.prompt_ids) + 2 * len(path[0]) + 200 > 3000 - 100 - 300


async def test_a_question_that_never_fits_fails_and_the_walk_ends_there() -> None:
    progress = JudgeProgress("s", 1)
    result = await ModelJudge(FirstError(), respondent(Judge(by_word, max_model_len=400)), progress=progress).judge(grow(["g1", "g2"]))
    (failure,) = result.failures
    assert (failure.kind, failure.question) == ("engine.context", "0.0") and "do not fit" in failure.message
    assert result.tree.verdicts == () and progress.failures == {"engine.context": 1}


async def test_a_passing_fault_is_tried_again_and_a_lasting_one_is_counted() -> None:
    class Broken(Judge):
        def __init__(self, kind: str, times: int) -> None:
            super().__init__(by_word)
            self.kind, self.left = kind, times

        async def generate(self, request: GenerationRequest):  # type: ignore[no-untyped-def]
            self.left -= 1
            if self.left >= 0:
                raise EngineFailure(self.kind, "gone")
            return await super().generate(request)

    tree = grow(["b1"])
    outcomes = {}
    for kind, times in (("timeout", 1), ("timeout", 2), ("request", 1)):
        progress = JudgeProgress("s", 1)
        result = await ModelJudge(FirstError(), respondent(Broken(kind, times)), progress=progress).judge(tree)
        outcomes[kind, times] = ([failure.kind for failure in result.failures], dict(progress.retried), len(result.tree.verdicts))
    assert outcomes == {
        ("timeout", 1): ([], {"engine.timeout": 1}, 1),
        ("timeout", 2): (["engine.timeout"], {"engine.timeout": 1}, 0),
        ("request", 1): (["engine.request"], {}, 0),
    }


async def test_a_stage_may_judge_what_it_judged_before() -> None:
    once = await judged(TREE, FirstError(), by_word, stage="errors")
    twice = await judged(once, FirstError(), by_word, stage="errors")
    assert len(twice.verdicts) == 2 * len(once.verdicts)
    assert {turn.id for turn in twice.turns} > {"0.0/errors.0.0", "0.0/errors~2.0.0"}


async def test_judged_tokens_are_the_judges(capsys: object) -> None:
    engine = Judge(lambda prompt: "No.")
    progress = JudgeProgress("s", 1)
    found = (await ModelJudge(FirstError(), respondent(engine, role="judge"), progress=progress).judge(TREE)).tree
    ledger = Ledger.of_trees([found], "s")
    sent = sum(len(request.prompt_ids) for request in engine.requests)
    assert ledger.total(role="judge").judged == sent + progress.generated == progress.prompt + progress.generated
    assert ledger.total(role="actor") == Ledger.of_trees([TREE], "s").total()


def test_votes_of_a_greedy_judge_are_a_mistake() -> None:
    with pytest.raises(Mistake, match="votes of a greedy judge are all the same"):
        AskSettings(votes=3)


async def test_a_bug_in_a_critic_is_not_a_failure_of_the_judge() -> None:
    class Wrong(FirstError):
        def after(self, tree, question, votes):  # type: ignore[no-untyped-def]
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        await ModelJudge(Wrong(), respondent(Judge(by_word))).judge(TREE)


async def test_the_words_of_the_label_are_those_of_the_answer() -> None:
    found = await judged(grow(["g1"]), FirstError(), lambda prompt: "judgment: BAD")
    assert found.verdicts[0].label == BAD
