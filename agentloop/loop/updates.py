"""How many on-policy updates a role has behind it: what schedules `by: update` count.

Updates on rows of a policy's own, that is: those that replayed a store are not counted, nor those of trainings whose adapter a gate did
not keep taken back. They are read from the journal, so that a resumed run counts what the first try counted.
"""

from __future__ import annotations

from agentloop.loop.context import StageRun
from agentloop.loop.stores import finished_before
from agentloop.recipe.recipe import Recipe
from agentloop.recipe.train import Train
from agentloop.run.directory import RunDirectory
from agentloop.run.journal import Entry


def updates_before(run: StageRun, recipe: Recipe, directory: RunDirectory) -> int:
    """Updates of the trainings of the stage's role that were finished before it."""
    role = getattr(run.stage, "role", None)
    trained = [entry for _, stage, entry in finished_before(run, recipe, directory) if isinstance(stage, Train) and stage.role == role]
    return sum(map(updates_of, trained))


def updates_of(entry: Entry) -> int:
    """Updates of one training: its rounds, if it sampled for itself."""
    training = entry.about.get("training") or {}
    return int((training.get("facts") or {}).get("updates", training.get("steps", 0)))
