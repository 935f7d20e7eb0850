"""The language can say published methods, each in under forty lines, with nothing wrong but what is not built yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentloop.errors import Mistake
from agentloop.recipe import Recipe, load, plan
from agentloop.recipe.build import Mix
from agentloop.recipe.control import Tune
from agentloop.recipe.flow import artifacts_of

from .conftest import METHODS, NAMES

DESIGN = """\
name: agent-r
model: smollm2-135m                # an alias, a hub id or a path
environment: {id: textcraft, tasks: 64}
iterations: 3
stages:
  - sample:   {id: trees, method: mcts, simulations: 8, width: 4, depth: 20}
  - judge:    {id: errors, from: trees, critic: first_error, role: actor}
  - build:    {id: rows, from: errors, dataset: reflection, beta: 0.2,
               alpha: {by: iteration, values: [0.5, 0.7, 1.0]}}
  - train:    {from: rows, method: sft, epochs: 3, learning_rate: 2.0e-4}
  - evaluate: {id: dev, split: dev, tasks: 100}
  - gate:     {from: dev, metric: success, keep: best}
final:
  - evaluate: {split: test, tasks: 200}
"""

BUILT = ("agent_r",)
"""Methods of which every part is there."""


def read(methods: Path, name: str) -> Recipe:
    return load(methods / f"{name}.yaml", allow_unavailable=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_language_can_say_it(methods: Path, name: str) -> None:
    assert len((METHODS / f"{name}.yaml").read_text().splitlines()) < 40
    recipe = read(methods, name)
    assert {stage.id for stage in recipe.all_stages()} >= {planned.stage.id for planned in plan(recipe)}


@pytest.mark.parametrize("name", BUILT)
def test_what_is_built_is_not_refused(methods: Path, name: str) -> None:
    assert load(methods / f"{name}.yaml") == read(methods, name)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in BUILT])
def test_only_what_is_not_built_yet_is_refused(methods: Path, name: str) -> None:
    with pytest.raises(Mistake) as caught:
        load(methods / f"{name}.yaml")
    lines = str(caught.value).splitlines()
    assert all(line.endswith("is not available in this version") or line.startswith("and ") for line in lines)


def test_the_example_of_the_design(tmp_path: Path) -> None:
    path = tmp_path / "agent-r.yaml"
    path.write_text(DESIGN)
    recipe = load(path, environments={"textcraft"}, allow_unavailable=True)
    sample, judge, build, train, evaluate, gate = recipe.stages
    assert (sample.id, judge.id, build.id, train.id, evaluate.id, gate.id) == ("trees", "errors", "rows", "train", "dev", "gate")
    assert sample.settings(0)["tasks"] == 64
    assert [build.settings(iteration)["alpha"] for iteration in range(3)] == [0.5, 0.7, 1.0]
    assert load(path) == recipe


def test_b_star_uses_what_its_tuning_chose(methods: Path) -> None:
    recipe = read(methods, "b_star")
    assert isinstance(recipe.stages[0], Tune)
    temperature = recipe.stages[1].temperature  # type: ignore[attr-defined]
    assert temperature.at(0, choices={"probe.temperature": 0.9}) == 0.9


def test_eva_mixes_tasks_that_are_made_later(methods: Path) -> None:
    recipe = read(methods, "eva")
    assert isinstance(recipe.stages[0], Mix)
    assert artifacts_of(recipe)["prompts"].type == "tasks"
    first, second = (planned for planned in plan(recipe) if planned.stage.id == "prompts" and planned.iteration < 2)
    assert [entry.keys for entry in first.inputs] == [(), ()]
    assert [entry.keys for entry in second.inputs] == [("000/evolved",), ()]


def test_self_lengthen_extends_in_rounds(methods: Path) -> None:
    checked = [planned for planned in plan(read(methods, "self_lengthen")) if planned.stage.id == "checked" and planned.iteration == 1]
    before = [{str(entry.reference): entry.keys for entry in planned.inputs}["checked@previous"] for planned in checked]
    assert before == [(), ("001.00/checked",), ("001.01/checked",)]
