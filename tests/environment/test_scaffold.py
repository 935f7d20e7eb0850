"""A scaffolded environment works as it is written, test included."""

import subprocess
import sys
from pathlib import Path

import pytest

from agentloop.environment.scaffold import scaffold
from agentloop.errors import Mistake


@pytest.mark.parametrize("tool", [False, True])
def test_the_new_environment_passes_its_own_test(tmp_path: Path, tool: bool) -> None:
    environment, test = scaffold("my-game", tmp_path, tool=tool)
    assert (environment.name, test.name) == ("my_game.py", "test_my_game.py")
    assert "class MyGame(" in environment.read_text()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "test_dice.py").write_text("mine")
    with pytest.raises(Mistake, match=r"test_dice\.py is there already, and is not overwritten"):
        scaffold("dice", tmp_path, tool=False)
    assert [path.name for path in tmp_path.iterdir()] == ["test_dice.py"]


@pytest.mark.parametrize("name", ["3d", "class", "a b", "a.b", ""])
def test_a_name_that_cannot_be_a_module_is_a_mistake(tmp_path: Path, name: str) -> None:
    with pytest.raises(Mistake, match="letters, digits and underscores"):
        scaffold(name, tmp_path, tool=False)
