"""What this version can run. The language holds more; what is not here is refused by name when a recipe is loaded, after everything else
was checked.

This is the one place to widen when the loop learns something new.
"""

from __future__ import annotations

from collections.abc import Iterator

from agentloop.recipe.build import Advantage, Build, Mix, SelfImitation
from agentloop.recipe.check import named_roles
from agentloop.recipe.control import Python
from agentloop.recipe.flow import artifacts_of
from agentloop.recipe.judge import Judge
from agentloop.recipe.measure import Evaluate
from agentloop.recipe.problem import Problem
from agentloop.recipe.recipe import Recipe
from agentloop.recipe.sample import Beam, Play, Sample, TreeSearch, critic_of
from agentloop.recipe.settings import ArtifactType
from agentloop.recipe.source import Path
from agentloop.recipe.stage import Stage
from agentloop.recipe.stages import WORDS, tag_of
from agentloop.recipe.train import PolicyTrain, Train
from agentloop.recipe.walk import numbers_of, stages_of

AVAILABLE: dict[str, frozenset[str]] = {
    "stage": frozenset({"sample", "judge", "build", "train", "evaluate", "gate"}),
    "sampling method": frozenset({"group", "mcts", "best_of_n", "beam"}),
    "critic": frozenset({"outcome", "rubric", "first_error", "pairwise", "scoring"}),
    "dataset": frozenset({"self_imitation", "reflection", "direct_revision", "optimal_only", "preference", "advantage", "attempts", "mix"}),
    "training method": frozenset({"sft", "dpo", "grpo"}),
    "metric": frozenset({"success", "reward", "turns", "tokens", "pass", "majority"}),
    "overflow policy": frozenset({"stop", "window", "summarise"}),
    "part": frozenset(
        {
            "a schedule by iteration",
            "a schedule by update",
            "'when'",
            "@previous",
            "@all",
            "a file in 'from'",
            "a measurement of trees",
            "a mix of rows",
            "'start_from'",
            "'critic' of a sample",
            "'stores'",
            "'into'",
        }
    ),
}
"""Words by what they are. Under "part" stand those of `PARTS`, the parts of the language with no single word of their own."""

PARTS = (
    "a schedule by iteration",
    "a schedule by update",
    "'when'",
    "@previous",
    "@all",
    "a file in 'from'",
    "a mix of rows",
    "a mix of tasks",
    "a mix of trees",
    "a measurement of trees",
    "a measurement of rows",
    "a measurement of adapter",
    "'from' of a sample",
    "'start_from'",
    "'start_from' of a search",
    "'seats'",
    "'memory'",
    "'environments'",
    "'critic' of a sample",
    "'draw: admissible' outside mcts and beam",
    "'seat' of a build",
    "'verdicts' of this dataset",
    "'stores'",
    "a store of tasks",
    "a store of trees",
    "'into'",
    "'lineage: archive'",
    "'placement'",
    "'prompt' of a role that does not judge",
    "a role behind a URL that does not judge",
    "a scoring model that does not judge",
    "an embedder as a judge",
    "a second training of a role in one iteration",
)

_ROLES = {"url": "a role behind a URL that does not judge", "scoring": "a scoring model that does not judge"}


def unavailable(recipe: Recipe) -> list[Problem]:
    """A problem for each thing in the recipe that this version cannot run."""
    found = list(_of_recipe(recipe))
    types = {artifact.name: artifact.type for artifact in artifacts_of(recipe).values()}
    trained: set[tuple[object, str]] = set()
    for path, stage in stages_of(recipe):
        found += _of_stage(types, path, stage)
        if isinstance(stage, Train):
            if (path[0], stage.role) in trained:
                found += _missing("part", "a second training of a role in one iteration", path)
            trained.add((path[0], stage.role))
    return found


def _missing(what: str, word: str, path: Path) -> Iterator[Problem]:
    if word not in AVAILABLE[what]:
        name = word if what == "part" else f"{what} {word!r}"
        yield Problem(path, f"{name} is not available in this version")


