"""What one part of a recipe may say of another: names, roles, environments, measurements and numbers.

What stages read and write is `agentloop.recipe.flow`, of which role `agentloop.recipe.holdings`. Every check yields `Problem`s and none
stops another, so that a user sees all mistakes at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agentloop.errors import nearest
from agentloop.recipe.build import Preference, Reflection, TreeBuild
from agentloop.recipe.control import Python
from agentloop.recipe.flow import flow_problems
from agentloop.recipe.holdings import holding_problems
from agentloop.recipe.judge import JUDGES, ModelJudge, ScoringJudge
from agentloop.recipe.measure import Evaluate
from agentloop.recipe.problem import Problem
from agentloop.recipe.recipe import Recipe
from agentloop.recipe.sample import Play, Sample, critic_of
from agentloop.recipe.schedule import Scheduled
from agentloop.recipe.selection import selection_problems
from agentloop.recipe.source import Path
from agentloop.recipe.stage import Stage
from agentloop.recipe.train import PolicyTrain, PreferenceTrain, Train
from agentloop.recipe.walk import grids, numbers_of, stages_of, within

Stages = list[tuple[Path, Stage]]

VERDICTS = (*(str(judge.model_fields["critic"].annotation.__args__[0]) for judge in JUDGES), "estimate", "value")  # type: ignore[union-attr]
"""Names of verdicts: those of judges, what the critic of a search said of a turn, and what the search made of it."""


def problems(recipe: Recipe) -> list[Problem]:
    """Everything that is wrong between the parts of a recipe."""
    stages = list(stages_of(recipe))
    return [
        *_names(recipe, stages),
        *_roles(recipe, stages),
        *_slots(recipe),
        *_environments(recipe, stages),
        *_numbers(recipe, stages),
        *_datasets(stages),
        *_verdicts(stages),
        *selection_problems(stages),
        *flow_problems(recipe),
        *holding_problems(recipe),
    ]


def _unknown(path: Path, kind: str, word: str, valid: Iterable[str], none: str = "none is declared") -> Problem:
    """A problem with a name that is none of the valid ones."""
    words = sorted(valid)
    near = nearest(word, words)
    listed = ("one of " if len(words) > 1 else "") + ", ".join(words)
    return Problem(path, f"unknown {kind} {word!r}", expected=None if near else listed or none, near=near)


def _names(recipe: Recipe, stages: Stages) -> Iterator[Problem]:
    """Names of stages, of what `python` makes and of stores are one set."""
    seen = dict.fromkeys(recipe.stores, "a store")
    for path, stage in stages:
        named: list[tuple[str, Path, str]] = [(stage.id, (*path, "id"), f"a stage {stage.kind!r}")]
        if isinstance(stage, Python):
            named += [(name, (*path, "outputs", name), f"an output of {stage.id!r}") for name in stage.outputs if name != stage.id]
        for name, where, what in named:
            if name in seen:
                yield Problem(where, f"the name {name!r} is taken by {seen[name]}", expected="another id")
            seen.setdefault(name, what)


def _roles(recipe: Recipe, stages: Stages) -> Iterator[Problem]:
    names = recipe.role_names()
    for path, stage in stages:
        for where, name in named_roles(path, stage):
            if name not in names:
                near = nearest(name, names)
                yield Problem(
                    where, f"unknown role {name!r}", expected=None if near else ", ".join(names) + " or a name under 'roles'", near=near
                )
                continue
            kind = recipe.role(name).kind
            if isinstance(stage, Train) and kind != "adapter":
                yield Problem(where, f"role {name!r} has no adapter, so it cannot be trained")
            elif isinstance(stage, Sample) and where == (*path, "critic"):
                yield from _critic(where, stage, kind)
            elif isinstance(stage, Play) and kind == "scoring":
                yield Problem(where, f"role {name!r} is a scoring model, so it cannot act")
            elif isinstance(stage, ModelJudge) and kind == "scoring":
                yield Problem(where, f"role {name!r} is a scoring model, so it cannot answer", expected="critic: scoring, or another role")
            elif isinstance(stage, ScoringJudge) and kind != "scoring":
                scoring = [other for other in names if recipe.role(other).kind == "scoring"]
                yield Problem(where, f"role {name!r} is no scoring model", expected=", ".join(scoring) or "a role with 'model'")
        most = recipe.engine.max_lora_rank
        if isinstance(stage, Train) and stage.rank > most:
            yield Problem((*path, "rank"), "the engine does not serve this rank", stage.rank, f"at most {most} (engine.max_lora_rank)")


def _critic(where: Path, stage: Sample, kind: str) -> Iterator[Problem]:
    """Whoever values the turns of a search: a scoring model is told nothing of how it is asked."""
    critic = critic_of(stage)
    if kind == "scoring" and critic is not None and not critic.by_role_alone:
        yield Problem(where, f"role {critic.role!r} is a scoring model, which is not asked anything", expected=f"critic: {critic.role}")


def _slots(recipe: Recipe) -> Iterator[Problem]:
    """The engine holds the present and the next version of every role with an adapter, and needs a spare slot (docs/engines.md)."""
    adapters = [name for name in recipe.role_names() if recipe.role(name).kind == "adapter"]
    needed, slots = 2 * len(adapters) + 1, recipe.engine.max_loras
    if slots is not None and slots < needed:
        message = f"the engine has too few slots for the adapters of {', '.join(adapters)}"
        yield Problem(("engine", "max_loras"), message, slots, f"at least {needed}: two for each role, and a spare")


def named_roles(path: Path, stage: Stage) -> Iterator[tuple[Path, str]]:
    """Every role that a stage names: its own, of its seats, and those that value what a search finds."""
    if hasattr(stage, "role"):
        yield (*path, "role"), stage.role
    if isinstance(stage, Sample):
        for name, seat in (stage.seats or {}).items():
            yield (*path, "seats", name), seat.role
        critic, rollout = critic_of(stage), getattr(stage, "rollout", None)
        if critic is not None:
            yield (*path, "critic"), critic.role
        if rollout is not None:
            yield (*path, "rollout"), rollout


def _environments(recipe: Recipe, stages: Stages) -> Iterator[Problem]:
    """Stages that play must know which environment, if the recipe has several."""
    known = recipe.all_environments()
    for path, stage in stages:
        if isinstance(stage, Sample):
            chosen = [((*path, "environments", name), name) for name in stage.environments or ()]
        elif isinstance(stage, Evaluate):
            chosen = [((*path, "environment"), stage.environment)] if stage.environment is not None else []
            if stage.from_ is not None and not any(_is_adapter(recipe, reference.name) for reference in stage.from_):
                continue  # it plays nothing
        elif isinstance(stage, PolicyTrain) and stage.online is not None:
            chosen = []
        else:
            continue
        if not known:
            yield Problem((), "missing key 'environment'", expected="environment: {id: ...}")
            return
        for where, name in chosen:
            if name not in (recipe.environments or {}):
                yield _unknown(where, "environment", name, recipe.environments or (), "a name under 'environments'")
        if len(known) > 1 and not chosen:
            key = "environments" if isinstance(stage, Sample) else "environment"
            yield Problem(path, f"stage {stage.id!r} does not say which environment it plays", expected=f"{key}, of {', '.join(known)}")


def _is_adapter(recipe: Recipe, name: str) -> bool:
    return any(stage.id == name and stage.makes == "adapter" for stage in recipe.all_stages())


def _datasets(stages: Stages) -> Iterator[Problem]:
    """What a dataset or a training needs of the stages that it reads from, beyond the type."""
    makers = {stage.id: stage for _, stage in stages}
    for path, stage in stages:
        named = [(reference.name, makers[reference.name]) for reference in stage.inputs if reference.name in makers]
        if isinstance(stage, Train):
            yield from _rows_of_a_kind(stage, path, named)
        published = isinstance(stage, Reflection) and stage.form == "published"
        if published and named and len(named) == len(stage.inputs) and all(isinstance(maker, Sample) for _, maker in named):
            name = named[0][0]
            yield Problem((*path, "from"), f"no critic has looked for the first error in {name!r}", expected="a 'judge' with first_error")


def _verdicts(stages: Stages) -> Iterator[Problem]:
    """Verdicts that a build weighs are those of some critic; a stage in `python` may give others."""
    if any(isinstance(stage, Python) for _, stage in stages):
        return
    for path, stage in stages:
        for name in stage.verdicts if isinstance(stage, TreeBuild) else ():
            if name not in VERDICTS:
                yield _unknown((*path, "verdicts", name), "critic", name, VERDICTS)


def _rows_of_a_kind(stage: Train, path: Path, named: list[tuple[str, Stage]]) -> Iterator[Problem]:
    """Pairs are trained on by preference methods only, and these on nothing else."""
    wants_pairs = isinstance(stage, PreferenceTrain) and stage.loss != "kto"
    for name, maker in named:
        if isinstance(maker, TreeBuild) and isinstance(maker, Preference) != wants_pairs:
            held, method = ("single rows", "dataset: preference") if wants_pairs else ("preference pairs", "method: dpo")
            yield Problem((*path, "from"), f"{name!r} holds {held}, which this training cannot take", expected=method)


def _numbers(recipe: Recipe, stages: Stages) -> Iterator[Problem]:
    """Schedules that are too short, grids outside `tune`, choices that nothing makes."""
    tunes = [path for path, stage in stages if stage.kind == "tune"]
    choices = {f"{stage.id}.{where[-1]}": tune for tune in tunes for stage, where in grids(stages, tune)}
    for tune in tunes:
        if not list(grids(stages, tune)):
            yield Problem(tune, "a 'tune' without a grid has nothing to choose", expected="{grid: [...]} for a number of a stage inside")
    for path, stage in stages:
        inside = any(within(path, tune) for tune in tunes)
        for where, number in numbers_of(stage, path):
            if number.shape == "grid" and not inside:
                yield Problem(where, "a grid stands outside a 'tune' stage", expected="a number, or this stage inside 'tune'")
            yield from _short_schedule(recipe, where, number)
            yield from _unmade_choice(where, number, choices)


def _short_schedule(recipe: Recipe, where: Path, number: Scheduled[float]) -> Iterator[Problem]:
    if number.shape == "values" and number.by == "iteration" and len(number.values) < recipe.iterations:
        message = f"{where[-1]!r} has {len(number.values)} values for {recipe.iterations} iterations"
        yield Problem((*where, "values"), message, expected=f"at least {recipe.iterations} values")


def _unmade_choice(where: Path, number: Scheduled[float], choices: dict[str, Path]) -> Iterator[Problem]:
    if number.tuned is not None:
        if number.tuned not in choices:
            yield _unknown((*where, "tuned"), "choice", number.tuned, choices, "a {grid: ...} inside a 'tune' stage")
        elif within(where, choices[number.tuned]) or not _before(choices[number.tuned], where):
            yield Problem((*where, "tuned"), f"{number.tuned!r} is chosen only later")


def _before(one: Path, other: Path) -> bool:
    """Whether one stage runs before another: by place, all of `stages` before `final`."""
    places = [(path[0] == "final", [part for part in path if isinstance(part, int)]) for path in (one, other)]
    return places[0] < places[1]
