"""`agentloop show RUN`: opens the report of a run, finished or not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from agentloop.report.trajectory import Decode
    from agentloop.run.directory import RunDirectory


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--tree", metavar="TASK", help="Open the page of one tree instead: the newest of a task, or the one of an id.")
@click.option("--no-open", is_flag=True, help="Write the page and say where it is, without opening a browser.")
def command(run: Path, tree: str | None, no_open: bool) -> None:
    """Open the report of RUN, the directory of a run, and show it in short.

    The report is written anew from what is on disk, so it can be looked at while the run goes on. It draws a few trees; --tree draws any.
    """
    from rich.console import Console

    from agentloop.errors import Mistake
    from agentloop.report.html import write_report, write_tree
    from agentloop.report.summary import summarise
    from agentloop.report.terminal import print_summary
    from agentloop.run.directory import RunDirectory

    if not (run / "journal.jsonl").is_file():
        raise Mistake("not the directory of a run", file=str(run), expected="a directory with journal.jsonl, as `agentloop run` makes it")
    directory = RunDirectory(run)
    if tree is not None:
        page = write_tree(directory, tree, _decoder(directory))
        click.echo(f"tree: {page}")
    else:
        page = write_report(directory, _decoder(directory))
        print_summary(summarise(directory), Console())
        click.echo(f"report: {page}")
    if not no_open and sys.stdout.isatty():
        click.launch(page.as_uri())


def _decoder(directory: RunDirectory) -> Decode:
    """Ids to text, by the tokenizer of the run's model."""
    from transformers import AutoTokenizer

    from agentloop.model import resolve
    from agentloop.recipe import load
    from agentloop.trace.render import Renderer

    recipe = load(directory.recipe, allow_unavailable=True)
    return Renderer(AutoTokenizer.from_pretrained(resolve(recipe.model).path)).decode
