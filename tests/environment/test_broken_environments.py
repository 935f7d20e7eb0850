"""Broken environments, each with the message that its author reads: what is wrong, where, what was found and what is expected."""

import asyncio
from pathlib import Path

import pytest

from agentloop.environment.failure import EnvironmentFailure
from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import find, option_mistakes
from agentloop.errors import Mistake

SOUND = """
from agentloop import Environment, StepResult, Task

class Guess(Environment):
    '''Guess.'''
    def __init__(self, highest: int = 10):
        self.highest = highest
    def tasks(self, split):
        return [Task(f"{split}-0", {})]
    def reset(self, task):
        return "Guess."
    def step(self, action):
        return StepResult("no")
"""

STEP = 'return StepResult("no")'
RESET = 'return "Guess."'
TASKS = 'return [Task(f"{split}-0", {})]'
INIT = "self.highest = highest"
METHODS = "expected the methods tasks, reset and step"
INSTALL = "needs the module 'quasidice'; install it with: pip install quasidice"
RESULT = "expected StepResult(observation, reward, done)"


def mistake_of(folder: Path, source: str, target: str = "", **options: object) -> str:
    """The message of the mistake that making this environment is, with the folder's name left out."""
    path = folder / "guess.py"
    path.write_text(source)
    with pytest.raises(Mistake) as caught:
        find(f"{path}{target}").make(**options)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "class Guess(Environment)",
            "class Guess",
            "guess.py: the file defines no environment, only Guess; expected a class that inherits from agentloop.Environment",
        ),
        ("def step(", "def stepp(", f"guess.py: class Guess does not define step(); {METHODS}; did you mean 'stepp'?"),
        ("def tasks(", "def problems(", f"guess.py: class Guess does not define tasks(); {METHODS}"),
        (RESET, "return = 3", "guess.py:11: the environment's file does not parse: invalid syntax"),
        (
            "class Guess",
            "LIMIT = HIGHEST\n\nclass Guess",
            "guess.py:4: the environment's file does not import: NameError: name 'HIGHEST' is not defined",
        ),
        ("class Guess", "import quasidice\n\nclass Guess", f"guess.py:4: the environment {INSTALL}"),
        (INIT, "import quasidice", f"environment 'guess.py' {INSTALL}"),
        (
            STEP,
            f"{STEP}\n\nclass Dice(Guess): pass\n\nclass Cards(Guess): pass",
            "guess.py: the file defines 2 environments (Dice, Cards); expected one; say which, for example guess.py:Dice",
        ),
        (INIT, "raise ValueError('too small')", "guess.py:7: environment 'guess.py' refuses its options (): too small"),
    ],
)
def test_an_environment_that_cannot_be_made_is_a_mistake(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SOUND
    assert mistake_of(tmp_path, SOUND.replace(old, new)) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"higest": 5}, "unknown option 'higest' of environment 'guess.py'; expected one of highest; did you mean 'highest'?"),
        (
            {"highest": "x"},
            "option 'highest' of environment 'guess.py': input should be a valid integer, unable to parse string as an integer",
        ),
        ({"highest": 5, "seed": 1}, "unknown option 'seed' of environment 'guess.py'; expected one of highest"),
    ],
)
def test_options_that_do_not_fit_are_mistakes(tmp_path: Path, options: dict[str, object], message: str) -> None:
    assert mistake_of(tmp_path, SOUND, **options).removesuffix("; found 'x'") == message


@pytest.mark.parametrize(
    ("id", "options", "message"),
    [
        ("textcraft", {"depth": 9}, "'depth' of environment 'textcraft': input should be 1, 2, 3 or 4; found 9"),
        ("textcraft", {"depth": [1, 7]}, "'depth' of environment 'textcraft': input should be 1, 2, 3 or 4; found 7"),
        (
            "calculator",
            {"levels": [0, 2]},
            "'levels' of environment 'calculator': input should be greater than or equal to 1; found 0",
        ),
        (
            "calculator",
            {"kind": "storry"},
            "'kind' of environment 'calculator': input should be 'story', 'problem' or 'expression'; found 'storry'; did you mean 'story'?",
        ),
    ],
)
def test_values_that_a_declared_type_rules_out_are_told_before_anything_is_made(id: str, options: dict[str, object], message: str) -> None:
    assert [str(mistake) for _, mistake in option_mistakes(id, options)] == [f"option {message}"]


