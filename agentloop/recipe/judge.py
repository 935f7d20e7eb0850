"""`judge` adds verdicts to trees: who judges, what is asked, and how often."""

from typing import ClassVar, Literal

from pydantic import Field

from agentloop.recipe.part import Count, Name, NonNegative
from agentloop.recipe.reference import References
from agentloop.recipe.schedule import Scheduled
from agentloop.recipe.settings import ArtifactType
from agentloop.recipe.stage import Work


class Judge(Work):
    """Reads trees and makes the same trees with verdicts."""

    kind: ClassVar[str] = "judge"
    takes: ClassVar[tuple[ArtifactType, ...]] = ("trees",)
    makes: ClassVar[ArtifactType | None] = "trees"
    needs_input: ClassVar[bool] = True

    from_: References = Field(alias="from")
    """The trees."""
    into: Name | None = None
    """Store that the judged trees are added to."""


class ModelJudge(Judge):
    """A judge that asks a model."""

    temperature: Scheduled[NonNegative] = Scheduled.constant(0.0)
    """Sampling temperature of the judge; 0 is greedy."""
    max_tokens: Scheduled[Count] = Scheduled.constant(256)
    """Most tokens of an answer."""
    votes: Scheduled[Count] = Scheduled.constant(1)
    """Times that the judge is asked; a verdict needs all of them to agree."""
    prompt: str | None = None
    """The question, in place of the critic's own."""
    concurrency: Count = 32
    """Questions that are asked at once."""


class OutcomeJudge(Judge):
    """The environment's own reward and success as a verdict."""

    critic: Literal["outcome"]


class RubricJudge(ModelJudge):
    """A score against a rubric, for each episode."""

    critic: Literal["rubric"]
    rubric: str
    """What is scored, in words."""
    scale: Count = 5
    """Highest score; the lowest is 1."""


class FirstErrorJudge(ModelJudge):
    """The first harmful turn of a failed episode (Agent-R, arXiv:2501.11425)."""

    critic: Literal["first_error"]


class PairwiseJudge(ModelJudge):
    """Which of two episodes of a task is better; the verdict is the share of comparisons won (SPO, arXiv:2401.04056)."""

    critic: Literal["pairwise"]
    rivals: Scheduled[Count] | None = None
    """Episodes that each is compared with; null is all others of the group."""


class ScoringJudge(Judge):
    """The number that a scoring model gives (a classifier, a reward model): `role` must be one."""

    critic: Literal["scoring"]
    each: Literal["episode", "turn"] = "episode"
    """What is scored."""


JUDGES: tuple[type[Judge], ...] = (OutcomeJudge, RubricJudge, FirstErrorJudge, PairwiseJudge, ScoringJudge)
