"""What this version can run. The language holds more; what is not here is refused by name when a recipe is loaded, after everything else
was checked.

This is the one place to widen when the loop learns something new.
"""

from __future__ import annotations

from collections.abc import Iterator

from agentloop.recipe.control import Python, Repeat, Tune
from agentloop.recipe.measure import Evaluate
from agentloop.recipe.part import Part
from agentloop.recipe.problem import Problem
from agentloop.recipe.recipe import Recipe
from agentloop.recipe.sample import Sample
from agentloop.recipe.schedule import Scheduled
from agentloop.recipe.source import Path
from agentloop.recipe.stage import Stage
from agentloop.recipe.stages import WORDS, tag_of
from agentloop.recipe.walk import stages_of

AVAILABLE: dict[str, frozenset[str]] = {
    "stage": frozenset({"sample", "build", "train", "evaluate", "gate"}),
    "sampling method": frozenset({"group"}),
    "critic": frozenset(),
    "dataset": frozenset({"self_imitation", "mix"}),
    "training method": frozenset({"sft"}),
    "metric": frozenset({"success", "reward", "turns", "tokens"}),
    "overflow": frozenset({"stop", "window", "summarise"}),
    "part": frozenset({"schedule by iteration", "when", "@previous", "@all", "a file in 'from'", "evaluation of trees"}),
}
"""Words by what they are. Under "part" stand the parts of the language with no word of their own; `PARTS` lists all of them."""

PARTS = (
    "schedule by iteration",
    "schedule by update",
    "when",
    "@previous",
    "@all",
    "a file in 'from'",
    "into",
    "memory",
    "start_from",
    "seats",
    "environments",
    "tasks from an artifact",
    "admissible draws",
    "evaluation of trees",
    "evaluation of an adapter by name",
    "a role behind a URL",
    "a scoring model as a role",
    "stores",
    "an archive",
    "placement",
)

_ROLES = {"url": "a role behind a URL", "scoring": "a scoring model as a role"}


def unavailable(recipe: Recipe) -> list[Problem]:
    """A problem for each thing in the recipe that this version cannot run."""
    found = list(_of_recipe(recipe))
    for path, stage in stages_of(recipe):
        found += _of_stage(recipe, path, stage)
    return found


def _missing(what: str, word: str, path: Path) -> Iterator[Problem]:
    if word not in AVAILABLE[what]:
        name = word if what == "part" else f"{what} {word!r}"
        yield Problem(path, f"{name} is not available in this version")


def _of_recipe(recipe: Recipe) -> Iterator[Problem]:
    for name, role in recipe.roles.items():
        if role.kind in _ROLES:
            yield from _missing("part", _ROLES[role.kind], ("roles", name))
    if recipe.stores:
        yield from _missing("part", "stores", ("stores",))
    if recipe.lineage.archive is not None:
        yield from _missing("part", "an archive", ("lineage",))
    if recipe.placement is not None:
        yield from _missing("part", "placement", ("placement",))
    if recipe.environments is not None:
        yield from _missing("part", "environments", ("environments",))


def _of_stage(recipe: Recipe, path: Path, stage: Stage) -> Iterator[Problem]:
    if stage.kind not in AVAILABLE["stage"]:
        yield from _missing("stage", stage.kind, path)
        return
    if stage.kind in WORDS:
        key, what, *_ = WORDS[stage.kind]
        yield from _missing(what, tag_of(stage).partition(":")[2], (*path, key))
    if stage.when is not None:
        yield from _missing("part", "when", (*path, "when"))
    key = "inputs" if isinstance(stage, Python) else "from"
    for reference in stage.inputs:
        if reference.file:
            yield from _missing("part", "a file in 'from'", (*path, key))
        elif reference.occasion != "this":
            yield from _missing("part", f"@{reference.occasion}", (*path, key))
    if getattr(stage, "into", None) is not None:
        yield from _missing("part", "into", (*path, "into"))
    if isinstance(stage, Sample):
        yield from _of_sample(path, stage)
    if isinstance(stage, Evaluate):
        for metric in stage.metrics:
            yield from _missing("metric", metric, (*path, "metrics"))
        for reference in stage.inputs:
            adapter = any(other.id == reference.name and other.makes == "adapter" for other in recipe.all_stages())
            yield from _missing("part", "evaluation of an adapter by name" if adapter else "evaluation of trees", (*path, "from"))
    if not isinstance(stage, Repeat | Tune):
        yield from _of_numbers(path, stage)


def _of_sample(path: Path, stage: Sample) -> Iterator[Problem]:
    yield from _missing("overflow", stage.overflow, (*path, "overflow"))
    for key in ("start_from", "seats", "environments", "memory"):
        if getattr(stage, key) is not None:
            yield from _missing("part", key, (*path, key))
    if stage.from_ is not None:
        yield from _missing("part", "tasks from an artifact", (*path, "from"))
    if stage.draw == "admissible":
        yield from _missing("part", "admissible draws", (*path, "draw"))


def _of_numbers(path: Path, part: Part) -> Iterator[Problem]:
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, Scheduled) and value.shape in ("values", "cosine", "linear"):
            yield from _missing("part", f"schedule by {value.by}", (*path, name))
