"""Whose turns and rows an artifact holds, before anything runs: a stage that asks for those of another role would find nothing.

A build finds the turns that its role played, and a training the rows of its role; the others are passed over without a word, so that a
recipe whose roles do not meet would run to its end and train nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal

from agentloop.errors import nearest
from agentloop.recipe.build import Attempts, Build, Mix, Relabel, SearchTrace, TreeBuild, Verdicts, WorldModel
from agentloop.recipe.control import Python
from agentloop.recipe.flow import data_reads
from agentloop.recipe.judge import Judge
from agentloop.recipe.problem import Problem
from agentloop.recipe.recipe import Recipe
from agentloop.recipe.reference import Reference
from agentloop.recipe.sample import Play, Sample
from agentloop.recipe.source import Path
from agentloop.recipe.stage import Stage
from agentloop.recipe.train import Train
from agentloop.recipe.walk import stages_of

Kind = Literal["played", "given", "judged", "rows", "anything"]
"""What of a role is there: turns that it played, turns taken over from other trees, a critic's answers, rows; or nobody knows."""

Holding = tuple[Kind, str]
"""One kind of thing of one role."""

ANYTHING: Holding = ("anything", "")
"""What a file, or a function of the user's own, may hold."""

AUTHORED = (Attempts, Relabel, SearchTrace, WorldModel)
"""Builds that write rows about turns that were taken over, too."""


def holding_problems(recipe: Recipe) -> list[Problem]:
    """A problem for each build and each training that would find nothing of its role in something that it reads.

    Roles that the recipe does not have are `agentloop.recipe.check`'s to refuse.
    """
    held, known = _holdings(recipe), recipe.role_names()
    readers = [(path, stage) for path, stage in stages_of(recipe) if isinstance(stage, Build | Train) and stage.role in known]
    builds = {stage.id: _missed(stage, path, held, known) for path, stage in readers if isinstance(stage, Build)}
    # What a build makes that is to be put right is not known, so the training behind it is not told to follow the mistake.
    held = _holdings(recipe, mistaken=[name for name, problems in builds.items() if problems])
    trainings = [problem for path, stage in readers if isinstance(stage, Train) for problem in _missed(stage, path, held, known)]
    return [*(problem for problems in builds.values() for problem in problems), *trainings]


def _missed(stage: Build | Train, path: Path, held: dict[str, set[Holding]], known: Collection[str]) -> list[Problem]:
    kinds, what = _sought(stage)
    found: list[Problem] = []
    for read in data_reads(stage, path) if kinds else ():
        there = _of(read.reference, held)
        roles = sorted({role for kind, role in there if kind in kinds})
        if not roles or stage.role in roles or ANYTHING in there or not set(roles) <= set(known):
            continue
        listed = " or ".join(roles)
        name = read.reference.name
        found.append(
            Problem(
                (*path, "role"),
                f"{name!r} holds no {what} of role {stage.role!r}, which stage {stage.id!r} asks for",
                f"{what} of {', '.join(roles)}",
                f"role: {listed} here, or role: {stage.role} where they are made",
                nearest(stage.role, roles),
            )
        )
    return found


def _sought(stage: Build | Train) -> tuple[tuple[Kind, ...], str]:
    """The kinds that a stage looks for, and what they are called; none where the role does not matter."""
    if isinstance(stage, Train):
        return ("rows",), "rows"
    if isinstance(stage, Verdicts):
        return ("judged",), "verdicts"
    if not isinstance(stage, TreeBuild) or stage.makes != "rows":
        return (), ""
    return (("played", "given") if isinstance(stage, AUTHORED) else ("played",)), "turns"


def _holdings(recipe: Recipe, mistaken: Collection[str] = ()) -> dict[str, set[Holding]]:
    """What each artifact and store holds, by name; carried along what is read until nothing changes, as references may go to earlier
    iterations. What the `mistaken` builds make may be anything.
    """
    held: dict[str, set[Holding]] = {}
    changed = True
    while changed:
        changed = False
        for path, stage in stages_of(recipe):
            made = {ANYTHING} if stage.id in mistaken else set(_made(stage, path, held))
            into = getattr(stage, "into", None)
            for name in (stage.id, *getattr(stage, "outputs", ()), *([into] if into is not None else [])):
                changed = changed or not made <= held.get(name, set())
                held[name] = held.get(name, set()) | made
    return held


def _made(stage: Stage, path: Path, held: dict[str, set[Holding]]) -> Iterator[Holding]:
    """What a stage makes, given what is held by what it reads."""
    if isinstance(stage, Python):
        yield ANYTHING
    elif isinstance(stage, Play):
        seats = (stage.seats if isinstance(stage, Sample) else None) or {}
        for role in {seat.role for seat in seats.values()} or {stage.role}:
            yield "played", role
        if stage.start_from is not None:
            yield from (("given", role) for _, role in _of(stage.start_from.from_, held))
    elif isinstance(stage, TreeBuild):
        yield "rows", stage.role
    elif isinstance(stage, Judge | Mix):
        for read in data_reads(stage, path):
            yield from _of(read.reference, held)
        if isinstance(stage, Judge):
            yield "judged", stage.role


def _of(reference: Reference, held: dict[str, set[Holding]]) -> set[Holding]:
    return {ANYTHING} if reference.file else held.get(reference.name, set())
