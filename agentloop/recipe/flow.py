"""Who makes what, and who reads it: artifacts that nothing makes, that are made only later or have the wrong type, before anything runs.

The walk goes through the stages in the order in which they run and keeps, for each artifact, its type, its maker and the splits that its episodes were
played on; training on dev would make every gate meaningless, so it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from agentloop.errors import nearest
from agentloop.recipe.build import Mix
from agentloop.recipe.control import Python, Repeat, Tune
from agentloop.recipe.measure import Evaluate
from agentloop.recipe.problem import Problem
from agentloop.recipe.recipe import Recipe
from agentloop.recipe.reference import Reference
from agentloop.recipe.sample import Sample
from agentloop.recipe.settings import ArtifactType
from agentloop.recipe.source import Path
from agentloop.recipe.stage import Stage
from agentloop.recipe.train import Train
from agentloop.recipe.walk import stages_of


@dataclass(slots=True)
class Artifact:
    """What a stage makes.

    Attributes:
        name: How references call it.
        type: Its type.
        maker: The stage that makes it.
        path: Path of that stage.
        order: Place of the stage among all, from 0.
        splits: Splits that its episodes were played on.
    """

    name: str
    type: ArtifactType
    maker: Stage
    path: Path
    order: int
    splits: set[str] = field(default_factory=set)

    @property
    def loops(self) -> tuple[Path, ...]:
        """Paths of the `repeat` and `tune` stages around the maker, the outermost first; the iteration itself is not among them."""
        return loops_around(self.path)


def loops_around(path: Path) -> tuple[Path, ...]:
    """Paths of the stages that hold the stage at a path, the outermost first."""
    return tuple(path[:length] for length in range(3, len(path), 3) if path[length] == "stages")


def artifacts_of(recipe: Recipe) -> dict[str, Artifact]:
    """All artifacts by name, in the order in which they are made. Of two with one name the first is kept."""
    found: dict[str, Artifact] = {}
    for order, (path, stage) in enumerate(stages_of(recipe)):
        made = dict(stage.outputs) if isinstance(stage, Python) else {}
        if stage.makes is not None:
            made[stage.id] = _type_of_mix(stage, found) if isinstance(stage, Mix) else stage.makes
        for name, kind in made.items():
            found.setdefault(name, Artifact(name, kind, stage, path, order))
    return found


def _type_of_mix(stage: Mix, found: dict[str, Artifact]) -> ArtifactType:
    """A mix makes what it mixes; rows where it mixes files only."""
    types = [found[reference.name].type for reference in stage.inputs if reference.name in found]
    return types[0] if types else "rows"


def reads(stage: Stage, path: Path) -> Iterator[tuple[Path, Reference, tuple[ArtifactType, ...]]]:
    """(path, reference, types that will do) of everything that a stage reads."""
    if isinstance(stage, Python):
        for name, reference in stage.inputs_.items():
            yield (*path, "inputs", name), reference, ()
        return
    if isinstance(stage, Mix):
        for name, reference in zip(stage.mix, stage.inputs, strict=True):
            yield (*path, "mix", name), reference, stage.takes
        return
    named: tuple[Reference, ...] = getattr(stage, "from_", None) or ()
    for index, reference in enumerate(named):
        yield ((*path, "from") if len(named) == 1 else (*path, "from", index)), reference, stage.takes
    if isinstance(stage, Sample) and stage.start_from is not None:
        yield (*path, "start_from", "from"), stage.start_from.from_, ("trees",)
    if isinstance(stage, Sample) and stage.memory is not None:
        yield (*path, "memory", "from"), stage.memory.from_, ("store",)
    if stage.when is not None and stage.when.from_ is not None:
        yield (*path, "when", "from"), stage.when.from_, ("measurement",)
    if isinstance(stage, Repeat) and stage.until is not None and stage.until.from_ is not None:
        yield (*path, "until", "from"), stage.until.from_, ("measurement",)
    if isinstance(stage, Tune):
        yield (*path, "choose", "from"), stage.choose.from_, ("measurement",)


def flow_problems(recipe: Recipe) -> list[Problem]:
    """Everything that is wrong with what stages read and write."""
    artifacts = artifacts_of(recipe)
    stores: dict[str, set[str]] = {name: set() for name in recipe.stores}
    _spread_splits(recipe, artifacts, stores)
    found: list[Problem] = []
    for order, (path, stage) in enumerate(stages_of(recipe)):
        kinds: dict[str, ArtifactType] = {}
        for where, reference, types in reads(stage, path):
            if reference.file:
                continue
            if reference.name in recipe.stores:
                found += _store_problems(recipe, where, reference, types, stage)
                continue
            found += _reference_problems(recipe, artifacts, where, reference, types, stage, order)
            if reference.name in artifacts:
                kinds[reference.name] = artifacts[reference.name].type
        if isinstance(stage, Mix) and len(set(kinds.values())) > 1:
            listed = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
            found.append(Problem((*path, "mix"), "a mix is of one type", listed))
        found += _into_problems(recipe, artifacts, path, stage)
        if isinstance(stage, Train):
            found += _dev_problems(artifacts, stores, path, stage)
    return found


def _reference_problems(
    recipe: Recipe, artifacts: dict[str, Artifact], where: Path, reference: Reference, types: tuple[ArtifactType, ...], stage: Stage, order: int
) -> Iterator[Problem]:
    artifact = artifacts.get(reference.name)
    if artifact is None:
        near = nearest(reference.name, [*artifacts, *recipe.stores])
        made = ", ".join(artifacts) or "nothing"
        yield Problem(where, f"nothing makes {reference.name!r}", expected=None if near else f"one of {made}, or a file", near=near)
        return
    if types and artifact.type not in types:
        fitting = [other.name for other in artifacts.values() if other.type in types and other.order < order]
        near = fitting[-1] if len(fitting) == 1 else None
        yield Problem(where, f"{reference.name!r} is of type {artifact.type}", expected=" or ".join(types), near=near)
        return
    if where[0] == "stages" and artifact.path[0] == "final":
        yield Problem(where, f"{reference.name!r} is made only in 'final'")
        return
    if where[0] == "final" and artifact.path[0] == "stages" and reference.occasion == "previous":
        yield Problem(where, "'final' comes after the last iteration", str(reference), f"{reference.name} or {reference.name}@all")
        return
    inside = artifact.path[: len(where[:3])] == where[:3] if isinstance(stage, Tune | Repeat) else False
    if reference.occasion == "this" and not inside and artifact.order >= order:
        verb = "reads what it makes itself" if artifact.order == order else f"reads {reference.name!r} before stage {artifact.maker.kind!r} makes it"
        near = f"{reference.name}@previous" if where[0] == "stages" and artifact.path[0] == "stages" else None
        yield Problem(where, f"stage {stage.id!r} {verb}", near=near)


def _store_problems(recipe: Recipe, where: Path, reference: Reference, types: tuple[ArtifactType, ...], stage: Stage) -> Iterator[Problem]:
    holds = recipe.stores[reference.name].holds
    if reference.occasion != "this":
        yield Problem(where, "a store lives across iterations", str(reference), reference.name)
    elif types and "store" not in types and holds not in types:
        yield Problem(where, f"store {reference.name!r} holds {holds}", expected=" or ".join(types))


def _into_problems(recipe: Recipe, artifacts: dict[str, Artifact], path: Path, stage: Stage) -> Iterator[Problem]:
    into = getattr(stage, "into", None)
    if into is None:
        return
    if into not in recipe.stores:
        near = nearest(into, recipe.stores)
        declared = "one of " + ", ".join(recipe.stores) if recipe.stores else "a store under 'stores'"
        yield Problem((*path, "into"), f"unknown store {into!r}", expected=None if near else declared, near=near)
        return
    made = artifacts[stage.id].type if stage.id in artifacts else stage.makes
    if made != recipe.stores[into].holds:
        yield Problem((*path, "into"), f"store {into!r} holds {recipe.stores[into].holds}, stage {stage.id!r} makes {made}")


def _spread_splits(recipe: Recipe, artifacts: dict[str, Artifact], stores: dict[str, set[str]]) -> None:
    """Carry the splits of episodes along what is read, until nothing changes (references may go to earlier iterations)."""
    changed = True
    while changed:
        changed = False
        for path, stage in stages_of(recipe):
            splits: set[str] = {stage.split} if isinstance(stage, Sample) else set()
            if not isinstance(stage, Evaluate | Sample):
                for _, reference, _ in reads(stage, path):
                    splits |= _splits_of(reference, artifacts, stores)
            into = getattr(stage, "into", None)
            targets = [artifacts[name].splits for name in (stage.id, *getattr(stage, "outputs", ())) if name in artifacts]
            for target in [*targets, *([stores[into]] if into in stores else [])]:
                changed = changed or not splits <= target
                target |= splits


def _splits_of(reference: Reference, artifacts: dict[str, Artifact], stores: dict[str, set[str]]) -> set[str]:
    if reference.name in artifacts:
        return artifacts[reference.name].splits
    return stores.get(reference.name, set())


def _dev_problems(artifacts: dict[str, Artifact], stores: dict[str, set[str]], path: Path, stage: Train) -> Iterator[Problem]:
    for where, reference, _ in reads(stage, path):
        if "dev" in _splits_of(reference, artifacts, stores):
            yield Problem(where, f"{reference.name!r} comes from the dev split, which selects and never trains", expected="rows from the train split")
