"""The resolved recipe: all defaults in it, and the same recipe when it is loaded again, from anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from agentloop.recipe import Recipe, load, resolved_yaml
from agentloop.recipe.build import Preference, SelfImitation
from agentloop.recipe.json_schema import stage_models
from agentloop.recipe.measure import Evaluate
from agentloop.recipe.part import Part
from agentloop.recipe.sample import GroupSample
from agentloop.recipe.schedule import Scheduled
from agentloop.recipe.settings import Engine
from agentloop.recipe.source import parse, written
from agentloop.recipe.train import Train
from agentloop.recipe.walk import stages_of

from .conftest import NAMES

PHASES = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]
"""Without the explanation of a failure, which takes minutes here."""


def reloaded(recipe: Recipe, folder: Path) -> Recipe:
    path = folder / "resolved.yaml"
    path.write_text(resolved_yaml(recipe), encoding="utf-8")
    return load(path, allow_unavailable=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_resolved_recipe_is_the_same_from_any_folder(methods: Path, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    recipe = load(methods / f"{name}.yaml", allow_unavailable=True)
    assert reloaded(recipe, tmp_path_factory.mktemp("elsewhere")) == recipe


def numbers(field: FieldInfo, kind: type) -> st.SearchStrategy[Any]:
    """Numbers within the bounds of a field."""
    bounds = {
        name: getattr(entry, name)
        for entry in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if getattr(entry, name, None) is not None
    }
    if kind is int:
        return st.integers(bounds.get("ge", -1000), bounds.get("le", 1000))
    low, high = bounds.get("ge", bounds.get("gt", -1e6)), bounds.get("le", bounds.get("lt", 1e6))
    return st.floats(low, high, exclude_min="gt" in bounds, exclude_max="lt" in bounds, allow_nan=False, allow_subnormal=False)


def schedules(number: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A number or one of the schedules that may stand anywhere."""
    values = st.builds(
        lambda by, values: {"by": by, "values": values}, st.sampled_from(["iteration", "update"]), st.lists(number, min_size=3, max_size=4)
    )
    ramp = st.fixed_dictionaries({"from": number, "to": number, "over": st.integers(1, 500)})
    ramps = st.builds(lambda shape, ramp: {"by": "update", shape: ramp}, st.sampled_from(["cosine", "linear"]), ramp)
    return st.one_of(number, values, ramps)


def values_of(field: FieldInfo) -> st.SearchStrategy[Any] | None:
    """What may be written for a field; None for fields that name other things."""
    annotation, arguments = field.annotation, [part for part in get_args(field.annotation) if part is not type(None)]
    if type(None) in get_args(annotation) and len(arguments) == 1:
        annotation = arguments[0]
    if get_origin(annotation) is Scheduled:
        inner = FieldInfo.from_annotation(get_args(annotation)[0])
        assert inner.annotation is not None
        return schedules(numbers(inner, inner.annotation))
    if annotation in (int, float):
        return numbers(FieldInfo.from_annotation(arguments[0]) if arguments else field, annotation)
    if annotation is bool:
        return st.booleans()
    if str(get_origin(annotation)) == "typing.Literal":
        return st.sampled_from(get_args(annotation))
    return None


