"""What stages have in common: `id` and `when`, and for most of them `role` and `from`."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from agentloop.recipe.part import Name, Number, Part, trouble
from agentloop.recipe.reference import Reference, References
from agentloop.recipe.schedule import Scheduled
from agentloop.recipe.settings import ArtifactType

ACTOR = "actor"
"""The role that plays where a stage does not say; every recipe has it."""

METRICS = ("success", "reward", "turns", "tokens", "pass", "majority", "balance", "diversity", "verdict")
"""What `evaluate` can measure: shares of solved tasks (of all, in any sample, by majority), means, the balance score of B-STaR, diversity
of behaviour, and the mean of a critic's verdicts.
"""


class When(Part):
    """A condition on the last measurement: `{metric: success, below: 0.5}`."""

    metric: str
    """Name of the number."""
    below: Number | None = None
    """True while the number is less than this."""
    above: Number | None = None
    """True while the number is more than this."""
    from_: Reference | None = Field(None, alias="from")
    """The `evaluate` stage that measured it; null is the last that did."""

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, value: object) -> object:
        if isinstance(value, dict) and "below" not in value and "above" not in value and "metric" in value:
            raise trouble("a condition needs a bound", expected="below: NUMBER or above: NUMBER")
        return value

    def holds(self, value: float) -> bool:
        """Whether the condition is true of a measured value."""
        return (self.below is None or value < self.below) and (self.above is None or value > self.above)


class Stage(Part):
    """Base of all stages.

    Class attributes:
        kind: The word that a recipe uses for it.
        takes: Types of artifacts that `from` may name; empty where there is no `from`.
        makes: Type of the artifact that gets the stage's id; None where it makes none.
    """

    kind: ClassVar[str]
    takes: ClassVar[tuple[ArtifactType, ...]] = ()
    makes: ClassVar[ArtifactType | None] = None
    needs_input: ClassVar[bool] = False

    id: Name = ""
    """Name of the stage and of what it makes. By default its kind, numbered where that is taken."""
    when: When | None = None
    """The stage is left out unless this holds."""

    @property
    def inputs(self) -> tuple[Reference, ...]:
        """Everything that the stage reads by name, in the order of the recipe."""
        return ()

    def settings(self, iteration: int, update: int = 0) -> dict[str, object]:
        """All settings as plain values, every schedule at this iteration; for builders, for hashes and for show. Nested stages are not in
        it.
        """
        found: dict[str, object] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, dict):
                value = {key: _now(entry, iteration, update) for key, entry in value.items()}
            else:
                value = _now(value, iteration, update)
            if name != "stages":
                found[name.rstrip("_")] = value
        return found


def _now(value: object, iteration: int, update: int) -> object:
    """A schedule's value at this time, what a `tune` stage decides as it is written, and so anything else."""
    if not isinstance(value, Scheduled):
        return value
    return value.at(iteration, update) if value.shape not in ("grid", "tuned") else value.data()


class Work(Stage):
    """A stage that does something with artifacts: everything except `repeat` and `tune`."""

    role: Name = ACTOR
    """Who acts, learns or is measured."""
    from_: References | None = Field(None, alias="from")
    """What the stage reads: NAME, NAME@previous, NAME@all or a file of one's own; one or a list of them."""

    @property
    def inputs(self) -> tuple[Reference, ...]:
        return self.from_ or ()


Overflow = Literal["stop", "window", "summarise"]


def method(stage: Stage) -> str | None:
    """The word by which a stage of one kind differs from another: sampling method, critic, dataset or training method."""
    for key in ("method", "critic", "dataset"):
        if key in type(stage).model_fields:
            return str(getattr(stage, key))
    return None
