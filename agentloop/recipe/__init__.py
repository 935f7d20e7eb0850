"""The recipe language: load, check, plan and write recipes. Imports no torch and nothing of the other packages."""

from __future__ import annotations

from agentloop.recipe.build import Build, Mix, SelfImitation
from agentloop.recipe.control import Python, Repeat, Tune
from agentloop.recipe.judge import Judge
from agentloop.recipe.load import load, resolved_yaml
from agentloop.recipe.measure import Evaluate, Gate
from agentloop.recipe.plan import Plan, Planned, plan
from agentloop.recipe.recipe import Recipe
from agentloop.recipe.reference import Reference
from agentloop.recipe.sample import GroupSample, Play, Sample
from agentloop.recipe.schedule import Scheduled
from agentloop.recipe.settings import Engine, Environment, Lineage, Prompt, Role, Store
from agentloop.recipe.stage import Stage, When, Work
from agentloop.recipe.train import SupervisedTrain, Train

__all__ = [
    "Build",
    "Engine",
    "Environment",
    "Evaluate",
    "Gate",
    "GroupSample",
    "Judge",
    "Lineage",
    "Mix",
    "Plan",
    "Planned",
    "Play",
    "Prompt",
    "Python",
    "Recipe",
    "Reference",
    "Repeat",
    "Role",
    "Sample",
    "Scheduled",
    "SelfImitation",
    "Stage",
    "Store",
    "SupervisedTrain",
    "Train",
    "Tune",
    "When",
    "Work",
    "load",
    "plan",
    "resolved_yaml",
]