def bodies(model: type[Part], **fixed: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Settings of a part: any of its fields, in any number."""
    optional = {(field.alias or name): strategy for name, field in model.model_fields.items() if (strategy := values_of(field)) is not None}
    for key in fixed:
        optional.pop(key, None)
    return st.fixed_dictionaries({key: st.just(value) for key, value in fixed.items()}, optional=optional)


def trainings(model: type[Part], method: str) -> st.SearchStrategy[dict[str, Any]]:
    without = st.sampled_from(["epochs", "updates"])
    body = bodies(model, method=method, rank=8, **{"from": "rows"})
    return st.builds(lambda body, key: {name: value for name, value in body.items() if name != key}, body, without)


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, Any]:
    """Recipes with every setting of a stage that is a number, a word or a truth."""
    train = draw(st.sampled_from([model for model in stage_models()["train"] if issubclass(model, Train)]))
    method = get_args(train.model_fields["method"].annotation)[0]
    training = draw(trainings(train, method))
    builder = Preference if method == "dpo" and training.get("loss") != "kto" else SelfImitation
    dataset = get_args(builder.model_fields["dataset"].annotation)[0]
    return {
        "name": "drawn",
        "description": draw(st.text(st.characters(exclude_categories=["C"]), max_size=30)),
        "model": "org/name",
        "engine": draw(bodies(Engine, kind="auto", max_lora_rank=64, max_loras=9)),
        "environment": {
            "id": "textcraft",
            "depth": draw(st.one_of(st.integers(), st.text(max_size=5), st.lists(st.booleans(), max_size=2))),
        },
        "seed": draw(st.integers(-(2**63), 2**63)),
        "iterations": draw(st.integers(1, 3)),
        "stages": [
            {"sample": draw(bodies(GroupSample, id="trees", split="train"))},
            {"build": draw(bodies(builder, id="rows", dataset=dataset, **{"from": ["trees", "trees@previous"]}))},
            {"train": training},
            {"evaluate": draw(bodies(Evaluate, id="dev", split="dev"))},
            {"gate": {"from": "dev"}},
        ],
    }


@settings(phases=PHASES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=40)
@given(data=recipes())
def test_any_recipe_survives_being_written(tmp_path: Path, data: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(data)
    assert reloaded(recipe, tmp_path) == recipe


def test_defaults_are_in_it(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: r\nmodel: tiny\nenvironment: {id: textcraft, tasks: 9}\nroles: {actor: {start: best}}\nstages:\n"
        "  - sample: {}\n  - build: {from: sample, dataset: self_imitation}\n"
        "  - train: {from: build}\n  - train: {from: build, start: base}\n"
    )
    recipe = load(path, allow_unavailable=True)
    text = resolved_yaml(recipe)
    assert "learning_rate: 0.0002" in text and "min_reward: 1.0" in text and "kind: auto" in text
    assert [stage.id for _, stage in stages_of(recipe)] == ["sample", "build", "train", "train_2"]
    assert recipe.stages[0].settings(0)["tasks"] == 9
    assert [stage.settings(0)["start"] for stage in recipe.stages[2:]] == ["best", "base"]


def test_a_search_is_shown_without_what_it_has_not(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: r\nmodel: tiny\nenvironment: {id: textcraft}\nstages: [{sample: {method: mcts, depth: 7, tasks: 3}}]\n")
    recipe = load(path)
    text = resolved_yaml(recipe)
    assert "depth: 7" in text and "simulations: 8" in text and "tasks: 3" in text
    assert "max_turns" not in text and "samples" not in text
    assert reloaded(recipe, tmp_path) == recipe


def test_files_are_found_beside_the_recipe_and_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "guess.py").touch()
    (tmp_path / "shots.yaml").write_text("- [{role: user, content: a}, {role: assistant, content: b}]")
    path = tmp_path / "recipes" / "r.yaml"
    path.write_text("name: r\nmodel: tiny\nenvironment: ./guess.py\nprompt: {examples: shots.yaml}\nstages: [{sample: {}}]\n")
    monkeypatch.chdir(tmp_path)
    recipe = load(path)
    assert recipe.environment is not None and recipe.environment.id == str(tmp_path / "recipes" / "guess.py")
    assert recipe.prompt.examples == str(tmp_path / "shots.yaml")


@settings(phases=PHASES, deadline=None)
@given(value=st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()))
def test_yaml_is_read_as_it_was_written(value: object) -> None:
    text = written({"key": value})
    assert parse(text, "r.yaml").data == {"key": value}


@pytest.mark.parametrize(
    "text", ["1e5", "010", "1_000", "true", "no", "null", "~", "", "2024-01-01", "1:30", "a: b", "# no", "@x", "*x", "-"]
)
def test_text_that_looks_like_something_else_stays_text(text: str) -> None:
    assert parse(written({"key": text}), "r.yaml").data == {"key": text}
