"""`--set`: what it can reach, and that every mistake in it names the argument."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agentloop.errors import Mistake
from agentloop.recipe import GroupSample, Recipe, Train, load

TEXT = """\
name: small
model: tiny
environment: {id: textcraft, tasks: 8}
stages:
  - sample: {id: trees}
  - build: {id: rows, from: trees, dataset: self_imitation}
  - repeat: {times: 2, stages: [{train: {from: rows}}]}
  - evaluate: {id: dev}
final:
  - evaluate: {split: test}
"""

Loader = Callable[..., Recipe]


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    """Loads the recipe with overrides."""
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(TEXT)
    return lambda *overrides: load("r.yaml", overrides, environments={"textcraft"}, allow_unavailable=True)


def test_a_stage_by_its_id(changed: Loader) -> None:
    sample = changed("stages.trees.samples=4").stages[0]
    assert isinstance(sample, GroupSample) and sample.samples.at(0) == 4


def test_a_stage_by_its_default_id_and_inside_a_repeat(changed: Loader) -> None:
    train = list(changed("stages.train.learning_rate=1e-5").all_stages())[3]
    assert isinstance(train, Train) and train.learning_rate.at(0) == 1e-5


def test_a_stage_by_its_place(changed: Loader) -> None:
    assert changed("stages.0.samples=3") == changed("stages.0.sample.samples=3") == changed("stages.trees.samples=3")


def test_a_final_stage(changed: Loader) -> None:
    assert changed("final.evaluate.tasks=5").final[0].settings(0)["tasks"] == 5


def test_a_part_that_the_recipe_leaves_out(changed: Loader) -> None:
    assert changed("engine.dtype=float32").engine.dtype == "float32"


def test_values_are_yaml(changed: Loader) -> None:
    recipe = changed("final.evaluate.when={metric: success, from: dev, below: 0.5}", "iterations=3", "description='1'")
    assert recipe.final[0].when is not None and recipe.final[0].when.below == 0.5
    assert (recipe.iterations, recipe.description) == (3, "1")


def test_an_option_of_the_environment(changed: Loader) -> None:
    environment = changed("environment.depth=2").environment
    assert environment is not None and environment.options == {"depth": 2}


def test_the_last_of_two_wins_and_a_value_may_contain_an_equals_sign(changed: Loader) -> None:
    assert changed("description=a", "description=b=c").description == "b=c"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.tree.samples=4", "--set stages.tree.samples=4: no stage 'tree' in 'stages'; did you mean 'trees'?"),
        ("final.dev.samples=4", "--set final.dev.samples=4: no stage 'dev' in 'final'; expected one of evaluate"),
        ("stages.trees.sampels=4", "--set stages.trees.sampels=4: unknown key 'sampels' in stage 'sample'; did you mean 'samples'?"),
        ("iteration=4", "--set iteration=4: unknown key 'iteration'; did you mean 'iterations'?"),
        ("stages.trees=4", "--set stages.trees=4: a stage is not a value; expected --set stages.trees.KEY=VALUE"),
        ("stages.7.samples=4", "--set stages.7.samples=4: 'stages' has no entry '7'; expected an index from 0 to 3"),
        ("name.first=x", "--set name.first=x: 'name' is 'small' and has no 'first'"),
        ("samples", "--set samples: not an override; expected --set KEY.KEY=VALUE"),
        ("a..b=1", "--set a..b=1: not an override; expected --set KEY.KEY=VALUE"),
        ("seed=[1", "--set seed=[1:1: not valid YAML while parsing a flow sequence: expected ',' or ']', but got '<stream end>'"),
        ("seed=x", "--set seed=x: 'seed' has the wrong type; found 'x'; expected a whole number"),
        ("stages.rows.from=tree", "--set stages.rows.from=tree: nothing makes 'tree'; did you mean 'trees'?"),
    ],
)
def test_a_mistake_names_the_argument(changed: Loader, override: str, message: str) -> None:
    with pytest.raises(Mistake) as caught:
        changed(override)
    assert str(caught.value) == message


def test_mistakes_of_the_file_come_before_those_of_arguments(changed: Loader) -> None:
    Path("r.yaml").write_text(TEXT.replace("model: tiny", "model: tinny"))
    with pytest.raises(Mistake) as caught:
        changed("iteration=4")
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["r.yaml", "--set iteration=4"]
