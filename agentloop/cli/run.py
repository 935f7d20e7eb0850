"""`agentloop run RECIPE`: runs a recipe, or goes on with it where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from agentloop.recipe.recipe import Recipe


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Directory of the run; by default runs/NAME.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Set a value of the recipe; stages by their id. May be repeated.")
@click.option("--dry-run", is_flag=True, help="Check the recipe, show it resolved and its plan, and run nothing.")
@click.option("--quiet", is_flag=True, help="No progress line and no summary.")
def command(recipe: Path, out: Path | None, overrides: tuple[str, ...], dry_run: bool, quiet: bool) -> None:
    """Run RECIPE, a YAML file.

    The same command on the same directory goes on where the run stopped; nothing that was finished is done again.
    """
    from agentloop.environment.registry import names, option_mistakes
    from agentloop.recipe import load

    loaded = load(recipe, overrides, environments=names(), option_mistakes=option_mistakes)
    if dry_run:
        _show(loaded)
        return
    directory = out if out is not None else Path("runs") / loaded.name
    _run(loaded, directory, quiet=quiet)


def _show(recipe: Recipe) -> None:
    """Print the resolved recipe and its plan."""
    from agentloop.recipe import plan, resolved_yaml

    click.echo(resolved_yaml(recipe))
    click.echo(str(plan(recipe)))


def _run(recipe: Recipe, out: Path, *, quiet: bool) -> None:
    """Run in `out`, then write the report and show it in short."""
    from agentloop.cli.interrupt import run_until_interrupted
    from agentloop.cli.narrate import Narrator
    from agentloop.loop.context import Context
    from agentloop.loop.runner import run_recipe
    from agentloop.model import resolve
    from agentloop.recipe import resolved_yaml
    from agentloop.report.html import write_report
    from agentloop.report.summary import summarise
    from agentloop.report.terminal import print_summary
    from agentloop.run.artifact import write_text
    from agentloop.run.directory import locked

    narrator = Narrator(quiet=quiet)
    with locked(out) as directory:
        context = Context(recipe, directory, resolve(recipe.model), quiet=quiet)
        if not directory.recipe.exists():
            write_text(directory.recipe, resolved_yaml(recipe))
        try:
            run_until_interrupted(run_recipe(recipe, context, narrator), how_to_go_on=f"run the same command again to go on in {out}")
        finally:
            if any(True for _ in directory.journal.finished_entries()):
                report = write_report(directory, context.renderer.decode)
                if not quiet:
                    print_summary(summarise(directory), narrator.console)
                    narrator.console.print(f"report: {report}", highlight=False, soft_wrap=True)
