"""What holds of the language as a whole: strict scalars, words that exist, names that agree with the packages that it does not import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel, Strict, TypeAdapter, ValidationError

from agentloop.dataset.self_imitation import Settings
from agentloop.engine import settings as engine_settings
from agentloop.engine.launch import slots
from agentloop.engine.settings import RANKS, EngineSettings
from agentloop.engine.structured import FIELDS
from agentloop.model import ALIASES
from agentloop.recipe import Recipe
from agentloop.recipe import settings as recipe_settings
from agentloop.recipe.available import AVAILABLE, PARTS
from agentloop.recipe.build import SelfImitation
from agentloop.recipe.check import problems
from agentloop.recipe.json_schema import stage_models
from agentloop.recipe.part import Count, Part
from agentloop.recipe.problem import Problem
from agentloop.recipe.sample import Play
from agentloop.recipe.settings import HIGHEST_RANK, Engine, Role
from agentloop.recipe.stage import METRICS
from agentloop.recipe.stages import KINDS, WORDS
from agentloop.recipe.surroundings import MODEL_ALIASES


def all_parts() -> list[type[BaseModel]]:
    assert Recipe in Part.__subclasses__()
    found, waiting = [], [Part]
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        found.append(model)
    return found[1:]


PARTS_AND_FIELDS = [(model, name) for model in all_parts() for name in model.model_fields]


@pytest.mark.parametrize(("model", "name"), PARTS_AND_FIELDS, ids=[f"{model.__name__}.{name}" for model, name in PARTS_AND_FIELDS])
def test_scalars_are_strict_and_null_is_only_ever_the_default(model: type[BaseModel], name: str) -> None:
    """A lax number would take "64" or true; a null that is not the default would be lost in the resolved recipe, which leaves nulls out."""
    field = model.model_fields[name]
    assert type(None) not in get_args(field.annotation) or field.default is None
    for _, metadata in scalars(field.annotation, tuple(field.metadata)):
        assert any(isinstance(entry, Strict) and entry.strict for entry in metadata)


def scalars(annotation: Any, metadata: tuple[Any, ...]) -> Iterator[tuple[type, tuple[Any, ...]]]:
    """Each int, float or bool in a type, with what is annotated on it."""
    if annotation in (int, float, bool):
        yield annotation, metadata
    elif get_origin(annotation) is Annotated:
        yield from scalars(get_args(annotation)[0], get_args(annotation)[1:])
    elif get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from scalars(part, ())


@pytest.mark.parametrize("lax", ["1", "true", True, 1.5])
def test_a_strict_count_takes_nothing_else(lax: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Count).validate_python(lax)


def test_every_field_is_described() -> None:
    from agentloop.recipe.descriptions import of_model

    kinds = {"method", "critic", "dataset"}
    bare = [f"{model.__name__}.{key}" for model in all_parts() for key in _keys(model) if key not in of_model(model) and key not in kinds]
    assert bare == []


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def test_what_is_available_are_words_of_the_language() -> None:
    known = {what: set(models) for _, what, _, models in WORDS.values()}
    known |= {"stage": set(KINDS), "metric": set(METRICS), "part": set(PARTS)}
    known["overflow policy"] = set(get_args(Play.model_fields["overflow"].annotation))
    assert {what: words - known[what] for what, words in AVAILABLE.items()} == {what: set() for what in AVAILABLE}
    assert set(stage_models()) == set(KINDS)


def test_the_engine_block_is_the_engines_settings() -> None:
    settings = {field.name: field.default for field in fields(EngineSettings)}
    assert {name: field.default for name, field in Engine.model_fields.items()} == settings


def test_the_engine_and_the_language_agree_on_what_can_be_served() -> None:
    assert RANKS[-1] == HIGHEST_RANK
    assert recipe_settings.LORA_ARGUMENTS == engine_settings.LORA_ARGUMENTS
    assert get_args(get_args(Role.model_fields["structured_outputs"].annotation)[0]) == FIELDS
    roles = {name: {"adapter": True} for name in ("critic", "judge")}
    stages = [{"sample": {}}]

    def told(most: int) -> list[Problem]:
        recipe = {"name": "r", "model": "tiny", "environment": "x", "roles": roles, "engine": {"max_loras": most}, "stages": stages}
        return problems(Recipe.model_validate(recipe))

    assert not told(slots(3)) and told(slots(3) - 1)


def test_the_builder_knows_the_settings_of_self_imitation() -> None:
    mine = {name for name in SelfImitation.model_fields if name not in ("id", "when", "from_", "size", "into", "dataset")}
    assert mine == {field.name for field in fields(Settings)}


def test_model_aliases_are_those_of_the_models() -> None:
    assert set(MODEL_ALIASES) == set(ALIASES)


def test_loading_imports_nothing_heavy_and_nothing_of_the_other_packages() -> None:
    program = """
import sys
from agentloop.recipe import load, plan, resolved_yaml
recipe = load(sys.argv[1], allow_unavailable=True)
plan(recipe), resolved_yaml(recipe)
ours = {name.split(".")[1] for name in sys.modules if name.startswith("agentloop.")}
heavy = {"torch", "transformers", "vllm", "trl", "peft", "numpy", "pyarrow", "datasets", "jinja2"} & set(sys.modules)
print(sorted(ours), sorted(heavy))
"""
    example = str(__file__).replace("test_language.py", "methods/agent_r.yaml")
    done = subprocess.run([sys.executable, "-c", program, example], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "['errors', 'recipe'] []"
