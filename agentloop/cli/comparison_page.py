"""The page of `agentloop compare --html`: one file without scripts, with all names and texts escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import agentloop.report
from agentloop.cli.score_table import is_share, title_of
from agentloop.evaluation.comparison import Comparison, Result

WIDTH, LEFT, ROW = 640, 200, 26
"""Pixels of the drawing of intervals: its width, where the axis begins, and the height of a row."""


class Mark(NamedTuple):
    """One interval of the drawing, in pixels."""

    name: str
    y: float
    low: float
    high: float
    value: float
    told: str


def comparison_page(groups: Mapping[str, Sequence[Result]], compared: Mapping[str, Sequence[Comparison]]) -> str:
    """The page as HTML text, a section a benchmark."""
    folder = Path(agentloop.report.__file__).parent / "templates"
    jinja = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    sections = [_section(name, results, compared[name]) for name, results in groups.items()]
    return jinja.get_template("comparison.html").render(sections=sections, width=WIDTH, left=LEFT, right=WIDTH - 60)


def _section(name: str, results: Sequence[Result], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    names = list(dict.fromkeys(name for result in results for name in result.measurements))
    rows = [(title_of(name), [told(name, result.measurements.get(name)) for result in results]) for name in names]
    rows.append(("seconds", [told("seconds", result.about["expenses"].get("seconds")) for result in results]))
    if any("cost" in result.about["expenses"] for result in results):
        rows.append(("cost", [_cost(result) for result in results]))
    return {
        "name": name,
        "results": results,
        "rows": rows,
        "marks": _marks(results),
        "height": ROW * len(results) + 30,
        "comparisons": [
            {
                "first": comparison.first.name,
                "second": comparison.second.name,
                "counts": (comparison.better, comparison.worse, comparison.equal),
                "warnings": comparison.warnings,
                "rows": [
                    (
                        title_of(name),
                        told(name, {"value": found.value, "low": found.low, "high": found.high}, sign="+"),
                        "" if found.p_value is None else "<0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}",
                        found.p_value is not None and found.p_value < 0.05,
                    )
                    for name, found in comparison.differences.items()
                ],
            }
            for comparison in comparisons
        ],
    }


def told(name: str, found: Mapping[str, Any] | None, *, sign: str = "") -> str:
    """A number with its interval, in percent where it is a share."""
    if found is None:
        return "–"
    scale, digits = (100, 1) if is_share(name) else (1, 2)
    value, low, high = (None if found[end] is None else f"{scale * found[end]:{sign}.{digits}f}" for end in ("value", "low", "high"))
    return f"{value}" if low is None else f"{value} ({low} to {high})"


def _cost(result: Result) -> str:
    cost = result.about["expenses"].get("cost")
    return "–" if cost is None else f"{cost['total']:.4f}"


def _marks(results: Sequence[Result]) -> list[Mark]:
    """Success of each result on an axis from 0 to 100 %."""
    marks = []
    for index, result in enumerate(results):
        found = result.measurements.get("success")
        if found is None:
            continue
        low, high = (found["value"] if found[end] is None else found[end] for end in ("low", "high"))
        x_low, x_high, x = (LEFT + share * (WIDTH - 60 - LEFT) for share in (low, high, found["value"]))
        marks.append(Mark(result.name, ROW * index + 18, x_low, x_high, x, told("success", found)))
    return marks
