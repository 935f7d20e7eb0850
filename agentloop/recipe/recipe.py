"""`Recipe`: a list of stages over named artifacts, and what they need: a model, environments, roles, stores.

This is the syntax only. What one part may say of another (artifacts that nothing makes, schedules that are too short) is
`agentloop.recipe.check`, what this version can run is `agentloop.recipe.available`; `agentloop.recipe.load` asks all three.
"""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator, model_validator

from agentloop.recipe.part import Count, Name, NotEmpty, Part, Whole, trouble
from agentloop.recipe.settings import Engine, Environment, Lineage, ModelName, Placement, Prompt, Role, Store
from agentloop.recipe.settle import settled
from agentloop.recipe.stage import ACTOR, Stage
from agentloop.recipe.stages import AnyStage

ONLY = "environment"
"""Name of the environment of a recipe that has one."""


class Recipe(Part):
    """A whole recipe, with all defaults filled in."""

    name: Name
    """Name of the recipe."""
    description: str | None = None
    """What it does, in a sentence."""
    model: ModelName
    """Base model of every adapter: an alias, a hub id (ORG/NAME) or a folder."""
    engine: Engine = Field(default_factory=Engine)
    """How completions are generated."""
    environment: Environment | None = None
    """The environment."""
    environments: Annotated[dict[Name, Environment], NotEmpty] | None = None
    """Several environments by name, in place of `environment`."""
    roles: dict[Name, Role] = {}
    """Who acts. `actor`, an adapter, is always there."""
    prompt: Prompt = Field(default_factory=Prompt)
    """What stands in the prompt beside the environment's words."""
    seed: Whole = 0
    """Seed of everything that is drawn."""
    iterations: Count = 1
    """How often the stages are run."""
    lineage: Lineage = Field(default_factory=Lineage)
    """Which adapter the next iteration starts from."""
    stores: dict[Name, Store] = {}
    """What lives across iterations."""
    placement: Placement | None = None
    """Who has which accelerators; null shares them."""
    stages: Annotated[tuple[AnyStage, ...], NotEmpty]
    """The stages of an iteration, in order."""
    final: tuple[AnyStage, ...] = ()
    """Stages that run once, after the last iteration, with the adapters that were kept."""

    @model_validator(mode="before")
    @classmethod
    def _settled(cls, value: object) -> object:
        return settled(value)

    @field_validator("environments")
    @classmethod
    def _not_both(cls, value: dict[str, Environment] | None, info: ValidationInfo) -> dict[str, Environment] | None:
        if value is not None and info.data.get("environment") is not None:
            raise trouble("a recipe has 'environment' or 'environments', not both")
        return value

    def role(self, name: str) -> Role:
        """The role of this name; `actor` is an adapter unless the recipe says otherwise. Raises KeyError."""
        return self.roles[name] if name in self.roles or name != ACTOR else Role()

    def role_names(self) -> tuple[str, ...]:
        """Names of all roles, the actor first."""
        return (ACTOR, *(name for name in self.roles if name != ACTOR))

    def all_environments(self) -> dict[str, Environment]:
        """The environments by name; a single one is called "environment"."""
        if self.environments is not None:
            return dict(self.environments)
        return {} if self.environment is None else {ONLY: self.environment}

    def all_stages(self) -> Iterator[Stage]:
        """Every stage, in order, nested and final ones too."""
        for stage in (*self.stages, *self.final):
            yield from _with_nested(stage)


def _with_nested(stage: Stage) -> Iterator[Stage]:
    yield stage
    for inner in getattr(stage, "stages", ()):
        yield from _with_nested(inner)
