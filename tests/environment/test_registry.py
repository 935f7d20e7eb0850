"""Environments are found by name, entry point or path, and nothing is imported before it has to be."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from agentloop import Environment
from agentloop.environment import registry
from agentloop.environment.registry import find, names
from agentloop.errors import Mistake


def test_shipped_environments_are_named_and_found() -> None:
    assert "textcraft" in names()
    spec = find("textcraft")
    assert (spec.source, spec.load().__name__) == ("shipped", "TextCraft")
    assert spec.description().startswith("Craft the goal")


def test_names_and_find_import_no_environment_and_nothing_heavy() -> None:
    code = (
        "import sys; from agentloop.environment.registry import find, names; names(); find('textcraft').description();"
        "print([m for m in sys.modules if m in ('torch', 'transformers', 'textcraft') or m.startswith('agentloop_environments')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_an_installed_package_brings_environments_by_entry_point(monkeypatch, tmp_path: Path, write) -> None:
    write("", name="some_package.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [importlib.metadata.EntryPoint("counting", "some_package:Mine", registry.ENTRY_POINT_GROUP)]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points if group == "agentloop.environments" else [])
    registry._installed.cache_clear()
    try:
        assert "counting" in names()
        assert find("counting").make().tasks("train")[0].id == "train-0"
        assert find("counting").description() == "Say the next number."
    finally:
        registry._installed.cache_clear()


def test_a_file_is_found_beside_the_recipe_then_in_the_working_directory(write, tmp_path: Path, monkeypatch) -> None:
    write("")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert find("./mine.py", base=tmp_path).path == tmp_path / "mine.py"
    (elsewhere / "mine.py").write_text((tmp_path / "mine.py").read_text())
    assert find("mine.py").path == elsewhere / "mine.py"
    assert find("mine.py", base=tmp_path).path == tmp_path / "mine.py"


def test_one_of_several_classes_is_named_behind_the_path(write, tmp_path: Path) -> None:
    write("")
    with (tmp_path / "mine.py").open("a") as file:
        file.write("\nclass Other(_Count):\n    'Another.'\n")
    spec = find(str(tmp_path / "mine.py") + ":Other")
    assert spec.load().__name__ == "Other"
    assert spec.description() == "Another."


def test_a_file_imports_its_neighbours(write, tmp_path: Path) -> None:
    (tmp_path / "neighbouring_words.py").write_text("WORDS = ['a']")
    spec = write("from neighbouring_words import WORDS")
    assert spec.load().WORDS == ["a"]


def test_an_environment_in_a_file_can_use_what_looks_up_its_module(write) -> None:
    spec = write("@__import__('dataclasses').dataclass\nclass State:\n    n: 'int' = 3")
    assert spec.load().State().n == 3


def test_options_are_converted_to_the_declared_types(write) -> None:
    spec = write("def __init__(self, low: int = 0, names: tuple[str, ...] = (), anything=None):\n    self.given = (low, names, anything)")
    assert spec.make(low="3", names=["a"], anything={"x": 1}).given == (3, ("a",), {"x": 1})


def test_an_environment_may_take_any_options(write) -> None:
    spec = write("def __init__(self, **options):\n    self.given = options")
    assert spec.make(speed=3).given == {"speed": 3}


@pytest.mark.parametrize("id", ["textcraft", "./nowhere.py", "nowhere"])
def test_find_gives_the_same_for_the_same_id(id: str) -> None:
    try:
        assert find(id) == find(id)
    except Mistake as mistake:
        assert "nowhere" in str(mistake)


def test_in_a_checkout_the_folder_beside_the_package_is_used_and_else_the_one_inside(monkeypatch, tmp_path: Path) -> None:
    assert registry.shipped_folder().name == "environments"
    package = tmp_path / "site-packages" / "agentloop"
    (package / "environment").mkdir(parents=True)
    monkeypatch.setattr(registry, "__file__", str(package / "environment" / "registry.py"))
    assert registry.shipped_folder() == package / "environments"


def test_loading_a_file_twice_gives_one_class(write) -> None:
    spec = write("")
    assert spec.load() is find(spec.id).load()
    assert issubclass(spec.load(), Environment)
