"""`agentloop`: finds the command, and turns every error into one message and an exit code, here and nowhere else.

Exit code 0 is success, 1 a run that failed, 2 a mistake of the user's, 130 an interruption. Commands are imported when they are asked for;
their lines in `--help` are written here for that reason, and a test holds them against the commands.
"""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import click

from agentloop import __version__
from agentloop.errors import AgentloopError, nearest

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it (128 + SIGINT)."""

COMMANDS: dict[str, str] = {
    "run": "Run a recipe, or go on with a run that stopped.",
    "eval": "Score a model or an adapter on a benchmark.",
    "compare": "Hold results of evaluations against each other.",
    "show": "Open the report of a run, and its trajectories.",
    "env": "List, scaffold and check environments.",
    "doctor": "Say what this machine can run, and what is missing.",
}
"""Every command and its line in the help; `agentloop.cli.NAME` holds it as `command`, or under its name."""

RESUMABLE = ("run", "eval")
"""Commands that go on where they stopped when they are given again."""


class LazyGroup(click.Group):
    """A group whose commands are modules of `agentloop.cli`, imported only when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"agentloop.cli.{cmd_name}")
        command: click.Command = getattr(module, "command", None) or getattr(module, cmd_name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is a usage error that names the nearest."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            like = nearest(name, COMMANDS)
            hint = f"did you mean {like!r}?" if like else f"expected one of {', '.join(COMMANDS)}"
            raise click.UsageError(f"unknown command {name!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="agentloop")
def cli() -> None:
    """Language-model agents that improve themselves from their own experience.

    Start with `agentloop run recipes/quickstart.yaml`.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script: run the command and leave with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run(words))


def run(words: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are printed to stderr, bugs keep their traceback."""
    try:
        returned: Any = cli.main(args=list(words), prog_name="agentloop", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        click.echo(_interrupted(words), err=True)
        return INTERRUPTED
    except AgentloopError as error:
        click.echo(f"agentloop: {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        _show(error)
        return error.exit_code
    return returned if isinstance(returned, int) else 0


def _show(error: click.ClickException) -> None:
    context = getattr(error, "ctx", None)
    if isinstance(error, click.exceptions.NoArgsIsHelpError) or context is None:
        error.show()
        return
    message = error.format_message().rstrip(".")
    click.echo(f"agentloop: {message}; see {context.command_path} --help", err=True)


def _interrupted(words: Sequence[str]) -> str:
    if words and words[0] in RESUMABLE:
        return f"\nstopped; nothing that was finished is lost. To go on: {shlex.join(['agentloop', *words])}"
    return "\nstopped"


if __name__ == "__main__":
    main()
