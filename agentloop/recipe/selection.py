"""What selects (gates, choices of `tune`, conditions) must select by something that is measured, and never on the test split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agentloop.errors import nearest
from agentloop.recipe.control import Python, Repeat, Tune
from agentloop.recipe.measure import Evaluate, Gate
from agentloop.recipe.problem import Problem
from agentloop.recipe.source import Path
from agentloop.recipe.stage import METRICS, Stage
from agentloop.recipe.train import Train


@dataclass(frozen=True, slots=True)
class Selector:
    """One thing that selects.

    Attributes:
        path: Where it stands.
        what: What to call it.
        names: The measurements that it names; none means whichever was last.
        metric: The number that decides.
        first: Place of the stage that it decides about, where it must be decided before that stage runs.
        later: Whether it asks for the iteration before, so that the first iteration has no answer.
    """

    path: Path
    what: str
    names: tuple[str, ...]
    metric: str
    first: int | None = None
    later: bool = False


def selection_problems(stages: list[tuple[Path, Stage]]) -> Iterator[Problem]:
    """Everything that is wrong with what selects and with the use of the test split."""
    measured = {stage.id: stage for _, stage in stages if isinstance(stage, Evaluate)}
    by_hand = {name for _, stage in stages if isinstance(stage, Python) for name, kind in stage.outputs.items() if kind == "measurement"}
    order = {stage.id: place for place, (_, stage) in enumerate(stages)}
    selectors = [selector for place, (path, stage) in enumerate(stages) for selector in _selectors(path, stage, place)]
    for selector in selectors:
        yield from _of_selector(selector, measured, by_hand, order)
    named = {name for selector in selectors for name in selector.names}
    for path, stage in stages:
        if isinstance(stage, Evaluate) and stage.split == "test" and path[0] != "final" and stage.id not in named:
            yield Problem((*path, "split"), "the test split is measured once, at the end", "test", "dev here, or this stage in 'final'")
        if isinstance(stage, Gate) and path[0] == "final":
            yield Problem(path, "a gate decides what the next iteration starts from, and 'final' comes after the last")
        elif isinstance(stage, Gate):
            yield from _of_gate(stage, path, measured, [stage for _, stage in stages])


def _selectors(path: Path, stage: Stage, place: int) -> Iterator[Selector]:
    if isinstance(stage, Gate):
        yield Selector(path, "a gate", tuple(reference.name for reference in stage.from_), stage.metric)
    if isinstance(stage, Tune):
        yield Selector((*path, "choose"), "a choice", (stage.choose.from_.name,), stage.choose.metric)
    conditions = {"when": stage.when, "until": stage.until if isinstance(stage, Repeat) else None}
    for key, condition in conditions.items():
        if condition is not None:
            names = (condition.from_.name,) if condition.from_ else ()
            previous = condition.from_ is not None and condition.from_.occasion == "previous"
            yield Selector((*path, key), "a condition", names, condition.metric, place if key == "when" else None, previous)


def _of_selector(selector: Selector, measured: dict[str, Evaluate], by_hand: set[str], order: dict[str, int]) -> Iterator[Problem]:
    sources = [measured[name] for name in selector.names or measured if name in measured]
    allowed = [source for source in sources if source.split != "test"]
    if selector.names and len(allowed) < len(sources):
        tested = next(source.id for source in sources if source.split == "test")
        yield Problem(
            (*selector.path, "from"), f"{selector.what} on the test split", f"{tested}, which measures test", "a measurement of dev"
        )
        return
    if by_hand and by_hand.intersection(selector.names or by_hand):
        return  # what a user's own function measures is not known before it runs
    if not allowed:
        if not selector.names:
            yield Problem(selector.path, "nothing is measured that this could depend on", expected="an 'evaluate' stage on dev")
        return
    known = sorted({word for source in allowed for word in source.metrics})
    if selector.metric not in known:
        near = nearest(selector.metric, known)
        hint = f"it among the 'metrics' of {allowed[0].id!r}" if selector.metric in METRICS else "one of " + ", ".join(known)
        yield Problem((*selector.path, "metric"), f"nothing measures {selector.metric!r}", expected=None if near else hint, near=near)
    elif selector.first is not None and (selector.later or all(order[source.id] >= selector.first for source in allowed)):
        message = f"the first iteration cannot know {selector.metric!r}: stage {allowed[0].id!r} has not measured it yet"
        yield Problem(selector.path, message, expected="an 'evaluate' before this stage")


def _of_gate(gate: Gate, path: Path, measured: dict[str, Evaluate], stages: list[Stage]) -> Iterator[Problem]:
    """A gate needs a measurement of the adapter that it decides about: of its role, by playing, and after the role's last training."""
    places = {stage.id: place for place, stage in enumerate(stages)}
    for reference in gate.from_:
        source = measured.get(reference.name)
        if source is None:
            continue
        where: Path = (*path, "from")
        trained = [stage for stage in stages[places[source.id] : places[gate.id]] if isinstance(stage, Train) and stage.role == gate.role]
        if source.role != gate.role:
            yield Problem(
                where, f"a gate of role {gate.role!r} on a measurement of role {source.role!r}", source.id, f"role: {source.role}"
            )
        elif source.from_ is not None and not any(_makes_adapter(entry.name, stages) for entry in source.from_):
            yield Problem(where, f"{source.id!r} measures what was sampled, and no adapter", expected="an 'evaluate' that plays")
        elif trained and reference.occasion == "this":
            yield Problem(
                where, f"{source.id!r} measures before stage {trained[0].id!r} trains", expected="an 'evaluate' after the training"
            )


def _makes_adapter(name: str, stages: list[Stage]) -> bool:
    return any(stage.id == name and stage.makes == "adapter" for stage in stages)
