"""Stages that hold stages (`repeat`, `tune`), and `python`, the way out of the language."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from agentloop.recipe.part import Count, Name, NotEmpty, Part, trouble
from agentloop.recipe.reference import Reference
from agentloop.recipe.settings import ArtifactType, FunctionName
from agentloop.recipe.stage import ACTOR, Stage, When

if TYPE_CHECKING:
    from agentloop.recipe.stages import AnyStage

MOST_ROUNDS = 100
"""Rounds of a `repeat: {until: ...}` that does not say `times`."""


class Repeat(Stage):
    """Its stages over and over: `times` rounds, or until a measurement satisfies a condition. It nests."""

    kind: ClassVar[str] = "repeat"

    times: Count | None = None
    """Rounds; with `until` the most rounds, by default 100."""
    until: When | None = None
    """Checked after each round; the repetition ends when it holds."""
    stages: Annotated[tuple["AnyStage", ...], NotEmpty]
    """The stages of a round."""

    @model_validator(mode="before")
    @classmethod
    def _ends(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("times") is None:
            if value.get("until") is None:
                raise trouble("a 'repeat' needs an end", expected="times: COUNT or until: {metric, above | below}")
            return {**value, "times": MOST_ROUNDS}
        return value

    @property
    def most_rounds(self) -> int:
        """Rounds at most."""
        return self.times or MOST_ROUNDS


class Choice(Part):
    """What `tune` chooses by."""

    from_: Reference = Field(alias="from")
    """The measurement, made by one of the stages inside."""
    metric: str
    """The number that decides."""
    prefer: Literal["highest", "lowest"] = "highest"
    """Which is best."""


class Tune(Stage):
    """Its stages once for each combination of the `{grid: ...}` numbers in them. The best combination is kept, with what it made.

    Later stages use a choice as `{tuned: STAGE.SETTING}`.
    """

    kind: ClassVar[str] = "tune"

    choose: Choice
    """By what the best combination is found."""
    trials: Count | None = None
    """Most combinations, drawn at random; null is all."""
    stages: Annotated[tuple["AnyStage", ...], NotEmpty]
    """The stages of a trial."""


def _named(value: object) -> object:
    """`inputs: [rows, old@all]` is short for `inputs: {rows: rows, old: old@all}`."""
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return {entry.partition("@")[0]: entry for entry in value}
    return value


class Python(Stage):
    """A function of one's own: gets the declared inputs by name, returns the declared outputs."""

    kind: ClassVar[str] = "python"

    function: FunctionName
    """FILE.py:FUNCTION."""
    role: Name = ACTOR
    """Whose adapter the function may use."""
    inputs_: Annotated[dict[str, Reference], BeforeValidator(_named)] = Field(default={}, alias="inputs")
    """Parameter to artifact; a list where the names are the same."""
    outputs: Annotated[dict[Name, ArtifactType], NotEmpty]
    """Artifact to type."""

    @property
    def inputs(self) -> tuple[Reference, ...]:
        return tuple(self.inputs_.values())
