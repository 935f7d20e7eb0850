"""The JSON Schema of recipes, for editors: `python -m agentloop.recipe.json_schema` writes `recipes/recipe.schema.json`.

A recipe names it in a first comment, `# yaml-language-server: $schema=recipe.schema.json`, and the editor completes keys and marks
mistakes. It holds what a schema can say; references between stages are checked when the recipe is loaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from agentloop.recipe import descriptions
from agentloop.recipe.part import Part
from agentloop.recipe.recipe import Recipe
from agentloop.recipe.schedule import Scheduled
from agentloop.recipe.stages import PLAIN, WORDS

HOME = Path(__file__).resolve().parents[2] / "recipes" / "recipe.schema.json"

_NUMBERS = {"type": "array", "minItems": 1, "items": {"type": "number"}}
_RAMP = {
    "type": "object",
    "properties": {"from": {"type": "number"}, "to": {"type": "number"}, "over": {"type": "integer", "minimum": 1}},
    "required": ["from", "to", "over"],
    "additionalProperties": False,
}
_BY = {"enum": ["iteration", "update"], "description": "What the schedule counts."}


def _shape(key: str, value: dict[str, Any], by: bool) -> dict[str, Any]:
    properties = {"by": _BY, key: value} if by else {key: value}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


SCHEDULE: dict[str, Any] = {
    "description": "A number that changes: by iteration or optimiser update, in a `tune` stage, or as a `tune` stage chose.",
    "anyOf": [
        _shape("values", _NUMBERS, by=True),
        _shape("cosine", _RAMP, by=True),
        _shape("linear", _RAMP, by=True),
        _shape("grid", _NUMBERS, by=False),
        _shape("tuned", {"type": "string", "pattern": r"^[^.]+\.[^.]+$"}, by=False),
    ],
}


SHORT_FORMS: dict[str, dict[str, Any]] = {
    "Environment": {"type": "string"},
    "Seat": {"type": "string"},
    "Critic": {"type": "string"},
    "StartFrom": {"type": "string"},
    "Memory": {"type": "string"},
    "Lineage": {"enum": ["line", "archive"]},
}
"""Models that may also be written as one word."""


class _Generator(GenerateJsonSchema):
    """Writes the defaults of scheduled numbers too."""

    def encode_default(self, dft: Any) -> Any:
        return dft.data() if isinstance(dft, Scheduled) else super().encode_default(dft)


def stage_models() -> dict[str, list[type[Part]]]:
    """The models of each kind of stage."""
    found: dict[str, list[type[Part]]] = {kind: list(models.values()) for kind, (*_, models) in WORDS.items()}
    return found | {kind: [model] for kind, model in PLAIN.items()}


def json_schema() -> dict[str, Any]:
    """The schema, as JSON values."""
    kinds = stage_models()
    models: list[type[BaseModel]] = [Recipe, *(model for several in kinds.values() for model in several)]
    _, top = models_json_schema([(model, "validation") for model in models], schema_generator=_Generator)
    definitions: dict[str, Any] = top["$defs"]
    by_name = {model.__name__: model for model in _all_models()}
    for name, definition in definitions.items():
        _describe(definition, by_name[name])
    for name, short in SHORT_FORMS.items():
        definitions[name] = {"anyOf": [short, definitions[name]]}
    inputs = definitions["Python"]["properties"]["inputs"]
    described = inputs.pop("description")
    definitions["Python"]["properties"]["inputs"] = {
        "anyOf": [{"type": "array", "items": {"type": "string"}}, inputs],
        "description": described,
    }
    definitions["Schedule"] = SCHEDULE
    definitions["Stage"] = {
        "description": "KIND: {...}",
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
        "properties": {kind: _one_of(several) for kind, several in kinds.items()},
    }
    recipe = definitions.pop("Recipe")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **recipe, "title": "agentloop recipe", "$defs": definitions}


def _one_of(models: list[type[Part]]) -> dict[str, Any]:
    references = [{"$ref": f"#/$defs/{model.__name__}"} for model in models]
    return references[0] if len(references) == 1 else {"oneOf": references}


def _all_models() -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = []
    waiting: list[type[BaseModel]] = [Part]
    while waiting:
        model = waiting.pop()
        found.append(model)
        waiting += model.__subclasses__()
    return found


def _describe(definition: dict[str, Any], model: type[BaseModel]) -> None:
    """Put the fields' docstrings in; take out generated titles and defaults that say nothing."""
    definition.pop("title", None)
    for key, property_ in definition.get("properties", {}).items():
        property_.pop("title", None)
        if property_.get("default", 0) in (None, "", {}):
            del property_["default"]
        if key in (described := descriptions.of_model(model)):
            property_["description"] = described[key]


def text() -> str:
    """The file's content."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    HOME.write_text(text(), encoding="utf-8")
    print(f"wrote {HOME}")