def _of_recipe(recipe: Recipe) -> Iterator[Problem]:
    yield from _of_roles(recipe)
    if recipe.lineage.archive is not None:
        yield from _missing("part", "'lineage: archive'", ("lineage",))
    for key in ("stores", "placement", "environments"):
        if getattr(recipe, key):
            yield from _missing("part", repr(key), (key,))
    for name, store in recipe.stores.items():
        if store.holds != "rows":
            yield from _missing("part", f"a store of {store.holds}", ("stores", name))


def _of_roles(recipe: Recipe) -> Iterator[Problem]:
    """Judges, and critics of a search, may be any role; whoever plays must be on the engine, with the environment's own system prompt."""
    for path, stage in stages_of(recipe):
        for where, name in named_roles(path, stage):
            role = recipe.role(name)
            if isinstance(stage, Judge) or where == (*path, "critic"):
                if role.scoring == "embedder":
                    yield from _missing("part", "an embedder as a judge", where)
                continue
            if role.kind in _ROLES:
                yield from _missing("part", _ROLES[role.kind], where)
            if role.prompt is not None:
                yield from _missing("part", "'prompt' of a role that does not judge", where)


def _of_stage(types: dict[str, ArtifactType], path: Path, stage: Stage) -> Iterator[Problem]:
    if stage.kind not in AVAILABLE["stage"]:
        yield from _missing("stage", stage.kind, path)
        return
    if stage.kind in WORDS:
        key, what, *_ = WORDS[stage.kind]
        yield from _missing(what, tag_of(stage).partition(":")[2], (*path, key))
    key = "inputs" if isinstance(stage, Python) else "mix" if isinstance(stage, Mix) else "from"
    for reference in stage.inputs:
        if reference.file:
            yield from _missing("part", "a file in 'from'", (*path, key))
        elif reference.occasion != "this":
            yield from _missing("part", f"@{reference.occasion}", (*path, key))
    for key in ("when", "into"):
        if getattr(stage, key, None) is not None:
            yield from _missing("part", repr(key), (*path, key))
    if isinstance(stage, Play):
        yield from _missing("overflow policy", stage.overflow, (*path, "overflow"))
        if stage.start_from is not None:
            search = isinstance(stage, Sample) and stage.searches
            yield from _missing("part", "'start_from' of a search" if search else "'start_from'", (*path, "start_from"))
    if isinstance(stage, Sample):
        yield from _of_sample(path, stage)
    if isinstance(stage, PolicyTrain) and stage.online is not None:
        yield from _of_sample((*path, "online", "sample"), stage.online.sample)
    if isinstance(stage, Build):
        yield from _of_build(types, path, stage)
    if isinstance(stage, Evaluate):
        for metric in stage.metrics:
            yield from _missing("metric", metric, (*path, "metrics"))
        for reference in stage.from_ or ():
            yield from _missing("part", f"a measurement of {types.get(reference.name, 'trees')}", (*path, "from"))
    for where, number in numbers_of(stage, path):
        if number.shape in ("values", "cosine", "linear"):
            yield from _missing("part", f"a schedule by {number.by}", where)


def _of_sample(path: Path, stage: Sample) -> Iterator[Problem]:
    for key in ("seats", "environments", "memory"):
        if getattr(stage, key) is not None:
            yield from _missing("part", repr(key), (*path, key))
    if stage.from_ is not None:
        yield from _missing("part", "'from' of a sample", (*path, "from"))
    if critic_of(stage) is not None:
        yield from _missing("part", "'critic' of a sample", (*path, "critic"))
    if stage.draw == "admissible" and not isinstance(stage, Beam | TreeSearch):
        yield from _missing("part", "'draw: admissible' outside mcts and beam", (*path, "draw"))


def _of_build(types: dict[str, ArtifactType], path: Path, stage: Build) -> Iterator[Problem]:
    if isinstance(stage, Mix):
        yield from _missing("part", f"a mix of {types[stage.id]}", (*path, "mix"))
    if getattr(stage, "seat", None) and not isinstance(stage, Advantage):
        yield from _missing("part", "'seat' of a build", (*path, "seat"))
    if getattr(stage, "verdicts", None) and not isinstance(stage, (Advantage, SelfImitation)):
        yield from _missing("part", "'verdicts' of this dataset", (*path, "verdicts"))
