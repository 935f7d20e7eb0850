"""`load` reads, checks and returns a recipe; `resolved_yaml` writes one as it was resolved."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path as FilePath

from pydantic import ValidationError

from agentloop.recipe.available import unavailable
from agentloop.recipe.check import problems
from agentloop.recipe.examples import read_examples
from agentloop.recipe.override import apply
from agentloop.recipe.problem import Problem, of_validation, told
from agentloop.recipe.recipe import Recipe
from agentloop.recipe.settle import settled
from agentloop.recipe.source import Source, read, written
from agentloop.recipe.surroundings import MODEL_ALIASES, OptionMistakes, Surroundings


def load(
    path: str | FilePath,
    overrides: Sequence[str] = (),
    *,
    environments: Collection[str] | None = None,
    models: Collection[str] = MODEL_ALIASES,
    option_mistakes: OptionMistakes | None = None,
    allow_unavailable: bool = False,
) -> Recipe:
    """The recipe in a file, with overrides "a.b=c", fully checked.

    Args:
        path: The YAML file.
        overrides: What `--set` was given, in order.
        environments: Registered names of environments; None leaves names unchecked (paths are always checked).
        models: Aliases of models.
        option_mistakes: Checks what environments are given, see `Surroundings`; None leaves it for when they are made.
        allow_unavailable: Also return what the language can say but this version cannot run.

    Raises:
        Mistake: With file and line of everything that is wrong.
    """
    path = FilePath(path)
    source = read(path, str(path))
    apply(source, overrides)
    surroundings = Surroundings((path.resolve().parent, FilePath.cwd()), environments, models, option_mistakes)
    return check_source(source, surroundings, allow_unavailable=allow_unavailable)


def check_source(source: Source, surroundings: Surroundings, *, allow_unavailable: bool = False) -> Recipe:
    """The recipe that a source holds."""
    data = settled(source.data)
    try:
        recipe = Recipe.model_validate(data, context=surroundings)
    except ValidationError as error:
        raise told(of_validation(error, data, Recipe), source) from None
    found = problems(recipe) or ([] if allow_unavailable else unavailable(recipe)) or _of_options(recipe, surroundings)
    if found:
        raise told(found, source)
    if isinstance(recipe.prompt.examples, str):
        read_examples(FilePath(recipe.prompt.examples))
    return recipe


def _of_options(recipe: Recipe, surroundings: Surroundings) -> list[Problem]:
    """What is wrong with the options of environments. Asked last, because it imports them."""
    check = surroundings.option_mistakes
    if check is None:
        return []
    found: list[Problem] = []
    for name, entry in recipe.all_environments().items():
        path = ("environment",) if recipe.environments is None else ("environments", name)
        for option, mistake in check(entry.id, entry.options):
            found.append(Problem((*path, option), mistake.message, mistake.found, mistake.expected, mistake.nearest))
    return found


def resolved_yaml(recipe: Recipe) -> str:
    """The recipe with all its defaults; loading it gives an equal recipe, from any folder."""
    return written(recipe.model_dump(mode="json", by_alias=True, exclude_none=True))
