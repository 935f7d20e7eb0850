"""Who makes what, and who reads it: artifacts that nothing makes, that are made only later or have the wrong type, before anything runs.

The walk goes through the stages in the order in which they run. Each artifact keeps the splits that its episodes were played on: training
on dev would make every gate meaningless, so it is refused.
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
from agentloop.recipe.sample import Play, Sample
from agentloop.recipe.settings import ArtifactType
from agentloop.recipe.source import Path
from agentloop.recipe.stage import Stage
from agentloop.recipe.train import Train
from agentloop.recipe.walk import stages_of, within


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


@dataclass(frozen=True, slots=True)
class Read:
    """One thing that a stage reads: where that is said, the reference, and the types that will do (none: any)."""

    where: Path
    reference: Reference
    types: tuple[ArtifactType, ...]


def artifacts_of(recipe: Recipe) -> dict[str, Artifact]:
    """All artifacts by name, in the order in which they are made. Of two with one name the first is kept."""
    found: dict[str, Artifact] = {}
    mixes: list[tuple[Artifact, Mix]] = []
    for order, (path, stage) in enumerate(stages_of(recipe)):
        made = dict(stage.outputs) if isinstance(stage, Python) else {}
        if stage.makes is not None:
            made[stage.id] = stage.makes
        for name, kind in made.items():
            artifact = found.setdefault(name, Artifact(name, kind, stage, path, order))
            if isinstance(stage, Mix):
                mixes.append((artifact, stage))
    for artifact, stage in mixes:
        artifact.type = _type_of_mix(stage, found, recipe)
    return found


def _type_of_mix(stage: Mix, found: dict[str, Artifact], recipe: Recipe) -> ArtifactType:
    """A mix makes what it mixes (which may be made later, in the iteration before); rows where it mixes files only."""
    for reference in stage.inputs:
        if reference.name in found and reference.name != stage.id:
            return found[reference.name].type
        if reference.name in recipe.stores:
            return recipe.stores[reference.name].holds
    return "rows"


def data_reads(stage: Stage, path: Path) -> list[Read]:
    """The artifacts that a stage works on."""
    if isinstance(stage, Python):
        return [Read((*path, "inputs", name), reference, ()) for name, reference in stage.inputs_.items()]
    if isinstance(stage, Mix):
        return [Read((*path, "mix", name), reference, stage.takes) for name, reference in zip(stage.mix, stage.inputs, strict=True)]
    named: tuple[Reference, ...] = getattr(stage, "from_", None) or ()
    places: list[Path] = [(*path, "from")] if len(named) == 1 else [(*path, "from", index) for index in range(len(named))]
    found = [Read(where, reference, stage.takes) for where, reference in zip(places, named, strict=True)]
    if isinstance(stage, Play) and stage.start_from is not None:
        kinds: tuple[ArtifactType, ...] = ("trees", "measurement") if isinstance(stage, Evaluate) else ("trees",)
        found.append(Read((*path, "start_from", "from"), stage.start_from.from_, kinds))
    if isinstance(stage, Sample) and stage.memory is not None:
        found.append(Read((*path, "memory", "from"), stage.memory.from_, ("store",)))
    return found


def measurement_reads(stage: Stage, path: Path) -> list[Read]:
    """The measurements that decide whether or how a stage runs."""
    conditions = {"when": stage.when, "until": stage.until if isinstance(stage, Repeat) else None}
    found = [
        Read((*path, key, "from"), condition.from_, ("measurement",))
        for key, condition in conditions.items()
        if condition is not None and condition.from_ is not None
    ]
    if isinstance(stage, Tune):
        found.append(Read((*path, "choose", "from"), stage.choose.from_, ("measurement",)))
    return found


def flow_problems(recipe: Recipe) -> list[Problem]:
    """Everything that is wrong with what stages read and write."""
    artifacts = artifacts_of(recipe)
    stores = _spread_splits(recipe, artifacts)
    found: list[Problem] = []
    for order, (path, stage) in enumerate(stages_of(recipe)):
        for read in [*data_reads(stage, path), *measurement_reads(stage, path)]:
            if read.reference.file:
                continue
            if read.reference.name in recipe.stores:
                found += _of_store(recipe, read)
            else:
                found += _of_reference(recipe, artifacts, read, stage, path, order)
            if isinstance(stage, Train) and "dev" in _splits_of(read.reference, artifacts, stores):
                message = f"{read.reference.name!r} comes from the dev split, which selects and never trains"
                found.append(Problem(read.where, message, expected="rows from the train split"))
        if isinstance(stage, Mix):
            found += _of_mix(artifacts, stage, path)
        found += _of_into(recipe, artifacts, stage, path)
    return found


def _of_reference(recipe: Recipe, artifacts: dict[str, Artifact], read: Read, stage: Stage, path: Path, order: int) -> Iterator[Problem]:
    reference, artifact = read.reference, artifacts.get(read.reference.name)
    if artifact is None:
        near = nearest(reference.name, [*artifacts, *recipe.stores])
        fitting = [other.name for other in artifacts.values() if not read.types or other.type in read.types]
        yield Problem(
            read.where,
            f"nothing makes {reference.name!r}",
            expected=None if near else " or ".join(filter(None, [", ".join(fitting), "a file"])),
            near=near,
        )
        return
    if read.types and artifact.type not in read.types:
        fitting = [other.name for other in artifacts.values() if other.type in read.types and other.order < order]
        near = fitting[0] if len(fitting) == 1 else None
        yield Problem(read.where, f"{reference.name!r} is of type {artifact.type}", expected=" or ".join(read.types), near=near)
        return
    inner = within(artifact.path, path)  # a choice or an end of rounds is decided after the stages inside
    made_in_final, read_in_final = artifact.path[0] == "final", path[0] == "final"
    if isinstance(stage, Tune) and read.where[-2] == "choose" and not inner:
        yield Problem(read.where, f"{reference.name!r} is not made inside this 'tune'", expected="an 'evaluate' among its stages")
    elif made_in_final and not read_in_final:
        yield Problem(read.where, f"{reference.name!r} is made only in 'final'")
    elif read_in_final and not made_in_final and reference.occasion == "previous":
        yield Problem(read.where, "'final' comes after the last iteration", str(reference), f"{reference.name} or {reference.name}@all")
    elif reference.occasion == "this" and not inner and artifact.order >= order:
        near = f"{reference.name}@previous" if not made_in_final else None
        maker = "by the stage that reads it" if artifact.order == order else f"only later, by stage {artifact.maker.id!r}"
        yield Problem(read.where, f"{reference.name!r} is made {maker}", near=near)


def _of_store(recipe: Recipe, read: Read) -> Iterator[Problem]:
    name, holds = read.reference.name, recipe.stores[read.reference.name].holds
    if read.reference.occasion != "this":
        yield Problem(read.where, "a store lives across iterations", str(read.reference), name)
    elif read.types and "store" not in read.types and holds not in read.types:
        yield Problem(read.where, f"store {name!r} holds {holds}", expected=" or ".join(read.types))


def _of_mix(artifacts: dict[str, Artifact], stage: Mix, path: Path) -> Iterator[Problem]:
    kinds = {reference.name: artifacts[reference.name].type for reference in stage.inputs if reference.name in artifacts}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        yield Problem((*path, "mix"), "a mix is of one type", listed)


def _of_into(recipe: Recipe, artifacts: dict[str, Artifact], stage: Stage, path: Path) -> Iterator[Problem]:
    into = getattr(stage, "into", None)
    if into is None:
        return
    if into not in recipe.stores:
        near = nearest(into, recipe.stores)
        declared = "one of " + ", ".join(recipe.stores) if recipe.stores else "a name under 'stores'"
        yield Problem((*path, "into"), f"unknown store {into!r}", expected=None if near else declared, near=near)
    elif artifacts[stage.id].type != recipe.stores[into].holds:
        yield Problem((*path, "into"), f"store {into!r} holds {recipe.stores[into].holds}, and this stage makes {artifacts[stage.id].type}")


def _spread_splits(recipe: Recipe, artifacts: dict[str, Artifact]) -> dict[str, set[str]]:
    """Carry the splits of episodes along what is read, until nothing changes: references may go to earlier iterations. Returns those of
    stores.
    """
    stores: dict[str, set[str]] = {name: set() for name in recipe.stores}
    changed = True
    while changed:
        changed = False
        for path, stage in stages_of(recipe):
            splits: set[str] = {stage.split} if isinstance(stage, Sample) else set()
            if not isinstance(stage, Evaluate | Train):
                for read in data_reads(stage, path):
                    splits |= _splits_of(read.reference, artifacts, stores)
            into = getattr(stage, "into", None)
            targets = [artifacts[name].splits for name in (stage.id, *getattr(stage, "outputs", ())) if name in artifacts]
            targets += [stores[into]] if into in stores else []
            for target in targets:
                changed = changed or not splits <= target
                target |= splits
    return stores


def _splits_of(reference: Reference, artifacts: dict[str, Artifact], stores: dict[str, set[str]]) -> set[str]:
    if reference.name in artifacts:
        return artifacts[reference.name].splits
    return stores.get(reference.name, set())
