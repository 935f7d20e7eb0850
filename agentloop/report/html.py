"""`report.html` and the page of a tree: files without scripts, that open offline, with all text of models and environments escaped.

What can be folded is a `<details>` element, and what the map of a tree links to unfolds by itself when it is gone to, so nothing needs a
script.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from agentloop.report.collect import collect_examples, collect_marks, collect_trees, find_tree
from agentloop.report.plot import success_plot
from agentloop.report.summary import Summary, summarise
from agentloop.report.trajectory import Decode, Example
from agentloop.report.tree_map import tree_map
from agentloop.report.tree_view import TreeView, tree_view
from agentloop.run.artifact import write_text
from agentloop.run.directory import RunDirectory

Groups = Sequence[tuple[str, Sequence[Example]]]
"""Example trajectories under headings."""

Trees = Sequence[tuple[str, Sequence[TreeView]]]
"""Trees under headings."""


def write_report(directory: RunDirectory, decode: Decode) -> Path:
    """Write `report.html` of a run as it stands now, atomically, and return its path."""
    marks = collect_marks(directory)
    groups, trees = collect_examples(directory, marks, decode), collect_trees(directory, marks, decode)
    write_text(directory.report, render(summarise(directory), groups, trees))
    return directory.report


def write_tree(directory: RunDirectory, name: str, decode: Decode) -> Path:
    """Write the page of one tree of a run, named by its id or its task, and return its path. Raises `Mistake` if there is none."""
    tree = find_tree(directory, name)
    path = directory.tree_page(tree.id)
    path.parent.mkdir(exist_ok=True)
    write_text(path, render_tree(tree_view(tree, collect_marks(directory), decode)))
    return path


def render(summary: Summary, groups: Groups, trees: Trees = ()) -> str:
    """The report as HTML text."""
    success = summary.of("success")
    times = sorted(summary.seconds.items(), key=lambda item: -item[1])
    return _render(
        "report.html",
        summary=summary,
        success=success,
        plot=success_plot(success),
        times=times,
        longest=max([seconds for _, seconds in times], default=1.0) or 1.0,
        groups=groups,
        trees=trees,
    )


def render_tree(view: TreeView) -> str:
    """The page of one tree as HTML text."""
    return _render("tree_page.html", view=view)


def _render(template: str, **values: Any) -> str:
    folder = Path(__file__).parent / "templates"
    jinja = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return jinja.get_template(template).render(tree_map=tree_map, **values)
