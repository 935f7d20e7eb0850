"""What one part of a recipe may say of another: roles, environments, stores, schedules, measurements. Artifacts are `agentloop.recipe.flow`.

Every check yields `Problem`s and none stops another, so that a user sees all mistakes at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agentloop.errors import nearest
from agentloop.recipe.control import Python, Repeat, Tune
from agentloop.recipe.flow import flow_problems
from agentloop.recipe.judge import ScoringJudge
from agentloop.recipe.measure import Evaluate, Gate
from agentloop.recipe.problem import Problem
from agentloop.recipe.recipe import Recipe
from agentloop.recipe.sample import Play, Sample
from agentloop.recipe.schedule import Scheduled
from agentloop.recipe.source import Path
from agentloop.recipe.stage import METRICS, Stage, When
from agentloop.recipe.train import Train
from agentloop.recipe.walk import numbers_of, stages_of


def problems(recipe: Recipe) -> list[Problem]:
    """Everything that is wrong between the parts of a recipe."""
    stages = list(stages_of(recipe))
    return [
        *_ids(recipe, stages),
        *_roles(recipe, stages),
        *_environments(recipe, stages),
        *_test_split(stages),
        *_numbers(recipe, stages),
        *_metrics(stages),
        *flow_problems(recipe),
    ]


def _word(path: Path, kind: str, word: str, valid: Iterable[str], none: str = "none is declared") -> Problem:
    """A problem with a name that is none of the valid ones."""
    words = sorted(valid)
    near = nearest(word, words)
    return Problem(path, f"unknown {kind} {word!r}", expected=None if near else "one of " + ", ".join(words) if words else none, near=near)


def _ids(recipe: Recipe, stages: list[tuple[Path, Stage]]) -> Iterator[Problem]:
    """Names of stages, of what `python` makes and of stores are one set."""
    seen: dict[str, str] = {name: "a store" for name in recipe.stores}
    for path, stage in stages:
        named = {stage.id: (*path, "id")}
        if isinstance(stage, Python):
            named |= {output: (*path, "outputs", output) for output in stage.outputs if output != stage.id}
        for name, where in named.items():
            if name in seen:
                yield Problem(where, f"name {name!r} is taken by {seen[name]}", expected="another id")
            seen.setdefault(name, f"stage {stage.kind!r}" if name == stage.id else f"an output of {stage.id!r}")


def _roles(recipe: Recipe, stages: list[tuple[Path, Stage]]) -> Iterator[Problem]:
    names = recipe.role_names()
    for path, stage in stages:
        wanted = [((*path, "role"), getattr(stage, "role", None)), ((*path, "critic"), getattr(stage, "critic", None))]
        if stage.kind == "judge":
            wanted.pop()  # there `critic` is the kind of judge
        for seat, player in (getattr(stage, "seats", None) or {}).items():
            wanted.append(((*path, "seats", seat), player.role))
        for where, name in wanted:
            if name is None:
                continue
            if name not in names:
                yield _word(where, "role", name, names)
            elif isinstance(stage, Train) and recipe.role(name).kind != "adapter":
                yield Problem(where, f"role {name!r} has no adapter, so it cannot be trained")
            elif isinstance(stage, Play) and where[-1] == "role" and recipe.role(name).kind == "scoring":
                yield Problem(where, f"role {name!r} is a scoring model, so it cannot act")
            elif isinstance(stage, ScoringJudge) and recipe.role(name).kind != "scoring":
                scoring = [other for other in names if recipe.role(other).kind == "scoring"]
                yield Problem(where, f"role {name!r} is no scoring model", expected=", ".join(scoring) or "a role with 'model'")
    for path, stage in stages:
        if isinstance(stage, Train) and stage.rank > recipe.engine.max_lora_rank:
            yield Problem((*path, "rank"), "the engine does not serve this rank", stage.rank, f"at most {recipe.engine.max_lora_rank} (max_lora_rank of the engine)")


def _environments(recipe: Recipe, stages: list[tuple[Path, Stage]]) -> Iterator[Problem]:
    known = recipe.all_environments()
    for path, stage in stages:
        if isinstance(stage, Sample):
            for name in stage.environments or {}:
                if name not in known or recipe.environments is None:
                    yield _word((*path, "environments", name), "environment", name, recipe.environments or ())
            chosen = bool(stage.environments)
        elif isinstance(stage, Evaluate):
            if stage.environment is not None and (stage.environment not in known or recipe.environments is None):
                yield _word((*path, "environment"), "environment", stage.environment, recipe.environments or ())
            chosen = stage.environment is not None or stage.from_ is not None
        else:
            continue
        if not known:
            yield Problem((), "missing key 'environment'", expected="environment: {id: ...}")
            return
        if len(known) > 1 and not chosen:
            key = "environments" if isinstance(stage, Sample) else "environment"
            yield Problem(path, f"stage {stage.id!r} does not say which environment it plays", expected=f"{key}, of {', '.join(known)}")


def _test_split(stages: list[tuple[Path, Stage]]) -> Iterator[Problem]:
    """The test split is measured once, at the end, and nothing is chosen by it."""
    gated = {reference.name for _, stage in stages if isinstance(stage, Gate) for reference in stage.inputs}
    for path, stage in stages:
        if isinstance(stage, Evaluate) and stage.split == "test" and path[0] != "final" and stage.id not in gated:
            yield Problem((*path, "split"), "the test split is measured once, at the end", "test", "dev here, or this stage in 'final'")
        if path[0] == "final" and isinstance(stage, Gate):
            yield Problem(path, "a gate decides what the next iteration starts from; after 'final' there is none")


def _conditions(path: Path, stage: Stage) -> Iterator[tuple[Path, When]]:
    if stage.when is not None:
        yield (*path, "when"), stage.when
    if isinstance(stage, Repeat) and stage.until is not None:
        yield (*path, "until"), stage.until


def _metrics(stages: list[tuple[Path, Stage]]) -> Iterator[Problem]:
    """What selects must select by something that is measured, and not on the test split."""
    measured = {stage.id: stage for _, stage in stages if isinstance(stage, Evaluate)}
    free = any("measurement" in stage.outputs.values() for _, stage in stages if isinstance(stage, Python))
    for path, stage in stages:
        readers = [(where, [when.from_.name] if when.from_ else list(measured), when.metric) for where, when in _conditions(path, stage)]
        if isinstance(stage, Gate):
            readers.append((path, [reference.name for reference in stage.inputs], stage.metric))
        if isinstance(stage, Tune):
            readers.append(((*path, "choose"), [stage.choose.from_.name], stage.choose.metric))
        for where, names, metric in readers:
            evaluations = [measured[name] for name in names if name in measured]
            named = isinstance(stage, Gate) or where[-1] == "choose" or len(names) == 1
            if not evaluations:
                if where[-1] in ("when", "until") and not free and not names:
                    yield Problem(where, "nothing is measured that this could depend on", expected="an 'evaluate' stage")
                continue
            tested = [evaluation for evaluation in evaluations if evaluation.split == "test"]
            if tested and (named or len(tested) == len(evaluations)):
                key = "from" if named else "metric"
                what = {"gate": "a gate", "tune": "a choice"}.get(stage.kind, "a condition")
                yield Problem((*where, key), f"{what} on the test split: {tested[0].id!r} measures test", "test", "dev; selection never sees test")
            known = {word for evaluation in evaluations for word in evaluation.metrics}
            if metric not in known and not free:
                near = nearest(metric, known)
                hint = f"a metric of {evaluations[0].id!r}: {', '.join(sorted(known))}"
                if metric in METRICS:
                    hint += f" (add {metric!r} to its 'metrics')"
                yield Problem((*where, "metric"), f"nothing measures {metric!r}", expected=None if near else hint, near=near)


def _numbers(recipe: Recipe, stages: list[tuple[Path, Stage]]) -> Iterator[Problem]:
    """Schedules that are too short, grids outside `tune`, choices that nothing makes."""
    tuned: dict[str, Path] = {}
    for path, stage in stages:
        if isinstance(stage, Tune):
            tuned |= {f"{inner.id}.{where[-1]}": path for where, inner_path, inner in _grids(stages, path) for inner in [inner] if inner_path}
            if not any(True for _ in _grids(stages, path)):
                yield Problem(path, "a 'tune' without a grid has nothing to choose", expected="{grid: [...]} for a number of a stage inside")
    tunes = {path for path, stage in stages if isinstance(stage, Tune)}
    for path, stage in stages:
        inside = any(path[: len(tune)] == tune and path != tune for tune in tunes)
        for where, number in numbers_of(stage, path):
            yield from _number(recipe, where, number, inside, tuned)


def _number(recipe: Recipe, where: Path, number: Scheduled[float], inside: bool, tuned: dict[str, Path]) -> Iterator[Problem]:
    if number.shape == "grid" and not inside:
        yield Problem(where, "a grid stands outside a 'tune' stage", expected="a number, or this stage inside 'tune'")
    if number.shape == "values" and number.by == "iteration" and len(number.values) < recipe.iterations:
        message = f"{where[-1]!r} has {len(number.values)} values for {recipe.iterations} iterations"
        yield Problem((*where, "values"), message, expected=f"at least {recipe.iterations} values")
    if number.shape == "tuned":
        assert number.tuned is not None
        if number.tuned not in tuned:
            yield _word((*where, "tuned"), "choice", number.tuned, tuned, "a {grid: ...} in a 'tune' stage")
        elif tuned[number.tuned] > where:
            yield Problem((*where, "tuned"), f"{number.tuned!r} is chosen only later")


def _grids(stages: list[tuple[Path, Stage]], tune: Path) -> Iterator[tuple[Path, Path, Stage]]:
    for path, stage in stages:
        if path[: len(tune)] == tune and path != tune:
            for where, number in numbers_of(stage, path):
                if number.shape == "grid":
                    yield where, path, stage
