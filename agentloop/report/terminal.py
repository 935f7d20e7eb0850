"""The summary that the terminal shows when a run ends: the report in short."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from agentloop.report.summary import Summary


def print_summary(summary: Summary, console: Console) -> None:
    """Print success by adapter with intervals, the time and tokens by kind of work, and the failures by kind."""
    table = Table(title=f"{summary.name}: {summary.model} in {summary.environment}", title_justify="left")
    for column, justify in (
        ("adapter", "left"),
        ("split", "left"),
        ("success", "right"),
        ("95 % interval", "right"),
        ("episodes", "right"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]  # rich's literal type is not exported
    for point in summary.of("success"):
        table.add_row(point.adapter, point.split, f"{100 * point.value:.1f} %", point.interval, str(point.n))
    console.print(table)
    if summary.seconds:
        times = sorted(summary.seconds.items(), key=lambda item: -item[1])
        _line(console, "time", (f"{kind} {seconds:.0f} s" for kind, seconds in times))
    if summary.tokens:
        _line(console, "tokens", (f"{kind} {count:,}" for kind, count in sorted(summary.tokens.items())))
    if summary.failures:
        _line(console, "[red]failures[/red]", (f"{kind} {count}" for kind, count in summary.failures.items()))


def _line(console: Console, name: str, parts: Iterable[str]) -> None:
    console.print(f"{name}: {', '.join(parts)}", highlight=False, soft_wrap=True)
