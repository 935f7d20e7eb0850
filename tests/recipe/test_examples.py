"""Worked examples in a file: what is read, and what a user is told of a broken one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentloop.errors import Mistake
from agentloop.recipe import load
from agentloop.recipe.examples import read_examples
from agentloop.recipe.problem import MOST_TOLD

A_LIST = "expected - - {role: user, content: ...} and so on"
ONE = [{"role": "user", "content": "1 + 2?"}, {"role": "assistant", "content": "3 \N{GRINNING FACE}"}]

YAML = """\
- - {role: user, content: "1 + 2?"}
  - role: assistant
    content: "3 \\U0001F600"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mine.yaml", YAML),
        ("mine.json", json.dumps([ONE], indent="\t")),
        ("mine.json", json.dumps([ONE], ensure_ascii=False)),
    ],
    ids=["yaml", "json with tabs and halves of characters", "json"],
)
def test_yaml_and_json_say_the_same(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")
    assert read_examples(folder / name) == (tuple(ONE),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"mine.yaml: worked examples are a list of conversations; {A_LIST}"),
        ("a: 1", f"mine.yaml:1: worked examples are a list of conversations; found '{{a}}'; {A_LIST}"),
        (
            "- {role: user, content: a}\n- {role: assistant, content: b}",
            f"mine.yaml:1: an example is a list of messages; found '{{role, content}}'; {A_LIST}\n"
            f"mine.yaml:2: an example is a list of messages; found '{{role, content}}'; {A_LIST}",
        ),
        ("- - hello", "mine.yaml:1: a message is a mapping; found 'hello'; expected {role: user | assistant, content: TEXT}"),
        (
            "- - {role: user, content: a}\n  - {role: assistant, contnt: b}",
            "mine.yaml:2: unknown key 'contnt' of a message; did you mean 'content'?\n"
            "mine.yaml:2: missing key 'content' of a message; expected {role: user | assistant, content: TEXT}",
        ),
        (
            "- - {role: system, content: a}\n  - {role: assistant, content: b}",
            "mine.yaml:1: unknown role of a message; found 'system'; expected user or assistant",
        ),
        (
            "- - {role: assistant, content: a}\n  - {role: assistant, content: b}",
            "mine.yaml:1: user and assistant take turns, the user first; found 'assistant'; expected user",
        ),
        (
            "- - {role: user, content: a}\n  - {role: assistant, content: 7}",
            "mine.yaml:2: the content of a message is text; found 7; expected text, in quotes where it looks like something else",
        ),
        (
            "- - {role: user, content: a}\n  - {role: assistant, content: b}\n  - {role: user, content: c}",
            "mine.yaml:3: an example ends with what the model is to say; found 'user'; expected a last message of assistant",
        ),
    ],
    ids=["empty", "mapping", "one conversation", "text", "key", "system", "order", "number", "end"],
)
def test_a_broken_file_is_told_by_line(folder: Path, text: str, message: str) -> None:
    (folder / "mine.yaml").write_text(text)
    with pytest.raises(Mistake) as caught:
        read_examples(folder / "mine.yaml")
    assert str(caught.value) == message


def test_a_flood_of_mistakes_is_cut(folder: Path) -> None:
    (folder / "mine.yaml").write_text("- - hello\n" * 40)
    with pytest.raises(Mistake) as caught:
        read_examples(folder / "mine.yaml")
    assert len(str(caught.value).splitlines()) == MOST_TOLD + 1


def test_a_recipe_is_refused_with_the_line_of_its_examples(folder: Path) -> None:
    recipe = "name: a\nmodel: tiny\nenvironment: calculator\nprompt: {examples: ./mine.yaml}\nstages: [{sample: {}}]\n"
    (folder / "r.yaml").write_text(recipe)
    with pytest.raises(Mistake, match=r"r.yaml:4: no such file: './mine.yaml'"):
        load("r.yaml")
    (folder / "mine.yaml").write_text("- - {role: user}\n")
    with pytest.raises(Mistake, match=r"^mine.yaml:1: missing key 'content' of a message"):
        load("r.yaml")
    (folder / "mine.yaml").write_text(YAML)
    assert load("r.yaml").prompt.examples == str(folder / "mine.yaml")
