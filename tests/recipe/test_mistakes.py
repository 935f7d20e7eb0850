"""Broken recipes and what a user is told of each: one line changed in a recipe that is right, and the whole message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from agentloop.errors import Mistake
from agentloop.recipe import load
from agentloop.recipe.problem import MOST_TOLD

SOUND = """\
name: broken
model: tiny
environment: textcraft
iterations: 2
stages:
  - sample: {id: trees}
  - build: {id: rows, from: trees, dataset: self_imitation}
  - train: {from: rows}
  - evaluate: {id: dev}
  - gate: {from: dev}
"""

CASES = yaml.safe_load((Path(__file__).parent / "broken.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to write recipes in, with two Python files."""
    (tmp_path / "guess.py").touch()
    (tmp_path / "mine.py").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def message_of(text: str, **options: object) -> str:
    Path("r.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(Mistake) as caught:
        load("r.yaml", environments={"textcraft", "calculator"}, **options)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    return str(caught.value)


def changed(changes: dict[int, str]) -> str:
    lines = SOUND.splitlines()
    for number, line in changes.items():
        lines[number - 1] = line
    return "\n".join(lines) + "\n"


def test_the_recipe_that_is_broken_below_is_sound(folder: Path) -> None:
    Path("r.yaml").write_text(SOUND)
    assert load("r.yaml", environments={"textcraft"}).name == "broken"


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_message(folder: Path, case: dict[str, Any]) -> None:
    assert message_of(changed(case["change"])) == case["message"]


def test_there_is_no_such_recipe(folder: Path) -> None:
    Path("quickstart.yaml").touch()
    with pytest.raises(Mistake) as caught:
        load("quickstrat.yaml")
    assert str(caught.value) == "quickstrat.yaml: no such recipe; did you mean 'quickstart.yaml'?"


def test_a_folder_is_no_recipe(folder: Path) -> None:
    with pytest.raises(Mistake) as caught:
        load(folder)
    assert str(caught.value) == f"{folder}: not a file; expected a YAML file"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "r.yaml: the recipe is empty; expected name, model, environment and stages"),
        ("# nothing here\n", "r.yaml: the recipe is empty; expected name, model, environment and stages"),
        ("- name: list\n", "r.yaml:1: the recipe is no mapping; expected KEY: VALUE, beginning with name"),
        ("name: one\n---\nname: two\n", "r.yaml:2: a recipe is one document"),
        ("name: &me [*me]\n", "r.yaml:1: an alias of what it stands in"),
        ("name: *nobody\n", "r.yaml:1: found undefined alias 'nobody'"),
        ("{[a]: b}\n", "r.yaml:1: a key is no word; expected KEY: VALUE"),
    ],
    ids=["empty", "comment", "list", "two documents", "alias of itself", "undefined alias", "list as a key"],
)
def test_what_is_no_recipe_at_all(folder: Path, text: str, message: str) -> None:
    assert message_of(text) == message


def test_bytes_that_are_no_text(folder: Path) -> None:
    Path("r.yaml").write_bytes(b"\x93NUMPY\xff")
    with pytest.raises(Mistake) as caught:
        load("r.yaml")
    assert str(caught.value) == "r.yaml: not a text file; expected YAML in UTF-8"


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(folder: Path) -> None:
    text = changed({2: "model: tinny", 6: "  - sample: {id: trees, sampels: 3}", 8: "  - train: {from: rows, epochs: -1}"})
    assert message_of(text) == (
        "r.yaml:2: unknown model 'tinny'; did you mean 'tiny'?\n"
        "r.yaml:6: unknown key 'sampels' in stage 'sample'; did you mean 'samples'?\n"
        "r.yaml:8: 'epochs' in stage 'train' is out of range; found -1; expected more than 0"
    )


def test_a_flood_of_mistakes_is_cut(folder: Path) -> None:
    text = changed({6: "\n".join(f"  - sample: {{id: s{number}, wrong: 1}}" for number in range(20))})
    lines = message_of(text).splitlines()
    assert len(lines) == MOST_TOLD + 1
    assert lines[-1] == f"and {20 - MOST_TOLD} more"


def test_a_secret_in_the_recipe_is_not_repeated(folder: Path) -> None:
    assert "sk-12345" not in message_of(changed({4: "roles: {judge: {url: 'http://x', key: sk-12345}}"}))


def test_what_is_not_available_is_told_after_all_that_is_wrong(folder: Path) -> None:
    unavailable = {7: "  - build: {id: rows, from: trees, dataset: world_model}"}
    assert message_of(changed(unavailable)) == "r.yaml:7: dataset 'world_model' is not available in this version"
    both = message_of(changed(unavailable | {8: "  - train: {from: row}"}))
    assert both == "r.yaml:8: nothing makes 'row'; did you mean 'rows'?"


def test_a_judge_may_be_any_role_and_a_player_may_not(folder: Path) -> None:
    far = "roles: {far: {url: 'http://host', model: large, prompt: Be strict.}, scorer: {model: tiny, scoring: embedder}}\niterations: 2"
    build = "\n  - build: {id: rows, from: errors, dataset: self_imitation}"
    judged = {4: far, 7: "  - judge: {id: errors, from: trees, critic: rubric, rubric: short, role: far}" + build}
    Path("r.yaml").write_text(changed(judged))
    assert load("r.yaml", environments={"textcraft"}).role("far").kind == "url"
    assert message_of(changed({4: far, 6: "  - sample: {id: trees, role: far}"})) == (
        "r.yaml:7: a role behind a URL outside 'judge' is not available in this version\n"
        "r.yaml:7: 'prompt' of a role outside 'judge' is not available in this version"
    )
    embedded = {4: far, 7: "  - judge: {id: errors, from: trees, critic: scoring, role: scorer}" + build}
    assert message_of(changed(embedded)) == "r.yaml:8: an embedder as a judge is not available in this version"
