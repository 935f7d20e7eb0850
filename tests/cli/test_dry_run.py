"""`agentloop run --dry-run` tells what is wrong with what environments are given, with its line, before an engine starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentloop.cli.main import run as agentloop

RECIPE = """\
name: options
model: tiny
environment:
  id: ENVIRONMENT
  OPTION
stages:
  - sample: {id: trees}
"""

GAMES = """\
from agentloop import Environment

class High(Environment):
    def __init__(self, highest: int = 100): ...
    def tasks(self, split): ...
    def reset(self, task): ...
    def step(self, action): ...

class Low(High): ...
"""


def dry_run(folder: Path, environment: str, option: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code, and the message where there is one."""
    (folder / "games.py").write_text(GAMES)
    (folder / "r.yaml").write_text(RECIPE.replace("ENVIRONMENT", environment).replace("OPTION", option))
    code = agentloop(["run", str(folder / "r.yaml"), "--dry-run"])
    return code, capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    ("environment", "option", "message"),
    [
        (
            "calculator",
            "levls: 2",
            "unknown option 'levls' of environment 'calculator'; expected one of kind, levels, terse, seed; did you mean 'levels'?",
        ),
        (
            "calculator",
            "kind: stories",
            "of environment 'calculator': input should be 'story', 'problem' or 'expression'; found 'stories'; did you mean 'story'?",
        ),
        ("./games.py:High", "higest: 5", "expected one of highest; did you mean 'highest'?"),
    ],
)
def test_an_option_that_an_environment_does_not_take(
    environment: str, option: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = dry_run(tmp_path, environment, option, capsys)
    assert code == 2 and said.startswith(f"agentloop: {tmp_path}/r.yaml:5: ") and said.endswith(message)


def test_one_of_several_environments_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run(tmp_path, "./games.py:Low", "highest: 5", capsys) == (0, "")
    code, said = dry_run(tmp_path, "./game.py:Low", "highest: 5", capsys)
    assert code == 2 and said.endswith("r.yaml:4: no such file: './game.py'; did you mean './games.py'?")


def test_an_environment_that_cannot_be_imported_says_where_it_breaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.py").write_text("import agentloop\n\n1 / 0\n")
    code, said = dry_run(tmp_path, "./broken.py", "highest: 5", capsys)
    assert code == 2 and f"{tmp_path}/broken.py:3: " in said and "Traceback" not in said