def test_an_environment_without_options_says_so(tmp_path: Path) -> None:
    source = SOUND.replace("    def __init__(self, highest: int = 10):\n        self.highest = highest\n", "")
    expected = "unknown option 'highest' of environment 'guess.py'; expected none, since it takes no options"
    assert mistake_of(tmp_path, source, highest=3) == expected


def test_an_option_that_is_missing_is_named(tmp_path: Path) -> None:
    assert mistake_of(tmp_path, SOUND.replace("highest: int = 10", "highest: int")) == "environment 'guess.py' needs the option 'highest'"


def test_a_class_that_is_not_in_the_file_is_a_mistake(tmp_path: Path) -> None:
    expected = "guess.py: there is no environment 'Gues' in guess.py; expected one of Guess; did you mean 'Guess'?"
    assert mistake_of(tmp_path, SOUND, ":Gues") == expected


def test_a_file_without_any_class_is_a_mistake(tmp_path: Path) -> None:
    expected = "guess.py: the file defines no class; expected a class that inherits from agentloop.Environment"
    assert mistake_of(tmp_path, "print") == expected


def test_a_name_that_nobody_knows_is_a_mistake_with_the_nearest() -> None:
    with pytest.raises(Mistake, match=r"unknown environment 'textcrafft'; expected one of .*textcraft.*; did you mean 'textcraft'\?"):
        find("textcrafft")


def test_a_file_that_is_not_there_is_a_mistake_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "guess.py").write_text(SOUND)
    with pytest.raises(Mistake, match=r"there is no environment file '.*gess.py'; did you mean 'guess.py'\?"):
        find("./gess.py", base=tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "kind", "message"),
    [
        (RESET, "return ('Guess.', {})", "protocol", "reset() returned tuple ('Guess.', {}), expected a string"),
        (RESET, "pass", "protocol", "reset() returned nothing (None), expected a string"),
        (RESET, "raise OSError('no such dice')", "reset", "raised OSError: no such dice (guess.py:11)"),
        (RESET, "__import__('time').sleep(30)", "timeout", "waited 1 s for reset() of environment 'guess.py', in vain"),
        (STEP, "return 'no', 0.0, False, {}", "protocol", f"step() returned tuple ('no', 0.0, False, {{}}), {RESULT}"),
        (STEP, "pass", "protocol", f"step() returned nothing (None), {RESULT}"),
        (STEP, "return StepResult(7)", "protocol", "observation of step() is int 7, expected a string"),
        (STEP, "return StepResult('', float('nan'))", "protocol", "reward of step() is float nan, expected a finite number"),
        (STEP, "return StepResult('', '1')", "protocol", "reward of step() is str '1', expected a finite number"),
        (STEP, "return StepResult('', 0.0, 'no')", "protocol", "done of step() is str 'no', expected True or False"),
        (STEP, "return StepResult('', info=['a'])", "protocol", "info of step() is list ['a'], expected a dictionary of JSON values"),
        (STEP, "return self.it", "step", "raised AttributeError: 'Guess' object has no attribute 'it' (guess.py:13)"),
        (INIT, "open('/nonexistent/dice')", "create", "could not be made: FileNotFoundError"),
        ("'''Guess.'''", "def system_prompt(self): pass", "protocol", "system_prompt() returned nothing (None), expected a string"),
        (TASKS, "return ['a']", "protocol", "tasks() holds str 'a', expected a sequence of Task(id, data)"),
        (TASKS, "yield Task('a')", "protocol", "tasks() returned generator"),
    ],
)
def test_an_environment_that_breaks_while_it_plays_is_a_failure_of_a_kind(
    tmp_path: Path, old: str, new: str, kind: str, message: str
) -> None:
    assert old in SOUND
    (tmp_path / "guess.py").write_text(SOUND.replace(old, new))

    async def play() -> None:
        async with EnvironmentPool(find(str(tmp_path / "guess.py")), step_timeout=1.0) as pool:
            try:
                async with pool.instance() as player:
                    task = (await player.tasks("train"))[0]
                    await player.reset(task)
                    await player.step("1")
            finally:
                assert pool.failures == {f"environment.{kind}": 1}

    with pytest.raises(EnvironmentFailure) as caught:
        asyncio.run(play())
    assert caught.value.kind == f"environment.{kind}"
    assert message in str(caught.value).replace(f"{tmp_path}/", "")
