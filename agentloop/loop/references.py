"""From a reference in a recipe (`rows`, `rows@previous`, `rows@all`, a file) to what it stands for in the journal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from agentloop.loop.context import FINAL, StageRun
from agentloop.recipe.reference import Reference
from agentloop.run.directory import RunDirectory
from agentloop.run.journal import Entry


def entries(reference: Reference, run: StageRun, directory: RunDirectory) -> Iterator[Entry]:
    """The finished entries of the stages that made what `reference` names, the oldest first; none where nothing was made yet."""
    for label in _labels(reference, run):
        entry = directory.journal.finished(f"{label}/{reference.name}")
        if entry is not None:
            yield entry


def paths(references: tuple[Reference, ...], run: StageRun, directory: RunDirectory) -> list[Path]:
    """Where the named artifacts lie, the user's own files included, in the order of the references."""
    found: list[Path] = []
    for reference in references:
        if reference.file:
            found.append(Path(reference.name))
            continue
        for entry in entries(reference, run, directory):
            found += [directory.path / output.path for output in entry.outputs.values() if output.type != "adapter"]
    return found


def hashes(references: tuple[Reference, ...], run: StageRun, directory: RunDirectory) -> list[str]:
    """Content hashes of what a stage reads, for its fingerprint."""
    from agentloop.trace.hash import file_hash, folder_hash

    found: list[str] = []
    for reference in references:
        if reference.file:
            path = Path(reference.name)
            found.append(folder_hash(path) if path.is_dir() else file_hash(path))
            continue
        for entry in entries(reference, run, directory):
            found += [output.content_hash for output in entry.outputs.values()]
    return found


def nothing_made(references: tuple[Reference, ...], run: StageRun, directory: RunDirectory) -> bool:
    """Whether all that a stage reads is missing: made in an iteration that there was not, or by a stage that was left out."""
    if not references or any(reference.file for reference in references):
        return False
    return not any(entry.outputs for reference in references for entry in entries(reference, run, directory))


def _labels(reference: Reference, run: StageRun) -> list[str]:
    """Labels of the iterations that a reference means, seen from a stage."""
    before = [f"{iteration:03d}" for iteration in range(run.iteration)]
    if reference.occasion == "all":
        return [*before, run.label]
    if reference.occasion == "previous":
        return before[-1:]
    # In `final`, a name means what a final stage made, else what the last iteration made.
    return [*before[-1:], FINAL] if run.label == FINAL else [run.label]
