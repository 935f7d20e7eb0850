"""`judge`: a critic reads trees and adds typed verdicts to them; its questions and answers stay in the trees as turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentloop.critic import (
    AskSettings,
    Critic,
    FirstError,
    JudgeProgress,
    JudgeReport,
    Limits,
    ModelJudge,
    OutcomeJudge,
    Pairwise,
    Rubric,
    ScoringJudge,
    TreeJudge,
    judge_trees,
)
from agentloop.errors import RunFailed
from agentloop.loop import references
from agentloop.loop.context import Context, Outcome, StageRun
from agentloop.loop.judging import respondent
from agentloop.recipe import judge as recipe
from agentloop.run.journal import Output
from agentloop.sampling.progress import display
from agentloop.trace.hash import trees_hash
from agentloop.trace.ledger import Ledger
from agentloop.trace.store import TreeWriter, count_trees, read_trees
from agentloop.trace.tree import Tree
from agentloop.trace.verdict import VerdictCounts

TREES = 32
"""Trees at once of a judge that asks nobody; one that asks takes as many as it may ask questions."""


async def judge(run: StageRun, context: Context) -> Outcome:
    """Judge every tree that `from` names; after a kill, the trees that are not judged yet."""
    stage = run.stage
    assert isinstance(stage, recipe.Judge)
    sources = references.paths(stage.from_, run, context.directory)
    path = context.directory.artifact(run.label, "trees", stage.id)
    progress = JudgeProgress(stage.id, sum(map(count_trees, sources)))
    order: list[str] = []
    about: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        judge = await _judge(run, context, stage, progress, stack, about)
        limits = Limits(trees=getattr(stage, "concurrency", TREES), max_failures=stage.max_failures)
        with TreeWriter(path) as writer, display(quiet=context.quiet) as shown:
            report = await judge_trees(_trees(sources, order), judge, writer, progress=progress, limits=limits, shown=shown.update)
            writer.finish(order)
    counts = VerdictCounts.of(read_trees(path), stage.id)
    output = Output("trees", context.directory.relative(path), trees_hash(path), count_trees(path), {"critic": _critic_name(stage)})
    tokens = _judged_tokens(path, sources, stage)
    about |= {"note": counts.in_words(), "verdicts": {"critic": _critic_name(stage)} | asdict(counts)} | _facts(progress, report)
    return Outcome({stage.id: output}, tokens=tokens, failures=dict(report.failures), about=about)


async def _judge(
    run: StageRun, context: Context, stage: recipe.Judge, progress: JudgeProgress, stack: AsyncExitStack, about: dict[str, Any]
) -> TreeJudge:
    """Whoever judges; what it needs is opened on `stack`, and what the report should know of it goes into `about`."""
    if isinstance(stage, recipe.OutcomeJudge):
        return OutcomeJudge(stage=stage.id)
    if isinstance(stage, recipe.ScoringJudge):
        from agentloop.critic.scorer import TransformersScorer
        from agentloop.model import resolve

        role = context.recipe.role(stage.role)
        assert role.model is not None and role.scoring != "embedder"
        about["adapter"] = role.model
        scorer = await TransformersScorer.open(resolve(role.model).path, name=role.model, kind=role.scoring)
        return ScoringJudge(scorer, role=stage.role, each=stage.each, stage=stage.id, progress=progress)
    assert isinstance(stage, recipe.ModelJudge)
    at = run.schedule_at
    settings = AskSettings(stage.temperature.at(at), stage.max_tokens.at(at), stage.votes.at(at), stage.concurrency)
    asked = await respondent(stage.role, context, stack, about)
    return ModelJudge(_critic(stage, at), asked, settings, stage=stage.id, progress=progress)


def _critic(stage: recipe.ModelJudge, iteration: int) -> Critic:
    """The critic that a stage describes; the recipe's `prompt` stands in place of the critic's own."""
    prompt: dict[str, Any] = {} if stage.prompt is None else {"prompt": stage.prompt}
    if isinstance(stage, recipe.RubricJudge):
        return Rubric(stage.rubric, stage.scale, **prompt)
    if isinstance(stage, recipe.PairwiseJudge):
        return Pairwise(None if stage.rivals is None else stage.rivals.at(iteration), **prompt)
    assert isinstance(stage, recipe.FirstErrorJudge)
    return FirstError(stage.paths, **prompt)


def _critic_name(stage: recipe.Judge) -> str:
    return str(stage.model_dump()["critic"])


def _trees(sources: list[Path], order: list[str]) -> Iterator[Tree]:
    """All trees, one after another; their ids go into `order`."""
    seen: set[str] = set()
    for source in sources:
        for tree in read_trees(source):
            if tree.id in seen:
                raise RunFailed(f"tree {tree.id!r} comes twice; to add one critic's verdicts to another's, judge what the other one judged")
            seen.add(tree.id)
            order.append(tree.id)
            yield tree


def _judged_tokens(path: Path, sources: list[Path], stage: recipe.Judge) -> dict[str, int]:
    """What this judging cost: what is in the judged trees and was not in them before."""
    after = Ledger.of_trees(read_trees(path), stage.id).total()
    before = Ledger.of_trees((tree for source in sources for tree in read_trees(source)), stage.id).total()
    return {"judged": after.judged - before.judged, "turns": after.turns - before.turns}


def _facts(progress: JudgeProgress, report: JudgeReport) -> dict[str, Any]:
    """What the report of a run shows of one judging; numbers of this attempt."""
    return {
        "resumed": progress.resumed,
        "questions": progress.asked,
        "asked_again": progress.again,
        "unreadable_answers": progress.unreadable,
        "shortened": progress.shortened,
        "retried": progress.retried,
        "judge_tokens": {"prompt": progress.prompt, "cached": progress.cached, "generated": progress.generated},
        "first_failures": {kind: failure.traceback or failure.message for kind, failure in report.first_failures.items()},
    }
