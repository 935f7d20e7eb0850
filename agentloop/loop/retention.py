"""Which adapters stay on disk, so that a long run does not fill it, and no adapter goes that something can still ask for.

*Needed* is what some role plays with now or what its last gate called best: every stage to come takes one of these, a stage that a kill
left unfinished as well, and so does a training's `start`. Adapters that the recipe reads by the name of their training are needed too. The
rest is superseded; of each role the last `lineage.keep` to become so stay, for whoever wants to look at them, and the others are deleted.

The journal says so before the folder goes. So a folder is missing on purpose exactly when the journal has a "deleted" line for it, and what
a kill left in between is deleted by the next process. Nothing that is deleted is loaded anywhere: the engine lets go of a version when it
is superseded, which is earlier.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator

from agentloop.engine.adapter import CONFIG_NAME, role_of
from agentloop.engine.base import AdapterVersion
from agentloop.errors import RunFailed
from agentloop.loop.lineage import Lineage
from agentloop.recipe.flow import artifacts_of
from agentloop.recipe.recipe import Recipe
from agentloop.run.artifact import remove
from agentloop.run.directory import RunDirectory
from agentloop.run.journal import Entry


def superseded(lineage: Lineage, gone: Collection[str], spared: Collection[str] = ()) -> dict[str, list[AdapterVersion]]:
    """Versions on disk that nothing needs, by role, in the order in which they ceased to be needed.

    Args:
        lineage: As of the last finished stage.
        gone: Names of the versions that were deleted.
        spared: Roles whose adapters are all needed.
    """
    found: defaultdict[str, list[AdapterVersion]] = defaultdict(list)
    for name in lineage.superseded:
        if name not in gone and role_of(name) not in spared:
            found[role_of(name)].append(lineage.versions[name])
    return found


def delete_old(recipe: Recipe, lineage: Lineage, directory: RunDirectory) -> None:
    """Delete the superseded versions beyond those that the recipe keeps."""
    keep = recipe.lineage.keep
    if keep == "all" or recipe.lineage.archive is not None:  # an archive may return to any of its adapters
        return
    for versions in superseded(lineage, deleted(directory), _read_by_name(recipe)).values():
        for version in versions[: max(0, len(versions) - keep)]:
            path = directory.relative(version.path)
            directory.journal.append(Entry("deleted", _maker(path, directory), about={"adapter": version.name, "path": path}))
            remove(version.path)


def deleted(directory: RunDirectory) -> set[str]:
    """Names of the versions that were deleted on purpose."""
    return {str(entry.about["adapter"]) for entry in _deletions(directory)}


def resume(lineage: Lineage, directory: RunDirectory) -> None:
    """Finish what a kill left of a deletion, and see that what is needed is there.

    Raises:
        RunFailed: An adapter that is needed is not there.
    """
    for entry in _deletions(directory):
        remove(directory.path / entry.about["path"])
    for name in sorted(lineage.in_use()):
        path = lineage.versions[name].path
        if not (path / CONFIG_NAME).is_file():
            raise RunFailed(
                f"adapter {name!r} is not in {path} any more, and the run goes on from it; put it back, or begin anew with another --out"
            )


def counted(lineage: Lineage, directory: RunDirectory) -> str:
    """How many adapters the run has made, for people to read."""
    gone = len(deleted(directory))
    return f"{len(lineage.versions) - gone} on disk, {gone} deleted"


def _deletions(directory: RunDirectory) -> Iterator[Entry]:
    return (entry for entry in directory.journal.entries if entry.event == "deleted")


def _maker(path: str, directory: RunDirectory) -> str:
    """Key of the stage that made what lies at a path."""
    made = ((entry.stage, output.path) for entry in directory.journal.finished_entries() for output in entry.outputs.values())
    return next(stage for stage, there in made if there == path)


def _read_by_name(recipe: Recipe) -> set[str]:
    """Roles whose adapters some stage reads by the name of their training."""
    made = artifacts_of(recipe)
    named = {reference.name for stage in recipe.all_stages() for reference in stage.inputs if not reference.file}
    makers = [made[name].maker for name in named if name in made and made[name].type == "adapter"]
    return {str(getattr(maker, "role", "")) for maker in makers}
