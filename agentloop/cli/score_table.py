"""The scores of an evaluation as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

PERCENT = frozenset({"success", "failures"})


def is_share(name: str) -> bool:
    """Whether a measurement is told in percent."""
    return name in PERCENT or name.startswith(("pass@", "maj@"))


def title_of(name: str) -> str:
    """A measurement's name in a table."""
    return f"{name} %" if is_share(name) else name


def score_table(found: Mapping[str, Any]) -> Table:
    """A row a measurement, a column a subject ("adapter", "base"), and their paired difference; from the contents of `results.json`."""
    asked, subjects = found["configuration"], found["results"]
    title = f"{Path(asked['benchmark']).name}, {asked['split']}: {Path(asked['model']).name}"
    caption = "95 % intervals, clustered by task"
    table = Table(title=escape(title), caption=caption, title_justify="left", caption_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for subject, result in subjects.items():
        table.add_column(escape(f"{subject}\n{_size(result)}"), justify="right", no_wrap=True)
    differences: Mapping[str, Any] = next(iter(found["differences"].values()), {})
    if differences:
        table.add_column("difference", justify="right", no_wrap=True)
        table.add_column("p", justify="right", no_wrap=True)
    measured = {
        subject: {measurement["name"]: measurement for measurement in result["measurements"]} for subject, result in subjects.items()
    }
    for name in dict.fromkeys(name for by_name in measured.values() for name in by_name):
        row = [number(name, by_name.get(name)) for by_name in measured.values()]
        if differences:
            row += [number(name, differences.get(name), sign="+"), p_value(differences.get(name))]
        table.add_row(title_of(name), *row)
    blank = [""] * (2 if differences else 0)
    expenses = [result.get("expenses", {}) for result in subjects.values()]
    if any("seconds" in expense for expense in expenses):
        table.add_row("seconds", *(number("seconds", expense.get("seconds")) for expense in expenses), *blank)
    if any("cost" in expense for expense in expenses):
        table.add_row("cost", *(f"{expense['cost']['total']:.4f}" if "cost" in expense else "-" for expense in expenses), *blank)
    return table


def _size(result: Mapping[str, Any]) -> str:
    success = next((measurement for measurement in result["measurements"] if measurement["name"] == "success"), None)
    return "no episodes" if success is None else f"{success['n']} on {success['tasks']} tasks"


def number(name: str, found: Mapping[str, Any] | None, *, sign: str = "") -> str:
    """A measurement or a difference with its interval, as markup."""
    if found is None:
        return "-"
    scale, digits = (100, 1) if is_share(name) else (1, 2)

    def shown(value: float) -> str:
        return f"{scale * value:{sign}.{digits}f}"

    if found["low"] is None:
        return shown(found["value"])
    return f"{shown(found['value'])} \\[{shown(found['low'])}, {shown(found['high'])}]"


def p_value(difference: Mapping[str, Any] | None) -> str:
    """The p-value of a difference; "-" where there is none."""
    if difference is None or difference["p_value"] is None:
        return "-"
    return "<.001" if difference["p_value"] < 0.001 else f"{difference['p_value']:.3f}"
