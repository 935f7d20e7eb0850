"""The toy run: a scripted policy in a counting game, with real training of a one-layer random model, in a few seconds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agentloop.cli.main import run as agentloop
from tests.tiny_model import make_model

TOY = Path(__file__).parent / "toy"


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random one-layer model; the scripted engine needs its tokenizer, the trainer its weights."""
    return make_model(tmp_path_factory.mktemp("toy-model") / "model", layers=1)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, toy_model: Path) -> tuple[Path, Path]:
    """(recipe, directory) of one finished toy run, shared by the tests that only look at it."""
    folder = tmp_path_factory.mktemp("finished")
    for file in TOY.iterdir():
        (folder / file.name).write_text(file.read_text().replace("MODEL", str(toy_model)))
    assert agentloop(["run", str(folder / "recipe.yaml"), "--out", str(folder / "out"), "--quiet"]) == 0
    return folder / "recipe.yaml", folder / "out"


@pytest.fixture
def toy_recipe(tmp_path: Path, toy_model: Path) -> Callable[..., Path]:
    """Writes the toy recipe into a folder of its own; `changes` are pairs of old and new text."""

    def write(*changes: tuple[str, str]) -> Path:
        folder = tmp_path / "toy"
        shutil.copytree(TOY, folder, dirs_exist_ok=True)
        recipe = folder / "recipe.yaml"
        text = (TOY / "recipe.yaml").read_text().replace("MODEL", str(toy_model))
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        recipe.write_text(text)
        return recipe

    return write
