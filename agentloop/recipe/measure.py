"""`evaluate` makes a measurement, `gate` decides by one what the next iteration starts from."""

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from agentloop.recipe.part import Name, NonNegative, trouble, unknown
from agentloop.recipe.reference import References
from agentloop.recipe.sample import Play
from agentloop.recipe.schedule import Scheduled
from agentloop.recipe.settings import ArtifactType
from agentloop.recipe.stage import METRICS, Work


class Evaluate(Play):
    """Plays a split, or goes on from nodes of trees, and measures, with 95 % intervals clustered by task; or measures trees or rows that
    exist, without playing.
    """

    kind: ClassVar[str] = "evaluate"
    takes: ClassVar[tuple[ArtifactType, ...]] = ("trees", "rows", "adapter")
    makes: ClassVar[ArtifactType | None] = "measurement"

    split: Literal["train", "dev", "test"] = "dev"
    """Split that is played. `test` only in `final`."""
    environment: Name | None = None
    """Which of the recipe's `environments`; null where there is one only."""
    temperature: Scheduled[NonNegative] = Scheduled.constant(0.0)
    """Sampling temperature; 0 is greedy."""
    metrics: tuple[str, ...] = ("success", "reward", "turns", "tokens")
    """What is measured."""
    compare_to: Literal["base"] | None = None
    """Measure the bare base model too, with the same prompt, tasks and decoding."""

    @model_validator(mode="before")
    @classmethod
    def _plays_or_reads(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("from") is not None and value.get("start_from") is not None:
            raise trouble(
                "an evaluation measures what is there ('from') or plays on from it ('start_from'), not both", path=("start_from",)
            )
        return value

    @field_validator("metrics")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for index, metric in enumerate(value):
            if metric not in METRICS:
                raise unknown("metric", metric, METRICS, path=(index,))
        return value


class Gate(Work):
    """Accepts what this iteration trained, or goes back to what was best."""

    kind: ClassVar[str] = "gate"
    takes: ClassVar[tuple[ArtifactType, ...]] = ("measurement",)
    needs_input: ClassVar[bool] = True

    from_: References = Field(alias="from")
    """The measurement; never of the test split."""
    metric: str = "success"
    """The number that decides."""
    keep: Literal["best", "last"] = "best"
    """`best`: accept only what is better than the best so far by more than `margin`; `last`: accept always."""
    margin: Scheduled[NonNegative] = Scheduled.constant(0.0)
    """How much better it must be."""
