"""The command line as a user meets it: help at once, one message an error, an exit code that says whose fault it was."""

from __future__ import annotations

import importlib
import subprocess
import sys

import click
import pytest

from agentloop.cli import main as command_line
from agentloop.cli.main import COMMANDS, cli, run
from agentloop.errors import Mistake, RunFailed


def play(monkeypatch: pytest.MonkeyPatch, body: object) -> None:
    """Let the command `run` do `body` instead of its work."""

    @click.command()
    @click.argument("words", nargs=-1)
    def command(words: tuple[str, ...]) -> object:
        if isinstance(body, BaseException):
            raise body
        return body

    monkeypatch.setattr(cli, "get_command", lambda context, name: command)


def test_help_names_every_command_and_imports_none() -> None:
    program = (
        "import sys; from agentloop.cli.main import run; code = run(['--help']); "
        "print(code, sorted(name for name in sys.modules if name.startswith('agentloop.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    *text, last = done.stdout.splitlines()
    for name, line in COMMANDS.items():
        assert any(name in printed and line in printed for printed in text)
    assert last == "0 ['agentloop.cli', 'agentloop.cli.main', 'agentloop.errors']"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module(f"agentloop.cli.{name}")
    assert run([name, "--help"]) == 0
    assert f"Usage: agentloop {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rnu"], "agentloop: unknown command 'rnu'; did you mean 'run'?; see agentloop --help"),
        (["zzz"], "agentloop: unknown command 'zzz'; expected one of run, eval, compare, show, env, doctor; see agentloop --help"),
        (["run"], "agentloop: Missing argument 'RECIPE'; see agentloop run --help"),
        (["run", "x.yaml", "--dry-rum"], "agentloop: No such option '--dry-rum'"),
        (["env", "lst"], "agentloop: No such command 'lst'"),
        (["--verison"], "agentloop: No such option '--verison'"),
    ],
)
def test_a_mistyped_command_is_one_line_and_exit_code_2(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1 and shown.err.startswith(says)


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (Mistake("unknown key 'a'", file="r.yaml", line=3, nearest="b"), 2, "agentloop: r.yaml:3: unknown key 'a'; did you mean 'b'?"),
        (RunFailed("the disk is full"), 1, "agentloop: the disk is full"),
    ],
)
def test_an_error_is_its_message_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int, says: str
) -> None:
    play(monkeypatch, error)
    assert run(["run", "r.yaml"]) == code
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", says + "\n")


def test_an_interruption_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    play(monkeypatch, KeyboardInterrupt())
    assert run(["run", "my recipe.yaml"]) == 130
    assert "To go on: agentloop run 'my recipe.yaml'" in capsys.readouterr().err
    assert run(["show", "x"]) == 130
    assert "To go on" not in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        run(["run"])


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_what_a_command_returns_is_the_exit_code(monkeypatch: pytest.MonkeyPatch, returned: int | None, code: int) -> None:
    play(monkeypatch, returned)
    with pytest.raises(SystemExit) as caught:
        command_line.main(["run"])
    assert caught.value.code == code
