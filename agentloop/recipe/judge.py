"""`judge` adds verdicts to trees: who judges, what is asked, and how often."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from agentloop.recipe.part import Count, Name, NonNegative, Share, trouble
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
    max_failures: Share = 0.1
    """Share of questions that the judge's model fails to answer above which the run stops."""


def votes_differ(value: object) -> object:
    """What says how a model is asked, unless it asks several times for what is the same each time; before its numbers are read."""
    if isinstance(value, dict) and value.get("temperature", 0.0) == 0.0:
        votes = value.get("votes", 1)
        if isinstance(votes, int) and votes > 1:
            raise trouble("votes of a greedy judge are all the same", path=("votes",), found=votes, expected="a temperature above 0")
    return value


class ModelJudge(Judge):
    """A judge that asks a model."""

    temperature: Scheduled[NonNegative] = Scheduled.constant(0.0)
    """Sampling temperature of the judge; 0 is greedy."""
    max_tokens: Scheduled[Count] = Scheduled.constant(256)
    """Most tokens of an answer."""
    votes: Scheduled[Count] = Scheduled.constant(1)
    """Times that each question is asked: the most frequent label counts, of numbers the mean (self-consistency, arXiv:2203.11171)."""
    prompt: str | None = None
    """What is asked, in place of the critic's own words; the episode and the form of the answer are added to it."""
    concurrency: Count = 32
    """Questions that are asked at once."""

    @model_validator(mode="before")
    @classmethod
    def _votes_differ(cls, value: object) -> object:
        return votes_differ(value)


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
    paths: Literal["failed", "contrasted", "all"] = "failed"
    """Which episodes are walked: those without success; of these, only those beside a better one in their tree; or all."""


class PairwiseJudge(ModelJudge):
    """Which of two episodes of a task is better; the verdict is the share of comparisons won (SPO, arXiv:2401.04056)."""

    critic: Literal["pairwise"]
    rivals: Scheduled[Count] | None = None
    """Episodes that each is compared with (one more where the number is odd); null is all others of the tree."""


class ScoringJudge(Judge):
    """The number that a scoring model gives: of a reward model its output, of a classifier the probability of its last class. `role` must
    be one.
    """

    critic: Literal["scoring"]
    each: Literal["episode", "turn"] = "episode"
    """What is scored."""


JUDGES: tuple[type[Judge], ...] = (OutcomeJudge, RubricJudge, FirstErrorJudge, PairwiseJudge, ScoringJudge)
