"""The JSON Schema for editors: current, valid, and of one mind with the loader."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from agentloop.recipe.json_schema import HOME, json_schema, text
from agentloop.recipe.source import read

from .conftest import METHODS

RECIPES = sorted([*METHODS.glob("*.yaml"), *HOME.parent.glob("*.yaml")])
SCHEMA = json_schema()


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA)


def test_the_file_is_current() -> None:
    assert HOME.read_text(encoding="utf-8") == text(), "run `python -m agentloop.recipe.json_schema`"


@pytest.mark.parametrize("path", RECIPES, ids=[path.name for path in RECIPES])
def test_every_recipe_keeps_to_it(path: Path, validator: jsonschema.Draft202012Validator) -> None:
    assert [error.message for error in validator.iter_errors(read(path, path.name).data)] == []


@pytest.mark.parametrize("path", RECIPES, ids=[path.name for path in RECIPES])
def test_a_recipe_that_names_a_schema_names_this_one(path: Path) -> None:
    named = re.findall(r"^# yaml-language-server: \$schema=(\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert named or path.parent != METHODS
    assert all((path.parent / name).resolve() == HOME for name in named)


def _broken(change: str) -> dict[str, Any]:
    data = copy.deepcopy(read(METHODS / "agent_r.yaml", "agent_r.yaml").data)
    sample, train = data["stages"][0]["sample"], data["stages"][3]["train"]
    if change == "unknown key":
        sample["simulation"] = 4
    elif change == "key of another method":
        sample["branch"] = 4
    elif change == "wrong type":
        train["epochs"] = "three"
    elif change == "out of range":
        train["learning_rate"] = 0
    elif change == "unknown word":
        train["start"] = "prevoius"
    elif change == "unknown stage":
        data["stages"].append({"trian": {"from": "rows"}})
    elif change == "two kinds":
        data["stages"][3]["gate"] = {"from": "dev"}
    elif change == "schedule without by":
        train["epochs"] = {"values": [1, 2, 3]}
    elif change == "missing from":
        del train["from"]
    return data


@pytest.mark.parametrize(
    "change",
    [
        "unknown key",
        "key of another method",
        "wrong type",
        "out of range",
        "unknown word",
        "unknown stage",
        "two kinds",
        "schedule without by",
        "missing from",
    ],
)
def test_an_editor_marks_mistakes(change: str, validator: jsonschema.Draft202012Validator) -> None:
    assert not validator.is_valid(_broken(change))


def test_keys_are_described_for_the_editor() -> None:
    bare = [
        f"{name}.{key}"
        for name, part in SCHEMA["$defs"].items()
        for key, property_ in part.get("properties", {}).items()
        if "description" not in property_ and key not in ("method", "critic", "dataset") and name not in ("Stage", "Schedule")
    ]
    assert bare == []
