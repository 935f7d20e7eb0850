"""`agentloop compare A B ...`: results of evaluations side by side, and the first against each of the others by a paired test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from agentloop.evaluation.comparison import Comparison, Result


@click.command("compare")
@click.argument("paths", metavar="RESULTS...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with all of it, which opens without a server.")
def command(paths: tuple[Path, ...], html: Path | None) -> None:
    """Compare RESULTS, folders that `agentloop eval` made or their results.json.

    For each benchmark there is a column a result, and the paired difference of the first and each other on the tasks that both have, with
    its 95 % interval and p-value.
    """
    from rich.console import Console

    from agentloop.cli.comparison_page import comparison_page
    from agentloop.evaluation.comparison import by_benchmark, compare_results, read_results
    from agentloop.run.artifact import write_text

    groups = by_benchmark(read_results(paths))
    compared = {name: [compare_results(results[0], other) for other in results[1:]] for name, results in groups.items()}
    console = Console()
    for name, results in groups.items():
        console.print(_values(name, results))
        for comparison in compared[name]:
            console.print(_differences(comparison))
            for warning in comparison.warnings:
                console.print(f"note: {warning}", markup=False, highlight=False, soft_wrap=True)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        write_text(html, comparison_page(groups, compared))
        console.print(str(html), markup=False, highlight=False, soft_wrap=True)


def _values(benchmark: str, results: Sequence[Result]) -> Table:
    """A row a measurement, a column a result."""
    from rich.markup import escape
    from rich.table import Table

    from agentloop.cli.score_table import number, title_of

    caption = "95 % intervals, clustered by task"
    table = Table(title=escape(benchmark), caption=caption, title_justify="left", caption_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for result in results:
        table.add_column(escape(result.name), justify="right")
    for name in dict.fromkeys(name for result in results for name in result.measurements):
        table.add_row(title_of(name), *(number(name, result.measurements.get(name)) for result in results))
    seconds = [result.about["expenses"].get("seconds") for result in results]
    if any(seconds):
        table.add_row("seconds", *(number("seconds", found) for found in seconds))
    return table


def _differences(comparison: Comparison) -> Table:
    """The first less the second."""
    from dataclasses import asdict

    from rich.markup import escape
    from rich.table import Table

    from agentloop.cli.score_table import number, p_value, title_of

    tasks = comparison.better + comparison.worse + comparison.equal
    verdict = f"better on {comparison.better} of {tasks} tasks, worse on {comparison.worse}, as good on {comparison.equal}"
    title = f"{comparison.first.name} less {comparison.second.name}: {verdict}"
    table = Table(title=escape(title), title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("", "difference", "p"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, difference in comparison.differences.items():
        found = asdict(difference)
        table.add_row(title_of(name), number(name, found, sign="+"), p_value(found))
    return table
